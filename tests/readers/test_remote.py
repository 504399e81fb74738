"""Windows of remote shards are, to the last bit, those of the same shards on disk, for the bytes they need.

A little over 400 lines: one test after the other of one thing.
"""

from __future__ import annotations

import itertools
import pickle
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from tests.readers.local_shards import Shard, Stored, expected_window, same_bits, write_shard
from tests.readers.serving import serve
from tests.readers.test_local import SCALAR_AND_VECTOR, cases, chunked
from wellkit.errors import ArgumentError, HubError, ShardError
from wellkit.fetch.ranges import ByteRange
from wellkit.readers.local import LocalReader
from wellkit.readers.plan import WindowRequest
from wellkit.readers.remote import RemoteReader


class FileRanges:
    """Ranges of files on disk, in an order of its own and from several threads, written down."""

    def __init__(self, *, seed: int = 0) -> None:
        self.seed = seed
        self.asked: list[ByteRange] = []
        self.calls = 0

    def read(
        self, ranges: Sequence[ByteRange], into: Sequence[memoryview], done: Callable[[int], None] | None = None
    ) -> None:
        self.calls += 1
        self.asked += ranges
        order = np.random.default_rng([self.seed, len(ranges)]).permutation(len(ranges)).tolist()
        turns = iter(order)
        lock = threading.Lock()

        def work() -> None:
            while True:
                with lock:
                    number = next(turns, None)
                if number is None:
                    return
                wanted = ranges[number]
                with open(wanted.location.removeprefix("disk://"), "rb") as file:
                    file.seek(wanted.start)
                    content = file.read(wanted.stop - wanted.start)
                assert len(content) == wanted.stop - wanted.start > 0
                into[number][:] = content
                if done is not None:
                    done(number)

        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    @property
    def moved(self) -> int:
        """Bytes that were asked for."""
        return sum(part.stop - part.start for part in self.asked)


def far(request: WindowRequest, prefix: str = "disk://") -> WindowRequest:
    return replace(request, path=prefix + request.path)


def read(reader: RemoteReader, requests: Sequence[WindowRequest], like: np.ndarray, split: int | None = None) -> Any:
    """The windows, read to head and tail in memory that holds NaN before."""
    split = like.shape[1] if split is None else split
    head = np.full(like[:, :split].shape, np.nan, like.dtype)
    tail = np.full(like[:, split:].shape, np.nan, like.dtype)
    reader.read_windows(requests, head, tail)
    return np.concatenate([head, tail], axis=1)


def check(shard: Shard, requests: list[WindowRequest], dtype: Any = np.float32) -> None:
    """Ways of fetching against h5py and NumPy."""
    expected = np.stack([expected_window(shard, request, dtype) for request in requests])
    there = [far(request) for request in requests]
    for number, options in enumerate(
        ({}, {"threads": 1, "gap": 0}, {"budget": 1, "gap": 100}, {"compiled": False, "connections": 3})
    ):
        ranges = FileRanges(seed=number)
        found = read(RemoteReader(ranges, **options), there, expected, number % (expected.shape[1] + 1))  # type: ignore[arg-type]
        assert same_bits(found, expected), options
        assert_disjoint(ranges.asked, per_call=ranges.calls > 1)


def assert_disjoint(asked: Sequence[ByteRange], *, per_call: bool = False) -> None:
    """No byte was asked for twice (a budget of one byte fetches a frame again that later steps share)."""
    if per_call:
        return
    for before, after in itertools.pairwise(sorted(asked)):
        assert before.location != after.location or before.stop <= after.start


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(cases())
def test_any_window_of_any_shard(case: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        shard = write_shard(Path(folder) / "a.h5", case["stored"], **case["shard"])
        requests = [shard.request(trajectory, start, **case["request"]) for trajectory, start in case["windows"]]
        check(shard, requests, case["dtype"])


@pytest.mark.parametrize("delta", [False, True])
@pytest.mark.parametrize(
    "stored",
    [
        SCALAR_AND_VECTOR,
        chunked(1, 1, 40, 30),
        chunked(1, 1, 40, 30, filters=()),
        chunked(2, 7, 40, 30, filters=()),
        chunked(2, 7, 16, 11, filters=()),
        chunked(1, 6, 16, 30),
        chunked(1, 2, 7, 11, filters=("fletcher32",)),
    ],
    ids=lambda stored: f"{stored[0].chunks} {'+'.join(stored[0].filters)}",
)
def test_crops_strides_and_differences(tmp_path: Path, stored: tuple[Stored, ...], delta: bool) -> None:
    shard = write_shard(tmp_path / "a.h5", stored, space=(40, 30), trajectories=3, steps=7, delta=delta)
    for crop in ((slice(None), slice(None)), (slice(3, 37), slice(5, 26)), (slice(1, 40, 3), slice(0, 29, 2))):
        for stride in (1, 2):
            check(
                shard,
                [
                    shard.request(trajectory, start, n_steps=3, stride=stride, n_input=2, crop=crop)
                    for trajectory, start in [(0, 0), (2, 1), (0, 2), (1, 2), (0, 2)]
                ],
            )


def moved_per_needed(shard: Shard, requests: list[WindowRequest], **options: Any) -> tuple[float, int]:
    """(bytes asked for per byte of distinct frames, requests)."""
    ranges = FileRanges()
    expected = np.stack([expected_window(shard, request) for request in requests])
    assert same_bits(read(RemoteReader(ranges, **options), [far(r) for r in requests], expected), expected)
    frames = {(r.trajectory, r.start + step * r.stride) for r in requests for step in range(r.n_steps)}
    return ranges.moved / (len(frames) * expected[0, 0].nbytes), len(ranges.asked)


@pytest.mark.parametrize(
    "stored",
    [SCALAR_AND_VECTOR, chunked(1, 6, 16, 30, filters=()), chunked(2, 12, 40, 30, filters=())],
    ids=["contiguous", "boxes", "one chunk a trajectory"],
)
def test_only_what_is_needed_is_fetched_and_only_once(tmp_path: Path, stored: tuple[Stored, ...]) -> None:
    shard = write_shard(tmp_path / "a.h5", stored, space=(40, 30), trajectories=4, steps=12)
    windows = [(0, 2), (0, 3), (3, 1), (0, 2), (1, 7)]
    ratio, requests = moved_per_needed(shard, [shard.request(t, start, n_steps=4) for t, start in windows])
    assert 1 <= ratio <= 1.05
    if stored is SCALAR_AND_VECTOR:
        # Frames 2 to 6, 1 to 4 and 7 to 10 of three trajectories are a run each, in two arrays.
        assert requests == 6


def test_a_gap_is_fetched_where_that_costs_little(tmp_path: Path) -> None:
    """Of 50 frames one is left out: 2 % more bytes, one request less. Of every second frame none is."""
    shard = write_shard(tmp_path / "a.h5", [Stored()], space=(8, 8), trajectories=1, steps=60)
    requests = [shard.request(0, 0, n_steps=20), shard.request(0, 21, n_steps=20), shard.request(0, 40, n_steps=20)]
    ratio, n_requests = moved_per_needed(shard, requests)
    assert ratio == pytest.approx(60 / 59)
    assert n_requests == 1
    assert moved_per_needed(shard, requests, gap=0) == (1.0, 2)
    assert moved_per_needed(shard, [shard.request(0, 0, n_steps=20, stride=2)]) == (1.0, 20)


def test_distant_rows_and_planes_of_a_crop_are_left_out(tmp_path: Path) -> None:
    shard = write_shard(tmp_path / "a.h5", [Stored(spatial=(True,) * 3)], space=(9, 40, 50), trajectories=1, steps=3)
    crop = (slice(2, 7, 2), slice(5, 9), slice(10, 20))
    request = shard.request(0, 1, n_steps=1, crop=crop)
    for gap, moved, requests in (
        (0, 3 * 4 * 10, 12),  # each row
        (200, 3 * (3 * 50 + 10), 3),  # the rows of each plane
        (1 << 16, 4 * 40 * 50 + 3 * 50 + 10, 1),  # all of it
    ):
        ranges = FileRanges()
        expected = expected_window(shard, request)[np.newaxis]
        assert same_bits(read(RemoteReader(ranges, gap=gap), [far(request)], expected), expected)
        assert (ranges.moved, len(ranges.asked)) == (4 * moved, requests)


def test_long_runs_are_shared_among_connections(tmp_path: Path) -> None:
    shard = write_shard(tmp_path / "a.h5", [Stored()], space=(512, 512), trajectories=1, steps=8)
    ratio, requests = moved_per_needed(shard, [shard.request(0, 0, n_steps=8)], connections=4)
    assert (ratio, requests) == (1.0, 4)
    ratio, requests = moved_per_needed(shard, [shard.request(0, 0, n_steps=8)], connections=64)
    assert (ratio, requests) == (1.0, 8)  # of 1 MiB: smaller ones take as long as their way there and back


@pytest.mark.parametrize("stored", [SCALAR_AND_VECTOR, chunked(1, 1, 8, 6)], ids=["contiguous", "gzip"])
def test_no_more_is_in_memory_than_the_budget_says(
    tmp_path: Path, stored: tuple[Stored, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    shard = write_shard(tmp_path / "a.h5", stored, trajectories=1, steps=40)
    sizes: list[int] = []

    class Watched(FileRanges):
        def read(self, ranges: Sequence[ByteRange], into: Any, done: Any = None) -> None:
            sizes.append(sum(part.stop - part.start for part in ranges))
            super().read(ranges, into, done)

    requests = [shard.request(0, start, n_steps=5) for start in (0, 7, 20, 33)]
    expected = np.stack([expected_window(shard, request) for request in requests])
    frame = 8 * 6 * 3 * 4
    ranges = Watched()
    found = read(RemoteReader(ranges, budget=10 * frame), [far(r) for r in requests], expected)
    assert same_bits(found, expected)
    assert len(sizes) >= 4
    assert max(sizes) <= 5 * frame


def test_threads_share_the_budget(tmp_path: Path) -> None:
    """Of five batches of 20 frames each, with room for 45, at most two are on their way at a time; all come."""
    shard = write_shard(tmp_path / "a.h5", SCALAR_AND_VECTOR, trajectories=1, steps=40)
    frame = 8 * 6 * 3 * 4
    lock = threading.Lock()
    under_way = most = 0

    class Slow(FileRanges):
        def read(self, ranges: Sequence[ByteRange], into: Any, done: Any = None) -> None:
            nonlocal under_way, most
            size = sum(part.stop - part.start for part in ranges)
            with lock:
                under_way += size
                most = max(most, under_way)
            time.sleep(0.05)
            super().read(ranges, into, done)
            with lock:
                under_way -= size

    reader = RemoteReader(Slow(), budget=45 * frame)
    requests = [shard.request(0, start, n_steps=10) for start in (0, 15)]
    expected = np.stack([expected_window(shard, request) for request in requests])
    found: list[bool] = []
    threads = [
        threading.Thread(
            target=lambda: found.append(same_bits(read(reader, [far(r) for r in requests], expected), expected))
        )
        for _ in range(5)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * 5
    assert 20 * frame < most <= 45 * frame


def test_a_chunk_that_two_portions_need_is_fetched_once(tmp_path: Path) -> None:
    shard = write_shard(tmp_path / "a.h5", chunked(1, 20, 8, 6), trajectories=1, steps=20)
    requests = [shard.request(0, start, n_steps=5) for start in (0, 15, 7)]
    expected = np.stack([expected_window(shard, request) for request in requests])
    ranges = FileRanges()
    assert same_bits(read(RemoteReader(ranges, budget=1), [far(r) for r in requests], expected), expected)
    assert len(ranges.asked) == 2


def test_a_damaged_chunk_is_told_without_secrets(tmp_path: Path) -> None:
    shard = write_shard(tmp_path / "a.h5", chunked(1, 1, 8, 6), trajectories=1, steps=4)
    array = shard.fields[0].array
    place = int(array.offsets[2])
    content = bytearray(Path(shard.path).read_bytes())
    content[place + 9] ^= 0xFF
    Path(shard.path).write_bytes(content)

    class Signed(FileRanges):
        def read(self, ranges: Sequence[ByteRange], into: Any, done: Any = None) -> None:
            super().read([part._replace(location=f"disk://{shard.path}") for part in ranges], into, done)

    request = replace(shard.request(0, 0, n_steps=4), path="https://user:secret@host/a.h5?signature=secret")
    out = np.empty((1, 4, 8, 6, 3), np.float32)
    with pytest.raises(ShardError, match=r"https://host/a.h5: chunk 2 of array 'f0'.*stored") as caught:
        RemoteReader(Signed()).read_windows([request], out)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


class Failing(FileRanges):
    """Fails behind some ranges."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self.after = after

    def read(self, ranges: Sequence[ByteRange], into: Any, done: Any = None) -> None:
        super().read(ranges[: self.after], into, done)
        raise HubError("host: the server answered HTTP 503")


@pytest.mark.parametrize("after", [0, 1, 5])
def test_what_the_network_fails_with_is_raised_and_nobody_writes_on(tmp_path: Path, after: int) -> None:
    shard = write_shard(tmp_path / "a.h5", SCALAR_AND_VECTOR, space=(200, 300), trajectories=8, steps=4)
    requests = [far(shard.request(t, 0, n_steps=4)) for t in range(8)]
    out = np.empty((8, 4, 200, 300, 3), np.float32)
    with pytest.raises(HubError, match="503"):
        RemoteReader(Failing(after)).read_windows(requests, out)
    out[...] = 7
    assert np.all(out == 7)


def test_a_source_that_leaves_something_out_is_found_out(tmp_path: Path) -> None:
    class Forgetful(FileRanges):
        def read(self, ranges: Sequence[ByteRange], into: Any, done: Any = None) -> None:
            super().read(ranges[1:], into[1:], done)

    shard = write_shard(tmp_path / "a.h5", SCALAR_AND_VECTOR, trajectories=1, steps=4)
    with pytest.raises(RuntimeError, match="never arrived"):
        RemoteReader(Forgetful()).read_windows(
            [far(shard.request(0, 0, n_steps=4))], np.empty((1, 4, 8, 6, 3), np.float32)
        )


def test_arguments_that_make_no_sense(tmp_path: Path) -> None:
    for options in ({"budget": 0}, {"gap": -1}, {"connections": 0}, {"threads": 0}):
        with pytest.raises(ArgumentError, match=next(iter(options))):
            RemoteReader(FileRanges(), **options)  # type: ignore[arg-type]
    shard = write_shard(tmp_path / "a.h5", SCALAR_AND_VECTOR)
    reader = RemoteReader(FileRanges())
    with pytest.raises(ArgumentError, match="no trajectory 5"):
        reader.read_windows([far(shard.request(5))], np.empty((1, 2, 8, 6, 3), np.float32))
    with pytest.raises(ArgumentError, match="do not fit into an array"):
        reader.read_windows([], np.empty((1, 2, 8, 6, 3), np.float32))


# through the real source of ranges


@pytest.fixture
def memory_tree() -> Iterator[str]:
    folder = "memory://remote-reader-tests"
    yield folder
    fsspec.filesystem("memory").rm("/remote-reader-tests", recursive=True)


def test_memory_and_http(tmp_path: Path, memory_tree: str) -> None:
    shard = write_shard(tmp_path / "a.h5", chunked(1, 2, 7, 11), space=(40, 30), trajectories=3, steps=7, delta=True)
    requests = [shard.request(t, start, n_steps=3, n_input=2) for t, start in [(0, 0), (2, 1), (0, 2), (1, 3)]]
    expected = np.empty((4, 3, 40, 30, 3), np.float32)
    LocalReader().read_windows(requests, expected)
    fsspec.filesystem("memory").pipe_file("/remote-reader-tests/a.h5", Path(shard.path).read_bytes())
    there = [replace(request, path=f"{memory_tree}/a.h5") for request in requests]
    assert same_bits(read(RemoteReader(), there, expected, 2), expected)
    with serve(tmp_path) as address:
        there = [replace(request, path=f"{address}/a.h5") for request in requests]
        reader = pickle.loads(pickle.dumps(RemoteReader(connections=4)))  # noqa: S301 - our own
        assert same_bits(read(reader, there, expected, 1), expected)


def test_threads_share_a_reader(tmp_path: Path) -> None:
    shard = write_shard(tmp_path / "a.h5", (*SCALAR_AND_VECTOR, *chunked(1, 2, 7, 11)), space=(40, 30), steps=9)
    plans = [replace(plan, first=[0, 1, 3, 4][number]) for number, plan in enumerate(shard.fields)]
    fields = tuple(plans)
    requests = [replace(shard.request(t, start, n_steps=3), fields=fields) for t in (0, 1) for start in range(6)]
    expected = np.empty((12, 3, 40, 30, 6), np.float32)
    LocalReader().read_windows(requests, expected)
    reader = RemoteReader(FileRanges(), threads=2)
    wrong: list[int] = []

    def work(first: int) -> None:
        for turn in range(6):
            chosen = [(first + turn * step) % 12 for step in range(4)]
            found = read(reader, [far(requests[n]) for n in chosen], expected[:4])
            if not same_bits(found, expected[chosen]):
                wrong.append(first)

    threads = [threading.Thread(target=work, args=(first,)) for first in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


FORK_WHILE_WARMING = """
import os
import numpy as np
from wellkit.readers.output import load_kernels, warm_kernels
warm_kernels()
child = os.fork()
out = np.zeros(8, np.uint8)
load_kernels(None).unshuffle(np.arange(8, dtype=np.uint8), out, 2)
assert out.tolist() == [0, 4, 1, 5, 2, 6, 3, 7]
if child == 0:
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
"""


def test_a_fork_while_the_kernels_are_made_ready() -> None:
    """The child finds no lock that a thread of its parent held."""
    subprocess.run([sys.executable, "-c", FORK_WHILE_WARMING], check=True, timeout=120)
