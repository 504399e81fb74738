"""Where the bytes of a Hub file are: asked once a file and process, and again when the answer runs out.

The Hub redirects requests for large files to a store, with a signature that holds for an hour or so.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import partial
from typing import Any
from urllib.parse import parse_qs, urlsplit

from huggingface_hub import get_session, hf_hub_url, hf_raise_for_status

from wellkit.errors import HubError
from wellkit.fetch.answers import (
    Answer,
    ChangedError,
    NoSuchBytesError,
    RedirectError,
    StatusError,
    UnreachableError,
)
from wellkit.fetch.hub import HubSource
from wellkit.fetch.listing import HubPlace
from wellkit.fetch.parallel import Job
from wellkit.fetch.plan import check_paths
from wellkit.fetch.redirects import Trail
from wellkit.fetch.requests import longest_stall
from wellkit.fetch.sockets import fetch
from wellkit.fetch.traffic import PAUSES, Traffic
from wellkit.settings import hub_offline

_MARGIN = 60.0  # seconds before the end of a link that it is renewed, and at most
_MARGIN_SHARE = 0.25  # of its life
_MOST_FILES = 1 << 14
_REFUSED = frozenset({401, 403, 404, 410})  # how stores answer links that they no longer take
Patiently = Callable[[Callable[[], "Link"]], "Link"]
_DATE = re.compile(r"\d{8}T\d{6}Z")


@dataclass(frozen=True)
class Link:
    """Where a file's ranges are read from. `address` is a secret where it is signed."""

    address: str
    headers: Mapping[str, str]
    is_own: bool  # the Hub's own address: its refusals are final
    good_until: float  # by time.monotonic(), some time before it runs out

    def __repr__(self) -> str:
        return f"Link(is_own={self.is_own})"


class HubFile:
    """One file on the Hub: what is known of it in this process. Thread-safe.

    Attributes:
        name: its location, for messages.
        size: bytes, or None as long as nobody has told.
    """

    def __init__(self, source: HubSource, place: HubPlace) -> None:
        self.source, self.place = source, place
        self.name = f"{place.root}/{place.path}"
        self.size: int | None = None
        self._etag = ""
        self._store_etags: dict[str, str] = {}  # by host
        self._link: Link | None = None
        self._lock = threading.Lock()

    def inherit(self) -> None:
        """In a forked child: another thread of the parent may have held the lock."""
        self._lock = threading.Lock()

    def link(self, patiently: Patiently, *, refused: Link | None = None) -> Link:
        """Where to read ranges now. Many threads that ask at once cause one request.

        Args:
            patiently: runs the request, again where it fails.
            refused: a link that the store no longer takes.
        """
        link = self._link
        if link is not None and link is not refused and time.monotonic() < link.good_until:
            return link
        with self._lock:
            link = self._link
            if link is None or link is refused or time.monotonic() >= link.good_until:
                link = self._link = patiently(self._resolve)
            return link

    def read(self, start: int, into: memoryview, job: Job, traffic: Traffic, patiently: Patiently) -> None:
        """Fill `into` with what begins at `start`: one attempt, with one more where a link has run out.

        Raises: what `fetch` does, but `RedirectError`; what `link` does.
        """
        link = self.link(patiently)
        trail = Trail(link.address, self.name)
        if self.size is not None and start + len(into) > self.size:
            raise NoSuchBytesError(start, start + len(into), self.size)
        was_renewed = False
        while True:
            PAUSES.wait(link.address, job)
            try:
                fetch(
                    link.address,
                    link.headers,
                    start,
                    start + len(into),
                    into,
                    size=self.size,
                    job=job,
                    traffic=traffic,
                    check=partial(self._check, link),
                )
                return
            except RedirectError as error:
                moved: str | None = error.address
            except StatusError as error:
                PAUSES.note(link.address, error)
                if link.is_own or was_renewed or error.response.status_code not in _REFUSED:
                    raise
                moved = None
            except (ConnectionRefusedError, UnreachableError):
                self._forget(link)
                raise
            if moved is not None:
                link = self._follow(link, trail.follow(moved))
            else:
                was_renewed = True
                link = self.link(patiently, refused=link)
                trail = Trail(link.address, self.name)

    def _follow(self, link: Link, target: str) -> Link:
        """The store itself redirects: the link that the bytes are behind."""
        moved = Link(target, self.source.headers(target), False, min(link.good_until, _good_until(target, {})))
        with self._lock:
            if self._link is link:
                self._link = moved
        return moved

    def _forget(self, link: Link) -> None:
        """A store that is not where it was: the Hub may know another by the next attempt."""
        with self._lock:
            if self._link is link and not link.is_own:
                self._link = None

    def _check(self, link: Link, answer: Answer) -> None:
        """Raises ChangedError if an answer from `link` is about another file than the answers before."""
        host = urlsplit(link.address).netloc
        with self._lock:
            self._note_size(answer.size)
            if answer.etag and self._store_etags.setdefault(host, answer.etag) != answer.etag:
                raise ChangedError("has another ETag")

    def _note_size(self, size: int | None) -> None:
        if size is not None and self.size is not None and size != self.size:
            raise ChangedError(f"has {size} bytes")
        self.size = size if self.size is None else self.size

    def _resolve(self) -> Link:
        """Ask the Hub; redirects on the Hub itself (renamed repositories) are followed."""
        if hub_offline():
            raise HubError(f"{self.source}: HF_HUB_OFFLINE is set; unset it to reach the Hub")
        source, place = self.source, self.place
        check_paths([place.path], source=str(source))
        address = hf_hub_url(
            place.repository,
            place.path,
            repo_type="dataset",
            revision=place.revision or "main",
            endpoint=source.endpoint,
        )
        trail = Trail(address, self.name)
        told: dict[str, str] = {}
        while True:
            headers = source.headers(address)
            response = get_session().request(
                "HEAD", address, headers=headers, timeout=longest_stall(), follow_redirects=False
            )
            hf_raise_for_status(response)
            told |= {name: value for name, value in _facts(response).items() if value and name not in told}
            if not response.has_redirect_location:
                told.setdefault("size", response.headers.get("Content-Length", ""))
                self._note(told)
                return Link(address, headers, True, float("inf"))
            address = trail.follow(response.headers["Location"])
            if not source.is_own(address):
                self._note(told)
                return Link(address, source.headers(address), False, _good_until(address, response.headers))

    def _note(self, told: Mapping[str, str]) -> None:
        size = told.get("size", "")
        self._note_size(int(size) if size.isdecimal() else None)
        etag = told.get("etag", "")
        if etag and self._etag and etag != self._etag:
            raise ChangedError("has another hash")
        self._etag = self._etag or etag


def _facts(response: Any) -> dict[str, str]:
    """What the Hub says of a file, beside where it is."""
    headers = response.headers
    etag = headers.get("X-Linked-ETag") or ("" if response.has_redirect_location else headers.get("ETag", ""))
    return {"size": headers.get("X-Linked-Size", ""), "etag": etag.removeprefix("W/").strip('"')}


def _good_until(address: str, headers: Mapping[str, str]) -> float:
    """By `time.monotonic()`, until when a signed address should be used; without an end if it names none.

    Times are compared to the server's clock where it tells the time: this machine's may be wrong.
    """
    query = {name.lower(): values[-1] for name, values in parse_qs(urlsplit(address).query).items()}
    ends = []
    for vendor in ("amz", "goog"):
        made, life = query.get(f"x-{vendor}-date", ""), query.get(f"x-{vendor}-expires", "")
        if _DATE.fullmatch(made) and life.isdecimal():
            ends.append(datetime.strptime(made, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp() + int(life))
    if query.get("expires", "").isdecimal():
        ends.append(float(query["expires"]))
    if not ends:
        return float("inf")
    try:
        now = parsedate_to_datetime(headers.get("Date", "")).timestamp()
    except ValueError:
        now = time.time()
    left = min(ends) - now - 1.0  # both are in whole seconds
    return time.monotonic() + left - min(_MARGIN, _MARGIN_SHARE * max(left, 0.0))


class _HubFiles:
    """The files that this process reads. A forked child goes on with what its parent knew."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._files: dict[tuple[str, str | None, str, str, str], HubFile] = {}
        os.register_at_fork(after_in_child=self._after_fork)

    def _after_fork(self) -> None:
        self._lock = threading.Lock()
        for file in list(self._files.values()):
            file.inherit()

    def find(self, place: HubPlace, storage_options: Mapping[str, Any] | None) -> HubFile:
        """What is known of a file."""
        source = place.source(storage_options)
        key = (source.endpoint, source.token, place.repository, place.revision, place.path)
        with self._lock:
            file = self._files.get(key)
            if file is None:
                if len(self._files) >= _MOST_FILES:
                    self._files.pop(next(iter(self._files)))
                file = self._files[key] = HubFile(source, place)
            return file


HUB_FILES = _HubFiles()
