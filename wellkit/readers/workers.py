"""A few threads that help the one that reads: for work that leaves the interpreter lock alone."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TypeVar

_LIMIT = 8
_Item = TypeVar("_Item")


class _Pool:
    """Threads of this process, started when first needed; a forked child starts its own."""

    def __init__(self) -> None:
        self._reset()
        os.register_at_fork(after_in_child=self._reset)

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._threads: ThreadPoolExecutor | None = None

    def submit(self, task: Callable[[], None]) -> Future[None]:
        with self._lock:
            if self._threads is None:
                self._threads = ThreadPoolExecutor(_LIMIT, thread_name_prefix="wellkit-read")
            return self._threads.submit(task)


_POOL = _Pool()


def usable_cores() -> int:
    """Processor cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def share(items: Iterable[_Item], task: Callable[[_Item], object], threads: int) -> None:
    """Run `task` on every item, here and in up to `threads - 1` helpers, until all have returned.

    The caller takes part, so that it never waits for helpers that others keep busy.

    Raises:
        What `task` raised, here or in a helper; items that nobody had begun are then left out.
    """
    left = iter(items)
    lock = threading.Lock()
    stopped = False

    def work() -> None:
        nonlocal stopped
        while True:
            with lock:
                item = None if stopped else next(left, None)
            if item is None:
                return
            try:
                task(item)
            except BaseException:
                stopped = True
                raise

    helpers = [_POOL.submit(work) for _ in range(min(threads - 1, _LIMIT))]
    try:
        work()
    finally:
        # Helpers write to memory of the caller: none may go on when this returns.
        started = [helper for helper in helpers if not helper.cancel()]
        wait(started)
    for helper in started:
        helper.result()
