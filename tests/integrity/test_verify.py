"""`wellkit.verify` and `wellkit.repair`: what is found wrong, and what is put right."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

import wellkit
from tests.hub.faults import corrupted, unavailable
from tests.hub.server import LoopbackHub
from tests.integrity.trees import REPOSITORY, make_tree
from wellkit.errors import (
    ArgumentError,
    DataNotFoundError,
    DocumentError,
    HubError,
    IntegrityError,
    StorageError,
)
from wellkit.integrity.describing import describe
from wellkit.integrity.header import header_problem
from wellkit.schemas.manifest import Manifest

SHARD = "data/train/waves_0.hdf5"


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small tree of real shards."""
    return make_tree(tmp_path_factory.mktemp("original"))


@pytest.fixture
def published(hub: LoopbackHub, original: Path) -> Path:
    hub.add(REPOSITORY, original)
    return original


@pytest.fixture
def tree(published: Path, tmp_path: Path) -> Path:
    """The published tree, downloaded."""
    return wellkit.download(REPOSITORY, tmp_path).directory


def content_of(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and ".wellkit" not in path.parts
    }


def flip(path: Path, at: int) -> None:
    """Invert one byte, without a trace in size or times."""
    status = path.stat()
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 0xFF]))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def manifest_of(directory: Path) -> Manifest:
    path = directory / ".wellkit" / "manifest.json"
    return Manifest.parse(json.loads(path.read_text()), source=str(path))


def test_a_download_writes_all_of_the_manifest(hub: LoopbackHub, tree: Path, original: Path) -> None:
    manifest = manifest_of(tree)
    files = content_of(original)
    assert {path: (file.bytes, file.sha256) for path, file in manifest.files.items()} == {
        path: (len(content), hashlib.sha256(content).hexdigest()) for path, content in files.items()
    }
    assert manifest.repository == REPOSITORY
    assert manifest.source == f"hf://datasets/{REPOSITORY}"
    assert {file.commit for file in manifest.files.values()} == {hub.repositories[REPOSITORY].refs["main"]}
    assert {path: (file.trajectories, file.steps) for path, file in manifest.files.items() if file.steps} == {
        "data/train/waves_0.hdf5": (2, 6),
        "data/train/waves_1.hdf5": (2, 6),
        "data/valid/waves_0.hdf5": (2, 6),
    }
    assert (tree / ".wellkit" / "manifest.json").read_text().startswith('{\n "schema": "wellkit/manifest/1"')
    assert manifest.statistics_sha256 is not None
    assert len(manifest.statistics_sha256) == 64


def test_a_whole_tree_is_right(tree: Path) -> None:
    for deep in (False, True):
        seen: list[tuple[int, int]] = []

        def follow(done: int, total: int, seen: list[tuple[int, int]] = seen) -> None:
            seen.append((done, total))

        report = wellkit.verify(tree, deep=deep, progress=follow)
        assert report.ok
        assert report.count("right") == 4
        assert report.statistics_sha256 == manifest_of(tree).statistics_sha256
        size = sum(file.bytes for file in report.files)
        assert bool(seen) is deep
        assert not seen or max(seen) == (size, size)
    json.dumps(report.to_mapping())


def _delete(path: Path) -> None:
    path.unlink()


def _cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def _grow(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"\0")


def _html(path: Path) -> None:
    size = path.stat().st_size
    path.write_bytes(b"<!DOCTYPE html>".ljust(size, b" "))


def _zeros(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    ("damage", "finding", "reason"),
    [
        (_delete, "missing", "not on disk"),
        (_cut, "wrong", "bytes, not"),
        (_grow, "wrong", "bytes, not"),
        (_html, "wrong", "is a web page"),
        (_zeros, "wrong", "does not begin as HDF5"),
        (_folder, "wrong", "a folder is in its place"),
    ],
)
def test_what_size_and_header_tell(tree: Path, damage: Callable[[Path], None], finding: str, reason: str) -> None:
    damage(tree / SHARD)
    report = wellkit.verify(tree)
    assert not report.ok
    [fault] = report.faults
    assert (fault.path, fault.finding.value) == (SHARD, finding)
    assert reason in fault.reason


def test_only_hashes_find_an_altered_byte(tree: Path) -> None:
    flip(tree / SHARD, 5000)
    assert wellkit.verify(tree).ok
    [fault] = wellkit.verify(tree, deep=True).faults
    assert fault.path == SHARD
    assert fault.reason.startswith("sha256 is ")


def test_a_copy_is_right_and_files_of_ones_own_are_told_of(tree: Path, tmp_path: Path) -> None:
    shutil.copytree(tree, tmp_path / "copy", copy_function=shutil.copyfile)
    report = wellkit.verify(tmp_path / "copy")
    assert report.ok
    assert {file.reason.partition(":")[0] for file in report.files} == {"written to after it was verified"}
    (tmp_path / "copy/data/train/mine.hdf5").write_bytes(b"mine")
    report = wellkit.verify(tmp_path / "copy", deep=True)
    assert report.ok
    assert report.count("unknown") == 1


def test_a_tree_is_found_by_its_name(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WELLKIT_DATA", str(tmp_path))
    assert wellkit.verify("waves").ok
    with pytest.raises(DataNotFoundError, match="no such folder, and no dataset of that name"):
        wellkit.verify("nothing")


def test_without_a_manifest_it_says_how_to_get_one(tree: Path) -> None:
    path = tree / ".wellkit/manifest.json"
    path.write_text("{")
    with pytest.raises(DocumentError, match="is no JSON"):
        wellkit.verify(tree)
    path.unlink()
    with pytest.raises(DataNotFoundError, match=r"has no manifest.*--adopt"):
        wellkit.verify(tree)
    assert describe(tree) is None


def test_another_tools_tree_is_adopted(hub: LoopbackHub, published: Path, tmp_path: Path) -> None:
    theirs = tmp_path / "waves"
    shutil.copytree(published, theirs)
    with pytest.raises(DataNotFoundError, match="--adopt"):
        wellkit.verify(theirs)
    report = wellkit.verify(theirs, adopt=True, repository=REPOSITORY)
    assert report.ok
    assert report.count("right") == 4
    manifest = manifest_of(theirs)
    assert manifest.files == {
        path: file.model_copy(update={"modified_ns": manifest.files[path].modified_ns})
        for path, file in manifest_of(wellkit.download(REPOSITORY, tmp_path / "to").directory).files.items()
    }
    hub.requests.clear()
    assert wellkit.download(REPOSITORY, tmp_path).count("keep") == 4
    assert hub.fetches() == []
    assert wellkit.verify(theirs, deep=True).ok


def test_what_is_wrong_in_another_tools_tree_is_not_adopted(published: Path, tmp_path: Path) -> None:
    theirs = tmp_path / "waves"
    shutil.copytree(published, theirs)
    flip(theirs / SHARD, 100)
    os.truncate(theirs / "data/train/waves_1.hdf5", 99)
    (theirs / "data/valid/mine.hdf5").write_bytes(b"mine")
    report = wellkit.verify(theirs, adopt=True, repository=REPOSITORY)
    assert [fault.path for fault in report.faults] == [SHARD, "data/train/waves_1.hdf5"]
    assert report.count("unknown") == 1
    assert sorted(manifest_of(theirs).files) == ["data/valid/waves_0.hdf5", "stats.yaml"]
    with pytest.raises(DataNotFoundError, match="no revision 'v7'"):
        wellkit.verify(theirs, adopt=True, repository=REPOSITORY, revision="v7")
    for path in published.rglob("*.hdf5"):
        (theirs / path.relative_to(published)).write_bytes(b"?")
    (theirs / "stats.yaml").write_text("mean: {}\n")
    with pytest.raises(IntegrityError, match="none of its 4 files is that of"):
        wellkit.verify(theirs, adopt=True, repository=REPOSITORY)


def test_arguments(tree: Path) -> None:
    with pytest.raises(ArgumentError, match="are for adopt=True"):
        wellkit.verify(tree, revision="v1")
    with pytest.raises(ArgumentError, match="jobs=0"):
        wellkit.verify(tree, jobs=0)


def test_repair_fetches_only_what_is_wrong(hub: LoopbackHub, tree: Path, original: Path) -> None:
    flip(tree / SHARD, 5000)
    (tree / "data/valid/waves_0.hdf5").unlink()
    hub.requests.clear()
    plan = wellkit.repair(tree, dry_run=True)
    assert hub.requests == []
    assert {action.file.path: action.kind.value for action in plan.actions} == {
        SHARD: "replace",
        "data/valid/waves_0.hdf5": "fetch",
    }
    report = wellkit.repair(tree)
    assert len(hub.fetches()) == 2
    assert report.bytes == sum((original / action.file.path).stat().st_size for action in report.actions)
    assert content_of(tree) == content_of(original)
    hub.requests.clear()
    assert wellkit.repair(tree).actions == ()
    assert hub.requests == []
    assert manifest_of(tree).files["data/valid/waves_0.hdf5"].trajectories == 2
    json.dumps(report.to_mapping())


def test_repair_brings_the_version_the_manifest_lists(
    hub: LoopbackHub, tree: Path, original: Path, tmp_path: Path
) -> None:
    hub.repositories[REPOSITORY].commit(make_tree(tmp_path / "newer", seed=1))
    flip(tree / SHARD, 5000)
    wellkit.repair(tree)
    assert content_of(tree) == content_of(original)


def test_repair_never_destroys_the_only_copy(hub: LoopbackHub, tree: Path) -> None:
    flip(tree / SHARD, 5000)
    before = content_of(tree)
    hub.fault(corrupted(40), server="store")
    with pytest.raises(IntegrityError, match="expected sha256"):
        wellkit.repair(tree)
    assert content_of(tree) == before
    hub.faults[:] = []
    hub.fault(unavailable(404), path="/resolve/")
    with pytest.raises(DataNotFoundError, match="not found"):
        wellkit.repair(tree)
    assert content_of(tree) == before
    hub.faults[:] = []
    hub.repositories[REPOSITORY].token = "hf_revoked"
    with pytest.raises(HubError, match="access refused"):
        wellkit.repair(tree)
    assert content_of(tree) == before
    assert not wellkit.verify(tree, deep=True).ok


def test_repair_offline_is_told(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tree / SHARD).unlink()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(HubError, match="HF_HUB_OFFLINE is set"):
        wellkit.repair(tree)


def test_a_folder_in_the_way_is_left_alone(tree: Path) -> None:
    _folder(tree / SHARD)
    with pytest.raises(StorageError, match="is in the way"):
        wellkit.repair(tree)
    assert (tree / SHARD).is_dir()


def test_generated_trees_have_manifests_too(tmp_path: Path) -> None:
    report = wellkit.generate(
        "turbulent_radiative_layer_2D", tmp_path, resolution=(16, 48), trajectories=3, steps=3, jobs=1
    )
    manifest = manifest_of(report.path)
    assert manifest.dataset == "turbulent_radiative_layer_2D"
    assert manifest.repository is None
    assert "seed 0" in manifest.source
    assert sum(file.trajectories or 0 for file in manifest.files.values()) == 3
    assert {file.steps for path, file in manifest.files.items() if path != "stats.yaml"} == {3}
    assert wellkit.verify(report.path, deep=True).ok
    victim = next(iter(sorted(report.path.rglob("*.hdf5"))))
    flip(victim, 3000)
    before = content_of(report.path)
    with pytest.raises(StorageError, match=r"1 files are missing or wrong.*generate them again into another folder"):
        wellkit.repair(report.path)
    with pytest.raises(ArgumentError, match="was not downloaded"):
        wellkit.verify(report.path, adopt=True)
    assert content_of(report.path) == before


def test_headers(tree: Path) -> None:
    shard = tree / SHARD
    size = shard.stat().st_size
    assert header_problem(shard, size) is None
    assert "says that it ends at byte" in str(header_problem(shard, size - 1))
    pointer = tree / "pointer"
    pointer.write_text("version https://git-lfs.github.com/spec/v1\n")
    assert "git LFS" in str(header_problem(pointer, 43))
    content = bytearray(shard.read_bytes()[:96])
    for at, value, told in ((8, 9, "unknown version 9"), (9 if content[8] > 1 else 13, 3, "damaged superblock")):
        changed = bytearray(content)
        changed[at] = value
        pointer.write_bytes(changed)
        assert told in str(header_problem(pointer, size))


def test_statistics_that_changed_are_an_error(tree: Path, tmp_path: Path) -> None:
    def opened(statistics: str | None = None) -> wellkit.WellDataset:
        return wellkit.WellDataset(
            path=str(tree),
            well_split_name="train",
            normalization_path=statistics,
            use_normalization=True,
            framework="numpy",
        )

    assert opened().norm is not None
    path = tree / "stats.yaml"
    content = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump(content, sort_keys=True, default_flow_style=True))  # the same values
    assert opened().norm is not None
    name = next(iter(content["mean"]))
    content["mean"][name] = 0.485
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(
        wellkit.errors.StatisticsError, match=r"are not those of somebody/waves that the manifest.*repair"
    ):
        opened()
    assert opened(str(path)).norm is not None  # given by the caller: never compared
    assert not wellkit.verify(tree).ok
    wellkit.repair(tree)
    assert opened().norm is not None
