"""What all measures stand on: checked fields laid out as one row of grid points per frame and component.

A field (..., space..., component) becomes rows (..., component, point). In NumPy the rows are contiguous float64,
so that every reduction runs along one row in one order: what a frame scores does not depend, to the last bit,
on the frames that share an array with it, nor on how the caller's array lies in memory.
"""

from __future__ import annotations

import importlib
import math
from typing import Any, Literal

import numpy as np

from wellkit.errors import ScoreError
from wellkit.frameworks import Array, framework_of

Compat = Literal["the_well"] | None
DEFAULT_EPS = 1e-7


class NumPyRows:
    """Operations on rows in float64."""

    @staticmethod
    def lay_out(array: Array, n_spatial_dims: int) -> Array:
        if array.dtype.kind not in "fiub":
            raise ScoreError(f"measures need real numbers, found an array of dtype {array.dtype}")
        lead = array.shape[: array.ndim - n_spatial_dims - 1]
        rows = np.moveaxis(array, -1, -n_spatial_dims - 1).reshape(
            *lead, array.shape[-1], math.prod(array.shape[len(lead) : -1])
        )
        return np.ascontiguousarray(rows, dtype=np.float64)

    @staticmethod
    def mean(rows: Array) -> Array:
        return np.mean(rows, axis=-1)

    @staticmethod
    def centred(rows: Array) -> Array:
        return rows - np.mean(rows, axis=-1, keepdims=True)

    @staticmethod
    def maximum(rows: Array) -> Array:
        return np.max(rows, axis=-1)

    @staticmethod
    def sqrt(array: Array) -> Array:
        return np.sqrt(array)

    @staticmethod
    def sort(rows: Array) -> Array:
        return np.sort(rows, axis=-1)

    @staticmethod
    def constant(values: np.ndarray, reference: Array) -> Array:
        return values


class TorchRows:
    """The same operations, in the tensors' own precision and differentiable."""

    @staticmethod
    def lay_out(array: Array, n_spatial_dims: int) -> Array:
        torch = importlib.import_module("torch")
        if array.is_complex():
            raise ScoreError(f"measures need real numbers, found a tensor of dtype {array.dtype}")
        array = array if array.dtype in (torch.float32, torch.float64) else array.to(torch.float32)
        return array.movedim(-1, -n_spatial_dims - 1).flatten(-n_spatial_dims)

    @staticmethod
    def mean(rows: Array) -> Array:
        return rows.mean(dim=-1)

    @staticmethod
    def centred(rows: Array) -> Array:
        return rows - rows.mean(dim=-1, keepdim=True)

    @staticmethod
    def maximum(rows: Array) -> Array:
        return rows.amax(dim=-1)

    @staticmethod
    def sqrt(array: Array) -> Array:
        return array.sqrt()

    @staticmethod
    def sort(rows: Array) -> Array:
        return rows.sort(dim=-1).values

    @staticmethod
    def constant(values: np.ndarray, reference: Array) -> Array:
        return importlib.import_module("torch").as_tensor(values, dtype=reference.dtype, device=reference.device)


Operations = type[NumPyRows] | type[TorchRows]


def check_compat(compat: Compat) -> None:
    """Raise ScoreError if `compat` is unknown."""
    if compat not in (None, "the_well"):
        raise ScoreError(f"compat={compat!r} is unknown; use None or 'the_well'")


class Field:
    """One checked field: its rows, the operations of its framework, and the way back.

    Attributes:
        rows: (..., component, point).
        space: sizes of the space axes.
        points: their product.
        ops: operations on rows.
        back: turns a result into the caller's framework.
    """

    def __init__(self, array: Array, n_spatial_dims: int) -> None:
        framework = framework_of(array)
        self.back: Any = lambda result: result
        if framework == "jax":  # computed on the host in float64, returned as JAX
            self.back = importlib.import_module("jax.numpy").asarray
        if framework != "torch":
            array = np.asarray(array)
        if n_spatial_dims < 1 or array.ndim < n_spatial_dims + 1:
            raise ScoreError(
                f"shape {tuple(array.shape)} cannot hold n_spatial_dims={n_spatial_dims} space axes "
                "and a component axis at the end"
            )
        self.space = tuple(int(n) for n in array.shape[array.ndim - n_spatial_dims - 1 : -1])
        self.points = math.prod(self.space)
        if self.points == 0:
            raise ScoreError(f"shape {tuple(array.shape)} holds no grid points")
        self.ops: Operations = TorchRows if framework == "torch" else NumPyRows
        self.rows = self.ops.lay_out(array, n_spatial_dims)


class Pair:
    """A checked prediction and target of one framework and shape, as rows."""

    def __init__(self, prediction: Array, target: Array, n_spatial_dims: int, compat: Compat) -> None:
        check_compat(compat)
        frameworks = framework_of(prediction), framework_of(target)
        if frameworks[0] != frameworks[1]:
            raise ScoreError(
                f"prediction is a {frameworks[0]} array, target a {frameworks[1]} array; convert one of them"
            )
        shapes = tuple(np.shape(prediction)), tuple(np.shape(target))
        if shapes[0] != shapes[1]:
            raise ScoreError(
                f"prediction has shape {shapes[0]}, target {shapes[1]}; they must be equal (nothing is broadcast)"
            )
        x, y = Field(prediction, n_spatial_dims), Field(target, n_spatial_dims)
        self.prediction, self.target = x.rows, y.rows
        self.space, self.points, self.ops, self.back = x.space, x.points, x.ops, x.back

    def mean_square_error(self) -> Array:
        return self.ops.mean((self.prediction - self.target) ** 2)

    def mean_absolute_error(self) -> Array:
        return self.ops.mean(abs(self.prediction - self.target))

    def unbiased_variance(self) -> Array:
        """Variance of the target over space, over N - 1, from centred values (two passes)."""
        if self.points < 2:
            raise ScoreError("a variance over space needs at least 2 grid points, found 1")
        return self.ops.mean(self.ops.centred(self.target) ** 2) * (self.points / (self.points - 1))


def quiet() -> Any:
    """NaN and infinity are values with a meaning to measures, nothing to warn about."""
    return np.errstate(invalid="ignore", over="ignore", divide="ignore")
