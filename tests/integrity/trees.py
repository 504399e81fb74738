"""A small published tree of real shards."""

from __future__ import annotations

from pathlib import Path

from tests.trees import make_shard
from wellkit.formats.well_writer import write_well_shard
from wellkit.statistics import compute_statistics, write_statistics

REPOSITORY = "somebody/waves"
SHARDS = ("data/train/waves_0.hdf5", "data/train/waves_1.hdf5", "data/valid/waves_0.hdf5")


def make_tree(folder: Path, seed: int = 0) -> Path:
    """Two training shards and a validation one of 2 trajectories of 6 frames each, with statistics."""
    for number, path in enumerate(SHARDS):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        shard = make_shard("waves", resolution=(16, 12), trajectories=2, steps=6, seed=3 * seed + number, plain=True)
        write_well_shard(folder / path, shard)
    write_statistics(compute_statistics(folder), folder / "stats.yaml")
    return folder
