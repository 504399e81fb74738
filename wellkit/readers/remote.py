"""Windows of remote shards: a batch becomes one plan of byte ranges, gathered as they arrive."""

from __future__ import annotations

import multiprocessing
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from contextlib import AbstractContextManager, nullcontext
from threading import Lock
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from wellkit.errors import ArgumentError, DataNotFoundError, ShardError
from wellkit.readers.budget import Budget
from wellkit.readers.chunked import ChunkedWindow, Unit, plan_units, read_unit
from wellkit.readers.coalescing import GAP, Need, plan_transfers, unit_needs
from wellkit.readers.copies import Copies, in_copies
from wellkit.readers.indexed import local_windows
from wellkit.readers.output import Geometries, check_output, load_kernels
from wellkit.readers.pieces import Piece, Pieces
from wellkit.readers.plan import FieldPlan, WindowBatch, WindowRequest
from wellkit.readers.stored import StoredFile, TakeBuffer
from wellkit.readers.workers import POOL, usable_cores
from wellkit.storage import without_secrets

if TYPE_CHECKING:
    from wellkit.fetch.ranges import ByteRange

_LINE = 64  # bytes of a cache line
_CORRUPT = (
    "it is damaged where it is stored, or was replaced since it was indexed: index it again, and tell its owner if "
    "that changes nothing"
)


class Ranges(Protocol):
    """Where byte ranges come from: `wellkit.fetch.ranges.RangeReader`, or a cache before it. Picklable."""

    def read(
        self, ranges: Sequence[ByteRange], into: Sequence[memoryview], done: Callable[[int], None] | None = None
    ) -> None:
        """Fill `into[i]` with `ranges[i]` and call `done(i)`, in any thread and order.

        Raises:
            HubError, DataNotFoundError, ShardError: names the location. Nothing is written after the return.
        """
        ...


class RemoteReader:
    """Reads windows of remote shards into the caller's buffers.

    Picklable, thread-safe, and safe under fork and spawn. Keeps nothing of what it reads.

    Args:
        ranges: where bytes come from; None: a `RangeReader` of its own.
        storage_options: for that one, fsspec's.
        connections: ranges that are fetched at a time.
        budget: bytes that are in memory at a time beside the outputs, as stored and, where they are compressed, as
            decoded; of all threads of a process together. A batch that needs more than half of it is fetched in parts;
            a single step that needs more is read all the same.
        gap: bytes that are fetched though nobody needs them if that saves a request; see `plan_transfers`.
        threads: helpers that decode and gather what has arrived. None: one a core, at most 8; in a worker process 1.
        compiled: True for numba's kernels, False for NumPy's (slower, same values); None: numba's where there are.
    """

    def __init__(
        self,
        ranges: Ranges | None = None,
        *,
        storage_options: Mapping[str, Any] | None = None,
        connections: int = 16,
        budget: int = 1 << 29,
        gap: int = GAP,
        threads: int | None = None,
        compiled: bool | None = None,
    ) -> None:
        for name, value, least in (("connections", connections, 1), ("budget", budget, 1), ("gap", gap, 0)):
            if value < least:
                raise ArgumentError(f"{name}={value}; give a whole number from {least} up")
        if threads is not None and threads < 1:
            raise ArgumentError(f"threads={threads}: at least 1 is needed")
        if ranges is None:
            from wellkit.fetch.ranges import RangeReader  # imports the network's libraries

            ranges = RangeReader(storage_options, connections=connections)
        self.ranges: Ranges = ranges
        self.connections = connections
        self._budget = Budget(budget)
        self.gap = gap
        self.threads = threads
        self._compiled = compiled
        self._geometries = Geometries()

    def read_windows(self, requests: Sequence[WindowRequest], out: np.ndarray, tail: np.ndarray | None = None) -> None:
        """Fill `out` with the windows, as `LocalReader.read_windows` does.

        Args:
            requests: one a window, all of as many steps and of the same size in space; `path` is an address.
            out: axes (window, step, space..., channel); each window C-contiguous. float32 is fastest.
            tail: where the steps go that `out` has no room for: the same axes and type.

        Raises:
            HubError: the storage cannot be reached or refuses access.
            DataNotFoundError: a shard is gone.
            ShardError: a shard ends before an array does, or a chunk is damaged; names it. The output then holds
                anything.
            ArgumentError: requests, arrays and output do not fit together, or an array is one that only libhdf5 reads.
        """
        self.read_all([WindowBatch(requests, out, tail)])

    def read_all(self, batches: Sequence[WindowBatch]) -> None:
        """As `read_windows` for each, as one plan: all of them take no more round trips than one."""
        kernels = load_kernels(self._compiled)
        windows: list[ChunkedWindow] = []
        for requests, out, tail in batches:
            rest = check_output(requests, out, tail)
            if out.size + rest.size == 0:
                continue
            n_steps, space, n_channels = out.shape[1] + rest.shape[1], out.shape[2:-1], out.shape[-1]
            for number, request in enumerate(requests):
                geometry = self._geometries.find(request, n_steps, space, n_channels)
                windows.append(ChunkedWindow(request, geometry, out[number], rest[number]))
        arrived = _Arrived()
        if isinstance(self.ranges, Copies):
            local = in_copies(batches, windows, self.ranges, Pieces(arrived, kernels), self.gap)
            if local is not None and self._read_copies(local):
                return
        pieces = Pieces(arrived, kernels)
        for units, cost in self._portions(plan_units(windows, pieces)):
            with self._budget.hold(cost):
                self._read(units, pieces, arrived, kernels)
                arrived.clear()

    def read_constant(
        self, path: str, fields: tuple[FieldPlan, ...], trajectory: int, crop: tuple[slice, ...], out: np.ndarray
    ) -> None:
        """Fill `out`, axes (space..., channel), with fields that have no time axis. Otherwise as `read_windows`."""
        request = WindowRequest(path, fields, trajectory, start=0, n_steps=1, stride=1, n_input=1, crop=crop)
        self.read_windows([request], out[np.newaxis, np.newaxis])

    def _read_copies(self, batches: Sequence[WindowBatch]) -> bool:
        """Read from local files; False if one is not there any more, or not right."""
        try:
            local_windows().read_all(batches)
        except (DataNotFoundError, ShardError):
            return False
        return True

    def _portions(self, units: Sequence[Unit]) -> Iterator[tuple[list[Unit], int]]:
        """Steps, neighbours together, whose bytes are within half of the budget, and how many these are."""
        portion: list[Unit] = []
        seen: set[int] = set()
        size = 0
        for unit in units:
            new = {id(piece): piece for piece in unit.pieces if id(piece) not in seen}
            cost = sum(_cost(piece) for piece in new.values())
            if portion and size + cost > self._budget.limit // 2:
                yield portion, size
                # What the portion before needed is gone, unless a later step needs it too: then it is there.
                portion, size = [], 0
            portion.append(unit)
            seen.update(new)
            size += cost
        if portion:
            yield portion, size

    def _read(self, units: Sequence[Unit], pieces: Pieces, arrived: _Arrived, kernels: ModuleType) -> None:
        """Fetch what is not there yet of what some steps need, and gather each as soon as it is."""
        # What an earlier portion has left in memory is not asked for again.
        wanted = [[need for piece, need in unit_needs(unit, self.gap) if piece.buffer is None] for unit in units]
        needs: dict[str, list[Need]] = {}
        for unit, found in zip(units, wanted, strict=True):
            needs.setdefault(unit.job.request.path, []).extend(found)
        transfers = plan_transfers(
            {path: found for path, found in needs.items() if found}, connections=self.connections, gap=self.gap
        )
        ranges: list[ByteRange] = []
        into: list[memoryview] = []
        firsts: dict[str, int] = {}
        by_path = {transfer.location: transfer for transfer in transfers}
        for path, transfer in by_path.items():
            firsts[path] = len(ranges)
            ranges += transfer.byte_ranges()
            into += arrived.add(path, transfer.blocks, transfer.ranges)
        waiting: list[list[int]] = [[] for _ in ranges]  # by range, the steps that need bytes of it
        missing = []
        for number, (unit, found) in enumerate(zip(units, wanted, strict=True)):
            path = unit.job.request.path
            parts = {part for need in found for part in by_path[path].over(*need.bounds)}
            missing.append(len(parts))
            for part in parts:
                waiting[firsts[path] + part].append(number)
        gatherer = _Gatherer(units, waiting, missing, lambda unit: read_unit(unit, pieces, kernels), self._threads())
        try:
            if ranges:
                self.ranges.read(ranges, into, gatherer.note)
        except BaseException:
            gatherer.stop()
            raise
        gatherer.finish()

    def _threads(self) -> int:
        if self.threads is not None:
            return self.threads
        # A worker process is one of several: threads of its own would only stand in the way of the others.
        return 1 if multiprocessing.parent_process() is not None else min(usable_cores(), 8)


def _cost(piece: Piece) -> int:
    """Bytes of memory that a piece takes, as fetched and as decoded."""
    _, field, place, nbytes = piece.source
    if not piece.is_chunk:
        return nbytes
    return int(field.array.sizes[place]) + field.array.chunk_nbytes * bool(field.array.codecs)


class _Arrived:
    """Shards of which some bytes are in memory: `StoredFiles`."""

    def __init__(self) -> None:
        self._files: dict[str, _ArrivedFile] = {}

    def clear(self) -> None:
        """Let go of all bytes but those that somebody refers to."""
        self._files = {}

    def add(self, path: str, blocks: np.ndarray, ranges: np.ndarray) -> list[memoryview]:
        """Make room for `blocks` of a shard; returns the memory of each of `ranges`, see `Transfers`."""
        file = self._files[path] = _ArrivedFile(path, blocks)
        return [file.memory(begin, end).data for begin, end in ranges.tolist()]

    def use(self, path: str) -> AbstractContextManager[StoredFile]:
        """The shard at `path`."""
        return nullcontext(self._files[path] if path in self._files else _ArrivedFile(path, np.empty((0, 2), np.int64)))


class _ArrivedFile:
    """Some blocks of one shard."""

    advice = _CORRUPT

    def __init__(self, path: str, blocks: np.ndarray) -> None:
        self.path = without_secrets(path)
        self._begins: list[int] = blocks[:, 0].tolist()
        self._memory = [_like_in_file(begin, end) for begin, end in blocks.tolist()]

    def memory(self, begin: int, end: int) -> np.ndarray:
        """The memory of bytes that lie in one block."""
        block = bisect_right(self._begins, begin) - 1
        first = begin - self._begins[block]
        return self._memory[block][first : first + end - begin]

    def stored(self, offset: int, nbytes: int, take: TakeBuffer) -> np.ndarray:
        """Bytes that have arrived, without copying."""
        return self.memory(offset, offset + nbytes)


def _like_in_file(begin: int, end: int) -> np.ndarray:
    """Memory for bytes of a file, aligned as they are in it: then elements are too."""
    whole = np.empty(end - begin + _LINE, np.uint8)
    first = (begin - whole.ctypes.data) % _LINE
    return whole[first : first + end - begin]


class _Gatherer:
    """Steps gathered as soon as all of their ranges are there, in helper threads while the caller fetches."""

    def __init__(
        self,
        units: Sequence[Unit],
        waiting: Sequence[Sequence[int]],
        missing: list[int],
        read: Callable[[Unit], None],
        threads: int,
    ) -> None:
        self._units, self._waiting, self._missing, self._gather = units, waiting, missing, read
        self._threads = threads
        self._lock = Lock()
        self._running = 0
        self._gathered = 0
        self._error: BaseException | None = None
        self._helpers: list[Future[None]] = []
        self._ready = deque(unit for unit, count in zip(units, missing, strict=True) if count == 0)

    def note(self, number: int) -> None:
        """A range has arrived. Called in the network's threads: does no work itself."""
        with self._lock:
            for unit in self._waiting[number]:
                self._missing[unit] -= 1
                if self._missing[unit] == 0:
                    self._ready.append(self._units[unit])
            start = bool(self._ready) and self._error is None and self._running < self._threads
            if start:
                self._running += 1
                self._helpers = [helper for helper in self._helpers if not helper.done()]
                self._helpers += POOL.submit(self._work, 1)

    def _work(self, *, helps: bool = True) -> None:
        """Gather what is ready, until nothing is."""
        while True:
            with self._lock:
                if not self._ready or self._error is not None:
                    self._running -= helps
                    return
                unit = self._ready.popleft()
            try:
                self._gather(unit)
            except BaseException as error:
                with self._lock:
                    self._error = self._error or error
                continue
            with self._lock:
                self._gathered += 1

    def stop(self) -> None:
        """Begin no more steps, and wait until nobody writes to the output."""
        with self._lock:
            self._ready.clear()
            self._error = self._error or ShardError("given up")
            helpers = list(self._helpers)
        wait([helper for helper in helpers if not helper.cancel()])

    def finish(self) -> None:
        """Gather what is left. Raises what went wrong in a helper."""
        self._work(helps=False)
        with self._lock:
            helpers = list(self._helpers)
        wait([helper for helper in helpers if not helper.cancel()])
        if self._error is not None:
            raise self._error
        if self._gathered != len(self._units):
            raise RuntimeError(f"{len(self._units) - self._gathered} of {len(self._units)} steps never arrived")
