"""Byte ranges from many threads and processes: forked in the middle of it, spawned, and left by Ctrl-C."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.fetch.ranged import Published, expected, read
from tests.hub.server import LoopbackHub
from wellkit.fetch.ranges import ByteRange, RangeReader

ROOT = Path(__file__).parents[2]


def test_threads_share_a_reader(large: Published) -> None:
    reader = RangeReader(connections=6)
    failures: list[object] = []

    def work(number: int) -> None:
        ranges = large.ranges(10 + number, 3000 + number)
        for _ in range(5):
            if read(reader, ranges) != expected(large, ranges):
                failures.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def in_child(action: Any) -> int:
    """Fork, act, and tell the child's exit status: 0 if the action returned True."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            status = 0 if action() else 2
        finally:
            os._exit(status)
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return -1


def test_a_child_forked_while_threads_read(large: Published) -> None:
    """Again and again, so that forks hit whatever a thread may hold just then."""
    large.hub.rate = 2e6
    reader = RangeReader(connections=8)
    ranges = large.ranges(16, 20_000)
    read(reader, ranges)
    stop = threading.Event()
    wrong: list[int] = []

    def parent() -> None:
        while not stop.is_set():
            if read(reader, ranges) != expected(large, ranges):
                wrong.append(1)

    threads = [threading.Thread(target=parent) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        statuses = [
            in_child(lambda: read(reader, ranges) == expected(large, ranges) and reader.n_requests == 16)
            for _ in range(15)
        ]
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert statuses == [0] * 15  # and none asked the Hub again where the file is: the parent knew
    assert wrong == []
    assert len(large.asked("hub", "HEAD")) == 1
    assert read(reader, ranges) == expected(large, ranges)


def test_a_childs_connections_are_its_own(large: Published) -> None:
    reader = RangeReader(connections=2)
    read(reader, large.ranges(4, 100))
    before = {request.connection for request in large.asked("store")}
    assert in_child(lambda: read(reader, large.ranges(4, 100)) == expected(large, large.ranges(4, 100))) == 0
    theirs = {request.connection for request in large.asked("store")[4:]}
    assert theirs.isdisjoint(before)
    read(reader, large.ranges(4, 100))
    again = {request.connection for request in large.asked("store")[8:]}
    assert again <= before  # the child has not closed them


def test_children_read_other_storages_too(large: Published) -> None:
    from tests.fetch.ranged import SHARD

    blob = large.repository.commits[large.commit][SHARD]
    address = large.hub.store_url + large.hub.links.sign(f"/objects/{blob.sha256}")
    ranges = [ByteRange(address, start, start + 10) for start in range(50)]
    reader = RangeReader(connections=4)
    assert read(reader, ranges) == expected(large, ranges)
    assert in_child(lambda: read(reader, ranges) == expected(large, ranges)) == 0
    assert read(reader, ranges) == expected(large, ranges)


def _spawned(reader: RangeReader, ranges: list[ByteRange], answers: Any) -> None:
    answers.put(read(reader, ranges))


def test_spawned_processes(large: Published) -> None:
    context = multiprocessing.get_context("spawn")
    reader = RangeReader(connections=3)
    ranges = large.ranges(5)
    read(reader, ranges)
    answers = context.Queue()
    process = context.Process(target=_spawned, args=(reader, ranges, answers))
    process.start()
    assert answers.get(timeout=60) == expected(large, ranges)
    process.join()


@pytest.mark.parametrize("trouble", ["slow", "silent", "busy"])
def test_ctrl_c_ends_a_program(large: Published, hub: LoopbackHub, trouble: str) -> None:
    """Within a second and with the usual traceback, whatever the servers do."""
    from tests.hub.faults import slow, stalled, unavailable

    change = {"slow": slow(20_000), "silent": stalled(100, 20.0), "busy": unavailable(503, 100)}[trouble]
    hub.fault(change, server="store")
    program = f"""
        from wellkit.fetch.ranges import ByteRange, RangeReader
        ranges = [ByteRange({large.at()!r}, start, start + 50_000) for start in range(0, 2_000_000, 50_000)]
        print("begun", flush=True)
        RangeReader().read(ranges, [memoryview(bytearray(50_000)) for _ in ranges])
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"begun\n"
    while not large.asked("store"):
        time.sleep(0.02)
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    began = time.monotonic()
    _, told = process.communicate(timeout=30)
    assert time.monotonic() - began < 2.0
    assert process.returncode == -signal.SIGINT
    assert told.rstrip().endswith(b"KeyboardInterrupt")
