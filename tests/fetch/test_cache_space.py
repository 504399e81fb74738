"""The room a cache takes: bounded, shared fairly between the living, and never in the way of the work."""

from __future__ import annotations

import errno
import gc
import mmap
import os
import resource
import subprocess
import sys
import time
import warnings
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.fetch.cached import LOCATION, SIZE, Source, content_of, fetch, listed
from wellkit.errors import WellkitWarning
from wellkit.fetch.cache_space import User, in_use, scan
from wellkit.fetch.range_cache import CachedRanges, RangeCache

CONTENT = content_of()
PLACES = [LOCATION.replace("part_0", f"part_{number}") for number in range(6)]
WHOLE = np.array([[0, SIZE]], np.int64)


@lru_cache
def content_at(place: str) -> bytes:
    return content_of(place)


def reader(folder: Path, place: str, max_bytes: int | None = None) -> CachedRanges:
    return RangeCache(folder, max_bytes).reading(Source(place), [listed(place)])


def allocated(folder: Path) -> int:
    return sum(path.stat().st_blocks * 512 for path in (folder / "shards").iterdir() if path.is_file())


def fill(folder: Path, place: str, max_bytes: int | None = None, *, used: float = 0.0) -> None:
    """Keep a whole file, and let go of it; used so many seconds ago."""
    ranges = reader(folder, place, max_bytes)
    key = ranges._files[place][0].key
    assert fetch(ranges, (0, SIZE), location=place) == [content_at(place)]
    when = time.time() - used
    os.utime(folder / "shards" / f"{key}.blocks", (when, when))
    del ranges
    gc.collect()


def is_there(folder: Path, place: str) -> bool:
    return reader(folder, place).local_path(place, WHOLE) is not None


def test_what_was_used_longest_ago_goes_when_the_bound_is_reached(tmp_path: Path) -> None:
    bound = 3 * SIZE + 500_000
    for number, place in enumerate(PLACES[:3]):
        fill(tmp_path, place, bound, used=(100, 300, 200)[number])
    assert [is_there(tmp_path, place) for place in PLACES[:4]] == [True, True, True, False]
    for number, place in enumerate(PLACES[:3]):  # looking has used them
        key = reader(tmp_path, place)._files[place][0].key
        os.utime(tmp_path / "shards" / f"{key}.blocks", (1, 10_000 + (100, 300, 200)[number]))
    fill(tmp_path, PLACES[3], bound)
    assert [is_there(tmp_path, place) for place in PLACES[:4]] == [False, True, True, True]
    assert allocated(tmp_path) <= bound


def test_the_bound_holds_while_it_is_written(tmp_path: Path) -> None:
    bound = 2 * SIZE
    readers = [reader(tmp_path, place, bound) for place in PLACES]
    rng = np.random.default_rng(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", WellkitWarning)
        for start in rng.integers(0, SIZE - 60_000, 150).tolist():
            ranges = readers[start % 6]
            place = PLACES[start % 6]
            assert fetch(ranges, (start, start + 60_000), location=place) == [content_at(place)[start : start + 60_000]]
            assert allocated(tmp_path) <= bound
    assert allocated(tmp_path) > bound // 2


def test_a_dataset_that_does_not_fit_does_not_push_itself_out(tmp_path: Path) -> None:
    source = Source(*PLACES)
    ranges = RangeCache(tmp_path, 2 * SIZE + 500_000).reading(source, [listed(place) for place in PLACES])

    def read_all() -> None:
        for place in PLACES:
            for start in range(0, SIZE, 300_000):
                span = (start, min(start + 300_000, SIZE))
                assert fetch(ranges, span, location=place) == [content_at(place)[slice(*span)]]

    with pytest.warns(WellkitWarning, match="no more is kept: it is bounded to 6500002 bytes"):
        read_all()
    read_all()  # told once
    read_all()
    assert ranges.from_cache > 2 * 1.8 * SIZE  # of the second and the third time, what had fit
    assert source.nbytes + ranges.from_cache == 3 * 6 * SIZE


def test_what_another_process_uses_stays(tmp_path: Path) -> None:
    bound = 2 * SIZE + 500_000
    code = (
        "import sys\nfrom pathlib import Path\nfrom tests.fetch.test_cache_space import *\n"
        "ranges = reader(Path(sys.argv[1]), PLACES[0])\nassert ranges.local_path(PLACES[0], WHOLE)\n"
        "print('ready', flush=True)\nsys.stdin.read()"
    )
    fill(tmp_path, PLACES[0], bound, used=1000)
    fill(tmp_path, PLACES[1], bound, used=10)
    command = [sys.executable, "-c", code, str(tmp_path)]
    other = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert other.stdin is not None
    assert other.stdout is not None
    assert other.stdout.readline() == "ready\n"
    key = reader(tmp_path, PLACES[0])._files[PLACES[0]][0].key
    os.utime(tmp_path / "shards" / f"{key}.blocks", (1, 1))  # the oldest by far
    fill(tmp_path, PLACES[2], bound)
    assert [is_there(tmp_path, place) for place in PLACES[:3]] == [True, False, True]
    other.kill()  # a dead process uses nothing
    other.wait()
    other.stdin.close()
    other.stdout.close()
    os.utime(tmp_path / "shards" / f"{key}.blocks", (1, 1))
    fill(tmp_path, PLACES[3], bound)
    assert [is_there(tmp_path, place) for place in PLACES[:4]] == [False, False, True, True]


def test_open_and_mapped_files_outlive_their_removal(tmp_path: Path) -> None:
    fill(tmp_path, PLACES[0])
    holder = reader(tmp_path, PLACES[0])
    path = holder.local_path(PLACES[0], WHOLE)
    assert path is not None
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        for place in (tmp_path / "shards").glob("*.*"):
            if place.suffix in {".data", ".blocks"}:
                place.unlink()
        assert holder.local_path(PLACES[0], WHOLE) is None
        # It is begun anew under another name: a path that a reader has kept open never means other bytes.
        assert fetch(holder, (0, 1000), location=PLACES[0]) == [content_at(PLACES[0])[:1000]]
        renewed = holder.local_path(PLACES[0], np.array([[0, 1000]], np.int64))
        assert renewed not in (None, path)
        assert mapped[:] == content_at(PLACES[0])
    assert holder.local_path(PLACES[0], WHOLE) is None


def test_a_folder_that_is_removed_while_it_is_used_costs_no_more_than_the_cache(tmp_path: Path) -> None:
    ranges = reader(tmp_path, PLACES[0])
    fetch(ranges, (0, 1000), location=PLACES[0])
    subprocess.run(["rm", "-r", str(tmp_path / "shards")], check=True)
    with pytest.warns(WellkitWarning, match="the cache failed"):
        assert fetch(ranges, (0, 2000), location=PLACES[0]) == [content_at(PLACES[0])[:2000]]
    assert fetch(ranges, (0, 2000), location=PLACES[0]) == [content_at(PLACES[0])[:2000]]


# A full disk


@pytest.mark.parametrize(("code", "told"), [(errno.ENOSPC, "the disk is full"), (errno.EIO, "the cache failed")])
def test_a_disk_that_fills_up_costs_the_cache_not_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, told: str
) -> None:
    left = [250_000]
    real = os.pwrite

    def pwrite(handle: int, content: Any, offset: int) -> int:
        if not left[0]:
            raise OSError(code, os.strerror(code))
        written = real(handle, content[: left[0]], offset)  # a full disk takes what it can
        left[0] -= written
        return written

    ranges = reader(tmp_path, LOCATION)
    spans = [(start, start + 100_000) for start in range(0, 1_000_000, 100_000)]
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", pwrite)
        for span in spans[:2]:
            fetch(ranges, span)
        with pytest.warns(WellkitWarning, match=told):
            assert fetch(ranges, spans[2]) == [CONTENT[200_000:300_000]]
        for span in spans[3:]:  # without a second warning
            assert fetch(ranges, span) == [CONTENT[slice(*span)]]
    fresh = reader(tmp_path, LOCATION)
    there = [
        fresh.local_path(LOCATION, np.array([[at, at + 100_000]])) is not None for at in range(0, 400_000, 100_000)
    ]
    assert there == [True, True, False, False]
    assert fetch(fresh, (200_000, 300_000)) == [CONTENT[200_000:300_000]]


def test_writing_goes_on_when_there_is_room_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ranges = reader(tmp_path, LOCATION)
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full")))
        with pytest.warns(WellkitWarning, match="the disk is full"):
            fetch(ranges, (0, 1000))
    fetch(ranges, (0, 1000))
    assert ranges.local_path(LOCATION, np.array([[0, 1000]])) is None  # not tried at once
    monkeypatch.setattr("wellkit.fetch.open_copies.PAUSE", 0.0)
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 3600)
    fetch(ranges, (0, 1000))
    assert ranges.local_path(LOCATION, np.array([[0, 1000]])) is not None


def test_a_limit_on_the_size_of_files_costs_the_cache_not_the_work(tmp_path: Path) -> None:
    code = (
        "import resource, sys, warnings\nfrom pathlib import Path\nfrom tests.fetch.test_cache_space import *\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({SIZE // 2}, {SIZE // 2}))\n"
        "ranges = reader(Path(sys.argv[1]), LOCATION)\n"
        "assert fetch(ranges, (0, 5000), (SIZE - 9, SIZE)) == [CONTENT[:5000], CONTENT[-9:]]\n"
        "assert fetch(ranges, (0, 5000)) == [CONTENT[:5000]]\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("WellkitWarning") == 1
    assert "larger than this process or file system allows" in done.stderr
    assert [path for path in (tmp_path / "shards").iterdir() if path.suffix != ".TAG" and path.is_file()] == []
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != SIZE // 2


def test_a_part_of_the_disk_is_left_to_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path, PLACES[0], used=100)
    real = os.statvfs(tmp_path)
    nearly = int(max(real.f_blocks * real.f_frsize * 0.05, 1 << 30))  # less than a GiB below what is left to others

    class Nearly:
        f_blocks, f_frsize = real.f_blocks, real.f_frsize

        @property
        def f_bavail(self) -> int:
            held = sum(shard.allocated for shard in scan(tmp_path / "shards").values())
            return (nearly + SIZE + 200_000 - held) // real.f_frsize

    monkeypatch.setattr(os, "statvfs", lambda _: Nearly())
    fill(tmp_path, PLACES[1])  # takes the room of the one before
    assert [is_there(tmp_path, place) for place in PLACES[:2]] == [False, True]
    holder = reader(tmp_path, PLACES[1])
    assert holder.local_path(PLACES[1], WHOLE)
    with pytest.warns(WellkitWarning, match="bytes free, which are left to others"):
        fetch(reader(tmp_path, PLACES[2]), (0, SIZE), location=PLACES[2])
    assert [is_there(tmp_path, place) for place in PLACES[:3]] == [False, True, False]


def test_a_file_system_without_sparse_files_is_not_filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def truncate(handle: int, size: int) -> None:
        os.posix_fallocate(handle, 0, size)

    monkeypatch.setattr(os, "ftruncate", truncate)
    with pytest.warns(WellkitWarning, match="has no sparse files"):
        assert fetch(reader(tmp_path, LOCATION), (0, 10)) == [CONTENT[:10]]
    assert allocated(tmp_path) < 10_000


def test_a_cache_that_may_only_be_read_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path, LOCATION)
    real = os.open

    def refuse(path: Any, flags: int, *rest: Any, **options: Any) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), path)
        return real(path, flags, *rest, **options)

    monkeypatch.setattr(os, "open", refuse)
    ranges = RangeCache(tmp_path).reading(Source(*PLACES[:2]), [listed(place) for place in PLACES[:2]])
    assert ranges.local_path(LOCATION, WHOLE) is not None
    assert fetch(ranges, (5, 500)) == [CONTENT[5:500]]
    with pytest.warns(WellkitWarning, match="the file system is read-only"):
        assert fetch(ranges, (5, 500), location=PLACES[1]) == [content_at(PLACES[1])[5:500]]


# Who is there


def test_users_are_known_as_long_as_they_live(tmp_path: Path) -> None:
    first, second = User(tmp_path), User(tmp_path)
    first.note("a" * 32)
    first.note("b" * 32)
    second.note("a" * 32)
    assert in_use(tmp_path) == ({"a" * 32, "b" * 32}, 2)
    del first
    gc.collect()
    assert in_use(tmp_path) == ({"a" * 32}, 1)
    (tmp_path / "users" / "left").write_text("c" * 32 + "\n")  # by a process that was killed
    assert in_use(tmp_path) == ({"a" * 32}, 1)
    assert len(list((tmp_path / "users").iterdir())) == 1


def test_what_killed_processes_left_is_cleared_away_in_time(tmp_path: Path) -> None:
    bound = 2 * SIZE + 200_000
    fill(tmp_path, PLACES[0], bound)
    (data,) = (tmp_path / "shards").glob("*.data")
    orphan = data.with_name(f"{data.name[:32]}-{'0' * 16}.data")
    orphan.write_bytes(CONTENT)
    young = data.with_name(f"{'1' * 32}-{'0' * 16}.new")
    young.write_bytes(b"")
    os.utime(orphan, (1, 1))
    fill(tmp_path, PLACES[1], bound)
    assert not orphan.exists()
    assert [is_there(tmp_path, place) for place in PLACES[:2]] == [True, True]
