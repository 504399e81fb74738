"""What the first bytes of an HDF5 file promise: read without libhdf5, in one small read.

The layout of the superblock is that of the HDF5 File Format Specification, section II.A.
"""

from __future__ import annotations

import os
from pathlib import Path

from wellkit.errors import DataNotFoundError, ShardError

SIGNATURE = b"\x89HDF\r\n\x1a\n"
_PLACES = (0, 512, 1024, 2048, 4096)  # a user block may come first
_LENGTH = 64


def check_superblock(path: str | os.PathLike[str]) -> int:
    """Look at the beginning of a file that should be HDF5, and at its size; returns the size in bytes.

    Finds what is no HDF5 file (an error page saved as one) and what was cut short, not damage further inside.

    Raises:
        DataNotFoundError: there is no such file.
        ShardError: it is empty, is not HDF5, or is shorter than it says.
    """
    try:
        with Path(path).open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            head = b""
            for place in _PLACES:
                file.seek(place)
                head = file.read(_LENGTH)
                if head.startswith(SIGNATURE):
                    break
    except FileNotFoundError as error:
        raise DataNotFoundError(f"{os.fspath(path)}: no such file") from error
    except OSError as error:
        raise ShardError(f"{os.fspath(path)}: cannot be read ({error.strerror or error})") from error
    if not size:
        raise ShardError(f"{os.fspath(path)}: is empty; fetch it again")
    if not head.startswith(SIGNATURE):
        raise ShardError(f"{os.fspath(path)}: is not an HDF5 file; fetch it again")
    end = _end_of_file(head)
    if end is None:
        raise ShardError(f"{os.fspath(path)}: its superblock cannot be understood; fetch it again")
    if size < end:
        raise ShardError(
            f"{os.fspath(path)}: has {size} bytes, its header says {end}: it was cut short; fetch it again"
        )
    return size


def _end_of_file(head: bytes) -> int | None:
    """The address of the first byte behind all data; None where the superblock is none that is known."""
    if len(head) < 16:
        return None
    version = head[8]
    if version in (0, 1):
        width, addresses = head[13], 24 + 4 * version
    elif version in (2, 3):
        width, addresses = head[9], 12
    else:
        return None
    start = addresses + 2 * width  # behind the base address and one more
    if width not in (2, 4, 8) or len(head) < start + width:
        return None
    return int.from_bytes(head[start : start + width], "little")
