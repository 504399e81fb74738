"""Indexes for a repository of one's own: what is written, of local and remote datasets."""

from __future__ import annotations

import hashlib
import json
import shutil
import warnings
from pathlib import Path

import pytest

import wellkit
from tests.hub.server import LoopbackHub
from tests.readers.serving import serve
from tests.trees import make_tree
from wellkit.errors import DataNotFoundError, StorageError, WellkitWarning
from wellkit.fetch import listing as listing_module
from wellkit.index.columns import unpack
from wellkit.index.hdf5 import index_shard
from wellkit.index.publish import publish_index
from wellkit.schemas.index_manifest import IndexManifest


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return make_tree(tmp_path / "published", plain=True, resolution=(40, 48))


def manifest_of(folder: Path) -> IndexManifest:
    return IndexManifest.parse(json.loads((folder / "manifest.json").read_bytes()), source="manifest.json")


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_local_folder(tree: Path, tmp_path: Path) -> None:
    report = publish_index(str(tree), tmp_path / "out")
    folder = tmp_path / "out" / "made_up"
    assert report.written == (folder / "index.bin", folder / "manifest.json", tmp_path / "out" / "README.md")
    assert (report.failed, report.commit) == ((), None)
    manifest = manifest_of(folder)
    assert (manifest.dataset, manifest.source, manifest.commit) == ("made_up", None, None)
    assert manifest.index.sha256 == sha256(folder / "index.bin")
    assert manifest.index.size == (folder / "index.bin").stat().st_size
    assert [(shard.path, shard.size, shard.content) for shard in manifest.shards] == [
        (path.relative_to(tree).as_posix(), path.stat().st_size, f"sha256:{sha256(path)}")
        for path in sorted(tree.glob("data/*/*.hdf5"))
    ]
    packed = unpack((folder / "index.bin").read_bytes(), "index.bin")
    assert packed.paths == tuple(shard.path for shard in manifest.shards)
    assert packed.contents == tuple(shard.content for shard in manifest.shards)
    assert packed.shard(0).fingerprint == index_shard(tree / packed.paths[0]).fingerprint
    assert not (tree / ".wellkit").exists()


def test_a_hub_repository_is_indexed_from_its_headers(tree: Path, tmp_path: Path, hub: LoopbackHub) -> None:
    repository = hub.add("somebody/made_up", tree)
    report = publish_index("hf://datasets/somebody/made_up", tmp_path / "remote")
    publish_index(str(tree), tmp_path / "local")
    assert report.commit == repository.resolve("main")
    for name in ("index.bin",):
        assert sha256(tmp_path / "remote" / "made_up" / name) == sha256(tmp_path / "local" / "made_up" / name)
    manifest = manifest_of(tmp_path / "remote" / "made_up")
    assert (manifest.source, manifest.commit) == ("hf://datasets/somebody/made_up", report.commit)


def test_a_downloaded_dataset_needs_no_hashing(tree: Path, tmp_path: Path, hub: LoopbackHub) -> None:
    repository = hub.add("somebody/made_up", tree)
    wellkit.download("somebody/made_up", to=tmp_path / "data")
    copy = tmp_path / "data" / "made_up"
    report = publish_index(str(copy), tmp_path / "out")
    assert (report.source, report.commit) == ("hf://datasets/somebody/made_up", repository.resolve("main"))
    changed = copy / "data" / "test" / "made_up_part_0.hdf5"
    shutil.copy(copy / "data" / "train" / "made_up_part_1.hdf5", changed)
    publish_index(str(copy), tmp_path / "again")
    manifest = manifest_of(tmp_path / "again" / "made_up")
    assert (manifest.source, manifest.commit) == (None, None)  # it is not that commit's any more
    assert {shard.path: shard.content for shard in manifest.shards}["data/test/made_up_part_0.hdf5"] == (
        f"sha256:{sha256(changed)}"
    )


def test_other_remote_folders(tree: Path, tmp_path: Path) -> None:
    with serve(tree.parent, index_pages=True) as address:
        publish_index(f"{address}/made_up/", tmp_path / "out", name="mine")
        manifest = manifest_of(tmp_path / "out" / "mine")
        assert [shard.path for shard in manifest.shards] == [
            path.relative_to(tree).as_posix() for path in sorted(tree.glob("data/*/*.hdf5"))
        ]
        assert manifest.source == f"{address}/made_up"
        with pytest.raises(DataNotFoundError, match=r"holds no .hdf5 or .h5 file, neither in data"):
            publish_index(f"{address}/made_up/data", tmp_path / "none")


def test_many_datasets_share_a_folder(tree: Path, tmp_path: Path) -> None:
    publish_index(str(tree), tmp_path / "out")
    publish_index(str(tree), tmp_path / "out", name="another")
    text = (tmp_path / "out" / "README.md").read_text()
    assert "| `another` |" in text
    assert "| `made_up` |" in text


def test_a_damaged_shard_keeps_the_index_from_being_written(tree: Path, tmp_path: Path) -> None:
    (tree / "data" / "train" / "made_up_part_0.hdf5").write_bytes(b"nothing")
    report = publish_index(str(tree), tmp_path / "out")
    assert [shard.path for shard in report.failed] == ["data/train/made_up_part_0.hdf5"]
    assert report.written == ()
    assert not (tmp_path / "out").exists()
    report = publish_index(str(tree), tmp_path / "out", keep_going=True)
    assert len(manifest_of(tmp_path / "out" / "made_up").shards) == 5


def test_a_target_that_cannot_be_written(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match="cannot write"):
        publish_index(str(tree), tmp_path / "file" / "below")


def test_what_is_published_opens_the_dataset(
    tree: Path, tmp_path: Path, hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add("somebody/made_up", tree)
    publish_index("hf://datasets/somebody/made_up", tmp_path / "indexes")
    listing_module._trees.clear()
    hub.requests.clear()
    monkeypatch.setenv("WELLKIT_INDEX", str(tmp_path / "indexes"))
    with warnings.catch_warnings():
        warnings.simplefilter("error", WellkitWarning)
        wellkit.WellDataset(path="hf://datasets/somebody/made_up", well_split_name="valid", framework="numpy")
    assert not any(request.path.endswith(".hdf5") for request in hub.requests)
    assert len(hub.requests) == 1  # the listing is known
