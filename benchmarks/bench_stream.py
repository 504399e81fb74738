"""Training from a Hub that is 50 ms and 50 MB/s a connection away: wellkit and the_well 1.2, in turns.

    python benchmarks/bench_stream.py --peer-python /path/to/peer/bin/python [--keep FOLDER] [--json FILE]

The Hub is the tests' loopback Hub in a process of its own; all contestants are processes of their own too, and read the
same random windows of 4 + 1 steps, z-scored, in batches of 8. Figures are medians over rounds, ratios medians of the
ratios within a round. Without --peer-python, wellkit runs alone.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from bench_local_read import CASES, N_INPUT, Case, make_tree
from hub_process import HubProcess

from wellkit import WellDataset
from wellkit.index.tree import index_tree

LATENCY, BANDWIDTH, FAR = 0.05, 50e6, 0.25
BATCH = 8
HERE = Path(__file__).resolve().parent
# The tree that is trained on; many small shards; and shards of one size and of ten times that.
STREAM = replace(CASES[0], steps=41, trajectories=4, files=4)
PACKED = replace(STREAM, name="the same, gzip+shuffle", compressed=True, files=2)
MANY = replace(CASES[0], steps=11, trajectories=1, files=72)
SMALL = replace(CASES[0], resolution=(64, 96), steps=11, trajectories=1, files=4)
LARGE = replace(SMALL, trajectories=10)
TREES = {"stream": STREAM, "packed": PACKED, "many": MANY, "small": SMALL, "large": LARGE}
INDEXED = "many_indexed"  # the shards of "many", with an index beside them; the other trees have one too


class Contestant:
    """A process that opens a dataset and reads what it is told."""

    def __init__(self, python: str, script: str, *arguments: str, home: Path, url: str) -> None:
        surroundings = [f"HF_ENDPOINT={url}", f"HF_HOME={home}/huggingface", f"WELLKIT_CACHE={home}/cache"]
        self._process = subprocess.Popen(
            ["env", *surroundings, "OMP_NUM_THREADS=1", python, str(HERE / script), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.opening = float(self._answer())  # seconds

    def _answer(self) -> str:
        assert self._process.stdout is not None
        answer = self._process.stdout.readline().strip()
        if not answer:
            raise RuntimeError(f"{self._process.args!r} ended without an answer")
        return answer

    def _ask(self, line: str) -> str:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        return self._answer()

    def seconds(self, seed: int, count: int) -> float:
        """Time for `count` samples."""
        return float(self._ask(f"{seed} {count}"))

    def digest(self, seed: int, count: int) -> str:
        """A hash of `count` samples."""
        return self._ask(f"{seed} {count} digest")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


class Arena:
    """Where contestants meet: the Hub, the trees it serves, and a fresh home for each process."""

    def __init__(self, hub: HubProcess, trees: Mapping[str, Path], homes: Path, peer_python: str | None) -> None:
        self.hub, self.trees, self.peer_python = hub, trees, peer_python
        self._homes, self._count = homes, 0

    def _home(self) -> Path:
        self._count += 1
        return self._homes / str(self._count)

    def wellkit(self, tree: str, *, local: bool = False, home: Path | None = None, **settings: Any) -> Contestant:
        """wellkit on a tree of the Hub, or on the same files."""
        path = str(self.trees[tree]) if local else f"hf://datasets/bench/{tree}"
        given = json.dumps({"path": path, "n_input": N_INPUT, "batch": BATCH, **settings})
        return Contestant(sys.executable, "own_stream.py", given, home=home or self._home(), url=self.hub.url)

    def the_well(self, tree: str, workers: int) -> Contestant:
        """the_well on a tree of the Hub."""
        assert self.peer_python is not None
        arguments = (f"hf://datasets/bench/{tree}", str(N_INPUT), str(workers), str(BATCH))
        return Contestant(self.peer_python, "peer_stream.py", *arguments, home=self._home(), url=self.hub.url)

    def needed(self, tree: str, seed: int, count: int) -> int:
        """Bytes that a round's windows need: those of each batch's distinct frames."""
        dataset = WellDataset(path=self.trees[tree], well_split_name="train", n_steps_input=N_INPUT, framework="numpy")
        indices = np.random.default_rng(seed).integers(len(dataset), size=count).tolist()
        frame = 4 * int(np.prod(dataset.metadata.spatial_resolution)) * dataset.metadata.n_fields
        total = 0
        for first in range(0, count, BATCH):
            places = [dataset._place(index) for index in indices[first : first + BATCH]]
            total += frame * len(
                {
                    (metadata.file_idx, window.trajectory, window.start + step)
                    for window, metadata in places
                    for step in range(window.n_steps)
                }
            )
        return total


def throughput(arena: Arena, tree: str, rounds: int, samples: int) -> dict[str, Any]:
    """Samples/s of all, bytes moved per byte needed, and what faults cost."""
    speeds: dict[str, list[float]] = {}
    moved: list[float] = []

    def note(name: str, count: int, seconds: float) -> None:
        speeds.setdefault(name, []).append(count / seconds)

    with arena.wellkit(tree) as own, arena.wellkit(tree) as shaken, arena.wellkit(tree, local=True) as local:
        peers = {workers: arena.the_well(tree, workers) for workers in (0, 4)} if arena.peer_python else {}
        for contestant in (own, shaken, local, *peers.values()):
            contestant.seconds(0, BATCH)  # kernels are compiled, connections and workers are there
        same = []
        for seed in range(1, rounds + 1):
            arena.hub.ask(do="count")
            note("wellkit", samples, own.seconds(seed, samples))
            counted = arena.hub.ask(do="count")
            moved.append(counted["bytes"] / arena.needed(tree, seed, samples))
            note("wellkit, local files", samples, local.seconds(seed, samples))
            arena.hub.ask(do="fail", every=5)
            note("wellkit, every 5th request fails", samples, shaken.seconds(seed, samples))
            same.append(shaken.digest(seed, 4 * BATCH) == local.digest(seed, 4 * BATCH))
            arena.hub.ask(do="fail", every=0)
            for workers, peer in peers.items():
                count = BATCH * max(1, workers)
                note(f"the_well, {workers} workers" if workers else "the_well", count, peer.seconds(seed, count))
        for peer in peers.values():
            peer.__exit__(None, None, None)
    found: dict[str, Any] = {
        "samples_per_second": {name: statistics.median(values) for name, values in speeds.items()},
        "moved_per_needed": max(moved),
        "requests_per_sample": counted["requests"] / samples,
        "faulty_share": ratio(speeds["wellkit, every 5th request fails"], speeds["wellkit"]),
        "same_bits_under_faults": all(same),
        "each_round": speeds,
    }
    for name in speeds:
        if name.startswith("the_well"):
            found[f"times {name}"] = ratio(speeds["wellkit"], speeds[name])
    return found


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Median of the rounds' ratios."""
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


def first_batch(arena: Arena, rounds: int) -> dict[str, Any]:
    """Opening 72 shards and reading a batch: seconds, and round trips from two latencies."""
    found: dict[str, Any] = {"with index": [], "without index": [], "the_well": []}
    for _ in range(rounds):
        for name, tree in (("with index", INDEXED), ("without index", "many")):
            found[name].append(_first_batch(arena, tree))
        if arena.peer_python:
            with arena.the_well("many", 0) as peer:
                found["the_well"].append({"seconds": peer.opening + peer.seconds(1, BATCH)})
    result: dict[str, Any] = {
        name: {key: statistics.median(one[key] for one in each) for key in each[0]}
        for name, each in found.items()
        if each
    }
    if arena.peer_python:
        seconds = {name: [one["seconds"] for one in each] for name, each in found.items()}
        result["times sooner than the_well, without index"] = ratio(seconds["the_well"], seconds["without index"])
    return {**result, "each_round": found}


def _first_batch(arena: Arena, tree: str) -> dict[str, float]:
    times = []
    for latency in (LATENCY, FAR):
        arena.hub.ask(do="pace", latency=latency, bandwidth=BANDWIDTH)
        arena.hub.ask(do="count")
        with arena.wellkit(tree) as contestant:
            requests = arena.hub.ask(do="count")["requests"]
            times.append((contestant.opening, contestant.seconds(1, BATCH), contestant.seconds(2, BATCH)))
    arena.hub.ask(do="pace", latency=LATENCY, bandwidth=BANDWIDTH)
    opening, first, second = ((far - near) / (FAR - LATENCY) for near, far in zip(*times, strict=True))
    return {
        "seconds": times[0][0] + times[0][1],
        "opening_requests": requests,
        "round_trips": opening + first,
        "beyond_a_batch": opening + first - second,
    }


def growing_shards(arena: Arena) -> dict[str, int]:
    """Requests for opening, as shards grow tenfold."""
    found = {}
    for tree in ("small", "large"):
        arena.hub.ask(do="count")
        with arena.wellkit(tree):
            found[tree] = arena.hub.ask(do="count")["requests"]
    return found


def second_epoch(arena: Arena, rounds: int, samples: int, folder: Path) -> dict[str, Any]:
    """Windows that are in the cache, beside the same windows of the same files."""
    shares, first = [], []
    with arena.wellkit("stream", cache=str(folder)) as own, arena.wellkit("stream", local=True) as local:
        for seed in range(rounds):
            first.append(samples / own.seconds(seed, samples))
            local.seconds(seed, samples)
        arena.hub.ask(do="count")
        speeds = []
        for seed in range(rounds):
            mine, theirs = own.seconds(seed, samples), local.seconds(seed, samples)
            shares.append(theirs / mine)
            speeds.append(samples / mine)
        requests = arena.hub.ask(do="count")["requests"]
    return {
        "first_epoch": statistics.median(first),
        "second_epoch": statistics.median(speeds),
        "of_local": statistics.median(shares),
        "requests_in_second_epoch": requests,
    }


def main() -> None:
    """Make the trees that are not there, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer-python", help="python of an environment with the-well==1.2.0 and huggingface_hub")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--samples", type=int, default=96, help="of a round")
    parser.add_argument("--keep", type=Path, help="folder for the trees (1.3 GB), used again if they are there")
    parser.add_argument("--part", action="append", choices=("stream", "packed", "first", "growing", "cache"))
    parser.add_argument("--json", type=Path, help="write all figures here")
    arguments = parser.parse_args()
    parts = arguments.part or ["stream", "packed", "first", "growing", "cache"]
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="wellkit-bench-") as name:
        trees = {tree: (arguments.keep or Path(name)) / f"stream_{tree}" for tree in TREES}
        for tree, case in TREES.items():
            prepare(trees[tree], case, indexed=tree != "many")
        trees[INDEXED] = trees["many"].with_name(f"stream_{INDEXED}")
        if not trees[INDEXED].exists():
            shutil.copytree(trees["many"], trees[INDEXED], copy_function=os.link)
            index_tree(trees[INDEXED])
        named = {f"bench/{tree}": folder for tree, folder in trees.items()}
        with HubProcess(named, latency=LATENCY, bandwidth=BANDWIDTH) as hub:
            arena = Arena(hub, trees, Path(name) / "homes", arguments.peer_python)
            for part in parts:
                if part in ("stream", "packed"):
                    results[part] = throughput(arena, part, arguments.rounds, arguments.samples)
                elif part == "first":
                    results[part] = first_batch(arena, arguments.rounds)
                elif part == "growing":
                    results[part] = growing_shards(arena)
                else:
                    cache = Path(name) / "cache"
                    results[part] = second_epoch(arena, arguments.rounds, arguments.samples, cache)
                print(part, json.dumps(results[part], indent=2), flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2) + "\n")


def prepare(folder: Path, case: Case, *, indexed: bool) -> None:
    """Make a tree that is not there."""
    if not (folder / "stats.yaml").exists():  # written last
        make_tree(folder, case)
        if indexed:
            index_tree(folder)


if __name__ == "__main__":
    main()
