"""Windows that lie in the file as they are: mapped, or read in pieces that stay in the processor's cache."""

from __future__ import annotations

import mmap
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from itertools import pairwise
from types import ModuleType
from typing import Literal, NamedTuple

import numpy as np

from wellkit.errors import ShardError
from wellkit.readers.descriptors import Descriptors, OpenFile
from wellkit.readers.geometry import WindowGeometry
from wellkit.readers.plan import WindowRequest

Source = Literal["auto", "mmap", "pread"]

_TILE = 1 << 19  # bytes: with what it becomes, a tile fits into a core's second-level cache
_WORTH_MAPPING = 1 << 18  # bytes side by side, below which copying them costs less than a map
# Bytes of output for each thread, below which another one is of no use: a kernel starts it on the core that it was
# called from, and takes milliseconds to move it.
SHARE = 1 << 23
_POPULATE_READ = 22  # MADV_POPULATE_READ, since Linux 5.14


class _Tile(threading.local):
    """A thread's memory for tiles."""

    def __init__(self) -> None:
        self.buffer = np.empty(_TILE, np.uint8)
        self.address = self.buffer.ctypes.data


_TILES = _Tile()
_MAPPING_THREADS = 2  # a process makes and undoes maps one at a time: more threads would wait for each other
# Threads of this process that are reading.
_READING: set[int] = set()
os.register_at_fork(after_in_child=_READING.clear)


@contextmanager
def reading() -> Iterator[None]:
    """Be counted among the threads that read."""
    thread = threading.get_ident()
    _READING.add(thread)
    try:
        yield
    finally:
        _READING.discard(thread)


@lru_cache(maxsize=1)
def _can_populate() -> bool:
    with mmap.mmap(-1, mmap.PAGESIZE) as page:
        try:
            page.madvise(_POPULATE_READ)
        except OSError:
            return False
    return True


class PlainPart(NamedTuple):
    """Some steps of a window: `places` int64, axes (field, step), offsets in the file; `address` of the output."""

    request: WindowRequest
    geometry: WindowGeometry
    places: np.ndarray
    address: int

    @property
    def n_bytes(self) -> int:
        """Bytes of the output."""
        return int(self.places.shape[1]) * self.geometry.step_bytes

    def split(self, count: int) -> list[PlainPart]:
        """In at most `count` parts of about the same size; whole, where steps need the one before or are small."""
        n_steps, step = self.places.shape[1], self.geometry.step_bytes
        count = min(count, n_steps, self.n_bytes // SHARE)
        if count < 2 or self.geometry.has_delta:
            return [self]
        ends = [n_steps * number // count for number in range(count + 1)]
        return [
            self._replace(places=self.places[:, first:last], address=self.address + first * step)
            for first, last in pairwise(ends)
        ]


def plain_part(request: WindowRequest, geometry: WindowGeometry, window: np.ndarray) -> PlainPart | None:
    """A window, if its bytes lie in the file as they are and `window`, contiguous, is to hold float32."""
    if not geometry.is_float32 or window.dtype != np.float32:
        return None
    places = geometry.in_file(request.trajectory, request.start)
    return None if places is None else PlainPart(request, geometry, places, window.ctypes.data)


def read_part(part: PlainPart, files: Descriptors, kernels: ModuleType, source: Source, threads: int) -> bool:
    """Read it; False if the storage failed.

    Args:
        kernels: `wellkit.readers.kernels`.
        threads: how many share the batch.

    Raises:
        DataNotFoundError, ShardError: the file is gone, or ends before the window does; names it.
    """
    request, geometry, places, address = part
    dims = geometry.dims
    if geometry.is_flat:
        dims, places = dims * (1, 1, places.shape[1]), places[:, :1]
    with files.use(request.path) as file:
        size = file.size()
        arguments = (
            address, places, dims, geometry.strides, geometry.offsets, geometry.scales,
            geometry.n_input, geometry.is_dense, geometry.counts, file.descriptor, size,
        )  # fmt: skip
        status = kernels.NOT_MAPPED
        if _maps(file, geometry, source, max(threads, len(_READING))):
            status = kernels.read_mapped(*arguments, _can_populate())
        if status == kernels.NOT_MAPPED:
            status = kernels.read_tiled(*arguments, _TILES.address, _TILE)
        if status == kernels.BEYOND_END:
            raise ShardError(
                f"{request.path}: has {size} bytes, but trajectory {request.trajectory}, frames from "
                f"{request.start} on lie beyond; it is truncated or changed since it was indexed: download it "
                "again, or index it again"
            )
    return bool(status == kernels.DONE)


def _maps(file: OpenFile, geometry: WindowGeometry, source: Source, threads: int) -> bool:
    if source == "pread" or sys.platform != "linux" or geometry.is_sparse:
        return False
    if source == "mmap":
        return True
    return threads <= _MAPPING_THREADS and file.is_local and geometry.run_bytes >= _WORTH_MAPPING
