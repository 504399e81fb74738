"""Histograms of values, prediction beside target, with nothing left out unsaid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from wellkit.errors import ScoreError
from wellkit.frameworks import Array, to_numpy
from wellkit.metrics.rows import Compat, Pair


@dataclass(frozen=True)
class FieldHistogram:
    """Distribution of one component's values.

    Attributes:
        edges: (bin + 1), in the fields' unit, evenly over the range of the target.
        prediction, target: (bin), densities per unit. The target's integral is 1; the prediction's is the share
            of its values within the edges.
        below, above: how many predicted values are under the first and over the last edge.
        nonfinite: how many predicted values are NaN or infinite.
        outside: how many target values are NaN or infinite, left out.
    """

    edges: np.ndarray
    prediction: np.ndarray
    target: np.ndarray
    below: int
    above: int
    nonfinite: int
    outside: int


def field_histograms(
    prediction: Array, target: Array, *, bins: int = 100, compat: Compat = None
) -> tuple[FieldHistogram, ...]:
    """Histograms of all values, one for each component.

    Args:
        prediction, target: (..., component) of one shape, NumPy or torch.
        bins: how many, evenly over the finite range of the target.
        compat: "the_well" gives the numbers of `the_well` 1.2 (benchmark/metrics/plottable_data.py): NaN counts
            as 1000, infinities as +-10000, in the target's range too, and predictions out of range are dropped
            before densities are taken, so that a prediction that has mostly left the range looks like one that
            has not.

    Raises:
        ScoreError: shapes differ or hold nothing, `bins` is below 1, or the target has no finite value.
    """
    if bins < 1:
        raise ScoreError(f"bins={bins}; give a whole number from 1 up")
    flat = [to_numpy(array) for array in (prediction, target)]
    if not flat[0].ndim or flat[0].shape != flat[1].shape or not flat[0].size:
        raise ScoreError(f"prediction has shape {flat[0].shape}, target {flat[1].shape}; they must be equal, not empty")
    pair = Pair(flat[0].reshape(-1, flat[0].shape[-1]), flat[1].reshape(-1, flat[1].shape[-1]), 1, compat)
    return tuple(_one(x, y, bins, compat) for x, y in zip(pair.prediction, pair.target, strict=True))


def _one(x: np.ndarray, y: np.ndarray, bins: int, compat: Compat) -> FieldHistogram:
    finite, known = np.isfinite(x), np.isfinite(y)
    if compat == "the_well":
        x, y = (np.nan_to_num(values, nan=1000, posinf=10000, neginf=-10000) for values in (x, y))
        true, edges = np.histogram(y, bins=bins, density=True)
        predicted = np.histogram(x, bins=edges, density=True)[0] if ((x >= edges[0]) & (x <= edges[-1])).any() else None
        predicted = np.full(bins, np.nan) if predicted is None else predicted  # 0 / 0 there
    else:
        if not known.any():
            raise ScoreError("the target has no finite value to take a range from")
        true, edges = np.histogram(y[known], bins=bins, density=True)
        predicted = np.histogram(x[finite], bins=edges)[0] / (len(x) * np.diff(edges))
    return FieldHistogram(
        edges=edges,
        prediction=predicted,
        target=true,
        below=int((x[finite] < edges[0]).sum()),
        above=int((x[finite] > edges[-1]).sum()),
        nonfinite=int((~finite).sum()),
        outside=int((~known).sum()),
    )
