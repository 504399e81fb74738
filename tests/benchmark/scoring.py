"""Predictors with known scores, and VRMSE written out: what the tests of scores share."""

from __future__ import annotations

import math
from pathlib import Path

import h5py
import numpy as np
import torch
from torch import Tensor

from tests.train.advection import NAME, SPEED
from wellkit.benchmark.contenders import Contender
from wellkit.benchmark.forecasts import Computed
from wellkit.schemas.result import ScoredModel
from wellkit.train.data import nan_allowed, open_split

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
