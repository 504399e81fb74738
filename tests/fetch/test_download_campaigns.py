"""Downloads killed at random moments, and bytes altered on the way: a seeded sample, and as torture the full counts."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import wellkit
from tests.hub.dataset import REPOSITORY, SHARD_SIZES, SHARDS, dataset_of, tree_of
from tests.hub.faults import corrupted, html_page, unavailable
from tests.hub.repository import Blob
from tests.hub.server import LoopbackHub
from wellkit.errors import IntegrityError
from wellkit.fetch.partial import bytes_at_hand
from wellkit.fetch.plan import FileHash, HashKind, RemoteFile

COMMAND = [sys.executable, "-c", "from wellkit.cli.app import main; main()", "download", REPOSITORY, "--jobs", "3"]
FULL = pytest.mark.torture


@dataclass
class Tally:
    """What a campaign of kills has met."""

    resumed: int = 0
    kept: int = 0
    bytes_at_hand: int = 0
    early: int = 0  # killed before anything was there


def _kill_and_rerun(hub: LoopbackHub, published: Path, to: Path, delay: float, tally: Tally) -> None:
    wanted = dataset_of(published)
    hub.requests.clear()
    hub.rate = 250_000
    process = subprocess.Popen([*COMMAND, "--to", str(to)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 60
    while not hub.fetches() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    time.sleep(delay)  # from the first byte on
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    directory = to / "small_waves"
    there = tree_of(directory)
    finished = {path for path in there if ".partial" not in path}
    for path in finished:
        assert there[path] == wanted[path], f"{path} has its final name and is wrong"
    at_hand = {path: _at_hand(hub, directory, path) for path in wanted.keys() - finished}
    tally.kept += len(finished)
    tally.resumed += sum(size > 0 for size in at_hand.values())
    tally.bytes_at_hand += sum(at_hand.values())
    tally.early += not finished and not any(at_hand.values())
    hub.rate = None
    hub.requests.clear()
    report = wellkit.download(REPOSITORY, to)
    assert tree_of(directory) == wanted  # byte for byte, and no orphans
    assert os.listdir(directory / ".wellkit") == ["manifest.json"]
    assert wellkit.verify(report.directory, deep=True).to_mapping()["totals"]["missing"] == 0
    names = {blob.sha256 or blob.path: path for path, blob in _blobs(hub).items()}
    asked: dict[str, list[str | None]] = {path: [] for path in wanted}
    for request in hub.fetches():
        name = request.path.rsplit("/objects/", 1)[-1] if request.server == "store" else "stats.yaml"
        asked[names[name]].append(request.headers.get("range"))
    for path in wanted:
        if path in finished or at_hand[path] == len(wanted[path]):
            assert asked[path] == []  # finished bytes are never fetched again
        else:
            # All that was on disk counts; what was in the killed process' hands is at most one buffer.
            assert asked[path] == ([f"bytes={at_hand[path]}-"] if at_hand[path] else [None])


def _blobs(hub: LoopbackHub) -> dict[str, Blob]:
    repository = hub.repositories[REPOSITORY]
    return dict(repository.commits[repository.refs["main"]])


def _at_hand(hub: LoopbackHub, directory: Path, path: str) -> int:
    blob = _blobs(hub)[path]
    promise = FileHash(HashKind.sha256, blob.sha256) if blob.sha256 else FileHash(HashKind.git_blob, blob.blob_id)
    return bytes_at_hand(directory / path, RemoteFile(path, blob.size, promise))


@pytest.mark.parametrize("kills", [3, pytest.param(50, marks=[FULL, pytest.mark.timeout(900)])])
def test_killed_downloads_go_on_where_they_were(hub: LoopbackHub, published: Path, tmp_path: Path, kills: int) -> None:
    rng = np.random.default_rng([20, kills])
    tally = Tally()
    for number in range(kills):
        _kill_and_rerun(hub, published, tmp_path / str(number), float(rng.uniform(0.0, 1.6)), tally)
    assert tally.resumed > 0
    assert tally.bytes_at_hand > 0
    if kills >= 50:
        assert tally.kept > 0
        sys.stderr.write(f"\n{kills} kills: {tally}\n")


@pytest.mark.parametrize("count", [8, pytest.param(100, marks=[FULL, pytest.mark.timeout(900)])])
def test_a_byte_altered_in_transit_is_always_found(
    hub: LoopbackHub, published: Path, tmp_path: Path, count: int
) -> None:
    rng = np.random.default_rng([21, count])
    sizes = [
        (f"data/{split}/waves_k_{number}.hdf5", size)
        for split, of_split in SHARD_SIZES.items()
        for number, size in enumerate(of_split)
    ]
    for number in range(count):
        path, size = sizes[int(rng.integers(len(sizes)))]
        blob = _blobs(hub)[path]
        hub.faults[:] = []
        hub.fault(corrupted(int(rng.integers(size))), path=f"/objects/{blob.sha256}", server="store")
        to = tmp_path / str(number)
        with pytest.raises(IntegrityError, match=r"expected sha256 [0-9a-f]{64}, found [0-9a-f]{64}"):
            wellkit.download(REPOSITORY, to, jobs=1)
        left = tree_of(to / "small_waves")
        assert [name for name in left if name.startswith(path)] == []  # neither under its name nor under another
        assert {name: left[name] for name in left}.items() <= dataset_of(published).items()


def test_an_altered_byte_is_exit_status_1(hub: LoopbackHub, published: Path, tmp_path: Path) -> None:
    hub.fault(corrupted(12_345), server="store")
    done = subprocess.run([*COMMAND, "--to", str(tmp_path)], capture_output=True, text=True, timeout=100)
    assert (done.returncode, done.stdout) == (1, "")
    assert "expected sha256" in done.stderr
    assert list(tmp_path.rglob("*.hdf5")) == []


@pytest.mark.parametrize("server", ["hub", "store"])
def test_error_pages_are_never_saved_and_cost_nothing_that_was_here(
    hub: LoopbackHub, published: Path, tmp_path: Path, server: str
) -> None:
    hub.fault(html_page, server=server, path="/resolve/|/objects/")
    with pytest.raises(IntegrityError, match="found a web page"):
        wellkit.download(REPOSITORY, tmp_path)
    assert list(tmp_path.rglob("*.hdf5")) == []
    hub.faults[:] = []
    assert tree_of(wellkit.download(REPOSITORY, tmp_path).directory) == dataset_of(published)


@pytest.mark.parametrize("jobs", [1, 8])
def test_a_503_on_every_third_get_is_ridden_out(hub: LoopbackHub, published: Path, tmp_path: Path, jobs: int) -> None:
    fault = hub.fault(unavailable(503, retry_after=None), every=3)
    report = wellkit.download(REPOSITORY, tmp_path, jobs=jobs)
    assert tree_of(report.directory) == dataset_of(published)
    assert sum(request.status == 503 for request in hub.requests) >= SHARDS // 2
    assert fault.every == 3
    manifest = json.loads((report.directory / ".wellkit/manifest.json").read_text())
    assert all(file["published"] for file in manifest["files"].values())
