"""What a cache of streamed shards costs, and what it gives back: one process, windows at random, page cache warm.

    python benchmarks/bench_cache.py [--folder DIR] [--mb 512]

The "network" is memory, so that what is measured is the cache alone. Prints medians of several rounds.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from wellkit.fetch.listing import ListedFile
from wellkit.fetch.range_cache import CachedRanges, RangeCache
from wellkit.fetch.ranges import ByteRange

LOCATION = "hf://datasets/owner/name@" + "a" * 40 + "/data/train/part.hdf5"
WINDOW = 3_932_160  # bytes: 5 steps of 4 channels at 128 x 384, from 3 fields
FIELDS = 3


class Memory:
    """A source of ranges that costs a copy."""

    def __init__(self, content: np.ndarray) -> None:
        self.content = content
        self.sent = 0

    def read(
        self, ranges: Sequence[ByteRange], into: Sequence[memoryview], done: Callable[[int], None] | None = None
    ) -> None:
        for number, (part, memory) in enumerate(zip(ranges, into, strict=True)):
            np.frombuffer(memory, np.uint8)[:] = self.content[part.start : part.stop]
            self.sent += len(memory)
            if done is not None:
                done(number)

    def size(self, location: str) -> int:
        return len(self.content)


def timed(action: Callable[[], object]) -> float:
    begin = time.perf_counter()
    action()
    return time.perf_counter() - begin


def one_round(folder: Path, content: np.ndarray, seed: int) -> dict[str, float]:
    source = Memory(content)
    file = ListedFile(LOCATION, len(content), f"sha256:{seed}")
    starts = np.random.default_rng(seed).integers(0, len(content) - WINDOW, 2 * len(content) // WINDOW)
    part = WINDOW // FIELDS
    spans = [np.array([[at + n * part, at + (n + 1) * part] for n in range(FIELDS)]) for at in starts.tolist()]
    windows = [[ByteRange(LOCATION, *span) for span in rows.tolist()] for rows in spans]
    buffers = [memoryview(bytearray(part)) for _ in range(FIELDS)]
    memory = bytearray(WINDOW)
    cached = RangeCache(folder).reading(source, [file])

    def read_all(reader: Memory | CachedRanges) -> None:
        for window in windows:
            reader.read(window, buffers)

    total = WINDOW * len(windows)
    plain = timed(lambda: read_all(source))
    source.sent = 0
    first = timed(lambda: read_all(cached))
    sent = source.sent
    copy = plain * sent / total  # what fetching them takes without a cache
    again = timed(lambda: read_all(cached))
    assert source.sent == sent

    def paths(reader: CachedRanges) -> None:
        for rows in spans:
            assert reader.local_path(LOCATION, rows) is not None

    asked = timed(lambda: paths(cached))
    fresh = RangeCache(folder).reading(source, [file])
    verified = timed(lambda: paths(fresh))
    path = cached.local_path(LOCATION, spans[0])
    assert path is not None
    with open(path, "rb") as opened:
        handle = opened.fileno()
        pread = timed(lambda: [os.preadv(handle, [memory], at) for at in starts.tolist()])
    (log,) = folder.glob("shards/*.blocks")
    log_bytes, allocated = log.stat().st_size, os.stat(path).st_blocks * 512
    return {
        "write-through, ms a MB fetched": 1e9 * (first - copy - again * (1 - sent / total)) / sent,
        "read of what is there, GB/s": total / again / 1e9,
        "preadv of the same, GB/s": total / pread / 1e9,
        "local_path, microseconds a window": 1e6 * asked / len(windows),
        "checksums on first use, GB/s": sent / verified / 1e9,
        "disk taken a byte fetched": (allocated + log_bytes) / sent,
        "bytes fetched a byte needed": sent / _union(starts),
    }


def _union(starts: np.ndarray) -> int:
    ordered = np.sort(starts)
    return int(np.minimum(np.diff(ordered), WINDOW).sum()) + WINDOW


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=None, help="where to make the cache (default: temporary)")
    parser.add_argument("--mb", type=int, default=512, help="size of the shard")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    content = np.random.default_rng(0).integers(0, 256, options.mb * 10**6, dtype=np.uint8)
    rounds = []
    for seed in range(options.rounds):
        folder = Path(tempfile.mkdtemp(prefix="wellkit-bench-", dir=options.folder))
        try:
            rounds.append(one_round(folder, content, seed))
        finally:
            shutil.rmtree(folder)
    for name in rounds[0]:
        values = [found[name] for found in rounds]
        print(f"{name:<36}{statistics.median(values):8.3f}   ({min(values):.3f} - {max(values):.3f})")


if __name__ == "__main__":
    main()
