"""Networks saved by the_well[benchmark] 1.2, loaded by wellkit: outputs against the_well's own on the same input.

    python benchmarks/compare_models.py --peer-python /path/to/peer/bin/python

The peer lives in an environment of its own: `python -m venv peer && peer/bin/pip install 'the-well[benchmark]==1.2.0'`.
Exit status 1 if an output differs by more than 1e-5 of the largest. `--fixtures tests/train/published` writes the tiny
ones that the tests load instead.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from wellkit.train.models import count_parameters
from wellkit.train.pretrained import load_pretrained

TOLERANCE = 1e-5
_FNO = {"modes1": 16, "modes2": 16, "hidden_channels": 128}
_SMALL_FNO = {"modes1": 8, "modes2": 6, "modes3": 10, "hidden_channels": 12}


def cases() -> dict[str, dict[str, Any]]:
    """Each model as the benchmark configures it in 2D, and small in 2D and 3D."""
    found: dict[str, dict[str, Any]] = {}

    def add(
        name: str,
        kind: str,
        made_for: tuple[int, ...],
        own: dict[str, int],
        *,
        size: tuple[int, ...] = (),
        legacy: bool = False,
    ) -> None:
        given = {"dim_in": 44, "dim_out": 11, "n_spatial_dims": len(made_for), "spatial_resolution": list(made_for)}
        found[name] = {"class": kind, "arguments": {**given, **own}, "size": list(size or made_for), "legacy": legacy}

    for kind in ("FNO", "TFNO"):
        add(f"{kind}-2D", kind, (64, 96), _FNO)
        add(f"{kind}-2D-legacy", kind, (64, 96), _FNO, legacy=True)
        add(f"{kind}-2D-few-points", kind, (64, 96), _SMALL_FNO, size=(6, 8))
        add(f"{kind}-2D-defaults", kind, (16, 24), {"modes1": 8, "modes2": 8})
        add(f"{kind}-3D", kind, (16, 12, 20), _SMALL_FNO)
    for kind, benchmark in (
        ("UNetClassic", {"init_features": 48}),
        ("UNetConvNext", {"init_features": 42, "blocks_per_stage": 2}),
        ("AViT", {"hidden_dim": 384, "num_heads": 6}),
    ):
        small = {"hidden_dim": 96, "num_heads": 4} if kind == "AViT" else {"init_features": 6}
        add(f"{kind}-2D", kind, (64, 96), benchmark)
        add(f"{kind}-2D-small", kind, (32, 48), small)
        add(f"{kind}-3D", kind, (32, 48, 64), small)
        if kind != "AViT":
            add(f"{kind}-2D-defaults", kind, (32, 16), {})
    return found


def fixtures() -> dict[str, dict[str, Any]]:
    """Each model as small as it gets."""
    fno = ((12, 16), {"modes1": 4, "modes2": 6, "hidden_channels": 4})
    unet = ((16, 32), {"init_features": 2})
    transformer = ((32, 48), {"hidden_dim": 48, "num_heads": 4, "processor_blocks": 1})
    smallest = {"FNO": fno, "TFNO": fno, "UNetClassic": unet, "UNetConvNext": unet, "AViT": transformer}
    channels = {"dim_in": 5, "dim_out": 2, "n_spatial_dims": 2}
    return {
        kind: {
            "class": kind,
            "arguments": {**channels, "spatial_resolution": list(size), **own},
            "size": list(size),
            "legacy": False,
        }
        for kind, (size, own) in smallest.items()
    }


def save(peer: Path, requests: dict[str, dict[str, Any]], folder: Path) -> None:
    """Have the peer make and save the networks asked for."""
    with tempfile.NamedTemporaryFile("w", suffix=".json") as request:
        json.dump(requests, request)
        request.flush()
        subprocess.run([peer, Path(__file__).with_name("peer_models.py"), request.name, folder], check=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-python", required=True, type=Path)
    parser.add_argument("--fixtures", type=Path, metavar="FOLDER")
    given = parser.parse_args()
    if given.fixtures is not None:
        save(given.peer_python, fixtures(), given.fixtures)
        return 0
    requests, failed = cases(), 0
    with tempfile.TemporaryDirectory() as folder:
        save(given.peer_python, requests, Path(folder))
        print(f"{'case':24} {'parameters':>12} {'largest difference':>20}")
        for case, asked in requests.items():
            legacy = asked["legacy"] if asked["class"] in ("FNO", "TFNO") else None
            loaded = load_pretrained(Path(folder) / case, legacy_skip_blocks=legacy)
            values = np.load(Path(folder) / case / "values.npz")
            with torch.no_grad():
                output = loaded.model(torch.from_numpy(values["input"])).numpy()
            difference = float(np.abs(output - values["output"]).max() / np.abs(values["output"]).max())
            is_equal = output.shape == values["output"].shape and difference <= TOLERANCE
            failed += not is_equal
            verdict = "" if is_equal else "  DIFFERS"
            print(f"{case:24} {count_parameters(loaded.model):12,} {difference:20.1e}{verdict}")
    print(f"{len(requests) - failed} of {len(requests)} equal to {TOLERANCE:g}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
