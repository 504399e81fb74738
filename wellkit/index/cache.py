"""This machine's own indexes: of shards that have none beside them, and copies of written ones that lie elsewhere.

One small file a shard under the cache folder. That of a local shard is keyed by absolute path, size, time of last
change and inode; that of a remote one by the hash of its content, or by its address and what the storage tells of its
version. Written by rename, so that processes may share it; read with its checksums, so that a damaged one counts as
none.
"""

from __future__ import annotations

import hashlib
import os
import time
from contextlib import suppress
from pathlib import Path

from wellkit.errors import ShardError, StorageError
from wellkit.fetch.disk import write_atomically
from wellkit.fetch.notes import prune
from wellkit.index.columns import BadIndexError, pack, unpack
from wellkit.index.file import TreeIndex
from wellkit.index.model import ShardIndex
from wellkit.settings import cache_dir

# The bound holds for each of 256 folders, so that keeping it means listing one of them: 16,384 files, 512 MiB in all
# (beside one index that alone is larger than its folder's share).
MAX_FILES = 64
MAX_BYTES = 2 << 20
MAX_TREES = 64
MAX_TREE_BYTES = 2 << 30
_SETTLED_NS = 2_000_000_000


def cache_folder() -> Path:
    """Where cached indexes are."""
    return cache_dir() / "index"


def _digest(name: str) -> str:
    return hashlib.blake2b(os.fsencode(name), digest_size=16).hexdigest()


def _place(name: str) -> Path:
    # Named by the path alone: a new version of a shard replaces the index of the old one.
    digest = _digest(name)
    return cache_folder() / digest[:2] / f"{digest[2:]}.bin"


def _state(status: os.stat_result) -> str:
    return f"{status.st_size}:{status.st_mtime_ns}:{status.st_ino}"


def load(path: str, status: os.stat_result) -> ShardIndex | None:
    """The cached index of the shard at `path` if it is still the one that `status` (of `os.stat`) tells of."""
    return _load(os.path.abspath(path), _state(status))


def _load(name: str, state: str) -> ShardIndex | None:
    place = _place(name)
    try:
        packed = unpack(place.read_bytes(), os.fspath(place))
    except (OSError, BadIndexError):
        return None
    if packed.paths != (f"{state}:{name}",):
        return None
    index = packed.shard(0)
    try:
        for array in index.arrays:
            index.arrays[array]
    except ShardError:  # a damaged table: found now, while parsing again is still possible
        return None
    with suppress(OSError):
        os.utime(place)  # used last, removed last
    return index


def store(path: str, status: os.stat_result, index: ShardIndex) -> None:
    """Keep the index of a shard; `status` is from before it was indexed. Does nothing where that is of no use."""
    if time.time_ns() - status.st_mtime_ns < _SETTLED_NS or index.size != status.st_size:
        return  # a change within the same tick of the clock would not be seen
    _store(os.path.abspath(path), _state(status), index)


def _store(name: str, state: str, index: ShardIndex) -> None:
    place = _place(name)
    try:
        write_atomically(place, pack({f"{state}:{name}": index}))
    except StorageError:
        return  # a full or read-only cache costs time, nothing else
    prune(place, MAX_FILES, MAX_BYTES)


def load_remote(location: str, size: int, content: str, version: str) -> ShardIndex | None:
    """The cached index of a remote shard.

    Args:
        location: its address. Not written anywhere, since it may be signed.
        size: its bytes.
        content: hash of its content; where known, it alone tells which file this is.
        version: else what the storage tells of its version; where that is empty too, nothing is cached.
    """
    name, state = _remote_key(location, size, content, version)
    return _load(name, state) if name else None


def store_remote(location: str, size: int, content: str, version: str, index: ShardIndex) -> None:
    """Keep the index of a remote shard; arguments as of `load_remote`."""
    name, state = _remote_key(location, size, content, version)
    if name and index.size == size:
        _store(name, state, index)


def _remote_key(location: str, size: int, content: str, version: str) -> tuple[str, str]:
    if content:
        return content, str(size)
    return (f"address:{_digest(location)}", f"{size}:{version}") if version else ("", "")


def tree_place(location: str, size: int, content: str, version: str) -> Path | None:
    """Where a copy of a written index is kept that lies at `location`; None where nothing tells one version from
    another. Arguments as of `load_remote`."""
    name, state = _remote_key(location, size, content, version)
    return cache_folder() / "trees" / f"{_digest(f'{state}:{name}')}.bin" if name else None


def open_copy(place: Path, name: str) -> TreeIndex | None:
    """The copy of a written index at `place`; None where there is none, or a damaged one. `name` is for messages."""
    try:
        found = TreeIndex(name, os.fspath(place))
    except (OSError, BadIndexError):
        return None
    with suppress(OSError):
        os.utime(place)
    return found


def keep_copy(place: Path, content: bytes) -> bool:
    """Keep a copy of a written index; whether it could be."""
    try:
        write_atomically(place, content)
    except StorageError:
        return False
    prune(place, MAX_TREES, MAX_TREE_BYTES)
    return True
