"""How fast whole trees are validated, beside reading each file whole into float64 NumPy for its statistics.

    python benchmarks/bench_validate.py                       a tree of 1.3 GB made for the purpose
    python benchmarks/bench_validate.py --tree PATH [--cold]   one of yours

Every contestant runs in a process of its own, in turn, --rounds times; figures are medians, memory is the largest
resident size of the process, plus that of a child for each core. --cold has the operating system forget the files
before each run (no privilege is needed), and reads them plainly too, for how fast the disk is.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from wellkit.formats.well_writer import ShardAxis, ShardField, WellShard, create_well_shard, edge_boundary
from wellkit.readers.workers import usable_cores
from wellkit.statistics import component_values, compute_statistics, write_statistics
from wellkit.validation.validate import validate

SHAPE, STEPS, TRAJECTORIES, FILES = (128, 384), 101, 16, 8


def make_tree(folder: Path) -> Path:
    """Eight shards of 159 MB: 128x384 points, 4 channels, 101 steps, no two frames alike."""
    random = np.random.default_rng(0)
    tree = folder / "bench"
    axes = tuple(ShardAxis(name, np.arange(n) / n) for name, n in zip("xy", SHAPE, strict=True))
    noise = random.normal(size=(STEPS + TRAJECTORIES * FILES, *SHAPE, 4)).astype(np.float32)
    for file in range(FILES):
        count = TRAJECTORIES // FILES
        shard = WellShard(
            "bench",
            count,
            ShardAxis("time", np.arange(STEPS)),
            axes,
            (ShardField("density"), ShardField("pressure"), ShardField("velocity", order=1)),
            boundaries=(edge_boundary("x", "PERIODIC", axes[0]), edge_boundary("y", "OPEN", axes[1])),
        )
        with create_well_shard(tree / "data" / "train" / f"{file}.hdf5", shard) as writer:
            for number in range(count):
                first = file * count + number
                values = noise[first : first + STEPS] + np.float32(0.01 * first)
                fields = {"density": values[..., 0], "pressure": values[..., 1], "velocity": values[..., 2:]}
                writer.write_trajectory(number, fields)
    write_statistics(compute_statistics(tree), tree / "stats.yaml")
    return tree


def whole_files(tree: Path) -> dict[str, dict[str, float]]:
    """Statistics of the training split the plain way: each file whole, in float64; joined by sums over files."""
    sums: dict[str, np.ndarray] = {}
    for path in sorted((tree / "data" / "train").glob("*.hdf5")):
        with h5py.File(path) as file:
            for order in range(3):
                for name in file[f"t{order}_fields"]:
                    stored = file[f"t{order}_fields/{name}"]
                    if not (stored.attrs["sample_varying"] and stored.attrs["time_varying"]):
                        continue
                    values = stored[()].astype(np.float64)
                    last = values.shape[-1] ** order if order else 1
                    for suffix, x in (("", values), ("_delta", np.diff(values, axis=1))):
                        x = x.reshape(-1, last)
                        part = np.stack([np.full(last, float(len(x))), x.mean(axis=0), x.var(axis=0)])
                        sums.setdefault(name + suffix, np.zeros((0, 3, last)))
                        sums[name + suffix] = np.concatenate([sums[name + suffix], part[None]])
    found: dict[str, dict[str, float]] = {}
    for key, parts in sums.items():
        count, mean, variance = parts[:, 0], parts[:, 1], parts[:, 2]
        whole = (count * mean).sum(axis=0) / count.sum(axis=0)
        spread = (count * (variance + (mean - whole) ** 2)).sum(axis=0) / count.sum(axis=0)
        name, suffix = (key[:-6], "_delta") if key.endswith("_delta") else (key, "")
        for n in range(len(whole)):
            component = f"{name}[{n}]" if len(whole) > 1 else name
            entry = found.setdefault(component, {})
            entry["mean" + suffix], entry["std" + suffix] = float(whole[n]), float(np.sqrt(spread[n]))
    return found


def run_validate(tree: Path) -> dict[str, dict[str, float]]:
    report = validate(tree)
    return {key: dict(value) for key, value in component_values(report.statistics["train"]).items()}  # type: ignore[arg-type]


def run_statistics(tree: Path) -> dict[str, dict[str, float]]:
    return {key: dict(value) for key, value in component_values(compute_statistics(tree)).items()}  # type: ignore[arg-type]


def read_plainly(tree: Path) -> dict[str, dict[str, float]]:
    buffer = bytearray(8 << 20)
    for path in shards(tree):
        with open(path, "rb", buffering=0) as file:
            while file.readinto(buffer):
                pass
    return {}


CONTESTANTS: dict[str, Callable[[Path], dict[str, dict[str, float]]]] = {
    "validate": run_validate,
    "statistics": run_statistics,
    "numpy": whole_files,
    "disk": read_plainly,
}


def shards(tree: Path) -> list[Path]:
    return sorted(path for path in tree.rglob("*") if path.suffix in (".hdf5", ".h5"))


def forget(tree: Path) -> None:
    for path in shards(tree):
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def measure(name: str, tree: Path) -> dict[str, Any]:
    """In a process of its own; imports and compilation do not count."""
    command = [sys.executable, __file__, "--tree", str(tree), "--only", name]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def only(name: str, tree: Path) -> None:
    if name in ("validate", "statistics"):
        from wellkit.scanning import kernels  # loads what was compiled before

        for components in (1, 2, 3, 4, 9):
            rows = np.zeros((1, components * 4), np.float32)
            kernels.scan(
                rows, rows[0], False, 0, components, np.ones(1024, np.uint64), np.zeros((1, 2, components)),
                np.zeros(1, np.uint64), np.zeros((1, 5), np.int64), np.zeros((1, components, 8)),
            )  # fmt: skip
    started = time.perf_counter()
    found = CONTESTANTS[name](tree)
    seconds = time.perf_counter() - started
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * (name == "validate")
    peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss + usable_cores() * children) / 1024
    print(json.dumps({"seconds": seconds, "peak_mb": peak, "statistics": found}))


def agreement(ours: dict[str, dict[str, float]], theirs: dict[str, dict[str, float]]) -> float:
    """The largest relative difference; of means relative to the spread."""
    worst = 0.0
    for component, values in theirs.items():
        for key, value in values.items():
            scale = values[key.replace("mean", "std")]
            worst = max(worst, abs(ours[component][key] - value) / scale)
    return worst


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tree", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cold", action="store_true")
    parser.add_argument("--without-numpy", action="store_true", help="for trees whose files do not fit into memory")
    parser.add_argument("--only", choices=[*CONTESTANTS, "make"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.only == "make":
        make_tree(arguments.tree)
        return
    if arguments.only is not None:
        only(arguments.only, arguments.tree)
        return
    with tempfile.TemporaryDirectory() as folder:
        tree = arguments.tree or Path(folder) / "bench"
        if arguments.tree is None:  # elsewhere: a child counts its parent's memory as its own at first
            subprocess.run([sys.executable, __file__, "--tree", folder, "--only", "make"], check=True)
        nbytes = sum(path.stat().st_size for path in shards(tree))
        names = ["validate", "statistics"]
        names += [] if arguments.without_numpy else ["numpy"]
        names += ["disk"] if arguments.cold else []
        rounds: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
        measure("statistics", tree)  # compiles, and warms
        for _ in range(arguments.rounds):
            for name in names:
                if arguments.cold:
                    forget(tree)
                rounds[name].append(measure(name, tree))
        print(f"{tree}: {nbytes / 1e9:.2f} GB, {'cold' if arguments.cold else 'warm'}, {os.cpu_count()} cores")
        for name, runs in rounds.items():
            seconds = statistics.median(run["seconds"] for run in runs)
            peak = max(run["peak_mb"] for run in runs)
            print(f"{name:12} {seconds:8.2f} s {nbytes / seconds / 1e9:7.2f} GB/s {peak:8.0f} MB")
        if "numpy" in rounds:
            ratios = [a["seconds"] / b["seconds"] for a, b in zip(rounds["numpy"], rounds["statistics"], strict=True)]
            worst = agreement(rounds["statistics"][0]["statistics"], rounds["numpy"][0]["statistics"])
            print(f"statistics: {statistics.median(ratios):.1f} times as fast as NumPy, equal to {worst:.1e}")


if __name__ == "__main__":
    main()
