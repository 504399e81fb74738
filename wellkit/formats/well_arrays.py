"""Plain arrays as a dataset in The Well's layout: shapes say what is what, values pass through a block at a time."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from rich.filesize import decimal

from wellkit.errors import ArgumentError, StorageError, did_you_mean
from wellkit.fetch.disk import telling
from wellkit.formats.well_writer import (
    Chunks,
    ShardAxis,
    ShardField,
    ShardScalar,
    WellShard,
    WellShardWriter,
    create_well_shard,
    edge_boundary,
)

SPLITS = ("train", "valid", "test")
BOUNDARY_TYPES = ("PERIODIC", "WALL", "OPEN")
BLOCK_BYTES = 64 << 20  # of float32, read and written at once
_FLOAT_BYTES = 4


def write_dataset(
    to: str | os.PathLike[str],
    fields: Mapping[str, Any],
    *,
    axes: Mapping[str, Any],
    time: Any,
    constant_fields: Mapping[str, Any] | None = None,
    scalars: Mapping[str, Any] | None = None,
    boundaries: Mapping[str, str | tuple[str, str]] | None = None,
    splits: Mapping[str, Sequence[int]] | None = None,
    seed: int = 0,
    name: str | None = None,
    grid_type: str = "cartesian",
    shard_bytes: int = 4 << 30,
    chunks: Chunks = None,
    compression: str | None = None,
) -> list[Path]:
    """Write arrays as `to/data/<split>/*.hdf5`, which `WellDataset` reads. Values are stored as float32.

    Arrays are NumPy's, or anything with `shape`, `dtype` and slices: a memory map, an h5py or Zarr array. They are read
    in blocks of at most 64 MiB (or one frame), so that they may be larger than memory.

    Args:
        to: the dataset's folder; made if it does not exist.
        fields: name -> array `(trajectory, time, x[, y[, z]][, D[, D]])` with D = number of spatial axes: one
            trailing axis makes a vector, two a tensor.
        axes: name -> coordinates (point), in the order of the arrays' spatial axes.
        time: times of the frames (time), or of each trajectory's (trajectory, time).
        constant_fields: name -> array `(trajectory, x[, y[, z]][, D[, D]])`, or without the first axis where all
            trajectories share it.
        scalars: name -> number, or one for each trajectory (trajectory).
        boundaries: axis -> PERIODIC, WALL or OPEN, or a pair of them for its lower and upper end. An axis that is not
            named is OPEN.
        splits: "train", "valid", "test" -> trajectories, by position. Default: a tenth (at least one) each for valid
            and test, drawn with `seed`, the others for train.
        name: what the files call the dataset; by default as its folder.
        grid_type: coordinate system, as the files state it.
        shard_bytes: a file takes as many trajectories as this holds, at least one.
        chunks, compression: as in `create_well_shard`; by default contiguous, which is fastest to read.

    Returns:
        The shards, in order.

    Raises:
        ArgumentError: shapes contradict each other, a trajectory is in two splits, or a value is beyond float32.
        StorageError: the target holds shards already, is full, or cannot be written.
    """
    root = Path(to).expanduser()
    called = name or root.resolve().name
    arrays = _Arrays.of(fields, constant_fields or {}, axes, time, scalars or {})
    closed = _boundaries(boundaries or {}, arrays.axes)
    members = _members(splits, arrays.n_trajectories, seed)
    present = sorted((root / "data").glob("*/*.hdf5")) + sorted((root / "data").glob("*/*.h5"))
    if present:
        raise StorageError(f"{root} holds shards already ({present[0].relative_to(root)}); choose another folder")
    of_one = arrays.bytes_of_trajectory()
    if compression is None:  # how small compressed values become is not known beforehand
        _check_space(root, of_one * sum(map(len, members.values())))
    at_once = max(1, shard_bytes // of_one)
    written = []
    for split, chosen in members.items():
        for number, first in enumerate(range(0, len(chosen), at_once)):
            part = chosen[first : first + at_once]
            path = root / "data" / split / f"{called}_{split}_{number:04d}.hdf5"
            shard = arrays.shard(called, part, closed, grid_type)
            with create_well_shard(path, shard, chunks=chunks, compression=compression) as writer:
                arrays.copy(writer, part)
            written.append(path)
    return written


@dataclass(frozen=True)
class _Field:
    name: str
    values: Any
    order: int
    sample_varying: bool = True
    time_varying: bool = True


@dataclass(frozen=True)
class _Arrays:
    """Arrays whose shapes have been found to fit together."""

    axes: tuple[ShardAxis, ...]
    time: np.ndarray
    fields: tuple[_Field, ...]
    scalars: Mapping[str, np.ndarray]
    n_trajectories: int

    @classmethod
    def of(
        cls,
        fields: Mapping[str, Any],
        constant_fields: Mapping[str, Any],
        axes: Mapping[str, Any],
        time: Any,
        scalars: Mapping[str, Any],
    ) -> _Arrays:
        coordinates = tuple(ShardAxis(name, _numbers(f"axis {name!r}", values)) for name, values in axes.items())
        if not 1 <= len(coordinates) <= 3:
            raise ArgumentError(f"axes names {len(coordinates)} axes; give one, two or three")
        for axis in coordinates:
            if axis.values.ndim != 1 or not len(axis.values):
                raise ArgumentError(f"axis {axis.name!r} has shape {axis.values.shape}; expected (point)")
        if not fields:
            raise ArgumentError("there are no fields; give at least one that varies in time")
        repeated = set(fields) & set(constant_fields)
        if repeated:
            raise ArgumentError(f"field {min(repeated)!r} is given as varying and as constant; keep one")
        resolution = tuple(len(axis.values) for axis in coordinates)
        times = _numbers("time", time)
        first_name, first = next(iter(fields.items()))
        lead = tuple(_shape(first_name, first)[:2])
        if times.shape not in ((lead[1:]), lead) or not times.size:
            raise ArgumentError(
                f"time has shape {times.shape}; field {first_name!r} has {lead[0]} trajectories of "
                f"{lead[1] if len(lead) > 1 else 'no'} frames, so it takes (time) or (trajectory, time)"
            )
        count = lead[0]
        found = [_Field(name, values, _order(name, values, lead, resolution)) for name, values in fields.items()]
        for name, values in constant_fields.items():
            found.append(_constant(name, values, count, resolution))
        numbers = {name: _numbers(f"scalar {name!r}", value) for name, value in scalars.items()}
        for name, value in numbers.items():
            if value.shape not in ((), (count,)):
                raise ArgumentError(f"scalar {name!r} has shape {value.shape}; expected a number or {(count,)}")
        return cls(coordinates, times, tuple(found), numbers, count)

    def bytes_of_trajectory(self) -> int:
        """Bytes of one trajectory's fields on disk."""
        values: int = sum(
            prod(field.values.shape[1:] if field.sample_varying else field.values.shape) for field in self.fields
        )
        return _FLOAT_BYTES * values

    def shard(self, name: str, part: Sequence[int], boundaries: tuple[Any, ...], grid_type: str) -> WellShard:
        """The shard that holds some of the trajectories, its fields not filled yet."""
        own = list(part)
        return WellShard(
            dataset_name=name,
            n_trajectories=len(own),
            time=ShardAxis("time", self.time[own] if self.time.ndim == 2 else self.time, self.time.ndim == 2),
            axes=self.axes,
            fields=tuple(
                ShardField(
                    field.name, order=field.order, sample_varying=field.sample_varying, time_varying=field.time_varying
                )
                for field in sorted(self.fields, key=lambda field: field.order)
            ),
            scalars=tuple(
                ShardScalar(scalar, values[own] if values.ndim else values, sample_varying=values.ndim == 1)
                for scalar, values in self.scalars.items()
            ),
            boundaries=boundaries,
            parameters={scalar: float(values) for scalar, values in self.scalars.items() if not values.ndim},
            grid_type=grid_type,
        )

    def copy(self, writer: WellShardWriter, part: Sequence[int]) -> None:
        """Fill a shard, a block at a time."""
        for field in self.fields:
            if not field.sample_varying:
                writer.write_trajectory(0, {field.name: _block(field, (), None)})
                continue
            for place, trajectory in enumerate(part):
                if not field.time_varying:
                    writer.write_trajectory(place, {field.name: _block(field, (trajectory,), trajectory)})
                    continue
                n_steps, frame = field.values.shape[1], prod(field.values.shape[2:])
                at_once = max(1, BLOCK_BYTES // (_FLOAT_BYTES * frame))
                for start in range(0, n_steps, at_once):
                    frames = slice(start, min(start + at_once, n_steps))
                    writer.write_frames(place, start, {field.name: _block(field, (trajectory, frames), trajectory)})


def _check_space(root: Path, needed: int) -> None:
    existing = next(folder for folder in (root.absolute(), *root.absolute().parents) if folder.exists())
    with telling(root):
        free = shutil.disk_usage(existing).free
    if needed > free:
        raise StorageError(
            f"{root}: {decimal(needed)} are to be written and {decimal(free)} are free; free space, choose another "
            "folder, or compress them (compression='gzip')"
        )


def _block(field: _Field, selection: tuple[int | slice, ...], trajectory: int | None) -> np.ndarray:
    """A part of a field as float32."""
    values = np.asarray(field.values[selection] if selection else field.values[...])
    with np.errstate(over="ignore"):
        block = values.astype(np.float32, copy=False)
    if values.dtype.itemsize > _FLOAT_BYTES and np.isinf(block).sum() > np.isinf(values).sum():
        place = "" if trajectory is None else f" of trajectory {trajectory}"
        raise ArgumentError(
            f"field {field.name!r}{place} holds values beyond float32 ({np.abs(values[np.isfinite(values)]).max():g}); "
            "choose another unit"
        )
    return block


def _shape(name: str, values: Any) -> tuple[int, ...]:
    """Shape of a field; refuses what is no array of real numbers."""
    if not hasattr(values, "shape") or not hasattr(values, "dtype"):
        raise ArgumentError(f"field {name!r} is a {type(values).__name__}; give an array")
    if np.dtype(values.dtype).kind not in "fiub":
        raise ArgumentError(f"field {name!r} holds {values.dtype}; give real numbers (a complex field as two fields)")
    return tuple(values.shape)


def _numbers(what: str, values: Any) -> np.ndarray:
    try:
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ArgumentError(f"{what} is no array of numbers ({error})") from error


def _order(name: str, values: Any, lead: tuple[int, ...], resolution: tuple[int, ...]) -> int:
    """Tensor order of a field that varies in time."""
    shape = _shape(name, values)
    for order in range(3):
        if shape == (*lead, *resolution, *(len(resolution),) * order):
            return order
    raise _misfit(name, shape, (*lead, *resolution), resolution)


def _constant(name: str, values: Any, count: int, resolution: tuple[int, ...]) -> _Field:
    shape = _shape(name, values)
    fits = [
        _Field(name, values, order, sample_varying=own, time_varying=False)
        for own in (True, False)
        for order in range(3)
        if shape == ((count,) * own + resolution + (len(resolution),) * order)
    ]
    if not fits:
        raise _misfit(name, shape, (count, *resolution), resolution)
    if len(fits) > 1:
        raise ArgumentError(
            f"constant field {name!r} of shape {shape} may have a first axis of trajectories or a last one of "
            f"components; give it the axis of {count} trajectories"
        )
    return fits[0]


def _misfit(name: str, shape: tuple[int, ...], wanted: tuple[int, ...], resolution: tuple[int, ...]) -> ArgumentError:
    components = (len(resolution),)
    return ArgumentError(
        f"field {name!r} has shape {shape}; expected {wanted}, {wanted + components} for a vector or "
        f"{wanted + 2 * components} for a tensor"
    )


def _boundaries(given: Mapping[str, str | tuple[str, str]], axes: Sequence[ShardAxis]) -> tuple[Any, ...]:
    """The conditions at the ends of all axes."""
    names = [axis.name for axis in axes]
    for name in given:
        if name not in names:
            raise ArgumentError(
                f"boundaries names {name!r}; the axes are {', '.join(names)}.{did_you_mean(name, names)}"
            )
    found = []
    for axis in axes:
        ends = given.get(axis.name, "OPEN")
        lower, upper = (ends, ends) if isinstance(ends, str) else ends
        for kind in (lower, upper):
            if kind not in BOUNDARY_TYPES:
                raise ArgumentError(f"boundary {kind!r} of axis {axis.name!r}; choose {', '.join(BOUNDARY_TYPES)}")
        if lower == upper:
            found.append(edge_boundary(f"{axis.name}_{lower.lower()}", lower, axis))
        else:
            found.append(edge_boundary(f"{axis.name}_{lower.lower()}", lower, axis, upper=False))
            found.append(edge_boundary(f"{axis.name}_{upper.lower()}", upper, axis, lower=False))
    return tuple(found)


def _members(splits: Mapping[str, Sequence[int]] | None, count: int, seed: int) -> dict[str, list[int]]:
    """Trajectories of each split."""
    if splits is None:
        if count < len(SPLITS):
            raise ArgumentError(f"{count} trajectories cannot be split in three; say with splits= where they go")
        order = np.random.default_rng(seed).permutation(count).tolist()
        share = max(1, count // 10)
        return {
            "train": sorted(order[2 * share :]),
            "valid": sorted(order[:share]),
            "test": sorted(order[share : 2 * share]),
        }
    owner: dict[int, str] = {}
    for split, members in splits.items():
        if split not in SPLITS:
            raise ArgumentError(f"split {split!r} is unknown; choose {', '.join(SPLITS)}")
        for member in members:
            if not 0 <= member < count:
                raise ArgumentError(f"split {split!r} names trajectory {member}; there are {count}, from 0")
            if member in owner:
                raise ArgumentError(f"trajectory {member} is in {owner[member]} and in {split}; give it to one of them")
            owner[int(member)] = split
    if not owner:
        raise ArgumentError("splits names no trajectory")
    return {split: [int(member) for member in members] for split, members in splits.items() if len(members)}


__all__ = ["write_dataset"]
