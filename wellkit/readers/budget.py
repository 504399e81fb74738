"""Memory that the threads of a process share while they read."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager


class _Here:
    """What threads of one process have taken."""

    def __init__(self) -> None:
        self.process = os.getpid()
        self.changed = threading.Condition(threading.Lock())
        self.taken = 0
        self.waiting: deque[object] = deque()


class Budget:
    """Bytes that may be taken at a time: first come, first served. Picklable; each process has its own.

    Args:
        limit: bytes.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._here = _Here()

    def __getstate__(self) -> dict[str, int]:
        return {"limit": self.limit}

    def __setstate__(self, state: dict[str, int]) -> None:
        self.limit = state["limit"]
        self._here = _Here()

    @contextmanager
    def hold(self, nbytes: int) -> Iterator[None]:
        """Wait until so many bytes are free, or all are for more than there are; take them while the block runs."""
        here = self._here
        if here.process != os.getpid():
            here = self._here = _Here()  # what the parent's threads hold, maybe the lock, is not this process's
        wanted, own = min(nbytes, self.limit), object()
        with here.changed:
            here.waiting.append(own)
            try:
                while here.waiting[0] is not own or here.taken + wanted > self.limit:
                    here.changed.wait()
                here.taken += wanted
            finally:
                here.waiting.remove(own)
                here.changed.notify_all()
        try:
            yield
        finally:
            with here.changed:
                here.taken -= wanted
                here.changed.notify_all()
