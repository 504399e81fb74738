"""`wellkit.download` against a Hub over real sockets: what arrives, what is kept, what is found out."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

import wellkit
from tests.fetch.failing import fail
from tests.hub.dataset import REPOSITORY, SHARDS, dataset_of, tree_of, write_tree
from tests.hub.faults import corrupted, html_page, shortened, truncated, unannounced, unavailable
from tests.hub.server import LoopbackHub
from wellkit.errors import (
    HubError,
    IntegrityError,
    WellkitWarning,
)
from wellkit.fetch.plan import RemoteFile
from wellkit.fetch.retries import ATTEMPTS


def test_the_whole_tree_arrives_byte_for_byte(hub: LoopbackHub, published: Path, tmp_path: Path) -> None:
    hub.page_size = 3  # so that the listing has several pages
    report = wellkit.download(REPOSITORY, tmp_path / "to")
    assert report.directory == tmp_path / "to" / "small_waves"
    assert tree_of(report.directory) == dataset_of(published)
    assert report.commit == hub.repositories[REPOSITORY].refs["main"]
    assert (report.count(), report.count("fetch"), report.count("keep")) == (SHARDS + 1, SHARDS + 1, 0)
    assert report.size() == sum(len(content) for content in dataset_of(published).values())


def test_the_default_base_is_the_data_directory(published: Path, isolated: Path) -> None:
    assert wellkit.download(REPOSITORY).directory == isolated / "data" / "small_waves"


def test_a_rerun_fetches_nothing(hub: LoopbackHub, published: Path, tmp_path: Path) -> None:
    wellkit.download(REPOSITORY, tmp_path)
    hub.requests.clear()
    report = wellkit.download(REPOSITORY, tmp_path)
    assert (report.count("keep"), report.count("fetch", "check", "replace")) == (SHARDS + 1, 0)
    assert hub.fetches() == []
    assert all(action.reason == "verified before" for action in report.actions)


def test_right_files_without_a_record_are_hashed_and_kept(hub: LoopbackHub, published: Path, tmp_path: Path) -> None:
    shutil.copytree(published, tmp_path / "small_waves")
    assert wellkit.download(REPOSITORY, tmp_path, dry_run=True).count("check") == SHARDS + 1
    report = wellkit.download(REPOSITORY, tmp_path)
    assert hub.fetches() == []
    assert {action.reason for action in report.actions} == {"checked: its hash is right"}
    assert wellkit.download(REPOSITORY, tmp_path, dry_run=True).count("keep") == SHARDS + 1


def test_a_file_of_the_right_size_is_never_trusted(hub: LoopbackHub, published: Path, tmp_path: Path) -> None:
    report = wellkit.download(REPOSITORY, tmp_path)
    victim = report.directory / "data/train/waves_k_1.hdf5"
    content = bytearray(victim.read_bytes())
    content[1234] ^= 1
    victim.write_bytes(content)
    os.utime(victim, ns=(1, 1))  # whatever its age says
    hub.requests.clear()
    report = wellkit.download(REPOSITORY, tmp_path)
    assert [action.file.path for action in report.actions if action.kind.value == "replace"] == [
        "data/train/waves_k_1.hdf5"
    ]
    assert len(hub.fetches()) == 1
    assert tree_of(report.directory) == dataset_of(published)


def test_a_users_file_stays_until_its_replacement_is_verified(
    hub: LoopbackHub, published: Path, tmp_path: Path
) -> None:
    own = tmp_path / "small_waves" / "data" / "train" / "waves_k_0.hdf5"
    own.parent.mkdir(parents=True)
    own.write_bytes(b"my own simulation")
    fault = hub.fault(corrupted(77), server="store")
    fail(tmp_path, IntegrityError, "sha256", include="waves_k_0*", splits="train")
    assert own.read_bytes() == b"my own simulation"
    hub.faults.remove(fault)
    wellkit.download(REPOSITORY, tmp_path)
    assert own.read_bytes() == (published / "data/train/waves_k_0.hdf5").read_bytes()


def test_a_new_commit_replaces_what_changed(
    hub: LoopbackHub, published: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    first = wellkit.download(REPOSITORY, tmp_path)
    newer = write_tree(tmp_path_factory.mktemp("newer"), seed=1)
    shutil.copy(published / "data/test/waves_k_0.hdf5", newer / "data/test/waves_k_0.hdf5")
    hub.repositories[REPOSITORY].commit(newer)
    report = wellkit.download(REPOSITORY, tmp_path)
    assert (report.count("replace"), report.count("keep")) == (SHARDS, 1)
    assert tree_of(report.directory) == dataset_of(newer)
    old = wellkit.download(REPOSITORY, tmp_path, revision=first.commit)
    assert old.commit == first.commit
    assert tree_of(old.directory) == dataset_of(published)


def test_filters_choose_files(published: Path, tmp_path: Path) -> None:
    def names(**options: object) -> list[str]:
        report = wellkit.download(REPOSITORY, tmp_path, dry_run=True, **options)  # type: ignore[arg-type]
        return [action.file.path.removeprefix("data/") for action in report.actions]

    assert names(splits=["test"]) == ["stats.yaml", "test/waves_k_0.hdf5"]
    assert names(include="*_k_1*") == ["stats.yaml", "train/waves_k_1.hdf5", "valid/waves_k_1.hdf5"]
    assert names(exclude=["train/*", "*_1.hdf5"]) == ["stats.yaml", "test/waves_k_0.hdf5", "valid/waves_k_0.hdf5"]
    assert names(max_files=1, splits="train") == ["stats.yaml", "train/waves_k_0.hdf5"]
    report = wellkit.download(REPOSITORY, tmp_path, splits=["valid"], max_files=1)
    assert sorted(tree_of(report.directory)) == ["data/valid/waves_k_0.hdf5", "stats.yaml"]


def test_a_dry_run_writes_nothing(hub: LoopbackHub, published: Path, tmp_path: Path) -> None:
    target = tmp_path / "to"
    report = wellkit.download(REPOSITORY, target, dry_run=True)
    assert report.dry_run
    assert report.to_mapping()["totals"]["fetch"] == {"files": SHARDS + 1, "bytes": report.size()}
    assert not target.exists()
    assert hub.fetches() == []
    json.dumps(report.to_mapping())


def test_a_byte_altered_on_the_way_is_found(hub: LoopbackHub, published: Path, tmp_path: Path) -> None:
    hub.fault(corrupted(150_000), path=r"/objects/", server="store")
    error = fail(tmp_path, IntegrityError, r"waves_k_0\.hdf5 from .*: expected sha256 [0-9a-f]{64}, found [0-9a-f]{64}")
    assert "likely causes" in str(error)
    assert not list(tmp_path.rglob("*.hdf5"))[1:]  # test/waves_k_0 is shorter than the offset and arrived whole


def test_an_altered_small_file_is_found(hub: LoopbackHub, published: Path, tmp_path: Path) -> None:
    hub.fault(corrupted(3), path="stats.yaml")
    fail(tmp_path, IntegrityError, "stats.yaml from .*expected git-blob-sha1")
    assert not list(tmp_path.rglob("stats.yaml"))


def test_broken_connections_are_ridden_out(hub: LoopbackHub, published: Path, tmp_path: Path) -> None:
    hub.fault(truncated(40_000), server="store", times=2)
    hub.fault(truncated(10_000, reset=True), server="store", every=3, times=2)
    report = wellkit.download(REPOSITORY, tmp_path)
    assert tree_of(report.directory) == dataset_of(published)


def test_a_connection_that_always_breaks_is_an_error(hub: LoopbackHub, published: Path, tmp_path: Path) -> None:
    hub.fault(truncated(0), server="store", path=".", times=None)
    fail(tmp_path, HubError, rf"waves_k_0\.hdf5 from .*cannot be reached.* {ATTEMPTS} times; check the network")
    assert len(hub.fetches()) == 1  # the statistics


def test_a_body_of_the_wrong_length_is_never_saved(hub: LoopbackHub, published: Path, tmp_path: Path) -> None:
    hub.fault(shortened(1), server="store")
    fail(tmp_path, IntegrityError, "expected 90000 bytes, found 89999 bytes announced")
    assert not list(tmp_path.rglob("*.hdf5"))


def test_a_body_without_a_length_is_counted(hub: LoopbackHub, published: Path, tmp_path: Path) -> None:
    fault = hub.fault(unannounced(b"x" * 89_999), server="store")
    fail(tmp_path, IntegrityError, "expected 90000 bytes, found 89999 bytes;")
    fault.change = unannounced(b"x" * 50_000_000)
    fail(tmp_path, IntegrityError, "expected 90000 bytes, found more than that")
    assert max(request.sent for request in hub.fetches()) < 20_000_000  # the disk is not filled with it


@pytest.mark.parametrize("server", ["hub", "store"])
def test_a_web_page_instead_of_a_file_is_never_saved(
    hub: LoopbackHub, published: Path, tmp_path: Path, server: str
) -> None:
    hub.fault(html_page, server=server, path="/resolve/|/objects/")
    fail(tmp_path, IntegrityError, "found a web page", include="train/waves_k_0*")
    assert not list(tmp_path.rglob("*.hdf5"))


def test_a_storm_of_503_is_ridden_out(hub: LoopbackHub, published: Path, tmp_path: Path) -> None:
    fault = hub.fault(unavailable(503, retry_after=0), every=2)
    report = wellkit.download(REPOSITORY, tmp_path / "one", jobs=1)
    assert tree_of(report.directory) == dataset_of(published)
    assert sum(request.status == 503 for request in hub.requests) >= SHARDS
    fault.every = 3
    report = wellkit.download(REPOSITORY, tmp_path / "many")
    assert tree_of(report.directory) == dataset_of(published)


def test_retry_after_is_obeyed_and_never_for_an_hour(
    hub: LoopbackHub, published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    monkeypatch.setattr("tenacity.nap.time.sleep", waits.append)
    fault = hub.fault(unavailable(429, retry_after=7), path="/tree/", times=2)
    wellkit.download(REPOSITORY, tmp_path, dry_run=True)
    assert waits == [7, 7]
    hub.faults.remove(fault)
    hub.fault(unavailable(503, retry_after=3600), path="/tree/")
    fail(tmp_path, HubError, "HTTP 503")
    assert waits == [7, 7]


def test_a_card_that_differs_warns_once_and_refuses_nothing(hub: LoopbackHub, published: Path, tmp_path: Path) -> None:
    name = "turbulent_radiative_layer_2D"
    hub.add(f"polymathic-ai/{name}", published)
    with pytest.warns(WellkitWarning, match=r"3 train files instead of 9.*commit .* instead of") as caught:
        report = wellkit.download(name, tmp_path)
    assert len(caught) == 1
    assert report.count("fetch") == SHARDS + 1
    assert report.in_catalog


def test_shards_of_elsewhere_are_told_of_and_left_alone(published: Path, tmp_path: Path) -> None:
    stranger = tmp_path / "small_waves/data/train/mine.hdf5"
    stranger.parent.mkdir(parents=True)
    stranger.write_bytes(b"mine")
    with pytest.warns(WellkitWarning, match=r"1 shards that are not in .*data/train/mine\.hdf5.*left alone"):
        wellkit.download(REPOSITORY, tmp_path)
    assert stranger.read_bytes() == b"mine"


def test_what_an_interrupted_download_left_is_removed(published: Path, tmp_path: Path) -> None:
    left = tmp_path / "small_waves/data/valid/waves_k_1.hdf5.0123456789ab.partial"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half a file")
    wellkit.download(REPOSITORY, tmp_path)
    assert not left.exists()


def test_progress_adds_up_even_when_attempts_fail(hub: LoopbackHub, published: Path, tmp_path: Path) -> None:
    class Sum:
        planned_bytes = 0
        under_way = 0

        def __init__(self) -> None:
            self.bytes: dict[str, int] = {}

        def planned(self, n_files: int, n_bytes: int) -> None:
            self.planned_bytes += n_bytes

        def started(self, file: RemoteFile) -> None:
            self.bytes[file.path] = 0

        def advanced(self, file: RemoteFile, n_bytes: int) -> None:
            self.bytes[file.path] += n_bytes

        def finished(self, file: RemoteFile) -> None:
            self.under_way += 1

    hub.fault(truncated(30_000), server="store", every=2, times=3)
    progress = Sum()
    report = wellkit.download(REPOSITORY, tmp_path, progress=progress)
    assert progress.bytes == {action.file.path: action.file.size for action in report.actions}
    assert progress.planned_bytes == report.size()
    assert progress.under_way == SHARDS + 1


def test_the_first_failure_stops_the_rest_and_what_is_whole_is_kept(
    hub: LoopbackHub, published: Path, tmp_path: Path
) -> None:
    sha = hub.repositories[REPOSITORY].commits[hub.repositories[REPOSITORY].refs["main"]]
    bad = sha["data/train/waves_k_1.hdf5"].sha256
    fault = hub.fault(corrupted(5), path=f"/objects/{bad}")
    fail(tmp_path, IntegrityError, "waves_k_1.hdf5")
    whole = {path for path in tree_of(tmp_path / "small_waves") if path.endswith(".hdf5")}
    assert whole == {"data/test/waves_k_0.hdf5", "data/train/waves_k_0.hdf5"}  # one job, in order of path
    hub.faults.remove(fault)
    report = wellkit.download(REPOSITORY, tmp_path)
    assert (report.count("keep"), report.count("fetch")) == (3, SHARDS - 2)
