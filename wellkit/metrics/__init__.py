"""Error measures on fields, for NumPy arrays and torch tensors alike.

Every measure takes a prediction and a target of one shape, (..., space..., component), reduces over the
`n_spatial_dims` space axes and nothing else, and returns (..., component) in the framework it was given.
Means over windows, steps and components are the caller's business, so that no mean is taken in an order the
caller cannot see.

One file a family: `spatial` compares point by point (`METRICS`), `spectral` by band of wavenumbers
(`BANDED_METRICS`), `temporal` whole trajectories, `histograms` distributions of values; `accumulation` adds up
scores of many samples, the same to the last bit in whatever batches and processes they are computed.
"""

from __future__ import annotations

from collections.abc import Callable

from wellkit.frameworks import Array
from wellkit.metrics.accumulation import ExactSum, ScoreSummary, ScoreTable, exact_mean, vrmse_of
from wellkit.metrics.histograms import FieldHistogram, field_histograms
from wellkit.metrics.rows import DEFAULT_EPS
from wellkit.metrics.spatial import linf, mae, mse, nmae, nmse, nrmse, pearson_r, rmse, vmse, vrmse
from wellkit.metrics.spectral import (
    BANDS,
    PowerSpectrum,
    binned_spectral_mse,
    binned_spectral_nmse,
    power_spectrum,
    spectral_energy_error,
    spectral_error,
)
from wellkit.metrics.temporal import (
    CORRELATION_THRESHOLD,
    VRMSE_THRESHOLD,
    WindowedDTW,
    conservation_drift,
    histogram_w1,
    valid_rollout_length,
    windowed_dtw,
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

# name -> function(prediction, target, *, n_spatial_dims), with results (..., band, component)
BANDED_METRICS: dict[str, Callable[..., Array]] = {
    "binned_spectral_mse": binned_spectral_mse,
    "binned_spectral_nmse": binned_spectral_nmse,
    "spectral_error": spectral_error,
    "spectral_energy_error": spectral_energy_error,
}

__all__ = [
    "BANDED_METRICS",
    "BANDS",
    "CORRELATION_THRESHOLD",
    "DEFAULT_EPS",
    "METRICS",
    "VRMSE_THRESHOLD",
    "ExactSum",
    "FieldHistogram",
    "PowerSpectrum",
    "ScoreSummary",
    "ScoreTable",
    "WindowedDTW",
    "binned_spectral_mse",
    "binned_spectral_nmse",
    "conservation_drift",
    "exact_mean",
    "field_histograms",
    "histogram_w1",
    "linf",
    "mae",
    "mse",
    "nmae",
    "nmse",
    "nrmse",
    "pearson_r",
    "power_spectrum",
    "rmse",
    "spectral_energy_error",
    "spectral_error",
    "valid_rollout_length",
    "vmse",
    "vrmse",
    "vrmse_of",
    "windowed_dtw",
]
