"""Byte ranges of remote files, kept on disk: what was fetched once is read from there, by the local reader too.

    cache = RangeCache("/scratch/wellkit")
    ranges = cache.reading(RangeReader(), listed_files)   # reads as the RangeReader does, from the cache where it can
    path = ranges.local_path(location, wanted)            # or the copy to read from, where all that is wanted is there

A file is known by the hash of its content, or else by its address, size and version: a changed one is another file.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from wellkit.errors import ArgumentError, HubError
from wellkit.fetch.cached_shard import CachedShard, GoneError
from wellkit.fetch.disk import check_writable, write_atomically
from wellkit.fetch.identity import identity_of, local_file
from wellkit.fetch.listing import ListedFile
from wellkit.fetch.open_copies import OpenCopies
from wellkit.fetch.ranges import ByteRange
from wellkit.settings import cache_dir, cache_limit, hub_offline
from wellkit.storage import without_secrets

FOLDER = "shards"  # in the folder that is given, which may hold other things
TAG = "CACHEDIR.TAG"
# https://bford.info/cachedir/: backups leave out folders that hold a file that begins like this.
TAG_TEXT = (
    "Signature: 8a477f597d28d172789f06886806bc55\n# wellkit's copies of remote shards, see `wellkit cache --help`\n"
)
Done = Callable[[int], None]


class Source(Protocol):
    """Where bytes come from that are not in the cache: `RangeReader`."""

    def read(self, ranges: Sequence[ByteRange], into: Sequence[memoryview], done: Done | None = None) -> None:
        """Fill `into[i]` with `ranges[i]`, then call `done(i)`, in any thread and order."""
        ...

    def size(self, location: str) -> int:
        """Bytes of a file."""
        ...


class RangeCache:
    """A folder in which parts of remote files are kept. Picklable; any number of processes may use it at once.

    Args:
        folder: where; a folder `shards` is made in it. None: `$WELLKIT_CACHE`.
        max_bytes: bound on the disk space it takes. None: `$WELLKIT_CACHE_BYTES`, else all but 5 % of the disk, and
            at least 1 GiB. Shards used longest ago are removed when it is reached, but none that are in use: then no
            more is kept.

    Raises:
        StorageError: the folder cannot be made.
        ArgumentError: `max_bytes` is not positive.
    """

    def __init__(self, folder: str | os.PathLike[str] | None = None, max_bytes: int | None = None) -> None:
        if max_bytes is not None and max_bytes < 1:
            raise ArgumentError(f"max_bytes={max_bytes}: give a positive number of bytes, or None for no bound")
        given = cache_dir() if folder is None else Path(os.path.expanduser(os.fspath(folder)))
        self.folder = Path(os.path.abspath(given)) / FOLDER
        self.max_bytes = cache_limit() if max_bytes is None else max_bytes
        if not is_cache(self.folder):
            check_writable(self.folder / TAG)
            write_atomically(self.folder / TAG, TAG_TEXT.encode())

    def reading(self, source: Source, files: Iterable[ListedFile]) -> CachedRanges:
        """What reads ranges of `files`, from here where they are here, else from `source`, and keeps them.

        Args:
            source: picklable.
            files: as listed; of others, and of those without a hash or a version, nothing is kept.
        """
        return CachedRanges(self, source, files)


def is_cache(folder: Path) -> bool:
    """Whether a folder is one that `RangeCache` has made."""
    try:
        return not folder.is_symlink() and (folder / TAG).read_text(encoding="utf-8", errors="replace") == TAG_TEXT
    except OSError:
        return False


class CachedRanges:
    """Byte ranges of some files through a cache: what `RangeReader` does, and where the copies are.

    Picklable, thread-safe, and safe under fork and spawn. What two threads or processes need at the same time, and is
    not there yet, both fetch.

    Attributes:
        source: where bytes come from that are not there.
    """

    def __init__(self, cache: RangeCache, source: Source, files: Iterable[ListedFile]) -> None:
        self.cache, self.source = cache, source
        self._files = {file.location: (identity_of(file), file.size) for file in files}
        self._process: OpenCopies | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_process": None}

    @property
    def from_cache(self) -> int:
        """Bytes that `read` has taken from the cache in this process."""
        return self._here().served

    def local_path(self, location: str, ranges: np.ndarray) -> str | None:
        """The path of the copy of a file, if all bytes of `ranges` are in it and right; else None.

        At the same offsets as in the file. The path names these bytes as long as it names anything: a copy that is
        begun anew has another. `wellkit cache remove` may remove it at any time; files that are open stay.

        Args:
            ranges: int64, axes (range, 2): [start, stop).
        """
        here = self._here()
        shard = here.find(location)
        if shard is None:
            return None
        try:
            is_there = shard.has(ranges)
        except GoneError:
            here.forget(location, shard)
            return None
        except OSError as error:
            here.fail(error)
            return None
        here.note(shard)
        return shard.path if is_there else None

    def read(self, ranges: Sequence[ByteRange], into: Sequence[memoryview], done: Done | None = None) -> None:
        """As `RangeReader.read`.

        Raises:
            HubError: among others, `$HF_HUB_OFFLINE` is set and something is missing; says what.
        """
        if len(ranges) != len(into):
            raise ArgumentError(f"{len(ranges)} ranges and memory for {len(into)}: give each its own")
        here = self._here()
        views = [memory.cast("B") if memory.c_contiguous else memory for memory in into]
        missing = self._read_present(here, ranges, views)
        if hub_offline():
            self._check_offline([part for parts in missing for part in parts])
        wanted: list[ByteRange] = []
        memory: list[memoryview] = []
        owners: list[int] = []
        for number, parts in enumerate(missing):
            for part in parts:
                first = part.start - ranges[number].start
                wanted.append(part)
                whole = part == ranges[number]  # goes to the source as it came: it refuses what makes no sense
                memory.append(into[number] if whole else views[number][first : first + part.stop - part.start])
                owners.append(number)
            if not parts and done is not None:
                done(number)
        if wanted:
            left = [len(parts) for parts in missing]
            lock = threading.Lock()

            def note(number: int) -> None:
                owner = owners[number]
                with lock:
                    left[owner] -= 1
                    is_last = left[owner] == 0
                if is_last and done is not None:
                    done(owner)  # first: somebody waits for it
                here.keep(wanted[number], memory[number].cast("B"))

            self.source.read(wanted, memory, note)
        here.tell()

    def size(self, location: str) -> int:
        """Bytes of a file. Raises as `RangeReader.size`."""
        known = self._files.get(location)
        return self.source.size(location) if known is None or known[1] is None else known[1]

    def _read_present(
        self, here: OpenCopies, ranges: Sequence[ByteRange], views: Sequence[memoryview]
    ) -> list[list[ByteRange]]:
        """Fill in what is there; returns of each range what is not."""
        by_location: dict[str, list[int]] = {}
        for number, part in enumerate(ranges):
            by_location.setdefault(part.location, []).append(number)
        missing = [[part] for part in ranges]
        for location, numbers in by_location.items():
            shard = here.find(location)
            if shard is None:
                continue
            try:
                served = _read_shard(shard, numbers, ranges, views, missing)
                here.note(shard, served)
            except GoneError:
                here.forget(location, shard)
            except OSError as error:
                here.fail(error)
        return missing

    def _check_offline(self, missing: Sequence[ByteRange]) -> None:
        remote = [part for part in missing if part.location.startswith("hf://")]
        if remote:
            first = remote[0]
            total = sum(part.stop - part.start for part in remote)
            raise HubError(
                f"{without_secrets(first.location)}: HF_HUB_OFFLINE is set, and bytes {first.start}-{first.stop - 1} "
                f"are not in the cache {self.cache.folder.parent} ({total} bytes in {len(remote)} ranges are missing); "
                "unset it to fetch them"
            )

    def _here(self) -> OpenCopies:
        """What belongs to this process alone."""
        found = self._process
        if found is None or found.pid != os.getpid():
            identities = {location: identity for location, (identity, _) in self._files.items()}
            found = self._process = OpenCopies(self.cache.folder, self.cache.max_bytes, identities)
        return found


def _read_shard(
    shard: CachedShard,
    numbers: Sequence[int],
    ranges: Sequence[ByteRange],
    views: Sequence[memoryview],
    missing: list[list[ByteRange]],
) -> int:
    """Fill in what a copy has of some ranges, and note what it has not; returns the bytes that it had."""
    shard.look(np.array([ranges[number][1:] for number in numbers], np.int64))
    served = 0
    for number in numbers:
        location, start, stop = ranges[number]
        if not 0 <= start < stop == start + views[number].nbytes or views[number].readonly:
            continue  # the source says what is wrong with it
        gaps = shard.gaps(start, stop)
        at = start
        for begin, end in [*gaps, (stop, stop)]:
            if at < begin:
                shard.read_into(at, views[number][at - start : begin - start])
                served += begin - at
            at = end
        missing[number] = [ByteRange(location, begin, end) for begin, end in gaps]
    return served


__all__ = ["CachedRanges", "RangeCache", "Source", "is_cache", "local_file"]
