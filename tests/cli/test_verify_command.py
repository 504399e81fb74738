"""`wellkit verify` and `wellkit repair` in a pipeline: exit status, one line, JSON alone on stdout."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import wellkit
from tests.hub.server import LoopbackHub
from tests.integrity.trees import REPOSITORY, make_tree

COMMAND = [sys.executable, "-c", "from wellkit.cli.app import main; main()"]
SHARD = "data/train/waves_0.hdf5"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=100)


@pytest.fixture
def tree(hub: LoopbackHub, tmp_path: Path) -> Path:
    hub.add(REPOSITORY, make_tree(tmp_path / "published"))
    return wellkit.download(REPOSITORY, tmp_path).directory


def test_verify_then_repair(hub: LoopbackHub, tree: Path) -> None:
    done = run("verify", str(tree))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{tree}: 4 files of hf://datasets/{REPOSITORY} checked by size and header: 4 right\n"
    (tree / SHARD).write_bytes(b"<html>503 Service Unavailable</html>")
    done = run("verify", str(tree), "--deep")
    assert (done.returncode, done.stderr) == (1, f"next: wellkit repair {tree}\n")
    assert "1 wrong" in done.stdout
    assert SHARD in done.stdout
    done = run("repair", str(tree), "--dry-run", "--fast")
    assert done.returncode == 0
    assert "to be fetched; nothing was written" in done.stdout
    assert (tree / SHARD).read_bytes().startswith(b"<html>")
    done = run("repair", str(tree), "--format", "json")
    assert [(file["path"], file["action"]) for file in json.loads(done.stdout)["files"]] == [(SHARD, "replace")]
    assert run("repair", str(tree)).stdout == f"{tree}: 4 files checked, nothing to repair\n"


def test_json(tree: Path, tmp_path: Path) -> None:
    done = run("verify", str(tree), "--format", "json")
    report = json.loads(done.stdout)
    assert (done.returncode, report["ok"], report["totals"]["right"]) == (0, True, 4)
    (tree / SHARD).unlink()
    done = run("verify", str(tree), "--format", "json")
    report = json.loads(done.stdout)
    assert (done.returncode, report["ok"], report["totals"]["missing"]) == (1, False, 1)
    (tree / ".wellkit/manifest.json").unlink()
    done = run("verify", str(tree))
    assert (done.returncode, done.stdout) == (1, "")
    assert "has no manifest" in done.stderr
    done = run("verify", str(tree), "--adopt", "--repository", REPOSITORY)
    assert (done.returncode, done.stderr) == (0, "")
    assert "checked by hash, against the Hub: 3 right" in done.stdout


def test_statistics_computed_anew_are_recorded(tree: Path) -> None:
    done = run("stats", str(tree), "--write", "--overwrite")
    assert done.returncode == 0, done.stderr
    assert run("verify", str(tree), "--deep").returncode == 0
    (tree / "stats.yaml").write_text((tree / "stats.yaml").read_text().replace("mean:", "mean: #", 1))
    assert run("verify", str(tree)).returncode == 1


@pytest.mark.parametrize("command", ["verify", "repair"])
def test_help_ends_with_an_example(command: str) -> None:
    assert f"Example: wellkit {command} data/turbulent_radiative_layer_2D" in run(command, "--help").stdout
