"""Batches from a worker process of torch's DataLoader to the main one, in memory that both keep and use again.

torch shares every tensor in memory of its own: new to both processes, which pay for its pages twice, longer than
reading takes. Here a worker keeps *slabs*, memory without a name (memfd); a batch tells the main process in which slab
its arrays lie, and the main process keeps the slab mapped. Each handing over takes a slot of the slab: the worker marks
it, the main process clears it when the last array is gone. A slab is used again when all its slots are clear.
"""

from __future__ import annotations

import mmap
import os
import sys
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np

from wellkit.frameworks import Array, framework_of, from_numpy

SMALLEST = 1 << 16  # bytes from which on an array is worth a slab; smaller ones are sent along
LIMIT = 12  # slabs of one size in a worker
_SLOTS = 64
_PAGE = mmap.PAGESIZE
_CLEAR, _SENT, _DROPPED = 0, 1, 2
_MOST_KEPT = 256  # slabs that the main process keeps mapped


class Address(NamedTuple):
    """Where a slab is: a descriptor of a process. `inode` tells whether it still is the same."""

    process: int
    descriptor: int
    inode: int
    nbytes: int


def _map(descriptor: int, nbytes: int) -> tuple[mmap.mmap, np.ndarray, np.ndarray]:
    """(map, its bytes, its slots)."""
    whole = -(-nbytes // _PAGE) * _PAGE
    memory = mmap.mmap(descriptor, whole + _PAGE)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with suppress(OSError):  # advice
            memory.madvise(mmap.MADV_HUGEPAGE)
    content = np.frombuffer(memory, np.uint8)
    return memory, content[:nbytes], content[whole : whole + _SLOTS]


class _Slab:
    """A worker's own."""

    def __init__(self, nbytes: int) -> None:
        self._descriptor = os.memfd_create("wellkit-batch", os.MFD_CLOEXEC)
        os.ftruncate(self._descriptor, -(-nbytes // _PAGE) * _PAGE + _PAGE)
        _, self._content, self.slots = _map(self._descriptor, nbytes)
        inode = os.fstat(self._descriptor).st_ino
        self.address = Address(os.getpid(), self._descriptor, inode, nbytes)
        self.whole: Any = self._content.base  # what every array made of the slab refers to
        weakref.finalize(self, os.close, self._descriptor)

    @property
    def first(self) -> int:
        """Where it lies in this process."""
        return int(self._content.ctypes.data)

    def is_free(self) -> bool:
        """Whether no array of it is left, here or in the main process."""
        # The slab's own three arrays, and the argument of getrefcount.
        return sys.getrefcount(self.whole) <= 4 and not self.slots.any()

    def is_dropped(self) -> bool:
        """Whether it may not be used again: a fork of the main process may still look at it."""
        return bool((self.slots == _DROPPED).any())

    def array(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
        """All of it as an array."""
        return self._content.view(dtype).reshape(shape)

    def send(self) -> int | None:
        """Mark a slot; None if none is clear."""
        clear = np.flatnonzero(self.slots == _CLEAR)
        if not len(clear):
            return None
        self.slots[clear[0]] = _SENT
        return int(clear[0])


class _Slabs:
    """Those of this process, by size."""

    def __init__(self) -> None:
        self._reset()
        os.register_at_fork(after_in_child=self._reset)

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._by_size: dict[int, list[_Slab]] = {}

    def take(self, nbytes: int) -> _Slab | None:
        """A free one; None if so many of this size are in use that there may be no more."""
        with self._lock:
            alike = [slab for slab in self._by_size.get(nbytes, ()) if not slab.is_dropped()]
            if nbytes not in self._by_size and len(self._by_size) >= 8:
                busy = {size: kept for size, kept in self._by_size.items() if not all(s.is_free() for s in kept)}
                self._by_size = busy
            self._by_size[nbytes] = alike
            for slab in alike:
                if slab.is_free():
                    return slab
            if len(alike) >= LIMIT:
                return None
            alike.append(_Slab(nbytes))
            return alike[-1]

    def holder(self, address: int) -> _Slab | None:
        """The slab that has the byte at an address of this process."""
        with self._lock:
            for alike in self._by_size.values():
                for slab in alike:
                    if slab.first <= address < slab.first + slab.address.nbytes:
                        return slab
        return None


_SLABS = _Slabs()


def shared_memory(shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray | None:
    """Uninitialized memory that the main process can be told of; None where the system or the limit is against it."""
    if not (hasattr(os, "memfd_create") and os.path.isdir("/proc/self/fd")):
        return None
    nbytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    try:
        slab = _SLABS.take(nbytes)
    except OSError:  # no descriptor or memory is left
        return None
    return None if slab is None else slab.array(shape, dtype)


class SharedBatch(dict[str, Array]):
    """A batch of a worker process; on the other side it is a plain dict."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return _rebuild, ([(key, *_described(value)) for key, value in self.items()],)


def _described(value: Any) -> tuple[Any, ...]:
    """What is sent for one entry: where it lies, its content where it is small, or itself."""
    is_plain = framework_of(value) == "torch" and str(value.layout) == "torch.strided" and value.device.type == "cpu"
    if not is_plain or value.requires_grad or value.is_conj() or value.is_neg():
        return "object", value
    if value.nbytes < SMALLEST:
        return "content", value.contiguous().numpy()
    slab = _SLABS.holder(value.data_ptr())
    if slab is None or (slot := slab.send()) is None:
        return "object", value
    array = value.numpy()
    place = value.data_ptr() - slab.first
    return "slab", slab.address, slot, place, array.shape, array.strides, array.dtype.str


def _rebuild(entries: list[tuple[Any, ...]]) -> dict[str, Array]:
    found: dict[str, Array] = {}
    for key, kind, *rest in entries:
        if kind == "object":
            found[key] = rest[0]
        elif kind == "content":
            found[key] = from_numpy(rest[0] if rest[0].flags.writeable else rest[0].copy(), "torch")
        else:
            address, slot, place, shape, strides, dtype = rest
            lease = _Lease(_attached(address), slot)
            whole = np.asarray(lease)
            array = np.ndarray(shape, dtype, whole.data, place, strides)
            found[key] = from_numpy(array, "torch")
    return found


class _Attached:
    """A slab of another process, mapped here."""

    def __init__(self, address: Address) -> None:
        # Another process's descriptor: opened anew through /proc, since it has no name.
        try:
            descriptor = os.open(f"/proc/{address.process}/fd/{address.descriptor}", os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise _lost(address) from error
        try:
            if os.fstat(descriptor).st_ino != address.inode:
                raise _lost(address)
            self.memory, self.content, self.slots = _map(descriptor, address.nbytes)
        finally:
            os.close(descriptor)


def _lost(address: Address) -> RuntimeError:
    # Of the type that torch raises for a worker that died.
    return RuntimeError(
        f"DataLoader worker (pid {address.process}) has ended, and with it the memory of its last batches"
    )


_KEPT: dict[Address, _Attached] = {}
_LEASES: dict[int, weakref.ref[_Lease]] = {}  # by id


def _attached(address: Address) -> _Attached:
    found = _KEPT.get(address)
    if found is None:
        for other in list(_KEPT):
            if len(_KEPT) >= _MOST_KEPT or not os.path.exists(f"/proc/{other.process}"):
                _KEPT.pop(other, None)  # arrays that are left keep it mapped
        found = _KEPT[address] = _Attached(address)
    return found


class _Lease:
    """One handing over. Arrays made of it keep it alive; its end clears the slot."""

    def __init__(self, attached: _Attached, slot: int) -> None:
        self._attached, self._slot, self._process = attached, slot, os.getpid()
        self._cleared = _CLEAR
        content = attached.content
        self.__array_interface__ = {
            "shape": content.shape,
            "typestr": "|u1",
            "data": (content.ctypes.data, False),
            "version": 3,
        }
        _LEASES[id(self)] = weakref.ref(self)

    def outlive_fork(self) -> None:
        """A child is about to get a copy that nobody hears of: the memory must stay as it is."""
        self._cleared = _DROPPED

    def __del__(self) -> None:
        _LEASES.pop(id(self), None)
        if os.getpid() == self._process:
            self._attached.slots[self._slot] = self._cleared


def _before_fork() -> None:
    for reference in list(_LEASES.values()):
        lease = reference()
        if lease is not None:
            lease.outlive_fork()


def _in_child() -> None:
    _KEPT.clear()


os.register_at_fork(before=_before_fork, after_in_child=_in_child)
