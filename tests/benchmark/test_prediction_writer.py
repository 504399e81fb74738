"""Predictions appear whole or not at all."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.benchmark.stored_predictions import (
    DESCRIPTION,
    SHAPE,
    assert_holds,
    values_of,
    write,
)
from wellkit.benchmark.predictions import (
    PredictionsWriter,
    open_predictions,
)
from wellkit.errors import (
    ArgumentError,
    PredictionsError,
    StorageError,
    WellkitError,
    WindowError,
)


@pytest.mark.parametrize("name", ["p", "p.zarr"])
def test_nothing_half_written_is_left(tmp_path: Path, name: str) -> None:
    values = values_of()

    def write_some(path: Path, error: type[Exception] | None) -> None:
        with PredictionsWriter(path, DESCRIPTION) as writer:
            writer.one_step(0, 2, values["one_step", 0][2:5])
            if error is not None:
                raise error

    with pytest.raises(PredictionsError, match="4 of 7 entries of one_step/000000 were never written, the first is 0"):
        write_some(tmp_path / name, None)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ZeroDivisionError):
        write_some(tmp_path / "below" / name, ZeroDivisionError)
    assert list(tmp_path.iterdir()) == []


def test_what_does_not_fit_is_not_written(tmp_path: Path) -> None:
    values = values_of()["one_step", 0]
    cases: list[tuple[tuple[int, int, Any], type[WellkitError], str]] = [
        ((0, 0, values[..., :1]), ArgumentError, r"needed is \(n, \*\(5, 4, 2\)\)"),
        ((0, 0, values[0]), ArgumentError, "values have shape"),
        ((0, 0, np.ones((1, *SHAPE), int)), ArgumentError, "int64"),
        ((0, 0, [[object()]]), ArgumentError, "object"),
        ((0, 0, [[1.0], [1.0, 2.0]]), ArgumentError, "no NumPy array"),
        ((0, 0, torch.ones(1, *SHAPE, requires_grad=True)), ArgumentError, "no NumPy array"),
        ((0, 0, torch.ones(1, *SHAPE, dtype=torch.bfloat16)), ArgumentError, "no NumPy array"),
        ((0, 1, values), WindowError, "written were 1 to 8"),
        ((0, -1, values), WindowError, "written were -1"),
        ((3, 0, values), WindowError, "there are 3 trajectories"),
    ]
    with PredictionsWriter(tmp_path / "p", DESCRIPTION) as out:
        for arguments, kind, told in cases:
            with pytest.raises(kind, match=told):
                out.one_step(*arguments)
        for (part, number), whole in values_of().items():
            (out.one_step if part == "one_step" else out.rollout)(number, 0, whole)
    assert_holds(open_predictions(tmp_path / "p"), values_of())
    with pytest.raises(ArgumentError, match="inside the block"):
        out.one_step(0, 0, values)


def test_what_is_there_is_kept(tmp_path: Path) -> None:
    expected = write(tmp_path / "p").sha256()
    with pytest.raises(ArgumentError, match="is there already"):
        write(tmp_path / "p", seed=1)
    assert open_predictions(tmp_path / "p").sha256() == expected
    with (
        pytest.raises(PredictionsError, match="never written"),
        PredictionsWriter(tmp_path / "p", DESCRIPTION, overwrite=True),
    ):
        pass
    assert open_predictions(tmp_path / "p").sha256() == expected
    assert write(tmp_path / "p", seed=1, overwrite=True).sha256() != expected
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.tex").write_text("years")
    with pytest.raises(ArgumentError, match="holds no predictions"):
        write(tmp_path / "mine", overwrite=True)
    assert (tmp_path / "mine/thesis.tex").read_text() == "years"
    with pytest.raises(StorageError):
        write(tmp_path / "mine/thesis.tex/p")
    with pytest.raises(ArgumentError, match="no name of a folder"):
        write(Path("/"))


CHILD = """
import os, resource, signal, sys
from tests.benchmark.stored_predictions import DESCRIPTION, values_of
from wellkit.benchmark.predictions import PredictionsWriter
from wellkit.errors import WellkitError

limit, ends = int(sys.argv[2]), sys.argv[3]
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    with PredictionsWriter(sys.argv[1], DESCRIPTION) as writer:
        writer.rollout(0, 0, values_of()["rollout", 0])
        if ends == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
except WellkitError as error:
    print(type(error).__name__, error)
"""


def _child(path: Path, limit: int, ends: str) -> subprocess.CompletedProcess[str]:
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-c", CHILD, str(path), str(limit), ends]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", ["p", "p.zarr"])
def test_a_full_disk_is_one_line(tmp_path: Path, name: str) -> None:
    run = _child(tmp_path / name, 900, "limited")
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith("StorageError cannot write")
    assert run.stdout.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_leaves_is_removed_by_the_next(tmp_path: Path) -> None:
    assert _child(tmp_path / "p", 0, "killed").returncode == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".")
    assert_holds(write(tmp_path / "p"), values_of())
    assert [entry.name for entry in tmp_path.iterdir()] == ["p"]
