"""The target's side of a download: free space, refusals told in one line, hashes of whole files, atomic writes."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from wellkit.errors import StorageError
from wellkit.fetch.plan import FileHash, HashKind, RemoteFile

FOLDER = ".wellkit"  # our own notes inside a dataset's folder
_BLOCK = 1 << 20


class Digests:
    """The hashes of a content, taken while it passes: SHA-256 always, git's too where that is what is promised."""

    def __init__(self, file: RemoteFile) -> None:
        self._kind = file.hash.kind
        self._sha256 = hashlib.sha256()
        self._git = hashlib.sha1(b"blob %d\0" % file.size, usedforsecurity=False)

    def update(self, data: bytes | memoryview) -> None:
        """Take in the next bytes."""
        self._sha256.update(data)
        if self._kind is HashKind.git_blob:
            self._git.update(data)

    @property
    def sha256(self) -> str:
        """Of what was taken in, hexadecimal."""
        return self._sha256.hexdigest()

    @property
    def found(self) -> FileHash:
        """The hash of the kind that is promised; SHA-256 where none is."""
        if self._kind is HashKind.git_blob:
            return FileHash(HashKind.git_blob, self._git.hexdigest())
        return FileHash(HashKind.sha256, self.sha256)

    def fit(self, file: RemoteFile) -> bool:
        """Whether the content is the one promised for `file`, as far as anything is promised."""
        return not file.hash.is_published or self.found == file.hash


def digest_file(
    path: Path,
    file: RemoteFile,
    *,
    stopped: Callable[[], bool] = lambda: False,
    advanced: Callable[[int], None] = lambda n_bytes: None,
) -> Digests:
    """The hashes of what lies at `path`.

    Raises:
        StorageError: it cannot be read.
    """
    digests = Digests(file)
    try:
        with path.open("rb", buffering=0) as content:
            while not stopped() and (block := content.read(_BLOCK)):
                digests.update(block)
                advanced(len(block))
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror or error}; check its permissions") from error
    return digests


def hash_file(path: Path, file: RemoteFile) -> FileHash:
    """The hash of what lies at `path`, of the kind promised for `file`.

    Raises:
        StorageError: it cannot be read.
    """
    return digest_file(path, file).found


@contextmanager
def locked_folder(folder: Path, *, told_as: Path) -> Iterator[None]:
    """Hold a folder, made where it is missing, while something in it is read, changed and written.

    The lock is the folder's: files in it may be replaced meanwhile. Other processes that ask for it wait.

    Args:
        told_as: what a refusal names.

    Raises:
        StorageError: the folder cannot be made.
    """
    with telling(told_as):
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with suppress(OSError):  # some network file systems have no locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


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


def free_space(directory: Path) -> int:
    """Bytes free on the disk of `directory`, which need not exist.

    Raises:
        StorageError: it cannot be found out.
    """
    existing = next(folder for folder in (directory.absolute(), *directory.absolute().parents) if folder.exists())
    with telling(directory):
        return shutil.disk_usage(existing).free


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
    if not path.name:  # "" or "/"
        raise StorageError(f"cannot write {path}: it is a folder; give the name of a file")
    temporary = path.with_name(f"{path.name}.{os.getpid()}-{threading.get_ident()}.new")
    with telling(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.write_bytes(content)
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
