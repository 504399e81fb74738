"""Predictions on disk: what is written is what is read, whatever holds it; the hash is of the values alone."""

from __future__ import annotations

import json
import multiprocessing
import pickle
import tracemalloc
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import zarr

from tests.benchmark.stored_predictions import (
    ASKED,
    DESCRIPTION,
    FRAMES,
    SHAPE,
    assert_holds,
    values_of,
    write,
    write_zarr,
)
from wellkit.benchmark.predictions import (
    PredictedTrajectory,
    Predictions,
    PredictionsWriter,
    expected_trajectories,
    open_predictions,
)
from wellkit.errors import (
    PredictionsError,
    WindowError,
)


def test_what_has_to_be_predicted() -> None:
    # 9 frames, 2 inputs: windows start at 0..6; a rollout from frame 3 predicts 3..8.
    assert expected_trajectories([9], 2, first_frame=3) == (PredictedTrajectory(windows=7, rollout_steps=6),)
    assert expected_trajectories([9, 2], 2, limit=4) == (
        PredictedTrajectory(windows=7, rollout_steps=4),
        PredictedTrajectory(windows=0, rollout_steps=0),
    )


@pytest.mark.parametrize("pieces", [False, True])
@pytest.mark.parametrize("name", ["predictions", "predictions.zarr"])
def test_what_is_written_is_read(tmp_path: Path, name: str, pieces: bool) -> None:
    found = write(tmp_path / name, pieces=pieces)
    assert found.description == DESCRIPTION
    found.check(**ASKED)
    assert_holds(found, values_of())
    assert [entry.name for entry in tmp_path.iterdir()] == [name]
    assert not (tmp_path / name / ".lock").exists()


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("beside", [False, True])
def test_zarr_of_both_formats(tmp_path: Path, zarr_format: Literal[2, 3], beside: bool) -> None:
    assert_holds(open_predictions(write_zarr(tmp_path / "group", zarr_format, beside=beside)), values_of())


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.filterwarnings("ignore:Consolidated metadata")  # zarr: not part of format 3
def test_consolidated_zarr(tmp_path: Path, zarr_format: Literal[2, 3]) -> None:
    folder = write_zarr(tmp_path / "group", zarr_format)
    zarr.consolidate_metadata(str(folder))
    assert_holds(open_predictions(folder), values_of())


def test_sharded_zarr(tmp_path: Path) -> None:
    assert_holds(open_predictions(write_zarr(tmp_path / "group", 3, shards=(4, *SHAPE))), values_of())


def test_npy_of_other_number_formats_and_orders(tmp_path: Path) -> None:
    write(tmp_path / "p")
    expected = values_of()
    folder = tmp_path / "p"
    np.save(folder / "one_step/000000.npy", np.asfortranarray(expected["one_step", 0]))
    np.save(folder / "one_step/000001.npy", expected["one_step", 1].astype(">f8"))
    expected["rollout", 0] = expected["rollout", 0].astype(np.float16).astype(np.float32)
    np.save(folder / "rollout/000000.npy", expected["rollout", 0].astype(np.float16))
    huge = expected["rollout", 2].astype(np.float64)
    huge[0, 0, 0, 0] = 1e300  # more than float32 holds: scored as infinite
    expected["rollout", 2][0, 0, 0, 0] = np.inf
    np.save(folder / "rollout/000002.npy", huge)
    assert_holds(open_predictions(folder), expected)


def test_equal_predictions_have_equal_hashes(tmp_path: Path) -> None:
    first = write(tmp_path / "npy")
    expected = first.sha256()
    calls: list[tuple[int, int]] = []
    assert write(tmp_path / "pieces", pieces=True).sha256(lambda *call: calls.append(call)) == expected
    total = sum(len(values) for values in values_of().values())
    assert calls[-1] == (total, total)
    assert write(tmp_path / "group.zarr").sha256() == expected
    assert open_predictions(write_zarr(tmp_path / "by_hand_2", 2)).sha256() == expected
    assert open_predictions(write_zarr(tmp_path / "by_hand_3", 3, beside=True)).sha256() == expected
    for (part, number), values in values_of().items():  # as float64, with other NaNs and zeros of the other sign
        wide = values.astype(np.float64)
        wide[np.isnan(wide)] = -np.nan
        wide[wide == 0] = 0.0
        np.save(tmp_path / f"pieces/{part}/{number:06d}.npy", wide)
    assert open_predictions(tmp_path / "pieces").sha256() == expected


def test_the_hash_is_of_the_values_and_of_what_they_mean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = write(tmp_path / "p")
    expected = first.sha256()
    assert write(tmp_path / "other", seed=1).sha256() != expected

    def with_description(**changes: object) -> str:
        text = json.dumps({**DESCRIPTION.to_mapping(), **changes})
        (tmp_path / "p/predictions.json").write_text(text)
        return open_predictions(tmp_path / "p").sha256()

    assert with_description(model={"name": "renamed"}) == expected
    assert with_description(fields=["pressure", "density"]) != expected
    assert with_description(split="valid") != expected
    monkeypatch.setattr("wellkit.benchmark.predictions._AT_ONCE", 3 * 4 * int(np.prod(SHAPE)))  # 3 frames a piece
    assert first.sha256() == expected


def test_one_changed_value_changes_the_hash(tmp_path: Path) -> None:
    expected = write(tmp_path / "p").sha256()
    path = tmp_path / "p/rollout/000002.npy"
    content = bytearray(path.read_bytes())
    content[-2] ^= 1
    path.write_bytes(content)
    assert open_predictions(tmp_path / "p").sha256() != expected


def _read_in_child(content: bytes) -> float:
    predictions: Predictions = pickle.loads(content)  # noqa: S301 - our own bytes
    return float(predictions.rollout(0, 1, 4).sum())


@pytest.mark.parametrize("name", ["p", "p.zarr"])
def test_other_processes_read_them(tmp_path: Path, name: str) -> None:
    predictions = write(tmp_path / name)
    expected = float(predictions.rollout(0, 1, 4).sum())
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.map_async(_read_in_child, [pickle.dumps(predictions)]).get(timeout=60) == [expected]


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"dataset_name": "gray_scott"}, "dataset: these predictions have drifting_blob, asked is gray_scott"),
        ({"split": "valid"}, "split: these predictions have test, asked is valid"),
        ({"fields": ["pressure", "density"]}, "in another order"),
        ({"fields": ["density", "speed"]}, "components"),
        ({"resolution": (4, 5)}, "resolution"),
        ({"n_steps_input": 4}, "n_steps_input"),
        ({"first_frame": None}, "first_frame: these predictions have 3, asked is 2"),
        ({"frames_per_trajectory": FRAMES[:2]}, "number of trajectories: these predictions have 3, asked is 2"),
        ({"frames_per_trajectory": (9, 7, 6)}, "trajectory 1 has 7 frames: 5 windows, predicted are 4"),
    ],
)
def test_what_they_are_not_of_is_told(tmp_path: Path, changed: dict[str, Any], told: str) -> None:
    predictions = write(tmp_path / "p")
    with pytest.raises(PredictionsError, match=told) as caught:
        predictions.check(**{**ASKED, **changed})
    assert "\n" not in str(caught.value)


def test_rollouts_may_be_longer_than_what_is_scored_of_them(tmp_path: Path) -> None:
    predictions = write(tmp_path / "p")
    predictions.check(**ASKED, rollout_limit=2)
    short = [{"windows": n - 2, "rollout_steps": min(2, n - 3)} for n in FRAMES]
    (tmp_path / "p/predictions.json").write_text(json.dumps({**DESCRIPTION.to_mapping(), "trajectories": short}))
    for number in range(len(FRAMES)):
        np.save(tmp_path / f"p/rollout/{number:06d}.npy", values_of()["rollout", number][:2])
    limited = open_predictions(tmp_path / "p")
    limited.check(**ASKED, rollout_limit=2)
    with pytest.raises(PredictionsError, match="a rollout of 6 steps is asked for, predicted are 2"):
        limited.check(**ASKED)


def test_entries_that_are_not_there_are_refused(tmp_path: Path) -> None:
    predictions = write(tmp_path / "p")
    for trajectory, start, stop in ((3, 0, 1), (-1, 0, 1), (0, 0, 7), (0, 3, 2), (0, -1, 2)):
        with pytest.raises(WindowError):
            predictions.rollout(trajectory, start, stop)


def test_trajectories_too_short_to_predict_need_no_arrays(tmp_path: Path) -> None:
    short = DESCRIPTION.model_copy(update={"trajectories": expected_trajectories([2, 6], 2, first_frame=3)})
    for name in ("p", "p.zarr"):
        with PredictionsWriter(tmp_path / name, short) as writer:
            writer.one_step(1, 0, np.ones((4, *SHAPE)))
            writer.rollout(1, 0, np.ones((3, *SHAPE)))
    assert not (tmp_path / "p/one_step/000000.npy").exists()
    first, second = (open_predictions(tmp_path / name) for name in ("p", "p.zarr"))
    assert first.sha256() == second.sha256()
    assert first.rollout(0, 0, 0).shape == (0, *SHAPE)


def test_reading_a_piece_costs_the_memory_of_the_piece(tmp_path: Path) -> None:
    frames = 66
    long = DESCRIPTION.model_copy(
        update={"resolution": (64, 64), "trajectories": expected_trajectories([frames], 2, first_frame=3)}
    )
    frame = 64 * 64 * 2 * 4
    with PredictionsWriter(tmp_path / "p", long) as writer:
        for window in range(frames - 2):
            writer.one_step(0, window, np.full((1, 64, 64, 2), window, np.float32))
        for step in range(frames - 3):
            writer.rollout(0, step, np.full((1, 64, 64, 2), step, np.float32))
    predictions = open_predictions(tmp_path / "p")
    tracemalloc.start()
    try:
        assert predictions.one_step(0, 40, 42)[1, 0, 0, 0] == 41
        assert tracemalloc.get_traced_memory()[1] < 4 * frame
    finally:
        tracemalloc.stop()
