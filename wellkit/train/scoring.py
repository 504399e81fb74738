"""One-step scores over every window of a split, streamed: the number training selects by and the benchmark reports."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wellkit import metrics
from wellkit.errors import DataValueError
from wellkit.train.data import Batch, Batches, check_finite
from wellkit.train.predictors import Predictor
from wellkit.train.progress import Progress, ProgressCallback, silent


@dataclass(frozen=True)
class WindowScores:
    """One-step VRMSE of every window.

    Attributes:
        vrmse: (window, component), float64; infinite where a prediction is not finite.
        nonfinite: how many (window, component) pairs were predicted with NaN or infinity.
        seconds: time taken.
    """

    vrmse: np.ndarray
    nonfinite: int
    seconds: float

    @property
    def mean(self) -> float:
        """Over windows and components."""
        return float(self.vrmse.mean())


def score_frames(prediction: Tensor, target: Tensor, *, n_spatial_dims: int, eps: float) -> tuple[np.ndarray, int]:
    """VRMSE per frame and component, and how many of them are of non-finite predictions.

    Computed in float64, each frame by itself, so the values do not depend on what shares a batch with them.

    Args:
        prediction, target: (..., space..., component), physical units. NaN in the target marks points outside
            the domain (the caller has checked that it may): those points are left out.

    Returns:
        (..., component) float64, with infinity where the prediction holds NaN or infinity at a scored point;
        and the count of those entries.
    """
    on_host = prediction.device.type not in ("cpu", "cuda")  # others have no float64
    prediction = (prediction.cpu() if on_host else prediction).double()
    target = (target.cpu() if on_host else target).double()
    values = metrics.vrmse(prediction, target, n_spatial_dims=n_spatial_dims, eps=eps).cpu().numpy()
    if bool(target.isnan().any()):
        _score_inside(values, prediction, target, n_spatial_dims, eps)
    bad = ~np.isfinite(values)
    values[bad] = np.inf
    return values, int(bad.sum())


def _score_inside(values: np.ndarray, prediction: Tensor, target: Tensor, n_spatial_dims: int, eps: float) -> None:
    """Fill in the values of frames with points outside the domain, over the points inside."""
    space = tuple(range(-n_spatial_dims - 1, -1))
    for place in np.argwhere(target.isnan().any(dim=space).cpu().numpy()):
        at: Any = (*(int(i) for i in place[:-1]), ..., int(place[-1]))
        true = target[at].flatten()
        inside = ~true.isnan()
        if int(inside.sum()) < 2:
            raise DataValueError(f"a frame to score holds {int(inside.sum())} points that are not NaN; 2 are needed")
        one = prediction[at].flatten()[inside].unsqueeze(-1)
        score = metrics.vrmse(one, true[inside].unsqueeze(-1), n_spatial_dims=1, eps=eps)
        values[tuple(place)] = float(score[0])


@torch.inference_mode()
def score_windows(
    predictor: Predictor,
    batches: Batches,
    *,
    eps: float,
    split: str,
    allowed: Sequence[bool],
    phase: str = "valid",
    epoch: int = 0,
    on_batch: Callable[[Batch], None] | None = None,
    progress: ProgressCallback = silent,
) -> WindowScores:
    """Score the prediction of the first output step of every window, in order, none left out.

    Memory: one batch, and 8 bytes per window and component.

    Args:
        batches: windows in physical units.
        eps: of `wellkit.metrics.vrmse`.
        split: for error messages.
        allowed: per channel, whether the card allows NaN.
        on_batch: called with every batch before it is scored.

    Raises:
        DataValueError: NaN where the card allows none, or infinity.
    """
    began = time.perf_counter()
    dataset = batches.dataset
    dims = dataset.metadata.n_spatial_dims
    values = np.empty((len(dataset), dataset.metadata.n_fields), dtype=np.float64)
    nonfinite = done = 0
    for number, batch in enumerate(batches.in_order(), start=1):
        check_finite(batch, dataset, allowed, split=split)
        if on_batch is not None:
            on_batch(batch)
        predicted = predictor.predict(batch.inputs, batch.constants)
        scores, bad = score_frames(predicted, batch.outputs[:, 0], n_spatial_dims=dims, eps=eps)
        values[done : done + len(batch)] = scores
        done, nonfinite = done + len(batch), nonfinite + bad
        elapsed = time.perf_counter() - began
        progress(
            Progress(
                "one-step" if phase == "one-step" else "valid",
                number,
                len(batches),
                epoch=epoch,
                samples_per_second=done / elapsed,
                stall_share=batches.waited / elapsed,
            )
        )
    return WindowScores(values, nonfinite, time.perf_counter() - began)
