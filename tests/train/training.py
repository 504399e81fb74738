"""Trainings in processes of their own, so that they can be killed and can be several."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from wellkit.errors import WellkitError
from wellkit.schemas.training import TrainConfig, TrainReport
from wellkit.train import Progress, train

# A server that has imported everything and computed nothing: a process forked from it starts at once.
_FORKED = multiprocessing.get_context("forkserver")
_FORKED.set_forkserver_preload([__name__, "accelerate", "wellkit.train.resume"])


def run_apart(config: TrainConfig, to: Path, *, kill_at: str = "", resume: bool = False) -> int:
    """Train in a process of its own; returns its exit status, -9 where it was killed.

    Args:
        kill_at: when the process sends itself SIGKILL, so that nothing is flushed, closed or said: "train:7" after its
            7th batch, "valid:1" after its first validation batch, "epoch:1" after its first epoch, "flush:3" when it
            is about to flush the third file (of a checkpoint, a state, a configuration) that it has written.
    """
    process = _FORKED.Process(target=_train_until, args=(config.to_mapping(), str(to), kill_at, resume))
    process.start()
    process.join(240)
    status = process.exitcode
    process.close()
    assert status is not None
    return status


def _train_until(content: Mapping[str, Any], to: str, kill_at: str, resume: bool) -> None:
    torch.set_num_threads(1)
    event, _, count = kill_at.partition(":")
    left = int(count or 0)

    def count_down(what: str) -> None:
        nonlocal left
        left -= what == event
        if what == event and left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def told(progress: Progress) -> None:
        count_down(progress.phase)

    flush = os.fsync

    def watched(handle: Any) -> None:
        count_down("flush")
        flush(handle)

    os.fsync = watched  # type: ignore[assignment]
    train(TrainConfig.parse(content, source="test"), to, progress=told, resume=resume)


@dataclass(frozen=True)
class Job:
    """A training under torchrun.

    Attributes:
        config, to: as `train` takes them.
        resume: go on with what is there.
        copied: the folder is copied to `<to>-copy` after so many batches of this epoch: what a run that is killed
            then would leave. None for never.
    """

    config: TrainConfig
    to: Path
    resume: bool = False
    copied: tuple[int, int] | None = None

    def written(self) -> dict[str, Any]:
        """As JSON has it."""
        return {"config": self.config.to_mapping(), "to": str(self.to), "resume": self.resume, "copied": self.copied}

    @classmethod
    def read(cls, content: dict[str, Any]) -> Job:
        """From what `written` gave."""
        copied = tuple(content["copied"]) if content["copied"] else None
        return cls(TrainConfig.parse(content["config"], source="test"), Path(content["to"]), content["resume"], copied)

    def outcome(self) -> dict[str, Any]:
        """Do it: `losses` of every step and the `report`, or a known failure as `error`."""
        try:
            losses, report = losses_of(self.config, self.to, resume=self.resume, copied=self.copied)
        except WellkitError as error:
            return {"error": str(error), "told_elsewhere": error.told_elsewhere}
        return {"losses": losses, "report": report.to_mapping()}


def run_under_torchrun(jobs: Sequence[Job], *, processes: int, log: Path) -> list[dict[str, Any]]:
    """Train one job after the other in `processes` processes that torchrun starts.

    Returns:
        Process 0's outcome of each job; those of process n are the lines of `<log>.<n>`.
    """
    log.with_suffix(".jobs").write_text(json.dumps([job.written() for job in jobs]))
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    done = subprocess.run(
        [sys.executable, *command, str(Path(__file__).with_name("torchrun_jobs.py")), str(log)],
        capture_output=True,
        text=True,
        timeout=200,
        cwd=Path(__file__).resolve().parents[2],
    )
    assert done.returncode == 0, done.stderr
    return outcomes(log, 0)


def outcomes(log: Path, process: int) -> list[dict[str, Any]]:
    """What a process of `run_under_torchrun` wrote down."""
    return [json.loads(line) for line in log.with_name(f"{log.name}.{process}").read_text().splitlines()]


def losses_of(
    config: TrainConfig, to: Path, *, resume: bool = False, copied: tuple[int, int] | None = None
) -> tuple[list[float], TrainReport]:
    """Train here: the loss of every step, and the report. `copied` as in `Job`."""
    losses: list[float] = []

    def told(progress: Progress) -> None:
        if progress.phase == "train" and progress.loss is not None:
            losses.append(progress.loss)
            if (progress.epoch, progress.done) == copied:
                shutil.copytree(to, to.with_name(f"{to.name}-copy"))

    report = train(config, to, progress=told, resume=resume)
    return losses, report


def scores_in_log(run: Path) -> list[dict[str, Any]]:
    """The log's lines, without what depends on how fast the machine was."""
    timed = {"seconds", "samples_per_second", "stall_share"}
    lines = (run / "log.jsonl").read_text().splitlines()
    return [{key: value for key, value in json.loads(line).items() if key not in timed} for line in lines]


def weights(run: Path, name: str = "last") -> dict[str, Tensor]:
    """A checkpoint's tensors."""
    return load_file(run / name / "model.safetensors")


def check_identical(first: Path, second: Path) -> None:
    """Both runs have the same log and the same best and last weights, to the last bit."""
    assert scores_in_log(first) == scores_in_log(second)
    for name in ("best", "last"):
        a, b = weights(first, name), weights(second, name)
        assert a.keys() == b.keys()
        assert [key for key in a if not a[key].equal(b[key])] == []
