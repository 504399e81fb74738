"""A shard's fields in blocks of frames, each value once: from plain bytes, from chunks, or through any reader.

Memory is bounded: a block holds as many frames as fit, or the same part of one frame after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Any

import numpy as np

from wellkit.formats.well import FieldLayout, WellLayout
from wellkit.index.model import ArrayIndex
from wellkit.readers.descriptors import Descriptors, OpenFile
from wellkit.readers.indexed import IndexedReader
from wellkit.readers.inflate import decode_chunk
from wellkit.readers.output import load_kernels
from wellkit.readers.protocol import ShardReader
from wellkit.scanning.frames import FrameScan, FrameSeries

BLOCK_VALUES = 1 << 18  # values of a block: with the one before, they fit into a core's second-level cache
FRAME_BUDGET = 64 << 20  # bytes of a block that chunks make larger
_READ_AHEAD = 8 << 20  # bytes asked of the disk before they are needed

_FILES = Descriptors(limit=0)  # nobody comes back to a file that was read to its end


@dataclass(frozen=True)
class FieldWork:
    """Trajectories of one field that are read together, because chunks hold several of them; else one."""

    reader: ShardReader
    layout: WellLayout
    field: FieldLayout
    trajectories: range

    @property
    def n_frames(self) -> int:
        """Frames of a trajectory of the field."""
        return self.layout.n_steps if self.field.time_varying else 1

    @property
    def nbytes(self) -> int:
        """Bytes of it, decoded."""
        share = prod(self.field.shape) * np.dtype(self.field.dtype).itemsize
        return share * len(self.trajectories) // (self.layout.n_trajectories if self.field.sample_varying else 1)

    def scan(
        self,
        *,
        budget: int = FRAME_BUDGET,
        compiled: bool | None = None,
        observe: Callable[[Block], None] | None = None,
    ) -> list[FrameSeries]:
        """Read it all once; what was found of each trajectory.

        Args:
            budget: bytes of a block, where chunks make it larger than it has to be.
            compiled: see `load_kernels`.
            observe: called with every block, which it may not keep.

        Raises:
            DataNotFoundError, ShardError: the shard is gone or damaged; names the file.
        """
        components = self.field.n_components(self.layout.n_spatial_dims)
        n_values = prod(_frame_shape(self))
        scans = [FrameScan(self.n_frames, n_values, components, compiled=compiled) for _ in self.trajectories]
        for piece in read_blocks(self, budget=budget):
            scans[piece.trajectory - self.trajectories.start].add(piece.first, piece.block, piece.start)
            if observe is not None:
                observe(piece)
        return [scan.series for scan in scans]


@dataclass(frozen=True)
class Block:
    """Some frames, or the same part of each, of one trajectory; `block` is used again by the next but one."""

    trajectory: int
    first: int
    start: int
    block: np.ndarray


def field_work(reader: ShardReader, layout: WellLayout) -> list[FieldWork]:
    """Everything there is to read of a shard's fields, in the order of fields and trajectories."""
    found = []
    for part in layout.fields:
        count = layout.n_trajectories if part.sample_varying else 1
        step = 1
        array = _local_array(reader, part)
        if array is not None and array.layout == "chunked" and part.sample_varying:
            step = max(1, array.chunk_shape[0])
        for first in range(0, count, step):
            found.append(FieldWork(reader, layout, part, range(first, min(first + step, count))))
    return found


def read_blocks(work: FieldWork, *, budget: int = FRAME_BUDGET) -> Iterator[Block]:
    """All frames of some trajectories of a field; for each part of the frame, every frame in order."""
    array = _local_array(work.reader, work.field)
    if array is not None and array.layout == "contiguous":
        yield from _plain(work, array)
    elif array is not None and array.layout in ("chunked", "missing"):
        yield from _chunked(work, array, budget)
    else:
        yield from _through_reader(work)


def _local_array(reader: ShardReader, part: FieldLayout) -> ArrayIndex | None:
    """Where the array lies, if that is in a local file of little-endian numbers."""
    if not isinstance(reader, IndexedReader):
        return None
    array = reader.array(part.path)
    return array if np.dtype(array.dtype).isnative else None


def _frame_shape(work: FieldWork) -> tuple[int, ...]:
    lead = sum(axis in ("sample", "time") for axis in work.field.axes)
    return work.field.shape[lead:]


class _Buffers:
    """Two, in turn: a block stays as it is while the next one is read."""

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self._dtype = dtype
        self._kept = [np.empty(0, dtype), np.empty(0, dtype)]

    def take(self, shape: tuple[int, ...]) -> np.ndarray:
        self._kept.reverse()
        size = prod(shape)
        if self._kept[0].size < size:
            self._kept[0] = np.empty(size, self._dtype)
        return self._kept[0][:size].reshape(shape)


def _plain(work: FieldWork, array: ArrayIndex) -> Iterator[Block]:
    dtype = np.dtype(array.dtype)
    n_values, n_frames = prod(_frame_shape(work)), work.n_frames
    components = work.field.n_components(work.layout.n_spatial_dims)
    size = min(n_values, max(1, BLOCK_VALUES // components) * components)
    frames = max(1, BLOCK_VALUES // n_values)
    buffers = _Buffers(dtype)
    with _FILES.use(work.reader.location) as file:
        for trajectory in work.trajectories:
            origin = array.offset + trajectory * n_frames * n_values * dtype.itemsize
            end = origin + n_frames * n_values * dtype.itemsize
            ahead = 0
            for start in range(0, n_values, size):
                part = min(size, n_values - start)
                for first in range(0, n_frames, frames):
                    block = buffers.take((min(frames, n_frames - first), part))
                    offset = origin + (first * n_values + start) * dtype.itemsize
                    if part < n_values:
                        file.bring_in(offset + n_values * dtype.itemsize, block.nbytes)
                    elif offset + _READ_AHEAD // 2 > ahead and not file.is_cached(min(offset + block.nbytes, end - 1)):
                        ahead = offset + _READ_AHEAD
                        file.bring_in(offset, min(_READ_AHEAD, end - offset))
                    file.read_into([block.reshape(-1).view(np.uint8).data], offset)
                    yield Block(trajectory, first, start, block)


def _chunked(work: FieldWork, array: ArrayIndex, budget: int) -> Iterator[Block]:
    """Chunks are decoded once: blocks are as long as chunks, of all trajectories that a chunk holds."""
    shape, chunk = array.shape, array.chunk_shape if array.layout == "chunked" else array.shape
    sample, time = int(work.field.sample_varying), int(work.field.time_varying)
    lead = sample + time
    frame, inner = shape[lead:], chunk[lead:]
    itemsize = np.dtype(array.dtype).itemsize
    group = len(work.trajectories)
    length = chunk[sample] if time and array.layout == "chunked" else 1
    whole = group * length * prod(frame)
    rows = frame[0] if frame else 1
    if frame and whole * itemsize > budget:
        step = inner[0] if array.layout == "chunked" else 1
        rows = min(rows, max(1, budget * rows // (whole * itemsize) // step) * step)
    part = group * rows * prod(frame[1:])
    frames = max(1, BLOCK_VALUES // (part * length)) * length
    buffers = _Buffers(np.dtype(array.dtype))
    with _FILES.use(work.reader.location) as file:
        for row in range(0, frame[0] if frame else 1, rows):
            below = slice(row, min(row + rows, frame[0])) if frame else slice(0, 1)
            for first in range(0, work.n_frames, frames):
                box = [slice(work.trajectories.start, work.trajectories.stop)] * sample
                box += [slice(first, min(first + frames, work.n_frames))] * time
                box += [below, *(slice(0, size) for size in frame[1:])] if frame else []
                out = buffers.take(tuple(side.stop - side.start for side in box))
                _decode(file, array, box, out)
                count = min(frames, work.n_frames - first)
                blocks = out.reshape(group, count, -1)
                for number, trajectory in enumerate(work.trajectories):
                    yield Block(trajectory, first, row * prod(frame[1:]), blocks[number])


def _decode(file: OpenFile, array: ArrayIndex, box: Sequence[slice], out: np.ndarray) -> None:
    """Fill `out` with a box of the array."""
    dtype = np.dtype(array.dtype)
    if array.layout == "missing":
        out[...] = np.frombuffer(array.fill, dtype)[0]
        return
    kernels = load_kernels(None)
    grid = [range(side.start // size, -(-side.stop // size)) for side, size in zip(box, array.chunk_shape, strict=True)]
    for position in product(*grid):
        raw = decode_chunk(file, array, array.chunk_number(position), kernels, _fresh)
        values = raw.view(dtype).reshape(array.chunk_shape)
        source, target = [], []
        for place, size, side in zip(position, array.chunk_shape, box, strict=True):
            low, high = max(side.start, place * size), min(side.stop, (place + 1) * size)
            source.append(slice(low - place * size, high - place * size))
            target.append(slice(low - side.start, high - side.start))
        out[tuple(target)] = values[tuple(source)]


def _fresh(size: int) -> np.ndarray:
    return np.empty(size, np.uint8)


def _through_reader(work: FieldWork) -> Iterator[Block]:
    """Slabs along the first spatial axis that the field varies along."""
    part, layout = work.field, work.layout
    shape = _frame_shape(work)
    n_values = prod(shape)
    axis = next((number for number, varies in enumerate(part.dim_varying) if varies), None)
    length = layout.resolution[axis] if axis is not None else 1
    rows = length if n_values <= BLOCK_VALUES else max(1, BLOCK_VALUES * length // n_values)
    frames = max(1, BLOCK_VALUES * length // (n_values * rows))
    for trajectory in work.trajectories:
        for row in range(0, length, rows):
            crop = [slice(0, size) for size in layout.resolution]
            if axis is not None:
                crop[axis] = slice(row, min(row + rows, length))
            for first in range(0, work.n_frames, frames):
                count = min(frames, work.n_frames - first)
                raw = work.reader.read(part.path, part.selection(trajectory, slice(first, first + count), tuple(crop)))
                yield Block(trajectory, first, row * (n_values // length), np.ascontiguousarray(raw).reshape(count, -1))
