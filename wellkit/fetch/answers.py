"""What a server answers to a request for a range, and whether it can be that."""

from __future__ import annotations

import re
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Protocol

from wellkit.errors import HubError, ShardError, WellkitError

_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")
_HTML = frozenset({"text/html", "application/xhtml+xml"})
REDIRECTS = frozenset({301, 302, 303, 307, 308})


class StatusError(ConnectionError):
    """The server answered with a status that is no answer. Knows no address: those are secrets."""

    def __init__(self, status: int, headers: Headers) -> None:
        super().__init__(f"HTTP {status}")
        self.response = SimpleNamespace(status_code=status, headers=headers)


class BrokenAnswerError(ConnectionError):
    """The answer breaks off, or is not what was asked for; another attempt may go well."""


class UnreachableError(ConnectionError):
    """There is no such host, or it takes no connections."""


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


class Headers(Protocol):
    """Headers of an answer, by names in any case."""

    def get(self, name: str, default: str, /) -> str: ...


def check_headers(status: int, headers: Headers, start: int, stop: int, size: int | None) -> int | None:
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
    encoding = headers.get("Content-Encoding", "identity").lower()
    if encoding != "identity":
        raise WrongAnswerError(
            f"bytes {start}-{stop - 1} came encoded ({encoding}), though that was declined; a proxy "
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
