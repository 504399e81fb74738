"""From the Hub to a mirror and back: who is asked, what is trusted, what is recorded."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

import wellkit
from tests.catalog.builders import write_card
from tests.fetch.failing import fail
from tests.fetch.mirrored import mirror_of
from tests.hub.dataset import REPOSITORY, SHARDS, dataset_of, tree_of, write_tree
from tests.hub.faults import corrupted, unavailable
from tests.hub.server import LoopbackHub
from wellkit.errors import ArgumentError, HubError, IntegrityError, WellkitWarning
from wellkit.fetch import requests, retries


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "ATTEMPTS", 2)
    monkeypatch.setattr(requests, "LISTING_ATTEMPTS", 2)


def manifest_of(directory: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads((directory / ".wellkit" / "manifest.json").read_text())
    return found


def with_mirror(folder: Path, monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    """A card of the small dataset that names a mirror."""
    sources = {"hub": {"repo_id": REPOSITORY}, "mirrors": [address]}
    write_card(folder / "cards" / "card.yaml", name="small_waves", sources=sources, splits={})
    monkeypatch.setenv("WELLKIT_CATALOG", str(folder / "cards" / "card.yaml"))


def test_a_store_that_fails_gives_way_to_the_mirror(
    hub: LoopbackHub, published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_averysecrettokenofthistest")
    hub.fault(unavailable(503), server="store")
    with mirror_of(published) as (address, asked):
        with_mirror(tmp_path, monkeypatch, address)
        report = wellkit.download("small_waves", tmp_path / "to")
    assert tree_of(report.directory) == dataset_of(published)
    assert sum("the source before it failed" in action.reason for action in report.actions) == SHARDS
    assert {authorization for _, _, authorization in asked} == {None}  # the Hub's token is the Hub's


def test_a_mirror_with_other_content_is_found_out(
    hub: LoopbackHub, published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = write_tree(tmp_path / "other", seed=9)
    hub.fault(unavailable(503), server="store")
    with mirror_of(other) as (address, _):
        with_mirror(tmp_path, monkeypatch, address)
        fail(tmp_path / "to", IntegrityError, r"expected sha256 .*all of its sources failed")
        hub.faults[:] = []
        assert tree_of(wellkit.download(REPOSITORY, tmp_path / "to").directory) == dataset_of(published)


def test_a_store_that_sends_wrong_bytes_gives_way_too(
    hub: LoopbackHub, published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.fault(corrupted(100), server="store")
    with mirror_of(published) as (address, _):
        with_mirror(tmp_path, monkeypatch, address)
        assert tree_of(wellkit.download(REPOSITORY, tmp_path / "to").directory) == dataset_of(published)


def test_no_hub_at_all_and_no_hashes(
    hub: LoopbackHub, published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.fault(unavailable(503))
    with mirror_of(published) as (address, asked):
        with_mirror(tmp_path, monkeypatch, address)
        with pytest.warns(WellkitWarning, match=r"the Hub failed .*is used instead.*publishes no hashes.*first seen"):
            report = wellkit.download("small_waves", tmp_path / "to")
        assert tree_of(report.directory) == dataset_of(published)
        assert all("unverified, first seen" in action.reason for action in report.actions)
        files = manifest_of(report.directory)["files"]
        assert isinstance(files, dict)
        assert [file["published"] for file in files.values()] == [False] * (SHARDS + 1)
        asked.clear()
        with pytest.warns(WellkitWarning):
            again = wellkit.download("small_waves", tmp_path / "to")
        assert again.count("keep") == SHARDS + 1
        assert not [path for method, path, _ in asked if method == "GET" and path.endswith(".hdf5")]
        hub.faults[:] = []  # the Hub is back, and knows the hashes
        now = wellkit.download("small_waves", tmp_path / "to")
    assert {action.reason for action in now.actions if action.file.split} == {"verified before"}


def test_a_mirror_with_a_manifest_vouches_for_its_files(hub: LoopbackHub, published: Path, tmp_path: Path) -> None:
    first = wellkit.download(REPOSITORY, tmp_path / "first")
    with mirror_of(first.directory) as (address, _):
        report = wellkit.download(REPOSITORY, tmp_path / "second", source=address)
        assert report.commit == first.commit
        assert tree_of(report.directory) == dataset_of(published)
        victim = first.directory / "data/train/waves_k_2.hdf5"
        content = bytearray(victim.read_bytes())
        content[7] ^= 1
        victim.write_bytes(content)
        fail(tmp_path / "third", IntegrityError, "waves_k_2", source=address)


def test_sources_that_cannot_be(hub: LoopbackHub, published: Path, tmp_path: Path) -> None:
    with mirror_of(published) as (address, _):
        fail(tmp_path, ArgumentError, "mirrors do not know revisions", source=address, revision="v1")
    fail(tmp_path, HubError, "cannot be reached", source="http://127.0.0.1:9/nothing")


def test_a_file_without_a_hash_that_changed_is_never_spliced(
    published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with mirror_of(published) as (address, _):
        with pytest.warns(WellkitWarning):
            report = wellkit.download(REPOSITORY, tmp_path / "to", source=address, include="train/*_0*")
        kept = report.directory / "data/train/waves_k_0.hdf5"
        newer = write_tree(tmp_path / "newer", seed=3)
        shutil.copy(newer / "data/train/waves_k_0.hdf5", published / "data/train/waves_k_0.hdf5")
        os.utime(published / "data/train/waves_k_0.hdf5", (1e9, 1e9))  # the server tells versions apart by time
        with pytest.warns(WellkitWarning):
            report = wellkit.download(REPOSITORY, tmp_path / "to", source=address, include="train/*_0*")
    assert report.count("replace") == 1
    assert kept.read_bytes() == (newer / "data/train/waves_k_0.hdf5").read_bytes()
