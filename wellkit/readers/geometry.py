"""Where the elements of a window lie: pure arithmetic on index entries, checked once and kept for a shard's windows."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from itertools import product
from math import prod
from sys import maxsize
from typing import NamedTuple

import numpy as np

from wellkit.errors import ArgumentError
from wellkit.index.model import MISSING, ArrayIndex
from wellkit.readers.plan import FieldPlan

Slices = tuple[slice, ...]
_FLAT_LIMIT = 1 << 26  # bytes


class Box(NamedTuple):
    """What a frame needs of one chunk, by axes behind sample and time."""

    number: int  # of the chunk, counted from the one its trajectory and frame begin with
    source: Slices  # in the chunk
    target: Slices  # in the frame, as cropped


def row_major(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Elements from one index to the next along each axis of a C-ordered array."""
    return tuple(prod(shape[axis + 1 :]) for axis in range(len(shape)))


class FieldGeometry:
    """One field under one crop: from (trajectory, frame) to bytes.

    A frame is taken from a *container*: the array itself, one chunk, or, where it is spread over several chunks, a
    dense buffer that they are copied into.

    Attributes:
        dtype: of the stored elements.
        kind: "contiguous", "inline", "missing" (one point of fill values stands for all), "chunk" (every frame lies in
            one chunk) or "boxes" (it is spread).
        boxes: chunks a frame needs; one if kind is "chunk".
        dense_shape: of a cropped frame as stored, components included.
        lead_bytes: bytes of the container from one trajectory to the next, and from one frame to the next.
        strides: elements of the container from one point to the next along each spatial axis; 0 where repeated.
        first: bytes from a frame's beginning in its container to the first needed element.
        span: bytes from there to the end of the last needed element.

    Raises:
        ArgumentError: array, plan, crop and output do not fit, or only libhdf5 can read the array.
    """

    def __init__(self, plan: FieldPlan, space: tuple[int, ...], crop: Slices) -> None:
        self.plan = plan
        self.array = array = plan.array
        self.dtype = np.dtype(array.dtype)
        self.lead = lead = int(plan.has_sample_axis) + int(plan.has_time_axis)
        if len(plan.spatial) != len(space) or len(crop) != len(space):
            raise self._fail(f"is planned for {len(plan.spatial)} spatial axes; the output has {len(space)}")
        roles, cuts = self._axes(space, crop)
        self.dense_shape = tuple(len(cut) for cut in cuts)
        self.boxes: tuple[Box, ...] = ()
        self._grid_steps: tuple[int, ...] = ()
        self.kind: str = array.layout
        container = array.shape[lead:]
        firsts = [cut.start for cut in cuts]
        pitches = [cut.step for cut in cuts]
        if array.layout == "fallback":
            raise self._fail(f"can be read by libhdf5 only ({array.reason or 'fallback'}); read it with Hdf5Reader")
        if array.layout == "chunked":
            self._grid_steps = row_major(array.grid)
            self.boxes = _boxes(cuts, array.chunk_shape[lead:], self._grid_steps[lead:])
            tail = lead + max((axis + 1 for axis, role in enumerate(roles) if role is not None), default=0)
            if len(self.boxes) == 1 and array.chunk_shape[tail:] == array.shape[tail:]:
                self.kind, container = "chunk", array.chunk_shape[lead:]
                firsts = [part.start for part in self.boxes[0].source]
            else:
                self.kind, container = "boxes", self.dense_shape
                firsts, pitches = [0] * len(cuts), [1] * len(cuts)
        steps = row_major(container)
        along = {role: pitch * step for role, pitch, step in zip(roles, pitches, steps, strict=True)}
        unit = dict(zip(roles, steps, strict=True))
        # Along each spatial axis: elements between neighbours, and how many points there are.
        self._pitches = [unit.get(axis, 0) for axis in range(len(space))]
        extents = dict(zip(roles, array.shape[lead:], strict=True))
        self._extents = [extents.get(axis, maxsize) for axis in range(len(space))]
        if self.kind == "missing":
            firsts, along = [0] * len(cuts), {}
        self.strides = tuple(along.get(axis, 0) if size > 1 else 0 for axis, size in enumerate(space))
        item = self.dtype.itemsize
        self.first = item * sum(first * step for first, step in zip(firsts, steps, strict=True))
        reach = sum((size - 1) * stride for size, stride in zip(space, self.strides, strict=True))
        self.span = item * (reach + plan.components)
        self._set_leads()

    def moved(self, starts: Sequence[int], stops: Sequence[int]) -> FieldGeometry | None:
        """The same for a box of the same size that begins at `starts`; None where it does not fit."""
        if any(stop > extent for stop, extent in zip(stops, self._extents, strict=True)):
            return None
        found = copy(self)
        shift = sum(start * step for start, step in zip(starts, self._pitches, strict=True))
        found.first = self.dtype.itemsize * shift
        return found

    def _set_leads(self) -> None:
        """Sizes of a container, bytes to the next index in it and chunks to the next, along trajectory and frame."""
        plan, array = self.plan, self.array
        outer = array.chunk_shape if array.layout == "chunked" else array.shape
        lengths, steps = iter(outer), iter(row_major(outer))
        grid = iter(self._grid_steps)
        self.lead_bytes = [0, 0]
        self._lead_sizes, self._lead_chunks = [1, 1], [0, 0]
        for axis, is_there in enumerate((plan.has_sample_axis, plan.has_time_axis)):
            if is_there:
                self._lead_sizes[axis] = max(1, next(lengths))
                self.lead_bytes[axis] = self.dtype.itemsize * next(steps)
                self._lead_chunks[axis] = next(grid, 0)

    def _fail(self, why: str) -> ArgumentError:
        return ArgumentError(f"array {self.array.name!r} of shape {self.array.shape} {why}")

    def _axes(self, space: tuple[int, ...], crop: Slices) -> tuple[tuple[int | None, ...], list[range]]:
        """For each axis behind sample and time: the spatial axis it is (None: no such), and its indices."""
        rest = self.array.shape[self.lead :]
        absent = [axis for axis, varies in enumerate(self.plan.spatial) if varies]
        thin = [axis if varies else None for axis, varies in enumerate(self.plan.spatial)]
        for head in (absent, thin):
            roles = (*head, *[None] * (len(rest) - len(head)))
            if len(roles) != len(rest) or prod(rest[len(head) :]) != self.plan.components:
                continue
            cuts = [range(n) if role is None else range(n)[crop[role]] for n, role in zip(rest, roles, strict=True)]
            wanted = [1 if role is None else space[role] for role in head]
            if [len(cut) for cut in cuts[: len(head)]] == wanted and all(cut.step > 0 for cut in cuts):
                return roles, cuts
        raise self._fail(
            f"does not have {self.lead} leading axes, {self.plan.components} components, and along the spatial axes "
            f"{absent} what {crop} takes to fill an output of {space}"
        )

    def _index(self, trajectory: int, frame: int) -> tuple[int, ...]:
        plan = self.plan
        return (trajectory,) * plan.has_sample_axis + (frame,) * plan.has_time_axis

    @property
    def n_leads(self) -> tuple[int, int]:
        """(trajectories, frames) there are; the largest number where the array has no such axis."""
        sizes = iter(self.array.shape)
        plan = self.plan
        return next(sizes) if plan.has_sample_axis else maxsize, next(sizes) if plan.has_time_axis else maxsize

    def offset(self, trajectory: int, frame: int) -> int:
        """Bytes from the container's beginning to the frame's first needed element."""
        if self.kind == "missing" or self.kind == "boxes":
            return 0
        (trajectories, frames), (per_trajectory, per_frame) = self._lead_sizes, self.lead_bytes
        return self.first + trajectory % trajectories * per_trajectory + frame % frames * per_frame

    def slab(self, trajectory: int, frame: int) -> int:
        """The number of the chunk that boxes count from."""
        (trajectories, frames), (per_trajectory, per_frame) = self._lead_sizes, self._lead_chunks
        return trajectory // trajectories * per_trajectory + frame // frames * per_frame

    def in_chunk(self, trajectory: int, frame: int) -> tuple[int, ...]:
        """Index of the frame in its chunks along sample and time."""
        index = self._index(trajectory, frame)
        return tuple(i % size for i, size in zip(index, self.array.chunk_shape, strict=False))

    def part_of_chunk(self, inner: tuple[int, ...]) -> tuple[int, int]:
        """(bytes from a chunk's beginning to its part of one frame, bytes of that part), decoded; see `in_chunk`."""
        shape, item = self.array.chunk_shape, self.dtype.itemsize
        first = sum(index * step for index, step in zip(inner, row_major(shape), strict=False))
        return item * first, item * prod(shape[self.lead :])

    def in_file(self, trajectory: int, frame: int) -> int:
        """The file offset of the frame's first needed element; MISSING if it does not lie in the file as it is."""
        if self.kind == "contiguous":
            return self.array.offset + self.offset(trajectory, frame)
        if self.kind != "chunk" or not self.array.lies_plain:
            return MISSING
        place = int(self.array.offsets[self.slab(trajectory, frame) + self.boxes[0].number])
        return MISSING if place == MISSING else place + self.offset(trajectory, frame)


def _boxes(cuts: list[range], chunk: tuple[int, ...], grid_steps: tuple[int, ...]) -> tuple[Box, ...]:
    """The chunks that hold the indices `cuts`, and where in them."""
    along = []
    for cut, size, step in zip(cuts, chunk, grid_steps, strict=True):
        cells = []
        for cell in range(cut.start // size, (cut[-1] // size if len(cut) else -1) + 1):
            # Positions of the cut that fall into the cell: first at or behind its beginning, up to its end.
            first = max(0, -((cut.start - cell * size) // cut.step))
            stop = min(len(cut), -((cut.start - (cell + 1) * size) // cut.step))
            if first < stop:
                low = cut[first] - cell * size
                high = cut[stop - 1] - cell * size
                cells.append((cell * step, slice(low, high + 1, cut.step), slice(first, stop)))
        along.append(cells)
    return tuple(
        Box(sum(part[0] for part in parts), tuple(part[1] for part in parts), tuple(part[2] for part in parts))
        for parts in product(*along)
    )


class WindowGeometry:
    """All fields of a shard under one crop, for windows of one shape.

    Attributes:
        fields: in the order of the plan.
        dims: int64, (n0, n1, n2): points of a frame; axes that lie densely in every field are merged.
        strides: int64, axes (field, 4): elements between points along dims, and components of a point.
        is_dense: whether the points along n2 lie side by side in every field.
        offsets, scales: float32, axes (2, channel): of states, and of differences.
        counts: for each field a tuple of zeros, one a component.
        is_float32: whether all fields are stored as little-endian float32.
        has_delta: whether steps behind the input are differences.
        is_sparse: whether less than half of the bytes between a frame's first and last needed element are needed.
        step_bytes: bytes of a step of the output, as float32.
        spans: int64, axis (field): bytes of a frame from its first needed element to the end of its last one.
        end: where the last of the arrays that lie in the file as they are ends in it.
        steps: int64, axes (field, step): bytes of the file from a window's first frame to each of its frames; None
            where that differs from window to window.
        kernel_key: equal for geometries that a kernel need not tell apart.
        run_bytes: bytes of a field that lie side by side, as a mean: a frame's, or the whole window's.
        is_flat: whether frames lie side by side too, so that several can be read as one.
    """

    def __init__(
        self,
        fields: tuple[FieldPlan, ...],
        space: tuple[int, ...],
        n_channels: int,
        n_steps: int,
        stride: int,
        n_input: int,
        crop: Slices,
    ) -> None:
        self.fields = tuple(FieldGeometry(plan, space, crop) for plan in fields)
        taken = [channel for plan in fields for channel in range(plan.first, plan.first + plan.components)]
        if taken != list(range(n_channels)):
            raise ArgumentError(f"fields fill channels {taken}; the output has channels 0 to {n_channels - 1}")
        with_delta = [plan.delta is not None for plan in fields]
        if any(with_delta) != all(with_delta):
            raise ArgumentError("either all fields are planned with differences, or none is")
        self.has_delta = any(with_delta) and n_input < n_steps
        if n_steps < 1 or stride < 1 or (self.has_delta and n_input < 1):
            raise ArgumentError(f"a window of {n_steps} steps, stride {stride}, {n_input} as input, cannot be read")
        self.n_input = n_input if self.has_delta else n_steps
        self.n_steps, self.stride = n_steps, stride
        self.dims, self.strides = _merged(space, [(*f.strides, f.plan.components) for f in self.fields])
        self.is_dense = bool(np.all(self.strides[:, 2] == self.strides[:, 3]))
        self.offsets = _constants(fields, 0)
        self.scales = _constants(fields, 1)
        self.counts = tuple((0,) * plan.components for plan in fields)
        self.is_float32 = all(field.dtype == np.dtype("<f4") for field in self.fields)
        self._in_file = all(f.kind == "contiguous" or (f.kind == "chunk" and f.array.lies_plain) for f in self.fields)
        leads = [field.n_leads for field in self.fields] or [(0, 0)]
        self._n_leads = min(trajectories for trajectories, _ in leads), min(frames for _, frames in leads)
        self.spans = np.array([f.span for f in self.fields], dtype=np.int64)
        spans = int(self.spans.sum())
        self.step_bytes: int = 4 * prod(space) * n_channels
        self.is_sparse = 2 * self.step_bytes < spans
        self.run_bytes = spans // max(1, len(self.fields))
        self.is_flat = False
        self.steps: np.ndarray | None = None
        if all(f.kind == "contiguous" for f in self.fields):
            self._leads = [(f.array.offset + f.first, *f.lead_bytes) for f in self.fields]
            per_frame = np.array([frame for _, _, frame in self._leads], dtype=np.int64)
            self.steps = per_frame[:, None] * (stride * np.arange(n_steps, dtype=np.int64))
            lies_flat = self.is_dense and self.dims[0] == self.dims[1] == 1 and spans * n_steps <= _FLAT_LIMIT
            pitches = [f.dtype.itemsize * int(self.dims[2]) * f.plan.components for f in self.fields]
            if lies_flat and not self.has_delta and np.array_equal(stride * per_frame, pitches):
                self.is_flat = True
                self.run_bytes *= n_steps
        self.end = max((_end(f.array) for f in self.fields), default=0) if self._in_file else 0
        parts = (self.dims, self.strides, self.offsets, self.scales, self.spans)
        steps = None if self.steps is None else self.steps.tobytes()
        self.kernel_key = (*(part.tobytes() for part in parts), self.counts, n_steps, self.n_input, self.is_flat, steps)

    def moved(self, starts: Sequence[int], stops: Sequence[int]) -> WindowGeometry | None:
        """The same for a box of the same size elsewhere: from `starts` up to `stops`, a point for each spatial axis.

        None where it does not fit into the arrays, or their chunks have to be looked up anew.
        """
        if self.steps is None:
            return None
        fields = [field.moved(starts, stops) for field in self.fields]
        found = copy(self)
        found.fields = tuple(field for field in fields if field is not None)
        if len(found.fields) < len(fields):
            return None
        found._leads = [(f.array.offset + f.first, *f.lead_bytes) for f in found.fields]
        return found

    def check(self, trajectory: int, start: int) -> None:
        """Raise ArgumentError unless every field has the window."""
        last = start + (self.n_steps - 1) * self.stride
        if not (0 <= trajectory < self._n_leads[0] and start >= 0 and last < self._n_leads[1]):
            shapes = ", ".join(f"{field.array.name} {field.array.shape}" for field in self.fields)
            raise ArgumentError(
                f"there is no trajectory {trajectory} with frames {start} to {last} in all of the arrays {shapes}"
            )

    def firsts(self, trajectory: int, start: int) -> list[int] | None:
        """Where the window's first frame lies in the file, for each field; `steps` away from there the others.

        None where they do not lie alike: see `in_file`.
        """
        if self.steps is None:
            return None
        return [base + trajectory * per_row + start * per_frame for base, per_row, per_frame in self._leads]

    def in_file(self, trajectory: int, start: int) -> np.ndarray | None:
        """Offsets of the frames' first needed elements in the file, axes (field, step); None if some are elsewhere."""
        if self.steps is not None:
            return np.asarray(self.steps + np.array(self.firsts(trajectory, start))[:, None])
        if not self._in_file:
            return None
        frames = range(start, start + self.n_steps * self.stride, self.stride)
        places = np.array([[f.in_file(trajectory, frame) for frame in frames] for f in self.fields], dtype=np.int64)
        return None if np.any(places == MISSING) else places


def _end(array: ArrayIndex) -> int:
    """The byte of the file behind the last one of an array."""
    if array.layout == "contiguous":
        return array.offset + array.nbytes
    return int((array.offsets + array.sizes).max(initial=0))


def _constants(fields: tuple[FieldPlan, ...], which: int) -> np.ndarray:
    """Offsets (0) or scales (1) of all channels: float32, axes (states | differences, channel)."""
    rows = []
    for pairs in ([(f.offset, f.scale) for f in fields], [f.delta or (f.offset, f.scale) for f in fields]):
        parts = [np.asarray(pair[which], dtype=np.float32).ravel() for pair in pairs]
        for field, part in zip(fields, parts, strict=True):
            if part.size != field.components:
                raise ArgumentError(f"array {field.array.name!r} has {field.components} components, not {part.size}")
        rows.append(np.concatenate(parts) if parts else np.empty(0, np.float32))
    return np.stack(rows)


def _merged(space: tuple[int, ...], strides: list[tuple[int, ...]]) -> tuple[np.ndarray, np.ndarray]:
    """(dims, strides) of a frame with as few axes as possible, padded to three.

    Args:
        space: points along each spatial axis.
        strides: for each field, elements along each spatial axis, then its components.
    """
    axes: list[list[int]] = []  # [size, stride of each field], outermost first
    for axis in reversed(range(len(space))):
        size, steps = space[axis], [field[axis] for field in strides]
        if size == 1:
            continue
        if axes and all(step == axes[0][0] * inner for step, inner in zip(steps, axes[0][1:], strict=True)):
            axes[0][0] *= size
        else:
            axes.insert(0, [size, *steps])
    if not axes:  # a point; as a window's only axis it lies densely
        axes = [[1, *(field[-1] for field in strides)]]
    padded = [[1, *[0] * len(strides)]] * (3 - len(axes)) + axes
    dims = np.array([axis[0] for axis in padded], dtype=np.int64)
    table = [[*(axis[1 + number] for axis in padded), field[-1]] for number, field in enumerate(strides)]
    return dims, np.array(table, dtype=np.int64).reshape(len(strides), 4)
