"""Predictions of a tiny dataset of unequal trajectories, written with wellkit and by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import numpy as np
import zarr

from wellkit.benchmark.predictions import (
    PredictingModel,
    Predictions,
    PredictionsDescription,
    PredictionsWriter,
    expected_trajectories,
    open_predictions,
)

FRAMES = (9, 6, 7)  # unequal trajectories
SHAPE = (5, 4, 2)
DESCRIPTION = PredictionsDescription(
    schema_=PredictionsDescription.schema_name(),
    model=PredictingModel(name="tiny", parameters=12, seed=3),
    dataset="drifting_blob",
    split="test",
    protocol="well-2024",
    n_steps_input=2,
    first_frame=3,
    fields=("density", "pressure"),
    resolution=SHAPE[:2],
    trajectories=expected_trajectories(FRAMES, 2, first_frame=3),
)
ASKED: dict[str, Any] = {
    "dataset_name": "drifting_blob",
    "split": "test",
    "fields": ["density", "pressure"],
    "resolution": (5, 4),
    "frames_per_trajectory": FRAMES,
    "n_steps_input": 2,
    "first_frame": 3,
}


def values_of(seed: int = 0) -> dict[tuple[str, int], np.ndarray]:
    rng = np.random.default_rng(seed)
    values = {}
    for number, promised in enumerate(DESCRIPTION.trajectories):
        values["one_step", number] = rng.normal(size=(promised.windows, *SHAPE)).astype(np.float32)
        values["rollout", number] = rng.normal(size=(promised.rollout_steps, *SHAPE)).astype(np.float32)
    values["rollout", 1][2, 1, 1, 0] = np.nan
    values["one_step", 0][3] = -np.inf
    values["one_step", 2][0, 0, 0, 1] = -0.0
    return values


def write(path: Path, *, seed: int = 0, overwrite: bool = False, pieces: bool = False) -> Predictions:
    order = np.random.default_rng(seed + 1)
    with PredictionsWriter(path, DESCRIPTION, overwrite=overwrite) as writer:
        for (part, number), values in values_of(seed).items():
            put = writer.one_step if part == "one_step" else writer.rollout
            if pieces:
                for start in order.permutation(len(values)):
                    put(number, int(start), values[start : start + 1])
            else:
                put(number, 0, values)
    return open_predictions(path)


def write_zarr(path: Path, zarr_format: Literal[2, 3], *, beside: bool = False, **options: Any) -> Path:
    """As a user would, with zarr-python alone."""
    group = zarr.create_group(str(path), zarr_format=zarr_format)
    if beside:
        (path / "predictions.json").write_text(json.dumps(DESCRIPTION.to_mapping()))
    else:
        group.attrs["predictions"] = DESCRIPTION.to_mapping()
    for (part, number), values in values_of().items():
        array = group.create_array(
            f"{part}/{number:06d}", shape=values.shape, dtype="f4", chunks=(2, *SHAPE), fill_value=np.nan, **options
        )
        array[...] = values
    return path


def read(predictions: Predictions, part: str, number: int, start: int, stop: int) -> np.ndarray:
    take = predictions.one_step if part == "one_step" else predictions.rollout
    return take(number, start, stop)


def assert_holds(predictions: Predictions, expected: dict[tuple[str, int], np.ndarray]) -> None:
    for (part, number), values in expected.items():
        found = read(predictions, part, number, 0, len(values))
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, values)
        rng = np.random.default_rng(number)
        for _ in range(4):
            start, stop = sorted(rng.integers(0, len(values) + 1, 2).tolist())
            np.testing.assert_array_equal(read(predictions, part, number, start, stop), values[start:stop])
