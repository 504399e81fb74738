"""What opening a tree of many shards costs: through its written index, and through h5py.

    python benchmarks/bench_open_tree.py [--shards 1000]

Prints medians of several rounds in microseconds a shard; the page cache is warm.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from wellkit import WellDataset
from wellkit.formats.well import WellLayout, parse_layout
from wellkit.formats.well_writer import ShardAxis, ShardField, ShardScalar, WellShard, write_well_shard
from wellkit.index.file import index_path, open_tree_index
from wellkit.index.hdf5 import index_shard
from wellkit.index.model import ShardIndex
from wellkit.index.tree import index_tree
from wellkit.readers.hdf5 import Hdf5Reader


def make_shards(folder: Path, count: int) -> None:
    """Shards that differ in values and in one parameter."""
    axes = (ShardAxis("x", np.linspace(0, 1, 16)), ShardAxis("y", np.linspace(0, 3, 48)))
    for number in range(count):
        rng = np.random.default_rng([number, 3])
        values = rng.normal(size=(2, 12, 16, 48)).astype(np.float32)
        shard = WellShard(
            dataset_name="made_up",
            n_trajectories=2,
            time=ShardAxis("time", np.arange(12.0)),
            axes=axes,
            fields=(
                ShardField("density", values),
                ShardField("pressure", values + 1),
                ShardField("velocity", np.stack([values, -values], axis=-1), order=1),
            ),
            scalars=(ShardScalar("viscosity", 0.01 * number),),
            parameters={"viscosity": 0.01 * number},
        )
        write_well_shard(folder / "data" / "train" / f"part_{number:04d}.hdf5", shard)


class IndexedReader:
    """What parsing a layout needs of a reader."""

    def __init__(self, location: str, index: ShardIndex) -> None:
        self.location = location
        self._index = index

    @contextmanager
    def root(self) -> Iterator[Any]:
        """The index as a group."""
        yield self._index.root()

    def read(self, name: str, selection: tuple[int | slice, ...] = ()) -> np.ndarray:
        """Small arrays only."""
        return self._index.arrays[name].inline_values()[selection]

    def close(self) -> None:
        """Holds nothing."""


def through_index(folder: Path) -> list[tuple[ShardIndex, WellLayout]]:
    """Every shard's index and layout; one layout is parsed for each skeleton."""
    tree = open_tree_index(folder)
    assert tree is not None
    data = folder / "data" / "train"
    layouts: dict[int, WellLayout] = {}
    found = []
    with os.scandir(data) as entries:
        sizes = {entry.name: entry.stat().st_size for entry in entries}
    for name in sorted(sizes):
        path = f"data/train/{name}"
        index = tree.find(path, sizes[name])
        assert index is not None
        skeleton = tree.skeleton_of(path)
        location = f"{data}/{name}"
        layout = layouts.get(skeleton)
        if layout is None:
            layout = layouts[skeleton] = parse_layout(IndexedReader(location, index))
        else:
            layout = replace(layout, location=location, attributes={**layout.attributes, **tree.own_attributes(path)})
        found.append((index, layout))
    return found


def through_h5py(folder: Path) -> list[WellLayout]:
    """Every shard's layout from its own header."""
    readers = [Hdf5Reader(str(path)) for path in sorted((folder / "data" / "train").iterdir())]
    return [parse_layout(reader) for reader in readers]


def index_in_process(folder: Path) -> list[ShardIndex]:
    """Every shard indexed anew."""
    return [index_shard(path) for path in sorted((folder / "data" / "train").iterdir())]


def median_of(work: Callable[[], object], rounds: int) -> float:
    """Seconds."""
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def main() -> None:
    """Make a tree in a temporary folder, index it, time."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shards", type=int, default=1000)
    count = parser.parse_args().shards
    with tempfile.TemporaryDirectory(prefix="wellkit-bench-") as name:
        folder = Path(name)
        make_shards(folder, count)
        start = time.perf_counter()
        index_tree(folder)
        written = time.perf_counter() - start
        h5py_layouts = through_h5py(folder)
        same = [layout for _, layout in through_index(folder)] == h5py_layouts

        def opened() -> WellDataset:
            return WellDataset(path=folder, well_split_name="train", framework="numpy")

        opened()  # what is imported when it is needed is imported now
        rows = [
            ("written index: WellDataset(...)", median_of(opened, 11)),
            ("of that: open, find, check sizes, layouts", median_of(lambda: through_index(folder), 11)),
            ("of that: open the index file", median_of(lambda: open_tree_index(folder), 11)),
            ("h5py: layout from each header", median_of(lambda: through_h5py(folder), 3)),
            ("index each in this process", median_of(lambda: index_in_process(folder), 3)),
            ("wellkit index (2 child processes, once)", written),
        ]
        print(f"{count} shards, index file {index_path(folder).stat().st_size / count:.0f} bytes a shard")
        print(f"layouts equal those of h5py: {same}")
        for what, seconds in rows:
            print(f"{what:50s} {seconds / count * 1e6:10.1f} us a shard")


if __name__ == "__main__":
    main()
