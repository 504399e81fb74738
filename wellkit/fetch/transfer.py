"""One file from a source to its place: streamed, resumed, hashed on the way, and named only when it is right."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Protocol

from wellkit.errors import DataNotFoundError, DownloadError, HubError, IntegrityError, WellkitError
from wellkit.fetch.disk import Digests, digest_file
from wellkit.fetch.partial import Partial, hold
from wellkit.fetch.plan import RemoteFile
from wellkit.fetch.retries import ATTEMPTS, is_transient, patiently
from wellkit.storage import explain, http_status

WATCH = 60.0  # seconds in which a transfer has to bring
LEAST = 64 << 10  # so many bytes
_RANGE = re.compile(r"bytes (?P<first>\d+)-(?P<last>\d+)/(?P<total>\d+|\*)")
_CAUSES = (
    "likely causes: a damaged transfer, a proxy or cache that alters files, or files changed at the source; "
    "run the command again"
)


class Source(Protocol):
    """Where files come from."""

    def stream(
        self, file: RemoteFile, *, start: int = 0, etag: str = "", sleep: Callable[[float], None] | None = None
    ) -> AbstractContextManager[Any]:
        """The response to a request for `file` from byte `start`: `status_code`, `headers` and `iter_bytes()`.

        With `etag` the range is asked for only if the file is still that version. `sleep` waits between attempts to
        get an answer.
        """
        ...

    def by_client(self, file: RemoteFile, folder: Path) -> Path:
        """Fetch `file` into `folder` in the way of the source's own client."""
        ...


class Progress(Protocol):
    """Who wants to know how far a download is. Called from several threads."""

    def planned(self, n_files: int, n_bytes: int) -> None:
        """So much more than was announced before is to be transferred."""
        ...

    def started(self, file: RemoteFile) -> None:
        """The transfer of `file` begins, for the first time."""
        ...

    def advanced(self, file: RemoteFile, n_bytes: int) -> None:
        """So many bytes more are there; negative where an attempt failed and begins again."""
        ...

    def finished(self, file: RemoteFile) -> None:
        """`file` is verified and has its final name, or was given up."""
        ...


class Interrupted(DownloadError):
    """Another file failed, or the user interrupted: this transfer was given up; what has arrived is kept."""


class XetOnlyError(DownloadError):
    """The server offers a file through Xet and in no other way."""


def fetch(
    sources: Sequence[Source],
    file: RemoteFile,
    target: Path,
    *,
    progress: Progress,
    stopped: Callable[[], bool] = lambda: False,
    sleep: Callable[[float], None] | None = None,
) -> tuple[Digests, str]:
    """Bring `file` to `target`; what lies there before stays until the new content is verified.

    A source that fails gives way to the next. What has arrived when all fail for want of a connection, or the disk is
    full, is kept for another try; content that is wrong is not.

    Returns:
        The hashes of the content, and how it came if that was in an unusual way.

    Raises:
        IntegrityError: the content is not what the listing promised; nothing of it is left.
        HubError, DownloadError: the sources failed for good.
        StorageError: the target cannot be written.
        Interrupted: `stopped()` became true.
    """
    with hold(target, file, wait=sleep or time.sleep) as (partial, contested):
        progress.started(file)
        try:
            if contested and (found := _already_there(target, file, stopped)) is not None:
                partial.restart()
                progress.advanced(file, file.size)
                return found, "another process brought it"
            partial.recall(stopped)
            progress.advanced(file, partial.received)
            way = _from_any(sources, _Transfer(file, partial, progress, stopped, sleep))
            partial.finish(target)
            return partial.digests, way
        finally:
            progress.finished(file)


def _already_there(target: Path, file: RemoteFile, stopped: Callable[[], bool]) -> Digests | None:
    """The hashes of what lies at `target`, if it is `file` by now."""
    if not target.is_file() or target.stat().st_size != file.size or not file.hash.is_published:
        return None
    digests = digest_file(target, file, stopped=stopped)
    return digests if not stopped() and digests.fit(file) else None


def _from_any(sources: Sequence[Source], transfer: _Transfer) -> str:
    """Bring the file from the first source that can; returns how it came if that was in an unusual way."""
    failures: list[WellkitError] = []
    for source in sources:
        try:
            with _explaining(transfer.file, source):
                way = transfer.bring(source)
        except Interrupted:
            raise
        except (HubError, DataNotFoundError, DownloadError) as error:
            failures.append(error)
        else:
            return "; ".join(filter(None, (way, f"from {source}, the source before it failed" if failures else "")))
    first = next((error for error in failures if isinstance(error, IntegrityError)), failures[0])
    if len(failures) > 1:
        others = ", ".join(str(source) for source in sources)
        raise type(first)(f"{first} (all of its sources failed: {others})") from first
    raise first


class _Transfer:
    """What it takes to bring one file."""

    def __init__(
        self,
        file: RemoteFile,
        partial: Partial,
        progress: Progress,
        stopped: Callable[[], bool],
        sleep: Callable[[float], None] | None,
    ) -> None:
        self.file = file
        self._partial = partial
        self._progress = progress
        self._stopped = stopped
        self._sleep = sleep

    def bring(self, source: Source) -> str:
        """All of the file, verified, in the partial file."""
        try:
            self._complete(source)
            way = ""
        except XetOnlyError as error:
            self._by_client(source)
            way = f"by huggingface_hub's own client ({error})"
        if not self._fits() and self._partial.responses > 1:
            # Put together from several answers, so maybe of several versions: once more, from the first byte.
            self._restart()
            self._complete(source)
        if not self._fits():
            found = self._partial.digests.found.value
            self._restart()
            raise _wrong(self.file, source, str(self.file.hash), found)
        return way

    def _fits(self) -> bool:
        return self._partial.received == self.file.size and self._partial.digests.fit(self.file)

    def _restart(self) -> None:
        self._progress.advanced(self.file, -self._partial.restart())

    def _complete(self, source: Source) -> None:
        """Ask until all bytes are there, as long as each round of attempts brings some."""
        while self._partial.received < self.file.size or not self._partial.responses:
            before = self._partial.received
            try:
                patiently(lambda: self._attempt(source), sleep=self._sleep)
            except Exception as error:
                if not is_transient(error) or self._partial.received <= before:
                    raise

    def _attempt(self, source: Source) -> None:
        """Ask once for what is missing."""
        partial, origin = self._partial, str(source)
        same = partial.origin == origin and partial.etag.startswith('"')
        if partial.received and not same and not self.file.hash.is_published:
            self._restart()  # nothing could tell whether the two parts belong together
        known = partial.etag if partial.origin == origin else ""
        try:
            with source.stream(self.file, start=partial.received, etag=known, sleep=self._sleep) as response:
                if not self._check_headers(response, source, known):
                    return
                partial.begin(origin, _etag(response.headers))
                self._take(response, source)
        except Exception as error:
            if partial.received and http_status(error) == 416:  # it is shorter than what is here: another version
                self._restart()
                return
            raise
        if partial.received != self.file.size:
            found = f"{partial.received} bytes"
            self._restart()
            raise _wrong(self.file, source, f"{self.file.size} bytes", found)

    def _take(self, response: Any, source: Source) -> None:
        partial = self._partial
        began, at_begin = time.monotonic(), partial.received
        for piece in response.iter_bytes():
            if self._stopped():
                raise Interrupted(f"{self.file.path}: download interrupted")
            if partial.received + len(piece) > self.file.size:
                self._restart()
                raise _wrong(self.file, source, f"{self.file.size} bytes", "more than that")
            partial.append(piece)
            self._progress.advanced(self.file, len(piece))
            now = time.monotonic()
            if now - began >= WATCH:
                if partial.received - at_begin < LEAST:
                    raise TimeoutError(f"less than {LEAST} bytes in {WATCH:.0f} s")
                began, at_begin = now, partial.received

    def _check_headers(self, response: Any, source: Source, known: str) -> bool:
        """Refuse an answer that cannot be the file before a byte of it is written; False: ask again from the start."""
        file, partial, headers = self.file, self._partial, response.headers
        kind = headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if kind in {"text/html", "application/xhtml+xml"}:
            raise IntegrityError(
                f"{file.path} from {source}: expected {file.size} bytes, found a web page (HTTP 200 with HTML); "
                "nothing was saved. Likely causes: a login page of the network, a proxy, or HF_ENDPOINT"
            )
        if response.status_code == 206:
            match = _RANGE.fullmatch(headers.get("Content-Range", "").strip())
            if match is None or int(match["first"]) != partial.received:
                raise _wrong(file, source, f"bytes from {partial.received}", "other bytes of it")
            etag = _etag(headers)
            if match["total"] not in {"*", str(file.size)} or (known and etag and etag != known):
                if not partial.received:
                    raise _wrong(file, source, f"{file.size} bytes", f"a part of {match['total']} bytes")
                self._restart()  # of another version than what is here
                return False
        elif partial.received:
            self._restart()  # the whole file: it has changed, or the server knows no ranges
        length = headers.get("Content-Length", "")
        expected = file.size - partial.received
        if length.isdigit() and "Content-Encoding" not in headers and int(length) != expected:
            raise _wrong(file, source, f"{expected} bytes", f"{length} bytes announced")
        return True

    def _by_client(self, source: Source) -> None:
        """What can only be had through Xet: huggingface_hub knows how."""
        self._restart()
        folder = self._partial.path.with_name(f"{self._partial.path.name}.xet")
        try:
            shutil.rmtree(folder, ignore_errors=True)
            self._partial.replace_by(source.by_client(self.file, folder))
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        self._partial.responses = 1
        self._progress.advanced(self.file, self._partial.received)


def _etag(headers: Any) -> str:
    return str(headers.get("ETag", "")).strip()


def _wrong(file: RemoteFile, source: Source, expected: str, found: str) -> IntegrityError:
    return IntegrityError(
        f"{file.path} from {source}: expected {expected}, found {found}; nothing was saved; {_CAUSES}"
    )


@contextmanager
def _explaining(file: RemoteFile, source: Source) -> Iterator[None]:
    try:
        yield
    except WellkitError:
        raise
    except Exception as error:
        attempts = ATTEMPTS if is_transient(error) else 1
        told = explain(error, f"{file.path} from {source}", attempts=attempts)
        if told is None:
            raise
        raise told from error
