"""What is worth knowing, and no reason to fail; and trees that are not local HDF5."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import fsspec
import h5py
import numpy as np
import pytest

from tests.trees_zarr import zarr_twin
from tests.validation.trees import VISCOSITIES, make_shard, make_tree
from wellkit.formats.well_writer import ShardField, write_well_shard
from wellkit.schemas.validation import Finding, ValidationReport
from wellkit.validation.shard import Parser, ShardCheck
from wellkit.validation.validate import validate

pytestmark = pytest.mark.usefixtures("lasting_parsers")

SHARD = "data/train/train_1.hdf5"
FIELDS = ("t0_fields/density", "t0_fields/pressure", "t1_fields/velocity", "t2_fields/stress")


def told(report: ValidationReport, code: str) -> list[Finding]:
    return [found for found in report.findings if found.code == code]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return make_tree(tmp_path)


def test_file_names_that_splits_share(tree: Path) -> None:
    (tree / "data/test/test_0.hdf5").rename(tree / "data/test/train_0.hdf5")
    report = validate(tree)
    assert report.verdict == "pass"
    (found,) = told(report, "shared-file-names")
    assert "train_0.hdf5 in train, test" in found.message


def test_two_settings_that_begin_alike(tree: Path) -> None:
    with h5py.File(tree / SHARD, "r+") as file:
        for name in FIELDS:
            file[name][1, :3] = file[name][0, :3]
    report = validate(tree)
    (found,) = told(report, "shared-start")
    assert (found.shard, found.trajectory, found.frames) == (SHARD, 1, (0, 3))
    assert not told(report, "duplicated-frames")
    with h5py.File(tree / SHARD, "r+") as file:
        for name in FIELDS:
            file[name][1, :9] = file[name][0, :9]
    assert told(validate(tree), "duplicated-frames")


def test_storage_that_only_libhdf5_reads(tmp_path: Path) -> None:
    tree = make_tree(tmp_path, chunks=(1, 3), compression="lzf")
    with h5py.File(tree / SHARD, "r+") as file:
        file["t0_fields/density"][1, 3, 2, 7] = np.nan
    report = validate(tree)
    assert told(report, "opaque-storage")
    assert [(found.shard, found.frames) for found in told(report, "nan")] == [(SHARD, (3, 4))]


def test_part_of_a_training_split_has_other_statistics(tree: Path) -> None:
    (tree / SHARD).unlink()
    report = validate(tree)
    assert report.verdict == "pass"
    assert told(report, "incomplete")
    assert told(report, "statistics-not-compared")
    assert not told(report, "statistics-differ")


def test_a_leak_is_found_in_splits_that_were_asked_for(tree: Path) -> None:
    shutil.copyfile(tree / "data/train/train_0.hdf5", tree / "data/test/test_0.hdf5")
    assert told(validate(tree, splits=["train", "test"]), "leakage")
    assert not told(validate(tree, splits=["train", "valid"]), "leakage")


def test_a_trajectory_that_comes_to_rest(tmp_path: Path) -> None:
    shard = make_shard(0, VISCOSITIES[0], steps=40)
    fading = np.stack([np.sin(np.arange(16.0))[:, None] * np.ones(12) * 0.3**n for n in range(40)])
    values = (7 + np.stack([fading, 1.5 * fading])).astype(np.float32)
    write_well_shard(tmp_path / "a.hdf5", replace(shard, fields=(ShardField("height", values),)))
    report = validate(tmp_path)
    assert report.counts["error"] == report.counts["warning"] == 0
    assert {found.field for found in told(report, "settled")} <= {"height"}


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_zarr_trees(tree: Path, tmp_path: Path, zarr_format: int) -> None:
    twin = zarr_twin(tree, tmp_path / "twin" / "waves", zarr_format)  # type: ignore[arg-type]
    shutil.copyfile(tree / "card.yaml", twin / "card.yaml")
    report = validate(twin)
    assert report.findings == ()
    expected = validate(tree).statistics["train"].to_mapping()
    for key, values in report.statistics["train"].to_mapping().items():
        for name, value in values.items():
            np.testing.assert_allclose(value, expected[key][name], rtol=1e-9, atol=1e-12)


def test_remote_trees(tree: Path) -> None:
    with h5py.File(tree / SHARD, "r+") as file:
        file["t0_fields/density"][1, 3:5, 2, 7] = np.nan
    memory = fsspec.filesystem("memory")
    memory.put(str(tree), "/validated/waves", recursive=True)
    try:
        report = validate("memory://validated/waves")
        assert [(one.shard, one.trajectory, one.frames) for one in told(report, "nan")] == [(SHARD, 1, (3, 5))]
        assert sum(split.shards for split in report.splits.values()) == 4
    finally:
        memory.rm("/validated", recursive=True)


def test_a_tree_in_a_folder_that_is_called_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_tree(tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    report = validate("data/waves")
    assert report.findings == ()
    assert sum(split.shards for split in report.splits.values()) == 4


def test_a_shard_that_vanishes_while_others_are_read(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between its header and its values: the report says so, and goes on."""
    gone = tree / SHARD
    started = ShardCheck._open

    def open_and_cut(self: ShardCheck, indexer: Parser) -> None:
        started(self, indexer)
        if self.job.name == SHARD:
            gone.write_bytes(gone.read_bytes()[:3000])

    monkeypatch.setattr(ShardCheck, "_open", open_and_cut)
    report = validate(tree, jobs=1)
    (found,) = told(report, "unreadable")
    assert found.shard == SHARD
    assert report.splits["valid"].trajectories == 2
