"""Whether memory grows while a tree larger than memory's share of it is read: RssAnon over 20,000 windows.

    python benchmarks/bench_memory.py [--gb 11] [--windows 20000] [--keep FOLDER]

Writes a contiguous tree of that size once, reads random windows of 4+1 steps in batches of 8, z-scored, through
wellkit.DataLoader with 2 threads and through torch's DataLoader with 2 workers, each in a process of its own, and
prints how much anonymous memory (RssAnon, which no file backs) of the main process and of the workers grew after the
first 500 windows; and the largest file-backed (RssFile) and shared memory (RssShmem).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

import wellkit
from wellkit import WellDataset
from wellkit.formats.well_writer import ShardAxis, ShardField, WellShard, create_well_shard

RESOLUTION, STEPS, TRAJECTORIES = (128, 384), 101, 10
FIELDS = (("density", 0), ("pressure", 0), ("velocity", 1))
SHARD_BYTES = 4 * 4 * 128 * 384 * STEPS * TRAJECTORIES
BATCH, WORKERS, FIRST = 8, 2, 500
SAMPLES = 40  # how often memory is looked at
KINDS = ("RssAnon", "RssFile", "RssShmem")


def make_tree(folder: Path, gigabytes: float) -> None:
    """Shards of real bytes, none shared and none sparse, until the tree is as large as asked."""
    rng = np.random.default_rng(0)
    values = {
        name: rng.standard_normal((STEPS, *RESOLUTION, *(2,) * order), dtype=np.float32) for name, order in FIELDS
    }
    shard = WellShard(
        dataset_name="bench",
        n_trajectories=TRAJECTORIES,
        time=ShardAxis("time", np.arange(STEPS, dtype=np.float32)),
        axes=tuple(ShardAxis(name, np.linspace(0, 1, size)) for name, size in zip("xy", RESOLUTION, strict=True)),
        fields=tuple(ShardField(name, None, order) for name, order in FIELDS),
    )
    count = int(gigabytes * 1e9 / SHARD_BYTES) + 1
    for number in range(count):
        print(f"\rwriting shard {number + 1} of {count}", end="", file=sys.stderr, flush=True)
        with create_well_shard(folder / "data" / "train" / f"bench_{number:03d}.hdf5", shard) as writer:
            for trajectory in range(TRAJECTORIES):
                writer.write_trajectory(trajectory, values)
    print(file=sys.stderr)
    ones = {name: np.ones((2,) * order).tolist() for name, order in FIELDS}
    content = dict.fromkeys(("mean", "std", "rms", "mean_delta", "std_delta", "rms_delta"), ones)
    (folder / "stats.yaml").write_text(yaml.safe_dump(content))


def memory(process: int) -> dict[str, int]:
    """Resident memory of a process in bytes, by kind."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return {
        key: int(rest.split()[0]) * 1024 for key, _, rest in (line.partition(":") for line in lines) if key in KINDS
    }


@dataclass
class Watch:
    """Memory of some processes as reading goes on."""

    windows: int

    def __post_init__(self) -> None:
        self.seen = 0
        self.looks: list[dict[int, dict[str, int]]] = []
        self._next = FIRST

    def batch(self, size: int, processes: list[int]) -> bool:
        """Count a batch; whether there is more to read."""
        self.seen += size
        if self.seen >= self._next:
            self._next += (self.windows - FIRST) // SAMPLES
            self.looks.append({process: memory(process) for process in processes})
        return self.seen < self.windows


def measure(folder: Path, kind: str, windows: int, step: float) -> dict[str, Any]:
    """Read `windows` windows here, `step` seconds going by after each batch, and say what memory did."""
    torch_loader = kind == "torch"
    loader: Any
    dataset: Any = WellDataset(
        path=str(folder),
        well_split_name="train",
        use_normalization=True,
        n_steps_input=4,
        n_steps_output=1,
        framework="torch",
    )
    watch = Watch(windows)
    began = time.perf_counter()
    if torch_loader:
        import torch

        loader = torch.utils.data.DataLoader(
            dataset,
            batch_size=BATCH,
            shuffle=True,
            drop_last=True,
            num_workers=WORKERS,
            persistent_workers=True,
            generator=torch.Generator().manual_seed(0),
        )
    else:
        loader = wellkit.DataLoader(dataset, BATCH, threads=WORKERS, drop_last=True)
    more = True
    while more:  # an epoch after the other
        iterator = iter(loader)
        for _ in iterator:
            time.sleep(step)
            workers = [int(worker.pid) for worker in iterator._workers] if torch_loader else []
            more = watch.batch(BATCH, [os.getpid(), *workers])
            if not more:
                break
    speed = watch.seen / (time.perf_counter() - began)
    processes = list(watch.looks[0])
    growth = {}
    for number, process in enumerate(processes):
        anonymous = [look[process]["RssAnon"] for look in watch.looks]
        growth["main" if number == 0 else f"worker {number}"] = {
            "each_look": anonymous,
            "after_first": anonymous[0],
            "last": anonymous[-1],
            "largest": max(anonymous),
            "growth_percent": 100 * (anonymous[-1] / anonymous[0] - 1),
            "largest_growth_percent": 100 * (max(anonymous) / anonymous[0] - 1),
            "largest_file_backed": max(look[process]["RssFile"] for look in watch.looks),
            "largest_shared": max(look[process]["RssShmem"] for look in watch.looks),
        }
    return {"loader": kind, "windows": watch.seen, "samples_per_second": speed, "processes": growth}


def show(found: dict[str, Any]) -> None:
    """One loader as a table."""
    print(f"\n{found['loader']}: {found['windows']} windows, {found['samples_per_second']:.0f} samples/s")
    for name, row in found["processes"].items():
        print(
            f"  {name:10} RssAnon {row['after_first'] / 1e6:7.1f} MB after {FIRST}, {row['last'] / 1e6:7.1f} MB at the "
            f"end: {row['growth_percent']:+6.2f} % (largest {row['largest_growth_percent']:+6.2f} %)   "
            f"RssFile <= {row['largest_file_backed'] / 1e6:.1f} MB   RssShmem <= {row['largest_shared'] / 1e6:.1f} MB",
            flush=True,
        )


def main() -> None:
    """Make the tree if it is not there, read it through each loader, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gb", type=float, default=11.0, help="size of the tree in 10^9 bytes")
    parser.add_argument("--windows", type=int, default=20_000)
    parser.add_argument("--step-ms", type=float, default=0.0, help="pause after each batch, as a training step makes")
    parser.add_argument("--keep", type=Path, help="folder for the tree, used again if it is there")
    parser.add_argument("--loader", choices=("threads", "torch"), action="append", help="default: both")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)  # in a process of its own
    arguments = parser.parse_args()
    if arguments.windows < FIRST + SAMPLES * BATCH:
        parser.error(f"--windows: at least {FIRST + SAMPLES * BATCH}, so that there is something to compare")
    if arguments.measure:
        print(json.dumps(measure(arguments.keep, arguments.loader[0], arguments.windows, arguments.step_ms / 1e3)))
        return
    with tempfile.TemporaryDirectory(prefix="wellkit-bench-") as name:
        folder = (arguments.keep or Path(name)) / f"memory_{arguments.gb:g}"
        if not (folder / "stats.yaml").exists():  # written last
            folder.mkdir(parents=True, exist_ok=True)
            free, needed = shutil.disk_usage(folder).free, arguments.gb * 1e9 + SHARD_BYTES
            if free < 1.2 * needed:
                parser.error(
                    f"{folder}: {needed / 1e9:.1f} GB are needed, and a fifth to spare; {free / 1e9:.1f} are free"
                )
            make_tree(folder, arguments.gb)
        size = sum(path.stat().st_size for path in folder.rglob("*.hdf5"))
        print(f"tree of {size / 1e9:.2f} GB in {len(list(folder.rglob('*.hdf5')))} shards")
        results = []
        for kind in arguments.loader or ("threads", "torch"):
            command = [sys.executable, __file__, "--measure", "--loader", kind, "--keep", str(folder)]
            command += ["--windows", str(arguments.windows), "--step-ms", str(arguments.step_ms)]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            results.append(json.loads(done.stdout))
            show(results[-1])
    if arguments.json:
        arguments.json.write_text(json.dumps({"bytes": size, "loaders": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
