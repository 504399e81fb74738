"""Batches from a worker process of torch's DataLoader to the main one, in memory that both keep and use again.

torch shares every tensor in memory of its own: new to both processes, which pay for its pages twice, longer than
reading takes. Here arrays lie in slabs of the worker (`slabs`); a message says in which and where, and the main process
keeps the slab mapped. Each array handed over is a lease, whose end, when the last view of it is gone, tells the worker.
"""

from __future__ import annotations

import importlib
import os
import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from multiprocessing.reduction import ForkingPickler
from typing import Any, cast

import numpy as np

from wellkit.datasets import slabs
from wellkit.datasets.slabs import CLEAR, DROPPED, Address, Map
from wellkit.frameworks import Array, from_numpy

SMALLEST = 1 << 16  # bytes from which on an array is worth a slab; smaller ones are sent along
_MOST_KEPT = 1024  # slabs that this process keeps mapped

Reduced = tuple[Callable[..., Any], tuple[Any, ...]]


def shared_memory(shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray | None:
    """Uninitialized memory that the main process can be told of; None where the system or the limit is against it."""
    slab = slabs.take(int(np.prod(shape, dtype=np.int64)) * dtype.itemsize)
    if slab is None:
        return None
    _hand_over_tensors()
    return slab.array(shape, dtype)


def stack_shared(samples: Sequence[Mapping[str, Any]], collate: Callable[[list[Any]], Any]) -> SharedBatch:
    """Samples as one batch, large tensors stacked in slabs, all else by `collate`."""
    return SharedBatch((key, _stacked([sample[key] for sample in samples], collate)) for key in samples[0])


def _stacked(parts: list[Any], collate: Callable[[list[Any]], Any]) -> Any:
    first = parts[0]
    if isinstance(first, dict):
        return stack_shared(parts, collate)
    if not _is_plain(first) or first.nbytes * len(parts) < SMALLEST:
        return collate(parts)
    if not all(_is_plain(part) and (part.shape, part.dtype) == (first.shape, first.dtype) for part in parts):
        return collate(parts)
    array = _as_numpy(first)
    memory = None if array is None else shared_memory((len(parts), *array.shape), array.dtype)
    if memory is None:
        return collate(parts)
    return importlib.import_module("torch").stack(parts, out=from_numpy(memory, "torch"))


class SharedBatch(dict[str, Array]):
    """A batch in a worker process. Sent to another process it arrives as a plain dict, and so do copies of it."""

    def __reduce__(self) -> Reduced:
        return dict, (dict(self),)


def _reduce_batch(batch: SharedBatch) -> Reduced:
    return dict, ({key: _described(value) for key, value in batch.items()},)


# Sent to another process only: what is pickled into a file or copied is to have its own content.
ForkingPickler.register(SharedBatch, _reduce_batch)


@cache
def _hand_over_tensors() -> None:
    """Have tensors of a slab that are in no `SharedBatch`, but in what a collate function of the caller made, sent so.

    torch would copy them into memory of its own.
    """
    torch = importlib.import_module("torch")
    torchs_way = importlib.import_module("torch.multiprocessing.reductions").reduce_tensor

    def reduce(tensor: Array) -> Reduced:
        return _placed(tensor) or cast(Reduced, torchs_way(tensor))

    ForkingPickler.register(torch.Tensor, reduce)


def _is_plain(value: Any) -> bool:
    """Whether it is a tensor that a NumPy array can stand for."""
    torch = importlib.import_module("torch")
    return (
        type(value) is torch.Tensor
        and value.layout is torch.strided
        and value.device.type == "cpu"
        and not (value.requires_grad or value.is_conj() or value.is_neg())
    )


def _as_numpy(tensor: Array) -> np.ndarray | None:
    """The same memory; None for what NumPy does not know."""
    with suppress(TypeError):  # bfloat16 and the like
        return cast(np.ndarray, tensor.numpy())
    return None


def _described(value: Any) -> Any:
    """What is sent for an entry: the content of what is small; else itself, which the pickler sends its way."""
    if not _is_plain(value) or value.nbytes >= SMALLEST:
        return value
    content = _as_numpy(value.contiguous())
    return value if content is None else _Content(content)


class _Content:
    """A small tensor, pickled with the message: a descriptor for each would take longer."""

    def __init__(self, array: np.ndarray) -> None:
        self._array = array

    def __reduce__(self) -> Reduced:
        return from_numpy, (self._array, "torch")


def _placed(tensor: Array) -> Reduced | None:
    """A tensor by its place in a slab; None if it lies in none."""
    if not _is_plain(tensor) or not tensor.nbytes:
        return None
    slab = slabs.SLABS.holder(tensor.data_ptr())
    if slab is None or (array := _as_numpy(tensor)) is None or (slot := slabs.SLABS.send(slab)) is None:
        return None
    place = tensor.data_ptr() - slab.first
    return _received_tensor, (tuple(slab.address), slot, place, array.shape, array.strides, array.dtype.str)


def _received_tensor(
    address: tuple[int, int, int, int],
    slot: int,
    place: int,
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    dtype: str,
) -> Array:
    lease = _Lease(Address(*address), slot)
    whole = np.asarray(lease)
    return from_numpy(np.ndarray(shape, dtype, whole.data, place, strides), "torch")


_KEPT: dict[Address, Map] = {}
_LEASES: dict[int, weakref.ref[_Lease]] = {}  # by id


def _mapped(address: Address) -> Map:
    found = _KEPT.get(address)
    if found is None:
        for other, kept in list(_KEPT.items()):
            if kept.is_over or len(_KEPT) >= _MOST_KEPT or not os.path.exists(f"/proc/{other.process}"):
                _KEPT.pop(other, None)  # arrays that are left keep it mapped
        found = _KEPT[address] = _map(address)
    return found


def _map(address: Address) -> Map:
    lost = RuntimeError(  # of the type that torch raises for a worker that died
        f"DataLoader worker (pid {address.process}) has ended, and with it the memory of its last batches"
    )
    try:
        # Another process's descriptor: opened anew through /proc, since it has no name.
        descriptor = os.open(f"/proc/{address.process}/fd/{address.descriptor}", os.O_RDWR | os.O_CLOEXEC)
    except (FileNotFoundError, ProcessLookupError) as error:
        raise lost from error
    try:
        if os.fstat(descriptor).st_ino != address.inode:
            raise lost
        return Map(descriptor, address.nbytes)
    finally:
        os.close(descriptor)


class _Lease:
    """One handing over. Arrays made of it keep it alive; its end clears the slot."""

    def __init__(self, address: Address, slot: int) -> None:
        self._address, self._map = address, _mapped(address)
        self._slot, self._process, self._cleared = slot, os.getpid(), CLEAR
        content = self._map.content
        self.__array_interface__ = {
            "shape": content.shape,
            "typestr": "|u1",
            "data": (content.ctypes.data, False),
            "version": 3,
        }
        _LEASES[id(self)] = weakref.ref(self)

    def outlive_fork(self) -> None:
        """A child gets a copy that nobody hears of: the memory must stay as it is."""
        self._cleared = DROPPED

    # Names bound here are there to the end of the interpreter.
    def __del__(self, leases: dict[int, Any] = _LEASES, process: Callable[[], int] = os.getpid) -> None:
        leases.pop(id(self), None)
        if "_process" not in self.__dict__ or process() != self._process:  # not mapped, or a child's copy
            return
        self._map.slots[self._slot] = self._cleared
        if self._cleared == DROPPED or self._map.is_over:
            _KEPT.pop(self._address, None)


def _outlive_fork() -> None:
    for reference in list(_LEASES.values()):
        lease = reference()
        if lease is not None:
            lease.outlive_fork()


# After the fork once more: other threads went on between.
os.register_at_fork(before=_outlive_fork, after_in_parent=_outlive_fork, after_in_child=_KEPT.clear)
