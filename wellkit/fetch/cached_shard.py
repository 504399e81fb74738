"""What is kept of one remote file: a sparse file of its full size, and beside it a log of what is there.

`KEY-GENERATION.data` holds at their own offsets the bytes that were fetched. `KEY.blocks` is a header of 4096 bytes and
one record of 32 bytes for each block of bytes that was written: from where to where, their checksum, and a check of the
record itself. Blocks are as long as what was fetched (at most `BLOCK`, cut at its multiples), so that no byte has
to be fetched to fill one up.

A block counts as there once this process has found its checksum right, or wrote it itself. So nothing has to be
synchronized with the disk, and the order in which a machine that loses power has written things does not matter. The
log is only ever appended to, by writes that end at multiples of 32: processes need no lock.

A file's data are never changed in place, cut short or punched. A new start takes a new generation and so a new name,
since somebody may still have the old file open or mapped.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import stat
import struct
import threading
import time
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
from deflate import crc32

from wellkit.fetch.intervals import Intervals

BLOCK = 1 << 18  # bytes that are checked at once
PAGE = 4096
FILE_NAME = re.compile(r"(?P<key>[0-9a-f]{32})(?:\.blocks|-(?P<generation>[0-9a-f]{16})\.(?P<kind>data|new))")
_MAGIC = b"wellkit shard blocks\n"
_VERSION = 1
_HEAD = struct.Struct(f"<{len(_MAGIC)}sHI")  # magic, version, bytes of JSON
_NAME_BYTES = 2000
_RECORD = np.dtype([("start", "<u8"), ("stop", "<u8"), ("crc", "<u8"), ("check", "<u8")])
_USED_EVERY = 60.0  # seconds between two notes that a file is in use
_OPEN = os.O_CLOEXEC | os.O_NOFOLLOW


class GoneError(Exception):
    """The file was removed, or is no longer what it was when it was opened. Never leaves this floor."""


class Header(NamedTuple):
    """What the log says first."""

    key: str
    name: str
    identity: str
    size: int
    generation: str

    @property
    def data_name(self) -> str:
        """Name of the sparse file."""
        return f"{self.key}-{self.generation}.data"

    def pack(self) -> bytes:
        """The header's 4096 bytes."""
        name = self.name.encode()[:_NAME_BYTES].decode(errors="ignore")
        text = json.dumps({**self._asdict(), "name": name}).encode()
        page = _HEAD.pack(_MAGIC, _VERSION, len(text)) + text
        page += bytes(PAGE - 4 - len(page))
        return page + struct.pack("<I", crc32(page))


def read_header(path: Path) -> Header | None:
    """The header of the log at `path`; None where it is damaged, or of another version.

    Raises:
        OSError: there is none, or it cannot be read.
    """
    handle = os.open(path, os.O_RDONLY | _OPEN)
    try:
        page = os.pread(handle, PAGE, 0)
    finally:
        os.close(handle)
    if len(page) < PAGE or struct.unpack("<I", page[-4:])[0] != crc32(page[:-4]):
        return None
    magic, version, length = _HEAD.unpack_from(page)
    if magic != _MAGIC or version != _VERSION or length > PAGE - 4 - _HEAD.size:
        return None
    try:
        header = Header(**json.loads(page[_HEAD.size : _HEAD.size + length]))
    except (ValueError, TypeError):
        return None
    # Names are made of it: nothing but what we write ourselves.
    good = f"{header.key}.blocks" == path.name and FILE_NAME.fullmatch(header.data_name)
    return header if good and isinstance(header.size, int) else None


class CachedShard:
    """What is there of one file, as this process knows it. Thread-safe; not for use after a fork.

    Attributes:
        path: the sparse file. Stays this file's own name as long as it is there.
        header: what it is.
    """

    def __init__(self, folder: Path, header: Header, inode: int) -> None:
        self.header = header
        self.path = os.fspath(folder / header.data_name)
        self._log = os.fspath(folder / f"{header.key}.blocks")
        self._inode = inode
        self._lock = threading.Lock()
        self._log_end = PAGE  # how far the log was read
        self._unchecked = np.empty(0, _RECORD)  # sorted by start
        self._there = Intervals()
        self._noted = -np.inf
        self.damaged = 0  # bytes whose checksum was found wrong

    def has(self, ranges: np.ndarray) -> bool:
        """Whether all bytes of `ranges`, int64, axes (range, 2), are there and right.

        Raises:
            GoneError: the file was removed or changed.
        """
        if not self._there.covers(ranges):
            self.look(ranges)
            if not self._there.covers(ranges):
                return False
        self._check_data()
        return True

    def gaps(self, start: int, stop: int) -> list[tuple[int, int]]:
        """What of [start, stop) was not there when it was last looked for."""
        return self._there.gaps(start, stop)

    @property
    def nbytes(self) -> int:
        """Bytes that are known to be there and right."""
        return self._there.nbytes

    def look(self, ranges: np.ndarray) -> None:
        """Take note of what others have written, and check what of it has bytes in `ranges`.

        Raises:
            GoneError: the file was removed or changed.
        """
        with self._lock:
            self._read_log()
            if self._unchecked.size:
                self._check(ranges)

    def note_use(self) -> None:
        """Have the file be removed last. Costs nothing when called often."""
        now = time.monotonic()
        if now - self._noted > _USED_EVERY:
            self._noted = now
            with suppress(OSError):  # of a cache that may only be read
                os.utime(self._log)

    def read_into(self, start: int, into: memoryview) -> None:
        """Fill `into` with bytes that are there.

        Raises:
            GoneError: the file was removed or cut short.
            OSError: the disk fails.
        """
        with _opened(self.path, os.O_RDONLY) as handle:
            _fill(handle, start, into)

    def write(self, start: int, content: memoryview) -> None:
        """Keep bytes of the file that begin at `start`.

        Raises:
            GoneError: the file was removed or changed.
            OSError: the disk is full, or fails. Nothing counts as there then.
        """
        stop = start + len(content)
        cuts = [start, *range(start // BLOCK * BLOCK + BLOCK, stop, BLOCK), stop]
        records = np.zeros(len(cuts) - 1, _RECORD)
        records["start"], records["stop"] = cuts[:-1], cuts[1:]
        records["crc"] = [crc32(content[a - start : b - start]) for a, b in pairwise(cuts)]
        records["check"] = _checks(records, int(self.header.generation, 16))
        with _opened(self.path, os.O_WRONLY) as handle:
            if os.fstat(handle).st_size != self.header.size:
                raise GoneError(self.path)
            while len(content):
                written = os.pwrite(handle, content, stop - len(content))
                content = content[written:]
        with _opened(self._log, os.O_WRONLY | os.O_APPEND) as handle:
            status = os.fstat(handle)
            if status.st_ino != self._inode:
                raise GoneError(self._log)
            # A file system that tore a record of somebody who was killed must not shift those behind it.
            torn = -(status.st_size - PAGE) % _RECORD.itemsize
            os.write(handle, bytes(torn) + records.tobytes())
        with self._lock:
            self._there = self._there.union(np.array([start]), np.array([stop]))

    def _check_data(self) -> None:
        try:
            status = os.stat(self.path, follow_symlinks=False)
        except OSError as error:
            raise GoneError(self.path) from error
        if status.st_size != self.header.size or not stat.S_ISREG(status.st_mode):
            raise GoneError(self.path)

    def _read_log(self) -> None:
        """Read the records that were appended since."""
        try:
            status = os.stat(self._log, follow_symlinks=False)
        except OSError as error:
            raise GoneError(self._log) from error
        if status.st_ino != self._inode:
            raise GoneError(self._log)
        count = (status.st_size - self._log_end) // _RECORD.itemsize
        if count <= 0:
            return
        with _opened(self._log, os.O_RDONLY) as handle:
            content = os.pread(handle, count * _RECORD.itemsize, self._log_end)
        records = np.frombuffer(content, _RECORD, len(content) // _RECORD.itemsize)
        self._log_end += records.nbytes
        records = _sound(records, self.header)
        known = self._there.covered(records["start"].astype(np.int64), records["stop"].astype(np.int64))
        merged = np.concatenate([self._unchecked, records[~known]])
        self._unchecked = merged[np.argsort(merged["start"], kind="stable")]

    def _check(self, ranges: np.ndarray) -> None:
        """Compare checksums of the blocks that have bytes in `ranges`."""
        wanted = Intervals().union(ranges[:, 0], ranges[:, 1])
        starts, stops = (self._unchecked[name].astype(np.int64) for name in ("start", "stop"))
        # A stretch of the wanted that begins before the block's end and ends behind its start:
        last = np.searchsorted(wanted.starts, stops, side="left") - 1
        meets = wanted.stops[last] > starts
        meets &= ~self._there.covered(starts, stops)
        if not meets.any():
            return
        right = np.zeros(meets.sum(), bool)
        buffer = memoryview(bytearray(BLOCK))
        chosen = self._unchecked[meets]
        with _opened(self.path, os.O_RDONLY) as handle:
            for number, (start, stop, crc, _) in enumerate(chosen.tolist()):
                with suppress(OSError, GoneError):
                    _fill(handle, start, buffer[: stop - start])
                    right[number] = crc32(buffer[: stop - start]) == crc
        self.damaged += int((stops[meets] - starts[meets])[~right].sum())
        self._there = self._there.union(starts[meets][right], stops[meets][right])
        self._unchecked = self._unchecked[~meets]


def read_log(log: Path, header: Header) -> Intervals:
    """What a log says is there. Nothing of it is compared with the data.

    Raises:
        OSError: it cannot be read.
    """
    with _opened(os.fspath(log), os.O_RDONLY) as handle:
        content = os.pread(handle, max(os.fstat(handle).st_size - PAGE, 0), PAGE)
    records = _sound(np.frombuffer(content, _RECORD, len(content) // _RECORD.itemsize), header)
    return Intervals().union(records["start"].astype(np.int64), records["stop"].astype(np.int64))


def _sound(records: np.ndarray, header: Header) -> np.ndarray:
    """Those records that are as they were written, by us."""
    start, stop = records["start"], records["stop"]
    sound = (records["check"] == _checks(records, int(header.generation, 16))) & (start < stop)
    found: np.ndarray = records[sound & (stop <= header.size) & (stop - start <= BLOCK)]
    return found


class _opened:
    """A file, open for a moment: descriptors are few, files are many."""

    def __init__(self, path: str, flags: int) -> None:
        try:
            self._handle = os.open(path, flags | _OPEN)
        except FileNotFoundError as error:
            raise GoneError(path) from error

    def __enter__(self) -> int:
        return self._handle

    def __exit__(self, *_: object) -> None:
        os.close(self._handle)


def _fill(handle: int, start: int, into: memoryview) -> None:
    while len(into):
        got = os.preadv(handle, [into], start)
        if got == 0:
            raise GoneError(f"ends at byte {start}")
        into, start = into[got:], start + got


def _checks(records: np.ndarray, salt: int) -> np.ndarray:
    """64 bits for each record that no change of one of its fields leaves as they are (splitmix64's mixing, chained)."""
    mixed = np.full(records.shape, salt, np.uint64)
    for name in ("start", "stop", "crc"):
        mixed += records[name] + np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        mixed ^= mixed >> np.uint64(31)
    return mixed


def open_shard(folder: Path, key: str) -> CachedShard | None:
    """What is kept under `key`; None where there is nothing that can be used.

    Raises:
        OSError: it cannot be read.
    """
    return _open(folder, key)[0]


def _open(folder: Path, key: str) -> tuple[CachedShard | None, int | None]:
    """What is kept under `key`, and where that cannot be used, the inode of its log."""
    log = folder / f"{key}.blocks"
    try:
        inode = os.stat(log, follow_symlinks=False).st_ino
        header = read_header(log)
    except FileNotFoundError:
        return None, None
    if header is None:
        return None, inode
    shard = CachedShard(folder, header, inode)
    try:
        shard._check_data()
    except GoneError:
        return None, inode
    return shard, inode


def make_shard(folder: Path, key: str, *, name: str, identity: str, size: int) -> CachedShard:
    """What is kept under `key`, begun if there is nothing that can be used.

    Raises:
        OSError: it cannot be made: a full or read-only disk, or one without sparse files.
    """
    for _ in range(8):
        found, inode = _open(folder, key)
        if found is not None and (found.header.size, found.header.identity) == (size, identity):
            return found
        if inode is not None:
            _discard(folder, key, inode)
        header = Header(key, name, identity, size, secrets.token_hex(8))
        data, new = folder / header.data_name, folder / f"{key}-{header.generation}.new"
        is_ours = False
        try:
            _make_sparse(data, size)
            new.write_bytes(header.pack())
            is_ours = _give_name(new, folder / f"{key}.blocks")
        finally:
            new.unlink(missing_ok=True)
            if not is_ours:
                data.unlink(missing_ok=True)
    raise OSError(f"{folder / key}: is removed by others as soon as it is made")


def _discard(folder: Path, key: str, inode: int) -> None:
    """Remove what is kept under `key` if that is still the one of this log. Who has it open keeps what he has."""
    log = folder / f"{key}.blocks"
    with suppress(FileNotFoundError):
        if os.stat(log, follow_symlinks=False).st_ino != inode:
            return  # another process was quicker
    log.unlink(missing_ok=True)
    for data in folder.glob(f"{key}-*.data"):  # of a damaged log nobody knows which is its own
        data.unlink(missing_ok=True)


def _make_sparse(path: Path, size: int) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _OPEN, 0o666)
    try:
        os.ftruncate(handle, size)
        allocated = os.fstat(handle).st_blocks * 512
    finally:
        os.close(handle)
    if size > 1 << 20 and allocated > size // 2:
        raise OSError(f"{path.parent}: its file system has no sparse files")


def _give_name(new: Path, log: Path) -> bool:
    """Make the log of that name be there whole, or not; False where another process was first."""
    try:
        os.link(new, log)
    except FileExistsError:
        return False
    except OSError:  # a file system without links
        new.rename(log)
    return True
