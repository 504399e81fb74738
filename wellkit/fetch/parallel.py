"""Many transfers at a time, in threads that all readers of a process share, and that stop when one of them fails."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from queue import Empty, SimpleQueue

MOST_THREADS = 64  # of a process
_IDLE = 10.0  # seconds after which a thread without work ends


class StoppedError(Exception):
    """Another transfer failed, or the caller was interrupted: this one is given up.

    Leaves this floor only where another thread has asked for it with `give_up`.
    """


class _Threads:
    """Threads that wait for the network. A forked child starts its own.

    They are daemons: one that waits for a server that says nothing must not keep an interrupted program from ending.
    No thread writes to anybody's memory without the permission of a `Job`.
    """

    def __init__(self) -> None:
        self._reset()
        os.register_at_fork(after_in_child=self._reset)

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._tasks: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._count = 0  # threads
        self._load = 0  # tasks that wait or run

    def submit(self, task: Callable[[], None]) -> None:
        """Run `task`, which raises nothing, in a thread; in order of arrival where all are busy."""
        with self._lock:
            self._load += 1
            self._tasks.put(task)
            start = self._load > self._count and self._count < MOST_THREADS
            if start:
                self._count += 1
        if start:
            threading.Thread(target=self._work, name="wellkit-fetch", daemon=True).start()

    def _work(self) -> None:
        tasks = self._tasks
        while True:
            try:
                task = tasks.get(timeout=_IDLE)
            except Empty:
                with self._lock:
                    if tasks.empty():
                        self._count -= 1
                        return
                continue
            try:
                task()
            finally:
                del task  # what it holds is not this thread's to keep
                with self._lock:
                    self._load -= 1


THREADS = _Threads()


_RUNNING: dict[Job, int] = {}  # by job, the thread that waits for it
os.register_at_fork(after_in_child=_RUNNING.clear)


def give_up(threads: Collection[int]) -> None:
    """Have all jobs that these threads wait for raise StoppedError there."""
    for job, thread in list(_RUNNING.items()):
        if thread in threads:
            job.give_up()


class Job:
    """Some transfers that succeed together or fail together.

    Args:
        tasks: the transfers, begun in this order.
        width: how many run at a time.
    """

    def __init__(self, tasks: Sequence[Callable[[Job], None]], width: int) -> None:
        self._waiting = deque(tasks)
        self._width = width
        self._left = len(tasks)
        self._running = 0
        self._changed = threading.Condition(threading.Lock())
        self._stop = threading.Event()
        self._writers: set[object] = set()
        self._interrupts: dict[object, Callable[[], object]] = {}
        self._error: BaseException | None = None

    def run(self) -> None:
        """Run all; returns when they are done, or raises what the first that failed raised.

        Either way nobody is within `writing` when it returns.

        Raises:
            StoppedError: it was given up.
        """
        _RUNNING[self] = threading.get_ident()
        try:
            with self._changed:
                self._submit()
                while self._left and self._error is None:
                    self._changed.wait()
        finally:
            _RUNNING.pop(self, None)
            self._end()
        if self._error is not None:
            raise self._error

    def give_up(self) -> None:
        """Have `run`, in another thread, raise StoppedError."""
        with self._changed:
            if self._error is None:
                self._error = StoppedError()
            self._changed.notify_all()

    def _submit(self) -> None:
        while self._waiting and self._running < self._width and self._error is None:
            self._running += 1
            task = self._waiting.popleft()
            THREADS.submit(lambda task=task: self._do(task))  # type: ignore[misc]

    def _do(self, task: Callable[[Job], None]) -> None:
        error: BaseException | None = None
        if not self._stop.is_set():
            try:
                task(self)
            except BaseException as raised:
                error = raised
        with self._changed:
            self._running -= 1
            self._left -= 1
            if error is not None and not isinstance(error, StoppedError) and self._error is None:
                self._error = error
            if self._stop.is_set():
                return
            self._submit()
            if self._left == 0 or self._error is not None:
                self._changed.notify_all()

    def _end(self) -> None:
        """Stop what still runs, and wait until nobody writes any more."""
        interrupted: KeyboardInterrupt | None = None
        while True:
            try:
                with self._changed:
                    self._stop.set()
                    self._waiting.clear()
                    interrupts = list(self._interrupts.values())
                for interrupt in interrupts:
                    interrupt()
                with self._changed:
                    while self._writers:
                        self._changed.wait()
                break
            except KeyboardInterrupt as error:
                interrupted = error  # the memory has to be left alone first
        if interrupted is not None:
            raise interrupted

    def check(self) -> None:
        """Raises StoppedError if the job was given up."""
        if self._stop.is_set():
            raise StoppedError

    def sleep(self, seconds: float) -> None:
        """Wait, but not longer than the job lives. Raises StoppedError if it ended."""
        if self._stop.wait(seconds):
            raise StoppedError

    @contextmanager
    def interruptible(self, interrupt: Callable[[], object]) -> Iterator[None]:
        """While a thread waits for something that `interrupt`, called from another thread, brings to an end.

        Raises:
            StoppedError: the job ended.
        """
        key = object()
        with self._changed:
            if self._stop.is_set():
                raise StoppedError
            self._interrupts[key] = interrupt
        try:
            yield
        finally:
            with self._changed:
                del self._interrupts[key]

    @contextmanager
    def writing(self) -> Iterator[None]:
        """While a thread writes to the caller's memory, or tells the caller of it.

        Raises:
            StoppedError: the job ended; nothing may be written.
        """
        key = object()
        with self._changed:
            if self._stop.is_set():
                raise StoppedError
            self._writers.add(key)
        try:
            yield
        finally:
            with self._changed:
                self._writers.discard(key)
                if self._stop.is_set() and not self._writers:
                    self._changed.notify_all()
