"""The board: what is let in, what is refused, what becomes recomputed, and that nothing is lost."""

from __future__ import annotations

import errno
import json
import math
import multiprocessing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.benchmark.results import make_result
from tests.train.advection import NAME
from wellkit.benchmark import leaderboard
from wellkit.benchmark.evaluate import evaluate
from wellkit.benchmark.results import save_result
from wellkit.errors import DataNotFoundError, DocumentError, DocumentVersionError, ScoreError, StorageError
from wellkit.schemas.board import BoardEntry, Verification
from wellkit.schemas.result import Result


def recomputed(result: Result) -> BoardEntry:
    """An entry as it is after its predictions were scored again."""
    verification = Verification(
        predictions_sha256="p",
        content_sha256=result.data.content_sha256,
        code_version="0",
        hardware="none",
        created="2026-01-01T00:00:00+00:00",
    )
    return BoardEntry(schema_=BoardEntry.schema_name(), result=result, verification=verification, added="2026-01-01")


def write_board(path: Path, *entries: BoardEntry) -> Path:
    path.write_text("".join(json.dumps(entry.to_mapping()) + "\n" for entry in entries))
    return path


def moves(window: Any, constants: Any) -> Any:
    """Half of the last state: a model as simple as they come."""
    return 0.5 * window[:, -1]


@pytest.fixture(scope="module")
def scored(advection: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Result, Path]:
    """A result and the predictions it was scored from."""
    folder = tmp_path_factory.mktemp("scored") / "predictions"
    result = evaluate(
        moves, data=advection, dataset=NAME, name="half", protocol="wellkit-1", device="cpu", save_predictions=folder
    )
    return result, folder


def test_self_reported_results_are_held(tmp_path: Path) -> None:
    board = tmp_path / "deep" / "board.jsonl"
    results = [make_result("fno"), make_result("unet", quality=0.2), make_result("persistence", quality=0.5)]
    done = leaderboard.add(results, board)
    assert (len(done.new), done.replaced, done.kept, done.recomputed, done.total) == (3, (), (), (), 3)
    entries = leaderboard.read(board)
    assert [entry.result for entry in entries] == results
    assert {entry.status for entry in entries} == {"self-reported"}
    again = leaderboard.add(results[:1], board)
    assert (again.new, again.replaced, again.total) == ((), (results[0].id,), 3)


def test_infinite_scores_survive_the_file(tmp_path: Path) -> None:
    result = make_result("fno", nonfinite=[1])
    leaderboard.add([result], tmp_path / "board.jsonl")
    (entry,) = leaderboard.read(tmp_path / "board.jsonl")
    assert entry.result == result
    assert entry.result.headline == math.inf


def test_tampered_results_do_not_get_in(tmp_path: Path) -> None:
    board = tmp_path / "board.jsonl"
    leaderboard.add([make_result("unet")], board)
    before = board.read_bytes()
    result = make_result("fno")
    better = result.one_step.model_copy(update={"mean": 0.01})
    for tampered in (result.model_copy(update={"one_step": better}),
                     result.model_copy(update={"one_step": better}).sealed()):  # fmt: skip
        save_result(tampered, tmp_path / "fno.json")
        with pytest.raises(ScoreError, match=r"fno\.json: .*the result is refused"):
            leaderboard.add([tmp_path / "fno.json"], board)
        with pytest.raises(ScoreError, match="result of 'fno': "):
            leaderboard.add([make_result("other"), tampered], board)
    assert board.read_bytes() == before


def test_predictions_make_it_recomputed(scored: tuple[Result, Path], advection: Path, tmp_path: Path) -> None:
    result, predictions = scored
    board = tmp_path / "board.jsonl"
    done = leaderboard.add([result], board, predictions=predictions, data=advection)
    assert done.recomputed == done.new == (result.id,)
    (entry,) = leaderboard.read(board)
    assert entry.status == "recomputed"
    assert entry.result == result
    assert entry.verification is not None
    assert entry.verification.predictions_sha256 == result.model.predictions_sha256
    assert entry.verification.content_sha256 == result.data.content_sha256
    # Sent again without predictions: equal numbers keep what is known of them.
    again = leaderboard.add([result], board)
    assert (again.kept, again.replaced, again.new) == ((result.id,), (), ())
    assert leaderboard.read(board) == [entry]


def test_a_consistent_lie_is_found_by_its_predictions(
    scored: tuple[Result, Path], advection: Path, tmp_path: Path
) -> None:
    result, predictions = scored
    one_step = result.one_step.model_copy(update={"median": result.one_step.median * 0.9})
    lie = result.model_copy(update={"one_step": one_step}).sealed()
    board = tmp_path / "board.jsonl"
    with pytest.raises(ScoreError, match=r"one_step\.median is 1\.\d+, computed again it is 1\.\d+") as refused:
        leaderboard.add([lie], board, predictions=predictions, data=advection)
    assert repr(one_step.median) in str(refused.value)
    assert repr(result.one_step.median) in str(refused.value)
    assert not board.exists()
    # By itself it gets in, unranked, but never in place of the true one.
    leaderboard.add([result], board, predictions=predictions, data=advection)
    with pytest.raises(ScoreError, match=r"holds this result as recomputed, with other numbers \(one_step\.median"):
        leaderboard.add([lie], board)
    assert leaderboard.read(board)[0].result == result


def test_predictions_of_another_model_or_other_data(
    scored: tuple[Result, Path], advection: Path, tmp_path: Path
) -> None:
    result, predictions = scored
    other = tmp_path / "other"
    evaluate("persistence", data=advection, dataset=NAME, device="cpu", save_predictions=other)
    board = tmp_path / "board.jsonl"
    with pytest.raises(ScoreError, match="was scored from the predictions"):
        leaderboard.add([result], board, predictions=other, data=advection)
    unnamed = result.model_copy(update={"model": result.model.model_copy(update={"predictions_sha256": None})}).sealed()
    with pytest.raises(ScoreError, match="computed again it is"):
        leaderboard.add([unnamed], board, predictions=other, data=advection)
    with pytest.raises(ScoreError, match="are the predictions of one result, and 2 were given"):
        leaderboard.add([result, unnamed], board, predictions=predictions, data=advection)
    assert leaderboard.add([unnamed], board, predictions=predictions, data=advection).recomputed == (unnamed.id,)


def test_what_is_said_of_the_data_is_held_against_what_was_found(
    scored: tuple[Result, Path], advection: Path, tmp_path: Path
) -> None:
    result, predictions = scored
    board = tmp_path / "board.jsonl"
    leaderboard.add([result], board, predictions=predictions, data=advection)
    first, *others = result.trajectories
    changed = first.model_copy(update={"parameters": {"made_up": 1.0}})
    model = result.model.model_copy(update={"name": "another", "predictions_sha256": "x"})
    lie = result.model_copy(update={"trajectories": (changed, *others), "model": model}).sealed()
    with pytest.raises(ScoreError, match=r"trajectories\.0\.parameters .* on the same data"):
        leaderboard.add([lie], board)


class Breaks:
    """Answers NaN in one component from its second rollout step on."""

    def predict(self, window: Any, constants: Any) -> Any:
        state = 1.2 * window[:, -1]
        state[..., 1] = torch.where(state[..., 1].abs() > state[..., 1].abs().mean(), math.nan, state[..., 1])
        return state


@pytest.mark.parametrize("protocol", ["well-2024", "wellkit-1"])
def test_a_model_that_breaks_is_held_with_its_infinities(advection: Path, tmp_path: Path, protocol: str) -> None:
    result = evaluate(
        Breaks(), data=advection, dataset=NAME, name="breaks", protocol=protocol, device="cpu",
        save_predictions=tmp_path / "predictions", rollout_steps=4,
    )  # fmt: skip
    assert (result.headline, result.one_step.nonfinite) == (math.inf, result.one_step.windows)
    board = tmp_path / "board.jsonl"
    done = leaderboard.add([result], board, predictions=tmp_path / "predictions", data=advection)
    assert done.recomputed == (result.id,)
    assert leaderboard.read(board)[0].result == result
    finite = result.one_step.model_copy(update={"mean": 0.3})
    with pytest.raises(ScoreError, match=r"one_step\.mean is 0\.3, its trajectories give inf"):
        leaderboard.add([result.model_copy(update={"one_step": finite}).sealed()], board)


@pytest.mark.parametrize("name", ["persistence", "mean"])
def test_baselines_are_scored_again_themselves(advection: Path, tmp_path: Path, name: str) -> None:
    result = evaluate(name, data=advection, dataset=NAME, device="cpu")
    board = tmp_path / "board.jsonl"
    assert leaderboard.add([result], board).recomputed == ()
    assert leaderboard.add([result], board, data=advection).recomputed == (result.id,)
    assert leaderboard.add([result], board, predictions=tmp_path, data=advection).recomputed == (result.id,)
    median = result.rollout.model_copy(update={"median": result.rollout.median * 0.9})
    with pytest.raises(ScoreError, match=r"rollout\.median"):
        leaderboard.add([result.model_copy(update={"rollout": median}).sealed()], board, data=advection)


def test_a_status_is_not_taken_from_whoever_sends_it(tmp_path: Path) -> None:
    sent = write_board(tmp_path / "sent.json", recomputed(make_result("fno")))
    leaderboard.add([sent], tmp_path / "board.jsonl")
    (entry,) = leaderboard.read(tmp_path / "board.jsonl")
    assert entry.status == "self-reported"


def test_pictures_are_those_made_here(scored: tuple[Result, Path], advection: Path, tmp_path: Path) -> None:
    result, predictions = scored
    assert result.example is not None
    false = result.example.model_copy(update={"low": -7.0})
    leaderboard.add(
        [result.model_copy(update={"example": false}).sealed()], tmp_path / "b", predictions=predictions, data=advection
    )
    assert leaderboard.read(tmp_path / "b")[0].result == result


def test_boards_are_checked(tmp_path: Path) -> None:
    board = tmp_path / "board.jsonl"
    with pytest.raises(DataNotFoundError, match="leaderboard add"):
        leaderboard.read(board)
    with pytest.raises(ScoreError, match="no results"):
        leaderboard.add([], board)
    leaderboard.add([make_result()], board)
    good = board.read_text()
    entry = json.loads(good)
    old = {**entry["result"], "schema": "wellkit/result/1"}
    newer = {**entry, "result": {**entry["result"], "schema": "wellkit/result/9"}}
    changed = json.loads(good)
    changed["result"]["one_step"]["mean"] = 0.001
    elsewhere = recomputed(make_result()).to_mapping()
    elsewhere["verification"]["content_sha256"] = "b" * 64
    for line, error, said in (
        ("{", DocumentError, "line 3: not JSON"),
        (
            json.dumps(old),
            DocumentVersionError,
            r"line 3: schema 'wellkit/result/1' is a bare result.*start a new board",
        ),
        (json.dumps(newer), DocumentVersionError, "line 3: schema 'wellkit/result/9' is of a version unknown here"),
        (json.dumps(entry | {"status": "recomputed"}), DocumentError, "line 3: unknown key 'status'"),
        (json.dumps(changed), ScoreError, "line 3: sha256"),
        (json.dumps(elsewhere), DocumentError, "line 3: the verification is of other data"),
    ):
        board.write_text(f"{good}\n{line}\n")
        with pytest.raises(error, match=said):
            leaderboard.read(board)
        with pytest.raises(error):
            leaderboard.add([make_result("mean")], board)
        assert line in board.read_text()  # a board that cannot be read is left as it is
    board.write_text(good)
    with pytest.raises(StorageError, match="cannot write"):
        leaderboard.add([make_result()], board / "below")
    with pytest.raises(DocumentError, match="give a file of JSON lines"):
        leaderboard.read(tmp_path)
    (tmp_path / "bad.json").write_text("{}")
    (tmp_path / "worse.json").write_bytes(b"\xff")
    for name, kind in (("bad", DocumentVersionError), ("worse", DocumentError), ("none", DataNotFoundError)):
        with pytest.raises(kind, match=rf"{name}\.json"):
            leaderboard.add([tmp_path / f"{name}.json"], tmp_path / "other.jsonl")
    with pytest.raises(DocumentError, match="give a result file"):
        leaderboard.add([tmp_path], tmp_path / "other.jsonl")
    assert not (tmp_path / "other.jsonl").exists()


def _add_many(board: Path, first: int) -> None:
    for number in range(first, first + 5):
        leaderboard.add([make_result(f"model {number}")], board)


def test_two_writers_lose_nothing(tmp_path: Path) -> None:
    board = tmp_path / "board.jsonl"
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_add_many, args=(board, 10 * number)) for number in range(2)]
    for process in writers:
        process.start()
    for process in writers:
        process.join()
    assert [process.exitcode for process in writers] == [0, 0]
    assert len(leaderboard.read(board)) == 10


def test_a_full_disk_leaves_the_board_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    board = tmp_path / "board.jsonl"
    leaderboard.add([make_result()], board)
    before = board.read_bytes()

    def full(path: Path, target: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(StorageError, match=r"cannot write .*the disk is full"):
        leaderboard.add([make_result("unet_convnext")], board)
    assert [file.name for file in tmp_path.iterdir()] == ["board.jsonl"]
    assert board.read_bytes() == before


def test_the_first_difference_is_named() -> None:
    result = make_result("fno")
    assert leaderboard.first_difference(result, result) is None
    off = np.nextafter(result.one_step.mean, 1)
    one_step = result.one_step.model_copy(update={"mean": float(off)})
    assert leaderboard.first_difference(result.model_copy(update={"one_step": one_step}), result) is None
    shorter = result.model_copy(update={"trajectories": result.trajectories[:1]})
    told = leaderboard.first_difference(shorter, result)
    assert told is not None
    assert told.startswith("trajectories is ")
    assert len(told) < 200
