"""`wellkit train` of runs that are resumed and of several processes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.cli.commands import Command
from tests.train.advection import NAME

_SMALL = ("--set", "model_arguments.hidden_channels=6", "--set", "model_arguments.lifting_channels=8")


def test_a_run_is_resumed_by_its_folder(base: Path, tmp_path: Path, wellkit: Command) -> None:
    run = tmp_path / "run"
    first = wellkit.told(
        "train", NAME, "--data", base, "--epochs", 1, "--precision", "bf16", "--seed", 3, "--to", run, *_SMALL
    )
    longer = wellkit.told("train", "--resume", run, "--epochs", 2)
    assert (first["steps"], longer["steps"]) == (1, 2)
    assert (longer["seed"], longer["processes"]) == (3, 1)
    assert "learning_rate=1.0 is not that of the run" in wellkit.refused(
        "train", "--resume", run, "--set", "learning_rate=1"
    )
    assert "epochs=1 is smaller than" in wellkit.refused("train", "--resume", run, "--epochs", 1)
    assert "no run to resume here" in wellkit.refused("train", "--resume", tmp_path / "nothing")
    assert "go on with it with --resume" in wellkit.refused("train", NAME, "--data", base, "--to", run)
    assert "needs a CUDA GPU" in wellkit.refused(
        "train", NAME, "--data", base, "--to", tmp_path / "b", "--device", "cpu", "--precision", "fp16"
    )
    assert wellkit("train", "--resume", run, "--to", tmp_path / "b").returncode == 2


def test_two_processes_tell_once(base: Path, tmp_path: Path) -> None:
    command = [str(Path(sys.executable).with_name("wellkit")), "train", NAME, "--data", str(base), "--device", "cpu"]
    command += ["--epochs", "1", "--to", str(tmp_path / "run"), "--format", "json", *_SMALL]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "--no-python"]
    done = subprocess.run([*torchrun, *command], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count('"schema"') == 1
    assert '"processes": 2' in done.stdout
    assert done.stderr.count("epoch 1: training loss") == 1
