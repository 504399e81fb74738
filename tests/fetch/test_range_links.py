"""Byte ranges behind redirects: links that end, links that lead nowhere, and files that change behind them."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from tests.fetch.ranged import REPOSITORY, SHARD, SIZE, Published, expected, read
from tests.hub.faults import leads_to, unavailable, with_headers
from wellkit.errors import HubError, ShardError
from wellkit.fetch import sockets
from wellkit.fetch.hub import HubSource
from wellkit.fetch.ranges import RangeReader

# links that end


@pytest.mark.parametrize("style", ["s3", "cdn"])
def test_links_are_renewed_before_they_end(large: Published, style: Any) -> None:
    large.hub.links.style, large.hub.links.life = style, 3
    reader = RangeReader()
    end = time.monotonic() + 7
    while time.monotonic() < end:
        assert read(reader, large.ranges(4, 100)) == expected(large, large.ranges(4, 100))
        time.sleep(0.1)
    assert {request.status for request in large.asked("store")} == {206}
    assert 3 <= len(large.asked("hub", "HEAD")) <= 8


def test_a_link_that_is_no_longer_taken_is_asked_for_again_once(large: Published) -> None:
    large.hub.latency = 0.02
    reader = RangeReader()
    read(reader, large.ranges(16))
    large.hub.links.revoke()
    assert read(reader, large.ranges(48)) == expected(large, large.ranges(48))
    assert len(large.asked("hub", "HEAD")) == 2
    assert sum(request.status == 403 for request in large.asked("store")) <= 16


def test_a_store_that_refuses_new_links_too(large: Published) -> None:
    large.hub.fault(unavailable(403, None), server="store")
    with pytest.raises(HubError, match=r"access refused \(HTTP 403\)"):
        read(RangeReader(), large.ranges(1))
    assert (len(large.asked("store")), len(large.asked("hub", "HEAD"))) == (2, 2)


@pytest.mark.parametrize("through_session", [False, True])
def test_a_store_that_moves_is_asked_for_again(
    large: Published, through_session: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sockets, "needs_session", lambda address: through_session)
    reader = RangeReader()
    read(reader, large.ranges(4))
    large.hub.move_store()
    assert read(reader, large.ranges(8)) == expected(large, large.ranges(8))
    assert len(large.asked("hub", "HEAD")) == 2


def test_the_servers_clock_counts(large: Published, monkeypatch: pytest.MonkeyPatch) -> None:
    """A link is good as long as the server says, whatever this machine takes for the time."""
    now = time.time
    monkeypatch.setattr("wellkit.fetch.links.time.time", lambda: now() + 90_000)
    reader = RangeReader()
    for _ in range(5):
        read(reader, large.ranges(3))
    assert len(large.asked("hub", "HEAD")) == 1


# files that change


def test_a_file_replaced_at_the_hub(large: Published, tmp_path: Path) -> None:
    reader = RangeReader()
    read(reader, large.ranges(3))
    other = tmp_path / "other"
    other.write_bytes(bytes(SIZE))
    large.repository.replace(SHARD, other)
    with pytest.raises(ShardError, match="has another hash now: the file was replaced while it was read; open the"):
        read(reader, large.ranges(3))


def test_a_file_replaced_at_the_store(large: Published) -> None:
    reader = RangeReader()
    read(reader, large.ranges(3))
    large.hub.fault(with_headers(ETag='"other"'), server="store")
    with pytest.raises(ShardError, match="has another ETag now: the file was replaced"):
        read(reader, large.ranges(3))


def test_a_file_cut_off_at_the_store(large: Published) -> None:
    reader = RangeReader()
    read(reader, large.ranges(1))
    with (large.folder / SHARD).open("r+b") as file:
        file.truncate(1000)
    with pytest.raises(ShardError, match="has 1000 bytes now: the file was replaced"):
        read(reader, large.ranges(3))


def test_a_branch_may_move_for_who_begins_anew(large: Published, tmp_path: Path) -> None:
    branch = [part._replace(location=large.at(revision="main")) for part in large.ranges(3)]
    reader = RangeReader()
    assert read(reader, branch) == expected(large, branch)
    (tmp_path / "data" / "train").mkdir(parents=True)
    (tmp_path / SHARD).write_bytes(bytes(SIZE))
    large.repository.commit(tmp_path)
    assert read(RangeReader(), branch) == [bytes(50_000)] * 3
    large.hub.links.revoke()
    with pytest.raises(ShardError, match="has another hash now"):
        read(reader, branch)


# redirects


@pytest.mark.parametrize("server", ["hub", "store"])
def test_redirects_in_a_circle(large: Published, server: str) -> None:
    place = f"/datasets/{REPOSITORY}/resolve/{large.commit}/{SHARD}" if server == "hub" else "?again"
    large.hub.fault(leads_to(place), server=server, method="HEAD" if server == "hub" else "GET")
    with pytest.raises(HubError, match=r"waves\.hdf5: redirected more than 10 times; check HF_ENDPOINT$"):
        read(RangeReader(), large.ranges(1))
    assert len(large.hub.requests) <= 12


@pytest.mark.parametrize("target", ["https://[oops", "file:///etc/passwd", "https:///", "ftp://127.0.0.1/a"])
def test_whole_files_are_not_fetched_from_anywhere_either(large: Published, target: str) -> None:
    large.hub.fault(leads_to(target), server="hub", path="/resolve/")
    source = HubSource(REPOSITORY)
    with pytest.raises(HubError, match=r"waves\.hdf5 from .*: the server redirects to what is no web address"):
        source.read(SHARD, "main")
    file = next(file for file in source.snapshot("main").files if file.path == SHARD)
    with (
        pytest.raises(HubError, match=r"waves\.hdf5 from .*: the server redirects to what is no web address"),
        source.stream(file),
    ):
        pytest.fail("nothing can have come")
    assert large.asked("store") == []
