"""One file from a source to its place on disk: streamed, hashed on the way, and named only when it is right."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

from wellkit.errors import DownloadError, IntegrityError, WellkitError
from wellkit.fetch.disk import new_hasher, partial_path, telling
from wellkit.fetch.plan import FileHash, RemoteFile
from wellkit.fetch.retries import ATTEMPTS, is_transient, patiently
from wellkit.storage import explain

_CAUSES = (
    "likely causes: a damaged transfer, a proxy or cache that alters files, or files changed at the source; "
    "run the command again"
)


class Source(Protocol):
    """Where files come from."""

    def stream(self, file: RemoteFile, *, sleep: Callable[[float], None] | None = None) -> AbstractContextManager[Any]:
        """The response to a request for all of `file`: `headers` and `iter_bytes()`.

        `sleep` waits between attempts to get an answer.
        """
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
    """Another file failed, or the user interrupted: this transfer was given up and cleaned up."""


def fetch(
    source: Source,
    file: RemoteFile,
    target: Path,
    *,
    progress: Progress,
    stopped: Callable[[], bool] = lambda: False,
    sleep: Callable[[float], None] | None = None,
) -> None:
    """Bring `file` to `target`; what lies there before stays until the new content is verified.

    Raises:
        IntegrityError: the content is not what the listing promised; nothing of it is left.
        HubError, DownloadError: the source failed for good; nothing is left.
        StorageError: the target cannot be written; nothing is left.
        Interrupted: `stopped()` became true; nothing is left.
    """
    partial = partial_path(target, file)
    progress.started(file)
    try:
        with _explaining(file, source):
            patiently(lambda: _attempt(source, file, partial, progress, stopped, sleep), sleep=sleep)
        with telling(target):
            partial.replace(target)
            _sync_folder(target.parent)
    except BaseException:
        with suppress(OSError):  # what went wrong first is what has to be told
            partial.unlink(missing_ok=True)
        raise
    finally:
        progress.finished(file)


def _attempt(
    source: Source,
    file: RemoteFile,
    partial: Path,
    progress: Progress,
    stopped: Callable[[], bool],
    sleep: Callable[[float], None] | None,
) -> None:
    """Stream all of `file` into `partial` and verify it."""
    hasher = new_hasher(file)
    received = written = 0
    with telling(partial):
        partial.parent.mkdir(parents=True, exist_ok=True)
        out = partial.open("wb", buffering=0)
    try:
        with out, source.stream(file, sleep=sleep) as response:
            _check_headers(response.headers, file, source)
            for piece in response.iter_bytes():
                if stopped():
                    raise Interrupted(f"{file.path}: download interrupted")
                received += len(piece)
                if received > file.size:
                    raise _wrong(file, source, f"{file.size} bytes", "more than that")
                hasher.update(piece)
                _write(out, piece, partial)
                written += len(piece)
                progress.advanced(file, len(piece))
            with telling(partial):
                os.fsync(out.fileno())
        if received != file.size:
            raise _wrong(file, source, f"{file.size} bytes", f"{received} bytes")
        found = FileHash(file.hash.kind, hasher.hexdigest())
        if found != file.hash:
            raise _wrong(file, source, str(file.hash), found.value)
    except BaseException:
        progress.advanced(file, -written)
        raise


def _check_headers(headers: Any, file: RemoteFile, source: Source) -> None:
    """Refuse an answer that cannot be the file before a byte of it is written."""
    kind = headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if kind in {"text/html", "application/xhtml+xml"}:
        raise IntegrityError(
            f"{file.path} from {source}: expected {file.size} bytes, found a web page (HTTP 200 with HTML); nothing "
            "was saved. Likely causes: a login page of the network, a proxy, or HF_ENDPOINT"
        )
    length = headers.get("Content-Length", "")
    if length.isdigit() and "Content-Encoding" not in headers and int(length) != file.size:
        raise _wrong(file, source, f"{file.size} bytes", f"{length} bytes announced")


def _write(out: Any, piece: bytes, partial: Path) -> None:
    view = memoryview(piece)
    with telling(partial):
        while view:
            view = view[out.write(view) :]


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


def _sync_folder(folder: Path) -> None:
    """Make a rename last through a power cut: what the record calls verified must be there."""
    with suppress(OSError):  # some network file systems cannot
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
