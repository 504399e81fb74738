"""This machine's own indexes of shards that have none beside them.

One small file a shard under the cache folder, keyed by absolute path, size, time of last change and inode. Written
by rename, so that processes may share it; read with its checksums, so that a damaged one counts as none.
"""

from __future__ import annotations

import hashlib
import os
import time
from contextlib import suppress
from pathlib import Path

from wellkit.errors import ShardError, StorageError
from wellkit.fetch.disk import write_atomically
from wellkit.index.columns import BadIndexError, pack, unpack
from wellkit.index.model import ShardIndex
from wellkit.settings import cache_dir

# The bound holds for each of 256 folders, so that keeping it means listing one of them: 16,384 files, 512 MiB in all
# (beside one index that alone is larger than its folder's share).
MAX_FILES = 64
MAX_BYTES = 2 << 20
_SETTLED_NS = 2_000_000_000


def cache_folder() -> Path:
    """Where cached indexes are."""
    return cache_dir() / "index"


def _key(path: str, status: os.stat_result) -> str:
    return f"{status.st_size}:{status.st_mtime_ns}:{status.st_ino}:{os.path.abspath(path)}"


def _place(key: str) -> Path:
    # Named by the path alone: a new version of a shard replaces the index of the old one.
    name = hashlib.blake2b(os.fsencode(key.split(":", 3)[3]), digest_size=16).hexdigest()
    return cache_folder() / name[:2] / f"{name[2:]}.bin"


def load(path: str, status: os.stat_result) -> ShardIndex | None:
    """The cached index of the shard at `path` if it is still the one that `status` (of `os.stat`) tells of."""
    key = _key(path, status)
    place = _place(key)
    try:
        packed = unpack(place.read_bytes(), os.fspath(place))
    except (OSError, BadIndexError):
        return None
    if packed.paths != (key,):
        return None
    index = packed.shard(0)
    try:
        for name in index.arrays:
            index.arrays[name]
    except ShardError:  # a damaged table: found now, while parsing again is still possible
        return None
    with suppress(OSError):
        os.utime(place)  # used last, removed last
    return index


def store(path: str, status: os.stat_result, index: ShardIndex) -> None:
    """Keep the index of a shard; `status` is from before it was indexed. Does nothing where that is of no use."""
    if time.time_ns() - status.st_mtime_ns < _SETTLED_NS or index.size != status.st_size:
        return  # a change within the same tick of the clock would not be seen
    key = _key(path, status)
    place = _place(key)
    try:
        write_atomically(place, pack({key: index}))
    except StorageError:
        return  # a full or read-only cache costs time, nothing else
    _prune(place)


def _prune(kept: Path) -> None:
    """Remove what was used least recently from the folder of `kept`, beyond its bounds."""
    found = []
    with suppress(OSError), os.scandir(kept.parent) as entries:
        for entry in entries:
            with suppress(OSError):
                status = entry.stat()
                found.append((status.st_mtime_ns, status.st_size, entry.path))
    total = sum(size for _, size, _ in found)
    count = len(found)
    for _, size, path in sorted(found):
        if count <= MAX_FILES and total <= MAX_BYTES:
            return
        if path != os.fspath(kept):
            with suppress(OSError):
                os.unlink(path)
            total -= size
            count -= 1
