"""Evaluation: every window, every step; nothing dropped, everything recorded."""

from __future__ import annotations

import math
from pathlib import Path

import h5py
import numpy as np
import pytest

from tests.benchmark.scoring import COMPONENTS, WELL, Breaks, Exact, contend, frames, vrmse_by_hand
from tests.catalog.builders import write_card
from tests.train.advection import NAME, make_advection
from tests.train.test_loop import configure, copy_of, spoil
from wellkit.benchmark.evaluate import How, evaluate, evaluate_contender, load_result, save_result
from wellkit.errors import (
    DataValueError,
)
from wellkit.statistics import load_statistics, statistics_hash
from wellkit.train import train


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
