"""What this machine remembers of Hub repositories: commits, listings, small files.

A commit never changes, so what was asked about one need not be asked again, by whatever process. What a branch named
when it was last asked is used only where `$HF_HUB_OFFLINE` forbids to ask. Notes are small files under the cache
folder, written by rename; a damaged one counts as none.
"""

from __future__ import annotations

import hashlib
import os
import zlib
from contextlib import suppress
from pathlib import Path

from wellkit.errors import StorageError
from wellkit.fetch.disk import write_atomically
from wellkit.settings import cache_dir

MAX_NOTES = 512  # of one kind
MAX_BYTES = 128 << 20


def _place(kind: str, key: tuple[str, ...]) -> Path:
    digest = hashlib.blake2b("\0".join(key).encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()
    return cache_dir() / "hub" / kind / f"{digest}.z"


def recall(kind: str, *key: str) -> bytes | None:
    """What was remembered last under `kind` and `key`; None where there is nothing."""
    place = _place(kind, key)
    try:
        content = zlib.decompress(place.read_bytes())
    except (OSError, zlib.error):
        return None
    with suppress(OSError):
        os.utime(place)  # used last, removed last
    return content


def remember(content: bytes, kind: str, *key: str) -> None:
    """Keep `content` for `recall`. A cache that cannot be written costs time, nothing else."""
    place = _place(kind, key)
    with suppress(StorageError):
        write_atomically(place, zlib.compress(content, 1))
        prune(place, MAX_NOTES, MAX_BYTES)


def prune(kept: Path, max_files: int, max_bytes: int) -> None:
    """Remove what was used least recently from the folder of `kept`, beyond its bounds; never `kept` itself."""
    found = []
    with suppress(OSError), os.scandir(kept.parent) as entries:
        for entry in entries:
            with suppress(OSError):
                status = entry.stat()
                found.append((status.st_mtime_ns, status.st_size, entry.path))
    total = sum(size for _, size, _ in found)
    count = len(found)
    for _, size, path in sorted(found):
        if count <= max_files and total <= max_bytes:
            return
        if path != os.fspath(kept):
            with suppress(OSError):
                os.unlink(path)
            total -= size
            count -= 1
