"""One byte range over one connection, straight into the caller's memory.

The standard library's HTTP client, because it reads into memory that is there already and lets go of the interpreter
while it does: huggingface_hub's client makes several copies of each byte with the interpreter locked (measured in
docs/performance.md), and writes whole addresses, signatures included, to the log.
"""

from __future__ import annotations

import http.client
import os
import re
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote, urlsplit

from wellkit.errors import HubError, ShardError, WellkitError
from wellkit.fetch.parallel import Job
from wellkit.fetch.retries import LONGEST_RETRY_AFTER, retry_after

CONNECT_TIMEOUT = 10.0  # seconds
STALL_TIMEOUT = 15.0  # seconds without a byte after which a connection is given up
_MOST_IDLE = 64  # connections that are kept for later
_IDLE_TIME = 45.0  # seconds; servers close theirs after a minute or so
_PIECE = 1 << 20  # bytes between two looks at whether anybody still wants the rest
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")
_HTML = frozenset({"text/html", "application/xhtml+xml"})


class StatusError(ConnectionError):
    """The server answered with a status that is no answer. Knows no address: those are secrets."""

    def __init__(self, status: int, headers: Mapping[str, str]) -> None:
        super().__init__(f"HTTP {status}")
        self.response = SimpleNamespace(status_code=status, headers=headers)


class BrokenAnswerError(ConnectionError):
    """The answer breaks off, or is not what was asked for; another attempt may go well."""


class WrongAnswerError(Exception):
    """The answer cannot be right, and would not be the next time. Its message continues "<location>: "."""

    kind: type[WellkitError] = HubError


class NoSuchBytesError(WrongAnswerError):
    """The file ends before the range does."""

    kind = ShardError

    def __init__(self, start: int, stop: int, size: int) -> None:
        super().__init__(f"has {size} bytes, so none {start}-{stop - 1}; it is cut off, or not the file that is meant")


class ChangedError(WrongAnswerError):
    """The file is not the one that it was."""

    kind = ShardError


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


@dataclass(frozen=True)
class Answer:
    """What came with a range: bytes of the whole file (None where it is not told), and its ETag."""

    size: int | None
    etag: str


class RedirectError(Exception):
    """The range is elsewhere."""

    def __init__(self, address: str) -> None:
        super().__init__("redirected")
        self.address = address


def check_headers(status: int, headers: Mapping[str, str], start: int, stop: int, size: int | None) -> int | None:
    """Refuse an answer that cannot be bytes [start, stop) of a file of `size` bytes before any of it is used.

    Returns:
        bytes of the file, as the answer says.

    Raises:
        StatusError: an error status.
        ChangedError: the file is not as long as it was.
        NoSuchBytesError: it ends before the range does.
        WrongAnswerError: a web page, the whole file, or an encoded one.
        BrokenAnswerError: another range.
    """
    kind = headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if status == 416:
        told = headers.get("Content-Range", "").rpartition("/")[2]
        if not told.isdecimal():
            raise WrongAnswerError(f"the server has no bytes {start}-{stop - 1} (HTTP 416)")
        _check_size(int(told), start, stop, size)
        raise BrokenAnswerError(f"bytes {start}-{stop - 1} were refused (HTTP 416)")
    if status not in {200, 206}:
        raise StatusError(status, headers)
    if kind in _HTML:
        raise WrongAnswerError(
            f"bytes {start}-{stop - 1} came as a web page (HTTP {status} with HTML): a login page of the network, or a "
            "proxy; check HF_ENDPOINT"
        )
    if headers.get("Content-Encoding", "identity").lower() != "identity":
        raise WrongAnswerError(
            f"bytes {start}-{stop - 1} came encoded ({headers['Content-Encoding']}), though that was declined; a proxy "
            "or server between alters files"
        )
    length = headers.get("Content-Length", "")
    if status == 200:
        if not length.isdecimal() or start != 0 or int(length) != stop:
            raise WrongAnswerError(
                f"the server answers bytes {start}-{stop - 1} with the whole file (HTTP 200): it cannot serve ranges; "
                "download the dataset instead"
            )
        total: int | None = stop
    else:
        match = _CONTENT_RANGE.fullmatch(headers.get("Content-Range", "").strip())
        if match is None:
            raise BrokenAnswerError("HTTP 206 without a usable Content-Range")
        total = None if match[3] == "*" else int(match[3])
        _check_size(total, start, stop, size)
        if (int(match[1]), int(match[2]) + 1) != (start, stop):
            raise BrokenAnswerError(f"bytes {match[1]}-{match[2]} came instead of {start}-{stop - 1}")
    _check_size(total, start, stop, size)
    if length.isdecimal() and int(length) != stop - start:
        raise BrokenAnswerError(f"{length} bytes were announced instead of {stop - start}")
    return total


def _check_size(told: int | None, start: int, stop: int, size: int | None) -> None:
    if told is not None and size is not None and told != size:
        raise ChangedError(f"has {told} bytes")
    if told is not None and stop > told:
        raise NoSuchBytesError(start, stop, told)


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


class _Connections:
    """Connections of this process that wait for their next request. A forked child begins with none.

    What a child inherits is dropped, not shut down: the parent goes on using it.
    """

    def __init__(self) -> None:
        self._reset()
        os.register_at_fork(after_in_child=self._reset)

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._idle: list[tuple[float, tuple[str, str], http.client.HTTPConnection]] = []
        self._context: ssl.SSLContext | None = None

    def take(self, scheme: str, host: str) -> tuple[http.client.HTTPConnection, bool]:
        """A connection to a host, and whether it was used before."""
        dropped = []
        found = None
        with self._lock:
            oldest = time.monotonic() - _IDLE_TIME
            while self._idle and self._idle[0][0] < oldest:
                dropped.append(self._idle.pop(0)[2])
            for number in range(len(self._idle) - 1, -1, -1):
                if self._idle[number][1] == (scheme, host):
                    candidate = self._idle.pop(number)[2]
                    if _is_alive(candidate):
                        found = candidate
                        break
                    dropped.append(candidate)
        for connection in dropped:
            connection.close()
        return (found, True) if found is not None else (self._new(scheme, host), False)

    def put(self, scheme: str, host: str, connection: http.client.HTTPConnection) -> None:
        """Keep a connection whose last answer was read to its end."""
        dropped = None
        with self._lock:
            self._idle.append((time.monotonic(), (scheme, host), connection))
            if len(self._idle) > _MOST_IDLE:
                dropped = self._idle.pop(0)[2]
        if dropped is not None:
            dropped.close()

    def _new(self, scheme: str, host: str) -> http.client.HTTPConnection:
        if scheme == "http":
            return http.client.HTTPConnection(host, timeout=CONNECT_TIMEOUT)
        with self._lock:
            if self._context is None:
                self._context = _trust()
        return http.client.HTTPSConnection(host, timeout=CONNECT_TIMEOUT, context=self._context)


CONNECTIONS = _Connections()


def _trust() -> ssl.SSLContext:
    """The certificates that huggingface_hub's client trusts."""
    import importlib

    from huggingface_hub import get_session

    library = importlib.import_module(type(get_session()).__module__.partition(".")[0])  # httpx, or its successor
    context = library.create_ssl_context()
    assert isinstance(context, ssl.SSLContext)
    return context


def _is_alive(connection: http.client.HTTPConnection) -> bool:
    """Whether an idle connection is still open: a server that closed it has sent its end."""
    if connection.sock is None:
        return False
    try:
        poll = select.poll()
        poll.register(connection.sock, select.POLLIN)
        return not poll.poll(0)
    except (OSError, ValueError, AttributeError):
        return False


@contextmanager
def _network() -> Iterator[None]:
    """Whatever goes wrong with a connection as one of a few errors."""
    try:
        yield
    except (ConnectionError, TimeoutError):
        raise
    except ssl.SSLCertVerificationError as error:
        raise WrongAnswerError(
            f"the server's certificate is not trusted ({error.verify_message}); check the proxy settings and the clock"
        ) from error
    except http.client.InvalidURL as error:
        raise WrongAnswerError("the server redirects to what is no address; check HF_ENDPOINT") from error
    except (OSError, http.client.HTTPException) as error:  # no such host, no route, TLS, no HTTP
        text = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise BrokenAnswerError(" ".join(text.split())[:100]) from error


def fetch(
    address: str,
    headers: Mapping[str, str],
    start: int,
    stop: int,
    into: memoryview,
    *,
    size: int | None,
    job: Job,
    traffic: Traffic,
    check: Callable[[Answer], None] = lambda answer: None,
) -> Answer:
    """Fill `into` with bytes [start, stop) of what is at an address.

    Args:
        address: http:// or https://.
        headers: of the request, but the range.
        size: bytes of the file where they are known.
        check: looks at the answer before its body is read; may raise.

    Raises:
        RedirectError: it is elsewhere.
        StoppedError: the job ended.
        ConnectionError, TimeoutError: the connection fails, breaks or stalls; `StatusError`, `BrokenAnswerError`.
        WrongAnswerError: what came is not what was asked for, and would not be the next time.
    """
    with _network():
        return _fetch(address, headers, start, stop, into, size, job, traffic, check)


def _fetch(
    address: str,
    headers: Mapping[str, str],
    start: int,
    stop: int,
    into: memoryview,
    size: int | None,
    job: Job,
    traffic: Traffic,
    check: Callable[[Answer], None],
) -> Answer:
    parts = urlsplit(address)
    scheme, host = parts.scheme, parts.netloc.rpartition("@")[2]
    target = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~-._") + (f"?{parts.query}" if parts.query else "")
    asked = {**headers, "Range": f"bytes={start}-{stop - 1}"}
    while True:
        connection, is_used = CONNECTIONS.take(scheme, host)
        traffic.add(requests=1)
        try:
            response = _ask(connection, target, asked)
        except BaseException as error:
            connection.close()
            if is_used and isinstance(error, ConnectionError | http.client.BadStatusLine):
                job.check()
                continue  # the server had closed it meanwhile: says nothing about the next one
            raise
        break
    is_whole = False
    try:
        told = response.headers
        if response.status in {301, 302, 303, 307, 308} and told.get("Location"):
            is_whole = _skip(response)
            raise RedirectError(told["Location"])
        try:
            total = check_headers(response.status, told, start, stop, size)  # type: ignore[arg-type]
        except StatusError:
            is_whole = _skip(response)
            raise
        answer = Answer(total, told.get("ETag", "").removeprefix("W/"))
        check(answer)
        is_whole = _receive(connection, response, into, job, traffic)
        return answer
    finally:
        response.close()
        if is_whole and not response.will_close and connection.sock is not None:
            CONNECTIONS.put(scheme, host, connection)
        else:
            connection.close()


def _ask(connection: http.client.HTTPConnection, target: str, headers: dict[str, str]) -> http.client.HTTPResponse:
    if connection.sock is None:
        connection.connect()
        connection.sock.settimeout(STALL_TIMEOUT)
        connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.request("GET", target, headers=headers)
    return connection.getresponse()


def _skip(response: http.client.HTTPResponse) -> bool:
    """Read the short body of an answer that is of no use; whether that was all of it."""
    with suppress(OSError, http.client.HTTPException):
        if response.length is not None and response.length <= 1 << 16:
            response.read()
            return True
    return False


def _receive(
    connection: http.client.HTTPConnection,
    response: http.client.HTTPResponse,
    into: memoryview,
    job: Job,
    traffic: Traffic,
) -> bool:
    """Read a body of exactly the memory's length. Returns whether the connection can be used again."""
    sock: Any = connection.sock or getattr(getattr(response.fp, "raw", None), "_sock", None)
    with job.writing(), job.interruptible(lambda: _interrupt(sock)):
        at = 0
        while at < len(into):
            count = response.readinto(into[at : at + _PIECE])
            job.check()
            if count == 0:
                raise BrokenAnswerError(f"the answer ended after {at} of {len(into)} bytes")
            traffic.add(received=count)
            at += count
        if response.length is None and response.read(1):
            raise BrokenAnswerError(f"more than {len(into)} bytes came")
    return True


def _interrupt(sock: Any) -> None:
    """Wake the thread that waits for a socket's bytes. Past TLS, whose state is that thread's."""
    with suppress(OSError, ValueError, TypeError):
        socket.socket.shutdown(sock, socket.SHUT_RDWR)
