"""What can go wrong between a Hub and its client: each fault changes the answers it is meant for."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path


@dataclass
class Request:
    """A request as it came in, and what became of it."""

    server: str  # "hub" or "store", the second host that LFS files are redirected to
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]  # names in lower case
    status: int = 0
    sent: int = 0  # bytes of the body
    connection: int = 0  # the client's port
    began: float = 0.0  # by time.monotonic()
    ended: float = 0.0


@dataclass
class Answer:
    """An answer before it is sent. `content` is bytes, or a slice of a file that is sent piece by piece."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    content: bytes | tuple[Path, int, int] = b""
    stop_after: int | None = None  # close the connection after this many bytes of the body
    reset: bool = False  # and do it with a reset instead of an orderly end
    announced: bool = True  # without it no Content-Length: the body lasts until the connection ends
    flip_at: int | None = None  # invert the byte at this offset of the file
    latency: float = 0.0  # seconds before the first byte
    bytes_per_second: float | None = None
    hang: float = 0.0  # seconds after the body (or what is sent of it) in which nothing happens

    @property
    def length(self) -> int:
        """Bytes of the body as they are announced."""
        return len(self.content) if isinstance(self.content, bytes) else self.content[2] - self.content[1]


Change = Callable[[Answer], None]


@dataclass
class Fault:
    """Apply `change` to the answers of matching requests.

    Args:
        change: one of the functions below, or any other.
        path: a regular expression searched for in the request's path.
        method: the request method it is for.
        server: "hub", "store", or None for both.
        every: only every n-th matching request.
        times: at most so often; None: always.
    """

    change: Change
    path: str = ""
    method: str = "GET"
    server: str | None = None
    every: int = 1
    times: int | None = None
    _seen: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def apply(self, request: Request, answer: Answer) -> None:
        if request.method != self.method or self.server not in (None, request.server):
            return
        if not re.search(self.path, request.path):
            return
        with self._lock:
            if self.times == 0:
                return
            self._seen += 1
            if self._seen % self.every:
                return
            if self.times is not None:
                self.times -= 1
        self.change(answer)


def unavailable(status: int = 503, retry_after: float | str | None = 0) -> Change:
    """An error status, with `Retry-After` unless None."""

    def change(answer: Answer) -> None:
        answer.status, answer.content = status, b"<html><body>Service Unavailable</body></html>"
        answer.headers = {"Content-Type": "text/html"}
        if retry_after is not None:
            answer.headers["Retry-After"] = str(retry_after)

    return change


def html_page(answer: Answer) -> None:
    """Status 200 with a web page instead of the file, as captive portals and broken proxies answer."""
    answer.status, answer.content = (
        200,
        b"<!DOCTYPE html><html><body>Please log in to the network</body></html>",
    )
    answer.headers = {"Content-Type": "text/html; charset=utf-8"}


def truncated(after: int, *, reset: bool = False) -> Change:
    """The announced length, but the connection ends after some bytes."""

    def change(answer: Answer) -> None:
        answer.stop_after, answer.reset = after, reset

    return change


def stalled(after: int, seconds: float = 60.0) -> Change:
    """Some bytes of the body, then nothing, though the connection stays open."""

    def change(answer: Answer) -> None:
        answer.stop_after, answer.hang = after, seconds

    return change


def in_turn(*changes: Change) -> Change:
    """Another of some faults each time."""
    lock, following = threading.Lock(), cycle(changes)

    def change(answer: Answer) -> None:
        with lock:
            chosen = next(following)
        chosen(answer)

    return change


def with_headers(**headers: str) -> Change:
    """Other headers; underscores in the names stand for dashes."""

    def change(answer: Answer) -> None:
        answer.headers |= {name.replace("_", "-"): value for name, value in headers.items()}

    return change


def whole_file(answer: Answer) -> None:
    """Status 200 with all of the file for a range of it, as servers answer that know no ranges."""
    if not isinstance(answer.content, bytes) and answer.status == 206:
        path = answer.content[0]
        answer.status, answer.content = 200, (path, 0, path.stat().st_size)
        del answer.headers["Content-Range"]


def shortened(by: int) -> Change:
    """A body that is too short, announced with its own, wrong length."""

    def change(answer: Answer) -> None:
        if isinstance(answer.content, bytes):
            answer.content = answer.content[:-by]
        else:
            path, start, stop = answer.content
            answer.content = (path, start, stop - by)

    return change


def unannounced(content: bytes) -> Change:
    """Another body without a length, as servers that speak HTTP/1.0 send it."""

    def change(answer: Answer) -> None:
        answer.content, answer.announced = content, False

    return change


def corrupted(offset: int) -> Change:
    """One byte of the file inverted on the way."""

    def change(answer: Answer) -> None:
        answer.flip_at = offset

    return change


def slow(bytes_per_second: float, latency: float = 0.0) -> Change:
    """A thin line."""

    def change(answer: Answer) -> None:
        answer.bytes_per_second, answer.latency = bytes_per_second, latency

    return change


def leads_to(target: str) -> Change:
    """A redirect, which tells of the file what the answer would have told."""

    def change(answer: Answer) -> None:
        told = {name: value for name, value in answer.headers.items() if name.lower().startswith("x-")}
        answer.status, answer.headers, answer.content = 302, {**told, "Location": target}, b""

    return change
