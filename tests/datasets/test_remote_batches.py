"""Batches of remote shards: the values of the same shards on disk, in one plan of ranges, from all kinds of workers."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import torch

import wellkit
from tests.hub.faults import Answer, stalled, truncated, unavailable
from tests.hub.server import LoopbackHub
from tests.readers.serving import serve
from tests.trees import make_tree
from wellkit.datasets.batches import BatchSamples
from wellkit.errors import ShardError
from wellkit.fetch.ranges import ByteRange
from wellkit.readers.ranged import RangedReader

INDICES = [5, 0, 11, 7, 7]
REPOSITORY = "somebody/made_up"
STORED: dict[str, dict[str, Any]] = {
    "contiguous": {},
    "chunked": {"chunks": True},
    "gzip": {"chunks": True, "compression": "gzip"},
}


@pytest.fixture(scope="module", params=STORED)
def tree(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    # Fields of more than 64 KiB: they are read from the file and not from its index.
    folder = tmp_path_factory.mktemp(request.param)
    return make_tree(folder, resolution=(48, 40), trajectories=3, splits=("train",), **STORED[request.param])


@pytest.fixture
def memory(tree: Path) -> Iterator[str]:
    """The tree in memory."""
    there = fsspec.filesystem("memory")
    there.put(str(tree), "/remote-batches", recursive=True)
    yield "memory://remote-batches"
    there.rm("/remote-batches", recursive=True)


def open_both(
    tree: Path, address: str, kind: Callable[..., wellkit.WellDataset] = wellkit.WellDataset, **options: Any
) -> tuple[wellkit.WellDataset, wellkit.WellDataset]:
    options = {"well_split_name": "train", "framework": "numpy", **options}
    return kind(path=address, **options), kind(path=tree, **options)


def assert_equal(found: Any, expected: Any) -> None:
    assert list(found) == list(expected)
    for key, value in expected.items():
        assert found[key].dtype == value.dtype
        np.testing.assert_array_equal(np.asarray(found[key]), np.asarray(value))


class Counted:
    """Counts what is asked of ranges."""

    def __init__(self, ranges: Any) -> None:
        self._ranges = ranges
        self.asked: list[Sequence[ByteRange]] = []

    def read(self, ranges: Sequence[ByteRange], into: Any, done: Any = None) -> None:
        self.asked.append(ranges)
        self._ranges.read(ranges, into, done)

    def size(self, location: str) -> int:
        return int(self._ranges.size(location))


def count(dataset: wellkit.WellDataset) -> Counted:
    """Count what the dataset's shards ask for from now on."""
    readers = [reader for reader in dataset._tree.readers if isinstance(reader, RangedReader)]
    assert len(readers) == dataset.n_files
    windows = readers[0].windows
    counted = Counted(windows.ranges)
    for reader in readers:
        assert reader.windows is windows
        reader._ranges = counted
    windows.ranges = counted
    return counted


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (wellkit.WellDataset, {}),
        (wellkit.WellDataset, {"use_normalization": True, "n_steps_input": 3, "min_dt_stride": 1, "max_dt_stride": 2}),
        (wellkit.WellDataset, {"fields": ["stress", "density"], "crop": [(3, 30), (0, 24)], "return_grid": False}),
        (wellkit.WellDataset, {"random_crop": 16, "cache_small": False}),
        (wellkit.WellDataset, {"full_trajectory_mode": True, "n_steps_input": 2, "normalization_type": "rms"}),
        (wellkit.DeltaWellDataset, {"use_normalization": True, "n_steps_input": 2, "n_steps_output": 2}),
    ],
)
def test_batches_equal_those_of_local_files(tree: Path, memory: str, kind: Any, options: dict[str, Any]) -> None:
    remote, local = open_both(tree, memory, kind, **options)
    for turn in range(2):  # the second finds constants that are kept
        indices = [(index + turn) % len(local) for index in INDICES]
        found, expected = remote.__getitems__(indices), local.__getitems__(indices)
        assert isinstance(found, BatchSamples)
        assert isinstance(expected, BatchSamples)
        assert_equal(found.batch, expected.batch)
    assert_equal(remote[3 % len(local)], local[3 % len(local)])


def test_a_batch_is_one_plan(tmp_path: Path) -> None:
    """Windows of several shards, and their constant fields, are asked for at once; constants only once."""
    tree = make_tree(tmp_path, resolution=(160, 120), splits=("train",), steps=(3,))
    there = fsspec.filesystem("memory")
    there.put(str(tree), "/one-plan", recursive=True)
    remote, local = open_both(tree, "memory://one-plan", fields=["density", "mask", "gravity"])
    counted = count(remote)
    indices = [5, 0, 2, 7]
    moved = []
    for turn in range(2):
        found, expected = remote.__getitems__(indices), local.__getitems__(indices)
        assert isinstance(found, BatchSamples)
        assert isinstance(expected, BatchSamples)
        assert_equal(found.batch, expected.batch)
        assert len(counted.asked) == turn + 1
        assert {part.location for part in counted.asked[turn]} == set(remote.files_paths)
        moved.append(sum(part.stop - part.start for part in counted.asked[turn]))
    # mask and gravity are the same for all trajectories of a shard, and kept
    assert moved[0] - moved[1] == pytest.approx(2 * 160 * 120 * 3 * 4, rel=0.05)
    remote[0]
    assert len(counted.asked) == 3
    there.rm("/one-plan", recursive=True)


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_workers_give_the_same_batches(tree: Path, context: str) -> None:
    with serve(tree.parent, index_pages=True) as address:
        remote, local = open_both(tree, f"{address}/{tree.name}", framework="torch")
        expected = [local.__getitems__(range(first, first + 4)) for first in (0, 4, 8)]
        remote.__getitems__([0])  # connections are open when the process forks
        source: Any = remote
        loader: Any = torch.utils.data.DataLoader(source, batch_size=4, num_workers=2, multiprocessing_context=context)
        for number, batch in enumerate(loader):
            if number < len(expected):
                one = expected[number]
                assert isinstance(one, BatchSamples)
                assert_equal(batch, one.batch)
        again = remote.__getitems__(range(4))
        assert isinstance(again, BatchSamples)
        assert isinstance(expected[0], BatchSamples)
        assert_equal(again.batch, expected[0].batch)


def test_the_loader_keeps_order_under_faults(tree: Path, hub: LoopbackHub) -> None:
    hub.add(REPOSITORY, tree)
    remote, local = open_both(tree, f"hf://datasets/{REPOSITORY}")
    changes = iter([unavailable(503), truncated(1000, reset=True), truncated(1000)] * 1000)

    def fail(answer: Answer) -> None:
        next(changes)(answer)

    hub.fault(fail, server="store", every=5)
    ours = wellkit.DataLoader(remote, 4, seed=3, threads=3)
    theirs = wellkit.DataLoader(local, 4, seed=3)
    n_batches = 0
    for found, expected in zip(ours, theirs, strict=True):
        assert_equal(found, expected)
        n_batches += 1
    assert n_batches == len(ours) > 4
    failed = [request for request in hub.requests if request.server == "store" and request.status == 503]
    assert len(failed) >= 2


def stop_answering(hub: LoopbackHub) -> None:
    """From now on answers break off; returns when one has."""
    hub.fault(stalled(100, 60.0), server="store")
    began = time.monotonic()
    while not any(request.sent == 100 for request in hub.requests):
        assert time.monotonic() - began < 20
        time.sleep(0.05)


def test_leaving_early_waits_for_no_server(tree: Path, hub: LoopbackHub) -> None:
    """After a break in the loop no thread is left, though the server has stopped in the middle of its answers."""
    hub.add(REPOSITORY, tree)
    hub.latency = 0.2  # so that not all is there with the first batch
    remote, _ = open_both(tree, f"hf://datasets/{REPOSITORY}")
    batches = iter(wellkit.DataLoader(remote, 2, seed=1, threads=1))
    assert next(batches)
    stop_answering(hub)
    began = time.monotonic()
    batches.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("wellkit-loader")]
    assert time.monotonic() - began < 10


CTRL_C = """
import sys, warnings
import wellkit
warnings.simplefilter("ignore")
dataset = wellkit.WellDataset(path=sys.argv[1], well_split_name="train", framework="numpy")
for batch in wellkit.DataLoader(dataset, 2, seed=1, threads=1):
    print("batch", flush=True)
"""


def test_an_interrupt_ends_at_once(tree: Path, hub: LoopbackHub) -> None:
    hub.add(REPOSITORY, tree)
    hub.latency = 0.2
    process = subprocess.Popen(
        [sys.executable, "-c", CTRL_C, f"hf://datasets/{REPOSITORY}"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"batch\n"
    stop_answering(hub)
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert time.monotonic() - began < 30
    assert process.returncode != 0
    assert b"KeyboardInterrupt" in said


def test_a_shard_replaced_by_a_shorter_one_is_told(tree: Path, memory: str) -> None:
    remote, _ = open_both(tree, memory)
    there = fsspec.filesystem("memory")
    for path in there.glob("/remote-batches/data/train/*.hdf5"):
        there.pipe_file(path, there.cat_file(path)[:5000])
    with pytest.raises(ShardError, match=r"memory://.*hdf5"):
        remote.__getitems__([0, 1])


def test_a_stream_goes_on_where_it_was_left(tree: Path, hub: LoopbackHub) -> None:
    hub.add(REPOSITORY, tree)
    address = f"hf://datasets/{REPOSITORY}"
    expected = list(wellkit.DataLoader(open_both(tree, address)[1], 4, seed=5))
    first = wellkit.DataLoader(open_both(tree, address)[0], 4, seed=5)
    for number, batch in enumerate(first):
        assert_equal(batch, expected[number])
        if number == 2:
            state = json.loads(json.dumps(first.state_dict()))
            break
    second = wellkit.DataLoader(open_both(tree, address)[0], 4, seed=5)
    second.load_state_dict(state)
    rest = list(second)
    assert len(rest) == len(expected) - 3
    for found, wanted in zip(rest, expected[3:], strict=True):
        assert_equal(found, wanted)
