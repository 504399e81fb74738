"""What the machine itself can hand over: the stored bytes of windows by preadv, and nothing else.

The yardstick of the local reader: one thread, one system call a run of bytes, into memory that is used again.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from math import prod
from typing import NamedTuple

import numpy as np

from wellkit.errors import ArgumentError, DataNotFoundError, ShardError
from wellkit.index.model import MISSING
from wellkit.readers.descriptors import Descriptors
from wellkit.readers.geometry import FieldGeometry
from wellkit.readers.plan import WindowRequest


class StoredWindow(NamedTuple):
    """Where one window lies in its shard.

    Attributes:
        path: the shard.
        ranges: (offset, size) of every run of bytes it takes: neighbouring frames as one, chunks in full.
        needed: bytes as stored that the window needs: of a chunk, its stored size times the share of its elements
            that the window uses.
    """

    path: str
    ranges: tuple[tuple[int, int], ...]
    needed: float

    @property
    def nbytes(self) -> int:
        """Bytes of all ranges."""
        return sum(size for _, size in self.ranges)


def stored_window(request: WindowRequest, space: tuple[int, ...]) -> StoredWindow:
    """Where the bytes of a window lie, from the index alone.

    Args:
        space: points delivered along each spatial axis.

    Raises:
        ArgumentError: an array can be read through libhdf5 only.
    """
    ranges: list[tuple[int, int]] = []
    needed = 0.0
    frames = range(request.start, request.start + request.n_steps * request.stride, request.stride)
    for plan in request.fields:
        field = FieldGeometry(plan, space, request.crop)
        array = field.array
        seen: set[int] = set()
        for frame in frames:
            place = field.in_file(request.trajectory, frame)
            if place != MISSING:
                _append(ranges, place, field.span)
                needed += prod(field.dense_shape) * field.dtype.itemsize
                continue
            first = field.slab(request.trajectory, frame)
            for box in field.boxes:
                number = first + box.number
                size, offset = int(array.sizes[number]), int(array.offsets[number])
                if offset == MISSING:
                    continue
                points = prod(len(range(*part.indices(part.stop))) for part in box.source)
                needed += size * points / prod(array.chunk_shape)
                if number not in seen:
                    seen.add(number)
                    _append(ranges, offset, size)
    return StoredWindow(request.path, tuple(ranges), needed)


def _append(ranges: list[tuple[int, int]], offset: int, size: int) -> None:
    if ranges and sum(ranges[-1]) == offset:
        ranges[-1] = (ranges[-1][0], ranges[-1][1] + size)
    else:
        ranges.append((offset, size))


class Roofline:
    """Reads windows' stored bytes as fast as one thread can, into one buffer as large as the largest window.

    Args:
        windows: all that will be read.
    """

    def __init__(self, windows: Iterable[StoredWindow]) -> None:
        largest = max((window.nbytes for window in windows), default=0)
        self._buffer = np.zeros(max(1, largest), np.uint8).data
        self._files = Descriptors()

    def read(self, windows: Sequence[StoredWindow]) -> None:
        """Read every range of every window.

        Raises:
            DataNotFoundError: a shard is gone.
            ShardError: a shard ends before a range does, or its storage fails; names the file.
        """
        for window in windows:
            place = 0
            with self._files.use(window.path) as file:
                for offset, size in window.ranges:
                    file.read_into([self._buffer[place : place + size]], offset)
                    place += size


def drop_from_cache(paths: Iterable[str]) -> None:
    """Ask the operating system to forget the pages of these files (posix_fadvise, DONTNEED), written out before.

    It is advice: file systems that live in memory keep theirs, and disks and hosts have caches of their own.

    Raises:
        ArgumentError: this operating system cannot be asked.
        DataNotFoundError, ShardError: a file cannot be opened.
    """
    if not hasattr(os, "posix_fadvise"):
        raise ArgumentError("this operating system cannot be told to forget a file: only warm reads can be measured")
    for path in paths:
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise DataNotFoundError(f"{path}: no such file") from error
        except OSError as error:
            raise ShardError(f"{path}: cannot be opened ({error.strerror}); check its permissions") from error
        try:
            os.fdatasync(descriptor)  # pages that are not written yet are not dropped
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)
