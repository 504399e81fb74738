"""A source of bytes that are known, for tests of the cache; and a process that is killed while it writes to one."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from wellkit.fetch.listing import ListedFile
from wellkit.fetch.range_cache import CachedRanges, RangeCache
from wellkit.fetch.ranges import ByteRange

LOCATION = "hf://datasets/owner/made_up@" + "c" * 40 + "/data/train/part_0.hdf5"
SIZE = 3_000_001  # no multiple of anything


def content_of(location: str = LOCATION, size: int = SIZE) -> bytes:
    """What the file at a location holds."""
    seed = [len(location), *location.encode()]
    return np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8).tobytes()


def listed(location: str = LOCATION, *, version: str = "1", size: int = SIZE) -> ListedFile:
    """The file as a listing tells of it."""
    return ListedFile(location, size, version=version)


class Source:
    """Answers from memory, and remembers what it was asked for. Picklable."""

    def __init__(self, *locations: str, size: int = SIZE) -> None:
        self.contents = {location: content_of(location, size) for location in locations or (LOCATION,)}
        self.asked: list[ByteRange] = []

    def read(
        self, ranges: Sequence[ByteRange], into: Sequence[memoryview], done: Callable[[int], None] | None = None
    ) -> None:
        self.asked += ranges
        for number, (part, memory) in enumerate(zip(ranges, into, strict=True)):
            memory[:] = self.contents[part.location][part.start : part.stop]
            if done is not None:
                done(number)

    def size(self, location: str) -> int:
        return len(self.contents[location])

    @property
    def nbytes(self) -> int:
        return sum(part.stop - part.start for part in self.asked)


def fetch(ranges: CachedRanges, *spans: tuple[int, int], location: str = LOCATION) -> list[bytes]:
    """Some ranges of a file."""
    wanted = [ByteRange(location, *span) for span in spans]
    into = [bytearray(part.stop - part.start) for part in wanted]
    ranges.read(wanted, [memoryview(part) for part in into])
    return [bytes(part) for part in into]


def opened(folder: Path, source: Source, *, max_bytes: int | None = None, version: str = "1") -> CachedRanges:
    """A reader of all files of a source through the cache in `folder`."""
    return RangeCache(folder, max_bytes).reading(source, [listed(place, version=version) for place in source.contents])


def files(folder: Path, ending: str) -> list[Path]:
    """Files of the cache with names that end so."""
    return sorted((folder / "shards").glob(f"*{ending}"))


def spans(*pairs: tuple[int, int]) -> np.ndarray:
    """Ranges as `local_path` takes them."""
    return np.array(pairs, np.int64)


def spans_of(seed: int, count: int, size: int = SIZE) -> list[tuple[int, int]]:
    """Random ranges, short and long."""
    rng = np.random.default_rng(seed)
    lengths = np.where(rng.random(count) < 0.5, rng.integers(1, 3000, count), rng.integers(1, 300_000, count))
    starts = rng.integers(0, size - lengths)
    return [(int(start), int(start + length)) for start, length in zip(starts, lengths, strict=True)]


def main(folder: str, seed: int) -> None:
    """Read ranges through the cache in `folder` until killed; a line once the first is written."""
    ranges = RangeCache(folder).reading(Source(), [listed()])
    for number, span in enumerate(spans_of(seed, 100_000)):
        fetch(ranges, span)
        if number == 0:
            sys.stdout.write("ready\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
