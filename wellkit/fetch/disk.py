"""The target's side of a download: free space, temporary names, whole-file hashes, one download at a time."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

from rich.filesize import decimal

from wellkit.errors import StorageError
from wellkit.fetch.plan import FileHash, HashKind, RemoteFile

FOLDER = ".wellkit"  # our own notes inside a dataset's folder
SPACE_MARGIN = 0.01
_PARTIAL = re.compile(r".+\.[0-9a-f]{12}\.partial")
_BLOCK = 1 << 20


class Hasher(Protocol):
    """What hashlib's objects do."""

    def update(self, data: bytes, /) -> None: ...

    def hexdigest(self) -> str: ...


def new_hasher(file: RemoteFile) -> Hasher:
    """A hasher for the kind of hash that is promised for `file`, ready for its content."""
    if file.hash.kind is HashKind.sha256:
        return hashlib.sha256()
    return hashlib.sha1(b"blob %d\0" % file.size, usedforsecurity=False)


def hash_file(path: Path, file: RemoteFile, *, stopped: Callable[[], bool] = lambda: False) -> FileHash:
    """The hash of what lies at `path`, of the kind promised for `file`.

    Raises:
        StorageError: it cannot be read.
    """
    hasher = new_hasher(file)
    try:
        with path.open("rb", buffering=0) as content:
            while not stopped() and (block := content.read(_BLOCK)):
                hasher.update(block)
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror or error}; check its permissions") from error
    return FileHash(file.hash.kind, hasher.hexdigest())


def partial_path(target: Path, file: RemoteFile) -> Path:
    """Where `file` lies until it is verified: beside `target`, its name holding the hash that it should have.

    Beside it, because a rename is atomic only within one file system; with the hash, so that what is left of one
    version is never taken for the beginning of another.
    """
    return target.with_name(f"{target.name}.{file.hash.value[:12]}.partial")


def remove_partials(directory: Path) -> int:
    """Remove what interrupted downloads left behind in a dataset's folder; returns how many files."""
    folders = [directory, *(directory / "data").glob("*")]
    found = [
        path
        for folder in folders
        if folder.is_dir()
        for path in folder.glob("*.partial")
        if _PARTIAL.fullmatch(path.name)
    ]
    for path in found:
        with suppress(FileNotFoundError), telling(path, "remove"):
            path.unlink()
    return len(found)


@contextmanager
def telling(path: Path, verb: str = "write") -> Iterator[None]:
    """Turn the operating system's refusal to write `path` into one line.

    Raises:
        StorageError: for every OSError.
    """
    try:
        yield
    except OSError as error:
        if isinstance(error, StorageError):
            raise
        reasons = {
            errno.ENOSPC: "the disk is full",
            errno.EDQUOT: "the disk quota is used up",
            errno.EFBIG: "the file is larger than this process or file system allows",
            errno.EROFS: "the file system is read-only",
            errno.ENOTDIR: "a part of the path is a file, not a folder",
            errno.EACCES: "permission denied",
        }
        reason = reasons.get(error.errno or 0) or error.strerror or str(error)
        advice = "free space there or " if error.errno in {errno.ENOSPC, errno.EDQUOT} else ""
        raise StorageError(f"cannot {verb} {path}: {reason}; {advice}choose another target folder") from error


def check_space(directory: Path, needed: int) -> None:
    """Refuse a download that the disk cannot hold, before its first byte.

    Args:
        directory: the target, which need not exist.
        needed: bytes to be written. Files to be replaced count in full: both versions exist for a moment.

    Raises:
        StorageError: `needed` plus 1 % is more than is free.
    """
    existing = next(folder for folder in (directory.absolute(), *directory.absolute().parents) if folder.exists())
    with telling(directory):
        free = shutil.disk_usage(existing).free
    if needed * (1 + SPACE_MARGIN) > free:
        raise StorageError(
            f"{directory}: {decimal(needed)} are to be downloaded and {decimal(free)} are free on its disk; free "
            "space, choose another target folder, or fetch less (splits, include, max_files, max_bytes)"
        )


def check_writable(path: Path) -> None:
    """Find out before long work that its result could not be written. Changes nothing.

    Raises:
        StorageError: the path is a folder, lies below a file, or in a folder that may not be written to.
    """
    existing = next(folder for folder in path.absolute().parents if os.path.lexists(folder))
    with telling(path):
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if not existing.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        if not os.access(existing, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def write_atomically(path: Path, content: bytes) -> None:
    """Write a small file so that a reader sees the old or the new content, whole.

    Raises:
        StorageError: it cannot be written.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}-{threading.get_ident()}.new")
    with telling(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.write_bytes(content)
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


@contextmanager
def sole_use(directory: Path) -> Iterator[None]:
    """Hold a dataset's folder for one download, on this machine; made if it does not exist.

    The lock is on the folder itself and goes with the process, so that nothing is left to clean up.

    Raises:
        StorageError: another process holds it, or the folder cannot be made.
    """
    own = directory / FOLDER
    with telling(directory):
        own.mkdir(parents=True, exist_ok=True)
        handle = os.open(own, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StorageError(
                f"{directory}: another download into this folder is running; wait for it or choose another target"
            ) from error
        except OSError:
            pass  # some network file systems have no locks; names with hashes keep two downloads apart
        yield
    finally:
        os.close(handle)
