"""A file that HDF5 can write to without being harmed by a full disk."""

from __future__ import annotations

import errno
import io
import os
from pathlib import Path
from typing import Any

from wellkit.errors import StorageError

_FULL = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the quota is used up",
    errno.EFBIG: "the file is too large",
}


class HdfStream(io.FileIO):
    """A file for HDF5 to write to that never lets HDF5 see a failed write.

    libhdf5 does not survive a full disk: handles stay open, and the process may crash when it exits. So the
    first failure is kept here, later writes are swallowed, HDF5 closes in peace, and whoever opened it looks at
    `failure` afterwards.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, "w+")
        self.failure: OSError | None = None

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        written = 0
        while self.failure is None and written < len(view):
            try:
                written += super().write(view[written:]) or 0
            except OSError as error:
                self.failure = error
        return len(view)

    def truncate(self, size: int | None = None) -> int:
        try:
            return super().truncate(size)
        except OSError as error:
            self.failure = self.failure or error
            return size or 0

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        count = super().readinto(view) or 0
        if self.failure is not None:
            view[count:] = bytes(len(view) - count)  # what was swallowed reads as zeros
            return len(view)
        return count


def storage_error(path: str | os.PathLike[str], error: OSError) -> StorageError:
    """The one-line form of an operating system's refusal to write `path`."""
    reason = _FULL.get(error.errno or 0) or (os.strerror(error.errno) if error.errno else str(error))
    return StorageError(f"cannot write {os.fspath(path)}: {reason}; free space there or choose another target")
