"""Requests for whole files over huggingface_hub's session: hop by hop, each asked again while that may help."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

from huggingface_hub import get_session, hf_raise_for_status

from wellkit.errors import WellkitError
from wellkit.fetch.redirects import Trail
from wellkit.fetch.retries import ATTEMPTS, is_transient, patiently
from wellkit.fetch.transfer import XetOnlyError
from wellkit.settings import stall_timeout
from wellkit.storage import explain, http_status

LISTING_ATTEMPTS = 4
_Result = TypeVar("_Result")
STALL_TIMEOUT = 30.0  # seconds without a byte
_NO_BRIDGE = frozenset({404, 405, 410, 501})


def longest_stall() -> float:
    """Seconds without a byte after which a connection is given up: `$HF_HUB_DOWNLOAD_TIMEOUT`, or 30."""
    return stall_timeout() or STALL_TIMEOUT


def ask(action: Callable[[], _Result], what: str) -> _Result:
    """Run `action`, again while its failures are transient; what stays wrong is told as ours, about `what`."""
    try:
        return patiently(action, attempts=LISTING_ATTEMPTS)
    except WellkitError:
        raise
    except Exception as error:
        told = explain(error, what, attempts=LISTING_ATTEMPTS if is_transient(error) else 1)
        if told is None:
            raise
        raise told from error


def range_headers(start: int, etag: str) -> dict[str, str]:
    """Headers that ask for a file from byte `start` on, as long as it is still the version `etag`."""
    if not start:
        return {}
    strong = etag.startswith('"')
    return {"Range": f"bytes={start}-", **({"If-Range": etag} if strong else {})}


def open_stream(address: str, headers: Mapping[str, str]) -> Any:
    """The answer to one request, its body not yet read, redirects not followed.

    Raises:
        Exception: what the client raises, also for a status that says no.
    """
    session = get_session()
    request = session.build_request("GET", address, headers=headers, timeout=longest_stall())
    response = session.send(request, stream=True, follow_redirects=False)
    try:
        hf_raise_for_status(response)
    except BaseException:
        response.close()
        raise
    return response


@contextmanager
def stream_from(
    opened: Callable[[str, Mapping[str, str]], Any],
    address: str,
    what: str,
    headers: Mapping[str, str],
    *,
    is_hub: bool,
    sleep: Callable[[float], None] | None,
) -> Iterator[Any]:
    """The response to a request at the end of its redirects. What breaks once the content flows is the caller's.

    Args:
        opened: sends one request, with these headers besides its own.
        address: the first to be asked.
        what: is asked for, for messages.
        headers: for the range.
        is_hub: whether the server may offer a file through Xet alone.
        sleep: waits between attempts.

    Raises:
        HubError, DataNotFoundError: a hop failed for good.
        XetOnlyError: the server offers the file through Xet only.
    """
    trail = Trail(address, what)
    in_xet = False
    while True:
        try:
            response = patiently(partial(opened, trail.address, headers), sleep=sleep)
        except Exception as error:
            status = http_status(error)
            if status == 416:
                raise
            if in_xet and status in _NO_BRIDGE:
                raise XetOnlyError(f"{what}: is kept in Xet, and its plain address answers HTTP {status}") from error
            told = explain(error, what, attempts=ATTEMPTS if is_transient(error) else 1)
            if told is None:
                raise
            raise told from error
        try:
            in_xet = in_xet or (is_hub and "X-Xet-Hash" in response.headers)
            if not response.has_redirect_location:
                if in_xet and response.headers.get("Content-Length", "") == "0":
                    raise XetOnlyError(f"{what}: is kept in Xet, and the server names no plain address")
                yield response
                return
            trail.follow(response.headers["Location"])
        finally:
            response.close()
