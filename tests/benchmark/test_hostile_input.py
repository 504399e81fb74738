"""What clumsy and hostile users give to be scored: functions that work in place, names, paths and files of any kind."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.benchmark.results import make_result
from tests.cli.commands import Command
from tests.train.advection import NAME
from tests.train.test_loop import configure
from wellkit.benchmark import leaderboard
from wellkit.benchmark.evaluate import evaluate
from wellkit.benchmark.results import load_result, save_result
from wellkit.errors import (
    ArgumentError,
    DataNotFoundError,
    DocumentError,
    PredictionsError,
    ScoreError,
    StorageError,
    TrainingError,
)
from wellkit.fetch.disk import write_atomically
from wellkit.train import train


def half(window: Tensor, constants: Tensor | None) -> Tensor:
    return 0.5 * window[:, -1]


class OneBuffer:
    """`half`, written into the same memory every time, as captured graphs do."""

    def __init__(self) -> None:
        self._buffers: dict[int, Tensor] = {}

    def predict(self, window: Tensor, constants: Tensor | None) -> Tensor:
        buffer = self._buffers.setdefault(len(window), torch.empty_like(window[:, -1]))
        return buffer.copy_(half(window, constants))


def ruinous(window: Tensor, constants: Tensor | None) -> Tensor:
    """`half`, which leaves nothing of what it was shown."""
    state = half(window, constants)
    window.fill_(torch.nan)
    return state


@pytest.mark.parametrize("model", [ruinous, OneBuffer().predict], ids=["ruins its input", "answers from one buffer"])
def test_memory_that_a_function_uses_again_changes_no_score(advection: Path, tmp_path: Path, model: Any) -> None:
    plain = evaluate(half, data=advection, dataset=NAME, device="cpu")
    found = evaluate(model, data=advection, dataset=NAME, device="cpu", save_predictions=tmp_path / "predictions")
    assert (found.one_step, found.rollout, found.example) == (plain.one_step, plain.rollout, plain.example)
    assert leaderboard.first_difference(evaluate(tmp_path / "predictions", data=advection, device="cpu"), plain) is None


@pytest.mark.parametrize(
    "made",
    [lambda values: values.astype(">f4"), lambda values: np.ascontiguousarray(values[::-1])[::-1],
     lambda values: values.astype(np.float64)],
    ids=["big-endian", "negative strides", "float64"],
)  # fmt: skip
def test_arrays_of_any_layout_are_scored(advection: Path, made: Any) -> None:
    plain = evaluate(half, data=advection, dataset=NAME, device="cpu")
    found = evaluate(lambda w, c: made(half(w, c).numpy()), data=advection, dataset=NAME, device="cpu")
    assert (found.one_step, found.rollout) == (plain.one_step, plain.rollout)


@pytest.mark.parametrize(
    ("made", "told"),
    [
        (lambda state: state.numpy().astype(object), "ndarray of object"),
        (lambda state: state.numpy().astype(str), "ndarray of <U"),
        (lambda state: state.numpy().astype(complex), "ndarray of complex128"),
        (lambda state: np.ma.masked_array(state.numpy(), mask=True), "MaskedArray of float32"),
        (lambda state: state.to(torch.complex64), r"tensor of torch.complex64"),
        (lambda state: state.to_sparse(), r"torch.sparse_coo"),
    ],
)
def test_what_is_no_array_of_real_numbers_is_refused(advection: Path, made: Any, told: str) -> None:
    with pytest.raises(ScoreError, match=f"mine returned a .*{told}.*; expected a dense tensor or array of real"):
        evaluate(lambda w, c: made(w[:, -1]), name="mine", data=advection, dataset=NAME, device="cpu")


@pytest.mark.parametrize("name", ["two\nlines", "\x1b[31mred", " ", "x" * 201, "\ud800"])
def test_names_that_no_table_can_show_are_refused_before_anything_is_scored(advection: Path, name: str) -> None:
    with pytest.raises(ArgumentError, match="give one line of 1 to 200 printable characters"):
        evaluate(half, name=name, data=advection, dataset=NAME)


def test_names_are_no_markup(
    advection: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wellkit: Command
) -> None:
    (tmp_path / "of_markup.py").write_text("def last(window, constants):\n    return window[:, -1]\n")
    monkeypatch.chdir(tmp_path)
    done = wellkit("evaluate", "of_markup:last", "--name", "[/b][x]", "--dataset", NAME, "--data", advection)
    assert done.returncode == 0
    assert "[/b][x] on advection" in done.stdout


@pytest.mark.parametrize(
    ("model", "why"),
    [
        (".", "no checkpoint here"),
        ("/", "no checkpoint here"),
        ("", "neither a baseline"),
        ("x" * 5000, "neither a baseline"),
        ("x/" * 3000, "no such run or checkpoint folder"),
    ],
    ids=[".", "/", "nothing", "a long name", "a long path"],
)
def test_paths_without_a_model(
    model: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wellkit: Command
) -> None:
    monkeypatch.chdir(tmp_path)
    assert why in wellkit.refused("evaluate", model)


def test_targets_without_a_name(tmp_path: Path) -> None:
    for target in ("", "/"):
        with pytest.raises(StorageError, match="give the name of a file"):
            write_atomically(Path(target), b"")
    with pytest.raises(StorageError, match="File name too long"):
        leaderboard.add([make_result("fno")], tmp_path / ("x" * 300))
    assert not list(tmp_path.iterdir())


def test_documents_nested_without_end(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.json"
    path.write_text("[" * 100_000)
    for read in (load_result, leaderboard.read, lambda given: leaderboard.add([given], tmp_path / "board.jsonl")):
        with pytest.raises(DocumentError, match=r"not (a )?JSON"):
            read(path)
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(TrainingError, match=r"checkpoint\.json: damaged"):
        evaluate(tmp_path)


def test_only_predictions_are_taken_for_predictions(
    advection: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a checkpoint nor a module is: a board's keeper runs nobody's network, and nobody's code."""
    train(configure(advection, epochs=1), tmp_path / "run")
    save_result(evaluate(tmp_path / "run", device="cpu"), tmp_path / "run.json")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "of_a_sender.py").write_text("raise SystemExit('ran')")
    for given, why in (("run", "no folder of predictions"), ("of_a_sender:model", "no such predictions")):
        with pytest.raises((PredictionsError, DataNotFoundError), match=why):
            leaderboard.add([tmp_path / "run.json"], "board.jsonl", predictions=given, data=advection)
    assert not Path("board.jsonl").exists()
    # A folder may have the name of a baseline.
    kept = evaluate(half, data=advection, dataset=NAME, device="cpu", save_predictions="persistence")
    added = leaderboard.add([kept], "board.jsonl", predictions="persistence", data=advection)
    assert added.recomputed == (kept.id,)
    assert json.loads(Path("board.jsonl").read_text())["verification"]["predictions_sha256"]


def test_a_pipe_in_place_of_an_array_is_not_waited_for(advection: Path, tmp_path: Path) -> None:
    evaluate(half, data=advection, dataset=NAME, device="cpu", save_predictions=tmp_path / "predictions")
    (tmp_path / "predictions/rollout/000000.npy").unlink()
    os.mkfifo(tmp_path / "predictions/rollout/000000.npy")
    with pytest.raises(PredictionsError, match=r"000000\.npy: is not a file"):
        evaluate(tmp_path / "predictions", data=advection)


def test_boards_written_by_other_tools(tmp_path: Path) -> None:
    """Unescaped, JSON may hold what Python takes for the end of a line."""
    leaderboard.add([make_result("fno", model={"url": "https://example.org/a\u2028b"})], tmp_path / "board.jsonl")
    line = json.dumps(json.loads((tmp_path / "board.jsonl").read_text()), ensure_ascii=False)
    (tmp_path / "board.jsonl").write_text(line + "\r\n", newline="")
    assert len(leaderboard.read(tmp_path / "board.jsonl")) == 1


def test_streams_that_are_closed_from_the_beginning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wellkit: Command
) -> None:
    leaderboard.add([make_result("fno")], tmp_path / "board.jsonl")
    monkeypatch.setattr("sys.stdout", None)
    assert wellkit("leaderboard", "show", "--board", tmp_path / "board.jsonl").returncode == 0
