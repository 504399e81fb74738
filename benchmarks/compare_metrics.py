"""Values of `wellkit.metrics` with compat="the_well" against the_well 1.2's own functions, on random fields.

    python benchmarks/compare_metrics.py --peer-python /path/to/peer/bin/python [--seed 0]

The peer lives in an environment of its own: `python -m venv peer && peer/bin/pip install torch the-well==1.2.0`.
Prints the largest difference of each measure over all cases, relative to the largest component of its frame, for NumPy
and torch; exits with status 1 if one is past 1e-6. Fields are float64, so that what is compared is the definitions and
not the rounding of the peer's float32 sums; `--float32` shows that too, without a limit.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from wellkit import metrics

LIMIT = 1e-6
# Odd, prime and unequal sides; 18 puts modes on the edges of shells; a mean far from 0; values far from 1.
SPACES = ((16,), (37,), (8, 8), (18, 18), (36, 36), (24, 20), (128, 32), (17, 33), (8, 12, 10), (16, 16, 16))
SCALES = ((1.0, 0.0), (1e-3, 0.0), (1.0, 50.0), (1e3, -1e3))


def cases(seed: int, dtype: type[Any]) -> dict[str, np.ndarray]:
    """Predictions and targets (2, 7, space..., 3), correlated, by case."""
    rng = np.random.default_rng(seed)
    found = {}
    for space in SPACES:
        for scale, offset in SCALES:
            shape = (2, 7, *space, 3)
            target = offset + scale * rng.normal(size=shape)
            prediction = target + 0.3 * scale * rng.normal(size=shape)
            case = f"{'x'.join(map(str, space))}, {scale:g}, {offset:g}"
            found[f"{case}/x"], found[f"{case}/y"] = prediction.astype(dtype), target.astype(dtype)
    return found


def ours(x: Any, y: Any) -> dict[str, Any]:
    """Every measure both have, as the_well computes it."""
    dims = x.ndim - 3
    found = {
        name: function(x, y, n_spatial_dims=dims, compat="the_well")
        for name, function in (metrics.METRICS | metrics.BANDED_METRICS).items()
        if name not in ("spectral_error", "spectral_energy_error")  # wellkit's own
    }
    spectrum = metrics.power_spectrum(x, n_spatial_dims=dims, compat="the_well")
    found |= {f"spectrum_{name}": values for name, values in spectrum._asdict().items()}
    found["histogram_w1"] = metrics.histogram_w1(x, y, n_spatial_dims=dims, compat="the_well")
    warped = metrics.windowed_dtw(x, y, n_spatial_dims=dims, window=3, compat="the_well")
    found["dtw_distance"], found["dtw_path_distortion"] = warped
    histograms = metrics.field_histograms(x, y, bins=20, compat="the_well")
    for theirs, name in (("xhist", "prediction"), ("yhist", "target"), ("bins", "edges")):
        found[f"histogram_{theirs}"] = np.stack([getattr(histogram, name) for histogram in histograms])
    return found


def difference(mine: Any, theirs: np.ndarray) -> float:
    """Largest difference, relative to the largest along the last axis (infinite where shapes differ)."""
    values = np.asarray(mine, dtype=np.float64)
    if values.shape != theirs.shape:
        return float("inf")
    size = np.abs(theirs).max(axis=-1, keepdims=True)
    return float((np.abs(values - theirs) / np.where(size == 0, 1, size)).max())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-python", required=True, help="python of an environment with the-well==1.2.0")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--float32", action="store_true", help="hand over float32 fields, without a limit")
    arguments = parser.parse_args()
    given = cases(arguments.seed, np.float32 if arguments.float32 else np.float64)
    with tempfile.TemporaryDirectory() as folder:
        source, out = Path(folder) / "in.npz", Path(folder) / "out.npz"
        np.savez(source, **given)  # type: ignore[arg-type]
        script = Path(__file__).with_name("peer_metrics.py")
        subprocess.run([arguments.peer_python, str(script), str(source), str(out)], check=True)
        with np.load(out) as answers:
            theirs = dict(answers)
    worst: dict[str, list[float]] = {}
    for case in sorted({name.rsplit("/", 1)[0] for name in given}):
        x, y = given[f"{case}/x"], given[f"{case}/y"]
        both = ours(x, y), ours(torch.from_numpy(x), torch.from_numpy(y))
        for name in {key.rsplit("/", 1)[1] for key in theirs}:
            found = worst.setdefault(name, [0.0, 0.0])
            for i, mine in enumerate(both):
                found[i] = max(found[i], difference(mine[name], theirs[f"{case}/{name}"]))
    print(f"{'measure':<22}{'NumPy':>10}{'torch':>10}")
    for name, (numpy, tensor) in sorted(worst.items()):
        print(f"{name:<22}{numpy:>10.1e}{tensor:>10.1e}")
    past = max(max(pair) for pair in worst.values())
    print(f"{len(given) // 2} cases, largest relative difference {past:.1e}")
    return 0 if arguments.float32 or past <= LIMIT else 1


if __name__ == "__main__":
    sys.exit(main())
