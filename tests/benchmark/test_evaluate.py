"""Evaluation: every window, every step, whatever the batch; nothing dropped, everything recorded."""

from __future__ import annotations

import json
import math
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
import yaml
from torch import Tensor

from tests.catalog.builders import write_card
from tests.train.advection import NAME, SPEED, make_advection
from tests.train.test_loop import configure, copy_of, spoil
from wellkit.benchmark.contenders import Contender, prepare
from wellkit.benchmark.evaluate import evaluate, evaluate_contender, load_result, save_result
from wellkit.benchmark.rollout import plan_rollouts, roll_out, score_rollouts
from wellkit.errors import (
    ArgumentError,
    DataNotFoundError,
    DataValueError,
    DocumentError,
    DocumentVersionError,
    StatisticsError,
    StorageError,
    TrainingError,
    WindowError,
)
from wellkit.schemas.result import ScoredModel
from wellkit.statistics import load_statistics, statistics_hash
from wellkit.train import train
from wellkit.train.data import nan_allowed, open_split

CPU = torch.device("cpu")
COMPONENTS = ("tracer", "velocity_x", "velocity_y")


class Exact:
    """The solution itself: everything moves by SPEED."""

    def predict(self, window: Tensor, constants: Tensor | None) -> Tensor:
        return window[:, -1].roll(SPEED, dims=(1, 2))


class Breaks:
    """Persistence that answers NaN in one component from its third call on."""

    def __init__(self) -> None:
        self.calls = 0

    def predict(self, window: Tensor, constants: Tensor | None) -> Tensor:
        self.calls += 1
        state = window[:, -1].clone()
        if self.calls >= 3:
            state[0, 0, 0, 1] = math.nan
        return state


def contend(predictor: object, base: Path, *, n_steps_input: int = 4, split: str = "test") -> Contender:
    windows = open_split(NAME, str(base), split, n_steps_input=n_steps_input)
    described = ScoredModel(name="made up", kind="network", n_steps_input=n_steps_input)
    return Contender(predictor, described, NAME, str(base), split, windows, nan_allowed(windows), CPU)  # type: ignore[arg-type]


def frames(base: Path, split: str = "test", file: int = 0) -> np.ndarray:
    """(trajectory, step, x, y, component) straight from the file."""
    with h5py.File(base / NAME / "data" / split / f"{NAME}_{file}.hdf5") as shard:
        tracer, velocity = shard["t0_fields/tracer"][:], shard["t1_fields/velocity"][:]
    return np.concatenate([tracer[..., None], velocity], axis=-1)


def vrmse_by_hand(prediction: np.ndarray, target: np.ndarray, eps: float = 1e-7) -> np.ndarray:
    """Over axes -3 and -2, written out in long double."""
    x, y = prediction.astype(np.longdouble), target.astype(np.longdouble)
    error = ((x - y) ** 2).mean(axis=(-3, -2))
    variance = y.var(axis=(-3, -2), ddof=1)
    return np.asarray(np.sqrt(error / (variance + np.longdouble(eps))), dtype=float)


def test_persistence_by_hand(advection: Path) -> None:
    result = evaluate("persistence", data=advection, dataset=NAME, device="cpu")
    y = frames(advection)  # 2 trajectories of 10 frames: 6 windows each
    one_step = vrmse_by_hand(y[:, 3:9], y[:, 4:])
    assert result.one_step.windows == one_step[..., 0].size == 12
    assert result.one_step.mean == pytest.approx(one_step.mean(), rel=1e-9)
    assert result.one_step.median == pytest.approx(np.median(one_step), rel=1e-9)
    assert list(result.one_step.per_field) == list(COMPONENTS)
    assert list(result.one_step.per_field.values()) == pytest.approx(one_step.mean(axis=(0, 1)).tolist())
    rollout = vrmse_by_hand(np.repeat(y[:, 3:4], 6, axis=1), y[:, 4:])  # frame 3 stays
    assert result.rollout.trajectories_per_step == (2,) * 6
    assert result.rollout.per_step == pytest.approx(rollout.mean(axis=(0, 2)).tolist())
    assert result.rollout.mean == pytest.approx(rollout.mean())
    for number, name in enumerate(COMPONENTS):
        assert result.rollout.per_field_and_step[name] == pytest.approx(rollout[..., number].mean(axis=0).tolist())
        assert result.rollout.per_field[name] == pytest.approx(rollout[..., number].mean())
    assert result.rollout.windows == {}  # no rollout of 12 steps here
    assert (result.one_step.nonfinite, result.rollout.nonfinite) == (0, 0)


def test_mean_is_that_of_the_statistics(advection: Path) -> None:
    result = evaluate("mean", data=advection, dataset=NAME, device="cpu")
    y = frames(advection)
    train_mean = frames(advection, "train").mean(axis=(0, 1, 2, 3), dtype=np.float64)
    expected = vrmse_by_hand(np.broadcast_to(train_mean, y[:, 4:].shape), y[:, 4:])
    assert result.one_step.mean == pytest.approx(expected.mean(), rel=1e-5)
    # A constant that needs no input: a rollout is as good as one step.
    assert result.rollout.mean == pytest.approx(result.one_step.mean)


def test_the_exact_solution_scores_zero(advection: Path) -> None:
    result = evaluate_contender(contend(Exact(), advection))
    assert result.one_step.mean < 1e-6
    assert max(result.rollout.per_step) < 1e-5


def test_eps_is_used_and_recorded(advection: Path) -> None:
    result = evaluate("persistence", data=advection, dataset=NAME, eps=0.5, device="cpu")
    y = frames(advection)
    assert result.one_step.mean == pytest.approx(vrmse_by_hand(y[:, 3:9], y[:, 4:], eps=0.5).mean())
    assert result.protocol.eps == 0.5
    other = evaluate("persistence", data=advection, dataset=NAME, device="cpu")
    assert result.comparable_id != other.comparable_id


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("batch_size", [1, 5, 64])
def test_the_score_does_not_know_the_batch_size(advection: Path, batch_size: int, workers: int) -> None:
    whole = evaluate("persistence", data=advection, dataset=NAME, batch_size=16, device="cpu")
    result = evaluate("persistence", data=advection, dataset=NAME, batch_size=batch_size, workers=workers, device="cpu")
    assert result.one_step == whole.one_step
    assert result.rollout == whole.rollout
    assert result.content_sha256 == whole.content_sha256
    assert result.id == whole.id


def test_a_networks_score_does_not_know_the_batch_size(advection: Path, tmp_path: Path) -> None:
    train(configure(advection), tmp_path / "run")
    one, many = (evaluate(tmp_path / "run", batch_size=size, device="cpu") for size in (1, 7))
    assert one.one_step.mean == pytest.approx(many.one_step.mean, rel=1e-5)
    assert one.rollout.per_step == pytest.approx(many.rollout.per_step, rel=1e-4)
    assert one.id == many.id


def test_validation_while_training_is_the_same_number(advection: Path, tmp_path: Path) -> None:
    report = train(configure(advection, epochs=2), tmp_path / "run")
    result = evaluate(tmp_path / "run", split="valid", device="cpu")
    assert result.one_step.mean == pytest.approx(report.best_valid_vrmse, rel=1e-6)
    assert result.model.epochs == report.best_epoch
    assert result.model.seed == 0
    assert result.model.parameters == report.parameters


def test_rollouts_feed_the_model_its_own_output(advection: Path) -> None:
    # Ten percent more each step: step s is 1.1^s times the last true frame.
    class Grows:
        def predict(self, window: Tensor, constants: Tensor | None) -> Tensor:
            return 1.1 * window[:, -1]

    result = evaluate_contender(contend(Grows(), advection, n_steps_input=2))
    y = frames(advection)
    grown = np.stack([1.1**s * y[:, 1] for s in range(1, 9)], axis=1)
    assert result.rollout.per_step == pytest.approx(vrmse_by_hand(grown, y[:, 2:]).mean(axis=(0, 2)).tolist(), rel=1e-5)


@pytest.mark.parametrize("memory", [1, 60_000, 2**30])
def test_rollouts_in_pieces_are_the_same(tmp_path: Path, memory: int) -> None:
    base = make_advection(tmp_path, trajectories=(1, 1, 2), steps=13, steps_of_second_file=9)
    contender = contend(Exact(), base)
    plan = plan_rollouts(NAME, str(base), "test", n_steps_input=4, batch_size=3, memory=memory)
    assert plan.lengths == (9, 9, 5, 5)
    assert {1: 1, 60_000: 1, 2**30: 5}[memory] <= plan.piece <= 5
    target = [np.full((9, 16, 16, 3), np.nan) for _ in range(4)]
    for piece in roll_out(contender.predictor, plan, device=CPU, split="test", allowed=(False,) * 3):
        for number, trajectory in enumerate(piece.trajectories):
            first = piece.first_step - 1
            true, predicted = piece.target[number].numpy(), piece.prediction[number].numpy()
            np.testing.assert_array_equal(true, predicted)  # the exact solution: input and target fit together
            target[trajectory][first : first + len(true)] = true
    for trajectory, (file, within, length) in enumerate(((0, 0, 9), (0, 1, 9), (1, 0, 5), (1, 1, 5))):
        np.testing.assert_array_equal(target[trajectory][:length], frames(base, file=file)[within, 4:])
        assert np.isnan(target[trajectory][length:]).all()


def test_a_limit_makes_unequal_trajectories_go_side_by_side(tmp_path: Path) -> None:
    # 40 and 14 frames predict 10 steps each, in pieces of 4 that the shortest trajectory (8 frames) allows: the last
    # piece may not reach beyond the 14 frames into the next trajectory.
    base = make_advection(tmp_path, trajectories=(1, 1, 2), steps=40, steps_of_second_file=14)
    short = make_advection(tmp_path / "short", trajectories=(1, 1, 2), steps=8)
    folder = Path(NAME) / "data" / "test"
    (short / folder / f"{NAME}_0.hdf5").rename(base / folder / f"{NAME}_2.hdf5")
    plan = plan_rollouts(NAME, str(base), "test", n_steps_input=4, batch_size=8, max_steps=10)
    assert (plan.lengths, plan.piece) == ((10,) * 4 + (4,) * 2, 4)
    assert plan.groups == ((0, 1, 2, 3), (4, 5))
    scores = score_rollouts(Exact(), plan, device=CPU, eps=1e-7, split="test", allowed=(False,) * 3)
    assert np.nanmax(scores.vrmse) == 0.0
    assert np.isfinite(scores.vrmse).sum() == 3 * (4 * 10 + 2 * 4)


def test_trajectories_of_unequal_length_count_where_they_are(tmp_path: Path) -> None:
    base = make_advection(tmp_path, trajectories=(1, 1, 2), steps=22, steps_of_second_file=9)
    result = evaluate("persistence", data=base, dataset=NAME, device="cpu")
    assert result.rollout.trajectories_per_step == (4,) * 5 + (2,) * 13
    long, short = frames(base), frames(base, file=1)
    of_long = vrmse_by_hand(np.repeat(long[:, 3:4], 18, axis=1), long[:, 4:])
    of_short = vrmse_by_hand(np.repeat(short[:, 3:4], 5, axis=1), short[:, 4:])
    everything = np.concatenate([of_long.reshape(-1, 3), of_short.reshape(-1, 3)])
    assert result.rollout.mean == pytest.approx(everything.mean())
    assert result.rollout.per_step[4] == pytest.approx((of_long[:, 4].sum() + of_short[:, 4].sum()) / 12)
    assert result.rollout.per_step[17] == pytest.approx(of_long[:, 17].mean())
    assert result.rollout.windows == {}  # two trajectories end before step 12
    limited = evaluate("persistence", data=base, dataset=NAME, rollout_steps=3, device="cpu")
    assert limited.rollout.trajectories_per_step == (4,) * 3
    assert limited.rollout.per_step == pytest.approx(result.rollout.per_step[:3])
    assert limited.content_sha256 == result.content_sha256


def test_windows_of_rollout_steps_count_both_ends(tmp_path: Path) -> None:
    base = make_advection(tmp_path, trajectories=(1, 1, 2), steps=34)
    result = evaluate("persistence", data=base, dataset=NAME, device="cpu")
    y = frames(base)
    scores = vrmse_by_hand(np.repeat(y[:, 3:4], 30, axis=1), y[:, 4:])
    assert result.rollout.windows == {
        "6:12": pytest.approx(scores[:, 5:12].mean()),
        "13:30": pytest.approx(scores[:, 12:30].mean()),
    }


def test_predictions_that_are_not_finite_are_counted_not_dropped(advection: Path, tmp_path: Path) -> None:
    contender = contend(Breaks(), advection)
    plan = plan_rollouts(NAME, str(advection), "test", n_steps_input=4, batch_size=2)
    scores = score_rollouts(contender.predictor, plan, device=CPU, eps=1e-7, split="test", allowed=(False,) * 3)
    assert scores.nonfinite == 4  # steps 3 to 6 of trajectory 0
    assert np.isinf(scores.vrmse[0, 2:, 1]).all()
    assert np.isfinite(scores.vrmse[1]).all()
    assert np.isfinite(scores.vrmse[0][:, [0, 2]]).all()
    result = evaluate_contender(contend(Breaks(), advection), batch_size=4)
    assert result.one_step.mean == math.inf
    assert result.one_step.nonfinite == 1  # the third batch of three
    assert math.isfinite(result.one_step.median)
    assert math.isfinite(result.one_step.per_field["tracer"])
    save_result(result, tmp_path / "result.json")
    assert '"Infinity"' in (tmp_path / "result.json").read_text()
    assert load_result(tmp_path / "result.json") == result


def test_a_result_names_its_data(tmp_path: Path) -> None:
    results = {}
    for name, keys in {"a": {}, "again": {}, "other": {"seed": 1}, "finer": {"resolution": (16, 32)}}.items():
        base = make_advection(tmp_path / name, trajectories=(1, 1, 2), **keys)  # type: ignore[arg-type]
        results[name] = evaluate("persistence", data=base, dataset=NAME, device="cpu")
    assert results["a"].comparable_id == results["again"].comparable_id
    assert results["a"].id == results["again"].id
    assert len({results[name].comparable_id for name in ("a", "other", "finer")}) == 3
    dataset = results["a"].dataset
    assert (dataset.name, dataset.split, dataset.files) == (NAME, "test", (f"{NAME}_0.hdf5",))
    assert (dataset.trajectories, dataset.steps, dataset.resolution) == ((2,), (10,), (16, 16))
    assert results["a"].code_version.startswith("0.")
    assert "torch" in results["a"].hardware


def test_a_result_carries_the_hash_of_the_statistics_beside_its_data(advection: Path, tmp_path: Path) -> None:
    base = copy_of(advection, tmp_path / "copy")
    path = base / NAME / "stats.yaml"
    wanted = statistics_hash(load_statistics(path))
    mean = evaluate("mean", data=base, dataset=NAME, device="cpu")
    assert mean.statistics_sha256 == mean.model.statistics_sha256 == wanted
    path.unlink()
    assert evaluate("persistence", data=base, dataset=NAME, device="cpu").statistics_sha256 is None


def test_content_is_that_of_the_frames_however_they_are_windowed(advection: Path) -> None:
    results = [evaluate("persistence", data=advection, dataset=NAME, n_steps_input=n, device="cpu") for n in (1, 4, 9)]
    assert len({result.content_sha256 for result in results}) == 1
    assert [result.one_step.windows for result in results] == [18, 12, 2]
    assert len({result.comparable_id for result in results}) == 3  # other windows: not comparable


def test_bad_numbers_in_the_data_are_named(advection: Path, tmp_path: Path) -> None:
    base = copy_of(advection, tmp_path / "data")
    spoil(base, "test", math.nan)
    with pytest.raises(DataValueError, match=rf"{NAME} \(test\): sample \d+ .*trajectory 1, frame 3"):
        evaluate("persistence", data=base, dataset=NAME, device="cpu")


def test_what_cannot_be_scored_is_told(advection: Path, tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="'mean' needs a dataset"):
        evaluate("mean", data=advection)
    with pytest.raises(TrainingError, match=r"neither a baseline .*Did you mean persistence"):
        evaluate("persistance", data=advection, dataset=NAME)
    with pytest.raises(ArgumentError, match="train, valid, test"):
        evaluate("persistence", data=advection, dataset=NAME, split="tset")
    with pytest.raises(DataNotFoundError, match="no such folder"):
        evaluate("persistence", data=tmp_path, dataset=NAME)
    with pytest.raises(WindowError, match="too short"):
        evaluate("persistence", data=advection, dataset=NAME, n_steps_input=10)
    for nonsense in (
        {"eps": -1.0},
        {"eps": math.inf},  # would divide every error away
        {"eps": math.nan},
        {"batch_size": 0},
        {"rollout_steps": 0},
        {"workers": -1},
        {"n_steps_input": 0},
    ):
        ((name, value),) = nonsense.items()
        with pytest.raises(ArgumentError, match=f"{name}={value}; give a"):
            evaluate("persistence", data=advection, dataset=NAME, **nonsense)
    base = copy_of(advection, tmp_path / "data")
    (base / NAME / "stats.yaml").unlink()
    evaluate("persistence", data=base, dataset=NAME)  # needs no statistics
    with pytest.raises((StatisticsError, DataNotFoundError), match=r"stats\.yaml"):
        evaluate("mean", data=base, dataset=NAME)
    content = load_statistics(advection / NAME / "stats.yaml").to_mapping()
    content["mean"]["velocity"] = [0.0, 0.0, 0.0]
    (base / NAME / "stats.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(StatisticsError, match=r"stats\.yaml: .*'velocity' have shape \(3,\)"):
        evaluate("mean", data=base, dataset=NAME)


def test_a_network_meets_only_its_own_kind_of_data(advection: Path, tmp_path: Path) -> None:
    train(configure(advection), tmp_path / "run")
    with pytest.raises(ArgumentError, match="takes 4 input steps, not 2"):
        prepare(tmp_path / "run", n_steps_input=2, device=CPU)
    other = make_advection(tmp_path / "other", constant=True)
    with pytest.raises(TrainingError, match=r"trained on tracer, velocity_x.*holds .*mask"):
        prepare(tmp_path / "run", data=other, device=CPU)
    finer = make_advection(tmp_path / "finer", resolution=(24, 16), trajectories=(1, 1, 1))
    assert evaluate(tmp_path / "run", data=finer, device="cpu").dataset.resolution == (24, 16)


def test_result_files_are_checked(advection: Path, tmp_path: Path) -> None:
    result = evaluate("persistence", data=advection, dataset=NAME, device="cpu")
    path = tmp_path / "result.json"
    save_result(result, path)
    content = json.loads(path.read_text())
    assert load_result(path) == result
    path.write_text(json.dumps(content | {"schema": "wellkit/result/2"}))
    with pytest.raises(DocumentVersionError, match="version unknown"):
        load_result(path)
    path.write_text(json.dumps(content | {"on_step": 1}))
    with pytest.raises(DocumentError, match=r"unknown key 'on_step'.*Did you mean one_step"):
        load_result(path)
    path.write_text("{")
    with pytest.raises(DocumentError, match="not a JSON file"):
        load_result(path)
    with pytest.raises(DocumentError, match=r"cannot be read \(Is a directory\); give a result file"):
        load_result(tmp_path)
    with pytest.raises(DataNotFoundError, match="no such result file"):
        load_result(tmp_path / "none.json")
    with pytest.raises(StorageError, match="cannot write"):
        save_result(result, path / "below" / "result.json")
    (tmp_path / "taken" / "result.json").mkdir(parents=True)
    with pytest.raises(StorageError, match="cannot write"):
        save_result(result, tmp_path / "taken" / "result.json")
    assert [file.name for file in (tmp_path / "taken").iterdir()] == ["result.json"]  # nothing half-written stays


def test_points_outside_the_domain_need_a_card_that_says_so(
    advection: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = copy_of(advection, tmp_path / "data")
    for split in ("train", "valid", "test"):
        with h5py.File(base / NAME / "data" / split / f"{NAME}_0.hdf5", "r+") as file:
            file["t0_fields/tracer"][:, :, :3, :5] = math.nan
    with pytest.raises(DataValueError, match="'tracer'"):
        evaluate("persistence", data=base, dataset=NAME, device="cpu")
    card = write_card(
        tmp_path / "card.yaml",
        name=NAME,
        fields=[{"name": "tracer", "nan_mask": "inside the obstacle"}, {"name": "velocity", "order": 1}],
    )
    monkeypatch.setenv("WELLKIT_CATALOG", str(card))
    y = frames(base)
    outside = np.isnan(y[0, 0, ..., 0])
    inside = y[:, :, ~outside][:, :, None]  # (trajectory, step, 1, point, component)
    expected = vrmse_by_hand(y[:, 3:9], y[:, 4:])
    expected[..., 0] = vrmse_by_hand(inside[:, 3:9], inside[:, 4:])[..., 0]
    result = evaluate("persistence", data=base, dataset=NAME, device="cpu")
    assert result.one_step.mean == pytest.approx(expected.mean())
    report = train(configure(base, epochs=2), tmp_path / "run")
    assert math.isfinite(report.last_train_loss)
    assert math.isfinite(evaluate(tmp_path / "run", device="cpu").rollout.mean)
    infinite = copy_of(advection, tmp_path / "infinite")
    spoil(infinite, "test", math.inf)  # the mask does not excuse infinity
    with pytest.raises(DataValueError, match="infinity"):
        evaluate("persistence", data=infinite, dataset=NAME, device="cpu")
