"""One byte range through huggingface_hub's client, for those whose way to the network that client knows.

A proxy, a client set with `huggingface_hub.set_client_factory`, or a name and password in the address.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from huggingface_hub import get_session
from huggingface_hub.utils import _http

from wellkit.fetch.answers import REDIRECTS, Answer, BrokenAnswerError, RedirectError, UnreachableError, check_headers
from wellkit.fetch.parallel import Job
from wellkit.settings import has_proxy

if TYPE_CHECKING:
    from wellkit.fetch.traffic import Traffic


def needs_session(address: str) -> bool:
    """Whether plain connections of our own would not do."""
    parts = urlsplit(address)
    usual = getattr(_http, "default_client_factory", None)
    return (
        "@" in parts.netloc
        or getattr(_http, "_GLOBAL_CLIENT_FACTORY", usual) is not usual
        or has_proxy(parts.scheme, parts.netloc)
    )


def fetch_by_session(
    address: str,
    headers: Mapping[str, str],
    start: int,
    stop: int,
    into: memoryview,
    timeout: float,
    *,
    size: int | None,
    job: Job,
    traffic: Traffic,
    check: Callable[[Answer], None],
) -> Answer:
    """As `wellkit.fetch.sockets.fetch`."""
    session = get_session()
    asked = {**headers, "Range": f"bytes={start}-{stop - 1}"}
    traffic.add(requests=1)
    request = session.build_request("GET", address, headers=asked, timeout=timeout)
    try:
        response = session.send(request, stream=True, follow_redirects=False)
    except Exception as error:
        if type(error).__name__ != "ConnectError":  # of httpx, or its successor
            raise
        raise UnreachableError(str(error)) from error
    try:
        told = response.headers
        if response.status_code in REDIRECTS and told.get("Location"):
            raise RedirectError(told["Location"])
        total = check_headers(response.status_code, told, start, stop, size)
        answer = Answer(total, told.get("ETag", "").removeprefix("W/"))
        check(answer)
        at = 0
        for piece in response.iter_raw():
            traffic.add(received=len(piece))
            if at + len(piece) > len(into):
                raise BrokenAnswerError(f"more than {len(into)} bytes came")
            with job.writing():
                into[at : at + len(piece)] = piece
            at += len(piece)
        if at < len(into):
            raise BrokenAnswerError(f"the answer ended after {at} of {len(into)} bytes")
        return answer
    finally:
        response.close()
