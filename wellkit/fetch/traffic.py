"""What this process asks of whom: counted, and held back where a server wants it."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from wellkit.fetch.answers import StatusError
from wellkit.fetch.parallel import Job
from wellkit.fetch.retries import LONGEST_RETRY_AFTER, retry_after


@dataclass
class Traffic:
    """What was asked for and received."""

    n_requests: int = 0
    bytes_received: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, *, requests: int = 0, received: int = 0) -> None:
        """Count."""
        with self._lock:
            self.n_requests += requests
            self.bytes_received += received


class _Pauses:
    """Hosts that said that this client asks too often (HTTP 429): nobody asks them again before the time."""

    def __init__(self) -> None:
        self._until: dict[str, float] = {}

    def note(self, address: str, error: StatusError) -> None:
        """Remember what a server said."""
        seconds = retry_after(error)
        if error.response.status_code == 429 and seconds is not None and seconds <= LONGEST_RETRY_AFTER:
            self._until[urlsplit(address).netloc] = time.monotonic() + seconds

    def wait(self, address: str, job: Job) -> None:
        """Until the host may be asked. Raises StoppedError if the job ends before."""
        until = self._until.get(urlsplit(address).netloc, 0.0)
        if until > time.monotonic():
            job.sleep(until - time.monotonic())


PAUSES = _Pauses()
