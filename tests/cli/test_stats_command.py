"""`wellkit stats` as a user runs it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from tests.trees import make_tree
from wellkit.statistics import compute_statistics, load_statistics


def run(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    code = "from wellkit.cli.app import main; main()"
    command = [sys.executable, "-c", code, "stats", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tree(tmp_path_factory.mktemp("tree"), files=1)


def fails(result: subprocess.CompletedProcess[str], *words: str) -> None:
    assert result.returncode == 1
    last = result.stderr.strip().splitlines()
    assert last[-1].startswith("error: ")
    assert "Traceback" not in result.stderr
    for word in words:
        assert word in last[-1]


def test_a_table_with_a_row_for_each_component(tree: Path) -> None:
    result = run(tree, cwd=tree)
    assert result.returncode == 0
    assert result.stderr == ""
    rows = {line.split()[0]: line.split()[1:] for line in result.stdout.splitlines() if line.split()}
    found = compute_statistics(tree)
    mean, std = found.mean["velocity"], found.std["velocity"]
    assert rows["velocity[1]"][:2] == [f"{mean[1]:.6g}", f"{std[1]:.6g}"]  # type: ignore[index]
    assert rows["mask"][3:] == ["-", "-", "-"]
    assert {"stress[0,0]", "stress[1,0]", "density"} < set(rows)


def test_json_holds_every_digit(tree: Path) -> None:
    result = run("made_up", "--format", "json", "--split", "valid", cwd=tree.parent)
    content = json.loads(result.stdout)
    assert content["split"] == "valid"
    assert content["statistics"] == compute_statistics(tree, "valid").to_mapping()
    assert len(content["sha256"]) == 64


def test_a_downloaded_dataset_goes_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WELLKIT_DATA", str(tmp_path))
    tree = make_tree(tmp_path, name="active_matter", splits=("train",), files=1)
    result = run("active_matter", "--format", "json", cwd=Path("/"))
    assert json.loads(result.stdout)["statistics"] == compute_statistics(tree).to_mapping()


def test_write_does_not_overwrite_unless_told_to(tmp_path: Path) -> None:
    tree = make_tree(tmp_path, splits=("train",), files=1)
    before = (tree / "stats.yaml").read_text()
    fails(run(tree, "--write", cwd=tmp_path), "stats.yaml", "exists already", "--overwrite")
    assert (tree / "stats.yaml").read_text() == before
    result = run(tree, "--write", "--overwrite", cwd=tmp_path)
    assert result.returncode == 0
    assert f"written: {tree / 'stats.yaml'}" in result.stderr
    assert load_statistics(tree / "stats.yaml") == compute_statistics(tree)
    (tree / "stats.yaml").unlink()
    assert run(tree / "data" / "train", "--write", cwd=tmp_path).returncode == 0
    assert (tree / "stats.yaml").exists()


def test_compare_tells_what_differs_and_fails_beyond_the_tolerance(tmp_path: Path) -> None:
    tree = make_tree(tmp_path, splits=("train",), files=1)
    assert run(tree, "--write", "--overwrite", cwd=tmp_path).returncode == 0
    same = run(tree, "--compare", cwd=tmp_path)
    assert (same.returncode, same.stdout) == (0, "")
    assert "every value is that of the data" in same.stderr
    content = yaml.safe_load((tree / "stats.yaml").read_text())
    content["std"]["density"] *= 1.01
    content["mean"]["velocity"][0] += 0.5 * content["std"]["velocity"][0]
    del content["rms_delta"]["pressure"]
    (tree / "stats.yaml").write_text(yaml.safe_dump(content))
    result = run(tree, "--compare", cwd=tmp_path)
    fails(result, "3 values differ", "'rms_delta' of pressure")
    rows = [line.split() for line in result.stdout.splitlines()]
    assert [row[:2] for row in rows if len(row) == 5][-3:] == [
        ["pressure", "rms_delta"],
        ["velocity[0]", "mean"],
        ["density", "std"],
    ]
    loose = json.loads(run(tree, "--compare", "--format", "json", cwd=tmp_path).stdout)["differences"]
    assert [round(d["relative"], 2) for d in loose if d["relative"] is not None] == [0.5, 0.01]
    fails(run(tree, "--compare", "--tolerance", "0.1", cwd=tmp_path), "2 values differ")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["made_down"], ["made_down"]),
        (["./nowhere"], ["nowhere", "no such folder"]),
        (["made_up", "--split", "dev"], ["dev", "train, valid, test"]),
        (["made_up", "--split", "valid", "--write", "--overwrite"], ["--split valid", "training split"]),
        (["memory://nothing/here"], ["memory://nothing/here"]),
    ],
)
def test_bad_input_is_one_line(tree: Path, arguments: list[str], words: list[str]) -> None:
    fails(run(*arguments, cwd=tree.parent), *words)


def test_nan_is_named_and_can_be_left_out(tmp_path: Path) -> None:
    import h5py

    tree = make_tree(tmp_path, splits=("train",), files=1)
    shard = next((tree / "data" / "train").iterdir())
    with h5py.File(shard, "r+") as file:
        file["t0_fields/density"][0, 2, 1, 1] = np.nan
    fails(run(tree, cwd=tmp_path), shard.name, "'density'", "trajectory 0, frame 2", "--nan omit")
    assert run(tree, "--nan", "omit", cwd=tmp_path).returncode == 0


def test_help_ends_with_an_example() -> None:
    result = run("--help", cwd=Path("/"))
    assert result.returncode == 0
    assert result.stdout.strip().splitlines()[-1].strip().startswith("Example: wellkit stats")
    assert "completion" not in result.stdout
