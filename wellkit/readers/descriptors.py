"""Open files of this process: few, shared by its threads, each process with its own."""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache

import numpy as np

from wellkit.errors import DataNotFoundError, ShardError
from wellkit.readers.stored import TakeBuffer

DAMAGED = "it is damaged or was not downloaded whole: delete it and download it again"

# f_type of statfs(2), from linux/magic.h and the file systems' own sources: a map of such a file may block, or end in
# SIGBUS when the server goes away.
_NETWORK = frozenset(
    {
        0x6969,  # NFS
        0x517B,  # SMB
        0xFE534D42,  # SMB2
        0xFF534D42,  # CIFS
        0x65735546,  # FUSE and virtiofs
        0x0BD00BD0,  # Lustre
        0x01021997,  # 9P
        0x00C36400,  # Ceph
        0x5346414F,  # AFS
        0x47504653,  # GPFS
        0x19830326,  # BeeGFS
        0x7461636F,  # OCFS2
        0x01161970,  # GFS2
        0x73757245,  # Coda
        0x786F4256,  # VirtualBox shared folders
    }
)


_NO_WAIT = getattr(os, "RWF_NOWAIT", 0)
CAN_BRING_IN = bool(_NO_WAIT) and hasattr(os, "posix_fadvise")


def file_system_type(descriptor: int) -> int | None:
    """The magic number of the file system that holds an open file; None where it cannot be told."""
    if sys.platform != "linux":
        return None
    buffer = (ctypes.c_long * 64)()  # struct statfs begins with f_type
    try:
        failed = ctypes.CDLL(None).fstatfs(descriptor, buffer)
    except (OSError, AttributeError):
        return None
    return None if failed else int(buffer[0]) & 0xFFFFFFFF


@lru_cache(maxsize=64)
def _is_local(device: int, descriptor: int) -> bool:
    kind = file_system_type(descriptor)
    return kind is not None and kind not in _NETWORK


class OpenFile:
    """One open shard: a `StoredFile`."""

    advice = DAMAGED

    def __init__(self, path: str) -> None:
        self.path = path
        try:
            self.descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise DataNotFoundError(f"{path}: no such file") from error
        except OSError as error:
            raise ShardError(f"{path}: cannot be opened ({error.strerror}); check its permissions") from error
        self.users = 0
        self.is_local = _is_local(os.fstat(self.descriptor).st_dev, self.descriptor)

    def size(self) -> int:
        """Bytes of the file now."""
        return os.fstat(self.descriptor).st_size

    def is_cached(self, offset: int) -> bool:
        """Whether the operating system has the byte at `offset` in memory; True where it cannot tell."""
        try:
            os.preadv(self.descriptor, [bytearray(1)], offset, _NO_WAIT)
        except BlockingIOError:
            return False
        except OSError:  # a file system that cannot tell
            pass
        return True

    def bring_in(self, offset: int, size: int) -> None:
        """Have bytes, and no more than these, read to memory in the background: read-ahead would guess."""
        with suppress(OSError):  # advice
            os.posix_fadvise(self.descriptor, offset, size, os.POSIX_FADV_WILLNEED)

    def stored(self, offset: int, nbytes: int, take: TakeBuffer) -> np.ndarray:
        """Bytes of the file, uint8. Raises as `read_into`."""
        buffer = take(nbytes)
        self.read_into([buffer.data], offset)
        return buffer

    def read_into(self, buffers: Sequence[memoryview], offset: int) -> None:
        """Fill `buffers` with consecutive bytes from `offset`.

        Raises:
            ShardError: the file ends before, or the storage fails; names the file.
        """
        wanted = sum(buffer.nbytes for buffer in buffers)
        left, at = list(buffers), offset
        try:
            while left:
                got = os.preadv(self.descriptor, left, at)
                if got == 0:
                    raise ShardError(
                        f"{self.path}: bytes {offset} to {offset + wanted} were asked for, the file ends at {at}; it "
                        "is truncated or changed since it was indexed: download it again, or index it again"
                    )
                at += got
                while left and got >= left[0].nbytes:
                    got -= left.pop(0).nbytes
                if got:
                    left[0] = left[0][got:]
        except OSError as error:
            if isinstance(error, ShardError):
                raise
            raise ShardError(f"{self.path}: cannot be read at byte {at} ({error.strerror}); {DAMAGED}") from error


class Descriptors:
    """Open files by path; beyond `limit`, those longest unused are closed as soon as nobody reads from them.

    Thread-safe. A forked child starts without any.
    """

    def __init__(self, limit: int = 128) -> None:
        self._limit = limit
        self._reset()
        os.register_at_fork(after_in_child=self._after_fork)

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._open: OrderedDict[str, OpenFile] = OrderedDict()

    def _after_fork(self) -> None:
        inherited = list(self._open.values())
        self._reset()  # the lock may have been held by a thread that is not here
        for file in inherited:
            with suppress(OSError):
                os.close(file.descriptor)

    def __len__(self) -> int:
        return len(self._open)

    def hold(self, path: str) -> OpenFile:
        """The open file at `path`, which stays open until `let_go`.

        Raises:
            DataNotFoundError: there is no such file.
            ShardError: it cannot be opened.
        """
        with self._lock:
            file = self._open.get(path)
            if file is None:
                file = self._open[path] = OpenFile(path)
            else:
                self._open.move_to_end(path)
            file.users += 1
            if len(self._open) > self._limit:
                self._trim()
            return file

    def let_go(self, path: str, file: OpenFile) -> None:
        """Undo one `hold`."""
        with self._lock:
            file.users -= 1
            if file.users == 0 and self._open.get(path) is not file:
                os.close(file.descriptor)
            elif len(self._open) > self._limit:
                self._trim()

    @contextmanager
    def use(self, path: str) -> Iterator[OpenFile]:
        """As `hold`, while the block runs."""
        file = self.hold(path)
        try:
            yield file
        finally:
            self.let_go(path, file)

    def _trim(self) -> None:
        idle = [path for path, file in self._open.items() if file.users == 0]
        for path in idle[: len(self._open) - self._limit]:
            os.close(self._open.pop(path).descriptor)

    def drop(self, path: str) -> None:
        """Close the file at `path`, as soon as nobody reads from it."""
        with self._lock:
            file = self._open.pop(path, None)
            if file is not None and file.users == 0:
                os.close(file.descriptor)
