"""What the first bytes of an HDF5 file tell: whether it is one, and whether its end is missing."""

from __future__ import annotations

from pathlib import Path

from wellkit.errors import StorageError

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_WITH_SIZES_AT_13 = {0: 24, 1: 28}  # version of the superblock -> where its addresses begin
_WITH_SIZES_AT_9 = {2: 12, 3: 12}
_LONGEST = 96


def header_problem(path: Path, size: int) -> str | None:
    """What is wrong with the superblock of a shard of `size` bytes; None where nothing is.

    The superblock holds the address of the file's end: a file that is shorter was cut.
    Layout: HDF5 File Format Specification, version 3.0, section II.A.

    Raises:
        StorageError: it cannot be read.
    """
    try:
        with path.open("rb", buffering=0) as file:
            head = file.read(_LONGEST)
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror or error}; check its permissions") from error
    if not head.startswith(_SIGNATURE):
        start = head.lstrip()[:16].lower()
        if start.startswith((b"<!doctype", b"<html", b"<?xml")):
            return "is a web page, not HDF5"
        if head.startswith(b"version https://git-lfs"):
            return "is the pointer of a file kept with git LFS, not the file"
        return "does not begin as HDF5 files do"
    version = head[8]
    if version in _WITH_SIZES_AT_13:
        width, first = head[13], _WITH_SIZES_AT_13[version]
        at = first + 2 * width  # base address, free-space address, end of file
    elif version in _WITH_SIZES_AT_9:
        width, first = head[9], _WITH_SIZES_AT_9[version]
        at = first + 2 * width  # base address, superblock extension, end of file
    else:
        return f"has a superblock of the unknown version {version}"
    if width not in {2, 4, 8} or len(head) < at + width:
        return "has a damaged superblock"
    end = int.from_bytes(head[at : at + width], "little")
    return f"says that it ends at byte {end}, but has {size}" if end > size else None
