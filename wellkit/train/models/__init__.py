"""Surrogate models: the table of what `--model` can name, and how one is built.

A model is a plain torch module, (B, channels_in, x...) -> (B, channels_out, x...), in normalized units. A new
one is a file here and a line in `MODELS`; it states its constructor arguments with types and defaults,
beginning with `dim_in, dim_out, n_spatial_dims, spatial_resolution`.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from wellkit.errors import ArgumentError, ConfigError, did_you_mean
from wellkit.train.models.avit import AViT
from wellkit.train.models.fno import FNO
from wellkit.train.models.tfno import TFNO
from wellkit.train.models.unet_classic import UNetClassic
from wellkit.train.models.unet_convnext import UNetConvNext

MODELS: dict[str, type[nn.Module]] = {
    "fno": FNO,
    "tfno": TFNO,
    "unet_classic": UNetClassic,
    "unet_convnext": UNetConvNext,
    "avit": AViT,
}
_FROM_DATA = ("dim_in", "dim_out", "n_spatial_dims", "spatial_resolution")


def model_arguments(name: str) -> dict[str, Any]:
    """Arguments that model `name` takes beside those that follow from the data, with their defaults.

    Raises:
        ConfigError: no such model.
    """
    if name not in MODELS:
        raise ConfigError(f"model {name!r} is unknown; choose one of {', '.join(MODELS)}.{did_you_mean(name, MODELS)}")
    parameters = inspect.signature(MODELS[name]).parameters.values()
    return {p.name: p.default for p in parameters if p.name not in _FROM_DATA}


def check_model_arguments(name: str, arguments: Mapping[str, Any]) -> None:
    """Raise ConfigError where the model, an argument's name or the type of its value is not what there is."""
    known = model_arguments(name)
    for key, value in arguments.items():
        if key not in known:
            raise ConfigError(
                f"model {name} takes no argument {key!r}; it takes {', '.join(known)}.{did_you_mean(key, known)}"
            )
        wanted = type(known[key])
        if wanted is float and type(value) is int:
            continue
        if type(value) is not wanted:
            raise ConfigError(
                f"model {name}: {key}={value!r} is a {type(value).__name__}; expected {wanted.__name__}, "
                f"such as the default {known[key]!r}"
            )


def build_model(
    name: str,
    arguments: Mapping[str, Any],
    *,
    dim_in: int,
    dim_out: int,
    spatial_resolution: Sequence[int],
    seed: int,
) -> nn.Module:
    """A model with freshly drawn float32 weights that follow from `seed` alone.

    Torch's global generator is used, since its layers know no other, but is left as it was found.

    Raises:
        ConfigError: unknown model or argument.
        ArgumentError: the model cannot work on this grid or with these arguments.
    """
    check_model_arguments(name, arguments)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            return MODELS[name](
                dim_in=dim_in,
                dim_out=dim_out,
                n_spatial_dims=len(spatial_resolution),
                spatial_resolution=tuple(spatial_resolution),
                **arguments,
            )
        except RuntimeError as error:
            # Building does nothing but reserve memory; torch's word for too much of it is a RuntimeError.
            if not any(word in str(error) for word in ("allocate memory", "overflow")):
                raise
            raise ArgumentError(
                f"model {name} with {dict(arguments)} needs more memory than there is; choose smaller arguments"
            ) from error


def count_parameters(model: nn.Module) -> int:
    """Real numbers in a model's parameters (a complex weight counts twice)."""
    return sum(parameter.numel() for parameter in model.parameters())


__all__ = [
    "FNO",
    "MODELS",
    "TFNO",
    "AViT",
    "UNetClassic",
    "UNetConvNext",
    "build_model",
    "check_model_arguments",
    "count_parameters",
    "model_arguments",
]
