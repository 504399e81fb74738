"""Windows whose frames lie in one chunk each: a batch is planned as arrays, then read by one call of a kernel.

What takes another way (`wellkit.readers.chunked`): frames spread over chunks, elements other than float32, unusual
filters, and whatever could not be read here, so that the error says why.
"""

from __future__ import annotations

import importlib
import threading
from collections.abc import Hashable, Sequence
from contextlib import ExitStack
from functools import lru_cache
from heapq import heappop, heappush
from typing import Any, NamedTuple, TypeVar

import numpy as np

from wellkit.index.model import MISSING, Codec
from wellkit.readers.chunked import ChunkedWindow
from wellkit.readers.descriptors import CAN_BRING_IN, Descriptors, OpenFile
from wellkit.readers.geometry import FieldGeometry
from wellkit.readers.inflate import libdeflate
from wellkit.readers.workers import share

_LINE = 64  # bytes of a cache line
_FILES_AT_ONCE = 64
_LARGEST = 1 << 28  # bytes of memory that a thread takes at most
_KEPT = 1 << 24  # bytes of a thread's memory that it keeps
_WORTH_STREAMING = 1 << 19  # bytes of output, above which whoever reads them will not find them in a cache anyway
_Size = TypeVar("_Size", int, np.ndarray)
_PLACE_BITS = 48  # of a chunk's number, or an offset; files are smaller
_SOURCES = 1 << (62 - _PLACE_BITS)
_BROUGHT_IN = 1 << 28  # bytes: larger batches are read ahead of well enough by the operating system


class _Memory(threading.local):
    """A thread's memory, and its decompressor."""

    def __init__(self) -> None:
        self._kept = np.empty(0, np.uint8)
        self._state: _Decompressor | None = None

    def take(self, size: int) -> np.ndarray:
        """At least `size` bytes, from the beginning of a cache line on."""
        whole = self._kept
        if whole.size < size + _LINE:
            whole = np.empty(size + _LINE, np.uint8)
            if whole.size <= _KEPT:
                self._kept = whole
        return whole[-whole.ctypes.data % _LINE :]

    def decompressor(self) -> int:
        """Address of what libdeflate works with, which no two threads may use at a time."""
        if self._state is None:
            self._state = _Decompressor()
        return self._state.address


class _Decompressor:
    def __init__(self) -> None:
        library = libdeflate()
        assert library is not None
        self._free = library.free
        self.address = library.allocate() or 0
        if not self.address:
            raise MemoryError("no memory for a decompressor")

    def __del__(self) -> None:
        if self.address:
            self._free(self.address)


_MEMORY = _Memory()


@lru_cache(maxsize=64)
def _bits(codecs: tuple[Codec, ...]) -> tuple[int, ...] | None:
    """Each codec as the kernel names it; None where it does not know them, or not in this order."""
    names = {"shuffle": 1, "deflate": 2, "fletcher32": 4}
    bits = tuple(names[codec.name] for codec in codecs)
    known = all(codec.name != "shuffle" or codec.element_size == 4 for codec in codecs)
    return bits if known and list(bits) == sorted(set(bits)) else None


def _suits(window: ChunkedWindow) -> bool:
    return (
        window.geometry.is_float32
        and window.head.dtype == np.float32
        and all(
            field.kind == "contiguous"
            or (field.kind == "chunk" and field.array.files is None and _bits(field.array.codecs))
            for field in window.geometry.fields
        )
    )


class _Places(NamedTuple):
    """Where the frames of some windows lie: int64, axes (window, step, field)."""

    source: np.ndarray  # file and array
    place: np.ndarray  # which piece of the source: a chunk's number, or an offset
    file: np.ndarray
    offset: np.ndarray  # in the file, of the piece
    stored: np.ndarray  # bytes of the piece
    decoded: np.ndarray  # bytes of the piece
    codecs: np.ndarray
    value: np.ndarray  # bits of the fill value
    inner: np.ndarray  # bytes from the piece's beginning to the frame's first needed element


def _places(field: FieldGeometry, trajectories: Any, frames: Any, fill: int) -> tuple[np.ndarray | int, ...]:
    """From `place` on, without `file`: axes (window, step), or the same for all."""
    array = field.array
    inner = field.offset(trajectories, frames)
    if field.kind == "contiguous":
        offset = array.offset + inner
        return offset, offset, field.span, field.span, 0, 0, 0
    number = np.asarray(field.slab(trajectories, frames) + field.boxes[0].number)
    offset = array.offsets[number]
    bits = _bits(array.codecs) or ()
    codecs = np.full(number.shape, sum(bits))
    if array.filter_masks is not None:
        masks = array.filter_masks[number].astype(np.int64)
        for position, bit in enumerate(bits):
            codecs -= (masks >> position & 1) * bit
    codecs[offset == MISSING] = fill
    return number, offset, array.sizes[number], array.chunk_nbytes, codecs, int.from_bytes(array.fill, "little"), inner


def read_decoded(windows: Sequence[ChunkedWindow], files: Descriptors, threads: int) -> list[ChunkedWindow]:
    """Read windows; returns those that have to be read another way.

    Args:
        threads: at most so many share the work, this one among them.

    Raises:
        DataNotFoundError, ShardError: a file is gone, or cannot be opened; names it.
    """
    if libdeflate() is None:
        return list(windows)
    left: list[ChunkedWindow] = []
    alike: dict[Hashable, list[ChunkedWindow]] = {}
    for window in windows:
        if _suits(window):
            alike.setdefault((window.geometry.kernel_key, len(window.head)), []).append(window)
        else:
            left.append(window)
    for group in alike.values():
        by_path: dict[str, list[ChunkedWindow]] = {}
        for window in group:
            by_path.setdefault(window.request.path, []).append(window)
        paths = list(by_path)
        for first in range(0, len(paths), _FILES_AT_ONCE):
            chosen = paths[first : first + _FILES_AT_ONCE]
            some = [window for path in chosen for window in by_path[path]]
            with ExitStack() as stack:
                opened = [stack.enter_context(files.use(path)) for path in chosen]
                if not _Batch(some, chosen, opened).read(threads):
                    left += some
    return left


class _Batch:
    """Windows that one call of the kernel reads."""

    def __init__(self, windows: Sequence[ChunkedWindow], paths: Sequence[str], files: Sequence[OpenFile]) -> None:
        self._windows, self._files = windows, files
        self._kernels = importlib.import_module("wellkit.readers.chunk_kernels")
        self._geometry = windows[0].geometry
        self._places = self._locate({path: number for number, path in enumerate(paths)})

    def _locate(self, numbers: dict[str, int]) -> _Places:
        g = self._geometry
        table = np.empty((len(_Places._fields), len(self._windows), g.n_steps, len(g.fields)), np.int64)
        sources: dict[tuple[int, int], int] = {}
        same: dict[tuple[int, int], list[int]] = {}
        for number, window in enumerate(self._windows):
            same.setdefault((numbers[window.request.path], id(window.geometry)), []).append(number)
        steps = np.arange(g.n_steps, dtype=np.int64)
        for (file, _), chosen in same.items():
            requests = [self._windows[number].request for number in chosen]
            trajectories = np.array([request.trajectory for request in requests], np.int64)[:, None]
            starts = np.array([request.start for request in requests], np.int64)[:, None]
            frames = starts + steps * requests[0].stride
            for position, field in enumerate(self._windows[chosen[0]].geometry.fields):
                source = sources.setdefault((file, id(field.array)), len(sources))
                place, *rest = _places(field, trajectories, frames, self._kernels.FILL)
                for column, values in enumerate((source, place, file, *rest)):
                    table[column, chosen, :, position] = values
        return _Places(*table)

    def read(self, threads: int) -> bool:
        """Read them; False if not all could be, or if more threads are of use than there is independent work for."""
        kernels, places, g = self._kernels, self._places, self._geometry
        if not self._is_sound():
            return False
        plan = _plan(places, g.n_input)
        pieces = plan.pieces
        if len(plan.tasks) <= min(threads, len(pieces)) or plan.slots > _LARGEST:
            return False
        self._bring_in(pieces)
        threads = min(threads, len(plan.tasks) - 1)
        streams = 4 * sum(window.head.size + window.tail.size for window in self._windows) >= _WORTH_STREAMING
        descriptors = np.array([file.descriptor for file in self._files], np.int32)
        heads = np.array([window.head.ctypes.data for window in self._windows], np.int64)
        tails = np.array([window.tail.ctypes.data for window in self._windows], np.int64)
        is_shuffled = (pieces[:, kernels.CODECS] & kernels.SHUFFLED) > 0
        stored = _lines(int(pieces[:, kernels.STORED].max(initial=0)))
        inflated = _lines(int(pieces[is_shuffled, kernels.DECODED].max(initial=0)))
        library = libdeflate()
        assert library is not None
        progress = np.zeros(2, np.int64)

        def work(_: int) -> None:
            memory = _MEMORY.take(stored + inflated + plan.slots)
            at = memory.ctypes.data
            kernels.read_pieces(
                progress.ctypes.data, plan.tasks, plan.units, plan.frames, pieces, descriptors, heads, tails,
                len(self._windows[0].head), g.dims, g.strides, g.offsets, g.scales, g.n_input, g.is_dense, streams,
                g.counts, at, at + stored, at + stored + inflated, library.inflate, _MEMORY.decompressor(),
            )  # fmt: skip

        share(range(threads), work, threads)
        return not progress[1]

    def _is_sound(self) -> bool:
        """Whether pieces lie in their files: memory is taken for as many bytes as the index says."""
        places = self._places
        sizes = np.array([file.size() for file in self._files], np.int64)[places.file]
        is_there = places.codecs != self._kernels.FILL
        fits = (places.stored >= 0) & (places.offset >= 0) & (places.stored <= sizes - places.offset)
        fits &= (places.place >= 0) & (places.place < 1 << _PLACE_BITS) & (places.source < _SOURCES)
        return bool(np.all(fits | ~is_there)) and int(places.decoded.max(initial=0)) <= _LARGEST

    def _bring_in(self, pieces: np.ndarray) -> None:
        """Have what is not in memory read there now, all of it at once, while the first pieces are waited for."""
        kernels = self._kernels
        if not CAN_BRING_IN or int(pieces[:, kernels.STORED].sum()) > _BROUGHT_IN:
            return
        there = pieces[pieces[:, kernels.CODECS] != kernels.FILL]
        for number, file in enumerate(self._files):
            own = there[there[:, kernels.FILE] == number]
            places = own[:, (kernels.OFFSET, kernels.STORED)].tolist()
            if places and not (file.is_cached(places[0][0]) and file.is_cached(places[-1][0])):
                for offset, size in places:
                    file.bring_in(offset, size)


class _Plan(NamedTuple):
    """What the kernel does in which order; see `chunk_kernels.read_pieces`."""

    tasks: np.ndarray
    units: np.ndarray
    frames: np.ndarray
    pieces: np.ndarray
    slots: int  # bytes of all slots


def _plan(places: _Places, n_input: int) -> _Plan:
    """Steps in the order in which they lie in the files, in groups that share no piece; each piece read once."""
    n_windows, n_steps, n_fields = places.place.shape
    n_units = n_windows * n_steps
    _, firsts, numbers = np.unique(places.source << _PLACE_BITS | places.place, return_index=True, return_inverse=True)
    piece = numbers.reshape(n_units, n_fields)
    # Neighbours after each other: by the field whose pieces hold the most frames, then the next.
    by_spread = sorted(range(n_fields), key=lambda field: -len(np.unique(piece[:, field])))
    order = np.lexsort([places.inner.reshape(n_units, n_fields)[:, 0], *(piece[:, field] for field in by_spread)])
    step = order % n_steps
    is_delta = step >= n_input
    # Of each step, in order: the unit's own pieces, and those of the step before where it is a difference to that.
    own = piece[order]
    before = np.where(is_delta[:, None], piece[order - is_delta], own)
    position = np.arange(n_units)
    used = np.concatenate([own, before], axis=1)
    begin, end = np.full(len(firsts), n_units), np.full(len(firsts), -1)
    np.minimum.at(begin, used, position[:, None])
    np.maximum.at(end, used, position[:, None])
    # Where no piece is needed on both sides another group begins.
    spanned = np.zeros(n_units + 1, np.int64)
    np.add.at(spanned, begin + 1, 1)
    np.subtract.at(spanned, end + 1, 1)
    tasks = np.append(np.flatnonzero(np.cumsum(spanned)[:n_units] == 0), n_units)
    ranked = np.argsort(begin, kind="stable")
    chosen = firsts[ranked]
    slots, room = _slots(begin[ranked].tolist(), end[ranked].tolist(), _lines(places.decoded.ravel()[chosen]).tolist())
    columns = (places.file, places.offset, places.stored, places.decoded, places.codecs)
    pieces = np.stack([*(column.ravel()[chosen] for column in columns), slots, places.value.ravel()[chosen]], axis=1)
    rank = np.empty_like(ranked)
    rank[ranked] = np.arange(len(ranked))
    inner = places.inner.reshape(n_units, n_fields)
    frames = np.stack([slots[rank[before]] + inner[order - is_delta], slots[rank[own]] + inner[order]], axis=2)
    units = np.zeros((n_units + 1, 3), np.int64)
    units[:-1, 0], units[:-1, 1] = order // n_steps, step
    units[:, 2] = np.searchsorted(begin[ranked], np.arange(n_units + 1))
    return _Plan(tasks, units, frames, pieces, room)


def _slots(begin: Sequence[int], end: Sequence[int], sizes: Sequence[int]) -> tuple[np.ndarray, int]:
    """Where each piece is kept from its first use to its last, in the order of first use; and bytes of all."""
    slots: list[int] = []
    free: dict[int, list[int]] = {}
    held: list[tuple[int, int, int]] = []
    room = 0
    for first, last, size in zip(begin, end, sizes, strict=True):
        while held and held[0][0] < first:
            _, place, idle = heappop(held)
            free.setdefault(idle, []).append(place)
        if free.get(size):
            place = free[size].pop()
        else:
            place, room = room, room + size
        slots.append(place)
        heappush(held, (last, place, size))
    return np.array(slots, np.int64), room


def _lines(size: _Size) -> _Size:
    """Rounded up to whole cache lines."""
    return -(-size // _LINE) * _LINE
