"""`wellkit download` as a user meets it: another process, its exit status, its two streams, its interruptions."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.hub.dataset import REPOSITORY, SHARDS, dataset_of, tree_of, write_tree
from tests.hub.faults import corrupted, html_page, slow, unavailable
from tests.hub.server import LoopbackHub

COMMAND = [sys.executable, "-c", "from wellkit.cli.app import main; main()", "download"]
SLOW = "data/train/waves_k_0.hdf5"


@pytest.fixture
def published(hub: LoopbackHub, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_tree(tmp_path_factory.mktemp("published"))
    hub.add(REPOSITORY, folder)
    return folder


def run(*arguments: str, preexec: Callable[[], None] | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command in the test's environment."""
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=100, preexec_fn=preexec)


def fails(*arguments: str, preexec: Callable[[], None] | None = None) -> str:
    """Run the command; it has to fail with one line on stderr, and nothing on stdout."""
    done = run(*arguments, preexec=preexec)
    assert done.returncode == 1, done
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    return done.stderr


def test_download_then_rerun(hub: LoopbackHub, published: Path, isolated: Path) -> None:
    first = run(REPOSITORY)
    assert first.returncode == 0, first.stderr
    directory = isolated / "data" / "small_waves"
    assert tree_of(directory) == dataset_of(published)
    assert f"{directory}: {SHARDS + 1} files fetched (855.6 kB" in first.stdout
    assert first.stderr == f'next: wellkit.WellDataset(path="{directory}", well_split_name="train")\n'
    hub.requests.clear()
    second = run(REPOSITORY)
    assert f"0 files fetched (0 bytes), {SHARDS + 1} kept" in second.stdout
    assert hub.fetches() == []


def test_dry_run_shows_a_table_with_totals(hub: LoopbackHub, published: Path, tmp_path: Path) -> None:
    done = run(REPOSITORY, "--to", str(tmp_path / "to"), "--dry-run", "--split", "train", "--max-files", "2")
    assert done.returncode == 0, done.stderr
    assert [line.split()[:2] for line in done.stdout.splitlines() if line.startswith(" ") and "fetch" in line] == [
        ["stats.yaml", "fetch"],
        ["data/train/waves_k_0.hdf5", "fetch"],
        ["data/train/waves_k_1.hdf5", "fetch"],
    ]
    assert (
        done.stdout.splitlines()[-1]
        == "3 files, 500.0 kB: 3 to fetch (500.0 kB); 500.0 kB to transfer. Nothing was written."
    )
    assert not (tmp_path / "to").exists()
    assert hub.fetches() == []


def test_json_is_json_and_alone_on_stdout(published: Path, tmp_path: Path) -> None:
    done = run(REPOSITORY, "--to", str(tmp_path), "--format", "json", "--max-bytes", "0.3MB", "--exclude", "test/*")
    report = json.loads(done.stdout)
    assert report["totals"]["fetch"] == {"files": 2, "bytes": 300_000 + len("mean:\n  density: 0.5\n")}
    assert [file["path"] for file in report["files"]] == ["stats.yaml", "data/train/waves_k_0.hdf5"]
    assert sorted(tree_of(tmp_path / "small_waves")) == ["data/train/waves_k_0.hdf5", "stats.yaml"]


def test_a_catalog_name_and_the_next_command(hub: LoopbackHub, published: Path, tmp_path: Path) -> None:
    hub.add("polymathic-ai/turbulent_radiative_layer_2D", published)
    done = run("turbulent_radiative_layer_2D", "--to", str(tmp_path), "--split", "test")
    assert done.returncode == 0, done.stderr
    note, following = done.stderr.splitlines()
    assert note.startswith("note: polymathic-ai/turbulent_radiative_layer_2D is not as the card")
    assert following == f"next: WELLKIT_DATA={tmp_path} wellkit train turbulent_radiative_layer_2D --model fno"


def test_one_line_for_each_failure(hub: LoopbackHub, published: Path, tmp_path: Path) -> None:
    to = ("--to", str(tmp_path / "to"))
    assert "Did you mean turbulent_radiative_layer_2D" in fails("turbulent_radiative_layer2D", *to)
    assert "the Hub knows no such dataset repository" in fails("nobody/nothing", *to)
    assert "unknown split 'tran'" in fails(REPOSITORY, "--split", "tran", *to)
    assert "none of its 6 files passes" in fails(REPOSITORY, "--include", "*.zarr", *to)
    assert "--max-bytes 'much' is no size" in fails(REPOSITORY, "--max-bytes", "much", *to)
    assert "no revision 'v9'" in fails(REPOSITORY, "--revision", "v9", *to)
    (tmp_path / "file").write_text("")
    assert "a part of the path is a file" in fails(REPOSITORY, "--to", str(tmp_path / "file" / "below"))
    hub.fault(corrupted(500), server="store")
    assert "expected sha256" in fails(REPOSITORY, *to)
    hub.faults[:] = []
    hub.fault(html_page, path="/resolve/")
    assert "found a web page" in fails(REPOSITORY, *to)
    assert [path for path in (tmp_path / "to").rglob("*") if path.suffix in {".hdf5", ".new"}] == []
    assert run(REPOSITORY, "--no-such-option").returncode == 2


def test_no_network_is_one_line(tmp_path: Path) -> None:
    message = fails(REPOSITORY, "--to", str(tmp_path / "to"))
    assert "127.0.0.1:9" in message
    assert "check the network" in message


def test_offline_is_one_line(hub: LoopbackHub, published: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "HF_HUB_OFFLINE is set" in fails(REPOSITORY)
    assert hub.requests == []


def test_a_storm_of_503_is_ridden_out(hub: LoopbackHub, published: Path, tmp_path: Path) -> None:
    hub.fault(unavailable(503, retry_after=0), every=3)
    done = run(REPOSITORY, "--to", str(tmp_path))
    assert (done.returncode, tree_of(tmp_path / "small_waves")) == (0, dataset_of(published))


def test_a_full_disk_costs_nothing_that_was_there(published: Path, tmp_path: Path) -> None:
    def small_files_only() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, 150_000))

    message = fails(REPOSITORY, "--to", str(tmp_path), "--jobs", "1", preexec=small_files_only)
    assert "cannot write" in message
    assert "larger than this process or file system allows" in message
    left = tree_of(tmp_path / "small_waves")
    begun = {path for path in left if ".partial" in path}
    assert sorted(left.keys() - begun) == ["data/test/waves_k_0.hdf5", "stats.yaml"]  # whole, before what did not fit
    assert {path: left[path] for path in left.keys() - begun}.items() <= dataset_of(published).items()
    assert [len(left[path]) for path in begun if path.endswith(".partial")] == [150_000]
    done = run(REPOSITORY, "--to", str(tmp_path), "--format", "json")
    assert json.loads(done.stdout)["totals"]["resume"] == {"files": 1, "bytes": 300_000}
    assert tree_of(tmp_path / "small_waves") == dataset_of(published)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:  # it took its final name in between
        return 0


def _start_and_wait_for_bytes(directory: Path, *arguments: str) -> subprocess.Popen[str]:
    """Start a download and return it once the slow file is under way and another one is whole."""
    process = subprocess.Popen(
        [*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        if any(map(_size, directory.glob(f"{SLOW}*.partial"))) and any(directory.rglob("*.hdf5")):
            return process
        time.sleep(0.02)
    raise AssertionError(f"no file was under way: {process.communicate()}")


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT])
def test_an_interrupted_download_goes_on(
    hub: LoopbackHub, published: Path, tmp_path: Path, end: signal.Signals
) -> None:
    large = hub.repositories[REPOSITORY].commits[hub.repositories[REPOSITORY].refs["main"]][SLOW]
    fault = hub.fault(slow(100_000), path=f"/objects/{large.sha256}")
    directory = tmp_path / "small_waves"
    process = _start_and_wait_for_bytes(directory, REPOSITORY, "--to", str(tmp_path), "--jobs", "2")
    os.kill(process.pid, end)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode != 0
    assert "Traceback" not in stderr
    assert not (directory / SLOW).exists()
    [begun] = directory.glob(f"{SLOW}*.partial")  # other splits' shards of that name may be on their way too
    at_hand = begun.stat().st_size
    hub.faults.remove(fault)
    hub.requests.clear()
    done = run(REPOSITORY, "--to", str(tmp_path), "--format", "json")
    assert done.returncode == 0, done.stderr
    assert tree_of(directory) == dataset_of(published)  # byte for byte, and no partial file
    assert json.loads(done.stdout)["totals"]["keep"]["files"] >= 1
    assert len(hub.fetches()) <= SHARDS + 1 - 1
    ranges = [fetch.headers.get("range") for fetch in hub.fetches() if large.sha256 and large.sha256 in fetch.path]
    assert ranges == [f"bytes={at_hand}-"]  # not a byte of it again


def test_the_token_is_never_printed(
    hub: LoopbackHub, published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = "hf_averysecrettokenofthistest"
    monkeypatch.setenv("HF_TOKEN", token)
    hub.repositories[REPOSITORY].token = token
    to = ("--to", str(tmp_path))
    outputs = [run(REPOSITORY, *to, "--format", "json"), run(REPOSITORY, *to)]
    hub.fault(unavailable(404), path="/tree/")
    outputs.append(run(REPOSITORY, *to))
    assert [output.returncode for output in outputs] == [0, 0, 1]
    assert not any(token in output.stdout + output.stderr for output in outputs)
    assert not any(token in str(request.headers) for request in hub.requests if request.server == "store")
    assert any(token in str(request.headers) for request in hub.requests if request.server == "hub")


def test_help_ends_with_an_example() -> None:
    done = run("--help")
    assert "Example: wellkit download turbulent_radiative_layer_2D" in done.stdout
