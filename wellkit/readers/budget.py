"""Memory that the threads of a process share while they read."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager


class Budget:
    """Bytes that may be taken at a time: first come, first served. Picklable; each process has its own.

    Args:
        limit: bytes.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._reset()

    def _reset(self) -> None:
        self._process = os.getpid()
        self._changed = threading.Condition(threading.Lock())
        self._taken = 0
        self._waiting: deque[object] = deque()

    def __getstate__(self) -> dict[str, int]:
        return {"limit": self.limit}

    def __setstate__(self, state: dict[str, int]) -> None:
        self.limit = state["limit"]
        self._reset()

    @contextmanager
    def hold(self, nbytes: int) -> Iterator[None]:
        """Wait until so many bytes are free, or all are for more than there are; take them while the block runs."""
        if self._process != os.getpid():
            self._reset()  # what the parent's threads hold, maybe the lock, is not this process's
        wanted, own = min(nbytes, self.limit), object()
        with self._changed:
            self._waiting.append(own)
            try:
                while self._waiting[0] is not own or self._taken + wanted > self.limit:
                    self._changed.wait()
                self._taken += wanted
            finally:
                self._waiting.remove(own)
                self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._taken -= wanted
                self._changed.notify_all()
