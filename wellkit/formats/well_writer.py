"""Writing The Well's shard layout: a description of one shard in plain dataclasses, and the file it becomes.

    / attrs: simulation_parameters, one attr a parameter, dataset_name, grid_type, n_spatial_dims,
        n_trajectories
    /dimensions            attrs spatial_dims; time (T) or (N, T); one array an axis
    /boundary_conditions/* attrs associated_dims, associated_fields, bc_type, sample_varying, time_varying;
        arrays mask, values
    /scalars               attrs field_names; arrays with attrs sample_varying, time_varying
    /t0_fields, /t1_fields, /t2_fields   attrs field_names; arrays (N?, T?, x?, y?, z?[, D[, D]])

A file gets its name only when it is whole: until then it lies beside it under a hidden `.partial` name.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np

from wellkit.errors import ArgumentError
from wellkit.formats.hdf5_stream import HdfStream, storage_error

Chunks = Literal[True, "frame"] | Sequence[int] | Mapping[str, Sequence[int]] | None


@dataclass(frozen=True)
class ShardField:
    """One field: `values` as they lie on disk, axes (sample?, time?, x?, y?, z?[, D[, D]]).

    Attributes:
        values: any numeric array, written as float32; None to fill it later, a trajectory at a time
            (`create_well_shard`).
        order: tensor order, 0, 1 or 2: how many trailing axes of size D = number of spatial axes there are.
        dim_varying: which spatial axes the field varies along; the others are absent in `values`. None: all.
        singleton_axes: spatial axes the field does not vary along are stored with size 1, not absent.
    """

    name: str
    values: np.ndarray | None = None
    order: int = 0
    dim_varying: tuple[bool, ...] | None = None
    sample_varying: bool = True
    time_varying: bool = True
    symmetric: bool = False
    antisymmetric: bool = False
    singleton_axes: bool = False


@dataclass(frozen=True)
class ShardScalar:
    """One scalar: `values` of axes (sample?, time?), float32 on disk; a single number may have shape (1,)."""

    name: str
    values: np.ndarray | float
    sample_varying: bool = False
    time_varying: bool = False


@dataclass(frozen=True)
class ShardAxis:
    """Coordinates of a spatial axis (sample?, time?, size) or of time (sample?, size); `dtype` as written."""

    name: str
    values: np.ndarray
    sample_varying: bool = False
    time_varying: bool = False
    dtype: str = "float32"


@dataclass(frozen=True)
class ShardBoundary:
    """One boundary condition: `mask` is true where it holds, axes (sample?, one for each of `dims`).

    `type` is PERIODIC, WALL or OPEN, written as given; `values` are those of `fields` where the mask is true.
    """

    name: str
    type: str
    dims: tuple[str, ...]
    mask: np.ndarray
    fields: tuple[str, ...] = ()
    values: np.ndarray | None = None
    sample_varying: bool = False
    time_varying: bool = False


@dataclass(frozen=True)
class WellShard:
    """Everything one shard holds.

    Attributes:
        parameters: simulation parameters, named in `simulation_parameters` and written as root attributes.
        attributes: further root attributes (who generated the shard, with which seed, ...).
    """

    dataset_name: str
    n_trajectories: int
    time: ShardAxis
    axes: tuple[ShardAxis, ...]
    fields: tuple[ShardField, ...]
    scalars: tuple[ShardScalar, ...] = ()
    boundaries: tuple[ShardBoundary, ...] = ()
    parameters: Mapping[str, Any] = field(default_factory=dict)
    attributes: Mapping[str, Any] = field(default_factory=dict)
    grid_type: str = "cartesian"

    def field_shape(self, of: ShardField) -> tuple[int, ...]:
        """Shape of a field on disk."""
        varying = of.dim_varying if of.dim_varying is not None else (True,) * len(self.axes)
        lead = (self.n_trajectories,) * of.sample_varying + (self.time.values.shape[-1],) * of.time_varying
        spatial = tuple(
            axis.values.shape[-1] if varies else 1
            for axis, varies in zip(self.axes, varying, strict=True)
            if varies or of.singleton_axes
        )
        return lead + spatial + (len(self.axes),) * of.order


def edge_boundary(
    name: str,
    type: str,
    axis: ShardAxis,
    *,
    lower: bool = True,
    upper: bool = True,
    fields: tuple[str, ...] = (),
) -> ShardBoundary:
    """The boundary condition at one or both ends of an axis."""
    mask = np.zeros(axis.values.shape[-1], dtype=bool)
    mask[0], mask[-1] = lower, upper
    return ShardBoundary(name, type, (axis.name,), mask, fields=fields)


def write_well_shard(
    path: str | os.PathLike[str],
    shard: WellShard,
    *,
    chunks: Chunks = None,
    compression: str | None = None,
    page_size: int | None = None,
) -> None:
    """Write a whole shard; arguments as in `create_well_shard`.

    Raises:
        ArgumentError: shapes or names in `shard` contradict each other, or a field has no values.
        StorageError: the file cannot be written (unwritable, full disk, ...); nothing is left behind.
    """
    empty = [of.name for of in shard.fields if of.values is None]
    if empty:
        raise ArgumentError(f"{path}: field {empty[0]!r} has no values; fill it through create_well_shard")
    with create_well_shard(path, shard, chunks=chunks, compression=compression, page_size=page_size):
        pass


class WellShardWriter:
    """A shard being written: fills fields a trajectory at a time."""

    def __init__(self, file: h5py.File, shard: WellShard, stream: HdfStream, path: Path) -> None:
        self._file = file
        self._stream = stream
        self._path = path
        self._shard = shard
        self._fields = {of.name: of for of in shard.fields}

    def write_trajectory(self, index: int, values: Mapping[str, np.ndarray]) -> None:
        """Store fields of trajectory `index` (a field that is the same in all of them: whatever `index` is).

        Args:
            index: 0 to n_trajectories - 1.
            values: field name -> array (time?, x?, y?, z?[, D[, D]]).

        Raises:
            ArgumentError: there is no such trajectory or field, or its shape differs.
            StorageError: the file cannot be written.
        """
        for name, array in values.items():
            of, stored = self._stored(index, name)
            wanted = stored.shape[1:] if of.sample_varying else stored.shape
            if array.shape != wanted:
                raise ArgumentError(f"field {name!r} of a trajectory has shape {array.shape}; expected {wanted}")
            stored[index if of.sample_varying else ()] = np.asarray(array, dtype=np.float32)
            _check_written(self._stream, self._path)

    def write_frames(self, index: int, start: int, values: Mapping[str, np.ndarray]) -> None:
        """Store some consecutive frames of trajectory `index`, for trajectories that do not fit into memory.

        Args:
            index: 0 to n_trajectories - 1.
            start: the first frame.
            values: name of a field that each trajectory has its own of, and that varies in time -> array
                (time, x?, y?, z?[, D[, D]]).

        Raises:
            ArgumentError: there is no such trajectory, field or frame, or a shape differs.
            StorageError: the file cannot be written.
        """
        for name, array in values.items():
            of, stored = self._stored(index, name)
            if not (of.sample_varying and of.time_varying):
                raise ArgumentError(f"field {name!r} has no frames of a trajectory's own; write it as a whole")
            stop = start + len(array)
            if array.shape[1:] != stored.shape[2:] or not 0 <= start < stop <= stored.shape[1]:
                raise ArgumentError(
                    f"frames {start} to {stop} of field {name!r} have shape {array.shape}; expected frames of "
                    f"{stored.shape[2:]} from 0 to {stored.shape[1]}"
                )
            stored[index, start:stop] = np.asarray(array, dtype=np.float32)
            _check_written(self._stream, self._path)

    def _stored(self, index: int, name: str) -> tuple[ShardField, h5py.Dataset]:
        """A field and its array in the file."""
        if not 0 <= index < self._shard.n_trajectories:
            raise ArgumentError(f"trajectory {index} is not one of the shard's {self._shard.n_trajectories}")
        if name not in self._fields:
            raise ArgumentError(f"the shard has no field {name!r}; it has {', '.join(self._fields)}")
        of = self._fields[name]
        return of, self._file[f"t{of.order}_fields/{name}"]


@contextmanager
def create_well_shard(
    path: str | os.PathLike[str],
    shard: WellShard,
    *,
    chunks: Chunks = None,
    compression: str | None = None,
    page_size: int | None = None,
) -> Iterator[WellShardWriter]:
    """Write a shard piece by piece; the file takes its name when the block ends without an error.

    Args:
        path: the file; folders above it are made.
        shard: what it holds; fields without values are to be filled in the block.
        chunks: None for contiguous arrays; True for h5py's guess; "frame" for one frame of one trajectory;
            sizes along the leading axes of every time-varying field (axes beyond them whole); or such sizes
            by field name.
        compression: an h5py filter name ("gzip", "lzf"); chunks are then guessed where none are given.
        page_size: bytes of a page of HDF5's paged file space strategy; None for the default strategy.

    Raises:
        ArgumentError: shapes or names in `shard` contradict each other.
        StorageError: the file cannot be written (unwritable, full disk, ...); nothing is left behind.
    """
    target = Path(path)
    _check(target, shard)
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    paging: dict[str, Any] = {} if page_size is None else {"fs_strategy": "page", "fs_page_size": page_size}
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        stream = HdfStream(partial)
    except OSError as error:
        raise storage_error(target, error) from error
    try:
        with stream:
            with h5py.File(stream, "w", **paging) as file:
                _write_frame(file, shard)
                _write_fields(file, shard, chunks, compression)
                yield WellShardWriter(file, shard, stream, target)
            _check_written(stream, target)
        try:
            os.replace(partial, target)
        except OSError as error:
            raise storage_error(target, error) from error
    finally:
        with suppress(OSError):
            partial.unlink()


def _check_written(stream: HdfStream, target: Path) -> None:
    if stream.failure is not None:
        raise storage_error(target, stream.failure) from stream.failure


def _check(path: Path, shard: WellShard) -> None:
    """Raise ArgumentError where the parts of `shard` do not fit together."""

    def fail(message: str) -> ArgumentError:
        return ArgumentError(f"cannot write {path}: {message}")

    n_dims = len(shard.axes)
    if not 1 <= n_dims <= 3:
        raise fail(f"a shard has 1 to 3 spatial axes, not {n_dims}")
    n_steps = shard.time.values.shape[-1] if shard.time.values.ndim else 0
    lengths = {"sample": shard.n_trajectories, "time": n_steps}
    for axis in (shard.time, *shard.axes):
        lead = (lengths["sample"],) * axis.sample_varying + (n_steps,) * (axis.time_varying and axis is not shard.time)
        if axis.values.shape[:-1] != lead or axis.values.size == 0:
            raise fail(f"axis {axis.name!r} has shape {axis.values.shape}; expected {(*lead, 'size')}")
    names = [of.name for of in shard.fields]
    if len(set(names)) != len(names):
        raise fail(f"two fields have the same name: {', '.join(names)}")
    for of in shard.fields:
        if of.order not in (0, 1, 2):
            raise fail(f"field {of.name!r} has tensor order {of.order}; known are 0, 1 and 2")
        if of.dim_varying is not None and len(of.dim_varying) != n_dims:
            raise fail(f"field {of.name!r} has dim_varying of {len(of.dim_varying)} axes; the shard has {n_dims}")
        if of.values is not None and of.values.shape != shard.field_shape(of):
            raise fail(f"field {of.name!r} has shape {of.values.shape}; expected {shard.field_shape(of)}")
    for scalar in shard.scalars:
        wanted = (lengths["sample"],) * scalar.sample_varying + (n_steps,) * scalar.time_varying
        if np.shape(scalar.values) != wanted and (wanted or np.shape(scalar.values) != (1,)):
            raise fail(f"scalar {scalar.name!r} has shape {np.shape(scalar.values)}; expected {wanted}")
    sizes = {axis.name: axis.values.shape[-1] for axis in shard.axes}
    for boundary in shard.boundaries:
        unknown = [dim for dim in boundary.dims if dim not in sizes]
        if unknown:
            raise fail(f"boundary {boundary.name!r} names axis {unknown[0]!r}; the axes are {', '.join(sizes)}")
        expected = (lengths["sample"],) * boundary.sample_varying + (n_steps,) * boundary.time_varying
        expected += tuple(sizes[dim] for dim in boundary.dims)
        if boundary.mask.shape != expected:
            raise fail(f"boundary {boundary.name!r} has a mask of shape {boundary.mask.shape}; expected {expected}")


def _text_list(items: Sequence[str]) -> np.ndarray:
    # An empty Python list would become an array of float64.
    return np.array(list(items), dtype=h5py.string_dtype())


def _write_frame(file: h5py.File, shard: WellShard) -> None:
    """Everything but the fields."""
    file.attrs["dataset_name"] = shard.dataset_name
    file.attrs["grid_type"] = shard.grid_type
    file.attrs["n_spatial_dims"] = len(shard.axes)
    file.attrs["n_trajectories"] = shard.n_trajectories
    file.attrs["simulation_parameters"] = _text_list(list(shard.parameters))
    for name, value in {**shard.parameters, **shard.attributes}.items():
        file.attrs[name] = value

    dimensions = file.create_group("dimensions")
    dimensions.attrs["spatial_dims"] = _text_list([axis.name for axis in shard.axes])
    for axis in (shard.time, *shard.axes):
        name = "time" if axis is shard.time else axis.name
        stored = dimensions.create_dataset(name, data=np.asarray(axis.values, dtype=axis.dtype))
        stored.attrs["sample_varying"] = axis.sample_varying
        if axis is not shard.time:
            stored.attrs["time_varying"] = axis.time_varying

    boundaries = file.create_group("boundary_conditions")
    for boundary in shard.boundaries:
        group = boundaries.create_group(boundary.name)
        group.attrs["associated_dims"] = _text_list(boundary.dims)
        group.attrs["associated_fields"] = _text_list(boundary.fields)
        group.attrs["bc_type"] = boundary.type
        group.attrs["sample_varying"] = boundary.sample_varying
        group.attrs["time_varying"] = boundary.time_varying
        group.create_dataset("mask", data=np.asarray(boundary.mask, dtype=bool))
        if boundary.values is not None:
            group.create_dataset("values", data=np.asarray(boundary.values, dtype=np.float32))

    scalars = file.create_group("scalars")
    scalars.attrs["field_names"] = _text_list([scalar.name for scalar in shard.scalars])
    for scalar in shard.scalars:
        stored = scalars.create_dataset(scalar.name, data=np.asarray(scalar.values, dtype=np.float32))
        stored.attrs["sample_varying"] = scalar.sample_varying
        stored.attrs["time_varying"] = scalar.time_varying


def _write_fields(file: h5py.File, shard: WellShard, chunks: Chunks, compression: str | None) -> None:
    for order in range(3):
        group = file.create_group(f"t{order}_fields")
        fields = [of for of in shard.fields if of.order == order]
        group.attrs["field_names"] = _text_list([of.name for of in fields])
        for of in fields:
            shape = shard.field_shape(of)
            layout = _chunks(of, shape, chunks)
            if compression is not None and layout is None:
                layout = True
            stored = group.create_dataset(
                of.name, shape=shape, dtype=np.float32, chunks=layout, compression=compression
            )
            stored.attrs["dim_varying"] = np.array(of.dim_varying or (True,) * len(shard.axes), dtype=bool)
            stored.attrs["sample_varying"] = of.sample_varying
            stored.attrs["time_varying"] = of.time_varying
            if order == 2:
                stored.attrs["symmetric"] = of.symmetric
                stored.attrs["antisymmetric"] = of.antisymmetric
            if of.values is not None:
                stored[...] = np.asarray(of.values, dtype=np.float32)


def _chunks(of: ShardField, shape: tuple[int, ...], chunks: Chunks) -> tuple[int, ...] | bool | None:
    """h5py's `chunks` for one field."""
    if isinstance(chunks, Mapping):
        chunks = chunks.get(of.name)
    if chunks is None or chunks is True or 0 in shape or not shape:
        return None if not shape else chunks  # type: ignore[return-value]
    if isinstance(chunks, str):
        lead = int(of.sample_varying) + int(of.time_varying)
        return (1,) * lead + shape[lead:]
    if not of.time_varying:
        return None  # the sizes speak of trajectories and frames
    sizes = [min(size, extent) for size, extent in zip(chunks, shape, strict=False)]
    return (*sizes, *shape[len(sizes) :])
