"""Byte ranges of remote files: which bytes, in how many requests, over how many connections."""

from __future__ import annotations

import pickle
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest

from tests.fetch.ranged import NOTE, REPOSITORY, SHARD, SIZE, TOKEN, Published, expected, publish, read
from tests.hub.server import LoopbackHub
from tests.readers.serving import serve
from wellkit.errors import ArgumentError, DataNotFoundError, HubError, IntegrityError, ShardError
from wellkit.fetch import ranges as module
from wellkit.fetch.parallel import MOST_THREADS
from wellkit.fetch.ranges import ByteRange, RangeReader


def test_bytes_are_those_of_the_file(large: Published) -> None:
    ranges = [
        *large.ranges(40, 10_001),
        ByteRange(large.at(), 0, 1),
        ByteRange(large.at(), SIZE - 1, SIZE),
        ByteRange(large.at(), 0, SIZE),
    ]
    note = ByteRange(large.at(NOTE), 6, 9)  # the Hub itself serves it
    assert read(RangeReader(), [*ranges, note]) == [*expected(large, ranges), b"1.5"]


def test_each_range_is_told_of_once_when_its_bytes_are_there(large: Published, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SHORTEST_PART", 100_000)
    ranges = [*large.ranges(10), ByteRange(large.at(), 5, SIZE)]
    buffers = [bytearray(part.stop - part.start) for part in ranges]
    seen: dict[int, bytes] = {}
    told: Counter[int] = Counter()

    def done(number: int) -> None:
        told[number] += 1
        seen[number] = bytes(buffers[number])

    RangeReader().read(ranges, [memoryview(buffer) for buffer in buffers], done)
    assert told == dict.fromkeys(range(11), 1)
    assert [seen[number] for number in range(11)] == expected(large, ranges)
    bounds = [request.headers["range"].removeprefix("bytes=").split("-") for request in large.asked("store")]
    parts = sorted((int(first), int(last) + 1) for first, last in bounds)
    parts = [part for part in parts if part[1] - part[0] != 50_000]
    assert len(parts) == 14  # of at most a 16th of all
    assert [part[0] for part in parts] == [5, *(part[1] for part in parts[:-1])]
    assert parts[-1][1] == SIZE


def test_other_kinds_of_memory(large: Published) -> None:
    floats = np.zeros((5, 100), "f4")
    RangeReader().read([ByteRange(large.at(), 8, 2008)], [floats.data])
    assert floats.tobytes() == large.content[8:2008]


def test_a_file_is_resolved_once_a_process(large: Published) -> None:
    ranges = large.ranges(64, 1000)
    readers = [RangeReader(), RangeReader(connections=3)]
    threads = [threading.Thread(target=read, args=(reader, ranges)) for reader in readers * 4]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(large.asked("hub", "HEAD")) == 1
    assert large.asked("hub") == []
    assert len(large.asked("store")) == 8 * 64
    assert readers[0].size(large.at()) == SIZE
    assert len(large.asked("hub", "HEAD")) == 1


def test_as_many_at_a_time_as_allowed_over_connections_that_stay(large: Published) -> None:
    large.hub.latency = 0.03
    reader = RangeReader(connections=5)
    for _ in range(3):
        read(reader, large.ranges(15))
    requests = large.asked("store")
    assert len(requests) == 45
    assert len({request.connection for request in requests}) == 5
    at_once = max(
        sum(other.began <= request.began < other.ended for other in requests[15:]) for request in requests[15:]
    )
    assert 2 <= at_once <= 5


def test_threads_are_bounded_and_end_when_there_is_nothing_to_do(
    large: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    from wellkit.fetch import parallel

    monkeypatch.setattr(parallel, "_IDLE", 0.2)
    monkeypatch.setattr(parallel, "THREADS", parallel._Threads())
    large.hub.latency = 0.05

    def ours() -> list[str]:
        return [thread.name for thread in threading.enumerate() if thread.name == "wellkit-fetch"]

    before = len(ours())
    readers = [RangeReader(connections=40) for _ in range(4)]
    threads = [threading.Thread(target=read, args=(reader, large.ranges(60, 100))) for reader in readers]
    for thread in threads:
        thread.start()
    most = 0
    while any(thread.is_alive() for thread in threads):
        most = max(most, len(ours()) - before)
        time.sleep(0.005)
    assert 40 <= most <= MOST_THREADS
    time.sleep(1.0)
    assert len(ours()) <= before


def test_state_is_plain_data(large: Published) -> None:
    reader = RangeReader({"endpoint": large.hub.url}, connections=7)
    read(reader, large.ranges(3))
    copy = pickle.loads(pickle.dumps(reader))  # noqa: S301 - its own
    assert (copy.storage_options, copy.connections) == ({"endpoint": large.hub.url}, 7)
    assert (copy.n_requests, copy.bytes_received) == (0, 0)
    assert read(copy, large.ranges(2)) == expected(large, large.ranges(2))


def test_counters(large: Published) -> None:
    reader = RangeReader()
    read(reader, large.ranges(6, 1000))
    assert (reader.n_requests, reader.bytes_received) == (7, 6000)  # one to find the file
    assert len(large.asked("store")) + len(large.asked("hub", "HEAD")) == 7


def test_sizes(large: Published, tmp_path: Path) -> None:
    reader = RangeReader()
    assert (reader.size(large.at()), reader.size(large.at(NOTE))) == (SIZE, 19)
    assert reader.bytes_received == 0
    (tmp_path / "file").write_bytes(b"12345")
    assert reader.size(str(tmp_path / "file")) == 5
    with pytest.raises(DataNotFoundError, match=r"gone\.hdf5: not found"):
        reader.size(large.at("gone.hdf5"))


def test_a_mirror_that_tells_no_sizes(large: Published) -> None:
    def silent(answer: Any) -> None:
        answer.headers = {name: value for name, value in answer.headers.items() if "Linked" not in name}

    large.hub.fault(silent, method="HEAD")
    assert RangeReader().size(large.at()) == SIZE


@pytest.mark.parametrize(
    ("start", "stop", "memory"),
    [
        (5, 5, memoryview(bytearray(0))),
        (-1, 3, memoryview(bytearray(4))),
        (0, 4, memoryview(bytearray(5))),
        (0, 4, memoryview(b"abcd")),
        (0, 4, memoryview(bytearray(8))[::2]),
    ],
)
def test_ranges_that_make_no_sense(large: Published, start: int, stop: int, memory: memoryview) -> None:
    with pytest.raises(ArgumentError, match=r"waves\.hdf5: (bytes .* are no range|4 bytes need writable)"):
        RangeReader().read([ByteRange(large.at(), start, stop)], [memory])
    assert large.hub.requests == []


def test_other_arguments_that_make_no_sense(large: Published) -> None:
    with pytest.raises(ArgumentError, match="1 ranges and memory for 0"):
        RangeReader().read(large.ranges(1), [])
    with pytest.raises(ArgumentError, match="connections=0"):
        RangeReader(connections=0)
    RangeReader().read([], [])


def test_a_range_behind_the_end(large: Published) -> None:
    with pytest.raises(ShardError, match=rf"has {SIZE} bytes, so none {SIZE - 1}-{SIZE}"):
        read(RangeReader(), [ByteRange(large.at(), SIZE - 1, SIZE + 1)])
    assert large.asked("store") == []


@pytest.mark.parametrize("path", ["data/../../../other/name/a.hdf5", "../a.hdf5", "data//a.hdf5", "C:/a.hdf5"])
def test_paths_that_climb_are_refused(large: Published, path: str) -> None:
    with pytest.raises(IntegrityError, match="unsafe path"):
        read(RangeReader(), [ByteRange(large.at(path), 0, 1)])
    assert large.hub.requests == []


def test_files_that_are_not_there(large: Published) -> None:
    with pytest.raises(DataNotFoundError, match=r"gone\.hdf5: not found \(HTTP 404\)"):
        read(RangeReader(), [ByteRange(large.at("gone.hdf5"), 0, 1)])
    assert len(large.hub.requests) == 1  # nobody asks again


def test_offline(large: Published, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(HubError, match="HF_HUB_OFFLINE"):
        read(RangeReader(), large.ranges(1))
    assert large.hub.requests == []


def test_the_token_goes_to_the_hub_only(
    hub: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    private = publish(hub, tmp_path, token=TOKEN)
    ranges = [*private.ranges(3), ByteRange(private.at(NOTE), 0, 4)]
    with pytest.raises(HubError, match=r"access refused \(HTTP 401\)"):
        read(RangeReader(), ranges)
    caplog.set_level("DEBUG")
    assert read(RangeReader({"token": TOKEN}), ranges)[:3] == expected(private, ranges[:3])
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert read(RangeReader(), ranges)[3] == b"mean"
    assert all("authorization" not in request.headers for request in private.asked("store"))
    assert all(f"Bearer {TOKEN}" == request.headers["authorization"] for request in private.asked("hub"))
    assert TOKEN not in caplog.text


def test_a_renamed_repository(large: Published) -> None:
    """The Hub redirects on its own host before it redirects to the store."""
    old = large.at().replace("large_waves", "old_waves")

    def moved(answer: Any) -> None:
        answer.status = 307
        answer.headers = {"Location": f"/datasets/{REPOSITORY}/resolve/{large.commit}/{SHARD}"}
        answer.content = b""

    large.hub.fault(moved, path="old_waves", method="HEAD")
    assert read(RangeReader(), [ByteRange(old, 3, 90)]) == [large.content[3:90]]


def test_a_store_that_redirects_on(large: Published) -> None:
    link: list[str] = []

    def elsewhere(answer: Any) -> None:
        target = large.hub._object_link(large.repository.commits[large.commit][SHARD])
        link.append(target)
        answer.status, answer.headers, answer.content = 302, {"Location": target + "&final=1"}, b"moved"

    large.hub.fault(elsewhere, server="store", times=1)
    reader = RangeReader(connections=1)
    assert read(reader, large.ranges(4)) == expected(large, large.ranges(4))
    assert [("final" in request.query) for request in large.asked("store")] == [False, True, True, True, True]


# other storages


@pytest.fixture
def content() -> bytes:
    return bytes(range(256)) * 400


@pytest.mark.parametrize("protocol", ["memory", "file", "path", "http"])
def test_any_storage(protocol: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.h5").write_bytes(content)
    with serve(tmp_path) as url:
        fsspec.filesystem("memory").pipe("/ranges/a.h5", content)
        location = {
            "memory": "memory://ranges/a.h5",
            "file": f"file://{tmp_path}/a.h5",
            "path": f"{tmp_path}/a.h5",
            "http": f"{url}/a.h5",
        }[protocol]
        reader = RangeReader(connections=4)
        ranges = [ByteRange(location, start, start + 777) for start in range(0, 90_000, 5000)]
        assert read(reader, ranges) == [content[part.start : part.stop] for part in ranges]
        assert reader.size(location) == len(content)
        assert reader.bytes_received == 777 * len(ranges)
        fsspec.filesystem("memory").rm("/ranges", recursive=True)
        with pytest.raises(DataNotFoundError, match=r"b\.h5: not found"):
            read(reader, [ByteRange(location.replace("a.h5", "b.h5"), 0, 5)])


def test_files_elsewhere_that_are_too_short(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.h5").write_bytes(content)
    with pytest.raises(ShardError, match=r"a\.h5: has only 10 of the bytes"):
        read(RangeReader(), [ByteRange(f"{tmp_path}/a.h5", len(content) - 10, len(content) + 1)])


def test_a_server_without_ranges(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.h5").write_bytes(content)
    with serve(tmp_path, ranges=False) as url, pytest.raises(HubError, match="it cannot serve ranges; download"):
        read(RangeReader(), [ByteRange(f"{url}/a.h5?signature=hidden", 5, 10)])
