"""A small tree in the layout of a dataset repository, for downloads; its shards hold noise, not HDF5."""

from __future__ import annotations

from pathlib import Path

import numpy as np

REPOSITORY = "somebody/small_waves"
SHARD_SIZES = {"train": (300_000, 200_001, 70_000), "valid": (130_000, 65_536), "test": (90_000,)}
SHARDS = sum(len(sizes) for sizes in SHARD_SIZES.values())


def write_tree(folder: Path, *, seed: int = 0) -> Path:
    """Write the tree into `folder`; other seeds give other contents under the same names and sizes."""
    rng = np.random.default_rng([seed])
    for split, sizes in SHARD_SIZES.items():
        (folder / "data" / split).mkdir(parents=True)
        for number, size in enumerate(sizes):
            (folder / "data" / split / f"waves_k_{number}.hdf5").write_bytes(rng.bytes(size))
    (folder / "stats.yaml").write_text(f"mean:\n  density: {seed}.5\n")
    (folder / "README.md").write_text("# Small waves\n")
    (folder / "data" / "train" / "notes.txt").write_text("not part of the dataset's tree\n")
    return folder


def tree_of(folder: Path) -> dict[str, bytes]:
    """Every file below `folder` but wellkit's own notes, by relative path; empty where there is no folder."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and ".wellkit" not in path.parts
    }


def dataset_of(published: Path) -> dict[str, bytes]:
    """What of a published folder belongs on the user's disk."""
    files = tree_of(published)
    return {path: content for path, content in files.items() if path.endswith((".hdf5", "stats.yaml"))}
