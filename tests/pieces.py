"""Pieces of trajectory of analytic fields, as transforms receive them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

SHAPES = {1: (5,), 2: (5, 4), 3: (3, 4, 5)}
Piece = dict[str, Any]


def axes_of(n_dims: int) -> list[np.ndarray]:
    """Uneven coordinates, another range on each axis."""
    return [np.sort(np.random.default_rng(axis).uniform(axis, 2 + axis, n)) for axis, n in enumerate(SHAPES[n_dims])]


def grid_of(axes: list[np.ndarray]) -> np.ndarray:
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)


def analytic(n_dims: int) -> tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any]]:
    """A scalar, a vector and a tensor as functions of position (..., coordinate), quadratic in it."""
    rng = np.random.default_rng(n_dims)
    a, b, c = rng.normal(size=n_dims), rng.normal(size=(n_dims,) * 3), rng.normal(size=(n_dims,) * 4)
    return (
        lambda x: (x * a).sum(-1) + (x**2).sum(-1),
        lambda x: np.einsum("ijk,...j,...k->...i", b, x, x),
        lambda x: np.einsum("ijkl,...k,...l->...ij", c, x, x),
    )


def piece_of(grid: np.ndarray, codes: np.ndarray, functions: Any, *, boxed: bool = True) -> Piece:
    """The sample of `functions` on a grid, at two "times" (the second twice the first)."""
    fields = [function(grid) for function in functions]
    names = ("density", "velocity", "stress")
    return {
        "variable_fields": {o: {names[o]: np.stack([f, 2 * f])} for o, f in enumerate(fields)},
        "constant_fields": {o: {f"constant_{names[o]}": f} for o, f in enumerate(fields)},
        "variable_scalars": {"drive": np.arange(2.0)},
        "constant_scalars": {"viscosity": np.float64(3.0)},
        "boundary_conditions": codes,
        "space_grid": grid,
        "time_grid": np.arange(2.0),
    }


def to_torch(content: Any) -> Any:
    if isinstance(content, Mapping):
        return {key: to_torch(value) for key, value in content.items()}
    return torch.as_tensor(np.array(content))


def leaves(content: Any, where: str = "") -> dict[str, Any]:
    if isinstance(content, Mapping):
        return {k: v for key, value in content.items() for k, v in leaves(value, f"{where}/{key}").items()}
    return {where: content}


def assert_same(found: Any, wanted: Any, *, exact: bool = False) -> None:
    found, wanted = leaves(found), leaves(wanted)
    assert list(found) == list(wanted)
    for key, value in found.items():
        tolerance = {"rtol": 0, "atol": 0} if exact else {"rtol": 1e-9, "atol": 1e-9}
        np.testing.assert_allclose(np.asarray(value), np.asarray(wanted[key]), err_msg=key, **tolerance)


def metadata_of(n_dims: int, *, seed: int = 0, grid_type: str = "cartesian") -> Any:
    description = SimpleNamespace(grid_type=grid_type, spatial_resolution=SHAPES[n_dims], n_spatial_dims=n_dims)
    dataset = SimpleNamespace(n_spatial_dims=n_dims, metadata=description)
    return SimpleNamespace(dataset=dataset, rng=np.random.default_rng(seed))


def sample_piece(n_dims: int) -> Piece:
    codes = np.arange(2.0 * n_dims).reshape(n_dims, 2)
    return piece_of(grid_of(axes_of(n_dims)), codes, analytic(n_dims))
