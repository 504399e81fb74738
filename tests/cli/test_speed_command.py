"""`wellkit speed` as a user runs it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.trees import make_tree


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    code = "from wellkit.cli.app import main; main()"
    command = [sys.executable, "-c", code, "speed", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tree(
        tmp_path_factory.mktemp("speed"), files=1, steps=(20,), splits=("train",), plain=True, resolution=(32, 32)
    )


def test_a_table_with_the_roofline_first(tree: Path) -> None:
    done = run(tree, "--workers", "0,2", "--seconds", "0.05", "--cold")
    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines() if " warm " in line or " cold " in line]
    assert [row[0] for row in rows[:8]] == ["preadv,"] * 2 + ["one"] * 2 + ["wellkit.DataLoader"] * 4
    assert "32 of 32 windows of 1 shard" in done.stdout
    assert "cold: 8 that share no frame" in done.stdout


def test_json_and_the_name_of_a_downloaded_dataset(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WELLKIT_DATA", str(tree.parent))
    done = run("made_up", "--workers", "1", "--seconds", "0.05", "--batch-size", "4", "--format", "json")
    assert (done.returncode, done.stderr) == (0, "")
    content = json.loads(done.stdout)
    assert (content["batch_size"], content["windows"], content["split"]) == (4, 32, "train")
    assert [(row["way"], row["workers"]) for row in content["rows"]] == [("one by one", 0), ("wellkit.DataLoader", 1)]
    assert content["roofline"]["warm"] > 0


def test_failures_in_one_line_and_misuse(tree: Path, tmp_path: Path) -> None:
    cases: list[tuple[tuple[str | Path, ...], str]] = [
        ((tmp_path / "none",), "no such folder"),
        (("made_down",), "made_down"),
        ((tree, "--split", "valid"), "no such folder"),
        ((tree, "--steps-input", "50"), "too short"),
        ((tree, "--batch-size", "1000"), "hold 32 windows"),
    ]
    for arguments, complaint in cases:
        done = run(*arguments)
        assert done.returncode == 1
        assert len(done.stderr.splitlines()) == 1
        assert done.stderr.startswith("error: ")
        assert complaint in done.stderr
    done = run(tree, "--workers", "0,two")
    assert done.returncode == 2
    assert "no list of whole numbers" in done.stderr
