"""One window of one shard, from stored arrays to normalized, channels-last buffers."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from wellkit.datasets.domain import Box, grid_of, inside, open_where_cut, read_boundaries, read_lines
from wellkit.datasets.samples import promoted
from wellkit.datasets.shared import SharedArrays
from wellkit.formats.well import FieldLayout, WellLayout
from wellkit.frameworks import Framework, from_numpy, to_numpy
from wellkit.normalization import Normalization
from wellkit.readers.indexed import IndexedReader
from wellkit.readers.plan import FieldPlan, WindowBatch, WindowRequest
from wellkit.readers.protocol import ShardReader, WindowReader
from wellkit.readers.ranged import RangedReader
from wellkit.readers.zarr import ZarrReader


class Channel(NamedTuple):
    """Where a field's components lie in the channel axis: channels first..first + size."""

    field: FieldLayout
    first: int
    size: int
    component_shape: tuple[int, ...]


def channels_of(fields: Iterable[FieldLayout], n_spatial_dims: int) -> tuple[Channel, ...]:
    """Lay fields side by side along the channel axis, in the order given."""
    channels, first = [], 0
    for field in fields:
        count = field.n_components(n_spatial_dims)
        channels.append(Channel(field, first, count, (n_spatial_dims,) * field.order))
        first += count
    return tuple(channels)


def component_names(field: FieldLayout, axes: Sequence[str]) -> list[str]:
    """Names of a field's components: "velocity" with axes x, y gives velocity_x, velocity_y; order 2 gives _xx, ..."""
    if field.order == 0:
        return [field.name]
    return [f"{field.name}_{''.join(combination)}" for combination in itertools.product(axes, repeat=field.order)]


@dataclass(frozen=True)
class WindowSpec:
    """Which frames of which trajectory: `n_steps` frames from `start`, `stride` apart, the first `n_input` as input.

    `crop` is a box of its own, a slice for each spatial axis; None: the dataset's.
    """

    trajectory: int
    start: int
    n_steps: int
    stride: int
    n_input: int
    crop: tuple[slice, ...] | None = None

    @property
    def frames(self) -> slice:
        """The frames as a slice of the time axis."""
        return slice(self.start, self.start + (self.n_steps - 1) * self.stride + 1, self.stride)


class ShardAssembler:
    """Reads windows of one shard. Small constants are kept once read (at most `cache_limit` elements each).

    Picklable and safe under fork: it holds plain data and a reader that holds a location.

    Args:
        layout: the shard's layout.
        reader: the shard's reader.
        variable, constant: fields to deliver, in channel order (of this shard's own layout).
        crop: a slice for each spatial axis.
        resolution: points delivered along each of them; fewer than `crop` has where windows have boxes of their own.
        normalization: applied to fields, or None.
        framework: what a custom normalization is called with.
        delta: outputs become differences to the frame before, and take the delta statistics.
        cache_limit: elements of the largest constant to keep; 0 keeps none.
        shared: where shards find what others of the dataset keep already.
    """

    def __init__(
        self,
        layout: WellLayout,
        reader: ShardReader,
        *,
        variable: Sequence[FieldLayout],
        constant: Sequence[FieldLayout],
        crop: tuple[slice, ...],
        resolution: tuple[int, ...],
        normalization: Any,
        framework: Framework,
        delta: bool,
        cache_limit: float,
        shared: SharedArrays,
    ) -> None:
        self.layout = layout
        self._reader = reader
        self._crop = crop
        self._resolution = resolution
        self.variable = channels_of(variable, layout.n_spatial_dims)
        self.constant = channels_of(constant, layout.n_spatial_dims)
        self._normalization = normalization
        self._framework = framework
        self._delta = delta
        self._cache_limit = cache_limit
        self._shared = shared
        self._cache: dict[str, np.ndarray] = {}
        self._plans: dict[str, tuple[FieldPlan, ...] | None] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_plans": {}}  # plans hold chunk tables, which a child finds in the index

    # straight from the file

    def request(self, window: WindowSpec) -> WindowRequest | None:
        """The window for `source`; None where only h5py can read it, or the normalization is not affine."""
        plans = self._plan("variable", self.variable)
        if plans is None:
            return None
        return WindowRequest(
            self._reader.location,
            plans,
            window.trajectory,
            window.start,
            window.n_steps,
            window.stride,
            window.n_input,
            window.crop or self._crop,
        )

    @property
    def source(self) -> WindowReader:
        """What reads windows of the shard; the same for all shards of a folder."""
        assert isinstance(self._reader, IndexedReader | RangedReader | ZarrReader)  # the others have no requests
        return self._reader.windows

    def _plan(self, key: str, channels: tuple[Channel, ...]) -> tuple[FieldPlan, ...] | None:
        if key not in self._plans:
            self._plans[key] = self._make_plan(channels)
        return self._plans[key]

    def _make_plan(self, channels: tuple[Channel, ...]) -> tuple[FieldPlan, ...] | None:
        norm, reader = self._normalization, self._reader
        if not isinstance(reader, IndexedReader | RangedReader | ZarrReader) or not (
            norm is None or isinstance(norm, Normalization)
        ):
            return None
        plans = []
        for channel in channels:
            array = reader.array(channel.field.path)
            if array.layout == "fallback":
                return None
            plans.append(
                FieldPlan(
                    array,
                    channel.first,
                    channel.size,
                    *self._affine(channel, delta=False),
                    has_sample_axis=channel.field.sample_varying,
                    has_time_axis=channel.field.time_varying,
                    spatial=channel.field.dim_varying,
                    delta=self._affine(channel, delta=True) if self._delta and channel.field.time_varying else None,
                )
            )
        return tuple(plans)

    def _affine(self, channel: Channel, *, delta: bool) -> tuple[np.ndarray, np.ndarray]:
        """(offset, scale) of a field's components side by side; (0, 1) changes no value."""
        if self._normalization is None:
            return np.zeros(channel.size, np.float32), np.ones(channel.size, np.float32)
        offset, scale = self._normalization.affine(channel.field.name, delta=delta)
        return offset.reshape(-1), scale.reshape(-1)

    def _cached(self, key: str, value: np.ndarray) -> np.ndarray:
        """Keep `value` for the next window; read-only, since the same array is handed out again.

        An array that is equal to another shard's is kept once.
        """
        if value.size > self._cache_limit:
            return value
        kept = self._cache[key] = self._shared.same(key, [value], lambda: value)
        return kept

    # fields

    def variable_fields(self, window: WindowSpec) -> np.ndarray:
        """Time-varying fields, normalized: (time, space..., channel)."""
        out = np.empty((window.n_steps, *self.shape(self.variable)), self.dtype(self.variable))
        request = self.request(window)
        if request is not None:
            self.source.read_windows([request], out[np.newaxis])
            return out
        for channel in self.variable:
            values = self._read(channel.field, window.trajectory, window.frames, window.crop or self._crop)
            target = _components(out, channel, values.ndim)
            if self._delta:
                differences = values[window.n_input :] - values[window.n_input - 1 : -1]
                self._store(channel.field, values[: window.n_input], target[: window.n_input], delta=False)
                self._store(channel.field, differences, target[window.n_input :], delta=True)
            else:
                self._store(channel.field, values, target, delta=False)
        return out

    def constants_to_read(self, window: WindowSpec) -> WindowBatch | None:
        """The constant fields of a window, for `source`; None where they are known, or it cannot read them."""
        plans = None if "constant_fields" in self._cache else self._plan("constant", self.constant)
        if plans is None:
            return None
        whole = self._keeps_constants()
        crop = self._crop if whole else window.crop or self._crop
        out = np.empty((1, 1, *self._constant_shape(whole=whole)), self.dtype(self.constant))
        if not out.size:
            return None
        return WindowBatch([WindowRequest(self._reader.location, plans, window.trajectory, 0, 1, 1, 1, crop)], out)

    def constant_fields(self, window: WindowSpec, read: WindowBatch | None = None) -> np.ndarray:
        """Fields constant in time, normalized: (space..., channel).

        Args:
            read: what `constants_to_read` said, if `source` has read it.
        """
        kept = self._cache.get("constant_fields")
        if kept is not None:
            return self._inside(kept, window)
        if read is None and (read := self.constants_to_read(window)) is not None:
            self.source.read_windows(*read)
        whole = self._keeps_constants()
        if read is not None:
            values = read.out[0, 0]
        else:
            values = np.empty(self._constant_shape(whole=whole), self.dtype(self.constant))
            crop = self._crop if whole else window.crop or self._crop
            for channel in self.constant:
                part = self._read(channel.field, window.trajectory, slice(None), crop)
                self._store(channel.field, part, _components(values, channel, part.ndim), delta=False)
        return self._inside(self._cached("constant_fields", values), window) if whole else values

    def _keeps_constants(self) -> bool:
        """Whether constant fields are kept once read: then all of the dataset's box is read."""
        n_elements = math.prod(self._constant_shape(whole=True))
        return n_elements <= self._cache_limit and not any(channel.field.sample_varying for channel in self.constant)

    def _constant_shape(self, *, whole: bool) -> tuple[int, ...]:
        box = tuple(part.stop - part.start for part in self._crop) if whole else self._resolution
        return (*box, sum(channel.size for channel in self.constant))

    def _inside(self, kept: np.ndarray, window: WindowSpec) -> np.ndarray:
        """A window's part of what is kept of the dataset's box; the very same array where it is all of it."""
        return kept if window.crop is None else kept[inside(window.crop, self._crop)]

    def shape(self, channels: tuple[Channel, ...]) -> tuple[int, ...]:
        """(space..., channel) of fields side by side."""
        return (*self._resolution, sum(channel.size for channel in channels))

    def dtype(self, channels: tuple[Channel, ...]) -> np.dtype[Any]:
        """Of fields side by side: the float type that holds them all."""
        if not channels:
            return np.dtype(np.float32)
        found = promoted(np.dtype(channel.field.dtype) for channel in channels)
        return found.newbyteorder("=") if found.kind == "f" else np.dtype(np.float32)

    def _read(self, field: FieldLayout, trajectory: int, frames: slice, crop: tuple[slice, ...]) -> np.ndarray:
        """Stored values with a size-1 axis wherever the field does not vary: (time?, space..., component...)."""
        return field.expand(self._reader.read(field.path, field.selection(trajectory, frames, crop)))

    def _store(self, field: FieldLayout, values: np.ndarray, target: np.ndarray, *, delta: bool) -> None:
        """Normalize `values` into `target`, broadcasting axes the field does not vary along."""
        norm = self._normalization
        if norm is None:
            target[...] = values
        elif isinstance(norm, Normalization):
            offset, scale = norm.affine(field.name, delta=delta)
            np.subtract(values, offset, out=target, casting="same_kind")
            np.divide(target, scale, out=target)
        else:
            call = norm.delta_normalize if delta else norm.normalize
            target[...] = to_numpy(call(from_numpy(values, self._framework), field.name))

    # scalars

    def variable_scalars(self, window: WindowSpec) -> dict[str, np.ndarray]:
        """Time-varying scalars by name, each (time)."""
        return {
            scalar.name: self._reader.read(
                scalar.path, (window.trajectory, window.frames) if scalar.sample_varying else (window.frames,)
            ).reshape(-1)
            for scalar in self.layout.scalars
            if scalar.time_varying
        }

    def constant_scalars(self, trajectory: int) -> dict[str, np.ndarray]:
        """Scalars constant in time by name, each without axes."""
        found = {}
        for scalar in self.layout.scalars:
            if scalar.time_varying:
                continue
            key = f"scalar:{scalar.name}"
            values = self._cache.get(key)
            if values is None:
                values = self._cached(key, self._reader.read(scalar.path))
            found[scalar.name] = np.array(values[trajectory] if scalar.sample_varying else values).reshape(())
        return found

    def constant_row(self, trajectory: int, names: Sequence[str]) -> np.ndarray:
        """The scalars `names`, constant in time, side by side: (scalar). The same names at every call."""
        table = self._cache.get("scalars")
        if table is None:
            scalars = {scalar.name: scalar for scalar in self.layout.scalars}
            values = [self._reader.read(scalars[name].path) for name in names]
            varying = [scalars[name].sample_varying for name in names]
            rows = self.layout.n_trajectories if any(varying) else 1
            columns = [
                part.reshape(rows) if varies else np.full(rows, part.reshape(()))
                for part, varies in zip(values, varying, strict=True)
            ]
            kind = promoted(column.dtype for column in columns)
            table = self._cached("scalars", np.stack([column.astype(kind) for column in columns], axis=-1))
        return np.array(table[trajectory if len(table) > 1 else 0])

    # grids and boundaries

    def time_grid(self, window: WindowSpec, *, relative: bool) -> np.ndarray:
        """Times of the window's frames: (time); `relative` counts from the earliest."""
        axis = self.layout.time
        times = self._cache.get("time")
        if times is None:
            times = self._cached("time", self._reader.read(axis.path))
        chosen = times[(window.trajectory, window.frames) if axis.sample_varying else window.frames]
        return chosen - chosen.min() if relative else chosen.copy()

    def space_grid(self, window: WindowSpec) -> np.ndarray:
        """Coordinates: (space..., coordinate). A moving grid is taken at the window's first frame."""
        kept = self._cache.get("space_grid")
        if kept is not None:
            return self._inside(kept, window)
        moves = any(axis.sample_varying or axis.time_varying for axis in self.layout.axes)
        box = [part.stop - part.start for part in self._crop]
        if moves or math.prod(box) * len(box) > self._cache_limit:
            return grid_of(self._lines(window, window.crop or self._crop))
        lines = self._lines(window, self._crop)
        kept = self._cache["space_grid"] = self._shared.same("space_grid", lines, lambda: grid_of(lines))
        return self._inside(kept, window)

    def _lines(self, window: WindowSpec, box: Box) -> list[np.ndarray]:
        return read_lines(self.layout, self._reader, window.trajectory, window.start, box)

    def boundary_conditions(self, window: WindowSpec) -> np.ndarray:
        """Boundary codes: (spatial axis, side) float32, side 0 at the first grid point, 1 at the last.

        An axis is OPEN unless a condition says otherwise. Where a mask covers several axes, a side is `open` or
        `periodic` if any part of it is, and `wall` only if all of it is. A side that a crop cuts off is OPEN.
        """
        codes = self._cache.get("boundaries")
        if codes is None:
            codes = read_boundaries(self.layout, self._reader, window.trajectory)
            if not any(condition.sample_varying for condition in self.layout.boundaries):
                codes = self._cached("boundaries", codes)
        return open_where_cut(codes, window.crop or self._crop, self.layout.resolution)


def _components(buffer: np.ndarray, channel: Channel, ndim: int) -> np.ndarray:
    """The channels of one field as a view with the field's own axes: (..., component, component)."""
    view = buffer[..., channel.first : channel.first + channel.size]
    view = view.reshape(*view.shape[:-1], *channel.component_shape)
    assert np.shares_memory(view, buffer)  # a copy here would lose what is written to it
    assert view.ndim == ndim
    return view
