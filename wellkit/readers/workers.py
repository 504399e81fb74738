"""A few threads that help the one that reads: for work that leaves the interpreter lock alone."""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from functools import lru_cache
from typing import TypeVar

_LIMIT = 8
_Item = TypeVar("_Item")


@lru_cache(maxsize=1)
def _current_core() -> Callable[[], int] | None:
    """What tells the core that the calling thread runs on, where threads can be moved to others."""
    if not hasattr(os, "sched_setaffinity"):
        return None
    try:
        ask = ctypes.CDLL(None).sched_getcpu
    except (OSError, AttributeError):
        return None
    return ask if ask() >= 0 else None


class _Pool:
    """Threads of this process, started when first needed; a forked child starts its own."""

    def __init__(self) -> None:
        self._reset()
        os.register_at_fork(after_in_child=self._reset)

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._threads: ThreadPoolExecutor | None = None
        self._cores: dict[int, frozenset[int]] = {}  # by thread, those it may run on

    def submit(self, task: Callable[[], None], count: int) -> list[Future[None]]:
        """Run `task` in up to `count` threads, on other cores than the caller's.

        Left to itself, Linux often wakes a thread on the core that it is woken from, where it waits until the caller
        pauses or milliseconds have passed: as long as all the work takes.
        """
        with self._lock:
            if self._threads is None:
                self._threads = ThreadPoolExecutor(
                    _LIMIT, thread_name_prefix="wellkit-read", initializer=self._note_thread
                )
            self._move_away()
            return [self._threads.submit(task) for _ in range(count)]

    def _note_thread(self) -> None:
        self._cores[threading.get_native_id()] = frozenset()

    def _move_away(self) -> None:
        ask = _current_core()
        if ask is None:
            return
        others = frozenset(os.sched_getaffinity(0)) - {ask()}
        for thread, cores in list(self._cores.items()):
            if others and cores != others:
                with suppress(OSError):  # cores may be taken from the process at any time
                    os.sched_setaffinity(thread, others)
                self._cores[thread] = others


POOL = _Pool()


def usable_cores() -> int:
    """Processor cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


_READING: set[int] = set()  # threads of this process that are reading
os.register_at_fork(after_in_child=_READING.clear)


@contextmanager
def reading(threads: int) -> Iterator[int]:
    """Be counted among the threads that read, while the block runs. How many of `threads` are left for this one."""
    own = threading.get_ident()
    _READING.add(own)
    try:
        yield max(1, threads + 1 - len(_READING))
    finally:
        _READING.discard(own)


def is_alone() -> bool:
    """Whether no other thread of this process is reading."""
    return len(_READING) <= 1


def share(items: Iterable[_Item], task: Callable[[_Item], object], threads: int) -> None:
    """Run `task` on every item, here and in up to `threads - 1` helpers, until all have returned.

    The caller takes part, so that it never waits for helpers that others keep busy.

    Raises:
        What `task` raised, here or in a helper; items that nobody had begun are then left out.
    """
    if threads == 1:
        for item in items:
            task(item)
        return
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

    helpers = POOL.submit(work, min(threads - 1, _LIMIT))
    try:
        work()
    finally:
        # Helpers write to memory of the caller: none may go on when this returns.
        started = [helper for helper in helpers if not helper.cancel()]
        wait(started)
    for helper in started:
        helper.result()
