"""What is broken is found, what is well is left in peace, and nothing waits for a network that is not there."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

import wellkit
from tests.hub.faults import html_page, unavailable
from tests.hub.server import LoopbackHub
from tests.trees import make_tree
from wellkit.doctor import environment
from wellkit.doctor.examine import Health, examine
from wellkit.errors import ArgumentError
from wellkit.index.tree import index_tree

TOKEN = "hf_thisisnotatokenbutmustnotbeshown"


def look(**arguments: Any) -> Health:
    return examine(**({"network": False} | arguments))


def found(health: Health, section: str, name: str) -> tuple[str, str, str | None]:
    (finding,) = [f for f in health.findings if (f.section, f.name) == (section, name)]
    return finding.status, finding.value, finding.advice


def troubles(health: Health) -> list[tuple[str, str]]:
    return [(f.status, f.value) for f in health.findings if f.section == "trees" and f.status != "ok"]


@pytest.fixture
def tree(isolated: Path) -> Path:
    return make_tree(isolated / "data")


def test_a_machine_without_data_is_not_broken(isolated: Path) -> None:
    health = look()
    assert not health.is_broken
    assert health.trees == ()
    assert found(health, "trees", "datasets") == ("note", f"none in {isolated / 'data'}", None)
    assert "wellkit quickstart" in health.next_steps[-1]
    assert found(health, "environment", "wellkit")[:2] == ("ok", wellkit.__version__)
    assert not (isolated / "data").exists()  # nothing is made


def test_a_whole_tree_is_well(tree: Path) -> None:
    index_tree(tree)
    health = look()
    assert troubles(health) == []
    (only,) = health.trees
    assert (only.name, only.shards) == ("made_up", {"train": 2, "valid": 2, "test": 2})
    assert only.bytes == sum(path.stat().st_size for path in tree.rglob("*.hdf5"))
    assert [t.name for t in look(data=tree).trees] == ["made_up"]  # the dataset's own folder will do


def shard(tree: Path) -> Path:
    return tree / "data" / "train" / "made_up_part_1.hdf5"


def cut(tree: Path) -> None:
    shard(tree).write_bytes(shard(tree).read_bytes()[:-100])


def page(tree: Path) -> None:
    shard(tree).write_bytes(b"<html>503</html>")


def no_statistics(tree: Path) -> None:
    (tree / "stats.yaml").unlink()


def bad_statistics(tree: Path) -> None:
    (tree / "stats.yaml").write_text("mean: [1")


def partial(tree: Path) -> None:
    (tree / "data" / "train" / "made_up_part_2.hdf5.0123456789ab.partial").write_bytes(b"a")


def changed_since_indexed(tree: Path) -> None:
    index_tree(tree)
    shard(tree).write_bytes(shard(tree).read_bytes() + b"\0" * 100)


def added_since_indexed(tree: Path) -> None:
    index_tree(tree)
    shard(tree).with_name("made_up_part_9.hdf5").write_bytes(shard(tree).read_bytes())


def removed_since_indexed(tree: Path) -> None:
    index_tree(tree)
    shard(tree).unlink()


def damaged_index(tree: Path) -> None:
    index_tree(tree)
    (tree / ".wellkit" / "index.bin").write_bytes(b"no index")


@pytest.mark.parametrize(
    ("harm", "status", "value", "advice"),
    [
        (cut, "broken", "made_up_part_1.hdf5: says that it ends at byte", "wellkit download made_up"),
        (page, "broken", "made_up_part_1.hdf5: is a web page, not HDF5", "wellkit download made_up"),
        (no_statistics, "warning", "stats.yaml: is missing", "wellkit stats .*made_up --write"),
        (bad_statistics, "broken", "stats.yaml: is not YAML", "wellkit stats .*made_up --write --overwrite"),
        (partial, "note", "left by a download that was interrupted", "wellkit download made_up"),
        (changed_since_indexed, "warning", "1 shards changed since", "wellkit index .*made_up"),
        (added_since_indexed, "warning", "1 shards are not in it", "wellkit index .*made_up"),
        (removed_since_indexed, "warning", "1 shards of it are gone", "wellkit index .*made_up"),
        (damaged_index, "warning", "index.bin: cannot be used", "wellkit index .*made_up"),
    ],
)
def test_what_is_wrong_with_a_tree_is_found(tree: Path, harm: Any, status: str, value: str, advice: str) -> None:
    harm(tree)
    health = look()
    (trouble,) = [f for f in health.findings if f.section == "trees"]
    assert trouble.status == status
    assert re.search(value, trouble.value)
    assert re.fullmatch(advice, trouble.advice or "")
    assert trouble.advice == health.next_steps[0]
    assert health.is_broken is (status == "broken")


def test_downloads_are_compared_with_their_manifest(hub: LoopbackHub, isolated: Path, tmp_path: Path) -> None:
    source = make_tree(tmp_path, files=1)
    hub.add("someone/made_up", source)
    wellkit.download("someone/made_up")
    assert troubles(look()) == []
    tree = isolated / "data" / "made_up"
    train, test, valid = (tree / "data" / split / "made_up_part_0.hdf5" for split in ("train", "test", "valid"))
    train.write_bytes(train.read_bytes() + b"\0")
    test.rename(test.with_name("stranger.hdf5"))
    content = yaml.safe_load((tree / "stats.yaml").read_text())
    content["mean"]["density"] = 2.125  # as many characters: as large a file
    (tree / "stats.yaml").write_text(yaml.safe_dump(content))
    health = look()
    told = {value.partition(": ")[0].removeprefix(f"{tree}/"): (status, value) for status, value in troubles(health)}
    assert {path: status for path, (status, _) in told.items()} == {
        "data/train/made_up_part_0.hdf5": "broken",
        "data/test/made_up_part_0.hdf5": "broken",
        "data/test/stranger.hdf5": "note",
        "stats.yaml": "broken",
    }
    assert "bytes, not" in told["data/train/made_up_part_0.hdf5"][1]
    assert health.next_steps[0] == f"wellkit repair {tree}"
    assert valid.exists()


def test_a_dataset_of_which_a_part_is_there(isolated: Path) -> None:
    make_tree(isolated / "data", name="active_matter", splits=("train",))
    (trouble,) = troubles(look())
    assert trouble[0] == "note"
    assert trouble[1].endswith("holds 2 of 45 train, 0 of 16 valid, 0 of 21 test files")


def test_settings_that_cannot_be_used_are_broken(
    isolated: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (isolated / "file").write_text("")
    monkeypatch.setenv("WELLKIT_DATA", str(isolated / "file" / "data"))
    monkeypatch.setenv("WELLKIT_CACHE_BYTES", "plenty")
    (tmp_path / "card.yaml").write_text("schema: wellkit/simulation-card/1\nname: x\n")
    monkeypatch.setenv("WELLKIT_CATALOG", str(tmp_path))
    health = look()
    assert health.is_broken
    assert found(health, "disk", "data")[0] == "broken"
    assert found(health, "cache", "contents")[:2] == (
        "broken",
        "WELLKIT_CACHE_BYTES='plenty' is no size; write for example 200GB or 1TiB",
    )
    assert found(health, "catalog", "cards")[0] == "broken"


def test_caches_are_told(tree: Path, isolated: Path) -> None:
    wellkit.WellDataset(path=tree, well_split_name="train", framework="numpy")[0]
    for path in tree.rglob("*.hdf5"):
        os.utime(path, (1e9, 1e9))  # long settled: now it is cached
    wellkit.WellDataset(path=tree, well_split_name="train", framework="numpy")[0]
    assert found(look(), "cache", "index")[1].startswith("index: 2 files")


# The Hub


def test_the_hub_knows_who_asks(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.users[TOKEN] = "somebody"
    health = examine()
    assert found(health, "Hub", "reachable")[:2] == ("ok", hub.url)
    assert found(health, "Hub", "identity")[:2] == ("ok", "nobody: no token is set; public datasets need none")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    health = examine()
    assert found(health, "Hub", "identity") == ("ok", "somebody", None)
    assert TOKEN not in json.dumps(health.to_mapping())


def test_a_token_that_is_refused_is_broken(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    health = examine()
    assert health.is_broken
    assert found(health, "Hub", "identity")[1] == "the token is refused (status 401)"
    assert "hf auth login" in health.next_steps[0]
    assert TOKEN not in json.dumps(health.to_mapping())


@pytest.mark.parametrize("change", [unavailable(), html_page])
def test_a_hub_that_does_not_answer_as_one_is_told(hub: LoopbackHub, change: Any) -> None:
    hub.fault(change)
    health = examine()
    assert found(health, "Hub", "reachable")[0] == "warning"
    assert not health.is_broken


def test_without_a_network_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    health = examine(seconds=1.0)
    assert found(health, "Hub", "reachable")[0] == "warning"
    assert not health.is_broken
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert found(examine(), "Hub", "reachable")[:2][0] == "note"
    with pytest.raises(ArgumentError, match="seconds=0"):
        examine(seconds=0)


@contextmanager
def silent_server() -> Iterator[str]:
    """Takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


def test_a_hub_that_says_nothing_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    with silent_server() as address:
        monkeypatch.setenv("HF_ENDPOINT", address)
        began = time.monotonic()
        assert found(examine(seconds=0.5), "Hub", "reachable")[0] == "warning"
        assert time.monotonic() - began < 30  # against hanging, not a measurement


def test_a_name_server_that_hangs_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: release.wait(60))
    monkeypatch.setenv("HF_ENDPOINT", "http://hub.invalid")
    try:
        status, value, _ = found(examine(seconds=0.2), "Hub", "reachable")
    finally:
        release.set()
    assert (status, value) == ("warning", "http://hub.invalid: no answer in 0.2 s")


# The environment


def test_missing_libraries_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "REQUIRED", ("numpy", "no-such-library"))
    monkeypatch.setattr(environment, "OPTIONAL", {"no-such-extra": "torch"})
    findings = {f.name: f for f in environment.examine_environment()}
    assert (findings["numpy"].status, findings["no-such-library"].status) == ("ok", "broken")
    assert findings["no-such-library"].advice == "pip install no-such-library"
    assert findings["no-such-extra"].status == "note"


@pytest.mark.parametrize(
    ("script", "status", "value"),
    [
        ("echo 'NVIDIA H200, 143771 MiB, 570.1'", None, "NVIDIA H200, 143771 MiB, 570.1"),
        ("exit 9", "note", "none found"),
        ("sleep 60", "warning", "nvidia-smi gave no answer"),
    ],
)
def test_gpus_are_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, status: str | None, value: str
) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{'exec ' if script.startswith('sleep') else ''}{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(environment, "_SECONDS", 0.5 if "sleep" in script else 10)
    (finding,) = [f for f in environment.examine_environment() if f.name == "GPU"]
    assert finding.value.startswith(value)
    assert status in (None, finding.status)


def test_it_works_without_torch(tree: Path, isolated: Path) -> None:
    script = """
import sys
for name in ("torch", "jax", "zarr", "xarray"):
    sys.modules[name] = None
from wellkit.doctor.examine import examine
health = examine(network=False)
assert not health.is_broken and len(health.trees) == 1
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_it_is_a_command(tree: Path) -> None:
    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", "from wellkit.cli.app import main; main()", "doctor", *words]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    done = run("--offline")
    assert done.returncode == 0, done.stderr
    assert "made_up" in done.stdout
    content = json.loads(run("--offline", "--format", "json").stdout)
    assert content["trees"][0]["status"] == "ok"
    cut(tree)
    done = run("--offline", "--format", "json")
    assert (done.returncode, json.loads(done.stdout)["broken"]) == (1, True)
    assert yaml.safe_load(done.stdout)["next"] == ["wellkit download made_up"]
    assert "Example: wellkit doctor" in run("--help").stdout
