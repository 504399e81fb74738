"""Symmetry transforms of samples: flips, permutations, rolls and rotations of the spatial axes, and resizing.

A transform maps the whole sample, not only its arrays: x' = R x about the centre of the box. A vector becomes R v, a
tensor R T R^T, boundary codes and coordinates follow, so that what held of the fields (divergence, boundary
conditions, v as a function of x) holds of the result. Arrays are NumPy or torch (or JAX) and stay what they are.

Draws come from `metadata.rng`, the sample's own generator, and from nothing else: the same seed, epoch and index
give the same sample in whichever worker.
"""

from __future__ import annotations

import inspect
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any, Protocol, TypeVar, cast

import numpy as np

from wellkit.array_operations import flip, roll, take, transpose
from wellkit.errors import ArgumentError, WellkitWarning
from wellkit.formats.well import BoundaryCondition
from wellkit.frameworks import Array, concatenate, framework_of, from_numpy, like, require, to_numpy

# A mapping with the keys of `TrajectoryData`: variable_fields and constant_fields {order: {name: array}}, scalars,
# and, where the dataset delivers them, boundary_conditions, space_grid and time_grid.
Data = TypeVar("Data", bound=Mapping[str, Any])
_FIELDS = (("variable_fields", 1), ("constant_fields", 0))  # key, axes before the spatial ones


class PieceMetadata(Protocol):
    """What a transform may ask of `TrajectoryMetadata`."""

    @property
    def dataset(self) -> Any:
        """The dataset; its `n_spatial_dims` and `metadata.grid_type` are used."""

    @property
    def rng(self) -> np.random.Generator:
        """The sample's own random generator."""


class Augmentation(ABC):
    """A transform of a piece of trajectory, to be given as `WellDataset(transform=...)`."""

    @abstractmethod
    def __call__(self, data: Data, metadata: PieceMetadata) -> Data:
        """The transformed piece.

        Args:
            data: fields by tensor order and name: time-varying ones (time, space..., component...), constant ones
                (space..., component...); scalars by name; and, where present, boundary_conditions
                (spatial axis, side), space_grid (space..., coordinate), time_grid (time).
            metadata: where the piece was cut from, its dataset, and `rng` to draw from.

        Returns:
            A piece of the same structure. The transforms here leave `data` and its arrays as they were.
        """


class Compose(Augmentation):
    """Several transforms, one after the other."""

    def __init__(self, *augmentations: Augmentation | Callable[[Any, Any], Any]) -> None:
        self.augmentations = augmentations

    def __call__(self, data: Data, metadata: PieceMetadata) -> Data:
        for augmentation in self.augmentations:
            data = augmentation(data, metadata)
        return data


class RandomAxisFlip(Augmentation):
    """Mirrors each spatial axis with probability `p`, at the middle of the box.

    Args:
        p: probability of each axis.
        pseudo_fields: names of fields that change sign under a mirror image on top of what their order says:
            vorticity in 2D (a pseudo-scalar), angular momentum, the magnetic field (axial vectors).
    """

    def __init__(self, p: float = 0.5, *, pseudo_fields: Sequence[str] = ()) -> None:
        self.p = _probability(p)
        self.pseudo_fields = tuple(pseudo_fields)

    def __call__(self, data: Data, metadata: PieceMetadata) -> Data:
        if not _is_cartesian(self, metadata):
            return data
        mask = metadata.rng.random(metadata.dataset.n_spatial_dims) < self.p
        return self.flip(data, mask, pseudo_fields=self.pseudo_fields)

    @staticmethod
    def flip(data: Data, mask: Any, *, pseudo_fields: Sequence[str] = ()) -> Data:
        """Mirror the axes where `mask` (spatial axis) is true."""
        flipped = to_numpy(mask).astype(bool).reshape(-1)
        axes = tuple(int(axis) for axis in np.flatnonzero(flipped))
        if not axes:
            return data
        signs = np.where(flipped, -1, 1).astype(np.int8)
        parity = int(np.prod(signs))

        def mirror(field: Array, order: int, name: str, lead: int) -> Array:
            field = flip(field, tuple(lead + axis for axis in axes))
            factor = _sign_tensor(signs, order) * np.int8(parity if name in pseudo_fields else 1)
            return field if (factor == 1).all() else field * like(factor, field)

        result = _map_fields(data, mirror)
        if "boundary_conditions" in result:
            codes = to_numpy(result["boundary_conditions"]).copy()
            codes[list(axes)] = codes[list(axes), ::-1]
            result["boundary_conditions"] = like(codes, data["boundary_conditions"])
        if "space_grid" in result:
            result["space_grid"] = _mirrored_grid(result["space_grid"], axes)
        return cast(Data, result)


class RandomAxisPermute(Augmentation):
    """Exchanges the spatial axes at random. A grid that is not square changes its shape.

    Args:
        p: probability that axes are exchanged at all.
        pseudo_fields: as in `RandomAxisFlip`; an odd permutation is a mirror image.
    """

    def __init__(self, p: float = 1.0, *, pseudo_fields: Sequence[str] = ()) -> None:
        self.p = _probability(p)
        self.pseudo_fields = tuple(pseudo_fields)

    def __call__(self, data: Data, metadata: PieceMetadata) -> Data:
        if not _is_cartesian(self, metadata) or metadata.rng.random() >= self.p:
            return data
        permutation = metadata.rng.permutation(metadata.dataset.n_spatial_dims)
        return self.permute(data, permutation, pseudo_fields=self.pseudo_fields)

    @staticmethod
    def permute(data: Data, permutation: Any, *, pseudo_fields: Sequence[str] = ()) -> Data:
        """Make axis permutation[i] the new axis i, for the grid and for tensor components alike."""
        source = tuple(int(axis) for axis in to_numpy(permutation).reshape(-1))
        n_dims = len(source)
        if sorted(source) != list(range(n_dims)):
            raise ArgumentError(f"permutation={list(source)} is not one of the axes 0 to {n_dims - 1}")
        if source == tuple(range(n_dims)):
            return data
        parity = round(float(np.linalg.det(np.eye(n_dims)[list(source)])))

        def exchange(field: Array, order: int, name: str, lead: int) -> Array:
            rest = range(lead + n_dims, field.ndim)
            field = transpose(field, (*range(lead), *(lead + axis for axis in source), *rest))
            for axis in rest:
                field = take(field, source, axis)
            return -field if parity < 0 and name in pseudo_fields else field

        result = _map_fields(data, exchange)
        if "boundary_conditions" in result:
            result["boundary_conditions"] = take(result["boundary_conditions"], source, 0)
        if "space_grid" in result:
            grid = transpose(result["space_grid"], (*source, n_dims))
            result["space_grid"] = take(grid, source, n_dims)
        return cast(Data, result)


class RandomAxisRoll(Augmentation):
    """Moves the fields along the periodic axes, each by a random number of grid points.

    Coordinates move along: every value keeps the coordinates it has. Needs boundary conditions in the sample.

    Args:
        p: probability that axes are rolled at all.
    """

    def __init__(self, p: float = 1.0) -> None:
        self.p = _probability(p)

    def __call__(self, data: Data, metadata: PieceMetadata) -> Data:
        if not _is_cartesian(self, metadata):
            return data
        if "boundary_conditions" not in data:
            raise ArgumentError(
                "RandomAxisRoll has to know which axes are periodic, but the sample has no boundary_conditions; "
                "set boundary_return_type='padding'"
            )
        codes = to_numpy(data["boundary_conditions"])
        periodic = np.flatnonzero((codes == BoundaryCondition.PERIODIC.value).all(axis=-1))
        if metadata.rng.random() >= self.p:
            return data
        shape = _resolution(data, metadata.dataset.n_spatial_dims)
        return self.roll(data, {int(axis): int(metadata.rng.integers(shape[axis])) for axis in periodic})

    @staticmethod
    def roll(data: Data, delta: Mapping[int, int]) -> Data:
        """Move by delta[axis] grid points along each axis named."""
        if not delta:
            return data
        shifts = tuple(delta.values())

        def move(field: Array, order: int, name: str, lead: int) -> Array:
            return roll(field, shifts, tuple(lead + axis for axis in delta))

        result = _map_fields(data, move)
        if "space_grid" in result:
            result["space_grid"] = roll(result["space_grid"], shifts, tuple(delta))
        return cast(Data, result)


def _rotation(spelling: str) -> tuple[tuple[int, ...], tuple[bool, ...]]:
    """A rotation spelled by where each new axis comes from, e.g. "-y+x": (permutation, mirrored new axes)."""
    signs, axes = spelling[::2], spelling[1::2]
    return tuple("xyz".index(axis) for axis in axes), tuple(sign == "-" for sign in signs)


# Proper rotations by multiples of 90 degrees (4 in the plane, 24 in space), as hardcoded_rotation_index counts them.
ROTATIONS = {
    1: tuple(map(_rotation, ("+x",))),
    2: tuple(map(_rotation, ("+x+y", "+y-x", "-x-y", "-y+x"))),
    3: tuple(
        map(
            _rotation,
            (
                *("-x-y+z", "-x+y-z", "+x-y-z", "-z-y-x", "+x+y+z", "-x-z-y", "-x+z+y", "+x-z+y"),
                *("+x+z-y", "-y-x-z", "-y+x+z", "+y-x+z", "+y+x-z", "-y-z+x", "-y+z-x", "+y-z-x"),
                *("+y+z+x", "-z-x+y", "-z+x-y", "+z-x-y", "+z+x+y", "-z+y+x", "+z-y+x", "+z+y-x"),
            ),
        )
    ),
}


class RandomRotation90(Augmentation):
    """Rotates by a random multiple of 90 degrees (in 3D about any axis): one of the 4 or 24 proper rotations.

    Args:
        p: probability that the sample is rotated at all; the identity is one of the rotations.
        hardcoded_rotation_index: always this rotation of `ROTATIONS`, modulo their number.
    """

    def __init__(self, p: float = 1.0, hardcoded_rotation_index: int | None = None) -> None:
        self.p = _probability(p)
        self.hardcoded_rotation_index = hardcoded_rotation_index

    def __call__(self, data: Data, metadata: PieceMetadata) -> Data:
        if not _is_cartesian(self, metadata):
            return data
        rotations = ROTATIONS[metadata.dataset.n_spatial_dims]
        if self.hardcoded_rotation_index is not None:
            chosen = self.hardcoded_rotation_index % len(rotations)
        elif metadata.rng.random() >= self.p:
            return data
        else:
            chosen = int(metadata.rng.integers(len(rotations)))
        return self.rotate90(data, *rotations[chosen])

    @staticmethod
    def rotate90(data: Data, permutation: Any, reflection_mask: Any) -> Data:
        """Exchange the axes by `permutation`, then mirror those of the new axes where the mask is true."""
        return RandomAxisFlip.flip(RandomAxisPermute.permute(data, permutation), reflection_mask)


class Resize(Augmentation):
    """Interpolates fields and coordinates to another number of grid points, with torch's `interpolate`.

    The dataset's `metadata.spatial_resolution` stays that of the files.

    Args:
        target_size: grid points along each axis; one number stands for all axes, whatever their proportions.
        scale_factor: factor for the grid points along each axis, or one for all. Give this or `target_size`.
        interpolation_mode: "nearest", "nearest-exact", "area"; "linear" in 1D, "bilinear" or "bicubic" in 2D,
            "trilinear" in 3D.
        interpolation_kwargs: further arguments of torch.nn.functional.interpolate (align_corners, antialias, ...).

    Raises:
        ArgumentError: both or neither of the sizes, or an argument that `interpolate` does not have.
        MissingDependencyError: torch is not installed.
    """

    def __init__(
        self,
        *,
        target_size: Sequence[int] | int | None = None,
        scale_factor: Sequence[float] | float | None = None,
        interpolation_mode: str,
        **interpolation_kwargs: Any,
    ) -> None:
        if (target_size is None) == (scale_factor is None):
            raise ArgumentError(
                f"Resize needs one of target_size and scale_factor, found {target_size} and {scale_factor}"
            )
        known = sorted(set(inspect.signature(_functional().interpolate).parameters) - {"input"})
        unknown = [name for name in interpolation_kwargs if name not in known]
        if unknown:
            raise ArgumentError(f"Resize: interpolate has no argument {unknown[0]!r}; it has {', '.join(known)}")
        self.interpolation_kwargs = {
            **interpolation_kwargs,
            "size": target_size,
            "scale_factor": scale_factor,
            "mode": interpolation_mode,
        }

    def __call__(self, data: Data, metadata: PieceMetadata) -> Data:
        return self.resize(data, metadata.dataset.n_spatial_dims, **self.interpolation_kwargs)

    @staticmethod
    def resize(data: Data, n_spatial_dims: int, **interpolation_kwargs: Any) -> Data:
        """Interpolate every field and the coordinates; arguments are those of torch's `interpolate`."""

        def stretch(field: Array, order: int, name: str, lead: int) -> Array:
            batch = field if lead else field[None]
            resized = _interpolate(batch, n_spatial_dims, interpolation_kwargs)
            return resized if lead else resized[0]

        result = _map_fields(data, stretch)
        if "space_grid" in result:
            result["space_grid"] = _interpolate(result["space_grid"][None], n_spatial_dims, interpolation_kwargs)[0]
        return cast(Data, result)


def _probability(p: float) -> float:
    if not 0.0 <= p <= 1.0:
        raise ArgumentError(f"p={p} is no probability; give a number from 0 to 1")
    return p


def _is_cartesian(augmentation: Augmentation, metadata: PieceMetadata) -> bool:
    """Whether the grid has the symmetries of a box; says so where it has not."""
    grid = metadata.dataset.metadata.grid_type
    if grid != "cartesian":
        warnings.warn(
            f"{type(augmentation).__name__} does nothing on a {grid} grid: its axes cannot be exchanged or mirrored",
            WellkitWarning,
            stacklevel=3,
        )
    return bool(grid == "cartesian")


def _map_fields(data: Mapping[str, Any], function: Callable[[Array, int, str, int], Array]) -> dict[str, Any]:
    """A copy of `data` with function(field, order, name, axes before the spatial ones) in place of each field."""
    result = dict(data)
    for key, lead in _FIELDS:
        result[key] = {
            order: {name: function(field, order, name, lead) for name, field in fields.items()}
            for order, fields in data[key].items()
        }
    return result


def _resolution(data: Mapping[str, Any], n_dims: int) -> tuple[int, ...]:
    """Grid points along each axis, as the arrays have them now."""
    for key, lead in _FIELDS:
        for fields in data[key].values():
            for field in fields.values():
                return tuple(field.shape[lead : lead + n_dims])
    return tuple(data["space_grid"].shape[:n_dims])


def _sign_tensor(signs: np.ndarray, order: int) -> np.ndarray:
    """Product of the signs of all indices of a component: shape (D,) * order."""
    tensor = np.ones((), dtype=np.int8)
    for _ in range(order):
        tensor = np.multiply.outer(tensor, signs)
    return tensor


def _mirrored_grid(grid: Array, axes: tuple[int, ...]) -> Array:
    """Coordinates of a tensor-product grid mirrored at the middle of the box along `axes`: x' = first + last - x."""
    flipped = flip(grid, axes)
    channels = []
    for number in range(grid.shape[-1]):
        channel = flipped[..., number : number + 1]
        if number in axes:
            origin = (0,) * (grid.ndim - 1)
            end = tuple(-1 if axis == number else 0 for axis in range(grid.ndim - 1))
            channel = (grid[(*origin, number)] + grid[(*end, number)]) - channel
        channels.append(channel)
    return concatenate(channels, axis=-1)


def _functional() -> Any:
    return require("torch.nn.functional", extra="torch", purpose="Resize")


def _interpolate(batch: Array, n_dims: int, arguments: Mapping[str, Any]) -> Array:
    """(batch, space..., component...) resampled along its spatial axes, in the framework it came in."""
    components = tuple(batch.shape[1 + n_dims :])
    tensor = batch if framework_of(batch) == "torch" else from_numpy(np.array(to_numpy(batch)), "torch")
    channels_last = tensor.reshape(*tensor.shape[: 1 + n_dims], prod(components))
    try:
        resized = _functional().interpolate(channels_last.movedim(-1, 1), **arguments)
    except (ValueError, NotImplementedError, TypeError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ArgumentError(f"Resize cannot interpolate an array of {n_dims} spatial axes: {reason}") from error
    resized = resized.movedim(1, -1)
    resized = resized.reshape(*resized.shape[: 1 + n_dims], *components)
    return resized if framework_of(batch) == "torch" else like(to_numpy(resized), batch)
