"""Grids: every cell trained, scored and recomputed; stopped and gone on with; sent."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.train.advection import NAME
from wellkit.benchmark import leaderboard
from wellkit.benchmark.cells import cells_of
from wellkit.benchmark.grid import run_benchmark
from wellkit.benchmark.grid_config import load_grid
from wellkit.benchmark.results import load_result
from wellkit.errors import (
    ArgumentError,
    ConfigError,
    DataNotFoundError,
    DocumentError,
    DocumentVersionError,
    ScoreError,
    StorageError,
)
from wellkit.schemas.benchmark import BenchmarkConfig
from wellkit.train.progress import Progress

SMALL = {
    "hidden_channels": 4,
    "lifting_channels": 4,
    "projection_channels": 4,
    "modes1": 4,
    "modes2": 4,
}


class Notes:
    """A watcher that remembers."""

    def __init__(self) -> None:
        self.cells: list[tuple[str, str]] = []
        self.failures: list[str] = []
        self.batches = 0

    def cell(self, number: int, total: int, label: str, what: str) -> None:
        self.cells.append((label, what))

    def working(self, progress: Progress) -> None:
        self.batches += 1

    def failed(self, label: str, reason: str) -> None:
        self.failures.append(label)


def make_grid(base: Path, *, seeds: Sequence[int] = (0, 1), **changes: Any) -> BenchmarkConfig:
    values = {
        "datasets": (NAME,),
        "data": str(base),
        "models": [{"model": "fno", "training": {"model_arguments": SMALL}}],
        "seeds": tuple(seeds),
        "protocols": ("wellkit-1", "well-2024"),
    }
    training = {"epochs": 1, "batch_size": 12, "device": "cpu"}
    return load_grid(values={**values, **changes}, training=training)


def test_a_grid_is_trained_scored_and_recomputed(advection: Path, tmp_path: Path) -> None:
    notes = Notes()
    report = run_benchmark(make_grid(advection), tmp_path, notes)
    assert report.failures == ()
    assert len(report.results) == (2 + 2) * 2
    entries = leaderboard.read(report.board)
    assert {entry.status for entry in entries} == {"recomputed"}
    assert {entry.result.sha256 for entry in entries} == {result.sha256 for result in report.results}
    assert not (tmp_path / "predictions").exists() or not list((tmp_path / "predictions").rglob("*.npy"))
    again = Notes()
    repeated = run_benchmark(make_grid(advection), tmp_path, again)
    assert {what for _, what in again.cells} == {"kept"}
    assert [r.sha256 for r in repeated.results] == [r.sha256 for r in report.results]
    # Another seed and protocol come to what is there; another configuration does not.
    more = run_benchmark(make_grid(advection, seeds=(0, 1, 2)), tmp_path, Notes())
    assert len(more.results) == (2 + 3) * 2
    with pytest.raises(ConfigError, match=r"holds another grid: split is not what it was"):
        run_benchmark(make_grid(advection, split="valid"), tmp_path, Notes())
    other = [{"model": "fno", "training": {"learning_rate": 1.0, "model_arguments": SMALL}}]
    with pytest.raises(ConfigError, match=r"another grid: model fno is not what it was"):
        run_benchmark(make_grid(advection, models=other), tmp_path, Notes())
    # A result that was tampered with, or is gone from the board, is made anew.
    cell = cells_of(make_grid(advection))[2]
    path = cell.result(tmp_path, "wellkit-1")
    path.write_text(path.read_text().replace('"seed": 0', '"seed": 7', 1))
    third = Notes()
    run_benchmark(make_grid(advection), tmp_path, third)
    assert [label for label, what in third.cells if what == "scoring"] == [f"{NAME}/fno-seed0 wellkit-1"]
    assert load_result(path).model.seed == 0


def test_a_cell_that_fails_does_not_stop_the_others(advection: Path, tmp_path: Path) -> None:
    models = [
        {"model": "fno", "label": "wild", "training": {"learning_rate": 1e30, "model_arguments": SMALL}},
        {"model": "fno", "training": {"model_arguments": SMALL}},
    ]
    notes = Notes()
    report = run_benchmark(make_grid(advection, models=models, seeds=(0,)), tmp_path, notes)
    (failure,) = report.failures
    assert "training diverged" in failure.reason
    assert notes.failures == [f"{NAME}/wild-seed0"]
    assert len(report.results) == 3 * 2
    with pytest.raises(ScoreError, match="nothing could be scored"):
        run_benchmark(make_grid(tmp_path, models=models[1:], seeds=(0,)), tmp_path / "none", Notes())


def test_a_submission_scores_again(advection: Path, tmp_path: Path) -> None:
    run_benchmark(make_grid(advection, seeds=(0,)), tmp_path / "grid", Notes())  # predictions were not kept
    report = run_benchmark(make_grid(advection, seeds=(0,)), tmp_path / "grid", Notes(), submit=tmp_path / "sent")
    assert report.submission == tmp_path / "sent"
    sent = json.loads((tmp_path / "sent" / "submission.json").read_text())
    for name, digest in sent["files"].items():
        assert hashlib.sha256((tmp_path / "sent" / name).read_bytes()).hexdigest() == digest
    shutil.rmtree(tmp_path / "grid")
    board = tmp_path / "board.jsonl"
    for item in sent["results"]:
        predictions = item.get("predictions")
        leaderboard.add(
            [tmp_path / "sent" / item["result"]],
            board,
            predictions=None if predictions is None else tmp_path / "sent" / predictions,
            data=advection,
        )
    assert [entry.status for entry in leaderboard.read(board)] == ["recomputed"] * 6
    readme = (tmp_path / "sent" / "README.md").read_text()
    assert f"--predictions predictions/{NAME}/fno-seed0.wellkit-1 --data DATA" in readme
    with pytest.raises(ArgumentError, match="is there already"):
        run_benchmark(make_grid(advection, seeds=(0,)), tmp_path / "grid", Notes(), submit=tmp_path / "sent")


def test_a_killed_grid_goes_on(advection: Path, tmp_path: Path) -> None:
    whole = run_benchmark(make_grid(advection, seeds=(0,)), tmp_path / "whole", Notes())
    folder = tmp_path / "killed"
    command = [
        *(sys.executable, "-m", "wellkit.cli", "benchmark", NAME, "--data", str(advection), "--to", str(folder)),
        *("--model", "fno", "--protocol", "wellkit-1", "--protocol", "well-2024", "--epochs", "1"),
        *("--set", "batch_size=12", "--set", "device=cpu"),
        *(part for key, value in SMALL.items() for part in ("--set", f"model_arguments.{key}={value}")),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}  # noqa: TID251 - for a process of its own
    for waited in ("runs", "results"):
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None and not (folder / waited).exists():
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
    done = subprocess.run([*command, "--format", "json"], env=environment, capture_output=True, text=True, check=True)
    found = {(r["model"]["name"], r["protocol"]["name"]): r for r in json.loads(done.stdout)["results"]}
    for result in whole.results:
        again = found[result.model.name, result.protocol.name]
        assert again["one_step"]["mean"] == result.one_step.mean
        assert again["model"].get("weights_sha256") == result.model.weights_sha256


def test_what_makes_no_sense_is_told_before_anything_runs(advection: Path, tmp_path: Path) -> None:
    for changes, why in (
        ({"protocols": ("wellkit-9",)}, "protocol 'wellkit-9' is unknown here"),
        ({"models": [{"model": "fn0"}]}, "model 'fn0' is unknown"),
        ({"models": [{"model": "fno", "training": {"epoch": 3}}]}, "unknown key 'epoch'.*Did you mean epochs"),
        ({"models": [{"model": "fno", "training": {"seed": 3}}]}, "names 'seed', which the grid itself sets"),
        ({"models": [{"model": "fno"}, {"model": "fno"}]}, "give one a label"),
        ({"models": [{"model": "fno", "label": "../out"}]}, "label"),
        ({"seeds": (0, 0)}, "seeds repeat"),
        ({"seed": (0,)}, "unknown key 'seed'.*Did you mean seeds"),
    ):
        with pytest.raises((ConfigError, ArgumentError), match=why):
            run_benchmark(make_grid(advection, **changes), tmp_path / "grid", Notes())
    assert not (tmp_path / "grid").exists()
    with pytest.raises(ConfigError, match="processes=0"):
        run_benchmark(make_grid(advection), tmp_path / "grid", Notes(), processes=0)
    with pytest.raises(DataNotFoundError, match="no such configuration file"):
        load_grid(tmp_path / "none.toml")
    (tmp_path / "grid.toml").write_text('schema = "wellkit/benchmark-config/9"\n')
    with pytest.raises(DocumentVersionError, match="version unknown"):
        load_grid(tmp_path / "grid.toml")


def test_a_damaged_board_is_told_before_anything_runs(advection: Path, tmp_path: Path) -> None:
    (tmp_path / "leaderboard.jsonl").write_text("{half a li\n")
    notes = Notes()
    with pytest.raises(DocumentError, match=r"leaderboard\.jsonl, line 1: not JSON"):
        run_benchmark(make_grid(advection), tmp_path, notes)
    assert not notes.cells
    assert not notes.failures


def test_a_submission_that_cannot_be_written_is_told_before_anything_runs(advection: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "full").mkdir()
    (tmp_path / "full/notes.txt").touch()
    for submit, error, why in (
        ("full", ArgumentError, "is there already"),
        ("file", StorageError, "a part of the path is a file"),
        ("file/below", StorageError, "a part of the path is a file"),
    ):
        with pytest.raises(error, match=why):
            run_benchmark(make_grid(advection), tmp_path / "bench", Notes(), submit=tmp_path / submit)
    assert not (tmp_path / "bench").exists()


def test_a_grid_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "grid.toml"
    path.write_text(
        'schema = "wellkit/benchmark-config/1"\ndatasets = ["advection"]\ndata = "data"\nseeds = [0, 1]\n'
        '[training]\nepochs = 2\nbatch_size = 16\n[[models]]\nmodel = "fno"\ntraining.learning_rate = 4e-3\n'
        '[[models]]\nmodel = "unet_convnext"\nlabel = "unet"\ntraining.model_arguments = { init_features = 12 }\n'
    )
    cells = cells_of(load_grid(path, overrides=["batch_size=4"], training={"epochs": None}))
    assert [cell.label for cell in cells] == [
        *(f"advection/{name}" for name in ("persistence", "mean")),
        *(f"advection/{name}-seed{seed}" for name in ("fno", "unet") for seed in (0, 1)),
    ]
    config = cells[4].config
    assert config is not None
    assert (config.model, config.seed, config.batch_size, config.epochs) == ("unet_convnext", 0, 4, 2)
    assert config.model_arguments == {"init_features": 12}
    path.write_text('schema = "wellkit/benchmark-config/1"\ndatasets = ["advection"]\ntraining = 5\n')
    with pytest.raises(ConfigError, match=r"'training' is a int; give a table"):
        load_grid(path)
