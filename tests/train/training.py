"""Trainings in processes of their own, so that they can be killed and can be several."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from wellkit.schemas.training import TrainConfig

ROOT = Path(__file__).resolve().parents[2]

# `kill_at` ends the process as SIGKILL does: nothing is flushed, closed or said, and files are as they are. It is sent
# between two batches ("train:7": after 7 of this process), or in the middle of writing a file ("write:3": the third
# file of a checkpoint, state, configuration or log line that is flushed).
_SCRIPT = """
import json, os, signal, sys
import torch
torch.set_num_threads(1)
from wellkit.schemas.training import TrainConfig
from wellkit.train import train

content, to, options, kill_at = json.loads(sys.argv[1])
when, _, count = kill_at.partition(":")
left = int(count or 0)

def count_down(kind):
    global left
    if kind == when:
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

if when == "write":
    flush = os.fsync
    def watched(handle):
        count_down("write")
        flush(handle)
    os.fsync = watched
report = train(TrainConfig.parse(content, source="test"), to, progress=lambda p: count_down(p.phase), **options)
print(json.dumps(report.to_mapping()))
"""


def start(
    config: TrainConfig, to: Path, *, processes: int = 1, kill_at: str = "", **options: Any
) -> subprocess.CompletedProcess[str]:
    """Train in a process of its own, or in several under torchrun."""
    arguments = ["-c", _SCRIPT]
    if processes > 1:
        script = to.with_name(f"{to.name}.py")
        script.write_text(_SCRIPT)
        arguments = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes), str(script)]
    content = json.dumps([config.to_mapping(), str(to), options, kill_at])
    return subprocess.run(
        [sys.executable, *arguments, content],
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},  # noqa: TID251 - for a process of its own
    )


def scores_in_log(run: Path) -> list[dict[str, Any]]:
    """The log's lines, without what depends on how fast the machine was."""
    timed = {"seconds", "samples_per_second", "stall_share"}
    lines = (run / "log.jsonl").read_text().splitlines()
    return [{key: value for key, value in json.loads(line).items() if key not in timed} for line in lines]


def weights(run: Path, name: str = "last") -> dict[str, Tensor]:
    """A checkpoint's tensors."""
    return load_file(run / name / "model.safetensors")


def identical(runs: Sequence[Path]) -> bool:
    """Whether two runs have the same log and the same weights, to the last bit."""
    first, second = runs
    same_log = scores_in_log(first) == scores_in_log(second)
    return same_log and all(
        (a := weights(first, name)).keys() == (b := weights(second, name)).keys()
        and all(a[key].equal(b[key]) for key in a)
        for name in ("best", "last")
    )
