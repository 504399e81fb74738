"""`wellkit generate` as a user meets it."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

_RUN = "from wellkit.cli.app import main; main()"
_SMALL = ("--resolution", "8x16", "--trajectories", "4", "--steps", "3", "--jobs", "1")
GRAY_SCOTT = "gray_scott_reaction_diffusion"


def wellkit(*arguments: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", _RUN, *arguments], capture_output=True, text=True, timeout=120, check=False, cwd=folder
    )


def test_a_table_on_stdout_and_the_rest_on_stderr(tmp_path: Path) -> None:
    done = wellkit("generate", GRAY_SCOTT, "--to", str(tmp_path), "--parameter", "regime=maze,spots", *_SMALL)
    assert done.returncode == 0
    lines = [line.split() for line in done.stdout.splitlines()]
    assert ["train", "2", "2"] in lines
    assert ["valid", "1", "1"] in lines
    assert ["test", "1", "1"] in lines
    assert done.stderr.startswith("8 x 16 points, 3 frames each, ")
    assert done.stderr.endswith(f"on 1 processes: {tmp_path / GRAY_SCOTT}\n")
    assert len(list((tmp_path / GRAY_SCOTT).rglob("*.hdf5"))) == 4


def test_json(tmp_path: Path) -> None:
    done = wellkit("generate", GRAY_SCOTT, "--to", str(tmp_path), "--seed", "7", "--format", "json", *_SMALL)
    report = json.loads(done.stdout)
    assert (done.returncode, done.stderr) == (0, "")
    assert report["path"] == str(tmp_path / GRAY_SCOTT)
    assert report["resolution"] == [8, 16]
    assert report["trajectories"] == {"train": 2, "valid": 1, "test": 1}
    assert (report["steps"], report["seed"], report["jobs"]) == (3, 7, 1)
    assert report["seconds"] > 0


def test_the_default_base_is_wellkit_data(isolated: Path) -> None:
    assert wellkit("generate", GRAY_SCOTT, *_SMALL).returncode == 0
    assert (isolated / "data" / GRAY_SCOTT / "stats.yaml").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("gray_scott",), "no generator for dataset 'gray_scott'. Did you mean gray_scott_reaction_diffusion?"),
        ((GRAY_SCOTT, "--resolution", "64"), "resolution 64 does not fit gray_scott_reaction_diffusion"),
        ((GRAY_SCOTT, "--resolution", "big"), "resolution 'big' is not of the form 64x192"),
        ((GRAY_SCOTT, "--parameter", "regime"), "parameter 'regime' is not of the form NAME=VALUE,VALUE"),
        ((GRAY_SCOTT, "--parameter", "tcool=1"), "gray_scott_reaction_diffusion has no parameter 'tcool'"),
    ],
)
def test_known_failures_are_one_line(tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    done = wellkit("generate", *arguments, "--to", str(tmp_path / "out"))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"error: {message}")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_unwritable_and_occupied_targets(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    done = wellkit("generate", GRAY_SCOTT, "--to", str(tmp_path / "file"), *_SMALL)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: cannot write {tmp_path / 'file' / GRAY_SCOTT}: Not a directory")
    command = ("generate", GRAY_SCOTT, "--to", str(tmp_path / "out"), *_SMALL)
    assert [wellkit(*command).returncode for _ in range(2)] == [0, 1]
    assert wellkit(*command, "--overwrite").returncode == 0


def test_usage_errors_end_with_2() -> None:
    assert wellkit("generate").returncode == 2
    assert wellkit("generate", GRAY_SCOTT, "--trajectories", "many").returncode == 2


def test_the_example_in_the_help_runs(tmp_path: Path) -> None:
    text = " ".join(wellkit("generate", "--help").stdout.split())
    example = text.partition("Example: ")[2]
    words = shlex.split(example)
    assert words[:3] == ["wellkit", "generate", "turbulent_radiative_layer_2D"]
    # As printed, but fewer frames: the test is about the words.
    done = wellkit(*words[1:], "--steps", "3", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "data" / words[2]).rglob("*.hdf5"))) == 4
