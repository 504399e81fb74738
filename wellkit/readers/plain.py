"""Windows that lie in the file as they are: mapped, or read in pieces that stay in the processor's cache."""

from __future__ import annotations

import mmap
import sys
import threading
from collections.abc import Hashable, Sequence
from concurrent.futures import wait
from functools import lru_cache
from types import ModuleType
from typing import Literal, NamedTuple

import numpy as np

from wellkit.errors import ShardError
from wellkit.readers.descriptors import CAN_BRING_IN, Descriptors, OpenFile
from wellkit.readers.geometry import WindowGeometry
from wellkit.readers.output import WORTH_STREAMING
from wellkit.readers.plan import WindowRequest
from wellkit.readers.workers import POOL, is_alone, share

Source = Literal["auto", "mmap", "pread"]

_TILE = 1 << 19  # bytes: with what it becomes, a tile fits into a core's second-level cache
_WORTH_MAPPING = 1 << 18  # bytes side by side, below which copying them costs less than a map
_SHARE = 1 << 19  # bytes of output for each thread, below which another one is of no use
_AT_ONCE = 64  # windows, each of which may hold a file of its own open
_SHORT_RUN = 1 << 17  # bytes of a frame below which neighbouring frames are read as one
_MOST_AT_ONCE = 1 << 28  # bytes: larger batches are read ahead of well enough by the operating system
_PATIENCE = 20_000  # looks, each some 20 ns
_POPULATE_READ = 22  # MADV_POPULATE_READ, since Linux 5.14


class _Tile(threading.local):
    """A thread's memory for tiles."""

    def __init__(self) -> None:
        self.buffer = np.empty(_TILE, np.uint8)
        self.address = self.buffer.ctypes.data


_TILES = _Tile()


@lru_cache(maxsize=1)
def _can_populate() -> bool:
    with mmap.mmap(-1, mmap.PAGESIZE) as page:
        try:
            page.madvise(_POPULATE_READ)
        except OSError:
            return False
    return True


class PlainWindow(NamedTuple):
    """A window whose bytes lie in the file as they are, and where it goes.

    Attributes:
        number: the caller's.
        firsts: for each field, the offset in the file of the first frame's first needed element.
        steps: int64, axes (field, step): from there to that of each frame.
        head, tail, split: addresses of the steps before step `split`, and of those from it on.
    """

    number: int
    request: WindowRequest
    geometry: WindowGeometry
    firsts: Sequence[int]
    steps: np.ndarray
    head: int
    tail: int
    split: int


def read_plain(
    windows: Sequence[PlainWindow], files: Descriptors, kernels: ModuleType, source: Source, threads: int
) -> list[PlainWindow]:
    """Read windows; returns those that the storage failed for.

    Args:
        kernels: `wellkit.readers.kernels`.
        threads: at most so many share the work, this one among them.

    Raises:
        DataNotFoundError, ShardError: a file is gone, or ends before a window of it does; names it.
    """
    failed: list[PlainWindow] = []
    for first in range(0, len(windows), _AT_ONCE):
        _read_some(windows[first : first + _AT_ONCE], files, kernels, source, threads, failed)
    return failed


def _read_some(
    windows: Sequence[PlainWindow],
    files: Descriptors,
    kernels: ModuleType,
    source: Source,
    threads: int,
    failed: list[PlainWindow],
) -> None:
    groups = [windows]
    if any(window.geometry is not windows[0].geometry for window in windows):
        alike: dict[Hashable, list[PlainWindow]] = {}
        for window in windows:
            alike.setdefault(window.geometry.kernel_key, []).append(window)
        groups = list(alike.values())
    opened: dict[str, OpenFile] = {}
    try:
        for window in windows:
            if window.request.path not in opened:
                opened[window.request.path] = files.hold(window.request.path)
        for group in groups:
            _Group(group, [opened[window.request.path] for window in group]).read(kernels, source, threads, failed)
    finally:
        for path, file in opened.items():
            files.let_go(path, file)


class _Group:
    """Windows that one call of a kernel reads."""

    def __init__(self, windows: Sequence[PlainWindow], files: Sequence[OpenFile]) -> None:
        self._windows, self._files = windows, files
        self._geometry = windows[0].geometry
        firsts = np.array([window.firsts for window in windows], dtype=np.int64)[:, :, np.newaxis]
        if self._geometry.steps is not None:
            self._frames = firsts + self._geometry.steps
        else:
            self._frames = firsts + np.stack([window.steps for window in windows])
        for number, (window, file) in enumerate(zip(windows, files, strict=True)):
            size = file.size()
            if size < window.geometry.end and int((self._frames[number] + window.geometry.spans[:, None]).max()) > size:
                raise ShardError(
                    f"{window.request.path}: has {size} bytes, but trajectory {window.request.trajectory}, frames from "
                    f"{window.request.start} on lie beyond; it is truncated or changed since it was indexed: download "
                    "it again, or index it again"
                )

    def read(self, kernels: ModuleType, source: Source, threads: int, failed: list[PlainWindow]) -> None:
        """Read them; what the storage fails for is added to `failed`."""
        geometry, windows = self._geometry, self._windows
        n_bytes = len(windows) * geometry.n_steps * geometry.step_bytes
        if CAN_BRING_IN and not geometry.is_sparse and n_bytes <= _MOST_AT_ONCE:
            self._bring_in()
        threads = max(1, min(threads, n_bytes // _SHARE))
        streams = n_bytes >= WORTH_STREAMING
        if all(_maps(file, geometry, source, threads) for file in self._files):
            left = self._map(kernels, streams, threads)
            if not left:
                return
            if len(left) < len(windows):
                keep = set(map(id, left))
                chosen = [number for number, window in enumerate(windows) if id(window) in keep]
                self._windows, self._frames = left, self._frames[chosen]
                self._files = [self._files[number] for number in chosen]
        statuses = np.zeros(len(self._windows), np.uint8)
        split = self._windows[0].split
        heads = np.array([window.head for window in self._windows], dtype=np.int64)
        tails = np.array([window.tail for window in self._windows], dtype=np.int64)
        if geometry.is_flat and max(geometry.spans, default=0) < _SHORT_RUN:
            for addresses, first, last in ((heads, 0, split), (tails, split, geometry.n_steps)):
                if first < last:
                    dims = geometry.dims * (1, 1, last - first)
                    frames = np.ascontiguousarray(self._frames[:, :, first : first + 1])
                    self._tiles(kernels, threads, streams, statuses, addresses, addresses, 1, frames, dims, 1)
        else:
            self._tiles(
                kernels, threads, streams, statuses, heads, tails, split, self._frames, geometry.dims, geometry.n_input
            )
        failed += [window for window, status in zip(self._windows, statuses, strict=True) if status != kernels.DONE]

    def _bring_in(self) -> None:
        """Have what is not in memory read there now, all of it at once, while the first tiles are waited for."""
        spans = self._geometry.spans
        last = int(spans[-1]) - 1
        for file, frames in zip(self._files, self._frames, strict=True):
            if file.is_cached(int(frames[0, 0])) and file.is_cached(int(frames[-1, -1]) + last):
                continue
            for places, span in zip(frames, spans.tolist(), strict=True):
                begin = end = int(places[0])
                for place in places.tolist():
                    if place != end:
                        file.bring_in(begin, end - begin)
                        begin = place
                    end = place + span
                file.bring_in(begin, end - begin)

    def _map(self, kernels: ModuleType, streams: bool, threads: int) -> list[PlainWindow]:
        """Read through maps; returns what cannot be mapped."""
        g = self._geometry
        left: list[PlainWindow] = []

        def read(number: int) -> None:
            window = self._windows[number]
            status = kernels.read_mapped(
                window.head, window.tail, window.split, self._frames[number], g.dims, g.strides, g.offsets, g.scales,
                g.n_input, g.is_dense, streams, g.counts, self._files[number].descriptor, _can_populate(),
            )  # fmt: skip
            if status != kernels.DONE:
                left.append(window)

        share(range(len(self._windows)), read, threads)
        return left

    def _tiles(
        self,
        kernels: ModuleType,
        threads: int,
        streams: bool,
        statuses: np.ndarray,
        heads: np.ndarray,
        tails: np.ndarray,
        split: int,
        frames: np.ndarray,
        dims: np.ndarray,
        n_input: int,
    ) -> None:
        """Read in tiles, which the threads share."""
        g = self._geometry
        descriptors = np.array([file.descriptor for file in self._files], dtype=np.int32)
        progress = np.zeros(2, np.int64)

        def read(patience: int = 0) -> None:
            complete = kernels.read_tiles(
                progress.ctypes.data, patience, heads, tails, split, frames, descriptors, statuses, dims, g.strides,
                g.offsets, g.scales, n_input, g.is_dense, streams, g.counts, _TILES.address, _TILE,
            )  # fmt: skip
            if patience and not complete:
                wait(helpers)

        # Whoever begins when all tiles are taken touches nothing but `progress`, which lives as long as `read`.
        helpers = POOL.submit(read, threads - 1) if threads > 1 else []
        read(_PATIENCE)


def _maps(file: OpenFile, geometry: WindowGeometry, source: Source, threads: int) -> bool:
    """Whether to map a file. A process makes and undoes maps one at a time: threads would wait for each other."""
    if source == "pread" or sys.platform != "linux" or geometry.is_sparse:
        return False
    if source == "mmap":
        return True
    return threads == 1 and is_alone() and file.is_local and geometry.run_bytes >= _WORTH_MAPPING
