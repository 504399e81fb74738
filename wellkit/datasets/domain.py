"""The domain a shard's fields live on: coordinates and boundary codes of a box of it, read from the file."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np

from wellkit.errors import WellkitWarning
from wellkit.formats.well import BoundaryCondition, WellLayout
from wellkit.readers.protocol import ShardReader

Box = tuple[slice, ...]


def read_lines(
    layout: WellLayout, reader: ShardReader, trajectory: int, frame: int, box: Sequence[slice]
) -> list[np.ndarray]:
    """Coordinates along each spatial axis inside `box`; those of `trajectory` and `frame` where the grid moves."""
    lines = []
    for axis, part in zip(layout.axes, box, strict=True):
        lead: list[int | slice] = []
        if axis.sample_varying:
            lead.append(trajectory)
        if axis.time_varying:
            lead.append(frame)
        lines.append(reader.read(axis.path, (*lead, part)))
    return lines


def grid_of(lines: Sequence[np.ndarray]) -> np.ndarray:
    """Coordinates of every point: (space..., coordinate)."""
    return np.stack(np.meshgrid(*lines, indexing="ij"), axis=-1)


def read_boundaries(layout: WellLayout, reader: ShardReader, trajectory: int) -> np.ndarray:
    """Codes of the whole domain, see `ShardAssembler.boundary_conditions`."""
    codes = np.full((layout.n_spatial_dims, 2), BoundaryCondition.OPEN.value, dtype=np.float32)
    numbers = {axis.name: number for number, axis in enumerate(layout.axes)}
    for condition in layout.boundaries:
        if len(condition.dims) > 1:
            warnings.warn(
                f"{layout.location}: boundary {condition.name!r} spans the axes {', '.join(condition.dims)}; "
                "each side counts as open or periodic if any part of it is, and as wall only if all of it is; "
                "pass boundary_return_type=None to leave boundaries out",
                WellkitWarning,
                stacklevel=2,
            )
        mask = reader.read(f"{condition.path}/mask", (trajectory,) if condition.sample_varying else ())
        decide = np.all if condition.type is BoundaryCondition.WALL else np.any
        for place, dim in enumerate(condition.dims):
            for side, end in ((0, 0), (1, -1)):
                if decide(np.take(mask, end, axis=place)):
                    codes[numbers[dim], side] = condition.type.value
    return codes


def open_where_cut(codes: np.ndarray, box: Sequence[slice], resolution: Sequence[int]) -> np.ndarray:
    """`codes` with OPEN for the sides of the domain that `box` does not reach; `codes` itself if it reaches all."""
    cut = codes
    for axis, (part, size) in enumerate(zip(box, resolution, strict=True)):
        for side, is_cut in ((0, part.start > 0), (1, part.stop < size)):
            if is_cut:
                cut = codes.copy() if cut is codes else cut
                cut[axis, side] = BoundaryCondition.OPEN.value
    return cut


def inside(box: Box | None, whole: Box) -> tuple[slice, ...]:
    """`box`, counted from where `whole` begins."""
    if box is None:
        return ()
    return tuple(
        slice(part.start - around.start, part.stop - around.start) for part, around in zip(box, whole, strict=True)
    )
