"""Memory of a worker process that another process can map, used again once nobody looks at it on either side.

A *slab* is memory without a name (memfd), so that nothing is left behind however a process ends. Behind its content
lies a page of flags: a slot for each array of it that was handed over, which the worker marks and the receiver clears
when the array is gone. Each byte has one writer at a time, so that no lock between processes is needed, and a process
that dies can leave none locked.
"""

from __future__ import annotations

import itertools
import mmap
import os
import sys
import threading
import weakref
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from multiprocessing.util import Finalize
from typing import Any, NamedTuple

import numpy as np

MOST = 128  # slabs of a process
IDLE = 512  # a slab that was not needed while so many others were taken is given back
SLOTS = 64
CLEAR, SENT, DROPPED = 0, 1, 2
_PAGE = mmap.PAGESIZE


class Address(NamedTuple):
    """Where a slab is: a descriptor of a process. `inode` tells whether it still is the same."""

    process: int
    descriptor: int
    inode: int
    nbytes: int


class Map:
    """A slab's memory, mapped into this process. Raises OSError."""

    def __init__(self, descriptor: int, nbytes: int) -> None:
        self.memory = mmap.mmap(descriptor, nbytes + _PAGE)
        if hasattr(mmap, "MADV_HUGEPAGE"):
            with suppress(OSError):  # advice
                self.memory.madvise(mmap.MADV_HUGEPAGE)
        whole = np.frombuffer(self.memory, np.uint8)
        self.content = whole[:nbytes]
        self.slots = whole[nbytes : nbytes + SLOTS]
        self._over = whole[nbytes + SLOTS : nbytes + SLOTS + 1]

    @property
    def is_over(self) -> bool:
        """Whether its worker will not hand it over again."""
        return bool(self._over[0])

    def end(self) -> None:
        """Tell the receiver that it need not keep the slab mapped."""
        self._over[0] = 1


def capacity(nbytes: int) -> int:
    """Bytes of a slab for so many: whole pages, and few sizes, so that batches of many sizes can share slabs.

    The system gives memory a page at a time and only for what is written, so a slab may well be larger than needed.
    """
    step = max(_PAGE, 1 << max(0, (nbytes - 1).bit_length() - 3))
    return -(-nbytes // step) * step


class Slab:
    """One of this process's own. Raises OSError."""

    def __init__(self, nbytes: int) -> None:
        self._descriptor = os.memfd_create("wellkit-batch", os.MFD_CLOEXEC)
        weakref.finalize(self, os.close, self._descriptor)
        os.ftruncate(self._descriptor, nbytes + _PAGE)
        self._map = Map(self._descriptor, nbytes)
        self.address = Address(os.getpid(), self._descriptor, os.fstat(self._descriptor).st_ino, nbytes)
        self.first = int(self._map.content.ctypes.data)  # where it lies in this process
        self.taken_at = 0
        self._whole: Any = self._map.content.base  # what every array of the slab refers to
        self._own_references = sys.getrefcount(self._whole)

    @property
    def is_looked_at(self) -> bool:
        """Whether this process has an array of it."""
        return sys.getrefcount(self._whole) > self._own_references

    @property
    def is_free(self) -> bool:
        """Whether no array of it is left, here or in the process that it was handed to."""
        return not self.is_looked_at and not self._map.slots.any()

    @property
    def is_awaited(self) -> bool:
        """Whether somebody may yet ask for it: an array of it is on its way, or is held by the receiver."""
        return bool((self._map.slots == SENT).any())

    @property
    def is_dropped(self) -> bool:
        """Whether it may not be used again: a fork of the receiver may still look at it."""
        return bool((self._map.slots == DROPPED).any())

    def array(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
        """An uninitialized array from its first byte on."""
        nbytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        return self._map.content[:nbytes].view(dtype).reshape(shape)

    def send(self) -> int | None:
        """Mark a slot; None if none is clear."""
        clear = np.flatnonzero(self._map.slots == CLEAR)
        if not len(clear):
            return None
        self._map.slots[clear[0]] = SENT
        return int(clear[0])

    def end(self) -> None:
        """Never to be handed over again. Its memory goes back to the system now if nobody looks at it, else later."""
        if self.is_free and hasattr(mmap, "MADV_REMOVE"):
            with suppress(OSError):  # else it goes when the receiver has unmapped it
                self._map.memory.madvise(mmap.MADV_REMOVE, 0, self.address.nbytes)
        self._map.end()


class Slabs:
    """Those of this process."""

    def __init__(self) -> None:
        self._reset()
        os.register_at_fork(before=self._before_fork, after_in_child=self._reset)

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._by_size: dict[int, list[Slab]] = {}
        self._leaving: list[Slab] = []  # not to be used again, but not yet received
        self._count = 0  # of all that were taken
        self._ends = False

    def __iter__(self) -> Iterator[Slab]:
        return itertools.chain.from_iterable(self._by_size.values())

    def __len__(self) -> int:
        return sum(1 for _ in self) + len(self._leaving)

    def take(self, nbytes: int) -> Slab | None:
        """A free one; None if so many are in use that there may be no more. Raises OSError."""
        size = capacity(nbytes)
        with self._lock:
            if not self._ends:
                # At the end of the process; workers of multiprocessing run nothing of atexit.
                Finalize(None, self._end, exitpriority=0)
                self._ends = True
            self._count += 1
            if self._count % (IDLE // 8) == 0:
                self._sweep()
            # The first free one: what is beyond the usual number stays idle, and goes.
            slab = next((slab for slab in self._by_size.get(size, ()) if slab.is_free), None)
            if slab is None:
                self._sweep()
                if len(self) >= MOST:
                    return None
                slab = Slab(size)
                self._by_size.setdefault(size, []).append(slab)
            slab.taken_at = self._count
            return slab

    def holder(self, address: int) -> Slab | None:
        """The slab that has the byte at an address of this process."""
        with self._lock:
            return next((slab for slab in self if 0 <= address - slab.first < slab.address.nbytes), None)

    def send(self, slab: Slab) -> int | None:
        """As `Slab.send`, by one thread at a time."""
        with self._lock:
            return slab.send()

    def _sweep(self) -> None:
        """Part with slabs that may not be used again, or are not needed."""
        for slab in list(self):
            if slab.is_dropped or (self._count - slab.taken_at > IDLE and slab.is_free):
                self._part_with(slab)
        self._leaving = [slab for slab in self._leaving if slab.is_awaited]

    def _part_with(self, slab: Slab) -> None:
        slab.end()
        alike = [other for other in self._by_size.pop(slab.address.nbytes) if other is not slab]
        if alike:
            self._by_size[slab.address.nbytes] = alike
        self._leaving.append(slab)

    def _before_fork(self) -> None:
        """A child is about to get a copy of every array, of which nobody hears: what it may see stays as it is."""
        with self._lock:
            for slab in list(self):
                if slab.is_looked_at:
                    self._part_with(slab)

    def _end(self) -> None:
        for slab in self:
            slab.end()


SLABS = Slabs()


@cache
def _can_be_mapped(process: int) -> bool:
    """Whether other processes of this user can open the memory of this one: not on every system, nor in every box."""
    if not hasattr(os, "memfd_create"):
        return False
    try:
        own = os.memfd_create("wellkit-probe", os.MFD_CLOEXEC)
        try:
            opened = os.open(f"/proc/{process}/fd/{own}", os.O_RDWR | os.O_CLOEXEC)
            try:
                is_same = os.path.samestat(os.fstat(own), os.fstat(opened))
            finally:
                os.close(opened)
        finally:
            os.close(own)
        # The receiver may open ours if we may open its own.
        parents = f"/proc/{os.getppid()}/fd"
        for name in os.listdir(parents):
            with suppress(FileNotFoundError):  # closed meanwhile
                os.readlink(f"{parents}/{name}")
                break
    except OSError:
        return False
    return is_same


def take(nbytes: int) -> Slab | None:
    """A slab of at least so many bytes; None where the system or the number of slabs is against it."""
    if not _can_be_mapped(os.getpid()):
        return None
    try:
        return SLABS.take(nbytes)
    except OSError:  # no descriptor or memory is left
        return None
