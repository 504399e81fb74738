"""Windows of Zarr trees: through wellkit, and through a loader written by hand with zarr-python, in turns.

    python benchmarks/bench_zarr.py [--rounds 5] [--json FILE]

The same arrays as HDF5 (contiguous), and as Zarr in chunks of one frame: format 2 with its default codec (blosc),
format 3 with its default (zstd), uncompressed, and in shards of 20 frames. Every round, all ways read the same
batches of 8 random windows of 4 + 1 steps, z-scored. The hand-written loader reads each field's frames with one call
of zarr-python, stacks the channels and the batch; it runs in one thread beside zarr-python's own. Figures are medians
over rounds, ratios medians of the ratios within a round.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import zarr
from bench_local_read import CASES, N_INPUT, Case, make_tree

from wellkit import WellDataset
from wellkit.loaders.ways import ThreadLoader

BATCH, THREADS, SAMPLES = 8, 2, 48
CASE = replace(CASES[0], steps=41, trajectories=4, files=1)
FRAMES_A_SHARD = 20
TREES: dict[str, dict[str, Any]] = {
    "Zarr 2, blosc": {"zarr_format": 2},
    "Zarr 3, zstd": {"zarr_format": 3},
    "Zarr 3, uncompressed": {"zarr_format": 3, "compressors": None},
    "Zarr 3, zstd, sharded": {"zarr_format": 3, "sharded": True},
}


def write_twin(tree: Path, out: Path, zarr_format: Any, *, sharded: bool = False, compressors: Any = "auto") -> None:
    """`tree` with its shards as Zarr groups; fields in chunks of a frame."""
    (out / "data" / "train").mkdir(parents=True)
    shutil.copy(tree / "stats.yaml", out)
    for path in (tree / "data" / "train").glob("*.hdf5"):
        with h5py.File(path, "r") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore", zarr.errors.ZarrUserWarning)
            root = zarr.open_group(str(out / "data" / "train" / f"{path.stem}.zarr"), mode="w", zarr_format=zarr_format)

            def copy(name: str, item: Any, root: Any = root) -> None:
                if isinstance(item, h5py.Group):
                    root.require_group(name).attrs.update(_attributes(item))
                    return
                values = item[()]
                is_field = name.split("/")[0].endswith("_fields") and values.ndim > 2
                array = root.create_array(
                    name,
                    shape=values.shape,
                    dtype=values.dtype,
                    chunks=(1, 1, *values.shape[2:]) if is_field else values.shape or (),
                    shards=(1, FRAMES_A_SHARD, *values.shape[2:]) if is_field and sharded else None,
                    compressors=compressors,
                    attributes=_attributes(item),
                )
                array[...] = values

            root.attrs.update(_attributes(file))
            file.visititems(copy)
            zarr.consolidate_metadata(root.store, zarr_format=zarr_format)


def _attributes(item: Any) -> dict[str, Any]:
    return {
        key: value.tolist() if isinstance(value, np.ndarray | np.generic) else value
        for key, value in item.attrs.items()
    }


def opened(folder: Path) -> WellDataset:
    """The dataset of a tree."""
    return WellDataset(
        path=folder, well_split_name="train", use_normalization=True, n_steps_input=N_INPUT, framework="numpy"
    )


class ByHand:
    """What people write: zarr-python, NumPy, nothing else."""

    def __init__(self, folder: Path, case: Case) -> None:
        self._shards = [
            zarr.open_group(str(path), mode="r") for path in sorted((folder / "data" / "train").glob("*.zarr"))
        ]
        self._fields = [f"t{order}_fields/{name}" for name, order in case.fields]
        self._windows = case.steps - N_INPUT
        self._trajectories = case.trajectories

    def batch(self, indices: list[int]) -> dict[str, np.ndarray]:
        """The batch of some windows; values as after subtracting a mean and dividing by a deviation."""
        samples = [self._sample(index) for index in indices]
        fields = np.stack(samples)
        return {"input_fields": fields[:, :N_INPUT], "output_fields": fields[:, N_INPUT:]}

    def _sample(self, index: int) -> np.ndarray:
        row, start = divmod(index, self._windows)
        shard, trajectory = divmod(row, self._trajectories)
        parts = []
        for name in self._fields:
            array: Any = self._shards[shard][name]
            values = array[trajectory, start : start + N_INPUT + 1]
            parts.append(values if values.ndim == 4 else values[..., np.newaxis])
        stacked: np.ndarray = np.concatenate(parts, axis=-1)
        return (stacked - np.float32(0.5)) / np.float32(1.5)


def main() -> None:
    """Make the trees in a temporary folder, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write every round's figures here")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="wellkit-bench-") as name:
        folders = {"HDF5, contiguous": Path(name) / "hdf5"}
        make_tree(folders["HDF5, contiguous"], CASE)
        for label, options in TREES.items():
            folders[label] = Path(name) / label.replace(" ", "_")
            write_twin(folders["HDF5, contiguous"], folders[label], **options)
        ways: dict[str, Callable[[list[list[int]]], object]] = {}
        for label, folder in folders.items():
            loader = ThreadLoader(opened(folder), THREADS)
            ways[f"wellkit: {label}"] = lambda batches, loader=loader: loader.read(batches, lambda: None)  # type: ignore[misc]
            if label in TREES:
                hand = ByHand(folder, CASE)
                ways[f"by hand: {label}"] = lambda batches, hand=hand: [hand.batch(one) for one in batches]  # type: ignore[misc]
        count = len(opened(folders["HDF5, contiguous"]))
        speeds: dict[str, list[float]] = {way: [] for way in ways}
        for seed in range(arguments.rounds + 1):
            drawn = np.random.default_rng(seed).integers(count, size=SAMPLES).tolist()
            batches = [drawn[first : first + BATCH] for first in range(0, SAMPLES, BATCH)]
            for way, read in ways.items():
                began = time.perf_counter()
                read(batches)
                if seed:  # the first round compiles and opens
                    speeds[way].append(SAMPLES / (time.perf_counter() - began))
        for label in folders:
            own = speeds[f"wellkit: {label}"]
            line = f"{label:26s} wellkit {statistics.median(own):7.0f} samples/s"
            if label in TREES:
                hand_speeds = speeds[f"by hand: {label}"]
                ratio = statistics.median(a / b for a, b in zip(own, hand_speeds, strict=True))
                line += f"   zarr-python by hand {statistics.median(hand_speeds):7.0f}   {ratio:5.1f}x"
            print(line)
        if arguments.json:
            arguments.json.write_text(json.dumps(speeds, indent=2) + "\n")


if __name__ == "__main__":
    main()
