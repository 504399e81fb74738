"""One spelling for the few array operations whose names or arguments differ between NumPy, torch and JAX."""

from __future__ import annotations

from typing import Any

import numpy as np

from wellkit.frameworks import Array, framework_of, require


def _module(array: Array) -> Any:
    framework = framework_of(array)
    names = {"torch": "torch", "jax": "jax.numpy", "numpy": "numpy"}
    return require(names[framework], extra=framework, purpose="a tensor of its own")


def flip(array: Array, axes: tuple[int, ...]) -> Array:
    """`array` reversed along `axes`."""
    return _module(array).flip(array, axes)


def transpose(array: Array, axes: tuple[int, ...]) -> Array:
    """`array` with old axis axes[i] as its new axis i."""
    module = _module(array)
    return module.permute(array, axes) if framework_of(array) == "torch" else module.transpose(array, axes)


def roll(array: Array, shifts: tuple[int, ...], axes: tuple[int, ...]) -> Array:
    """`array` with its elements moved by `shifts` along `axes`, around the end."""
    return _module(array).roll(array, shifts, axes)


def take(array: Array, source: tuple[int, ...], axis: int) -> Array:
    """Elements `source` along `axis`, in that order."""
    return array[(*(slice(None),) * axis, np.asarray(source))]
