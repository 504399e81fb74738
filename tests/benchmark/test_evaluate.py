"""Evaluation: every window, every step, whatever the batch and the process; nothing dropped, everything recorded."""

from __future__ import annotations

import json
import math
import shutil
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
from wellkit.benchmark.evaluate import How, evaluate, evaluate_contender, load_result, save_result
from wellkit.benchmark.forecasts import Computed
from wellkit.benchmark.rollout import plan_rollouts, roll_out
from wellkit.errors import (
    ArgumentError,
    DataNotFoundError,
    DataValueError,
    DocumentError,
    DocumentVersionError,
    PredictionsError,
    ScoreError,
    StatisticsError,
    StorageError,
    TrainingError,
    WindowError,
)
from wellkit.schemas.result import ScoredModel
from wellkit.statistics import load_statistics, statistics_hash
from wellkit.train import train
from wellkit.train.data import Batches, nan_allowed, open_split

CPU = torch.device("cpu")
WELL = "well-2024"
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
    return Contender(Computed(predictor), described, NAME, str(base), split, windows, nan_allowed(windows), CPU)  # type: ignore[arg-type]


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
    result = evaluate("persistence", data=advection, dataset=NAME, device="cpu", protocol=WELL)
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
    assert result.rollout.left_out == {
        "6:12": "the shortest rollout has 6 steps",
        "13:30": "the shortest rollout has 6 steps",
    }
    for number, scores in enumerate(result.trajectories):
        assert (scores.file, scores.trajectory, scores.frames) == (f"{NAME}_0.hdf5", number, 10)
        assert list(scores.one_step.values()) == pytest.approx(one_step[number].mean(axis=0).tolist())
        assert scores.rollout == pytest.approx(rollout[number].mean(axis=1).tolist())
    medians = [one_step[number].mean() for number in range(2)]
    assert result.one_step.of_trajectories == pytest.approx(np.median(medians))
    error = ((y[:, 3:9].astype(float) - y[:, 4:]) ** 2).mean(axis=(0, 1, 2, 3))
    variance = y[:, 4:].astype(float).var(axis=(2, 3), ddof=1).mean(axis=(0, 1))
    assert result.one_step.pooled == pytest.approx(np.sqrt(error / (variance + 1e-7)).mean(), rel=1e-6)
    assert (result.one_step.nonfinite, result.rollout.nonfinite) == (0, 0)


def test_mean_is_that_of_the_statistics(advection: Path) -> None:
    result = evaluate("mean", data=advection, dataset=NAME, device="cpu", protocol=WELL)
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


def test_eps_of_wellkit_1_knows_no_units(advection: Path) -> None:
    result = evaluate("persistence", data=advection, dataset=NAME, device="cpu")
    y = frames(advection)
    eps = 1e-7 * y[:, 4:].astype(float).var(axis=(2, 3), ddof=1).mean(axis=(0, 1))
    by_component = [vrmse_by_hand(y[:, 3:9], y[:, 4:], eps=e)[..., i].mean() for i, e in enumerate(eps)]
    assert list(result.one_step.per_field.values()) == pytest.approx(by_component, rel=1e-9)
    assert result.one_step.flat == result.rollout.flat == 0
    other = evaluate("persistence", data=advection, dataset=NAME, device="cpu", protocol=WELL)
    assert result.comparable_id != other.comparable_id
    assert result.protocol.name == "wellkit-1"


def test_flat_frames_are_left_out_or_scored_and_always_counted(tmp_path: Path) -> None:
    base = make_advection(tmp_path, trajectories=(1, 1, 2))
    with h5py.File(base / NAME / "data" / "test" / f"{NAME}_0.hdf5", "r+") as file:
        file["t0_fields/tracer"][0, 6:8] = 5.0  # two frames without any variation
    left_out = evaluate("persistence", data=base, dataset=NAME, device="cpu")
    scored = evaluate("persistence", data=base, dataset=NAME, device="cpu", protocol=WELL)
    assert left_out.one_step.flat == scored.one_step.flat == 2
    assert left_out.rollout.flat == scored.rollout.flat == 2
    assert left_out.trajectories[0].counted == {"tracer": 4, "velocity_x": 6, "velocity_y": 6}
    assert scored.trajectories[0].counted == dict.fromkeys(COMPONENTS, 6)
    y = frames(base)
    by_hand = vrmse_by_hand(y[:, 3:9], y[:, 4:])[..., 0]
    assert scored.one_step.per_field["tracer"] == pytest.approx(by_hand.mean(), rel=1e-6)
    assert scored.one_step.per_field["tracer"] > 100  # eps decides the score of the first flat frame
    kept = np.delete(by_hand.ravel(), [2, 3])
    assert left_out.one_step.per_field["tracer"] == pytest.approx(kept.mean(), rel=1e-5)


def test_a_component_that_never_varies_has_no_mean_but_is_in_the_pool(tmp_path: Path) -> None:
    base = make_advection(tmp_path, trajectories=(1, 1, 2))
    for split in ("train", "valid", "test"):
        with h5py.File(base / NAME / "data" / split / f"{NAME}_0.hdf5", "r+") as file:
            file["t0_fields/tracer"][...] = 5.0
    result = evaluate("persistence", data=base, dataset=NAME, device="cpu")
    assert set(result.one_step.per_field) == {"velocity_x", "velocity_y"}
    assert result.one_step.per_field_pooled["tracer"] == 0.0
    assert math.isfinite(result.headline)
    assert math.isnan(result.trajectories[0].one_step["tracer"])


def test_spectral_errors_by_hand(advection: Path) -> None:
    # Persistence on waves of wavenumbers 1 and 2: errors and energy in the bands that hold them.
    result = evaluate("persistence", data=advection, dataset=NAME, device="cpu")
    y = frames(advection).astype(float)[..., 1]
    before, after = y[:, 3:9], y[:, 4:]
    k = 2 * np.pi * np.abs(np.fft.fftfreq(16))
    length = np.sqrt(k[:, None] ** 2 + k[None] ** 2)
    edges = np.geomspace(2 * np.pi / 16, np.pi * np.sqrt(2), 4)
    edges[0] = 0.0
    eps = 1e-7 * after.var(axis=(2, 3), ddof=1).mean()
    for band, name in enumerate(("low", "middle")):
        inside = (length >= edges[band]) & (length < edges[band + 1])
        error, energy = (
            (np.abs(np.fft.fft2(field)) ** 2 * inside).sum(axis=(2, 3)).mean() / 16**4
            for field in (before - after, after - after.mean(axis=(2, 3), keepdims=True))
        )
        assert result.one_step.spectral_per_field is not None
        assert result.one_step.spectral_per_field["velocity_x"][name] == pytest.approx(np.sqrt(error / (energy + eps)))


def test_valid_length_ends_with_the_first_step_beyond_the_threshold(tmp_path: Path) -> None:
    base = make_advection(tmp_path, trajectories=(1, 1, 2), steps=12)

    class FailsAfter:
        """The solution for so many calls, then a state far away, then the solution again."""

        def __init__(self) -> None:
            self.calls = 0

        def predict(self, window: Tensor, constants: Tensor | None) -> Tensor:
            self.calls += 1
            exact = window[:, -1].roll(SPEED, dims=(1, 2))
            return -20 * exact if self.calls == 1 + 4 else exact  # one call for all windows, then steps

    contender = contend(FailsAfter(), base)
    result = evaluate_contender(contender, How(batch_size=64))
    assert [scores.valid_length for scores in result.trajectories] == [3, 8]
    assert result.rollout.valid_length is not None
    assert (result.rollout.valid_length.mean, result.rollout.valid_length.never_failed) == (5.5, 1)


def test_walrus_style_begins_at_frame_17(tmp_path: Path) -> None:
    base = make_advection(tmp_path, trajectories=(1, 1, 3), steps=45)
    result = evaluate("persistence", data=base, dataset=NAME, device="cpu", protocol="walrus-style-1")
    y = frames(base)
    scores = vrmse_by_hand(np.repeat(y[:, 16:17], 28, axis=1), y[:, 17:]).mean(axis=2)
    assert result.rollout.first_frame == 17
    assert result.rollout.windows == {
        "1:20": pytest.approx(np.median(scores[:, :20].mean(axis=1))),
        "1:10": pytest.approx(np.median(scores[:, :10].mean(axis=1))),
    }
    assert set(result.rollout.left_out) == {"21:60", "11:30"}
    one_step = vrmse_by_hand(y[:, 3:44], y[:, 4:]).mean(axis=(1, 2))
    assert result.headline == pytest.approx(np.median(one_step))
    short = make_advection(tmp_path / "short", trajectories=(1, 1, 1), steps=17)
    with pytest.raises(WindowError, match=r"from frame 17 on.*17 frames \(0 to 16\)"):
        evaluate("persistence", data=short, dataset=NAME, device="cpu", protocol="walrus-style-1")


def test_a_protocol_that_does_not_fit_is_refused(advection: Path) -> None:
    with pytest.raises(ArgumentError, match=r"'well-2025' is unknown here.*Did you mean well-2024"):
        evaluate("persistence", data=advection, dataset=NAME, protocol="well-2025")
    with pytest.raises(ArgumentError, match="well-2024 gives models 4 input steps; persistence takes 2"):
        evaluate("persistence", data=advection, dataset=NAME, protocol=WELL, n_steps_input=2)


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("batch_size", [1, 5, 64])
def test_the_score_does_not_know_the_batch_size(advection: Path, batch_size: int, workers: int) -> None:
    whole = evaluate("persistence", data=advection, dataset=NAME, batch_size=16, device="cpu")
    result = evaluate("persistence", data=advection, dataset=NAME, batch_size=batch_size, workers=workers, device="cpu")
    assert result.one_step == whole.one_step
    assert result.rollout == whole.rollout
    assert (result.trajectories, result.data) == (whole.trajectories, whole.data)
    assert result.id == whole.id


def test_the_score_does_not_know_the_number_of_processes(tmp_path: Path) -> None:
    base = make_advection(tmp_path, trajectories=(1, 1, 3))
    one, two = (evaluate("persistence", data=base, dataset=NAME, jobs=jobs, device="cpu") for jobs in (1, 2))
    assert (one.one_step, one.rollout, one.trajectories, one.id) == (
        two.one_step,
        two.rollout,
        two.trajectories,
        two.id,
    )
    with pytest.raises(ArgumentError, match="jobs above 1 need a model that other processes can find"):
        evaluate(lambda window, constants: window[:, -1], data=base, dataset=NAME, jobs=2)


def test_predictions_score_what_the_model_scored(advection: Path, tmp_path: Path) -> None:
    train(configure(advection, epochs=1), tmp_path / "run")
    for target in (tmp_path / "npy", tmp_path / "made.zarr"):
        own = evaluate(tmp_path / "run", device="cpu", save_predictions=target)
        for batch_size, jobs in ((1, 1), (5, 1), (64, 2)):
            again = evaluate(target, data=advection, batch_size=batch_size, jobs=jobs, device="cpu")
            assert (again.one_step, again.rollout, again.trajectories) == (own.one_step, own.rollout, own.trajectories)
            assert again.model.kind == "predictions"
            assert again.model.predictions_sha256 == own.model.predictions_sha256
    with pytest.raises(PredictionsError, match=r"split: these predictions have test, asked is valid"):
        evaluate(tmp_path / "npy", data=advection, split="valid")
    longer = make_advection(tmp_path / "longer", trajectories=(1, 1, 2), steps=20)
    with pytest.raises(PredictionsError, match="first_frame"):
        evaluate(tmp_path / "npy", data=longer, protocol="walrus-style-1")
    with pytest.raises(ArgumentError, match="one process"):
        evaluate(tmp_path / "run", device="cpu", save_predictions=tmp_path / "two", jobs=2)


def test_functions_are_scored(advection: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def last(window: Tensor, constants: Tensor | None) -> np.ndarray:
        return window[:, -1].numpy()

    result = evaluate(last, data=advection, dataset=NAME, device="cpu")
    persistence = evaluate("persistence", data=advection, dataset=NAME, device="cpu")
    assert (result.one_step, result.rollout) == (persistence.one_step, persistence.rollout)
    assert (result.model.name, result.model.kind) == ("last", "callable")
    with pytest.raises(ScoreError, match=r"returned shape \(.*4, 16, 16, 3\); expected .*16, 16, 3\)"):
        evaluate(lambda window, constants: window, data=advection, dataset=NAME, device="cpu")
    with pytest.raises(ArgumentError, match="function last needs a dataset"):
        evaluate(last, data=advection)
    (tmp_path / "mine_of_a_test.py").write_text("def same(window, constants):\n    return window[:, -1]\n")
    monkeypatch.chdir(tmp_path)
    by_name = evaluate("mine_of_a_test:same", data=advection, dataset=NAME, device="cpu")
    assert by_name.one_step == persistence.one_step
    for text, why in (("mine_of_a_tes:same", "no module"), ("mine_of_a_test:sane", "has no attribute 'sane'")):
        with pytest.raises(DataNotFoundError, match=why):
            evaluate(text, data=advection, dataset=NAME)
    with pytest.raises(ArgumentError, match="is a str; name a function"):
        evaluate("mine_of_a_test:__name__", data=advection, dataset=NAME)


def test_published_networks_are_scored(advection: Path, tmp_path: Path) -> None:
    train(configure(advection, epochs=1), tmp_path / "run")
    own = evaluate(tmp_path / "run", device="cpu", protocol=WELL)
    record = json.loads((tmp_path / "run" / "best" / "checkpoint.json").read_text())
    folder = tmp_path / "FNO-advection"
    folder.mkdir()
    shutil.copy(tmp_path / "run" / "best" / "model.safetensors", folder)
    arguments = {"dim_in": record["dim_in"], "dim_out": 3, "n_spatial_dims": 2, "spatial_resolution": [16, 16]}
    (folder / "config.json").write_text(json.dumps({**arguments, **record["model_arguments"]}))
    published = evaluate(folder, data=advection, dataset=NAME, device="cpu", protocol=WELL)
    assert published.one_step == own.one_step
    assert published.model.name == "FNO-advection"
    assert published.model.n_steps_input == 4
    with pytest.raises(ArgumentError, match="needs a dataset"):
        evaluate(folder, data=advection)
    other = make_advection(tmp_path / "other", resolution=(16, 16), constant=True)
    with pytest.raises(TrainingError, match="takes 12 channels and gives 3"):
        evaluate(folder, data=other, dataset=NAME)


def test_a_networks_score_does_not_know_the_batch_size(advection: Path, tmp_path: Path) -> None:
    train(configure(advection), tmp_path / "run")
    one, many = (evaluate(tmp_path / "run", batch_size=size, device="cpu") for size in (1, 7))
    assert one.one_step.mean == pytest.approx(many.one_step.mean, rel=1e-5)
    assert one.rollout.per_step == pytest.approx(many.rollout.per_step, rel=1e-4)
    assert one.id == many.id


def test_validation_while_training_is_the_same_number(advection: Path, tmp_path: Path) -> None:
    report = train(configure(advection, epochs=2), tmp_path / "run")
    result = evaluate(tmp_path / "run", split="valid", device="cpu", protocol=WELL)
    assert result.one_step.mean == pytest.approx(report.best_valid_vrmse, rel=1e-6)
    assert result.model.epochs == report.best_epoch
    assert result.model.seed == 0
    assert result.model.parameters == report.parameters


def test_rollouts_feed_the_model_its_own_output(advection: Path) -> None:
    # Ten percent more each step: step s is 1.1^s times the last true frame.
    class Grows:
        def predict(self, window: Tensor, constants: Tensor | None) -> Tensor:
            return 1.1 * window[:, -1]

    result = evaluate_contender(contend(Grows(), advection, n_steps_input=2), How(protocol="wellkit-1"))
    y = frames(advection)
    grown = np.stack([1.1**s * y[:, 1] for s in range(1, 9)], axis=1)
    assert result.rollout.per_step == pytest.approx(vrmse_by_hand(grown, y[:, 2:]).mean(axis=(0, 2)).tolist(), rel=1e-5)


@pytest.mark.parametrize("first_frame", [4, 6])
@pytest.mark.parametrize("memory", [1, 80_000, 2**30])
def test_rollouts_in_pieces_are_the_same(tmp_path: Path, memory: int, first_frame: int) -> None:
    base = make_advection(tmp_path, trajectories=(1, 1, 2), steps=13, steps_of_second_file=9)
    contender = contend(Exact(), base)
    plan = plan_rollouts(NAME, str(base), "test", n_steps_input=4, first_frame=first_frame, memory=memory)
    assert plan.lengths == tuple(n - first_frame for n in (13, 13, 9, 9))
    assert {1: 1, 80_000: 1, 2**30: 5}[memory] == plan.piece
    batches = Batches(plan.dataset, batch_size=1, workers=0, device=CPU)
    for trajectory, (file, within) in enumerate(((0, 0), (0, 1), (1, 0), (1, 1))):
        true = frames(base, file=file)[within]
        pieces = list(roll_out(contender.forecasts, plan, batches, trajectory, split="test", allowed=(False,) * 3))
        for part in ("target", "prediction"):  # the exact solution: input and target fit together
            np.testing.assert_array_equal(np.concatenate([getattr(p, part) for p in pieces]), true[first_frame:])
        np.testing.assert_array_equal(pieces[0].initial, true[first_frame - 1])
        assert [piece.initial is None for piece in pieces[1:]] == [True] * (len(pieces) - 1)
        assert [piece.first_step for piece in pieces] == (
            np.cumsum([1, *(len(piece.target) for piece in pieces[:-1])]).tolist()
        )


def test_a_limit_cuts_rollouts_short(tmp_path: Path) -> None:
    base = make_advection(tmp_path, trajectories=(1, 1, 2), steps=40, steps_of_second_file=9)
    plan = plan_rollouts(NAME, str(base), "test", n_steps_input=4, max_steps=10)
    assert (plan.lengths, plan.piece) == ((10,) * 2 + (5,) * 2, 5)
    result = evaluate_contender(contend(Exact(), base), How(rollout_steps=10))
    assert result.rollout.mean == 0.0
    assert result.rollout.entries == 3 * (2 * 10 + 2 * 5)
    assert result.rollout_limit == 10


def test_trajectories_of_unequal_length_count_where_they_are(tmp_path: Path) -> None:
    base = make_advection(tmp_path, trajectories=(1, 1, 2), steps=22, steps_of_second_file=9)
    result = evaluate("persistence", data=base, dataset=NAME, device="cpu", protocol=WELL)
    assert result.rollout.trajectories_per_step == (4,) * 5 + (2,) * 13
    long, short = frames(base), frames(base, file=1)
    of_long = vrmse_by_hand(np.repeat(long[:, 3:4], 18, axis=1), long[:, 4:])
    of_short = vrmse_by_hand(np.repeat(short[:, 3:4], 5, axis=1), short[:, 4:])
    everything = np.concatenate([of_long.reshape(-1, 3), of_short.reshape(-1, 3)])
    assert result.rollout.mean == pytest.approx(everything.mean())
    assert result.rollout.per_step[4] == pytest.approx((of_long[:, 4].sum() + of_short[:, 4].sum()) / 12)
    assert result.rollout.per_step[17] == pytest.approx(of_long[:, 17].mean())
    assert result.rollout.windows == {}  # two trajectories end before step 12
    limited = evaluate("persistence", data=base, dataset=NAME, rollout_steps=3, device="cpu", protocol=WELL)
    assert limited.rollout.trajectories_per_step == (4,) * 3
    assert limited.rollout.per_step == pytest.approx(result.rollout.per_step[:3])
    assert limited.data.content_sha256 == result.data.content_sha256
    assert limited.comparable_id != result.comparable_id


def test_windows_of_rollout_steps_count_both_ends(tmp_path: Path) -> None:
    base = make_advection(tmp_path, trajectories=(1, 1, 2), steps=34)
    result = evaluate("persistence", data=base, dataset=NAME, device="cpu", protocol=WELL)
    y = frames(base)
    scores = vrmse_by_hand(np.repeat(y[:, 3:4], 30, axis=1), y[:, 4:])
    assert result.rollout.windows == {
        "6:12": pytest.approx(scores[:, 5:12].mean()),
        "13:30": pytest.approx(scores[:, 12:30].mean()),
    }


def test_predictions_that_are_not_finite_are_counted_not_dropped(advection: Path, tmp_path: Path) -> None:
    result = evaluate_contender(contend(Breaks(), advection), How(batch_size=4))
    # A trajectory has windows in batches of 4 and 2, then 6 steps: calls 1, 2, 3 to 8 and 9, 10, 11 to 16.
    assert result.rollout.nonfinite == 6 + 6
    assert result.rollout.per_field["velocity_x"] == result.rollout.per_step[0] == math.inf
    assert result.one_step.mean == math.inf
    assert result.one_step.nonfinite == 2
    assert result.one_step.spectral is not None
    assert result.one_step.spectral["low"] == math.inf
    assert [scores.valid_length for scores in result.trajectories] == [0, 0]
    assert [scores.nonfinite for scores in result.trajectories] == [0, 2]
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
    assert results["a"].run.code_version.startswith("0.")
    assert "torch" in results["a"].run.hardware


def test_a_result_carries_the_hash_of_the_statistics_beside_its_data(advection: Path, tmp_path: Path) -> None:
    base = copy_of(advection, tmp_path / "copy")
    path = base / NAME / "stats.yaml"
    wanted = statistics_hash(load_statistics(path))
    mean = evaluate("mean", data=base, dataset=NAME, device="cpu")
    assert mean.data.statistics_sha256 == mean.model.statistics_sha256 == wanted
    path.unlink()
    assert evaluate("persistence", data=base, dataset=NAME, device="cpu").data.statistics_sha256 is None


def test_content_is_that_of_the_frames_however_they_are_windowed(advection: Path) -> None:
    results = [evaluate("persistence", data=advection, dataset=NAME, n_steps_input=n, device="cpu") for n in (1, 4, 9)]
    assert len({result.data.content_sha256 for result in results}) == 1
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
        {"batch_size": 0},
        {"rollout_steps": 0},
        {"workers": -1},
        {"jobs": 0},
        {"n_steps_input": 0},
    ):
        ((name, value),) = nonsense.items()
        with pytest.raises(ArgumentError, match=f"{name}={value}; give a"):
            evaluate("persistence", data=advection, dataset=NAME, **nonsense)  # type: ignore[arg-type]
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
    path.write_text(json.dumps(content | {"schema": "wellkit/result/3"}))
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
    result = evaluate("persistence", data=base, dataset=NAME, device="cpu", protocol=WELL)
    assert result.one_step.mean == pytest.approx(expected.mean())
    of_wellkit = evaluate("persistence", data=base, dataset=NAME, device="cpu")
    assert of_wellkit.one_step.spectral_per_field is not None
    assert set(of_wellkit.one_step.spectral_per_field) == {"velocity_x", "velocity_y"}  # no spectrum around obstacles
    report = train(configure(base, epochs=2), tmp_path / "run")
    assert math.isfinite(report.last_train_loss)
    assert math.isfinite(evaluate(tmp_path / "run", device="cpu").rollout.mean)
    infinite = copy_of(advection, tmp_path / "infinite")
    spoil(infinite, "test", math.inf)  # the mask does not excuse infinity
    with pytest.raises(DataValueError, match="infinity"):
        evaluate("persistence", data=infinite, dataset=NAME, device="cpu")


def test_totals_that_a_card_calls_conserved_are_watched(
    advection: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = write_card(
        tmp_path / "card.yaml",
        name=NAME,
        fields=[{"name": "tracer"}, {"name": "velocity", "order": 1}],
        conserved=[{"quantity": "tracer mass", "field": "tracer", "weights": "cells", "note": "carried around a box"}],
    )
    monkeypatch.setenv("WELLKIT_CATALOG", str(card))

    class Loses:
        """Two percent of everything each step."""

        def predict(self, window: Tensor, constants: Tensor | None) -> Tensor:
            return 0.98 * window[:, -1]

    (drift,) = evaluate_contender(contend(Loses(), advection)).rollout.drift
    assert (drift.quantity, drift.component) == ("tracer mass", "tracer")
    lost = 1 - 0.98 ** np.arange(1, 7)
    assert drift.per_step == pytest.approx(lost.tolist(), rel=1e-4)  # the tracer is positive: mean |q| is the mean of q
    assert drift.mean == pytest.approx(lost[-1], rel=1e-4)
    assert drift.target < 1e-6
    assert evaluate("mean", data=advection, dataset=NAME, device="cpu", protocol=WELL).rollout.drift == ()
