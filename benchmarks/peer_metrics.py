"""Runs inside an environment with the_well: computes its measures of the arrays in IN.npz, writes them to OUT.npz.

    python peer_metrics.py IN.npz OUT.npz

IN.npz holds "CASE/x", "CASE/y" (batch, time, space..., component); OUT.npz gets "CASE/MEASURE".
"""

from __future__ import annotations

import sys
import tempfile
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import torch

try:
    import matplotlib  # noqa: F401
except ImportError:  # its drawing is not compared, so nothing that draws will do; its numbers are its own all the same
    drawing = MagicMock()
    drawing.subplots.return_value = (MagicMock(), MagicMock())
    sys.modules |= {"matplotlib": MagicMock(pyplot=drawing), "matplotlib.pyplot": drawing}
    sys.modules["matplotlib.animation"] = MagicMock()

from the_well.benchmark import metrics
from the_well.benchmark.metrics import spectral


def measures(x: Any, y: Any) -> dict[str, Any]:
    """Every measure of the_well by the name wellkit gives it."""
    dims = x.ndim - 3
    fields = {0: [f"f{i}" for i in range(x.shape[-1])]}
    meta = SimpleNamespace(n_spatial_dims=dims, dataset_name="d", field_names=fields, constant_field_names={})
    names = {
        "mse": "MSE",
        "mae": "MAE",
        "nmae": "NMAE",
        "nmse": "NMSE",
        "rmse": "RMSE",
        "nrmse": "NRMSE",
        "vmse": "VMSE",
        "vrmse": "VRMSE",
        "linf": "LInfinity",
        "pearson_r": "PearsonR",
    }
    found: dict[str, Any] = {ours: getattr(metrics, theirs)()(x, y, meta) for ours, theirs in names.items()}
    bands = metrics.binned_spectral_mse()(x, y, meta)
    for ours, theirs in (("binned_spectral_mse", "mse"), ("binned_spectral_nmse", "nmse")):
        found[ours] = torch.stack([bands[f"spectral_error_{theirs}_per_bin_{i}"] for i in range(3)], dim=-2)
    edges, mean, deviation, counts = spectral.power_spectrum(x, meta, return_counts=True)
    found |= {"spectrum_edges": edges, "spectrum_mean": mean, "spectrum_std": deviation}
    found["spectrum_counts"] = counts[:-1]
    found["histogram_w1"] = metrics.HistogramW1()(x, y, meta).squeeze(-2)
    warped = metrics.WindowedDTW()(x, y, meta, window_size=3)
    found["dtw_distance"] = warped["dtw_distance"].squeeze(-2)
    found["dtw_path_distortion"] = warped["dtw_path_distortion"].squeeze(-2)
    with tempfile.TemporaryDirectory() as folder:
        metrics.field_histograms(x, y, meta, folder, bins=20)
        for kind in ("xhist", "yhist", "bins"):
            titles = [f"f{i} Histogram" for i in range(x.shape[-1])]
            parts = [np.load(f"{folder}/d/{title}/epoch0_{kind}.npy") for title in titles]
            found[f"histogram_{kind}"] = torch.from_numpy(np.stack(parts))
    return found


def main(source: str, out: str) -> None:
    given = np.load(source)
    cases = sorted({name.rsplit("/", 1)[0] for name in given.files})
    answers: dict[str, Any] = {}
    for case in cases:
        x, y = (torch.from_numpy(given[f"{case}/{side}"]) for side in "xy")
        answers |= {f"{case}/{name}": values.numpy() for name, values in measures(x, y).items()}
    np.savez(out, **answers)


if __name__ == "__main__":
    main(*sys.argv[1:])
