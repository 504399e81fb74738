"""What wellkit keeps in a cache folder, and how to be rid of it.

Only files that have names as wellkit gives them, in the folders it makes, are counted or removed; links never are, nor
what they point to. So a folder that was named by mistake loses nothing.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from wellkit.errors import DataNotFoundError, StorageError, did_you_mean
from wellkit.fetch.cache_space import Held, in_use, remove, scan
from wellkit.fetch.cached_shard import GoneError, read_header, read_log
from wellkit.fetch.disk import telling
from wellkit.fetch.range_cache import FOLDER, is_cache

Kind = Literal["shards", "index", "kernels", "hub"]
_SHARD = re.compile(r"(?P<dataset>.+)/data/(?:train|valid|test)/[^/]+")
_COMMIT = re.compile(r"@(?P<commit>[^/@]+)")
_NEW = r"(?:\.\d+-\d+\.new)?"  # what a killed process leaves of a file it was writing
# (kind, folder, names of files in it)
_OTHERS: tuple[tuple[Kind, str, re.Pattern[str]], ...] = (
    ("index", "index", re.compile(rf"(?:[0-9a-f]{{2}}/[0-9a-f]{{30}}|trees/[0-9a-f]{{32}})\.bin{_NEW}")),
    ("kernels", "numba", re.compile(r"kernels-[0-9a-f]{16}/(?:[\w.-]+/)?[\w.<>-]+\.nb[ic](?:\.tmp\.\w+)?")),
    ("hub", "hub", re.compile(rf"[a-z-]+/[0-9a-f]{{32}}\.z{_NEW}")),
)


@dataclass(frozen=True)
class CachedFile:
    """One remote file of which parts are kept.

    Attributes:
        location: its address without secrets; empty where that cannot be read any more.
        size: its bytes.
        present: how many of them are there, by the log.
        allocated: bytes of the disk.
        used: seconds since the epoch.
    """

    location: str
    size: int
    present: int
    allocated: int
    used: float
    in_use: bool


@dataclass(frozen=True)
class CachedItem:
    """What is removed at once: all that is kept of a dataset at one commit, or one of wellkit's other caches.

    Attributes:
        name: what to call it to remove it.
        kind: "shards" of a dataset; "index", of shards that have none beside them; compiled "kernels"; notes of
            "hub" listings.
        location: of the dataset, or the folder.
        commit: of the Hub; empty elsewhere.
        n_files: kept ones.
        allocated: bytes of the disk.
        used: when something of it was used last, seconds since the epoch.
        files: of shards, each.
    """

    name: str
    kind: Kind
    location: str
    commit: str
    n_files: int
    allocated: int
    used: float
    files: tuple[CachedFile, ...]
    _paths: tuple[Path, ...]
    _held: tuple[Held, ...]

    @property
    def size(self) -> int:
        """Bytes of the files that parts of are kept."""
        return sum(file.size for file in self.files)

    @property
    def present(self) -> int:
        """Bytes of them that are there."""
        return sum(file.present for file in self.files)

    @property
    def is_used(self) -> bool:
        """Whether a running process reads from it."""
        return any(file.in_use for file in self.files)


def cache_contents(folder: Path) -> list[CachedItem]:
    """What is kept in a folder: `$WELLKIT_CACHE`, or what was given as `cache=`.

    Raises:
        DataNotFoundError: there is no such folder, or nothing in it is wellkit's.
        StorageError: it cannot be read.
    """
    if not folder.is_dir():
        raise DataNotFoundError(f"{folder}: no such folder; give the one that was given as cache=")
    with telling(folder, "read"):
        items = [*_datasets(folder / FOLDER), *filter(None, (_other(folder, *other) for other in _OTHERS))]
        is_ours = bool(items) or is_cache(folder / FOLDER) or not any(folder.iterdir())
    if not is_ours:
        raise DataNotFoundError(f"{folder}: is no cache of wellkit's; give the folder that was given as cache=")
    return items


def choose(items: Sequence[CachedItem], names: Sequence[str]) -> list[CachedItem]:
    """Those items that are named: by name, NAME@COMMIT (its beginning is enough), or location.

    Raises:
        DataNotFoundError: there is none of that name.
    """
    chosen: list[CachedItem] = []
    for name in names:
        found = [item for item in items if _is_named(item, name)]
        if not found:
            known = sorted({item.name for item in items})
            held = f"holds {', '.join(known[:8])}" if known else "is empty"
            raise DataNotFoundError(
                f"{name}: is not in the cache, which {held}.{did_you_mean(name, known)}".rstrip(".")
            )
        chosen += [item for item in found if item not in chosen]
    return chosen


def _is_named(item: CachedItem, name: str) -> bool:
    base, _, commit = name.partition("@")
    pinned = f"{item.location}@{item.commit}"
    return (bool(base) and item.name == base and item.commit.startswith(commit)) or name in {item.location, pinned}


def remove_item(item: CachedItem) -> int:
    """Remove all files of an item; returns the bytes that were freed. What running processes have open, they keep.

    Raises:
        StorageError: a file cannot be removed.
    """
    freed = 0
    for held in item._held:
        with telling(item._paths[0], "remove from"):
            freed += remove(item._paths[0], held)
    if item.kind != "shards":
        top, *paths = item._paths
        for path in paths:
            with telling(path, "remove"), suppress(FileNotFoundError):
                allocated = path.lstat().st_blocks * 512
                path.unlink()
                freed += allocated
        _remove_empty(top)
    return freed


def _remove_empty(folder: Path) -> None:
    for inner, _, _ in os.walk(folder, topdown=False):
        with suppress(OSError):
            os.rmdir(inner)


def _datasets(folder: Path) -> Iterator[CachedItem]:
    """What is kept of each dataset at each commit."""
    if not is_cache(folder):
        return
    used_keys, _ = in_use(folder)
    groups: dict[tuple[str, str, str], list[tuple[CachedFile, Held]]] = {}
    for held in scan(folder).values():
        file = _cached_file(folder, held, used_keys)
        groups.setdefault(_dataset_of(file.location), []).append((file, held))
    for (location, name, commit), members in sorted(groups.items()):
        files = tuple(sorted((file for file, _ in members), key=lambda file: file.location))
        yield CachedItem(
            name=name,
            kind="shards",
            location=location,
            commit=commit,
            n_files=len(files),
            allocated=sum(file.allocated for file in files),
            used=max(file.used for file in files),
            files=files,
            _paths=(folder,),
            _held=tuple(held for _, held in members),
        )


def _cached_file(folder: Path, held: Held, used_keys: set[str]) -> CachedFile:
    location, size, present = "", 0, 0
    log = folder / f"{held.key}.blocks"
    with suppress(OSError, GoneError):
        header = read_header(log)
        if header is not None:
            location, size, present = header.name, header.size, read_log(log, header).nbytes
    return CachedFile(location, size, present, held.allocated, held.used, held.key in used_keys)


def _dataset_of(location: str) -> tuple[str, str, str]:
    """(location, name and commit of the dataset) that a shard belongs to."""
    if not location:
        return "", "unknown", ""
    match = _SHARD.fullmatch(location)
    root = match["dataset"] if match else location.rpartition("/")[0]
    found = _COMMIT.search(root) if root.startswith("hf://") else None
    if found is not None:
        root = root.replace(found[0], "", 1)
    return root, root.rpartition("/")[2] or root, found["commit"] if found else ""


def _other(folder: Path, kind: Kind, name: str, pattern: re.Pattern[str]) -> CachedItem | None:
    """One of the other caches, if there is anything in it."""
    top = folder / name
    paths, allocated, used = [], 0, 0.0
    for path, status in _files_below(top, pattern.fullmatch):
        paths.append(path)
        allocated += status.st_blocks * 512
        used = max(used, status.st_mtime)
    if not paths:
        return None
    return CachedItem(kind, kind, os.fspath(top), "", len(paths), allocated, used, (), (top, *paths), ())


def _files_below(top: Path, is_ours: Callable[[str], re.Match[str] | None]) -> Iterator[tuple[Path, os.stat_result]]:
    """Files below a folder whose paths below it are as ours are. No link is followed, the folder itself included."""
    if top.is_symlink():
        return
    for inner, _, names in os.walk(top, followlinks=False):
        for name in names:
            path = Path(inner, name)
            if is_ours(path.relative_to(top).as_posix()):
                with suppress(FileNotFoundError):
                    status = path.lstat()
                    if stat.S_ISREG(status.st_mode):
                        yield path, status


__all__ = ["CachedFile", "CachedItem", "StorageError", "cache_contents", "choose", "remove_item"]
