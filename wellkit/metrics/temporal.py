"""Measures of whole trajectories: how long a rollout holds, what it conserves, its distribution, its timing.

Fields are (..., time, space..., component) in NumPy or torch, steps at equal intervals. Precision as for the
point-by-point measures: float64 in NumPy, the tensors' own in torch. Nothing is masked: a NaN makes NaN of the
component it is in, unless a function says otherwise. All raise ScoreError as the point-by-point measures do.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from wellkit.errors import ScoreError
from wellkit.frameworks import Array, like, to_numpy
from wellkit.metrics.rows import DEFAULT_EPS, Compat, Field, Pair, quiet

# Where a rollout stops being of use: as wrong as the target's own mean, or hardly like it in pattern.
VRMSE_THRESHOLD = 1.0
CORRELATION_THRESHOLD = 0.8


def valid_rollout_length(
    scores: Array,
    *,
    threshold: float = VRMSE_THRESHOLD,
    higher_is_better: bool = False,
    n_steps: np.ndarray | int | None = None,
) -> Array:
    """Valid rollout length: how many steps a rollout stays valid from its start on, without a break.

    A step is valid while its score is at most `threshold` (at least, where higher is better). The first step that
    is not ends the count, whatever comes after; NaN is not valid. A rollout that never fails has its full length:
    then the true valid length is that or more. `the_well` has no such measure.

    Args:
        scores: (..., step, component), e.g. VRMSE, or a mean over components with a last axis of 1.
        threshold: VRMSE 1 by default, the score of the target's own mean; for correlations 0.8 is usual
            (`CORRELATION_THRESHOLD`, as in Kochkov et al. 2021, arXiv 2102.01010, who take 0.95 and 0.8).
        higher_is_better: whether scores fall with quality lost, as correlations do.
        n_steps: length of each rollout, of a shape that broadcasts to (..., component), where shorter ones are
            padded; None if all have all steps.

    Returns:
        (..., component), whole numbers from 0 to the number of steps.
    """
    if math.isnan(threshold):
        raise ScoreError("threshold=nan; give a number, e.g. 1.0 for VRMSE")
    values = to_numpy(scores)
    if values.ndim < 2:
        raise ScoreError(f"scores of shape {values.shape} cannot hold a step and a component axis")
    valid = values >= threshold if higher_is_better else values <= threshold
    if n_steps is not None:
        lengths = np.asarray(n_steps)[..., None, :] if np.ndim(n_steps) else np.asarray(n_steps)
        valid = valid & (np.arange(values.shape[-2])[:, None] < lengths)
    return like(np.asarray(np.logical_and.accumulate(valid, axis=-2).sum(axis=-2), dtype=np.int64), scores)


def conservation_drift(
    prediction: Array,
    initial: Array,
    *,
    n_spatial_dims: int,
    weights: np.ndarray | None = None,
    eps: float = DEFAULT_EPS,
) -> Array:
    """Conservation drift: (Q(t) - Q(0)) / (mean |u(0)| + eps), Q the mean over space, without unit, signed.

    For a quantity that cannot change sign, such as mass, the share of it that was gained (positive) or lost. For
    one whose total may vanish, such as momentum, it is measured against what there is of it at first. Means
    something only for components that the equations and boundaries conserve; set it beside the drift of the
    target, which holds what the stored data and discretization do not conserve. `the_well` has no such measure.

    Args:
        prediction: (..., time, space..., component), physical units.
        initial: (..., space..., component), the last true frame before it.
        n_spatial_dims: how many axes before the last one are space.
        weights: (space...), volume of each cell, for grids of unequal cells; None where all are equal.
        eps: added to the denominator, in the fields' unit.

    Returns:
        (..., time, component), like `prediction`; NaN where it or `initial` holds NaN.
    """
    later, first = Field(prediction, n_spatial_dims), Field(initial, n_spatial_dims)
    shape, start = tuple(later.rows.shape), tuple(first.rows.shape)
    if later.ops is not first.ops or later.space != first.space or (*shape[:-3], *shape[-2:]) != start:
        raise ScoreError(
            f"prediction has shape {tuple(np.shape(prediction))}, initial {tuple(np.shape(initial))}; give arrays of "
            "one framework, initial without the time axis (the one before space)"
        )
    share = np.full(first.points, 1.0 / first.points)
    if weights is not None:
        volumes = np.asarray(weights, dtype=np.float64)
        total = float(volumes.sum())
        if volumes.shape != first.space or not (volumes >= 0).all() or not 0 < total < math.inf:
            raise ScoreError(f"weights of shape {volumes.shape} for space {first.space}; give one volume for each cell")
        share = volumes.ravel() / total
    ops = first.ops
    with quiet():
        parts = ops.constant(share * first.points, first.rows)
        scale = ops.mean(abs(first.rows) * parts) + eps
        # Differences first: a drift of 1e-9 of a large total would be lost between two means.
        drift = ops.mean((later.rows - first.rows[..., None, :, :]) * parts)
        return later.back(drift / scale[..., None, :])


def histogram_w1(
    prediction: Array,
    target: Array,
    *,
    n_spatial_dims: int,
    normalize: bool = True,
    eps: float = DEFAULT_EPS,
    compat: Compat = None,
) -> Array:
    """Wasserstein-1 distance of the distributions of values over space and time: mean |sorted x - sorted y|.

    Divided by sqrt(mean(y^2) + eps), the target's RMS, so that it has no unit and any unit gives the same value.
    Source: the code of `the_well` 1.2, benchmark/metrics/temporal.py.

    Args:
        prediction: x, (..., time, space..., component).
        target: y, the same shape.
        n_spatial_dims: how many axes before the last one are space.
        normalize: whether to divide; without, the distance is in the fields' unit.
        eps: in the square of the fields' unit.
        compat: "the_well" divides by mean(y^2) + eps, which is no RMS: data 10 times as large then score a tenth.

    Returns:
        (..., component); `the_well` keeps a time axis of 1 before the last one. NaN where either holds NaN.
    """
    pair = Pair(prediction, target, n_spatial_dims + 1, compat)  # time is one more axis to gather from
    with quiet():
        distance = pair.ops.mean(abs(pair.ops.sort(pair.prediction) - pair.ops.sort(pair.target)))
        if normalize:
            square = pair.ops.mean(pair.target**2) + eps
            distance = distance / (square if compat == "the_well" else pair.ops.sqrt(square))
        return pair.back(distance)


class WindowedDTW(NamedTuple):
    """Result of `windowed_dtw`.

    Attributes:
        distance: (..., component), without unit.
        path_distortion: (..., component), in steps.
    """

    distance: Array
    path_distortion: Array


def windowed_dtw(
    prediction: Array,
    target: Array,
    *,
    n_spatial_dims: int,
    window: int = 10,
    normalize: bool = True,
    eps: float = DEFAULT_EPS,
    compat: Compat = None,
) -> WindowedDTW:
    """Dynamic time warping of two trajectories within a window of steps: an error that forgives wrong timing.

    The cost of matching frame i of x with frame j of y is the mean over space of the squared difference, both
    frames divided by their RMS over space. D is the least total cost of a monotone path from (0, 0) to (T-1, T-1)
    with |i - j| <= window (Sakoe and Chiba 1978); distance = sqrt(D / T), path_distortion = mean |i - j| along
    the path (of equal paths, the one that keeps to i = j). Source: the code of `the_well` 1.2,
    benchmark/metrics/temporal.py. Computed in float64 on the host, not differentiable; time O(T window points).

    Args:
        prediction: x, (..., time, space..., component).
        target: y, the same shape.
        n_spatial_dims: how many axes before the last one are space.
        window: farthest that frames may be moved, in steps.
        normalize: whether to divide frames by their RMS over space + eps.
        eps: in the fields' unit.
        compat: "the_well" as it computes: step 0 is matched with nothing, j reaches from i - window to
            i + window - 1 only, frames are divided by their norm over components (a single one keeps its signs
            alone), and the distortion is the mean over j of |argmin_i D[i, j] - j|.

    Raises:
        ScoreError: as above, or `window` is negative (below 1 with compat).
    """
    pair = Pair(prediction, target, n_spatial_dims, compat)
    lead = tuple(pair.prediction.shape)
    if len(lead) < 3 or lead[-3] < 1:
        raise ScoreError(f"shape {tuple(np.shape(prediction))} has no time axis before its {n_spatial_dims} space axes")
    if window < (1 if compat == "the_well" else 0):
        raise ScoreError(f"window={window}; give a number of steps from {1 if compat else 0} up")
    x, y = (np.asarray(to_numpy(rows), dtype=np.float64) for rows in (pair.prediction, pair.target))
    with quiet():
        if normalize and compat == "the_well":
            x, y = (rows / (np.linalg.norm(rows, axis=-2, keepdims=True) + eps) for rows in (x, y))
        elif normalize:
            x, y = (rows / (np.sqrt(np.mean(rows**2, axis=-1, keepdims=True)) + eps) for rows in (x, y))
        x, y = (np.moveaxis(rows, -3, 0) for rows in (x, y))  # (time, ..., component, point)
        distance, distortion = _warp_as_the_well(x, y, window) if compat else _warp(x, y, window)
    return WindowedDTW(*(like(np.asarray(values), prediction) for values in (distance, distortion)))


def _cost(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.asarray(np.mean((x - y) ** 2, axis=-1))


def _warp(x: np.ndarray, y: np.ndarray, window: int) -> tuple[np.ndarray, np.ndarray]:
    steps = len(x)
    # One row and column of infinity around, so that every cell has three predecessors.
    total = np.full((steps + 1, steps + 1, *x.shape[1:-1]), np.inf)
    total[0, 0] = 0.0
    strayed = np.zeros((2, *total.shape))  # sum of |i - j|, and cells, of the best path to each cell
    for i in range(steps):
        for j in range(max(0, i - window), min(steps, i + window + 1)):
            before = ((i, j), (i, j + 1), (i + 1, j))  # both on, i alone, j alone; the first of equals is taken
            costs = np.stack([total[cell] for cell in before])
            best = np.where(np.isnan(costs[0]), 0, np.argmin(costs, axis=0))[None]
            total[i + 1, j + 1] = np.take_along_axis(costs, best, axis=0)[0] + _cost(x[i], y[j])
            paths = np.stack([strayed[:, *cell] for cell in before], axis=1)
            chosen = np.take_along_axis(paths, np.broadcast_to(best, (2, *best.shape)), axis=1)[:, 0]
            strayed[0, i + 1, j + 1], strayed[1, i + 1, j + 1] = chosen[0] + abs(i - j), chosen[1] + 1
    end = total[-1, -1]
    return np.sqrt(end / steps), np.where(np.isnan(end), np.nan, strayed[0, -1, -1] / strayed[1, -1, -1])


def _warp_as_the_well(x: np.ndarray, y: np.ndarray, window: int) -> tuple[np.ndarray, np.ndarray]:
    steps = len(x)
    total = np.full((steps, steps, *x.shape[1:-1]), 1e12)
    total[0, 0] = 0.0
    for i in range(1, steps):
        for j in range(max(1, i - window), min(steps, i + window)):
            before = np.minimum(np.minimum(total[i - 1, j], total[i, j - 1]), total[i - 1, j - 1])
            total[i, j] = _cost(x[i], y[j]) + before
    columns = np.arange(steps).reshape(-1, *(1,) * (total.ndim - 2))
    return np.sqrt(total[-1, -1] / steps), np.abs(np.argmin(total, axis=0) - columns).mean(axis=0)
