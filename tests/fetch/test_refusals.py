"""What `wellkit.download` refuses, each in one line: hostile listings, unusable targets, no network, wrong names."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest

import wellkit
from tests.catalog.builders import write_card
from tests.fetch.failing import fail
from tests.hub.dataset import REPOSITORY, SHARDS, dataset_of, tree_of
from tests.hub.faults import Answer, html_page, truncated, unavailable
from tests.hub.server import LoopbackHub
from wellkit.errors import (
    ArgumentError,
    DataNotFoundError,
    DocumentVersionError,
    HubError,
    IntegrityError,
    StorageError,
    UnknownDatasetError,
    WellkitWarning,
)
from wellkit.fetch.disk import telling


@pytest.mark.parametrize("path", ["../evil.hdf5", "/tmp/evil.hdf5", "data/train/../../../evil.hdf5", "data\\evil.hdf5"])
def test_a_hostile_listing_is_refused(hub: LoopbackHub, published: Path, tmp_path: Path, path: str) -> None:
    entry = {"type": "file", "oid": "0" * 40, "size": 1, "path": path}
    hub.repositories[REPOSITORY].extra_entries.append(entry)
    fail(tmp_path / "to", IntegrityError, "unsafe path")
    assert not (tmp_path / "to").exists()
    assert hub.fetches() == []


@pytest.mark.parametrize(
    "entry",
    [
        {"type": "file", "oid": "0" * 40, "size": -1, "path": "data/train/x.hdf5"},
        {"type": "file", "oid": "short", "size": 1, "path": "data/train/x.hdf5"},
        {"type": "file", "oid": "0" * 40, "size": 1, "path": "data/train/x.hdf5", "lfs": {"oid": "0" * 64}},
    ],
)
def test_a_listing_without_size_or_hash_is_refused(
    hub: LoopbackHub, published: Path, tmp_path: Path, entry: dict[str, object]
) -> None:
    hub.repositories[REPOSITORY].extra_entries.append(entry)
    fail(tmp_path, HubError, "no usable size and hash for data/train/x.hdf5")


@pytest.mark.parametrize("dry_run", [False, True])
def test_published_files_never_mix_with_generated_ones(published: Path, tmp_path: Path, dry_run: bool) -> None:
    write_card(tmp_path / "small_waves" / "card.yaml", generator={"name": "wellkit.generation:waves", "version": "1"})
    fail(tmp_path, StorageError, "small_waves holds data that wellkit generated.*another target", dry_run=dry_run)
    write_card(tmp_path / "small_waves" / "card.yaml")  # a card of one's own is no reason to refuse
    assert wellkit.download(REPOSITORY, tmp_path, dry_run=dry_run).count("fetch") == SHARDS + 1


@pytest.mark.parametrize("path", ["/revision/", "/tree/"])
@pytest.mark.parametrize("content", [None, b"[]", b"{}", b"null", b'["text"]', b"{"])
def test_answers_that_are_not_the_hubs(
    hub: LoopbackHub, published: Path, tmp_path: Path, path: str, content: bytes | None
) -> None:
    def change(answer: Answer) -> None:
        if content is None:
            html_page(answer)
        else:
            answer.content = content

    hub.fault(change, path=path)
    if (path, content) == ("/tree/", b"[]"):
        fail(tmp_path, DataNotFoundError, "Well's layout")
    else:
        fail(tmp_path, HubError, "check HF_ENDPOINT")


def test_an_unwritable_target(published: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    fail(tmp_path / "file" / "to", StorageError, "cannot write .*a part of the path is a file")


@pytest.mark.parametrize(
    ("number", "told"),
    [
        (errno.ENOSPC, "the disk is full; free space there or choose another target folder"),
        (errno.EDQUOT, "the disk quota is used up; free space there"),
        (errno.EROFS, "the file system is read-only; choose another"),
        (errno.EACCES, "permission denied"),
    ],
)
def test_what_the_disk_refuses_is_told_in_one_line(number: int, told: str) -> None:
    with pytest.raises(StorageError, match=rf"cannot write /to/file: {told}") as caught, telling(Path("/to/file")):
        raise OSError(number, os.strerror(number))
    assert "\n" not in str(caught.value)


def test_a_folder_in_the_way(published: Path, tmp_path: Path) -> None:
    (tmp_path / "small_waves/data/train/waves_k_0.hdf5").mkdir(parents=True)
    fail(tmp_path, StorageError, "is in the way")


def test_too_little_free_space_is_told_before_the_first_byte(
    hub: LoopbackHub, published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed = wellkit.download(REPOSITORY, tmp_path, dry_run=True).size()
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=int(needed * 1.005)))
    fail(
        tmp_path / "to",
        StorageError,
        r"855\.\d kB are to be downloaded and 859\.\d kB are free.*small_waves --to OTHER",
    )
    assert not (tmp_path / "to").exists()
    assert hub.fetches() == []


def test_no_network(tmp_path: Path) -> None:
    fail(tmp_path / "to", HubError, "127.0.0.1:9.*cannot be reached.*check the network")
    assert not (tmp_path / "to").exists()


def test_offline_is_said_and_nothing_is_asked(
    hub: LoopbackHub, published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    fail(tmp_path, HubError, "HF_HUB_OFFLINE is set")
    assert hub.requests == []


def test_names_that_nobody_knows(hub: LoopbackHub, tmp_path: Path) -> None:
    with pytest.raises(UnknownDatasetError, match="turbulent_radiative_layer_2D"):
        wellkit.download("turbulent_radiative_layr_2D", tmp_path)
    with pytest.raises(DataNotFoundError, match="nobody/nothing: the Hub knows no such dataset"):
        wellkit.download("nobody/nothing", tmp_path)
    for name in ("../../etc", "a/..", "a/b/c", "/absolute", "a/"):
        with pytest.raises(ArgumentError, match="write NAME or OWNER/NAME"):
            wellkit.download(name, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_arguments_that_make_no_sense(hub: LoopbackHub, published: Path, tmp_path: Path) -> None:
    fail(tmp_path, ArgumentError, "unknown split 'tests'.*Did you mean test", splits=["tests"])
    fail(tmp_path, ArgumentError, "'k is 1' is no condition; write for example tcool=0.1", where="k is 1")
    fail(tmp_path, ArgumentError, "no mirror of small_waves is known", source="mirror")
    fail(tmp_path, ArgumentError, "source='ftp' is unknown", source="ftp")
    fail(tmp_path, DataNotFoundError, "no revision 'v9'", revision="v9")
    with pytest.raises(ArgumentError, match="jobs=0"):
        wellkit.download(REPOSITORY, tmp_path, jobs=0)
    assert hub.fetches() == []


def test_the_token_goes_to_the_hub_and_nowhere_else(
    hub: LoopbackHub,
    published: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    token = "hf_averysecrettokenofthistest"
    hub.repositories[REPOSITORY].token = token
    hub.page_size = 4
    fail(tmp_path / "without", DataNotFoundError, "if it is private, log in")
    hub.requests.clear()
    monkeypatch.setenv("HF_TOKEN", token)
    wellkit.download(REPOSITORY, tmp_path / "with")
    seen = {name: [r for r in hub.requests if r.server == name and "agent" not in r.path] for name in ("hub", "store")}
    assert all(request.headers.get("authorization") == f"Bearer {token}" for request in seen["hub"])
    assert len(seen["store"]) == SHARDS
    assert not any(token in str(request.headers) for request in seen["store"])
    written = "".join(path.read_text(errors="ignore") for path in (tmp_path / "with").rglob("*.json"))
    assert token not in written + "".join(capfd.readouterr())


def test_a_next_page_elsewhere_never_sees_the_token(
    hub: LoopbackHub, published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_averysecrettokenofthistest")
    hub.page_size = 4

    def elsewhere(answer: object) -> None:
        headers = answer.headers  # type: ignore[attr-defined]
        if "Link" in headers:
            headers["Link"] = headers["Link"].replace(hub.url, hub.store_url)

    hub.fault(elsewhere, path="/tree/")
    assert wellkit.download(REPOSITORY, tmp_path, dry_run=True).count() == SHARDS + 1
    assert [request for request in hub.requests if request.server == "store"] == []


def test_a_folder_of_another_repository_is_refused(hub: LoopbackHub, published: Path, tmp_path: Path) -> None:
    wellkit.download(REPOSITORY, tmp_path)
    hub.add("another/small_waves", published)
    with pytest.raises(StorageError, match="holds files of somebody/small_waves, not of another/small_waves"):
        wellkit.download("another/small_waves", tmp_path)


def test_a_damaged_record_costs_a_check_and_a_newer_one_is_refused(
    hub: LoopbackHub, published: Path, tmp_path: Path
) -> None:
    report = wellkit.download(REPOSITORY, tmp_path)
    record = report.directory / ".wellkit" / "manifest.json"
    record.write_text("{ not json")
    hub.requests.clear()
    with pytest.warns(WellkitWarning, match="checked again"):
        report = wellkit.download(REPOSITORY, tmp_path)
    assert (report.count("keep"), len(hub.fetches())) == (SHARDS + 1, 0)
    record.write_text(record.read_text().replace("wellkit/manifest/1", "wellkit/manifest/2"))
    fail(tmp_path, DocumentVersionError, "upgrade wellkit")


def test_a_hundred_thousand_entries(hub: LoopbackHub, published: Path, tmp_path: Path) -> None:
    hub.page_size = 20_000
    hub.repositories[REPOSITORY].extra_entries += [
        {"type": "file", "oid": "0" * 40, "size": 1, "path": f"pictures/{number}.png"} for number in range(100_000)
    ]
    report = wellkit.download(REPOSITORY, tmp_path)
    assert report.count("fetch") == SHARDS + 1
    entry = {"type": "file", "oid": "0" * 40, "size": 1, "path": "pictures/../../evil.hdf5"}
    hub.repositories[REPOSITORY].extra_entries.append(entry)
    fail(tmp_path, IntegrityError, "unsafe path")


def test_more_than_100_gb_has_to_be_confirmed(
    hub: LoopbackHub, published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = {"type": "file", "oid": "0" * 40, "size": 1, "path": "data/valid/huge.hdf5"}
    hub.repositories[REPOSITORY].extra_entries.append(entry | {"lfs": {"oid": "1" * 64, "size": 2 * 10**11}})
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=10**12))
    fail(tmp_path, ArgumentError, r"200\.0 GB are to be downloaded, more than 100.*--yes.*--max-bytes 20GB")
    plan = wellkit.download(REPOSITORY, tmp_path, dry_run=True)
    assert "--max-bytes 20GB" in plan.refusal
    assert plan.to_mapping()["refusal"] == plan.refusal
    assert hub.fetches() == []
    assert wellkit.download(REPOSITORY, tmp_path, dry_run=True, confirmed=True).refusal == ""
    assert wellkit.download(REPOSITORY, tmp_path, exclude="huge*").count("fetch") == SHARDS + 1


def test_a_token_that_is_revoked_under_way(
    hub: LoopbackHub, published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_averysecrettokenofthistest")
    hub.fault(unavailable(401, None), path="/resolve/.*waves_k_2")
    error = fail(tmp_path, HubError, r"waves_k_2\.hdf5 from .*access refused \(HTTP 401\).*hf auth login")
    assert "hf_averysecret" not in str(error)
    hub.faults[:] = []
    report = wellkit.download(REPOSITORY, tmp_path)
    assert report.count("keep") >= 3  # what had arrived was not lost


def test_a_network_that_vanishes_under_way(hub: LoopbackHub, published: Path, tmp_path: Path) -> None:
    hub.fault(truncated(0, reset=True), server="store")
    hub.fault(truncated(65_536), server="store", times=1)
    fail(tmp_path, HubError, "cannot be reached.*check the network")
    [partial] = tmp_path.rglob("*.partial")
    assert partial.stat().st_size == 65_536
    hub.faults[:] = []
    report = wellkit.download(REPOSITORY, tmp_path)
    assert report.count("resume") == 1
    assert tree_of(report.directory) == dataset_of(published)


def test_a_folder_in_the_way_is_told_of_in_a_dry_run(published: Path, tmp_path: Path) -> None:
    (tmp_path / "small_waves/data/train/waves_k_0.hdf5").mkdir(parents=True)
    plan = wellkit.download(REPOSITORY, tmp_path, dry_run=True)
    assert plan.count("refuse") == 1
    assert "is in the way" in plan.refusal
