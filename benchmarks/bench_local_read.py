"""How fast random windows of local shards are read: wellkit, the_well 1.2 and bare preadv, in turn.

    python benchmarks/bench_local_read.py --peer-python /path/to/peer/bin/python

Without --peer-python, wellkit is compared with preadv alone. Every figure is a median over rounds in which all
contestants take turns; ratios are taken within a round, so that they hold on a machine that others use too.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import yaml

from wellkit.formats.well_writer import (
    ShardAxis,
    ShardField,
    ShardScalar,
    WellShard,
    create_well_shard,
    edge_boundary,
)
from wellkit.index.hdf5 import index_shard
from wellkit.readers.local import LocalReader
from wellkit.readers.plan import FieldPlan, WindowRequest

N_INPUT, N_STEPS = 4, 5
SCRIPT = Path(__file__).with_name("peer_speed.py")
MEAN, STD = 0.7, 1.3


@dataclass(frozen=True)
class Case:
    """One tree and how it is read."""

    name: str
    resolution: tuple[int, ...]
    fields: tuple[tuple[str, int], ...]  # name, tensor order
    steps: int
    trajectories: int
    files: int
    samples: int  # a round
    compressed: bool = False
    batch: int = 1
    workers: int = 0  # of the peer's loader; wellkit decodes on as many threads


CASES = (
    Case("2D 128x384, 4 channels", (128, 384), (("density", 0), ("pressure", 0), ("velocity", 1)), 101, 10, 2, 48),
    Case(
        "the same, gzip+shuffle, batches of 8",
        (128, 384),
        (("density", 0), ("pressure", 0), ("velocity", 1)),
        101,
        3,
        1,
        48,
        compressed=True,
        batch=8,
        workers=2,
    ),
    Case("3D 64x64x64, 7 channels", (64, 64, 64), (("density", 0), ("field", 1), ("velocity", 1)), 21, 2, 1, 16),
    Case("2D 128x128, 2 channels, 1001 steps", (128, 128), (("A", 0), ("B", 0)), 1001, 2, 1, 96),
)


def make_tree(folder: Path, case: Case) -> None:
    """Smooth fields with noise, as simulations leave them: compressible, though not by much."""
    rng = np.random.default_rng(0)
    n_dims = len(case.resolution)
    lines = [np.linspace(0, 2 * np.pi, size, dtype=np.float32) for size in case.resolution]
    axes = tuple(ShardAxis(name, line) for name, line in zip("xyz", lines, strict=False))
    wave = sum(np.sin((n + 1) * grid) for n, grid in enumerate(np.meshgrid(*lines, indexing="ij")))
    growth = np.linspace(1, 2, case.steps, dtype=np.float32)
    for number in range(case.files):
        shard = WellShard(
            dataset_name="bench",
            n_trajectories=case.trajectories,
            time=ShardAxis("time", np.arange(case.steps, dtype=np.float32)),
            axes=axes,
            fields=tuple(ShardField(name, None, order) for name, order in case.fields),
            scalars=(ShardScalar("cooling", 0.3),),
            boundaries=tuple(edge_boundary(f"{axis.name}_periodic", "PERIODIC", axis) for axis in axes),
        )
        path = folder / "data" / "train" / f"bench_{number}.hdf5"
        with create_well_shard(path, shard) as writer:
            for trajectory in range(case.trajectories):
                values = {}
                for name, order in case.fields:
                    shape = (case.steps, *case.resolution, *(n_dims,) * order)
                    noise = rng.standard_normal(shape, dtype=np.float32)
                    smooth = np.multiply.outer(growth, np.asarray(wave)).reshape(*shape[: n_dims + 1], *(1,) * order)
                    values[name] = (smooth + np.float32(0.02) * noise).astype(np.float32)
                writer.write_trajectory(trajectory, values)
        if case.compressed:
            compress(path)
    statistics_of = {
        key: {name: np.full((n_dims,) * order, value).tolist() for name, order in case.fields}
        for key, value in {"mean": MEAN, "std": STD, "mean_delta": MEAN, "std_delta": STD}.items()
    }
    (folder / "stats.yaml").write_text(yaml.safe_dump(statistics_of | {"rms": statistics_of["std"]}))


def compress(path: Path) -> None:
    """Rewrite a shard's fields as chunks of one frame, shuffled and deflated."""
    packed = path.with_suffix(".packed")
    with h5py.File(path) as source, h5py.File(packed, "w") as target:
        target.attrs.update(source.attrs)
        for key in source:
            if not key.endswith("_fields"):
                source.copy(key, target)
                continue
            group = target.create_group(key)
            group.attrs.update(source[key].attrs)
            for name, array in source[key].items():
                chunks = (1, 1, *array.shape[2:])
                made = group.create_dataset(name, data=array[...], chunks=chunks, compression=4, shuffle=True)
                made.attrs.update(array.attrs)
    os.replace(packed, path)


class Contest:
    """One case's windows, read in several ways."""

    def __init__(self, folder: Path, case: Case) -> None:
        self.case = case
        crop = (slice(None),) * len(case.resolution)
        self._shards: list[tuple[str, tuple[FieldPlan, ...]]] = []
        for path in sorted(map(str, (folder / "data" / "train").glob("*.hdf5"))):
            arrays, plans, first = index_shard(path).arrays, [], 0
            for name, order in case.fields:
                count = len(case.resolution) ** order
                mean, std = np.full(count, MEAN, np.float32), np.full(count, STD, np.float32)
                array = arrays[f"t{order}_fields/{name}"]
                plans.append(FieldPlan(array, first, count, mean, std, True, True, (True,) * len(crop)))
                first += count
            self._shards.append((path, tuple(plans)))
        self._files = {path: os.open(path, os.O_RDONLY) for path, _ in self._shards}
        self._shape = (N_STEPS, *case.resolution, first)
        self._crop = crop
        self._buffer = np.empty((case.batch, *self._shape), np.float32)
        self._raw = np.empty(self._buffer[0].nbytes, np.uint8)

    def warm(self) -> None:
        """Bring the files into the page cache."""
        for path in self._files:
            with open(path, "rb") as file:
                while file.read(1 << 24):
                    pass

    def windows(self, seed: list[int]) -> list[WindowRequest]:
        """A round's random windows."""
        rng = np.random.default_rng(seed)
        found = []
        for _ in range(self.case.samples):
            path, plans = self._shards[rng.integers(len(self._shards))]
            trajectory = int(rng.integers(self.case.trajectories))
            start = int(rng.integers(self.case.steps - N_STEPS + 1))
            found.append(WindowRequest(path, plans, trajectory, start, N_STEPS, 1, N_INPUT, self._crop))
        return found

    def ours(self, reader: LocalReader, *, recycled: bool) -> Callable[[list[WindowRequest]], None]:
        """wellkit, into one buffer again and again, or into fresh memory."""

        def read(windows: list[WindowRequest]) -> None:
            for first in range(0, len(windows), self.case.batch):
                part = windows[first : first + self.case.batch]
                out = self._buffer if recycled else np.empty((len(part), *self._shape), np.float32)
                reader.read_windows(part, out[: len(part)])

        return read

    def roofline(self, windows: list[WindowRequest]) -> None:
        """The same windows' stored bytes by preadv into a reused buffer, a field or a chunk at a time."""
        for window in windows:
            place = 0
            for plan in window.fields:
                array = plan.array
                frame = array.nbytes // (array.shape[0] * array.shape[1])
                number = window.trajectory * array.shape[1] + window.start
                if array.layout == "contiguous":
                    extents = [(array.offset + number * frame, N_STEPS * frame)]
                else:
                    chunks = range(number, number + N_STEPS)
                    extents = [(int(array.offsets[chunk]), int(array.sizes[chunk])) for chunk in chunks]
                for offset, size in extents:
                    os.preadv(self._files[window.path], [self._raw[place : place + size].data], offset)
                    place += size


class Peer:
    """the_well, in a process of its own."""

    def __init__(self, python: str, folder: Path, case: Case) -> None:
        arguments = [str(folder), str(N_INPUT), str(case.workers), str(case.batch)]
        self._process = subprocess.Popen(
            [python, str(SCRIPT), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self._answer() == "ready"

    def _answer(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def seconds(self, seed: int, count: int) -> float:
        """Time for `count` samples."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{seed} {count}\n")
        self._process.stdin.flush()
        return float(self._answer())

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def compare(folder: Path, case: Case, peer_python: str | None, rounds: int) -> None:
    """Print one table: samples/s, times the peer, share of the roofline."""
    contest = Contest(folder, case)
    threads = max(1, case.workers)
    mapped = LocalReader(source="mmap", threads=threads)
    ways: dict[str, Callable[[list[WindowRequest]], None]] = {
        "preadv": contest.roofline,
        "wellkit": contest.ours(mapped, recycled=True),
        "wellkit, fresh memory": contest.ours(mapped, recycled=False),
        "wellkit, by pread": contest.ours(LocalReader(source="pread", threads=threads), recycled=True),
    }
    if case.compressed:
        del ways["wellkit, by pread"]  # chunks are never mapped
    peer = Peer(peer_python, folder, case) if peer_python else None
    count = case.samples
    contest.warm()
    for read in ways.values():
        read(contest.windows([0]))
    if peer:
        peer.seconds(0, count)
    speeds: dict[str, list[float]] = {name: [] for name in [*ways, *(["the_well"] if peer else [])]}
    for number in range(1, rounds + 1):
        for place, (name, read) in enumerate(ways.items()):
            # Windows of its own: the second to read the same ones would find them in the processor's cache.
            windows = contest.windows([number, place])
            began = time.perf_counter()
            read(windows)
            speeds[name].append(len(windows) / (time.perf_counter() - began))
        if peer:
            speeds["the_well"].append(count / peer.seconds(number, count))
    if peer:
        peer.close()
    print(f"\n{case.name}: windows of {N_INPUT}+1 steps, {contest._buffer[0].nbytes / 1e6:.2f} MB")
    for name, found in speeds.items():
        share = statistics.median(a / b for a, b in zip(found, speeds["preadv"], strict=True))
        line = f"  {name:24}{statistics.median(found):8.0f} samples/s   {share:6.2f} of preadv"
        if peer:
            line += (
                f"   {statistics.median(a / b for a, b in zip(found, speeds['the_well'], strict=True)):6.1f}x the_well"
            )
        print(line)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer-python", help="python of an environment with the-well==1.2.0")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--folder", type=Path, help="where to keep the files (about 2 GB); default: a temporary folder")
    parser.add_argument("--case", type=int, action="append", help="which cases to run, from 0; default: all")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        for number, case in enumerate(CASES):
            if arguments.case and number not in arguments.case:
                continue
            folder = (arguments.folder or Path(name)) / str(number)
            if not (folder / "stats.yaml").exists():
                make_tree(folder, case)
            compare(folder, case, arguments.peer_python, arguments.rounds)


if __name__ == "__main__":
    main()
