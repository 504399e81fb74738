"""One byte range over one connection, straight into the caller's memory.

The standard library's HTTP client, because it reads into memory that is there already and lets go of the interpreter
while it does. huggingface_hub's client (httpx) copies each byte several times with the interpreter locked: on two cores
600 MB/s with 16 connections, at 1.2 ms of processor time a MB, where this reads 1900 MB/s at 0.45 ms. Where a proxy or
a client of the user's own making is between, that one is used all the same: see `wellkit.fetch.session`.
"""

from __future__ import annotations

import http.client
import os
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import quote, urlsplit

from wellkit.fetch.answers import (
    REDIRECTS,
    Answer,
    BrokenAnswerError,
    RedirectError,
    StatusError,
    UnreachableError,
    WrongAnswerError,
    check_headers,
)
from wellkit.fetch.parallel import Job
from wellkit.fetch.session import fetch_by_session, needs_session
from wellkit.fetch.traffic import Traffic
from wellkit.settings import stall_timeout

CONNECT_TIMEOUT = 10.0  # seconds
STALL_TIMEOUT = 15.0  # seconds without a byte after which a connection is given up, unless the user says another
_MOST_IDLE = 64  # connections that are kept for later
_IDLE_TIME = 45.0  # seconds; servers close theirs after a minute or so
_PIECE = 1 << 20  # bytes between two looks at whether anybody still wants the rest


class _Connections:
    """Connections of this process that wait for their next request. A forked child begins with none.

    What a child inherits is closed, which leaves the connections themselves to the parent.
    """

    def __init__(self) -> None:
        self._reset()
        os.register_at_fork(after_in_child=self._after_fork)

    def _after_fork(self) -> None:
        inherited = self._idle
        self._reset()
        for _, _, connection in inherited:
            connection.close()

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


def longest_stall() -> float:
    """Seconds without a byte after which a connection is given up."""
    return stall_timeout() or STALL_TIMEOUT


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
    except socket.gaierror as error:
        raise UnreachableError(error.strerror) from error
    except (OSError, http.client.HTTPException) as error:  # no route, TLS, no HTTP
        text = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise BrokenAnswerError(" ".join(text.split())[:100]) from error


@_network()
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
    parts = urlsplit(address)
    target = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~-._") + (f"?{parts.query}" if parts.query else "")
    asked = {**headers, "Range": f"bytes={start}-{stop - 1}"}
    while True:
        connection, is_used = CONNECTIONS.take(parts.scheme, parts.netloc)
        if not is_used and needs_session(address):
            return fetch_by_session(
                address, headers, start, stop, into, longest_stall(), size=size, job=job, traffic=traffic, check=check
            )
        traffic.add(requests=1)
        try:
            response = _ask(connection, target, asked, job)
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
        if response.status in REDIRECTS and told.get("Location"):
            is_whole = _skip(response)
            raise RedirectError(told["Location"])
        try:
            total = check_headers(response.status, told, start, stop, size)
        except StatusError:
            is_whole = _skip(response)
            raise
        answer = Answer(total, told.get("ETag", "").removeprefix("W/"))
        check(answer)
        _receive(connection, response, into, job, traffic)
        is_whole = True
        return answer
    finally:
        response.close()
        if is_whole and not response.will_close and connection.sock is not None:
            CONNECTIONS.put(parts.scheme, parts.netloc, connection)
        else:
            connection.close()


def _ask(
    connection: http.client.HTTPConnection, target: str, headers: dict[str, str], job: Job
) -> http.client.HTTPResponse:
    if connection.sock is None:
        connection.connect()
    sock: socket.socket | None = connection.sock
    assert sock is not None
    sock.settimeout(longest_stall())
    with job.interruptible(lambda: _interrupt(sock)):
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
) -> None:
    """Read a body of exactly the memory's length."""
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


def _interrupt(sock: Any) -> None:
    """Wake the thread that waits for a socket's bytes. Past TLS, whose state is that thread's."""
    with suppress(OSError, ValueError, TypeError):
        socket.socket.shutdown(sock, socket.SHUT_RDWR)
