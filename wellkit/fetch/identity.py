"""Which file it is, whatever its address: what copies of remote files are known by."""

from __future__ import annotations

import hashlib
import os
from typing import NamedTuple

from wellkit.fetch.listing import ListedFile
from wellkit.storage import reading


class Identity(NamedTuple):
    """Which file it is, whatever its address. `key` is empty where nothing tells one version from another."""

    key: str
    text: str
    size: int


def identity_of(file: ListedFile) -> Identity:
    """By the hash of its content where that is known, else by address, size and version."""
    if file.size is None or not (file.content or file.version):
        return Identity("", "", 0)
    # Addresses may be signed: they are not written anywhere.
    version = file.version if len(file.version) < 200 else digest(file.version)
    text = file.content or f"address:{digest(file.location)}:{version}"
    return Identity(digest(f"{file.size}:{text}"), text, file.size)


def digest(text: str) -> str:
    """32 hexadecimal digits for a text."""
    return hashlib.blake2b(os.fsencode(text), digest_size=16).hexdigest()


def local_file(path: str) -> ListedFile:
    """A file of a slow local or network tree, as a listing would tell of it.

    Raises:
        DataNotFoundError or another error of ours: it cannot be looked at.
    """
    with reading(path):
        status = os.stat(path)
    return ListedFile(path, status.st_size, version=f"mtime={status.st_mtime_ns}:{status.st_ino}")
