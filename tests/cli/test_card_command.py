"""`wellkit card infer`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.trees import make_tree
from wellkit.catalog.files import parse_card


def run(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from wellkit.cli.app import main; main()", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_card_goes_to_stdout_or_to_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = make_tree(tmp_path / "data")
    done = run("card", "infer", tree)
    assert (done.returncode, done.stderr) == (0, "")
    card = parse_card(done.stdout, source="stdout")
    assert card.name == "made_up"
    assert json.loads(run("card", "infer", tree, "--format", "json").stdout)["name"] == "made_up"
    done = run("card", "infer", tree, "--to", tree)  # card.yaml in the folder
    assert (done.returncode, done.stdout) == (0, "")
    assert parse_card((tree / "card.yaml").read_text(), source="file") == card
    monkeypatch.setenv("WELLKIT_CATALOG", str(tmp_path / "data"))
    assert "made up" in run("info", "made_up").stdout


def test_refusals_are_one_line(tmp_path: Path) -> None:
    tree = make_tree(tmp_path, files=1, splits=("train",))
    (tmp_path / "card.yaml").write_text("mine")
    for words, message in (
        (("--to", tmp_path / "card.yaml"), "is there already; replace it with --overwrite"),
        (("--name", "no name"), "cannot be a dataset's name"),
        (("--to", tmp_path / "card.yaml" / "below"), "not a folder"),
    ):
        done = run("card", "infer", tree, *words)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
        assert message in done.stderr
    assert (tmp_path / "card.yaml").read_text() == "mine"
    assert run("card", "infer", tree, "--to", tmp_path / "card.yaml", "--overwrite").returncode == 0
    assert run("card", "infer", tmp_path / "none").returncode == 1
    assert "Example: wellkit card infer" in run("card", "infer", "--help").stdout
