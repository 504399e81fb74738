"""Byte ranges when something goes wrong: bytes are right or there is an error, and nobody waits longer than he must."""

from __future__ import annotations

import os
import signal
import threading
import time
import traceback
from email.utils import formatdate
from pathlib import Path

import pytest
import tenacity

from tests.fetch.ranged import SHARD, SIZE, TOKEN, Published, expected, publish, read, stays
from tests.hub.faults import (
    Answer,
    Change,
    html_page,
    in_turn,
    leads_to,
    shortened,
    slow,
    stalled,
    truncated,
    unannounced,
    unavailable,
    whole_file,
    with_headers,
)
from tests.hub.server import LoopbackHub
from tests.hub.signing import SECRET
from wellkit.errors import ConfigError, DataNotFoundError, HubError, ShardError, WellkitError
from wellkit.fetch import ranges as module
from wellkit.fetch import sockets
from wellkit.fetch.ranges import ByteRange, RangeReader


def other_range(answer: Answer) -> None:
    """The bytes behind those that were asked for, and headers that say so."""
    if not isinstance(answer.content, bytes):
        path, start, stop = answer.content
        answer.content = (path, start + 1, stop + 1)
        answer.headers["Content-Range"] = f"bytes {start + 1}-{stop}/{SIZE}"


def without_range(answer: Answer) -> None:
    """No word on which bytes these are."""
    answer.headers.pop("Content-Range", None)


PASSING: dict[str, Change] = {
    "busy": unavailable(503, None),
    "busy, wait": unavailable(503, 0),
    "too many": unavailable(429, 0),
    "broken": unavailable(502, None),
    "truncated": truncated(1000),
    "truncated at once": truncated(0),
    "reset": truncated(20_000, reset=True),
    "reset at once": truncated(0, reset=True),
    "shortened": shortened(7),
    "closed early, no length": unannounced(b"x" * 100),
    "too long, no length": unannounced(b"x" * 100_000),
    "another range": other_range,
    "no range": without_range,
}


@pytest.mark.parametrize("fault", PASSING)
def test_what_passes_is_tried_again(large: Published, fault: str) -> None:
    large.hub.fault(PASSING[fault], server="store", every=3)
    reader = RangeReader(connections=4)
    ranges = large.ranges(20)
    assert read(reader, ranges) == expected(large, ranges)
    assert 25 <= len(large.asked("store")) <= 31  # 20, and every third again


def test_a_hub_that_is_busy(large: Published) -> None:
    large.hub.fault(unavailable(503, None), server="hub", method="HEAD", times=3)
    assert read(RangeReader(), large.ranges(5)) == expected(large, large.ranges(5))
    assert len(large.asked("hub", "HEAD")) == 4


def test_every_fifth_request_failing_leaves_half_the_throughput(large: Published) -> None:
    large.hub.latency, large.hub.rate = 0.05, 5e6
    ranges = large.ranges(96)
    reader = RangeReader(connections=8)
    read(reader, ranges[:8])

    def seconds() -> float:
        began = time.monotonic()
        assert read(reader, ranges) == expected(large, ranges)
        return time.monotonic() - began

    whole = seconds()
    changes = in_turn(unavailable(503, None), truncated(1000, reset=True), truncated(1000))
    large.hub.fault(changes, server="store", every=5)
    assert seconds() < 2 * whole


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("as_date", [False, True])
def test_retry_after_is_obeyed(large: Published, status: int, as_date: bool) -> None:
    wanted = formatdate(time.time() + 2.5, usegmt=True) if as_date else 1  # dates are in whole seconds
    large.hub.fault(unavailable(status, wanted), server="store", times=1)
    began = time.monotonic()
    assert read(RangeReader(connections=1), large.ranges(3)) == expected(large, large.ranges(3))
    assert 1.0 <= time.monotonic() - began < 5.0
    first, *others = large.asked("store")
    assert all(request.began - first.began >= 1.0 for request in others)


def test_too_many_requests_hold_all_of_them_back(large: Published) -> None:
    large.hub.latency = 0.02
    large.hub.fault(unavailable(429, 1), server="store", times=1)
    ranges = large.ranges(40)
    assert read(RangeReader(connections=4), ranges) == expected(large, ranges)
    [refused] = [request for request in large.asked("store") if request.status == 429]
    meanwhile = [request for request in large.asked("store") if 0.05 < request.began - refused.began < 1.0]
    assert meanwhile == []


def test_a_server_that_wants_an_hour_is_told_of(large: Published) -> None:
    large.hub.fault(unavailable(503, 3600), server="store")
    with pytest.raises(HubError, match="the server answered HTTP 503; try again later"):
        read(RangeReader(), large.ranges(1))


def test_patience_ends(large: Published, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BACKOFF", tenacity.wait_none())
    large.hub.fault(unavailable(503, None), server="store")
    with pytest.raises(HubError, match=r"waves\.hdf5: the server answered HTTP 503 14 times; try again later"):
        read(RangeReader(), large.ranges(1))
    assert len(large.asked("store")) == 14


def test_patience_ends_for_the_hub_too(large: Published, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BACKOFF", tenacity.wait_none())
    large.hub.fault(unavailable(503, None), server="hub", method="HEAD")
    with pytest.raises(HubError, match="HTTP 503 14 times"):
        read(RangeReader(), large.ranges(1))
    assert len(large.asked("hub", "HEAD")) == 14


def test_nobody_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BACKOFF", tenacity.wait_none())
    with pytest.raises(HubError, match=r"cannot be reached \(.*refused.*\) 14 times; check the network"):
        read(RangeReader(), [ByteRange(f"hf://datasets/somebody/waves@{'a' * 40}/b.h5", 0, 1)])


@pytest.mark.parametrize("after", [0, 1000])
def test_a_connection_that_stalls_is_dropped(large: Published, after: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_DOWNLOAD_TIMEOUT", "0.3")
    large.hub.fault(stalled(after, 20), server="store", times=2)
    began = time.monotonic()
    assert read(RangeReader(), large.ranges(20)) == expected(large, large.ranges(20))
    assert time.monotonic() - began < 5
    assert len(large.asked("store")) == 22


@pytest.mark.parametrize("text", ["soon", "0", "-1", "nan", "inf"])
def test_a_timeout_that_makes_no_sense(large: Published, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_DOWNLOAD_TIMEOUT", text)
    with pytest.raises(ConfigError, match=rf"HF_HUB_DOWNLOAD_TIMEOUT=.{text}. is no time"):
        read(RangeReader(), large.ranges(1))


LASTING: dict[str, tuple[Change, type[WellkitError], str]] = {
    "web page": (html_page, HubError, r"came as a web page \(HTTP 200 with HTML\): a login page"),
    "whole file": (whole_file, HubError, r"with the whole file \(HTTP 200\): it cannot serve ranges; download"),
    "encoded": (with_headers(Content_Encoding="gzip"), HubError, r"came encoded \(gzip\), though that was declined"),
    "refused": (unavailable(400, None), HubError, "the server answered HTTP 400"),
    "other size": (
        with_headers(Content_Range="bytes 0-49999/77"),
        ShardError,
        "has 77 bytes now: the file was replaced",
    ),
    "redirect to nowhere": (leads_to("https://[oops"), HubError, "the server redirects to what is no web address"),
    "redirect to a file": (leads_to("file:///etc/passwd"), HubError, "the server redirects to what is no web address"),
}


@pytest.mark.parametrize("fault", LASTING)
def test_what_lasts_is_told_at_once(large: Published, fault: str) -> None:
    change, kind, message = LASTING[fault]
    large.hub.fault(change, server="store")
    buffer = bytearray(50_000)
    with pytest.raises(kind, match=message) as caught:
        RangeReader().read(large.ranges(1), [memoryview(buffer)])
    assert str(caught.value).startswith(f"{large.at()}: ")
    assert "\n" not in str(caught.value)
    assert len(large.asked("store")) == 1
    assert buffer == bytearray(50_000)  # not a byte was taken


def test_all_of_a_file_may_come_as_a_whole(large: Published) -> None:
    large.hub.fault(whole_file, server="store")
    assert read(RangeReader(), [ByteRange(large.at(), 0, SIZE)]) == [large.content]


# secrets


@pytest.mark.parametrize(
    "fault", ["web page", "whole file", "encoded", "other size", "busy", "truncated", "another range", "forbidden"]
)
@pytest.mark.parametrize("through_session", [False, True])
def test_no_secret_is_told(
    fault: str,
    through_session: bool,
    hub: LoopbackHub,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(module, "BACKOFF", tenacity.wait_none())
    monkeypatch.setattr(sockets, "needs_session", lambda address: through_session)
    caplog.set_level("DEBUG")
    private = publish(hub, tmp_path, token=TOKEN)
    changes = PASSING | {name: change for name, (change, _, _) in LASTING.items()}
    hub.fault(unavailable(403, None) if fault == "forbidden" else changes[fault], server="store")
    with pytest.raises(WellkitError) as caught:
        read(RangeReader({"token": TOKEN}), private.ranges(1))
    told = "".join(traceback.format_exception(caught.value)) + caplog.text + repr(caught.value)
    assert private.asked("store")
    assert SECRET not in told
    assert TOKEN not in told
    assert SECRET in hub.links.sign("/x")  # what was looked for is what links hold


# giving up


def test_one_range_that_fails_stops_the_others(large: Published) -> None:
    large.hub.rate = 20_000  # two seconds and a half a range
    ranges = [*large.ranges(12), ByteRange(large.at("gone.hdf5"), 0, 10), *large.ranges(30)]
    buffers = [bytearray(part.stop - part.start) for part in ranges]
    told: list[int] = []
    began = time.monotonic()
    with pytest.raises(DataNotFoundError, match=r"gone\.hdf5"):
        RangeReader().read(ranges, [memoryview(buffer) for buffer in buffers], told.append)
    assert time.monotonic() - began < 1.0
    assert stays(buffers)
    assert told == []
    large.hub.rate = None
    assert read(RangeReader(), large.ranges(5)) == expected(large, large.ranges(5))


@pytest.mark.parametrize("through_session", [False, True])
@pytest.mark.parametrize("change", [slow(20_000), slow(1e9, latency=3.0), stalled(100, 3.0), unavailable(503, 30)])
def test_an_interrupted_read_ends_at_once(
    large: Published, change: Change, through_session: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sockets, "needs_session", lambda address: through_session)
    large.hub.fault(change, server="store")
    ranges = large.ranges(40)
    buffers = [bytearray(part.stop - part.start) for part in ranges]
    timer = threading.Timer(0.4, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        RangeReader().read(ranges, [memoryview(buffer) for buffer in buffers])
    assert 0.3 < time.monotonic() - began < 1.2
    assert stays(buffers)
    n_asked = len(large.asked("store"))
    time.sleep(0.3)
    assert len(large.asked("store")) == n_asked  # nobody goes on asking
    large.hub.faults.clear()
    assert read(RangeReader(), ranges[:5]) == expected(large, ranges[:5])


def test_what_the_caller_is_told_with_may_fail(large: Published) -> None:
    def done(number: int) -> None:
        if number == 3:
            raise ValueError("no room")

    ranges = large.ranges(20)
    buffers = [bytearray(part.stop - part.start) for part in ranges]
    with pytest.raises(ValueError, match="no room"):
        RangeReader(connections=2).read(ranges, [memoryview(buffer) for buffer in buffers], done)
    assert stays(buffers, 0.2)
    assert len(large.asked("store")) < 20


# other storages


def test_elsewhere_too(large: Published, monkeypatch: pytest.MonkeyPatch) -> None:
    """https:// and its like: the store's own address stands for any."""
    address = large.hub.store_url + large.hub.links.sign(
        f"/objects/{large.repository.commits[large.commit][SHARD].sha256}"
    )
    ranges = [part._replace(location=address) for part in large.ranges(9)]
    changes = in_turn(unavailable(503, 0), truncated(1000, reset=True), truncated(1000), shortened(3))
    large.hub.fault(changes, server="store", every=3)
    assert read(RangeReader(connections=3), ranges) == expected(large, ranges)
    large.hub.faults.clear()
    large.hub.fault(unavailable(503, None), server="store")
    monkeypatch.setattr(module, "BACKOFF", tenacity.wait_none())
    with pytest.raises(HubError, match="HTTP 503 14 times") as caught:
        read(RangeReader(), ranges)
    assert SECRET not in "".join(traceback.format_exception(caught.value))


def test_an_interrupt_elsewhere(large: Published) -> None:
    large.hub.rate = 20_000
    address = large.hub.store_url + large.hub.links.sign(
        f"/objects/{large.repository.commits[large.commit][SHARD].sha256}"
    )
    buffer = bytearray(50_000)
    threading.Timer(0.4, os.kill, (os.getpid(), signal.SIGINT)).start()
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        RangeReader().read([ByteRange(address, 0, 50_000)], [memoryview(buffer)])
    assert time.monotonic() - began < 1.2
    assert stays([buffer])
