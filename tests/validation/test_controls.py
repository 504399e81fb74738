"""Data that are as they should be, though they look odd: no error, and no warning."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import yaml

import wellkit
from tests.validation.trees import SPACING, VISCOSITIES, make_shard, make_tree, write_card
from wellkit.formats.well_writer import ShardAxis, ShardField, write_well_shard
from wellkit.generation.reaction_diffusion import GrayScott2D
from wellkit.schemas.validation import Finding, ValidationReport
from wellkit.statistics import compute_statistics, write_statistics
from wellkit.validation.validate import validate

pytestmark = pytest.mark.usefixtures("lasting_parsers")


def complaints(report: ValidationReport) -> list[Finding]:
    return [found for found in report.findings if found.severity != "info"]


@pytest.mark.parametrize(
    "writing",
    [{}, {"chunks": True, "compression": "gzip"}, {"chunks": "frame"}, {"chunks": (2, 5), "compression": "lzf"}],
    ids=["contiguous", "gzip", "a chunk a frame", "lzf, chunks of two trajectories"],
)
def test_a_clean_tree_however_it_is_stored(tmp_path: Path, writing: dict[str, Any]) -> None:
    tree = make_tree(tmp_path, **writing)
    report = validate(tree)
    assert complaints(report) == []
    assert {found.code for found in report.findings} <= {"opaque-storage"}
    assert report.statistics["train"] == validate(make_tree(tmp_path / "plain")).statistics["train"]


@pytest.mark.parametrize(
    ("name", "resolution"), [("turbulent_radiative_layer_2D", (16, 48)), ("gray_scott_reaction_diffusion", (16, 16))]
)
def test_generated_trees(tmp_path: Path, name: str, resolution: tuple[int, ...]) -> None:
    wellkit.generate(name, tmp_path, resolution=resolution, trajectories=5, steps=8, jobs=1)
    report = validate(tmp_path / name)
    assert complaints(report) == []
    assert report.dataset == name
    assert sum(split.trajectories for split in report.splits.values()) == 5
    assert complaints(validate(tmp_path / name, card=name)) == []  # the published card says nothing about sizes here


def gray_scott(frames: int, *, feed: float, kill: float, seed: int) -> np.ndarray:
    """A run of a small box, axes (species, time, x, y), float32: random patches, every frame 40 units of time."""
    random = np.random.default_rng(seed)
    patch = np.zeros((16, 16))
    patch[4:9, 5:11] = 1.0
    patch *= random.uniform(0.8, 1.2, patch.shape)
    species = GrayScott2D(
        1.0 - 0.5 * patch, 0.25 * patch, feed=feed, kill=kill, lengths=(0.4, 0.4), diffusivities=(2e-5, 1e-5), dt=2.0
    )
    found = np.empty((2, frames, 16, 16), np.float32)
    for frame in range(frames):
        found[:, frame] = species.concentrations()
        species.advance(20)
    return found


@pytest.mark.parametrize(
    ("feed", "kill"), [(0.02, 0.079), (0.03, 0.06)], ids=["dies out to uniform fields", "comes to rest in a pattern"]
)
def test_a_gray_scott_run_that_becomes_stationary(tmp_path: Path, feed: float, kill: float) -> None:
    frames = 150
    runs = np.stack([gray_scott(frames, feed=feed, kill=kill, seed=seed) for seed in (1, 2)], axis=1)
    a, b = runs
    still = (a[:, 1:] == a[:, :-1]).all(axis=(2, 3))
    assert still[:, -1].all(), "the runs have to be stationary, bit by bit"
    assert not still[:, :5].any()
    axes = tuple(ShardAxis(name, np.arange(16) / 16) for name in "xy")
    shard = replace(
        make_shard(0, VISCOSITIES[0]),
        dataset_name="gray_scott",
        time=ShardAxis("time", 40.0 * np.arange(frames)),
        axes=axes,
        fields=(ShardField("A", a), ShardField("B", b)),
        boundaries=(),
    )
    write_well_shard(tmp_path / "a.hdf5", shard)
    report = validate(tmp_path)
    assert complaints(report) == []
    assert "settled" in {found.code for found in report.findings}


def test_declared_nan_masks(tmp_path: Path) -> None:
    tree = make_tree(tmp_path)
    card = yaml.safe_load((tree / "card.yaml").read_text())
    card["fields"][0]["nan_mask"] = "below the ground"
    (tree / "card.yaml").write_text(yaml.safe_dump(card))
    for path in (tree / "data").rglob("*.hdf5"):
        with h5py.File(path, "r+") as file:
            file["t0_fields/density"][:, :, :4, 3:7] = np.nan
    write_statistics(compute_statistics(tree, nan="omit"), tree / "stats.yaml")
    assert complaints(validate(tree)) == []
    (tree / "card.yaml").unlink()
    assert complaints(validate(tree, nan_fields=["density"])) == []
    assert {found.code for found in complaints(validate(tree))} == {"nan"}


def test_mixed_lengths(tmp_path: Path) -> None:
    tree = make_tree(tmp_path)
    write_well_shard(tree / "data/train/train_1.hdf5", make_shard(1, VISCOSITIES[1], steps=20, trajectories=2))
    write_statistics(compute_statistics(tree), tree / "stats.yaml")
    write_card(tree, time={"steps": [12, 20], "spacing": SPACING, "variable": True})
    assert complaints(validate(tree)) == []
    assert complaints(validate(tree / "data" / "train")) == []


def test_rest_before_the_start_and_a_shared_initial_state(tmp_path: Path) -> None:
    """A wave that has not arrived yet, two settings of one initial state, and one frame alone."""
    steps, grid = 30, np.linspace(0, 1, 64)
    time = np.arange(steps)[:, None]
    pulse = np.exp(-(((grid - 0.08 * (time - 8)) / 0.05) ** 2)) * (time >= 8)
    pulse[np.abs(pulse) < 1e-12] = 0.0
    trajectories = np.stack([pulse, np.where(time > 8, 1.3 * pulse, pulse)])
    shard = replace(
        make_shard(0, VISCOSITIES[0]),
        time=ShardAxis("time", np.arange(steps)),
        axes=(ShardAxis("x", grid),),
        fields=(
            ShardField("amplitude", trajectories),
            ShardField("start", np.stack([np.sin(grid + 0.1 * time), np.sin(grid + 0.1173 * time)])),
        ),
        boundaries=(),
    )
    write_well_shard(tmp_path / "a.hdf5", shard)
    assert complaints(validate(tmp_path)) == []
    short = replace(
        shard,
        time=ShardAxis("time", np.zeros(1)),
        fields=(ShardField("amplitude", trajectories[:, 10:11] * [[[1.0]], [[2.0]]]),),
    )
    (tmp_path / "short").mkdir()
    write_well_shard(tmp_path / "short" / "a.hdf5", short)
    assert complaints(validate(tmp_path / "short")) == []
