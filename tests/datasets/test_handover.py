"""Batches of torch's workers: right values, memory used again, and never under somebody who still looks at it."""

from __future__ import annotations

import os
import pickle
import signal
from collections.abc import Callable, Iterator
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, default_collate

import wellkit
from tests.trees import make_tree
from wellkit.datasets import handover
from wellkit.datasets.handover import SharedBatch, shared_memory

SHAPE = (4, 128, 64)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("handover")
    return make_tree(folder, resolution=(64, 48), trajectories=3, steps=(9,), splits=("train",))


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Slabs and leases of this test alone."""
    monkeypatch.setattr(handover, "_SLABS", handover._Slabs())
    monkeypatch.setattr(handover, "_KEPT", {})
    yield
    handover._KEPT.clear()


def dataset(tree: Path) -> wellkit.WellDataset:
    return wellkit.WellDataset(path=tree, well_split_name="train", use_normalization=True, n_steps_input=2)


def loader(data: Any, **options: Any) -> Any:
    order = [[(7 * n + k) % len(data) for k in range(4)] for n in range(25)]
    return DataLoader(data, **{"batch_sampler": order, "num_workers": 2, **options})


def check(batch: dict[str, Any], data: Any, indices: list[int]) -> None:
    for row, index in enumerate(indices):
        sample = data[index]
        assert batch.keys() == sample.keys()
        for key, values in sample.items():
            assert batch[key].dtype == values.dtype
            assert torch.equal(batch[key][row], values)


@pytest.mark.parametrize("way", ["fork", "spawn"])
@pytest.mark.parametrize("persistent", [False, True])
def test_all_batches_held_at_once_are_those_of_single_samples(tree: Path, way: str, persistent: bool) -> None:
    data = dataset(tree)
    batches = loader(data, multiprocessing_context=way, persistent_workers=persistent)
    for _ in range(2):
        held = list(batches)
        for batch, indices in zip(held, batches.batch_sampler, strict=True):
            assert type(batch) is dict
            check(batch, data, indices)


def test_memory_is_used_again_and_maps_are_few(tree: Path) -> None:
    data = dataset(tree)
    batches = loader(data, persistent_workers=True)
    seen = []
    for _ in range(4):
        for batch, indices in zip(batches, batches.batch_sampler, strict=True):
            check(batch, data, indices)
            seen.append(len(handover._KEPT))
            del batch
    # Inputs, outputs, constants and grid, of at most four batches that a worker has on the way.
    assert seen[-1] == seen[40] <= 2 * 4 * 4


def test_views_outlive_their_batch(tree: Path) -> None:
    data = dataset(tree)
    batches = loader(data)
    rows = [
        (indices[1], batch["input_fields"][1, 0]) for batch, indices in zip(batches, batches.batch_sampler, strict=True)
    ]
    for index, row in rows:
        assert torch.equal(row, data[index]["input_fields"][0])


def renamed(samples: Any) -> dict[str, Any]:
    batch = default_collate(samples)
    return {"x": batch["input_fields"].permute(0, 1, 4, 2, 3), "y": batch["output_fields"][:, 0], "n": len(samples)}


def added(samples: Any) -> dict[str, Any]:
    batch: dict[str, Any] = default_collate(samples)
    batch["first"] = batch["input_fields"][:, 0]
    batch["double"] = 2 * batch["output_fields"]
    batch["name"] = "made up"
    return batch


def stacked(samples: Any) -> dict[str, Any]:
    return {"x": torch.stack([sample["input_fields"] for sample in samples])}


@pytest.mark.parametrize("collate", [renamed, added, stacked])
def test_collate_functions_of_the_caller(tree: Path, collate: Callable[[Any], dict[str, Any]]) -> None:
    data = dataset(tree)
    expected = loader(data, collate_fn=collate, num_workers=0)
    for batch, wanted in zip(list(loader(data, collate_fn=collate)), expected, strict=True):
        assert batch.keys() == wanted.keys()
        for key, values in wanted.items():
            assert torch.equal(batch[key], values) if isinstance(values, torch.Tensor) else batch[key] == values


def send(batch: SharedBatch) -> dict[str, Any]:
    """As a worker sends it and the main process gets it."""
    received: dict[str, Any] = pickle.loads(bytes(ForkingPickler.dumps(batch)))  # noqa: S301
    return received


def made(value: float, shape: tuple[int, ...] = SHAPE) -> SharedBatch:
    memory = shared_memory(shape, np.dtype(np.float32))
    assert memory is not None
    memory[...] = value
    return SharedBatch(x=torch.from_numpy(memory))


def test_a_slab_is_free_when_the_last_view_on_either_side_is_gone() -> None:
    batch = made(1)
    first = batch["x"].data_ptr()
    received = send(batch)
    view = received.pop("x")[1, 5:9]
    del batch
    other = made(2)
    assert other["x"].data_ptr() != first
    assert torch.all(view == 1)
    del view
    again = made(3)
    assert again["x"].data_ptr() == first
    assert torch.all(other["x"] == 2)


def test_a_batch_that_is_sent_twice_is_held_twice() -> None:
    batch = made(1)
    first = batch["x"].data_ptr()
    one, two = send(batch), send(batch)
    del batch, one
    assert made(2)["x"].data_ptr() != first
    assert torch.all(two["x"] == 1)
    del two
    addresses = set()
    kept = []
    for number in range(2):
        kept.append(made(number))
        addresses.add(kept[-1]["x"].data_ptr())
    assert first in addresses


def test_what_is_written_on_one_side_is_seen_by_nobody_later() -> None:
    received = send(made(1))
    received["x"] += 5
    assert torch.all(received["x"] == 6)
    del received
    assert torch.all(send(made(2))["x"] == 2)


def test_beyond_the_limit_there_is_no_more() -> None:
    kept = [made(number) for number in range(handover.LIMIT)]
    assert shared_memory(SHAPE, np.dtype(np.float32)) is None
    kept.pop()
    assert shared_memory(SHAPE, np.dtype(np.float32)) is not None


def test_memory_that_a_child_may_look_at_is_not_used_again() -> None:
    batch = made(1)
    first = inode(batch)
    received = send(batch)
    del batch
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(write)  # the parent's end is the last: should the test fail, this ends all the same
        os.read(read, 1)  # until the parent has let go, and would have used the memory again
        os._exit(0 if bool(torch.all(received["x"] == 1)) else 1)
    os.close(read)
    del received
    other = made(2)
    assert inode(other) != first
    os.close(write)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    slabs = [slab for alike in handover._SLABS._by_size.values() for slab in alike]
    assert not any(slab.is_dropped() for slab in slabs)


def inode(batch: SharedBatch) -> int:
    """Which slab it lies in."""
    slab = handover._SLABS.holder(batch["x"].data_ptr())
    assert slab is not None
    return slab.address.inode


def test_a_killed_worker_leaves_nothing_behind(tree: Path) -> None:
    before = set(os.listdir("/dev/shm"))
    batches = iter(loader(dataset(tree)))
    batch = next(batches)
    expected = batch["input_fields"].clone()
    for worker in batches._workers:
        os.kill(worker.pid, signal.SIGKILL)
        worker.join()
    assert torch.equal(batch["input_fields"], expected)
    with pytest.raises(RuntimeError, match=r"exited unexpectedly|killed by signal|has ended"):
        list(batches)
    del batches, batch
    assert set(os.listdir("/dev/shm")) <= before
    dead = {address.process for address in handover._KEPT}
    list(loader(dataset(tree)))  # the next workers' memory takes the place of the dead ones'
    assert handover._KEPT
    assert not dead & {address.process for address in handover._KEPT}


def test_what_is_not_a_plain_tensor_goes_torchs_way() -> None:
    memory = made(1)["x"]
    batch = SharedBatch(grad=memory.clone().requires_grad_(), empty=torch.empty(0, 3), text="a", small=torch.ones(3))
    received = send(batch)
    assert received["grad"].requires_grad
    assert received["empty"].shape == (0, 3)
    assert received["text"] == "a"
    received["small"] += 1  # its own memory
    assert torch.equal(batch["small"], torch.ones(3))
