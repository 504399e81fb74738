"""The cache of ranges: what it serves is right, whatever happened to it, and what it has is not fetched again."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.fetch.cached import LOCATION, SIZE, Source, content_of, fetch, files, opened, spans, spans_of
from wellkit.errors import ArgumentError, ConfigError, HubError, ShardError, StorageError, WellkitWarning
from wellkit.fetch.cached_shard import PAGE
from wellkit.fetch.listing import ListedFile
from wellkit.fetch.range_cache import CachedRanges, RangeCache, local_file
from wellkit.fetch.ranges import ByteRange, RangeReader

CONTENT = content_of()


def test_what_was_fetched_once_is_not_fetched_again_and_nothing_else_is_fetched(tmp_path: Path) -> None:
    source = Source()
    ranges = opened(tmp_path, source)
    assert fetch(ranges, (100, 5000), (700_000, 1_500_000)) == [CONTENT[100:5000], CONTENT[700_000:1_500_000]]
    assert source.asked == [ByteRange(LOCATION, 100, 5000), ByteRange(LOCATION, 700_000, 1_500_000)]
    source.asked.clear()
    assert fetch(ranges, (100, 5000), (800_000, 800_001)) == [CONTENT[100:5000], CONTENT[800_000:800_001]]
    assert source.asked == []
    assert ranges.from_cache == 4901
    # What is missing of a range is fetched to the byte, on both sides of what is there and between.
    assert fetch(ranges, (50, 700_100)) == [CONTENT[50:700_100]]
    assert source.asked == [ByteRange(LOCATION, 50, 100), ByteRange(LOCATION, 5000, 700_000)]


def test_random_ranges_move_each_byte_once(tmp_path: Path) -> None:
    source = Source()
    ranges = opened(tmp_path, source)
    there = np.zeros(SIZE, bool)
    for start, stop in spans_of(1, 120):
        before = source.nbytes
        assert fetch(ranges, (start, stop)) == [CONTENT[start:stop]]
        assert source.nbytes - before == np.count_nonzero(~there[start:stop])
        there[start:stop] = True
        asked = spans((start, stop))
        path = ranges.local_path(LOCATION, asked)
        assert path is not None
    for start, stop in spans_of(2, 300):
        path = ranges.local_path(LOCATION, spans((start, stop)))
        assert (path is not None) == there[start:stop].all()


def test_the_copy_lies_at_the_same_offsets_and_takes_no_more_room_than_it_needs(tmp_path: Path) -> None:
    ranges = opened(tmp_path, Source())
    fetch(ranges, (1_000_000, 1_040_000), (2_000_000, 2_000_010))
    path = ranges.local_path(LOCATION, spans((1_000_000, 1_040_000), (2_000_003, 2_000_010)))
    assert path is not None
    status = os.stat(path)
    assert status.st_size == SIZE
    assert status.st_blocks * 512 <= 40_000 + 4 * PAGE
    with open(path, "rb") as file:
        assert os.pread(file.fileno(), 40_000, 1_000_000) == CONTENT[1_000_000:1_040_000]
    assert ranges.local_path(LOCATION, spans((1_000_000, 1_040_001))) is None
    assert ranges.local_path(LOCATION, spans((1_000_000, 1_040_000), (5, 6))) is None
    assert ranges.local_path("hf://datasets/other/file", spans((0, 1))) is None


def test_done_is_called_once_for_each_range(tmp_path: Path) -> None:
    ranges = opened(tmp_path, Source())
    fetch(ranges, (10, 20), (30, 40))
    wanted = [ByteRange(LOCATION, *span) for span in ((10, 20), (5, 45), (100, 200), (12, 38))]
    into = [bytearray(part.stop - part.start) for part in wanted]
    seen: list[tuple[int, bytes]] = []
    ranges.read(wanted, [memoryview(part) for part in into], lambda number: seen.append((number, bytes(into[number]))))
    assert sorted(seen) == [(n, CONTENT[part.start : part.stop]) for n, part in enumerate(wanted)]


def test_nothing_is_kept_of_what_failed(tmp_path: Path) -> None:
    class Failing(Source):
        def read(
            self, ranges: Sequence[ByteRange], into: Sequence[memoryview], done: Callable[[int], None] | None = None
        ) -> None:
            super().read(ranges[:1], into[:1], done)
            into[1][:10] = bytes(10)
            raise HubError("the line is cut")

    ranges = opened(tmp_path, Failing())
    with pytest.raises(HubError, match="the line is cut"):
        fetch(ranges, (0, 1000), (5000, 6000))
    assert ranges.local_path(LOCATION, spans((0, 1000))) is not None
    assert ranges.local_path(LOCATION, spans((5000, 5001))) is None


def test_wrong_ranges_are_the_sources_to_refuse(tmp_path: Path) -> None:
    path = tmp_path / "file.bin"
    path.write_bytes(b"0123456789")
    ranges = RangeCache(tmp_path / "cache").reading(RangeReader(), [local_file(str(path))])
    assert fetch(ranges, (2, 6), location=str(path)) == [b"2345"]
    with pytest.raises(ArgumentError, match="no range"):
        fetch(ranges, (3, 3), location=str(path))
    with pytest.raises(ShardError, match="has only"):
        fetch(ranges, (4, 60), location=str(path))
    with pytest.raises(ArgumentError, match="1 ranges and memory for 0"):
        ranges.read([ByteRange(str(path), 0, 1)], [])
    with pytest.raises(ArgumentError, match="need writable"):
        ranges.read([ByteRange(str(path), 2, 5)], [memoryview(bytearray(7))])
    assert ranges.size(str(path)) == 10


# Other processes, other threads


def test_another_process_finds_what_this_one_fetched(tmp_path: Path) -> None:
    first = Source()
    ranges = opened(tmp_path, first)
    fetch(ranges, (0, 300_000))
    other = pickle.loads(pickle.dumps(ranges))  # noqa: S301
    assert other.local_path(LOCATION, spans((0, 300_000))) is not None
    fetch(ranges, (300_000, 600_000))  # the other has opened it already
    assert other.local_path(LOCATION, spans((250_000, 600_000))) is not None
    assert fetch(other, (1, 599_999)) == [CONTENT[1:599_999]]
    assert other.source.asked == first.asked[:1]  # as they were pickled


def _read_all(ranges: CachedRanges, seed: int, failures: multiprocessing.Queue[str]) -> None:
    try:
        for span in spans_of(seed, 60):
            if fetch(ranges, span) != [CONTENT[slice(*span)]]:
                failures.put(f"{span} is wrong")
            if ranges.local_path(LOCATION, spans(span)) is None:
                failures.put(f"{span} is not there")
    except BaseException as error:
        failures.put(repr(error))


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_processes_share_it_while_all_write(tmp_path: Path, method: str) -> None:
    context: Any = multiprocessing.get_context(method)
    ranges = opened(tmp_path, Source())
    fetch(ranges, (0, 10))  # it is in use before the fork
    failures = context.Queue()
    workers = [context.Process(target=_read_all, args=(ranges, seed, failures)) for seed in (3, 4, 3)]
    for worker in workers:
        worker.start()
    _read_all(ranges, 5, failures)
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    assert failures.empty(), failures.get()
    fresh = opened(tmp_path, Source())
    for seed in (3, 4, 5):
        assert all(fresh.local_path(LOCATION, spans(span)) for span in spans_of(seed, 60))


def test_threads_share_it(tmp_path: Path) -> None:
    ranges = opened(tmp_path, Source())
    failures: multiprocessing.Queue[str] = multiprocessing.Queue()
    threads = [threading.Thread(target=_read_all, args=(ranges, seed, failures)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures.empty(), failures.get()


def check_everything(folder: Path) -> int:
    """Whether all that a fresh process is served is right; returns how many bytes of it were there."""
    source = Source()
    ranges = opened(folder, source)
    step = 10_007
    for start in range(0, SIZE, step):
        stop = min(start + step, SIZE)
        path = ranges.local_path(LOCATION, spans((start, stop)))
        if path is not None:
            with open(path, "rb") as file:
                assert os.pread(file.fileno(), stop - start, start) == CONTENT[start:stop]
    there = source.nbytes
    assert fetch(ranges, (0, SIZE)) == [CONTENT]
    return SIZE - (source.nbytes - there)


def test_what_is_left_of_killed_processes_is_right(tmp_path: Path) -> None:
    kept = []
    for seed in range(12):
        folder = tmp_path / str(seed % 3)  # some go on with what the one before has left
        command = [sys.executable, "-m", "tests.fetch.cached", str(folder), str(seed)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.0007 * seed**2)
        process.kill()
        process.wait()
        process.stdout.close()
    for folder in sorted(tmp_path.iterdir()):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            kept.append(check_everything(folder))
    assert min(kept) > 0
    assert max(kept) > 100_000


@pytest.mark.torture
def test_what_is_left_of_many_killed_processes_is_right(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for seed in range(150):
        command = [sys.executable, "-m", "tests.fetch.cached", str(tmp_path), str(seed)]
        pair = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
        for process in pair:
            assert process.stdout is not None
            process.stdout.readline()
        time.sleep(float(rng.exponential(0.05)))
        for process in pair:
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()
        if seed % 5 == 4:
            check_everything(tmp_path)
            for path in files(tmp_path, ".blocks"):
                path.unlink()


# Versions


def test_a_changed_file_is_another_file(tmp_path: Path) -> None:
    old = Source()
    fetch(opened(tmp_path, old), (0, 1000))
    new = Source()
    new.contents[LOCATION] = CONTENT[::-1]
    ranges = opened(tmp_path, new, version="2")
    assert ranges.local_path(LOCATION, spans((0, 1000))) is None
    assert fetch(ranges, (0, 1000)) == [CONTENT[::-1][:1000]]
    assert fetch(opened(tmp_path, Source()), (0, 1000)) == [CONTENT[:1000]]  # the old one's copy is as it was


def test_the_hash_of_the_content_alone_tells_which_file_it_is(tmp_path: Path) -> None:
    elsewhere = LOCATION.replace("c" * 40, "d" * 40)
    source = Source()
    cache = RangeCache(tmp_path)
    fetch(cache.reading(source, [ListedFile(LOCATION, SIZE, "sha256:ab")]), (0, 1000))
    same = cache.reading(source, [ListedFile(elsewhere, SIZE, "sha256:ab")])
    assert same.local_path(elsewhere, spans((0, 1000))) is not None
    other = cache.reading(source, [ListedFile(LOCATION, SIZE, "sha256:cd")])
    assert other.local_path(LOCATION, spans((0, 1000))) is None


def test_a_file_without_a_version_is_not_kept(tmp_path: Path) -> None:
    source = Source()
    ranges = RangeCache(tmp_path).reading(source, [ListedFile(LOCATION, SIZE)])
    with pytest.warns(WellkitWarning, match="nothing tells its version"):
        fetch(ranges, (0, 1000))
    assert fetch(ranges, (0, 1000)) == [CONTENT[:1000]]
    assert source.nbytes == 2000
    assert files(tmp_path, ".data") == []


def test_a_local_file_that_changes_is_not_kept_under_its_old_version(tmp_path: Path) -> None:
    path = tmp_path / "file.bin"
    path.write_bytes(CONTENT[:10_000])
    was = local_file(str(path))
    cache = RangeCache(tmp_path / "cache")
    ranges = cache.reading(RangeReader(), [was])
    fetch(ranges, (0, 100), location=str(path))
    path.write_bytes(CONTENT[10_000:20_000])
    os.utime(path, ns=(1, 1))
    fetch(ranges, (100, 200), location=str(path))
    assert ranges.local_path(str(path), spans((0, 100))) is not None
    assert ranges.local_path(str(path), spans((100, 200))) is None
    assert fetch(cache.reading(RangeReader(), [local_file(str(path))]), (0, 200), location=str(path)) == [
        CONTENT[10_000:10_200]
    ]


def test_no_secret_is_written(tmp_path: Path) -> None:
    location = "https://host/data/train/a.hdf5?X-Signature=0123secret"
    source = Source(location)
    fetch(opened(tmp_path, source), (0, 100_000), location=location)
    for path in (tmp_path / "shards").rglob("*"):
        assert not path.is_file() or b"secret" not in path.read_bytes()


# Offline, settings, arguments


def test_offline_serves_what_is_there_and_names_what_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = Source()
    ranges = opened(tmp_path, source)
    fetch(ranges, (0, 1000))
    source.asked.clear()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert fetch(ranges, (5, 1000)) == [CONTENT[5:1000]]
    with pytest.raises(HubError) as told:
        fetch(ranges, (500, 3000), (9000, 9001))
    assert str(told.value) == (
        f"{LOCATION}: HF_HUB_OFFLINE is set, and bytes 1000-2999 are not in the cache {tmp_path} "
        "(2001 bytes in 2 ranges are missing); unset it to fetch them"
    )
    assert source.asked == []


def test_folder_and_bound_come_from_the_settings(isolated: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WELLKIT_CACHE_BYTES", "1.5 GiB")
    cache = RangeCache()
    assert cache.folder == isolated / "cache" / "shards"
    assert cache.max_bytes == 3 << 29
    assert RangeCache(max_bytes=7).max_bytes == 7
    for text, size in (("200GB", 200 * 10**9), ("12", 12), ("3k", 3000), ("1 TiB", 1 << 40), ("5B", 5)):
        monkeypatch.setenv("WELLKIT_CACHE_BYTES", text)
        assert RangeCache().max_bytes == size
    for text in ("much", "0", "-3", "3XB", "5iB"):
        monkeypatch.setenv("WELLKIT_CACHE_BYTES", text)
        with pytest.raises(ConfigError, match="is no size"):
            RangeCache()
    monkeypatch.delenv("WELLKIT_CACHE_BYTES")
    assert RangeCache().max_bytes is None


def test_a_folder_that_cannot_be_made_is_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match="a part of the path is a file"):
        RangeCache(tmp_path / "file" / "cache")
    with pytest.raises(ArgumentError, match="max_bytes=0"):
        RangeCache(tmp_path, 0)
