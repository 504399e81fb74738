"""Indexing a whole folder of shards, and checking that its index still says what the shards hold."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from wellkit.errors import ArgumentError, DataNotFoundError, ShardError, WellkitError
from wellkit.fetch.listing import content_of
from wellkit.fetch.manifest import published_hash, verified_files
from wellkit.index.columns import pack
from wellkit.index.file import index_path, open_tree_index, write_tree_index
from wellkit.index.model import ShardIndex
from wellkit.index.safely import TIMEOUT, index_shards_safely

SUFFIXES = (".hdf5", ".h5")
Progress = Callable[[int, int], None]  # shards done, shards there are


@dataclass(frozen=True)
class ShardReport:
    """One shard of a tree.

    Attributes:
        path: relative to the tree's folder.
        bytes: size of the file.
        arrays, chunks: how many; chunks that were never written are not counted, nor are contiguous arrays.
        inline: arrays whose content is in the index.
        fallbacks: why only libhdf5 can read an array, by its path.
        error: why there is no index, or (checking) why it cannot be used; None if all is well.
    """

    path: str
    bytes: int = 0
    arrays: int = 0
    chunks: int = 0
    inline: int = 0
    fallbacks: Mapping[str, str] | None = None
    error: str | None = None


@dataclass(frozen=True)
class TreeReport:
    """What indexing or checking a folder found. `written` is the index file, None where none was written."""

    folder: str
    shards: tuple[ShardReport, ...]
    written: Path | None = None

    @property
    def failed(self) -> tuple[ShardReport, ...]:
        """Shards without a usable index."""
        return tuple(shard for shard in self.shards if shard.error is not None)


def find_shard_files(folder: str | os.PathLike[str]) -> list[str]:
    """Shards below a folder, relative to it with forward slashes, sorted; hidden folders are left out.

    Raises:
        DataNotFoundError: there is no such folder, or no shard in it.
        ArgumentError: it is an address, not a local folder.
    """
    root = os.fspath(folder)
    if "://" in root:
        raise ArgumentError(
            f"{root}: an index cannot be written beside it; write one with --publish-to DIR, or download it first"
        )
    if not os.path.isdir(root):
        what = "is a file; give the folder it lies in" if os.path.exists(root) else "no such folder"
        raise DataNotFoundError(f"{root}: {what}")
    found: list[str] = []
    seen: set[str] = set()
    for place, folders, files in os.walk(root, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:  # a link to a folder above
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        relative = os.path.relpath(place, root)
        for name in files:
            if name.endswith(SUFFIXES) and not name.startswith("."):
                found.append(os.path.normpath(os.path.join(relative, name)).replace(os.sep, "/"))
    if not found:
        raise DataNotFoundError(f"{root}: holds no {' or '.join(SUFFIXES)} file")
    return sorted(found)


def index_tree(
    folder: str | os.PathLike[str],
    *,
    jobs: int = 2,
    keep_going: bool = False,
    timeout: float = TIMEOUT,
    progress: Progress | None = None,
) -> TreeReport:
    """Index every shard below a folder, each in a child process, and write the index beside them.

    Args:
        jobs: child processes.
        keep_going: write the index of the others where some shards cannot be indexed; else none is written, so that
            an index that is there covers its whole tree.
        timeout: seconds a shard.

    Raises:
        DataNotFoundError: no such folder, or no shard in it.
        StorageError: the index cannot be written.
    """
    root = os.fspath(folder)
    indexes = index_all(root, jobs, timeout, progress)
    reports = tuple(report_of(path, index) for path, index in indexes.items())
    usable = with_contents(root, {path: index for path, index in indexes.items() if isinstance(index, ShardIndex)})
    written = None
    if usable and (keep_going or len(usable) == len(indexes)):
        written = write_tree_index(root, usable)
    return TreeReport(root, reports, written)


def check_tree(
    folder: str | os.PathLike[str], *, jobs: int = 2, timeout: float = TIMEOUT, progress: Progress | None = None
) -> TreeReport:
    """Index every shard below a folder again and compare with the index beside them; nothing is written.

    Raises:
        DataNotFoundError: no such folder, no shard in it, or no index that can be used.
    """
    root = os.fspath(folder)
    find_shard_files(root)
    tree = open_tree_index(root)
    if tree is None:
        raise DataNotFoundError(f"{index_path(root)}: no index that can be used; write one with `wellkit index {root}`")
    reports = []
    found = index_all(root, jobs, timeout, progress)
    for path, index in found.items():
        report = report_of(path, index)
        if isinstance(index, ShardIndex):
            error = _difference(tree.find(path), index)
            if error is not None:
                report = ShardReport(path, index.size, error=f"{os.path.join(root, path)}: {error}")
        reports.append(report)
    reports += [
        ShardReport(path, error=f"{os.path.join(root, path)}: is indexed, but is not there any more")
        for path in tree.paths
        if path not in found
    ]
    return TreeReport(root, tuple(reports))


def with_contents(folder: str, indexes: Mapping[str, ShardIndex]) -> dict[str, ShardIndex]:
    """The same indexes, with the hashes of the shards that were verified when they were downloaded."""
    _, verified = verified_files(Path(folder))
    known = {path: content_of(published_hash(file)) for path, file in verified.items()}
    return {path: replace(index, content=known.get(path, "")) for path, index in indexes.items()}


def _difference(recorded: ShardIndex | None, index: ShardIndex) -> str | None:
    if recorded is None:
        return "is not in the index"
    if recorded.size != index.size:
        return f"has {index.size} bytes, {recorded.size} when it was indexed"
    try:
        same = pack({"": replace(recorded, content="")}) == pack({"": index})
    except ShardError as error:
        return str(error)
    return None if same else "differs from what was indexed"


def index_all(root: str, jobs: int, timeout: float, progress: Progress | None) -> dict[str, ShardIndex | WellkitError]:
    if jobs < 1:
        raise ArgumentError(f"jobs={jobs}: at least one process is needed")
    paths = find_shard_files(root)
    full = [os.path.join(root, path) for path in paths]
    found: dict[str, ShardIndex | WellkitError] = {}
    if progress is not None:
        progress(0, len(paths))
    for path, (_, index) in zip(paths, index_shards_safely(full, jobs=jobs, timeout=timeout), strict=True):
        found[path] = index
        if progress is not None:
            progress(len(found), len(paths))
    return found


def report_of(path: str, index: ShardIndex | WellkitError) -> ShardReport:
    if not isinstance(index, ShardIndex):
        return ShardReport(path, error=str(index))
    arrays = list(index.arrays.values())
    return ShardReport(
        path,
        bytes=index.size,
        arrays=len(arrays),
        chunks=sum(int((array.offsets >= 0).sum()) for array in arrays),
        inline=sum(array.layout == "inline" for array in arrays),
        fallbacks={array.name: array.reason for array in arrays if array.layout == "fallback"},
    )
