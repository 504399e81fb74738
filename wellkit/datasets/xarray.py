"""All shards of a dataset as one `xarray.Dataset`, in physical units, lazily or at once.

Dimensions: `sample` (trajectories over all files, in file order), `time`, the spatial axes by name, and `i`, `j` for
the components of vectors and tensors, labelled with the axes' names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from wellkit.errors import ArgumentError
from wellkit.formats.well import AxisLayout, FieldLayout, ScalarLayout, WellLayout
from wellkit.frameworks import require
from wellkit.readers.protocol import ShardReader

if TYPE_CHECKING:
    from wellkit.datasets.well import WellDataset

_CHUNK_BYTES = 32 << 20
_COMPONENT_DIMS = ("i", "j")


@dataclass(frozen=True)
class _StoredArray:
    """An array of a shard that is read when it is indexed. Picklable: it holds no open file."""

    reader: ShardReader
    path: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def __getitem__(self, index: Any) -> np.ndarray:
        selection = index if isinstance(index, tuple) else (index,)
        plain = all(
            isinstance(part, int | np.integer) or (isinstance(part, slice) and (part.step or 1) > 0)
            for part in selection
        )
        if plain:
            return self.reader.read(self.path, selection)
        values: np.ndarray = self.reader.read(self.path)[index]
        return values

    def __dask_tokenize__(self) -> tuple[Any, ...]:
        return (type(self).__name__, self.reader.location, self.path, self.shape, str(self.dtype))


@dataclass(frozen=True)
class _Shard:
    """One shard's variables as (dims, array), each with its own `sample` axis first."""

    reader: ShardReader
    layout: WellLayout
    crop: tuple[slice, ...]
    load: Callable[[_StoredArray], Any]
    library: Any  # numpy or dask.array
    resolution: tuple[int, ...] = field(init=False)

    def __post_init__(self) -> None:
        sizes = (len(range(*c.indices(n))) for c, n in zip(self.crop, self.layout.resolution, strict=True))
        object.__setattr__(self, "resolution", tuple(sizes))

    @property
    def axes(self) -> tuple[str, ...]:
        return tuple(axis.name for axis in self.layout.axes)

    def _stored(self, path: str, shape: tuple[int, ...], dtype: str) -> Any:
        return self.load(_StoredArray(self.reader, path, shape, np.dtype(dtype).newbyteorder("=")))

    def _samples(self, values: Any, *, sample_varying: bool) -> Any:
        """`values` once for each trajectory, if they are common to all."""
        if sample_varying:
            return values
        return self.library.broadcast_to(values[None], (self.layout.n_trajectories, *values.shape))

    def field(self, item: FieldLayout) -> tuple[tuple[str, ...], Any]:
        stored = self._stored(item.path, item.shape, item.dtype)
        values = stored[tuple(self.crop[axis] if isinstance(axis, int) else slice(None) for axis in item.axes)]
        lead = values.shape[: item.sample_varying + item.time_varying]
        components = (self.layout.n_spatial_dims,) * item.order
        thin = [n if varies else 1 for n, varies in zip(self.resolution, item.dim_varying, strict=True)]
        values = values.reshape((*lead, *thin, *components))
        values = self.library.broadcast_to(values, (*lead, *self.resolution, *components))
        dims = ("sample", *("time",) * item.time_varying, *self.axes, *_COMPONENT_DIMS[: item.order])
        return dims, self._samples(values, sample_varying=item.sample_varying)

    def scalar(self, item: ScalarLayout) -> tuple[tuple[str, ...], Any]:
        sizes = (self.layout.n_trajectories,) * item.sample_varying + (self.layout.n_steps,) * item.time_varying
        values = self._stored(item.path, item.shape, item.dtype).reshape(sizes)  # (1,) is also how () is written
        return ("sample", *("time",) * item.time_varying), self._samples(values, sample_varying=item.sample_varying)

    def boundaries(self) -> dict[str, tuple[tuple[str, ...], Any]]:
        found = {}
        for item in self.layout.boundaries:
            mask = self._stored(f"{item.path}/mask", item.mask_shape, "bool")
            inside = tuple(self.crop[self.axes.index(dim)] for dim in item.dims)
            mask = mask[(slice(None),) * item.sample_varying + inside]
            found[item.name] = (("sample", *item.dims), self._samples(mask, sample_varying=item.sample_varying))
        return found

    def coordinates(self, axis: AxisLayout, crop: slice) -> np.ndarray:
        """Coordinates of an axis, or times: (sample?, time?, point)."""
        values = self.reader.read(axis.path)
        return values if axis is self.layout.time else values[..., crop]


def shards_to_xarray(dataset: WellDataset, backend: Literal["dask", "numpy"] = "dask") -> Any:
    """All shards as one Dataset along `sample`: fields, scalars, boundary masks, and the files' attributes.

    A boundary condition or attribute that only some files have is left out.

    Values are those of the files: not normalized, no windows, strides or transforms; `fields` and `crop` of the dataset
    hold. Files of fewer frames than the longest are padded with NaN along `time`. Times and grids that differ between
    trajectories become coordinates with a `sample` axis.

    Args:
        dataset: an open dataset.
        backend: "dask" reads a block when its values are asked for, "numpy" reads everything now.

    Returns:
        xarray.Dataset.

    Raises:
        ArgumentError: another backend.
        MissingDependencyError: xarray, or dask for "dask", is not installed.
        ShardError: a shard cannot be read ("dask": when values are asked for).
    """
    if backend not in ("dask", "numpy"):
        raise ArgumentError(f"backend={backend!r} is unknown; choose 'dask' or 'numpy'")
    xarray = require("xarray", extra="zarr", purpose="to_xarray")
    library: Any = np
    load: Callable[[_StoredArray], Any] = _load_now
    if backend == "dask":
        library = require("dask.array", extra="zarr", purpose="to_xarray(backend='dask')")
        load = _loader(library)
    tree = dataset._tree
    shards = [
        _Shard(reader, layout, dataset._crop, load, library)
        for reader, layout in zip(tree.readers, tree.layouts, strict=True)
    ]
    variables: dict[str, list[tuple[tuple[str, ...], Any]]] = {}
    attributes: dict[str, dict[str, Any]] = {}
    wanted = {*tree.variable, *tree.constant}
    for shard in shards:
        for item in shard.layout.fields:
            if item.name in wanted:
                variables.setdefault(item.name, []).append(shard.field(item))
                attributes[item.name] = _field_attributes(item)
        for scalar in shard.layout.scalars:
            variables.setdefault(scalar.name, []).append(shard.scalar(scalar))
            attributes[scalar.name] = {"sample_varying": scalar.sample_varying, "time_varying": scalar.time_varying}
        for name, variable in shard.boundaries().items():
            variables.setdefault(name, []).append(variable)
    n_steps = max(shard.layout.n_steps for shard in shards)
    joined = {name: _join(pieces, n_steps, library) for name, pieces in variables.items() if len(pieces) == len(shards)}
    content: dict[str, Any] = {
        name: (dims, values, attributes.get(name, {})) for name, (dims, values) in joined.items()
    }
    content |= {name: value for name, value in _file_attributes(shards).items() if name not in content}
    return xarray.Dataset(content, coords=_coordinates(shards, n_steps, joined))


def _load_now(stored: _StoredArray) -> Any:
    return stored[()]


def _loader(dask_array: Any) -> Callable[[_StoredArray], Any]:
    """Arrays in blocks of whole frames of one trajectory, as many as fit 32 MiB."""

    def load(stored: _StoredArray) -> Any:
        sizes = list(stored.shape)
        for axis in range(len(sizes)):  # halving from the front keeps the contiguous end whole
            rest = prod(sizes[axis + 1 :]) * stored.dtype.itemsize
            sizes[axis] = max(1, min(sizes[axis], _CHUNK_BYTES // max(rest, 1)))
            if sizes[axis] > 1:
                break
        # libhdf5 runs one call at a time and the readers see to that: no lock of dask's.
        return dask_array.from_array(stored, chunks=tuple(sizes), lock=False, fancy=False, asarray=True)

    return load


def _join(pieces: list[tuple[tuple[str, ...], Any]], n_steps: int, library: Any) -> tuple[tuple[str, ...], Any]:
    """One variable of all shards along `sample`, short ones padded with NaN along `time`."""
    dims = pieces[0][0]
    arrays = [values for _, values in pieces]
    if "time" in dims:
        axis = dims.index("time")
        arrays = [_padded(values, axis, n_steps, library) for values in arrays]
    return dims, library.concatenate(arrays, axis=0)


def _padded(values: Any, axis: int, length: int, library: Any) -> Any:
    missing = length - values.shape[axis]
    if missing == 0:
        return values
    if values.dtype.kind != "f":
        values = values.astype(np.float64)  # integers have no NaN
    widths = [(0, missing if number == axis else 0) for number in range(values.ndim)]
    return library.pad(values, widths, mode="constant", constant_values=np.nan)


def _field_attributes(item: FieldLayout) -> dict[str, Any]:
    found: dict[str, Any] = {
        "dim_varying": list(item.dim_varying),
        "sample_varying": item.sample_varying,
        "time_varying": item.time_varying,
    }
    if item.order == 2:
        found |= {"symmetric": item.symmetric, "antisymmetric": item.antisymmetric}
    return found


def _file_attributes(shards: list[_Shard]) -> dict[str, tuple[tuple[str, ...], np.ndarray]]:
    """Attributes of the files as variables along `sample`; lists get a dimension of their own, `<name>_dim`.

    One that a file lacks, or whose length differs between files, is left out.
    """
    found = {}
    counts = [shard.layout.n_trajectories for shard in shards]
    for name in shards[0].layout.attributes:
        values = [np.asarray(shard.layout.attributes.get(name)) for shard in shards]
        if len({value.shape for value in values}) > 1 or values[0].ndim > 1 or values[0].dtype.kind == "O":
            continue
        dims = ("sample", *(f"{name}_dim",) * values[0].ndim)
        found[name] = (dims, np.concatenate([np.stack([v] * n) for v, n in zip(values, counts, strict=True)]))
    return found


def _coordinates(
    shards: list[_Shard], n_steps: int, joined: Mapping[str, tuple[tuple[str, ...], Any]]
) -> dict[str, Any]:
    """Coordinates by name: one axis where all trajectories share them, else with a `sample` axis."""
    first = shards[0].layout
    counts = [shard.layout.n_trajectories for shard in shards]
    found: dict[str, Any] = {"sample": np.arange(sum(counts))}
    for number, axis in enumerate((first.time, *first.axes)):
        is_time = number == 0
        layouts = [shard.layout.time if is_time else shard.layout.axes[number - 1] for shard in shards]
        crop = slice(None) if is_time else shards[0].crop[number - 1]
        values = [shard.coordinates(own, crop) for shard, own in zip(shards, layouts, strict=True)]
        longest = max(values, key=lambda v: v.shape[-1])
        if longest.ndim == 1 and all(v.ndim == 1 and np.array_equal(v, longest[: len(v)]) for v in values):
            found[axis.name] = longest
            continue
        moving = any(own.time_varying for own in layouts) and not is_time
        pieces = []
        for shard, own, value in zip(shards, layouts, values, strict=True):
            spread = value if own.sample_varying else np.stack([value] * shard.layout.n_trajectories)
            if moving and not own.time_varying:
                spread = np.stack([spread] * shard.layout.n_steps, axis=1)
            axis_of_time = 1 if is_time or moving else None
            pieces.append(spread if axis_of_time is None else _padded(spread, axis_of_time, n_steps, np))
        found[axis.name] = (("sample", *("time",) * moving, axis.name), np.concatenate(pieces))
    used = {dim for dims, _ in joined.values() for dim in dims}
    names = [axis.name for axis in first.axes]
    return found | {dim: names for dim in _COMPONENT_DIMS if dim in used}
