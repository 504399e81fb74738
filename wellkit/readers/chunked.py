"""Windows that are put together from chunks and ranges: each brought to memory once a batch, gathered step by step."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from types import ModuleType

import numpy as np

from wellkit.index.model import MISSING
from wellkit.readers.geometry import FieldGeometry, WindowGeometry
from wellkit.readers.pieces import Piece, Pieces
from wellkit.readers.plan import WindowRequest
from wellkit.readers.stored import StoredFiles
from wellkit.readers.workers import share


class ChunkedWindow:
    """One window that is put together from pieces.

    Args:
        head, tail: axes (step, space..., channel), C-contiguous: the first steps go to `head`, the others to `tail`.
    """

    def __init__(self, request: WindowRequest, geometry: WindowGeometry, head: np.ndarray, tail: np.ndarray) -> None:
        self.request, self.geometry, self.head, self.tail = request, geometry, head, tail

    def step(self, number: int) -> np.ndarray:
        """Where one step goes: (space..., channel)."""
        split = len(self.head)
        target: np.ndarray = self.head[number] if number < split else self.tail[number - split]
        return target


class Frame:
    """One field of one frame: the pieces it takes and where in them it lies.

    Attributes:
        field: the field.
        pieces: a range of the file, where the frame lies in it as it is; else what it takes of each of `field.boxes`,
            a whole chunk, or of one that is stored as it is the frame's part, a range.
    """

    def __init__(self, pieces: Pieces, path: str, field: FieldGeometry, trajectory: int, frame: int) -> None:
        self.field = field
        self._inner: tuple[int, ...] = ()
        self._offset = field.offset(trajectory, frame)
        self.pieces: list[Piece] = []
        place = field.in_file(trajectory, frame)
        if place != MISSING:
            self.pieces = [pieces.plan_range(path, field, place, field.span)]
            self._offset = 0
        elif field.boxes:
            slab, array = field.slab(trajectory, frame), field.array
            if field.kind == "boxes":
                self._inner = field.in_chunk(trajectory, frame)
            for box in field.boxes:
                number = slab + box.number
                if not array.lies_plain or array.offsets[number] == MISSING:
                    self.pieces.append(pieces.plan_chunk(path, field, number))
                else:
                    first, nbytes = field.part_of_chunk(self._inner)
                    self.pieces.append(pieces.plan_range(path, field, int(array.offsets[number]) + first, nbytes))

    def place(self) -> tuple[np.ndarray, int]:
        """(memory, uint8, and the byte in it where the first needed element lies). The pieces must be there."""
        field = self.field
        if field.kind == "inline":
            return np.frombuffer(field.array.inline or b"", np.uint8), self._offset
        if field.kind == "missing":
            return np.frombuffer(field.array.fill * field.plan.components, np.uint8), 0
        buffers = [piece.buffer for piece in self.pieces]
        if field.kind != "boxes":
            assert buffers[0] is not None
            return buffers[0], self._offset
        dense = np.empty(field.dense_shape, field.dtype)
        for box, piece in zip(field.boxes, self.pieces, strict=True):
            assert piece.buffer is not None
            values = piece.buffer.view(field.dtype)
            if piece.is_chunk:
                values = values.reshape(field.array.chunk_shape)[self._inner]
            dense[box.target] = values.reshape(field.array.chunk_shape[field.lead :])[box.source]
        return dense.reshape(-1).view(np.uint8), 0


class Unit:
    """One step of one window: the smallest work that threads share.

    Attributes:
        frames: of the step before, where it is a difference, and of the step itself; in each the fields.
        pieces: what they are made of; one that is needed twice stands there twice.
    """

    def __init__(self, job: ChunkedWindow, step: int, pieces: Pieces) -> None:
        self.job, self.step = job, step
        request, geometry = job.request, job.geometry
        self.is_delta = step >= geometry.n_input
        self.frames = [
            [
                Frame(pieces, request.path, field, request.trajectory, request.start + number * request.stride)
                for field in geometry.fields
            ]
            for number in ([step - 1, step] if self.is_delta else [step])
        ]
        self.pieces = [piece for frames in self.frames for frame in frames for piece in frame.pieces]


def plan_units(jobs: Sequence[ChunkedWindow], pieces: Pieces) -> list[Unit]:
    """All steps of all windows, neighbours after each other; what they need is noted in `pieces`."""
    order = sorted(
        ((job.request.path, job.request.trajectory, job.request.start + step * job.request.stride, number, step))
        for number, job in enumerate(jobs)
        for step in range(job.geometry.n_steps)
    )
    return [Unit(jobs[number], step, pieces) for *_, number, step in order]


def read_unit(unit: Unit, pieces: Pieces, kernels: ModuleType) -> None:
    """Fill one step. Raises as `Pieces.obtain`."""
    if pieces.obtain(unit.pieces):  # else it failed in another thread, which tells
        _gather(unit, kernels)
        pieces.release(unit.pieces)


def read_chunked(jobs: Sequence[ChunkedWindow], files: StoredFiles, kernels: ModuleType, threads: int) -> None:
    """Read windows, a step at a time; neighbours follow each other.

    Raises:
        DataNotFoundError, ShardError: a shard is gone, or a piece of it cannot be read; names the file.
    """
    pieces = Pieces(files, kernels)
    units = plan_units(jobs, pieces)
    share(units, lambda unit: read_unit(unit, pieces, kernels), min(threads, len(units)))


def _gather(unit: Unit, kernels: ModuleType) -> None:
    geometry, out = unit.job.geometry, unit.job.step(unit.step)
    placed = [[frame.place() for frame in frames] for frames in unit.frames]
    if geometry.is_float32 and out.dtype == np.float32 and hasattr(kernels, "gather_steps"):
        places = np.array([[buffer.ctypes.data + at for buffer, at in row] for row in placed], dtype=np.int64).T
        at = out.ctypes.data
        kernels.gather_steps(
            at, at, unit.step, np.ascontiguousarray(places), unit.step, len(placed) - 1, geometry.dims,
            geometry.strides, geometry.offsets, geometry.scales, geometry.n_input, geometry.is_dense, False,
            geometry.counts,
        )  # fmt: skip
        return
    reference = importlib.import_module("wellkit.readers.numpy_kernels")
    for number, field in enumerate(geometry.fields):
        shape = (*out.shape[:-1], field.plan.components)
        strides = tuple(field.dtype.itemsize * step for step in (*field.strides, 1))
        views = [np.ndarray(shape, field.dtype, row[number][0].data, row[number][1], strides) for row in placed]
        values = reference.difference(views[1], views[0]) if unit.is_delta else views[0]
        channels = slice(field.plan.first, field.plan.first + field.plan.components)
        kind = int(unit.is_delta)
        target = out[..., channels]
        reference.normalize_into(values, geometry.offsets[kind, channels], geometry.scales[kind, channels], target)
