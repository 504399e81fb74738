"""What an interrupted transfer left is gone on with, never with another version; two downloads share a folder."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import wellkit
from tests.fetch.failing import fail
from tests.hub.dataset import REPOSITORY, SHARDS, dataset_of, tree_of, write_tree
from tests.hub.faults import Answer, corrupted, slow, stalled, truncated, unavailable, with_headers
from tests.hub.server import LoopbackHub
from wellkit.errors import HubError, IntegrityError
from wellkit.fetch import retries, transfer
from wellkit.fetch.partial import note_path, partial_path
from wellkit.fetch.plan import FileHash, HashKind, RemoteFile

SHARD = "data/train/waves_k_0.hdf5"


def leave(hub: LoopbackHub, to: Path, received: int) -> Path:
    """Begin a download of one shard over a line that breaks for good; returns the partial file."""
    before = retries.ATTEMPTS
    faults = [
        hub.fault(truncated(0), server="store"),
        hub.fault(truncated(received), server="store", times=1),
    ]
    fail(to, HubError, "cannot be reached", splits="train", include="*_0*")
    hub.faults[:] = [fault for fault in hub.faults if fault not in faults]
    hub.requests.clear()
    assert before == retries.ATTEMPTS
    [partial] = to.rglob("*.partial")
    assert partial.stat().st_size == received
    return partial


def ranges(hub: LoopbackHub) -> list[str | None]:
    return [request.headers.get("range") for request in hub.requests if request.server == "store"]


def test_what_is_here_is_not_fetched_again(hub: LoopbackHub, published: Path, tmp_path: Path) -> None:
    leave(hub, tmp_path, 123_456)
    plan = wellkit.download(REPOSITORY, tmp_path, splits="train", include="*_0*", dry_run=True)
    [action] = [action for action in plan.actions if action.file.path == SHARD]
    assert (action.kind.value, action.at_hand, action.remaining) == ("resume", 123_456, 300_000 - 123_456)
    assert "123456 of 300000 bytes are here" in action.reason
    assert plan.remaining == 300_000 - 123_456
    report = wellkit.download(REPOSITORY, tmp_path, splits="train", include="*_0*")
    assert (report.count("resume"), report.count("keep")) == (1, 1)
    assert ranges(hub) == ["bytes=123456-"]
    assert [request.headers.get("if-range") is not None for request in hub.requests if request.server == "store"]
    assert tree_of(report.directory) == {
        path: content for path, content in dataset_of(published).items() if path in (SHARD, "stats.yaml")
    }


def test_a_file_changed_upstream_is_never_spliced(hub: LoopbackHub, published: Path, tmp_path: Path) -> None:
    leave(hub, tmp_path, 200_000)
    newer = write_tree(tmp_path / "newer", seed=5)
    hub.repositories[REPOSITORY].commit(newer)
    report = wellkit.download(REPOSITORY, tmp_path, splits="train", include="*_0*")
    assert ranges(hub) == [None]
    assert (report.directory / SHARD).read_bytes() == (newer / SHARD).read_bytes()
    assert list(report.directory.rglob("*.partial*")) == []


@pytest.mark.parametrize("knows_versions", [True, False])
def test_a_store_that_changes_under_one_address(
    hub: LoopbackHub, published: Path, tmp_path: Path, knows_versions: bool
) -> None:
    """The listing promises what came first; in between the store serves something else, then the promised again."""
    blob = hub.repositories[REPOSITORY].commits[hub.repositories[REPOSITORY].refs["main"]][SHARD]
    other = tmp_path / "other.hdf5"
    other.write_bytes(os.urandom(300_000))
    leave(hub, tmp_path / "to", 200_000)

    def elsewhere(answer: Answer) -> None:
        assert not isinstance(answer.content, bytes)
        _, start, stop = answer.content
        if knows_versions:  # If-Range does not hold: all of it
            answer.status, start = 200, 0
            answer.headers["ETag"] = '"other"'
            answer.headers.pop("Content-Range", None)
        answer.content = (other, start, stop)

    fault = hub.fault(elsewhere, server="store", times=1)
    if knows_versions:
        with pytest.raises(IntegrityError, match="expected sha256"):
            wellkit.download(REPOSITORY, tmp_path / "to", splits="train", include="*_0*")
        assert list((tmp_path / "to").rglob("*.hdf5")) == []
    report = wellkit.download(REPOSITORY, tmp_path / "to", splits="train", include="*_0*")
    assert fault.times == 0
    assert hashlib.sha256((report.directory / SHARD).read_bytes()).hexdigest() == blob.sha256
    assert ranges(hub)[-1] is None  # from the first byte


def test_another_version_in_a_range_is_refused(hub: LoopbackHub, published: Path, tmp_path: Path) -> None:
    leave(hub, tmp_path, 50_000)
    hub.fault(with_headers(ETag='"another"'), server="store", times=1)
    report = wellkit.download(REPOSITORY, tmp_path, splits="train", include="*_0*")
    assert ranges(hub) == ["bytes=50000-", None]
    assert (report.directory / SHARD).read_bytes() == (published / SHARD).read_bytes()


def test_a_damaged_beginning_is_found_and_fetched_anew(hub: LoopbackHub, published: Path, tmp_path: Path) -> None:
    partial = leave(hub, tmp_path, 150_000)
    content = bytearray(partial.read_bytes())
    content[77] ^= 4
    partial.write_bytes(content)
    report = wellkit.download(REPOSITORY, tmp_path, splits="train", include="*_0*")
    assert ranges(hub) == ["bytes=150000-", None]
    assert (report.directory / SHARD).read_bytes() == (published / SHARD).read_bytes()


@pytest.mark.parametrize("damage", ["no note", "note of another", "too long", "no json"])
def test_a_beginning_that_is_not_of_this_file_is_not_used(
    hub: LoopbackHub, published: Path, tmp_path: Path, damage: str
) -> None:
    partial = leave(hub, tmp_path, 150_000)
    note = note_path(partial)
    if damage == "no note":
        note.unlink()
    elif damage == "note of another":
        note.write_text(note.read_text().replace('"size": 300000', '"size": 300001'))
    elif damage == "too long":
        partial.write_bytes(bytes(300_001))
    else:
        note.write_text("{")
    assert wellkit.download(REPOSITORY, tmp_path, splits="train", include="*_0*", dry_run=True).count("resume") == 0
    report = wellkit.download(REPOSITORY, tmp_path, splits="train", include="*_0*")
    assert ranges(hub) == [None]
    assert (report.directory / SHARD).read_bytes() == (published / SHARD).read_bytes()


def test_all_bytes_here_need_no_request(hub: LoopbackHub, published: Path, tmp_path: Path) -> None:
    partial = leave(hub, tmp_path, 150_000)
    partial.write_bytes((published / SHARD).read_bytes())
    report = wellkit.download(REPOSITORY, tmp_path, splits="train", include="*_0*")
    assert ranges(hub) == []
    assert (report.directory / SHARD).read_bytes() == (published / SHARD).read_bytes()


def test_breaks_that_each_bring_something_end_in_the_whole_file(
    hub: LoopbackHub, published: Path, tmp_path: Path
) -> None:
    hub.fault(truncated(20_000), server="store")  # every answer; more often than one may try without progress
    report = wellkit.download(REPOSITORY, tmp_path)
    assert tree_of(report.directory) == dataset_of(published)
    assert len(ranges(hub)) > 15 + retries.ATTEMPTS


def test_a_line_that_stalls_is_given_up_and_gone_on_with(
    hub: LoopbackHub, published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_DOWNLOAD_TIMEOUT", "0.3")
    hub.fault(stalled(100_000, 5.0), server="store", times=1)
    report = wellkit.download(REPOSITORY, tmp_path, splits="train", include="*_0*")
    assert ranges(hub) == [None, "bytes=100000-"]
    assert (report.directory / SHARD).read_bytes() == (published / SHARD).read_bytes()


def test_a_line_that_trickles_is_given_up_too(
    hub: LoopbackHub, published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "WATCH", 0.2)
    hub.fault(slow(20_000), server="store", times=1)
    report = wellkit.download(REPOSITORY, tmp_path, splits="train", include="*_0*")
    first, second = ranges(hub)
    assert first is None
    assert second is not None
    assert second.startswith("bytes=")
    assert (report.directory / SHARD).read_bytes() == (published / SHARD).read_bytes()


def test_a_busy_server_that_refuses_a_range(hub: LoopbackHub, published: Path, tmp_path: Path) -> None:
    leave(hub, tmp_path, 50_000)
    hub.fault(unavailable(416, None), server="store", times=1)
    report = wellkit.download(REPOSITORY, tmp_path, splits="train", include="*_0*")
    assert ranges(hub) == ["bytes=50000-", None]
    assert (report.directory / SHARD).read_bytes() == (published / SHARD).read_bytes()


def test_what_is_kept_in_xet_alone_comes_by_the_clients_own_way(
    hub: LoopbackHub, published: Path, tmp_path: Path
) -> None:
    def xet_only(answer: Answer) -> None:
        if answer.status == 302:
            answer.status, answer.content = 200, b""
            del answer.headers["Location"]
            answer.headers["X-Xet-Hash"] = "0" * 64

    fault = hub.fault(xet_only, path=f"/resolve/.*{SHARD}", times=1)
    report = wellkit.download(REPOSITORY, tmp_path, splits="train", include="*_0*", jobs=1)
    assert fault.times is not None
    [action] = [action for action in report.actions if action.file.path == SHARD]
    assert "by huggingface_hub's own client" in action.reason
    assert "kept in Xet" in action.reason
    assert sorted(tree_of(report.directory)) == [SHARD, "stats.yaml"]
    assert (report.directory / SHARD).read_bytes() == (published / SHARD).read_bytes()


def test_the_clients_way_is_checked_as_well(hub: LoopbackHub, published: Path, tmp_path: Path) -> None:
    def no_bridge(answer: Answer) -> None:
        if answer.status == 302:
            answer.headers["X-Xet-Hash"] = "0" * 64

    hub.fault(no_bridge, path=f"/resolve/.*{SHARD}", times=1)
    hub.fault(unavailable(404), server="store", times=1)
    hub.fault(corrupted(9), server="store")
    fail(tmp_path, IntegrityError, "expected sha256", splits="train", include="*_0*")
    assert list(tmp_path.rglob("*.hdf5")) == []


COMMAND = [sys.executable, "-c", "from wellkit.cli.app import main; main()", "download", REPOSITORY, "--format", "json"]


def test_two_processes_fill_one_folder(hub: LoopbackHub, published: Path, tmp_path: Path) -> None:
    hub.rate = 400_000
    command = [*COMMAND, "--to", str(tmp_path), "--jobs", "3"]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    results = [process.communicate(timeout=100) for process in both]
    assert [process.returncode for process in both] == [0, 0], results
    assert tree_of(tmp_path / "small_waves") == dataset_of(published)
    assert os.listdir(tmp_path / "small_waves/.wellkit") == ["manifest.json"]
    manifest = json.loads((tmp_path / "small_waves/.wellkit/manifest.json").read_text())
    assert len(manifest["files"]) == SHARDS + 1
    assert len([request for request in hub.fetches() if request.server == "store"]) == SHARDS  # each file once


def test_two_downloads_of_different_parts(hub: LoopbackHub, published: Path, tmp_path: Path) -> None:
    hub.rate = 1_000_000
    failures: list[BaseException] = []

    def work(split: str) -> None:
        try:
            wellkit.download(REPOSITORY, tmp_path, splits=split)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(split,)) for split in ("train", "valid", "test")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert tree_of(tmp_path / "small_waves") == dataset_of(published)
    assert wellkit.download(REPOSITORY, tmp_path, dry_run=True).count("keep") == SHARDS + 1


def test_leftovers_of_other_versions_are_removed_and_useful_ones_kept(
    hub: LoopbackHub, published: Path, tmp_path: Path
) -> None:
    useful = leave(hub, tmp_path, 60_000)
    folder = useful.parent
    stale = RemoteFile(SHARD, 5, FileHash(HashKind.sha256, "0" * 64))
    old = partial_path(tmp_path / "small_waves" / SHARD, stale)
    for path in (old, note_path(old), note_path(old).with_name(f"{old.name}.json.1-2.new")):
        path.write_text("left")
    old.with_name(f"{old.name}.xet").mkdir()
    mine = folder / "my.notes.partial"
    mine.write_text("mine")
    wellkit.download(REPOSITORY, tmp_path, splits="test")
    assert sorted(path.name for path in folder.iterdir()) == sorted([useful.name, note_path(useful).name, mine.name])
    wellkit.download(REPOSITORY, tmp_path)
    assert sorted(path.name for path in folder.iterdir() if "partial" in path.name) == [mine.name]
