"""Samples and batches as a training run gets them: wellkit and the_well 1.2 on the same files, in turns.

    python benchmarks/bench_loader.py --peer-python /path/to/peer/bin/python [--keep FOLDER] [--json FILE]

Every round, all ways read the same windows: `dataset[i]` of both; batches of 8 through wellkit.DataLoader without
threads, compared with `dataset[i]` of the_well, since both are one process that waits; batches of 8 of the_well's
dataset through torch's DataLoader with 2 workers, of wellkit's through wellkit.DataLoader with 2 threads and through
torch's with 2 workers; and preadv of the windows' stored bytes into a reused buffer. Fields are z-scored. Figures are
medians over rounds, ratios medians of the ratios within a round, so that they hold on a machine that others use too.
Without --peer-python, wellkit is compared with preadv alone.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from bench_local_read import CASES, N_INPUT, Case, Peer, make_tree

from wellkit import WellDataset
from wellkit.loaders.ways import Items, ThreadLoader, TorchLoader, Way
from wellkit.readers.roofline import Roofline, StoredWindow, stored_window

BATCH, WORKERS = 8, 2
# Trees of at most 700 MB; samples of a round for the fast ways, and for the_well's dataset.
TREES: tuple[tuple[Case, int, int], ...] = (
    (replace(CASES[0], trajectories=4), 96, 16),
    (CASES[1], 48, 16),
    (CASES[2], 32, 8),
    (CASES[3], 192, 32),
)
PREADV = "preadv"
ITEMS, BATCHES, THREADS, PROCESSES = (
    "wellkit dataset[i]",
    "wellkit.DataLoader, no threads of its own",
    "wellkit.DataLoader, 2 threads",
    "torch DataLoader over wellkit, 2 workers",
)
PEER_ITEMS, PEER_LOADER = "the_well dataset[i]", "torch DataLoader over the_well, 2 workers"
RIVAL = {ITEMS: PEER_ITEMS, BATCHES: PEER_ITEMS, THREADS: PEER_LOADER, PROCESSES: PEER_LOADER}


@dataclass
class Contest:
    """One tree's contestants: each a function of a seed and a number of samples that says how long it took."""

    ways: dict[str, Callable[[int, int], float]]
    closing: list[Callable[[], None]]


def stored_windows(dataset: WellDataset) -> Callable[[int], StoredWindow]:
    """Where windows lie, by number; each looked up once."""
    known: dict[int, StoredWindow] = {}

    def find(index: int) -> StoredWindow:
        if index not in known:
            spec, metadata = dataset._place(index)
            request = dataset._assembler(metadata.file_idx).request(spec)
            assert request is not None
            known[index] = stored_window(request, dataset.metadata.spatial_resolution)
        return known[index]

    return find


def enter(folder: Path, case: Case, peer_python: str | None) -> Contest:
    """Open the tree in every way."""
    dataset = WellDataset(
        path=str(folder),
        well_split_name="train",
        use_normalization=True,
        n_steps_input=N_INPUT,
        n_steps_output=1,
    )
    find = stored_windows(dataset)

    def draw(seed: int, count: int) -> list[int]:
        drawn: list[int] = np.random.default_rng(seed).integers(len(dataset), size=count).tolist()
        return drawn

    def timed(way: Way) -> Callable[[int, int], float]:
        def read(seed: int, count: int) -> float:
            indices = draw(seed, count)
            batches = [indices[first : first + BATCH] for first in range(0, count, BATCH)]
            began = time.perf_counter()
            way.read(batches, lambda: None)
            return time.perf_counter() - began

        return read

    def preadv(seed: int, count: int) -> float:
        windows = [find(index) for index in draw(seed, count)]
        roofline = Roofline(windows)
        roofline.read(windows[:1])  # the buffer's memory is there, the files are open
        began = time.perf_counter()
        roofline.read(windows)
        return time.perf_counter() - began

    own: dict[str, Way] = {
        ITEMS: Items(dataset, 0),
        BATCHES: ThreadLoader(dataset, 0),
        THREADS: ThreadLoader(dataset, WORKERS),
        PROCESSES: TorchLoader(dataset, WORKERS),
    }
    ways = {PREADV: preadv, **{name: timed(way) for name, way in own.items()}}
    closing = [way.close for way in own.values()]
    if peer_python:
        for name, workers, batch in ((PEER_ITEMS, 0, 1), (PEER_LOADER, WORKERS, BATCH)):
            peer = Peer(peer_python, folder, replace(case, workers=workers, batch=batch))
            ways[name] = peer.seconds
            closing.append(peer.close)
    return Contest(ways, closing)


def compete(folder: Path, case: Case, samples: int, few: int, peer_python: str | None, rounds: int) -> dict[str, Any]:
    """All rounds on one tree: samples/s by way and round, and the medians of their ratios."""
    contest = enter(folder, case, peer_python)
    # the_well takes its time; its loader gets batches enough for both workers to be busy twice over.
    counts = {**dict.fromkeys(contest.ways, samples), PEER_ITEMS: few, PEER_LOADER: 2 * BATCH * WORKERS}
    try:
        for name, read in contest.ways.items():
            read(0, counts[name])
        speeds: dict[str, list[float]] = {name: [] for name in contest.ways}
        for number in range(1, rounds + 1):
            for name, read in contest.ways.items():
                speeds[name].append(counts[name] / read(number, counts[name]))
    finally:
        for close in contest.closing:
            close()
    found: dict[str, Any] = {"tree": case.name, "rounds": rounds, "ways": {}}
    for name, own in speeds.items():
        rival = RIVAL.get(name, "")
        found["ways"][name] = {
            "samples_per_second": statistics.median(own),
            "of_preadv": median_ratio(own, speeds[PREADV]),
            "times_the_well": median_ratio(own, speeds[rival]) if rival in speeds else None,
            "each_round": own,
        }
    return found


def median_ratio(ours: list[float], theirs: list[float]) -> float:
    """Median of the rounds' ratios."""
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


def show(found: dict[str, Any]) -> None:
    """One tree as a table."""
    print(f"\n{found['tree']}, windows of {N_INPUT}+1 steps, {found['rounds']} rounds", flush=True)
    for name, row in found["ways"].items():
        line = f"  {name:44}{row['samples_per_second']:8.0f} samples/s  {row['of_preadv']:6.2f} of preadv"
        if row["times_the_well"] is not None:
            line += f"  {row['times_the_well']:6.1f}x the_well"
        print(line, flush=True)


def main() -> None:
    """Make the trees that are not there, let all ways compete, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer-python", help="python of an environment with the-well==1.2.0")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--keep", type=Path, help="folder for the trees (1.5 GB), used again if they are there")
    parser.add_argument("--case", type=int, action="append", help="which trees, from 0; default: all")
    parser.add_argument("--json", type=Path, help="write every round's figures here")
    arguments = parser.parse_args()
    results = []
    with tempfile.TemporaryDirectory(prefix="wellkit-bench-") as name:
        for number, (case, samples, few) in enumerate(TREES):
            if arguments.case and number not in arguments.case:
                continue
            folder = (arguments.keep or Path(name)) / f"loader_{number}"
            if not (folder / "stats.yaml").exists():  # written last
                make_tree(folder, case)
                os.sync()  # or the disk would still be at it while the first rounds run
            results.append(compete(folder, case, samples, few, arguments.peer_python, arguments.rounds))
            show(results[-1])
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
