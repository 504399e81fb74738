"""Published networks: a folder or a model repository on the Hub with `config.json` and `model.safetensors`.

The layout is that of huggingface_hub's model mixin, which the benchmark's models are published with: the
constructor's keyword arguments, and the state dict. Which model it is follows from the names of its weights. Such
checkpoints hold no normalization: they expect z-scored fields, by the statistics of the dataset they are named after.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from wellkit.errors import ArgumentError, ConfigError, DataNotFoundError, DocumentError, TrainingError, WellkitWarning
from wellkit.fetch.model_files import ModelRepository
from wellkit.train.checkpoint import PICKLES, WEIGHTS, fit_weights, read_weights, refuse_pickle
from wellkit.train.data import choose_device
from wellkit.train.models import build_model

CONFIG = "config.json"
BLOCKS_JOINED = datetime(2025, 11, 17, tzinfo=UTC)
"""When the benchmark's FNO and TFNO began to use what their spectral blocks compute (the-well 1.2.0)."""

# A name that only the weights of this model have.
_TELLTALES = {
    "tfno": "model.fno_blocks.convs.weight.0.core",
    "fno": "model.fno_blocks.convs.weight.0.tensor",
    "unet_classic": "encoder1.enc1conv1.weight",
    "unet_convnext": "encoder.0.resample.block.1.weight",
    "avit": "embed.in_projs.0.weight",
}
# Defaults of the published constructors where they are not ours, and which of our variants they stand for.
_PUBLISHED: dict[str, dict[str, Any]] = {
    "fno": {"hidden_channels": 64},
    "tfno": {"hidden_channels": 64},
    "unet_classic": {"init_features": 32},
    "unet_convnext": {"blocks_per_stage": 1, "init_features": 32, "published_norm": True},
    "avit": {"hidden_dim": 768, "num_heads": 12, "published_attention": True},
}
_FROM_DATA = ("dim_in", "dim_out", "n_spatial_dims", "spatial_resolution")
_LOOPS = ("stages", "blocks_per_stage", "blocks_at_neck", "processor_blocks")
_LARGEST = 2**31 - 1
_ENOUGH = 4096  # weights whose range tells whether they were trained


@dataclass(frozen=True)
class Pretrained:
    """A published network and where it is from.

    Attributes:
        model: (B, dim_in, x...) -> (B, dim_out, x...), normalized units, in evaluation mode.
        name: as in `MODELS`.
        arguments: of the model beside those that follow from the data.
        dim_in, dim_out: channels.
        spatial_resolution: grid points per axis it was made for.
        source: folder or OWNER/NAME.
        commit: of the repository; None for a folder.
        weights_sha256: of `model.safetensors`.
    """

    model: nn.Module
    name: str
    arguments: dict[str, Any]
    dim_in: int
    dim_out: int
    spatial_resolution: tuple[int, ...]
    source: str
    commit: str | None
    weights_sha256: str


def from_pretrained(
    location: str | os.PathLike[str],
    *,
    revision: str = "main",
    legacy_skip_blocks: bool | None = None,
    device: str = "cpu",
) -> nn.Module:
    """The network of a published checkpoint, ready to predict; see `load_pretrained`."""
    return load_pretrained(location, revision=revision, legacy_skip_blocks=legacy_skip_blocks, device=device).model


def load_pretrained(
    location: str | os.PathLike[str],
    *,
    revision: str = "main",
    legacy_skip_blocks: bool | None = None,
    device: str = "cpu",
) -> Pretrained:
    """A published checkpoint: `load_pretrained("polymathic-ai/UNetConvNext-active_matter")`, or a folder.

    Args:
        location: a folder with `config.json` and `model.safetensors`, or OWNER/NAME of a model repository on the
            Hub, fetched into huggingface_hub's cache.
        revision: branch, tag or commit of a repository.
        legacy_skip_blocks: of an FNO or TFNO, whether it goes from lifting to projection without its spectral
            blocks. Before 2025-11-17 the benchmark's did, in training too, so that with their blocks, which are
            still random, they give noise. None: as the date of the weights on the Hub, else the weights themselves
            say; it is announced with a `WellkitWarning` where they are left out.
        device: where the network is put: "cpu", "cuda", "cuda:1", ..., or "auto".

    Raises:
        TrainingError: there is no safetensors file but a pickle, which is refused, or the file is damaged.
        DocumentError: config.json is damaged, or the weights are not those of a model that config.json describes.
        ArgumentError: `legacy_skip_blocks` does not apply, or has to be given.
        ConfigError: there is no such device.
        DataNotFoundError, HubError, IntegrityError: as `ModelRepository.fetch`.
    """
    folder, place = Path(location), choose_device(device)
    refuse_pickle(folder)
    repository = None if folder.is_dir() else _repository(location)
    config, weights, commit = _local(folder) if repository is None else _fetched(repository, revision)
    source = str(location)
    sha256, state = read_weights(weights)
    name = _name(state, weights)
    arguments, shape = _arguments(config, name, state)
    if name in ("fno", "tfno"):
        if legacy_skip_blocks is None and "legacy_skip_blocks" not in arguments:
            changed = None if repository is None or commit is None else repository.changed(WEIGHTS, commit)
            legacy_skip_blocks = _choose(source, state, changed)
        if legacy_skip_blocks is not None:
            arguments["legacy_skip_blocks"] = legacy_skip_blocks
    elif legacy_skip_blocks is not None:
        raise ArgumentError(f"{source}: legacy_skip_blocks is for FNO and TFNO; this is a {name}, leave it out")
    try:
        with torch.device("meta"):
            model = build_model(
                name,
                arguments,
                dim_in=shape["dim_in"],
                dim_out=shape["dim_out"],
                spatial_resolution=shape["spatial_resolution"],
                seed=0,
            )
    except (ConfigError, ArgumentError) as error:
        raise DocumentError(f"{config}: {error}") from error
    fit_weights(model, state, f"{weights}: weights do not fit {CONFIG}")
    return Pretrained(
        model=model.to(place).eval(),
        name=name,
        arguments=arguments,
        dim_in=shape["dim_in"],
        dim_out=shape["dim_out"],
        spatial_resolution=tuple(shape["spatial_resolution"]),
        source=source,
        commit=commit,
        weights_sha256=sha256,
    )


def _repository(location: str | os.PathLike[str]) -> ModelRepository:
    if not isinstance(location, str) or location.count("/") != 1 or location.startswith((".", "/", "~")):
        raise TrainingError(
            f"{location}: no such folder, and no OWNER/NAME of a model repository; "
            "for example polymathic-ai/UNetConvNext-active_matter"
        )
    return ModelRepository(location)


def _local(folder: Path) -> tuple[Path, Path, None]:
    """config.json and weights of a folder."""
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            pickles = sorted(p.name for p in folder.iterdir() if p.suffix.lower() in PICKLES)
            held = _refusal(pickles[0]) if pickles else ""
            raise TrainingError(f"{folder}: not a published checkpoint (no {name}){held}")
    return folder / CONFIG, folder / WEIGHTS, None


def _fetched(repository: ModelRepository, revision: str) -> tuple[Path, Path, str]:
    """config.json and weights of one commit."""
    config = repository.fetch(CONFIG, revision)
    try:
        weights = repository.fetch(WEIGHTS, config.commit)
    except DataNotFoundError:
        if not repository.has("pytorch_model.bin", config.commit):
            raise
        raise TrainingError(f"{repository}: has no {WEIGHTS}{_refusal('pytorch_model.bin')}") from None
    return config.path, weights.path, config.commit


def _refusal(pickle: str) -> str:
    return f"; its {pickle} is a pickle, which is refused, since loading one runs whatever code is in it"


def _name(state: Mapping[str, Tensor], path: Path) -> str:
    """Which model has such weights."""
    for name, telltale in _TELLTALES.items():
        if telltale in state:
            return name
    raise DocumentError(f"{path}: weights of no model that is known; known are {', '.join(_TELLTALES)}")


def _arguments(path: Path, name: str, state: Mapping[str, Tensor]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The model's own arguments and those that follow from the data, from config.json."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DocumentError(f"{path}: no JSON that can be read ({error})") from error
    if not isinstance(content, dict):
        raise DocumentError(f"{path}: holds a {type(content).__name__}; expected an object of constructor arguments")
    shape = {key: content.pop(key, None) for key in _FROM_DATA}
    size = shape["spatial_resolution"]
    if (
        not isinstance(size, list)
        or len(size) != shape["n_spatial_dims"]
        or not all(type(n) is int and 0 < n <= _LARGEST for n in (shape["dim_in"], shape["dim_out"], *size))
    ):
        raise DocumentError(
            f"{path}: dim_in={shape['dim_in']}, dim_out={shape['dim_out']}, n_spatial_dims={shape['n_spatial_dims']}, "
            f"spatial_resolution={size}; expected whole numbers of channels, and of points for each dimension"
        )
    arguments = {**_PUBLISHED[name], **content}
    for key, value in arguments.items():
        if type(value) is int and abs(value) > (len(state) if key in _LOOPS else _LARGEST):
            raise DocumentError(f"{path}: {key}={value}, which the weights do not bear out")
    return arguments, shape


def _choose(source: str, state: Mapping[str, Tensor], changed: datetime | None) -> bool:
    """Whether the blocks are left out, announced where they are."""
    if changed is not None and changed < BLOCKS_JOINED:
        reason = f"its weights are of {changed:%Y-%m-%d}, from before the fix of {BLOCKS_JOINED:%Y-%m-%d}"
    else:
        trained = _blocks_trained(state)
        if trained is None:
            raise ArgumentError(
                f"{source}: whether its spectral blocks were left out in training (the-well before 1.2.0) cannot be "
                "told; say legacy_skip_blocks=True or False"
            )
        if trained:
            return False
        reason = "its spectral blocks were never trained"
    warnings.warn(
        f"{source}: spectral blocks are left out, as in its training ({reason}): legacy_skip_blocks=True; "
        "with legacy_skip_blocks=False they are used",
        WellkitWarning,
        stacklevel=4,
    )
    return True


def _blocks_trained(state: Mapping[str, Tensor]) -> bool | None:
    """Whether gradients ever reached the blocks, from their pointwise skips; None where too few weights tell.

    Torch draws those from a uniform distribution within 1 / sqrt(channels). Thousands of weights that were trained
    do not all stay within; weights without a gradient are left alone by optimizers, weight decay included.
    """
    skips = [tensor for name, tensor in state.items() if ".fno_skips." in name]
    for skip in skips:
        bound = skip.shape[1] ** -0.5 if skip.ndim > 1 and skip.shape[1] else 0.0
        if skip.numel() and float(skip.abs().max()) > bound * (1 + 1e-6):
            return True
    return False if sum(skip.numel() for skip in skips) >= _ENOUGH else None
