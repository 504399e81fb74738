"""The local reader across threads and processes, and the files it holds open."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from tests.readers.local_shards import Shard, Stored, expected_window, same_bits, write_shard
from wellkit.errors import DataNotFoundError
from wellkit.readers import descriptors, local, plain, workers
from wellkit.readers.descriptors import Descriptors, file_system_type
from wellkit.readers.local import LocalReader
from wellkit.readers.output import load_kernels
from wellkit.readers.roofline import drop_from_cache
from wellkit.readers.workers import share

OUT = (2, 3, 8, 6, 3)


@pytest.fixture(params=[None, (1, 2, 8, 3)], ids=["contiguous", "chunked"])
def shard(request: pytest.FixtureRequest, tmp_path: Path) -> Shard:
    chunks = request.param
    filters = ("shuffle", "gzip") if chunks else ()
    stored = (
        Stored(chunks=chunks, filters=filters),
        Stored(order=1, chunks=(*chunks, 2) if chunks else None, filters=filters),
    )
    return write_shard(tmp_path / "a.h5", stored)


def _read(reader: LocalReader, shard: Shard) -> np.ndarray:
    out = np.empty(OUT, np.float32)
    reader.read_windows([shard.request(0, 1, n_steps=3), shard.request(1, 2, n_steps=3)], out)
    return out


def _expected(shard: Shard) -> np.ndarray:
    return np.stack([expected_window(shard, shard.request(t, t + 1, n_steps=3)) for t in (0, 1)])


def _child(reader: LocalReader, shard: Shard, answers: multiprocessing.SimpleQueue[np.ndarray]) -> None:
    answers.put(_read(reader, shard))


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # forking with threads is what is tested
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_other_processes(shard: Shard, method: str) -> None:
    reader = LocalReader(threads=3)
    expected = _expected(shard)
    assert same_bits(_read(reader, shard), expected)  # files open, threads running
    context: Any = multiprocessing.get_context(method)
    answers = context.SimpleQueue()
    children = [context.Process(target=_child, args=(reader, shard, answers)) for _ in range(2)]
    for child in children:
        child.start()
    found = [answers.get() for _ in children]
    for child in children:
        child.join(60)
        assert child.exitcode == 0
    assert all(same_bits(values, expected) for values in found)
    assert same_bits(_read(reader, shard), expected)


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_fork_while_another_thread_holds_the_locks(shard: Shard) -> None:
    reader = LocalReader(threads=2)
    _read(reader, shard)
    with local._FILES._lock:
        child = multiprocessing.get_context("fork").Process(target=_read, args=(reader, shard))
        child.start()
        child.join(60)
    assert child.exitcode == 0


def test_many_threads_share_a_reader(shard: Shard) -> None:
    reader = LocalReader(threads=2)
    expected = _expected(shard)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: _read(reader, shard), range(40)))
    assert all(same_bits(values, expected) for values in found)


def test_a_reader_is_pickled_without_what_it_learned(shard: Shard) -> None:
    reader = LocalReader(source="pread", threads=2)
    fresh = len(pickle.dumps(reader))
    _read(reader, shard)
    assert len(pickle.dumps(reader)) == fresh
    again = pickle.loads(pickle.dumps(reader))  # noqa: S301
    assert (again.source, again.threads) == ("pread", 2)
    assert same_bits(_read(again, shard), _expected(shard))


def _open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.skipif(sys.platform != "linux", reason="counts entries of /proc/self/fd")
def test_a_bounded_number_of_files_is_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shards = [write_shard(tmp_path / f"{n}.h5", [Stored()], seed=n) for n in range(12)]
    files = Descriptors(limit=4)
    monkeypatch.setattr(local, "_FILES", files)
    before = _open_descriptors()
    out = np.empty((12, 2, 8, 6, 1), np.float32)
    for _ in range(3):
        LocalReader().read_windows([shard.request() for shard in shards], out)
    assert len(files) == 4
    assert _open_descriptors() - before == 4
    for shard, window in zip(shards, out, strict=True):
        assert same_bits(window, expected_window(shard, shard.request()))
    for shard in shards:
        LocalReader().close(shard.path)
    assert _open_descriptors() == before


def test_a_file_in_use_is_closed_only_when_its_last_user_is_done(tmp_path: Path) -> None:
    paths = [tmp_path / str(n) for n in range(3)]
    for path in paths:
        path.write_bytes(b"0123456789")
    files = Descriptors(limit=1)
    with files.use(str(paths[0])) as first:
        with files.use(str(paths[1])), files.use(str(paths[2])):
            pass
        files.drop(str(paths[0]))
        buffer = bytearray(3)
        first.read_into([memoryview(buffer)], 2)
        assert bytes(buffer) == b"234"
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(first.descriptor)
    with pytest.raises(DataNotFoundError), files.use(str(tmp_path / "none")):
        pass


def test_a_replaced_file_is_seen_after_close(tmp_path: Path) -> None:
    shard = write_shard(tmp_path / "a.h5", [Stored()], seed=1)
    reader = LocalReader()
    out = np.empty((1, 2, 8, 6, 1), np.float32)
    reader.read_windows([shard.request()], out)
    other = write_shard(tmp_path / "b.h5", [Stored()], seed=2)
    os.replace(other.path, shard.path)
    reader.close(shard.path)
    reader.read_windows([shard.request()], out)
    assert same_bits(out[0], expected_window(shard, shard.request()))


@pytest.mark.skipif(sys.platform != "linux", reason="statfs is asked on Linux only")
def test_the_file_system_is_told() -> None:
    descriptor = os.open("/proc/self/status", os.O_RDONLY)
    try:
        assert file_system_type(descriptor) == 0x9FA0  # PROC_SUPER_MAGIC
    finally:
        os.close(descriptor)


def test_network_file_systems_many_threads_and_small_windows_are_not_mapped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard = write_shard(tmp_path / "a.h5", [Stored()], space=(256, 256), steps=3)
    used: list[str] = []

    def noted(name: str, real: Callable[..., int]) -> Callable[..., int]:
        def call(*arguments: Any) -> int:
            used.append(name)
            return real(*arguments)

        return call

    kernels = load_kernels(None)
    for name in ("read_mapped", "read_tiles"):
        monkeypatch.setattr(kernels, name, noted(name, getattr(kernels, name)))
    out = np.empty((1, 2, 256, 256, 1), np.float32)
    for source, is_local, wanted in (
        ("auto", True, "read_mapped"),
        ("auto", False, "read_tiles"),
        ("mmap", False, "read_mapped"),
        ("pread", True, "read_tiles"),
    ):
        used.clear()
        with local._FILES.use(shard.path) as file:
            monkeypatch.setattr(file, "is_local", is_local)
        LocalReader(source=source, threads=1).read_windows([shard.request()], out)  # type: ignore[arg-type]
        assert used == [wanted]
    used.clear()
    with local._FILES.use(shard.path) as file:
        monkeypatch.setattr(file, "is_local", True)
    monkeypatch.setattr(workers, "_READING", {-1})  # another thread is reading
    LocalReader(threads=1).read_windows([shard.request()], out)
    assert used == ["read_tiles"]
    used.clear()
    small = shard.request(n_steps=1, crop=(slice(0, 128), slice(None)))
    LocalReader(threads=1).read_windows([small], np.empty((1, 1, 128, 256, 1), np.float32))
    sparse = shard.request(crop=(slice(None), slice(0, 100)))
    LocalReader(source="mmap", threads=1).read_windows([sparse], np.empty((1, 2, 256, 100, 1), np.float32))
    assert used == ["read_tiles", "read_tiles"]


def test_an_error_in_any_thread_reaches_the_caller_when_all_have_stopped() -> None:
    running = threading.Event()
    over: list[int] = []

    def work(item: int) -> None:
        if threading.current_thread() is threading.main_thread():
            assert running.wait(10)  # a helper has begun
            raise ValueError("here")
        running.set()
        threading.Event().wait(0.05)
        over.append(item)

    with pytest.raises(ValueError, match="here"):
        share(range(1000), work, 3)
    assert 0 < len(over) < 4  # what had begun came to its end, and nothing began after


def test_every_item_is_worked_on_once() -> None:
    done: list[int] = []
    share(range(500), done.append, 4)
    assert sorted(done) == list(range(500))


@pytest.mark.parametrize("delta", [False, True])
@pytest.mark.parametrize("source", ["auto", "mmap", "pread"])
@pytest.mark.parametrize("split", [0, 2, 5])
def test_windows_are_shared_among_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, delta: bool, source: plain.Source, split: int
) -> None:
    """Tiles of a window, or windows of a batch, in one array or in two; helpers take part."""
    stored = [Stored(), Stored(order=1)]
    shard = write_shard(tmp_path / "a.h5", stored, space=(256, 256), steps=10, trajectories=1, delta=delta)
    requests = [shard.request(0, start, n_steps=5, stride=stride) for start, stride in ((0, 1), (1, 2), (4, 1))]
    monkeypatch.setattr(plain, "_TILE", 1 << 16)
    monkeypatch.setattr(plain, "_TILES", plain._Tile())
    readers: set[int] = set()
    kernels = load_kernels(None)
    for name in ("read_mapped", "read_tiles"):
        real = getattr(kernels, name)

        def noted(*arguments: Any, real: Callable[..., Any] = real) -> Any:
            readers.add(threading.get_ident())
            return real(*arguments)

        monkeypatch.setattr(kernels, name, noted)
    reader = LocalReader(source=source, threads=2)
    for count in (1, 3):
        # The last two steps are differences where there are any.
        windows = [replace(request, n_input=3) for request in requests[:count]] if delta else requests[:count]
        wanted = np.stack([expected_window(shard, window) for window in windows])
        for _ in range(5):
            out = np.empty((count, split, 256, 256, 3), np.float32)
            tail = np.empty((count, 5 - split, 256, 256, 3), np.float32)
            reader.read_windows(windows, out, tail)
            assert same_bits(np.concatenate([out, tail], axis=1), wanted)
    assert len(readers) > 1 or source == "mmap"


def test_what_is_not_in_memory_is_asked_for_exactly_and_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neighbouring frames as one range, frames apart as several; nothing where the bytes are there."""
    shard = write_shard(tmp_path / "a.h5", [Stored(), Stored(order=1)], space=(64, 64), steps=10, trajectories=2)
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(descriptors.OpenFile, "bring_in", lambda _, offset, size: asked.append((offset, size)))
    monkeypatch.setattr(descriptors.OpenFile, "is_cached", lambda *_: False)
    near, apart = shard.request(1, 2, n_steps=3), shard.request(0, 1, n_steps=3, stride=2)
    out = np.empty((2, 3, 64, 64, 3), np.float32)
    LocalReader().read_windows([near, apart], out)
    assert same_bits(out, np.stack([expected_window(shard, near), expected_window(shard, apart)]))
    with h5py.File(shard.path) as file:
        starts = [file[f"f{number}"].id.get_offset() for number in range(2)]
    frames = [64 * 64 * 4, 64 * 64 * 2 * 4]
    wanted = [(start + 12 * frame, 3 * frame) for start, frame in zip(starts, frames, strict=True)]
    wanted += [(start + step * frame, frame) for start, frame in zip(starts, frames, strict=True) for step in (1, 3, 5)]
    assert sorted(asked) == sorted(wanted)
    monkeypatch.setattr(descriptors.OpenFile, "is_cached", lambda *_: True)
    asked.clear()
    LocalReader().read_windows([near], out[:1])
    assert asked == []


def test_a_file_whose_pages_were_dropped_is_read_right(tmp_path: Path) -> None:
    shard = write_shard(tmp_path / "a.h5", [Stored()], space=(256, 256), steps=10)
    request = shard.request(1, 2, n_steps=4)
    out = np.empty((1, 4, 256, 256, 1), np.float32)
    for _ in range(2):
        drop_from_cache([shard.path])
        LocalReader().read_windows([request], out)
        assert same_bits(out[0], expected_window(shard, request))
    with local._FILES.use(shard.path) as file:
        assert file.is_cached(0)
        assert file.is_cached(file.size())  # nothing there: nothing to wait for
