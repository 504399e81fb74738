"""The index of a tree of shards in one file beside them: `<folder>/.wellkit/index.bin`.

`folder` is a dataset's own (`<base>/<name>`, shards at `data/<split>/...`) or any folder that shards lie below.
Opening reads one file and opens no shard. A shard whose size differs from what was indexed is as good as not
indexed; one whose first or last bytes differ is refused when it is first used (`ShardIndex.check`).
"""

from __future__ import annotations

import os
import warnings
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wellkit.errors import ShardError, WellkitWarning
from wellkit.fetch.disk import FOLDER, write_atomically
from wellkit.index.columns import HEADER_SIZE, BadIndexError, Packed, pack, sizes_of
from wellkit.index.model import Attributes, ShardIndex

NAME = "index.bin"
_told: set[str] = set()  # indexes that were found unusable, each told of once a process


def index_path(folder: str | os.PathLike[str]) -> Path:
    """Where the index of the shards below `folder` is."""
    return Path(folder) / FOLDER / NAME


def write_tree_index(folder: str | os.PathLike[str], indexes: Mapping[str, ShardIndex]) -> Path:
    """Write the index of a tree; a reader sees the old or the new one, whole. Returns its path.

    Args:
        folder: what the paths are relative to.
        indexes: by path relative to `folder`, with forward slashes.

    Raises:
        StorageError: it cannot be written.
    """
    path = index_path(folder)
    write_atomically(path, pack(dict(sorted(indexes.items()))))
    return path


def open_tree_index(folder: str | os.PathLike[str]) -> TreeIndex | None:
    """The index of the shards below `folder`, or None where there is none that can be used.

    Warns:
        WellkitWarning: there is one, but it is damaged or of another version. Told once a process.
    """
    path = index_path(folder)
    try:
        return TreeIndex(os.fspath(folder))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        why = f"cannot be read ({error.strerror or error})"
    except BadIndexError as error:
        why = f"cannot be used ({error})"
    if os.fspath(path) not in _told:
        _told.add(os.fspath(path))
        warnings.warn(
            f"{path}: {why} and is ignored; write it again with `wellkit index {os.fspath(folder)}`",
            WellkitWarning,
            stacklevel=2,
        )
    return None


class _FileTables:
    """Chunk tables that stay on disk until they are used. Keeps the file open, so that one written over it meanwhile
    (under another inode) is not mixed with it; a copy in another process opens it again and compares headers."""

    def __init__(self, path: str, header: bytes, descriptor: int | None = None) -> None:
        self._path, self._header = path, header
        self._start = HEADER_SIZE + sizes_of(header)[0]
        self._descriptor: int | None = None
        if descriptor is not None:
            self._keep(descriptor)

    def __reduce__(self) -> tuple[Any, ...]:
        return _FileTables, (self._path, self._header)

    def _keep(self, descriptor: int) -> int:
        self._descriptor = descriptor
        weakref.finalize(self, os.close, descriptor)
        return descriptor

    def _opened(self) -> int:
        # No lock, which a fork could leave locked: two threads at once open the file twice, and both may be used.
        descriptor = self._keep(os.open(self._path, os.O_RDONLY | os.O_CLOEXEC))
        if os.pread(descriptor, HEADER_SIZE, 0) != self._header:
            self._descriptor = None
            raise ShardError(f"{self._path}: was written again since it was opened; open the dataset again")
        return descriptor

    def read(self, start: int, size: int) -> bytes:
        try:
            descriptor = self._descriptor
            if descriptor is None:
                descriptor = self._opened()
            return os.pread(descriptor, size, self._start + start)
        except ShardError:
            raise
        except OSError as error:
            raise ShardError(f"{self._path}: cannot be read ({error.strerror or error})") from error


class ShardTable:
    """Indexes of many shards by path. Picklable; safe under fork, spawn and threads."""

    def __init__(self, packed: Packed) -> None:
        self._packed = packed
        self._numbers = {name: number for number, name in enumerate(packed.paths)}

    @property
    def paths(self) -> tuple[str, ...]:
        """Of the shards, relative to the folder they lie below, sorted."""
        return self._packed.paths

    def find(self, path: str, size: int | None = None, content: str = "") -> ShardIndex | None:
        """The index of one shard.

        Args:
            path: relative to the folder the index is of.
            size: bytes of the file now; None to take the index as it is.
            content: hash of the file now, as in `ShardIndex.content`, where it is known.

        Returns:
            None where the shard is not indexed, or was another file when it was.
        """
        number = self._numbers.get(path)
        if number is None or (size is not None and self._packed.sizes[number] != size):
            return None
        recorded = self._packed.contents[number]
        if content and recorded and content != recorded and _kind(content) == _kind(recorded):
            return None
        return self._packed.shard(number)

    def __contains__(self, path: object) -> bool:
        return path in self._numbers

    def skeleton_of(self, path: str) -> int:
        """A number that two shards share exactly where all is alike but places, values of small arrays, and the root
        attributes in `varying`: what was worked out from names, shapes and attributes of one holds for the other.

        Raises:
            KeyError: the shard is not indexed.
        """
        return self._packed.skeleton_numbers[self._numbers[path]]

    def varying(self, skeleton: int) -> frozenset[str]:
        """Names of the root attributes in which shards of one skeleton differ."""
        return self._packed.skeleton(skeleton).varying

    def own_attributes(self, path: str) -> Attributes:
        """Those root attributes of one shard. Raises KeyError where it is not indexed."""
        return self._packed.own_attributes(self._numbers[path])


def _kind(content: str) -> str:
    return content.partition(":")[0]


class TreeIndex(ShardTable):
    """The index of a tree of shards, from a file whose chunk tables stay on disk until they are used.

    Args:
        folder: what the paths are relative to.
        path: the file; by default where `write_tree_index` puts it.

    Raises:
        OSError: (on making one) the file is not there or cannot be read.
        BadIndexError: (on making one) it is damaged or of another version.
    """

    def __init__(self, folder: str, path: str | None = None) -> None:
        self.folder = folder
        path = os.fspath(index_path(folder)) if path is None else path
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        keep = False
        try:
            header = os.pread(descriptor, HEADER_SIZE, 0)
            directory, tables = sizes_of(header)
            if os.fstat(descriptor).st_size != HEADER_SIZE + directory + tables:
                raise BadIndexError("truncated, or longer than it says")
            keep = tables > 0
            source = _FileTables(path, header, descriptor if keep else None)
            super().__init__(Packed(header, os.pread(descriptor, directory, HEADER_SIZE), source, path))
        finally:
            if not keep:
                os.close(descriptor)
