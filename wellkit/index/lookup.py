"""The index of one shard, from wherever it is cheapest: written beside the data, this machine's cache, the file."""

from __future__ import annotations

import os

from wellkit.errors import DataNotFoundError, ShardError
from wellkit.index import cache
from wellkit.index.file import TreeIndex, index_path, open_tree_index
from wellkit.index.hdf5 import index_shard
from wellkit.index.model import ShardIndex

INDEX_LEVELS = 3  # <dataset>/data/<split>/shard: the index of a dataset lies three folders up
_MAX_TREES = 64
_trees: dict[str, tuple[tuple[int, int, int], TreeIndex | None]] = {}  # by folder, with the file's version


def index_for(path: str | os.PathLike[str]) -> ShardIndex:
    """The index of a shard on a local file system, made and cached now if there is none.

    Parses in this process, as opening the shard through h5py would: for files that one cannot trust there is
    `wellkit.index.safely`. A written index is believed where the size fits; `ShardIndex.check` looks closer.

    Raises:
        DataNotFoundError: there is no such file.
        ShardError: it cannot be read, is not HDF5, or is damaged.
    """
    where = os.path.abspath(path)
    try:
        status = os.stat(where)
    except FileNotFoundError as error:
        raise DataNotFoundError(f"{os.fspath(path)}: no such file") from error
    except OSError as error:
        raise ShardError(f"{os.fspath(path)}: cannot be read ({error.strerror or error})") from error
    found = written_index(where, status.st_size) or cache.load(where, status)
    if found is None:
        found = index_shard(path)
        cache.store(where, status, found)
    return found


def written_index(path: str, size: int) -> ShardIndex | None:
    """The index of the shard at an absolute path that lies beside it or up to three folders above, if its size fits."""
    folder = path
    for _ in range(INDEX_LEVELS):
        folder = os.path.dirname(folder)
        tree = tree_index(folder)
        if tree is not None:
            found = tree.find(os.path.relpath(path, folder).replace(os.sep, "/"), size)
            if found is not None:
                return found
    return None


def tree_index(folder: str) -> TreeIndex | None:
    """As `open_tree_index`, opened once a process and again when the file has changed."""
    try:
        status = os.stat(index_path(folder))
        version = (status.st_ino, status.st_size, status.st_mtime_ns)
    except OSError:
        return None
    known = _trees.get(folder)
    if known is None or known[0] != version:
        # No lock, which a fork could leave locked: two threads at once open the same index twice.
        if len(_trees) >= _MAX_TREES:
            _trees.clear()
        known = _trees[folder] = (version, open_tree_index(folder))
    return known[1]
