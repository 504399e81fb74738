"""`wellkit index` as a user runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from tests.trees import make_tree
from wellkit.index.file import index_path


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    code = "from wellkit.cli.app import main; main()"
    command = [sys.executable, "-c", code, "index", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return make_tree(tmp_path, files=1)


def test_a_row_for_each_split_and_the_index_beside_them(tree: Path) -> None:
    done = run(tree)
    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines() if line.strip().startswith("data/")]
    assert [row[:4] for row in rows] == [[f"data/{split}", "1", "17", "17"] for split in ("test", "train", "valid")]
    size = index_path(tree).stat().st_size
    assert done.stderr == f"note: written to {index_path(tree)} ({size} bytes)\n"
    checked = run(tree, "--check")
    assert (checked.returncode, checked.stderr) == (0, "")


def test_json_and_what_needs_libhdf5(tree: Path) -> None:
    with h5py.File(tree / "data" / "train" / "made_up_part_0.hdf5", "r+") as file:
        file.create_dataset("extra", data=np.arange(40_000.0), chunks=(1000,), compression="lzf")
    content = json.loads(run(tree, "--format", "json", "--jobs", "1").stdout)
    assert content["written"] == str(index_path(tree))
    shards = {shard["path"]: shard for shard in content["shards"]}
    shard = shards["data/train/made_up_part_0.hdf5"]
    assert shard["fallbacks"] == {"extra": "filter lzf"}
    assert shard["bytes"] == (tree / "data/train/made_up_part_0.hdf5").stat().st_size
    assert "read through libhdf5: extra (filter lzf) in 1 shards" in run(tree).stdout


def test_a_damaged_shard_is_named_and_nothing_written_unless_asked(tree: Path) -> None:
    victim = tree / "data" / "valid" / "made_up_part_0.hdf5"
    os.truncate(victim, 5000)
    done = run(tree)
    assert done.returncode == 1
    assert f"error: {victim}: cannot be indexed (the file is truncated)" in done.stderr
    assert "no index was written" in done.stderr
    assert "Traceback" not in done.stderr
    assert not index_path(tree).exists()
    done = run(tree, "--keep-going")
    assert done.returncode == 1
    assert f"error: {victim}" in done.stderr
    assert index_path(tree).exists()


def test_names_and_what_is_not_there(tree: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WELLKIT_DATA", str(tree.parent))
    assert run("made_up").returncode == 0
    assert index_path(tree).exists()
    cases: list[tuple[tuple[str | Path, ...], str]] = [
        (("made_down",), "holds no dataset of that name. Did you mean made_up?"),
        ((tmp_path / "none",), "no such folder"),
        ((tree / "stats.yaml",), "is a file; give the folder it lies in"),
        (("hf://datasets/a/b",), "an index cannot be written beside it; write one with --publish-to DIR"),
        ((tree / "data" / "train", "--check"), "no index that can be used; write one with `wellkit index"),
    ]
    for arguments, complaint in cases:
        done = run(*arguments)
        assert done.returncode == 1
        assert len(done.stderr.splitlines()) == 1
        assert done.stderr.startswith("error: ")
        assert complaint in done.stderr
    assert run(tree, "--jobs", "0").returncode == 2


def test_an_index_to_publish(tree: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = run(tree, "--publish-to", out, "--name", "mine", "--format", "json")
    assert done.returncode == 0, done.stderr
    paths = [out / "mine" / "index.bin", out / "mine" / "manifest.json", out / "README.md"]
    assert json.loads(done.stdout)["written"] == [str(path) for path in paths]
    assert all(path.is_file() for path in paths)
    assert not index_path(tree).exists()
    for arguments in (("--publish-to", out, "--check"), ("--name", "mine")):
        refused = run(tree, *arguments)
        assert refused.returncode == 2
        assert "--publish-to" in refused.stderr
    remote = run("https://example.org/nothing")
    assert (remote.returncode, remote.stdout) == (1, "")
    assert "--publish-to" in remote.stderr
