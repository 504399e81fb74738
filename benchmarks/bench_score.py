"""Scores of stored predictions: wellkit, the_well's dataset and metric, and the bytes just read, in turns.

    python benchmarks/bench_score.py [--peer-python /path/to/peer/bin/python] [--rounds 3] [--json FILE]

A tree of 128x384 points, 4 components, and predictions of persistence as .npy files. wellkit scores every window and
every rollout step under a protocol, checks and hashes the data, from one process and from two; the peer is a script as
people write it, which scores every window with the_well's VRMSE. Figures are frames scored per second; the limit is the
time that reading predictions and data once takes. Ratios are medians of those within a round. Memory is wellkit's peak,
anonymous, over one pass, beside that of a tree of twice the frames.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from bench_local_read import CASES, N_INPUT, make_tree

from wellkit.benchmark.evaluate import evaluate

CASE = replace(CASES[0], steps=41, trajectories=4, files=1)
_PEAK = """
import resource, sys
from wellkit.benchmark.evaluate import evaluate
evaluate(sys.argv[1], data=sys.argv[2], split="train", device="cpu", protocol="wellkit-1")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def prepared(base: Path, steps: int) -> tuple[Path, Path]:
    """(folder of the data, predictions of persistence)."""
    data = base / f"of_{steps}"
    make_tree(data / "bench", replace(CASE, steps=steps))
    evaluate(
        "persistence",
        data=data,
        dataset="bench",
        split="train",
        device="cpu",
        n_steps_input=N_INPUT,
        save_predictions=base / f"predictions_{steps}",
    )
    return data, base / f"predictions_{steps}"


def read_all(data: Path, predictions: Path) -> None:
    """Read every byte of both, a MiB at a time."""
    buffer = bytearray(1 << 20)
    for path in (*data.rglob("*.hdf5"), *predictions.rglob("*.npy")):
        with open(path, "rb", buffering=0) as file:
            while file.readinto(buffer):
                pass


def main() -> None:
    """Make data and predictions in a temporary folder, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer-python", type=Path, help="interpreter of an environment with the_well")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write every round's figures here")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="wellkit-bench-") as name:
        data, predictions = prepared(Path(name), CASE.steps)
        frames = sum(len(np.load(path, mmap_mode="r")) for path in predictions.rglob("*.npy"))
        windows = sum(len(np.load(path, mmap_mode="r")) for path in (predictions / "one_step").glob("*.npy"))
        ways: dict[str, tuple[int, Callable[[], None]]] = {
            "reading the bytes": (frames, lambda: read_all(data, predictions))
        }
        for protocol in ("well-2024", "wellkit-1"):
            for jobs in (1, 2):

                def score(protocol: str = protocol, jobs: int = jobs) -> None:
                    evaluate(predictions, data=data, split="train", device="cpu", protocol=protocol, jobs=jobs)

                ways[f"wellkit {protocol}, {jobs} process{'es' * (jobs > 1)}"] = (frames, score)
        peer = None
        if arguments.peer_python is not None:
            script = Path(__file__).with_name("peer_score.py")
            peer = subprocess.Popen(
                [arguments.peer_python, script, data / "bench", str(N_INPUT), predictions],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            )  # fmt: skip
            assert peer.stdin is not None
            assert peer.stdout is not None
            talk, told = peer.stdin, peer.stdout
            told.readline()

            def ask() -> None:
                talk.write("go\n")
                talk.flush()
                told.readline()

            ways["the_well"] = (windows, ask)
        speeds: dict[str, list[float]] = {way: [] for way in ways}
        for number in range(arguments.rounds + 1):
            for way, (count, run) in ways.items():
                began = time.perf_counter()
                run()
                if number:  # the first round compiles and opens
                    speeds[way].append(count / (time.perf_counter() - began))
        if peer is not None:
            talk.close()
            peer.wait()
        print(f"{windows} windows, {frames} frames with rollouts, {os.cpu_count()} cores")
        for way, found in speeds.items():
            line = f"{way:34s} {statistics.median(found):7.0f} frames/s"
            for rival in ("the_well", "reading the bytes"):
                if rival in speeds and rival != way:
                    ratio = statistics.median(own / other for own, other in zip(found, speeds[rival], strict=True))
                    line += f"   {ratio:5.2f} of {rival}"
            print(line)
        peaks = []
        for steps in (CASE.steps, 2 * CASE.steps):
            folder, made = (data, predictions) if steps == CASE.steps else prepared(Path(name), steps)
            done = subprocess.run(
                [sys.executable, "-c", _PEAK, made, folder], capture_output=True, text=True, check=True
            )
            peaks.append(int(done.stdout) / 1024)
        print(f"peak resident memory {peaks[0]:.0f} MB; with twice the frames {peaks[1]:.0f} MB")
        if arguments.json is not None:
            arguments.json.write_text(json.dumps({"speeds": speeds, "peaks_mb": peaks}, indent=1) + "\n")


if __name__ == "__main__":
    main()
