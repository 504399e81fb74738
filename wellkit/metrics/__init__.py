"""Error measures on fields, for NumPy arrays and torch tensors alike.

Every measure takes a prediction and a target of one shape, (..., space..., component), reduces over the
`n_spatial_dims` space axes and nothing else, and returns (..., component) in the framework it was given.
Means over windows, steps and components are the caller's business, so that no mean is taken in an order the
caller cannot see.

One file a family: `spatial` compares point by point. A spectral or temporal family is another file here, with
its functions listed below in `METRICS`.
"""

from __future__ import annotations

from collections.abc import Callable

from wellkit.frameworks import Array
from wellkit.metrics.spatial import (
    DEFAULT_EPS,
    linf,
    mae,
    mse,
    nmae,
    nmse,
    nrmse,
    pearson_r,
    rmse,
    vmse,
    vrmse,
)

# name -> function(prediction, target, *, n_spatial_dims): what a suite of measures is put together from
METRICS: dict[str, Callable[..., Array]] = {
    "mse": mse,
    "mae": mae,
    "rmse": rmse,
    "nmae": nmae,
    "nmse": nmse,
    "nrmse": nrmse,
    "vmse": vmse,
    "vrmse": vrmse,
    "linf": linf,
    "pearson_r": pearson_r,
}

__all__ = [
    "DEFAULT_EPS",
    "METRICS",
    "linf",
    "mae",
    "mse",
    "nmae",
    "nmse",
    "nrmse",
    "pearson_r",
    "rmse",
    "vmse",
    "vrmse",
]
