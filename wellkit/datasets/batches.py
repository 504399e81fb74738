"""A whole batch read at once: one buffer a key, and the samples as views of it."""

from __future__ import annotations

import math
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, overload

import numpy as np

from wellkit.datasets.assembly import ShardAssembler, WindowSpec
from wellkit.datasets.handover import SMALLEST, SharedBatch, shared_memory, stack_shared
from wellkit.datasets.samples import SAMPLE_KEYS
from wellkit.frameworks import Array, Framework, from_numpy, in_worker_process, register_collate, shared_array, stack
from wellkit.readers.output import repeat
from wellkit.readers.plan import WindowBatch


class Sample(dict[str, Array]):
    """One sample of a batch. A type of its own, so that torch's default collate function finds the batch again."""


class BatchSamples(Sequence[Sample]):
    """The samples of one batch, in order. `batch` holds them stacked: a dict of arrays, batch axis first.

    Each sample is a dict of views of the stacked arrays. A collate function that iterates gets what it expects;
    torch's default one takes `batch` as it is, without copying.
    """

    def __init__(self, batch: dict[str, Array], size: int) -> None:
        self.batch = batch
        self._size = size

    def __len__(self) -> int:
        return self._size

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> list[Sample]: ...
    def __getitem__(self, index: int | slice) -> Sample | list[Sample]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(self._size))]
        if not -self._size <= index < self._size:
            raise IndexError(f"sample {index} is out of range: the batch has {self._size}")
        return Sample((key, values[index]) for key, values in self.batch.items())

    def __iter__(self) -> Iterator[Sample]:
        return (self[number] for number in range(self._size))


def _take_batch(batch: Sequence[Sample], **options: Any) -> Mapping[str, Array]:
    """What torch's default collate function calls for a list of `Sample`."""
    if isinstance(batch, BatchSamples):
        return batch.batch
    from torch.utils.data._utils.collate import collate  # only torch calls this function

    collated: Mapping[str, Array]
    if in_worker_process():
        collated = stack_shared(batch, partial(collate, **options))
    else:
        collated = collate([dict(sample) for sample in batch], **options)
    return collated


_LINE = 64  # bytes of a cache line: memory that begins with one can be written past the caches


def _aligned(whole: np.ndarray, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
    """An array in the bytes of `whole`, from the first cache line on. Refers to `whole` itself, as views do."""
    first = -whole.ctypes.data % _LINE
    return whole[first : len(whole) - _LINE + first].view(dtype).reshape(shape)


class BufferPool:
    """Memory of batches, used again once nobody holds an array of it.

    Fresh memory costs a page fault every 4 KiB, which for a batch takes longer than reading it. A buffer is free when
    only the pool refers to it: every array and tensor made of it keeps it alive.

    Args:
        limit: buffers of one size that are kept; more are made where more are held, and forgotten.
        smallest: bytes from which on an array is worth keeping.
    """

    def __init__(self, limit: int = 8, smallest: int = 1 << 17) -> None:
        self._limit = limit
        self._smallest = smallest
        self._reset()

    def _reset(self) -> None:
        self._buffers: dict[int, list[np.ndarray]] = {}
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {"_limit": self._limit, "_smallest": self._smallest}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._reset()

    def take(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
        """An uninitialized array, C-contiguous."""
        nbytes = math.prod(shape) * dtype.itemsize
        if nbytes < self._smallest:
            return np.empty(shape, dtype)
        with self._lock:
            alike = self._buffers.get(nbytes)
            if alike is None:
                self._forget_free()  # of other sizes: the size of batches has changed, or a last, smaller one comes
                alike = self._buffers[nbytes] = []
            for number in range(len(alike)):
                # two references: the list's, and the argument of getrefcount
                if sys.getrefcount(alike[number]) <= 2:
                    return _aligned(alike[number], shape, dtype)
            buffer = np.empty(nbytes + _LINE, dtype=np.uint8)
            if len(alike) < self._limit:
                alike.append(buffer)
        return _aligned(buffer, shape, dtype)

    def reserve(self, sizes: Iterable[int]) -> None:
        """Have a buffer for each of `sizes` (bytes, repeated for several), their memory taken from the system now.

        Without it, the most that a loader ever needs at a time comes about by chance, maybe hours after its start.
        """
        wanted = Counter(nbytes for nbytes in sizes if nbytes >= self._smallest)
        with self._lock:
            for nbytes, count in wanted.items():
                alike = self._buffers.setdefault(nbytes, [])
                while len(alike) < count:
                    alike.append(np.full(nbytes + _LINE, 0xFF, dtype=np.uint8))  # written, so that it is there

    def _forget_free(self) -> None:
        """Keep few sizes: drop all that is not in use once there are many."""
        if len(self._buffers) < 8:
            return
        for nbytes, alike in list(self._buffers.items()):
            held = [alike[number] for number in range(len(alike)) if sys.getrefcount(alike[number]) > 2]
            if held:
                self._buffers[nbytes] = held
            else:
                del self._buffers[nbytes]


def new_array(
    shape: tuple[int, ...], dtype: np.dtype[Any], framework: Framework, pool: BufferPool
) -> tuple[np.ndarray, Array]:
    """(NumPy array to fill, the same memory in `framework`).

    In a torch worker process it lies in shared memory, so that handing it to the main process copies nothing.
    """
    if framework == "torch" and in_worker_process() and math.prod(shape) * dtype.itemsize >= SMALLEST:
        shared = shared_memory(shape, dtype)
        return shared_array(shape, dtype) if shared is None else (shared, from_numpy(shared, framework))
    array = pool.take(shape, dtype)
    return array, array if framework == "jax" else from_numpy(array, framework)


def prepare_framework(framework: Framework) -> None:
    """Let torch's default collate function know `Sample`; once a process."""
    if framework == "torch":
        register_collate(Sample, _take_batch)


Others = Callable[[ShardAssembler, WindowSpec, WindowBatch | None], Mapping[str, np.ndarray]]


class _Constants:
    """Constant fields that a batch needs and that are not known yet, to be read along with it."""

    def __init__(self, windows: Sequence[tuple[ShardAssembler, WindowSpec]]) -> None:
        self._found: dict[tuple[int, int], WindowBatch] = {}
        for shard, window in windows:
            if shard.constant and (batch := shard.constants_to_read(window)) is not None:
                self._found[id(shard), id(window)] = batch

    @property
    def wanted(self) -> list[WindowBatch]:
        """What to read."""
        return list(self._found.values())

    def of(self, shard: ShardAssembler, window: WindowSpec) -> WindowBatch | None:
        """What was read for one window."""
        return self._found.get((id(shard), id(window)))


def read_sample(
    shard: ShardAssembler,
    window: WindowSpec,
    *,
    framework: Framework,
    pool: BufferPool,
    others: Others,
) -> dict[str, Array] | None:
    """One window as a sample, fields straight from the file. Arguments as of `read_batch`.

    Returns:
        The sample; None where its shard can only be read through h5py.
    """
    request = shard.request(window)
    if request is None:
        return None
    shape, dtype = shard.shape(shard.variable), shard.dtype(shard.variable)
    found: dict[str, np.ndarray] = {}
    constants = _Constants([(shard, window)])
    wanted = constants.wanted
    if shape[-1]:
        inputs = pool.take((1, window.n_input, *shape), dtype)
        outputs = pool.take((1, window.n_steps - window.n_input, *shape), dtype)
        wanted = [WindowBatch([request], inputs, outputs), *wanted]
        found = {"input_fields": inputs[0], "output_fields": outputs[0]}
    shard.source.read_all(wanted)
    for key, values in others(shard, window, constants.of(shard, window)).items():
        if framework == "torch" and not values.flags.writeable:  # kept for other samples, and torch could write to it
            own = pool.take(values.shape, values.dtype)
            np.copyto(own, values)
            found[key] = own
        else:
            found[key] = values
    sample = {}
    for key in SAMPLE_KEYS:
        part = found.get(key)
        if part is not None and part.size:
            # JAX may take memory as it is, which the pool would use again under it.
            sample[key] = from_numpy(np.array(part) if framework == "jax" else part, framework)
    return sample


def read_batch(
    windows: Sequence[tuple[ShardAssembler, WindowSpec]],
    *,
    framework: Framework,
    pool: BufferPool,
    others: Others,
) -> BatchSamples | None:
    """Windows of equal length as one batch, fields straight from the files into the stacked arrays.

    Args:
        windows: where each sample lies.
        others: the rest of one sample, by key; its third argument are constant fields that have just been read.

    Returns:
        The batch; None where a shard can only be read through h5py, or windows differ in length or type.
    """
    requests, kinds = [], set()
    for shard, window in windows:
        request = shard.request(window)
        if request is None:
            return None
        requests.append(request)
        kinds.add((window.n_steps, window.n_input, shard.shape(shard.variable), shard.dtype(shard.variable)))
    if len(kinds) != 1 or not requests:
        return None
    ((n_steps, n_input, shape, dtype),) = kinds
    size = len(requests)
    source = windows[0][0].source
    if any(shard.source is not source for shard, _ in windows):
        return None
    batch: dict[str, Array] = {}
    constants = _Constants(windows)
    wanted = constants.wanted
    if shape[-1]:
        # Inputs and outputs lie apart: each is to be contiguous, as stacking samples would have made it.
        inputs, batch["input_fields"] = new_array((size, n_input, *shape), dtype, framework, pool)
        outputs, batch["output_fields"] = new_array((size, n_steps - n_input, *shape), dtype, framework, pool)
        wanted = [WindowBatch(requests, inputs, outputs), *wanted]
        batch = {key: values for key, values in batch.items() if 0 not in values.shape}
    source.read_all(wanted)
    rest = [others(shard, window, constants.of(shard, window)) for shard, window in windows]
    for key in rest[0]:
        pieces = [piece[key] for piece in rest]
        if any(piece.shape != pieces[0].shape for piece in pieces):
            return None
        memory, batch[key] = new_array((size, *pieces[0].shape), pieces[0].dtype, framework, pool)
        if all(piece is pieces[0] for piece in pieces):
            repeat(pieces[0], memory)
        else:
            np.stack(pieces, out=memory)
    if framework == "jax":
        batch = {key: from_numpy(np.array(values), framework) for key, values in batch.items()}
    kind = SharedBatch if framework == "torch" and in_worker_process() else dict
    return BatchSamples(kind((key, batch[key]) for key in SAMPLE_KEYS if key in batch), size)


def stack_samples(samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Samples as one dict of stacked arrays, batch axis first; nested dicts are stacked inside."""
    first = samples[0]
    stacked: dict[str, Any] = {}
    for key, value in first.items():
        parts = [sample[key] for sample in samples]
        stacked[key] = stack_samples(parts) if isinstance(value, Mapping) else stack(parts)
    return stacked
