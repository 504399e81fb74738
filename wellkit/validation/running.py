"""Where shards are looked at: threads of this machine, or the workers of a Dask cluster."""

from __future__ import annotations

import queue
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np

from wellkit.errors import ArgumentError, WellkitError
from wellkit.frameworks import require
from wellkit.index.model import ShardIndex
from wellkit.index.safely import Indexer
from wellkit.validation.codes import finding
from wellkit.validation.shard import ShardCheck, ShardJob, ShardResult, check_shard, new_indexer

_PATIENCE = 10.0  # seconds that a scheduler may take to answer

Progress = Callable[[int], None]
"""Called with bytes of shards that are done with, since the last call."""


def run_here(jobs: Sequence[ShardJob], threads: int, progress: Progress) -> Iterator[ShardResult]:
    """Look at shards on threads; in order. Headers are parsed a few shards ahead, in one child process a thread."""
    indexers: queue.SimpleQueue[Indexer] = queue.SimpleQueue()
    made = [new_indexer(jobs[0].options) for _ in range(threads if jobs else 0)]
    for indexer in made:
        indexers.put(indexer)

    def start(job: ShardJob) -> ShardCheck:
        shared = _Shared(indexers)
        with shared.held():
            return ShardCheck(job, shared)

    with ThreadPoolExecutor(threads) as parsers, ThreadPoolExecutor(threads) as readers:
        starting: deque[Future[ShardCheck]] = deque()
        running: deque[tuple[ShardCheck, list[Future[Any]]]] = deque()
        left = iter(jobs)
        try:
            while True:
                while len(starting) < 2 * threads and (job := next(left, None)) is not None:
                    starting.append(parsers.submit(start, job))
                if starting and len(running) <= threads:
                    check = starting.popleft().result()
                    running.append((check, [readers.submit(check.look, work) for work in check.work]))
                elif running:
                    yield _finish(*running.popleft(), progress)
                else:
                    return
        finally:
            parsers.shutdown(cancel_futures=True)  # children are closed when nobody asks them any more
            readers.shutdown(cancel_futures=True)
            for indexer in made:
                indexer.close()


class _Shared:
    """An indexer that many threads may ask: each takes whichever child is free."""

    def __init__(self, idle: queue.SimpleQueue[Indexer]) -> None:
        self._idle = idle
        self._held: Indexer | None = None

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep one child for a while, in which only one thread asks."""
        self._held = self._idle.get()
        try:
            yield
        finally:
            held, self._held = self._held, None
            self._idle.put(held)

    def index(self, path: str) -> ShardIndex:
        """See `Indexer.index`."""
        with self._one() as indexer:
            return indexer.index(path)

    def read(self, where: str, name: str, selection: Sequence[int | slice]) -> np.ndarray:
        """See `Indexer.read`."""
        with self._one() as indexer:
            return indexer.read(where, name, selection)

    @contextmanager
    def _one(self) -> Iterator[Indexer]:
        if self._held is not None:
            yield self._held
            return
        indexer = self._idle.get()
        try:
            yield indexer
        finally:
            self._idle.put(indexer)


def _finish(check: ShardCheck, futures: Sequence[Future[Any]], progress: Progress) -> ShardResult:
    total = sum(work.nbytes for work in check.work)
    told = 0.0
    try:
        for work, future in zip(check.work, futures, strict=True):
            check.take(work, future.result())
            share = check.result.nbytes * work.nbytes / max(1, total)
            told += share
            progress(int(told) - int(told - share))
    except WellkitError as error:
        for future in futures:
            future.cancel()
        return check.finish(error)
    finally:
        progress(check.result.nbytes - int(told))
    return check.finish()


def run_on_cluster(jobs: Sequence[ShardJob], address: str, progress: Progress) -> Iterator[ShardResult]:
    """Look at shards on the workers of a Dask cluster, which must see the same files; in the order of `jobs`.

    Raises:
        MissingDependencyError: dask.distributed is not installed.
        ArgumentError: there is no scheduler at the address.
    """
    distributed = require("distributed", extra="dask", purpose="--scheduler")
    patience = min(_PATIENCE, jobs[0].options.timeout) if jobs else _PATIENCE
    try:
        client = distributed.Client(address, timeout=patience, set_as_default=False)
    except (OSError, ValueError, TimeoutError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ArgumentError(
            f"no Dask scheduler answers at {address} ({reason}); start one with `dask scheduler`, and workers with "
            "`dask worker ADDRESS`"
        ) from error
    with client:
        futures = client.map(check_shard, list(jobs), pure=False)
        numbers = {future.key: number for number, future in enumerate(futures)}
        results: dict[int, ShardResult] = {}
        for future in distributed.as_completed(futures, loop=client.loop):
            number = numbers[future.key]
            results[number] = _collect(future, jobs[number], distributed.scheduler.KilledWorker)
            progress(results[number].nbytes)
        yield from (results[number] for number in range(len(jobs)))


def _collect(future: Any, job: ShardJob, killed: type[Exception]) -> ShardResult:
    try:
        result: ShardResult = future.result()
    except killed as error:
        result = ShardResult(job.split, job.name)
        told = f"the workers that looked at it died ({' '.join(str(error).split())})"
        result.add(finding("unreadable", told, split=job.split, shard=job.name))
    return result
