"""Runs inside an environment with the_well[benchmark]: saves networks and what they compute.

    python peer_models.py REQUEST.json FOLDER

REQUEST.json: {case: {"class": name in the_well.benchmark.models, "arguments": {...}, "size": [points per axis of the
input], "legacy": whether lifting and projection alone are applied}}. Each case gets a folder with config.json and
model.safetensors, as `save_pretrained` writes them, and values.npz: input and output, channels first.
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

warnings.simplefilter("ignore")


def import_models() -> Any:
    """the_well's models, also where torchvision, which timm asks for and no model uses, misses its operators."""
    try:
        import torchvision  # type: ignore[import-not-found,unused-ignore]  # noqa: F401
    except RuntimeError:  # built for another torch
        library: Any = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        import_models.library = library  # type: ignore[attr-defined]  # or it is forgotten
    import the_well.benchmark.models as models

    return models


def stir(model: torch.nn.Module, seed: int) -> None:
    """Weights and running statistics as after training: nothing at 0 or 1 where it hides what is computed."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point():
                noise = torch.randn(tensor.shape, generator=generator)
                if name.endswith("running_var"):
                    tensor.copy_(1 + noise.abs())
                elif name.endswith(("gamma", "running_mean")) or tensor.ndim < 2:
                    tensor.add_(0.3 * noise)
                else:
                    tensor.add_(0.1 * (tensor.std() if tensor.numel() > 1 else 1.0) * noise)


def main(request_path: str, folder: str) -> None:
    models = import_models()
    requests = json.loads(Path(request_path).read_text())
    for seed, (case, request) in enumerate(requests.items()):
        torch.manual_seed(seed)
        kind, arguments = request["class"], dict(request["arguments"])
        arguments["spatial_resolution"] = tuple(arguments["spatial_resolution"])
        model = getattr(models, kind)(**arguments).eval()
        stir(model, seed)
        x = torch.randn(2, arguments["dim_in"], *request["size"])
        with torch.no_grad():
            if request["legacy"]:
                y = model.model.projection(model.model.lifting(x))
            elif kind == "AViT":  # channels last
                y = model(x.movedim(1, -1)).movedim(-1, 1)
            else:
                y = model(x)
        target = Path(folder) / case
        model.save_pretrained(target)
        (target / "README.md").unlink(missing_ok=True)  # a model card that says nothing
        np.savez(target / "values.npz", input=x.numpy(), output=y.numpy())


if __name__ == "__main__":
    main(*sys.argv[1:])
