"""Where an HDF5 file's bytes come from while it is parsed: a local file, or those pieces of a remote one that are here.

Pieces need not be all that the parser asks for. What it asks for and does not get is noted, so that it can be fetched
and the parser started again; `attempt` lets it go on elsewhere meanwhile, to find more of what is missing.
"""

from __future__ import annotations

import io
import os
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import h5py

from wellkit.index.fingerprint import HEAD, TAIL, UNKNOWN, digest_of, fingerprint_of, open_for_reading

Piece = tuple[int, bytes]  # where it starts in the file, and the bytes from there on
Extent = tuple[int, int]  # first byte, and the one behind the last
Gap = tuple[int, int, int]  # an extent that is missing, and the rank of the array whose chunks were looked for, or 0
_UNREADABLE = 64  # as many places of one parse are noted; more would be the work of a damaged file


class ShardSource(Protocol):
    """The bytes of one shard. `where` names it in messages."""

    where: str
    size: int
    rank: int

    def identity(self) -> tuple[int, bytes]:
        """Size and fingerprint as they are now."""
        ...

    def read_into(self, buffer: memoryview, offset: int) -> int:
        """Fill `buffer` with the bytes from `offset`; how many there were."""
        ...

    def open(self) -> h5py.File:
        """The file, opened by libhdf5."""
        ...

    def attempt(self) -> Any:
        """A context whose failure is none where it comes from bytes that are not here."""
        ...

    def close(self) -> None:
        """Let go of it."""
        ...


def read(source: ShardSource, size: int, offset: int) -> bytes:
    """`size` bytes from `offset`; fewer at the end of the file."""
    content = bytearray(size)
    return bytes(content[: source.read_into(memoryview(content), offset)])


class SourceStream(io.RawIOBase):
    """A source as a file object for h5py."""

    def __init__(self, source: ShardSource) -> None:
        super().__init__()
        self._source = source
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._source.size}[whence]
        self._position = start + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: Any) -> int:
        count = self._source.read_into(memoryview(buffer).cast("B"), self._position)
        self._position += count
        return count


class LocalSource:
    """A file of this machine. Raises OSError or ShardError on making one."""

    def __init__(self, path: str) -> None:
        self.where = path
        self.rank = 0
        self._descriptor = open_for_reading(path)
        try:
            self.size, _ = self.identity()
        except BaseException:
            self.close()
            raise

    def identity(self) -> tuple[int, bytes]:
        return fingerprint_of(self._descriptor, self.where)

    def read_into(self, buffer: memoryview, offset: int) -> int:
        return os.preadv(self._descriptor, [buffer], offset)

    def open(self) -> h5py.File:
        try:
            return h5py.File(self.where, "r")
        except OSError as error:
            if "lock" not in str(error):
                raise
            return h5py.File(self.where, "r", locking=False)  # a file system without locks

    @contextmanager
    def attempt(self) -> Iterator[None]:
        yield  # all bytes are here: every failure is one

    def close(self) -> None:
        os.close(self._descriptor)


class MissingBytesError(OSError):
    """Bytes that are not here were asked for."""


class PiecesSource:
    """Some pieces of a file.

    Args:
        where: the file's name, for messages.
        size: its bytes.
        pieces: what is here, in order, apart from each other.
        with_fingerprint: whether beginning and end are needed too; the fingerprint is `UNKNOWN` otherwise.

    Attributes:
        missing: what was asked for and is not here, in the order of asking.
        rank: set by the parser to the rank of the array whose chunks it lists, else 0.
    """

    def __init__(self, where: str, size: int, pieces: Sequence[Piece], *, with_fingerprint: bool = False) -> None:
        self.where, self.size = where, size
        self.missing: list[Gap] = []
        self.rank = 0
        self._starts = [start for start, _ in pieces]
        self._pieces = [memoryview(content) for _, content in pieces]
        self._with_fingerprint = with_fingerprint

    def identity(self) -> tuple[int, bytes]:
        if not self._with_fingerprint:
            return self.size, UNKNOWN
        head, tail = bytearray(min(HEAD, self.size)), bytearray(max(0, min(TAIL, self.size - HEAD)))
        for content, offset in ((head, 0), (tail, self.size - len(tail))):
            with self.attempt():
                self.read_into(memoryview(content), offset)
        return self.size, digest_of(self.size, bytes(head), bytes(tail))

    def read_into(self, buffer: memoryview, offset: int) -> int:
        count = max(0, min(len(buffer), self.size - offset))
        number = bisect_right(self._starts, offset) - 1
        if number >= 0:
            start, content = self._starts[number], self._pieces[number]
            if offset + count <= start + len(content):
                buffer[:count] = content[offset - start : offset - start + count]
                return count
        if count and len(self.missing) < _UNREADABLE:
            self.missing.append((offset, offset + count, self.rank))
        elif not count:
            return 0
        raise MissingBytesError(f"bytes {offset} to {offset + count} are not here")

    def open(self) -> h5py.File:
        return h5py.File(SourceStream(self), "r")

    @contextmanager
    def attempt(self) -> Iterator[None]:
        before = len(self.missing)
        try:
            yield
        except Exception:  # whatever libhdf5 and its bindings make of a read that failed
            if len(self.missing) == before:
                raise

    def close(self) -> None:
        """Holds nothing open."""
