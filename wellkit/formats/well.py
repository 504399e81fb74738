"""The Well's shard layout: from groups and attributes to plain, picklable data.

    / attrs: simulation_parameters, dataset_name, grid_type, n_spatial_dims, n_trajectories
    /dimensions            attrs spatial_dims; time (T) or (N, T); one array an axis
    /boundary_conditions/* attrs associated_dims, bc_type, sample_varying; mask
    /scalars               attrs field_names; arrays with attrs sample_varying, time_varying
    /t0_fields, /t1_fields, /t2_fields   attrs field_names; arrays (N?, T?, x?, y?, z?[, D[, D]])

An axis along which a field does not vary is absent on disk (the written format) or stored with size 1 (what
the_well's code reads); both are accepted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from math import prod
from typing import Any

import numpy as np

from wellkit.errors import FormatError, ShardError, WellkitError
from wellkit.formats.attributes import flag, flags, names, number, text
from wellkit.readers.protocol import ShardReader

MAX_ORDER = 2


class BoundaryCondition(Enum):
    """Codes of `boundary_conditions` in a sample."""

    WALL = 0
    OPEN = 1
    PERIODIC = 2


@dataclass(frozen=True)
class FieldLayout:
    """One field's array: what it varies along and which stored axis is which.

    `axes` names the stored axes in order: "sample", "time", the spatial axes by number (0, 1, 2), "tensor"; an
    axis stored with size 1 that stands for a whole one is named "one".
    """

    name: str
    path: str
    order: int
    sample_varying: bool
    time_varying: bool
    dim_varying: tuple[bool, ...]
    symmetric: bool
    antisymmetric: bool
    shape: tuple[int, ...]
    dtype: str
    axes: tuple[str | int, ...]

    def n_components(self, n_spatial_dims: int) -> int:
        """Components of the tensor at each point: n_spatial_dims ** order."""
        return int(n_spatial_dims**self.order)

    def selection(self, sample: int, time: slice, crop: tuple[slice, ...]) -> tuple[int | slice, ...]:
        """What to read of the stored array for one trajectory, some frames, and a box in space."""
        chosen: list[int | slice] = []
        for axis in self.axes:
            if axis == "sample":
                chosen.append(sample)
            elif axis == "time":
                chosen.append(time)
            elif isinstance(axis, int):
                chosen.append(crop[axis])
            else:
                chosen.append(slice(None))
        return tuple(chosen)

    def expand(self, values: np.ndarray) -> np.ndarray:
        """Insert size-1 axes where the stored array has none: (T?, 1|x, 1|y, ..., D...), ready to broadcast.

        Args:
            values: what `selection` read; axes as stored, without the sample axis.
        """
        wanted: list[int] = []
        stored = [axis for axis in self.axes if axis != "sample"]
        sizes = iter(values.shape)
        if self.time_varying:
            wanted.append(next(sizes))
            stored = stored[1:]
        spatial = [axis for axis in stored if axis != "tensor"]
        keeps_ones = len(spatial) == len(self.dim_varying)
        for varies in self.dim_varying:
            wanted.append(next(sizes) if varies or keeps_ones else 1)
        wanted.extend(sizes)
        return values.reshape(wanted)


@dataclass(frozen=True)
class ScalarLayout:
    """One scalar's array."""

    name: str
    path: str
    sample_varying: bool
    time_varying: bool
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class AxisLayout(ScalarLayout):
    """Coordinates of one spatial axis, or of time: described as a scalar is, with the axis itself last in `shape`."""


@dataclass(frozen=True)
class BoundaryLayout:
    """One boundary condition: where (mask over `dims`) and of which type."""

    name: str
    path: str
    type: BoundaryCondition
    dims: tuple[str, ...]
    sample_varying: bool
    mask_shape: tuple[int, ...]


@dataclass(frozen=True)
class WellLayout:
    """Everything about a shard but its values. Plain data: picklable, comparable, cheap to keep."""

    location: str
    dataset_name: str
    grid_type: str
    n_trajectories: int
    n_steps: int
    resolution: tuple[int, ...]
    time: AxisLayout
    axes: tuple[AxisLayout, ...]
    fields: tuple[FieldLayout, ...]
    scalars: tuple[ScalarLayout, ...]
    boundaries: tuple[BoundaryLayout, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)

    def at(self, location: str, attributes: Mapping[str, Any]) -> WellLayout:
        """The layout of a shard that differs in nothing but its place and some root attributes.

        As `dataclasses.replace`, at a tenth of the price: it is done for every one of thousands of shards.
        """
        other = object.__new__(WellLayout)
        other.__dict__.update(self.__dict__, location=location, attributes={**self.attributes, **attributes})
        return other

    @property
    def n_spatial_dims(self) -> int:
        """1, 2 or 3."""
        return len(self.axes)

    @property
    def generator(self) -> str | None:
        """Who simulated the shard, for generated data; None for published data."""
        value = self.attributes.get("generator")
        return None if value is None else str(value)


def parse_layout(reader: ShardReader) -> WellLayout:
    """Read a shard's layout and check that its arrays fit together.

    Raises:
        ShardError: the file cannot be read.
        FormatError: a group, attribute or array is missing, or shapes contradict each other; names the file and
            the place.
    """
    with reader.root() as root:
        try:
            return _Parser(root, reader.location).layout()
        except (WellkitError, OSError):
            raise
        except (KeyError, TypeError, ValueError, RuntimeError, OverflowError, MemoryError) as error:
            # libhdf5's bindings raise these on damaged metadata, whichever call comes upon it.
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise ShardError(
                f"{reader.location}: its header cannot be parsed ({reason}); the file is damaged"
            ) from error


class _Parser:
    """Walks one shard's groups; every complaint names the file and the place in it."""

    def __init__(self, root: Any, location: str) -> None:
        self._root = root
        self._location = location

    def _fail(self, message: str) -> FormatError:
        return FormatError(f"{self._location}: {message}")

    def _child(self, group: Any, path: str, *, optional: bool = False) -> Any:
        try:
            return group[path.rsplit("/", 1)[-1]]
        except KeyError:
            if optional:
                return None
            raise self._fail(f"has no /{path}, which a Well shard needs") from None

    def layout(self) -> WellLayout:
        attrs = self._root.attrs
        where = f"{self._location}: /"
        dimensions = self._child(self._root, "dimensions")
        spatial_dims = names(dimensions.attrs, "spatial_dims", f"{self._location}: /dimensions")
        declared_dims = number(attrs, "n_spatial_dims", where)
        if declared_dims != len(spatial_dims) or not 1 <= declared_dims <= 3:
            raise self._fail(
                f"n_spatial_dims is {declared_dims}, but /dimensions names {len(spatial_dims)} axes "
                f"({', '.join(spatial_dims)})"
            )
        n_trajectories = number(attrs, "n_trajectories", where)
        time = self._axis(dimensions, "time")
        axes = tuple(self._axis(dimensions, name) for name in spatial_dims)
        if time.sample_varying and time.shape[0] < n_trajectories:
            raise self._fail(f"/dimensions/time holds {time.shape[0]} trajectories, n_trajectories is {n_trajectories}")
        resolution = tuple(axis.shape[-1] for axis in axes)
        n_steps = time.shape[-1]
        self._sizes = {"sample": n_trajectories, "time": n_steps}
        fields = tuple(
            self._field(order, group, name, resolution)
            for order in range(MAX_ORDER + 1)
            if (group := self._child(self._root, f"t{order}_fields", optional=True)) is not None
            for name in self._field_names(group, f"/t{order}_fields")
        )
        return WellLayout(
            location=self._location,
            dataset_name=text(attrs, "dataset_name", where),
            grid_type=text(attrs, "grid_type", where),
            n_trajectories=n_trajectories,
            n_steps=n_steps,
            resolution=resolution,
            time=time,
            axes=axes,
            fields=fields,
            scalars=self._scalars(),
            boundaries=self._boundaries(spatial_dims),
            attributes={key: _plain(value) for key, value in attrs.items()},
        )

    def _field_names(self, group: Any, where: str) -> tuple[str, ...]:
        # The list gives the channel order; an empty group may come without it.
        if "field_names" not in group.attrs and len(list(group.keys())) == 0:
            return ()
        return names(group.attrs, "field_names", f"{self._location}: {where}")

    def _axis(self, dimensions: Any, name: str) -> AxisLayout:
        path = f"dimensions/{name}"
        array = self._child(dimensions, path)
        where = f"{self._location}: /{path}"
        sample_varying = flag(array.attrs, "sample_varying", where, default=False)
        time_varying = flag(array.attrs, "time_varying", where, default=name == "time")
        shape = tuple(int(size) for size in array.shape)
        expected = 1 + int(sample_varying) + int(time_varying and name != "time")
        if len(shape) != expected or prod(shape) == 0:
            raise self._fail(f"/{path} has shape {shape}; expected {expected} non-empty axes")
        return AxisLayout(name, path, sample_varying, time_varying, shape, str(array.dtype))

    def _field(self, order: int, group: Any, name: str, resolution: tuple[int, ...]) -> FieldLayout:
        path = f"t{order}_fields/{name}"
        array = self._child(group, path)
        where = f"{self._location}: /{path}"
        n_dims = len(resolution)
        sample_varying = flag(array.attrs, "sample_varying", where)
        time_varying = flag(array.attrs, "time_varying", where)
        dim_varying = flags(array.attrs, "dim_varying", where, n_dims)
        shape = tuple(int(size) for size in array.shape)
        lead: list[tuple[str | int, int]] = []
        if sample_varying:
            lead.append(("sample", self._sizes["sample"]))
        if time_varying:
            lead.append(("time", self._sizes["time"]))
        tail: list[tuple[str | int, int]] = [("tensor", n_dims)] * order
        present = [(axis, resolution[axis]) for axis in range(n_dims) if dim_varying[axis]]
        with_ones: list[tuple[str | int, int]] = [
            (axis, resolution[axis]) if dim_varying[axis] else ("one", 1) for axis in range(n_dims)
        ]
        for spatial in (present, with_ones):
            axes = [*lead, *spatial, *tail]
            if shape == tuple(size for _, size in axes):
                break
        else:
            wanted = tuple(size for _, size in [*lead, *present, *tail])
            raise self._fail(f"/{path} has shape {shape}; its attributes and the dimensions give {wanted}")
        if np.dtype(array.dtype).kind not in "fiub":
            raise self._fail(f"/{path} holds {array.dtype}, not numbers")
        return FieldLayout(
            name=name,
            path=path,
            order=order,
            sample_varying=sample_varying,
            time_varying=time_varying,
            dim_varying=dim_varying,
            symmetric=flag(array.attrs, "symmetric", where, default=False),
            antisymmetric=flag(array.attrs, "antisymmetric", where, default=False),
            shape=shape,
            dtype=str(array.dtype),
            axes=tuple(axis for axis, _ in axes),
        )

    def _scalars(self) -> tuple[ScalarLayout, ...]:
        group = self._child(self._root, "scalars", optional=True)
        if group is None:
            return ()
        found = []
        for name in self._field_names(group, "/scalars"):
            path = f"scalars/{name}"
            array = self._child(group, path)
            where = f"{self._location}: /{path}"
            scalar = ScalarLayout(
                name=name,
                path=path,
                sample_varying=flag(array.attrs, "sample_varying", where, default=False),
                time_varying=flag(array.attrs, "time_varying", where, default=False),
                shape=tuple(int(size) for size in array.shape),
                dtype=str(array.dtype),
            )
            wanted = tuple(
                size
                for size, varies in (
                    (self._sizes["sample"], scalar.sample_varying),
                    (self._sizes["time"], scalar.time_varying),
                )
                if varies
            )
            if scalar.shape not in (wanted, (*wanted, 1)):  # () is also written as (1,)
                raise self._fail(f"/{path} has shape {scalar.shape}; its attributes give {wanted}")
            found.append(scalar)
        return tuple(found)

    def _boundaries(self, spatial_dims: tuple[str, ...]) -> tuple[BoundaryLayout, ...]:
        group = self._child(self._root, "boundary_conditions", optional=True)
        if group is None:
            return ()
        found = []
        for name in group.keys():  # noqa: SIM118 - a zarr group iterates differently
            path = f"boundary_conditions/{name}"
            condition = self._child(group, path)
            where = f"{self._location}: /{path}"
            kind = text(condition.attrs, "bc_type", where).upper()
            if kind not in BoundaryCondition.__members__:
                known = ", ".join(BoundaryCondition.__members__)
                raise self._fail(f"/{path} has bc_type {kind!r}; known are {known}")
            dims = names(condition.attrs, "associated_dims", where)
            unknown = [dim for dim in dims if dim not in spatial_dims]
            if unknown:
                raise self._fail(f"/{path} names axis {unknown[0]!r}; the axes are {', '.join(spatial_dims)}")
            mask = self._child(condition, f"{path}/mask")
            sample_varying = flag(condition.attrs, "sample_varying", where, default=False)
            shape = tuple(int(size) for size in mask.shape)
            if len(shape) != len(dims) + int(sample_varying):
                raise self._fail(f"/{path}/mask has shape {shape} for axes {', '.join(dims)}")
            found.append(BoundaryLayout(name, path, BoundaryCondition[kind], dims, sample_varying, shape))
        return tuple(found)


def _plain(value: Any) -> Any:
    """An attribute as plain Python: lists, strings, numbers."""
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="replace")
    if isinstance(value, np.ndarray):
        return [_plain(item) for item in value.tolist()]
    return value.item() if isinstance(value, np.generic) else value
