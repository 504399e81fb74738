"""Whether a file is still the one that was indexed: its size and a hash of its first and last bytes.

HDF5 keeps the superblock, and writers put the first groups and attributes, at the beginning; what is appended
last lies at the end. A change of values in the middle that leaves size, beginning and end alone is not seen: it
moves no chunk, and `wellkit index --check` finds it where it touches a small array that the index holds.
"""

from __future__ import annotations

import hashlib
import os
import stat

from wellkit.errors import DataNotFoundError, ShardError

HEAD = 64 << 10
TAIL = 4 << 10
LENGTH = 16  # bytes of a fingerprint
UNKNOWN = bytes(LENGTH)  # in place of a fingerprint: only parts of the file were seen


def fingerprint(path: str | os.PathLike[str]) -> tuple[int, bytes]:
    """Size in bytes of the file at `path`, and its fingerprint.

    Raises:
        DataNotFoundError: there is no such file.
        ShardError: it is no regular file, or cannot be read.
    """
    where = os.fspath(path)
    try:
        descriptor = open_for_reading(where)
    except FileNotFoundError as error:
        raise DataNotFoundError(f"{where}: no such file") from error
    except OSError as error:
        raise ShardError(f"{where}: cannot be read ({error.strerror or error}); check its permissions") from error
    try:
        return fingerprint_of(descriptor, where)
    finally:
        os.close(descriptor)


def open_for_reading(path: str) -> int:
    """A descriptor of the file at `path`; never waits, not even where it is a pipe. Raises OSError."""
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)


def fingerprint_of(descriptor: int, where: str) -> tuple[int, bytes]:
    """As `fingerprint`, of an open file; `where` is its name for messages. Moves no file position."""
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            what = "a folder" if stat.S_ISDIR(status.st_mode) else "not a regular file"
            raise ShardError(f"{where}: is {what}, so no HDF5 file can be read from it")
        size = status.st_size
        head = os.pread(descriptor, HEAD, 0)
        tail = os.pread(descriptor, TAIL, max(HEAD, size - TAIL)) if size > HEAD else b""
    except ShardError:
        raise
    except OSError as error:
        raise ShardError(f"{where}: cannot be read ({error.strerror or error})") from error
    return size, digest_of(size, head, tail)


def digest_of(size: int, head: bytes, tail: bytes) -> bytes:
    """The fingerprint of a file.

    Args:
        size: its bytes.
        head: its first `HEAD` bytes; all of them, if it has fewer.
        tail: its last `TAIL` bytes, without those that `head` holds.
    """
    hasher = hashlib.blake2b(size.to_bytes(8, "little"), digest_size=LENGTH)
    hasher.update(head)
    hasher.update(tail)
    return hasher.digest()
