"""Networks that the_well saved, with what they compute: `benchmarks/compare_models.py --fixtures` wrote them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

PUBLISHED = Path(__file__).with_name("published")
KINDS = {"FNO": "fno", "TFNO": "tfno", "UNetClassic": "unet_classic", "UNetConvNext": "unet_convnext", "AViT": "avit"}


def values(kind: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Input and the output that the_well computes from it."""
    with np.load(PUBLISHED / kind / "values.npz") as arrays:
        return torch.from_numpy(arrays["input"]), torch.from_numpy(arrays["output"])


def assert_computes(model: nn.Module, kind: str) -> None:
    """What the_well computes."""
    x, expected = values(kind)
    with torch.no_grad():
        found = model(x)
    assert float((found - expected).abs().max()) <= 1e-5 * float(expected.abs().max())


def copy_of(kind: str, folder: Path) -> Path:
    """A folder of the two files that are published."""
    folder.mkdir(parents=True)
    for name in ("config.json", "model.safetensors"):
        shutil.copy(PUBLISHED / kind / name, folder)
    return folder


def edit(folder: Path, **changes: Any) -> None:
    """Change config.json."""
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
