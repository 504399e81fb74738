"""Batches of torch's workers: right values, memory used again, and never under somebody who still looks at it.

Over 400 lines: what may go wrong between two processes takes some telling.
"""

from __future__ import annotations

import copy
import mmap
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, default_collate
from torch.utils.data._utils.pin_memory import pin_memory

import wellkit
from tests.trees import make_tree
from wellkit.datasets import handover, slabs
from wellkit.datasets.handover import SharedBatch, shared_memory

SHAPE = (4, 128, 64)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("handover")
    return make_tree(folder, resolution=(64, 48), trajectories=3, steps=(9,), splits=("train",))


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Slabs and leases of this test alone."""
    monkeypatch.setattr(slabs, "SLABS", slabs.Slabs())
    handover._KEPT.clear()
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


def maps() -> set[slabs.Address]:
    """Slabs that this process has seen and keeps."""
    return set(handover._KEPT)


def in_slabs(batch: Any) -> int:
    """How many of the tensors at hand lie in slabs."""
    places = [(kept.content.ctypes.data, len(kept.content)) for kept in handover._KEPT.values()]
    tensors = batch.values() if isinstance(batch, dict) else batch
    return sum(
        any(0 <= value.data_ptr() - first < size for first, size in places)
        for value in tensors
        if isinstance(value, torch.Tensor)
    )


def test_memory_is_used_again_and_maps_are_few(tree: Path) -> None:
    data = dataset(tree)
    batches = loader(data, persistent_workers=True)
    seen = []
    for _ in range(8):
        for batch, indices in zip(batches, batches.batch_sampler, strict=True):
            check(batch, data, indices)
            seen.append(maps())
            assert in_slabs(batch) == 4
            del batch
    # Inputs, outputs, constants and grid, of at most four batches that a worker has on the way.
    assert len(seen[50]) <= 2 * 4 * 4
    assert seen[-1] == seen[50]  # none new in 150 batches


def test_batches_of_many_sizes_share_slabs(tree: Path) -> None:
    data = dataset(tree)
    order = [[(7 * n + k) % len(data) for k in range(3 + n % 6)] for n in range(100)]
    batches = loader(data, batch_sampler=order, persistent_workers=True)
    seen = []
    for _ in range(2):
        for batch, indices in zip(batches, order, strict=True):
            check(batch, data, indices)
            seen.append(len(maps()))
    assert seen[-1] <= 80  # of 800 arrays


def resident() -> int:
    """Bytes of the slabs that this process keeps mapped which the system holds memory for."""
    found, is_slab = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if "-" in line.split()[0]:
            is_slab = "memfd:wellkit-batch" in line
        elif is_slab and line.startswith("Rss:"):
            found += 1024 * int(line.split()[1])
    return found


@pytest.mark.parametrize("is_held", [False, True])
def test_memory_goes_when_the_workers_go(tree: Path, is_held: bool) -> None:
    batches = loader(dataset(tree))
    held = [batch for batch in batches if is_held]
    assert (in_slabs(held[-1]) if is_held else 4) == 4
    held.clear()
    assert resident() <= mmap.PAGESIZE * len(maps())  # the flags


def test_batches_go_in_any_order(tree: Path) -> None:
    data = dataset(tree)
    batches = loader(data, persistent_workers=True)
    rng = np.random.default_rng([5])
    held: list[tuple[dict[str, Any], list[int]]] = []
    for _ in range(4):
        for batch, indices in zip(batches, batches.batch_sampler, strict=True):
            held.append((batch, indices))
            while len(held) > rng.integers(12):
                chosen, wanted = held.pop(rng.integers(len(held)))
                check(chosen, data, wanted)
    for batch, indices in held:
        check(batch, data, indices)


def test_data_module(tree: Path) -> None:
    module = wellkit.WellDataModule(
        str(tree.parent), tree.name, 4, data_workers=2, n_steps_input=2, train_dataset=wellkit.WellDataset
    )
    batches = list(module.train_dataloader())
    assert in_slabs(batches[0]) == 4
    alone = wellkit.WellDataModule(str(tree.parent), tree.name, 4, data_workers=0, n_steps_input=2)
    for batch, wanted in zip(batches, alone.train_dataloader(), strict=True):
        assert batch.keys() == wanted.keys()
        assert all(torch.equal(batch[key], values) for key, values in wanted.items())


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


def pair(samples: Any) -> tuple[Any, Any]:
    batch = default_collate(samples)
    return batch["input_fields"], batch["output_fields"]


def deeply_copied(samples: Any) -> dict[str, Any]:
    batch = default_collate(samples)
    copied = copy.deepcopy(batch)
    assert type(copied) is dict
    for values in batch.values():
        values.zero_()
    return copied


def pickled(samples: Any) -> dict[str, Any]:
    return {"content": pickle.dumps(default_collate(samples))}


def test_a_batch_that_was_pickled_into_bytes_has_its_own_content(tree: Path) -> None:
    data = dataset(tree)
    batches = loader(data, collate_fn=pickled)
    for found, indices in zip(list(batches), batches.batch_sampler, strict=True):
        for _ in range(2):
            check(pickle.loads(found["content"]), data, indices)  # noqa: S301


def test_tensors_in_a_container_of_the_caller_are_not_copied(tree: Path) -> None:
    data = dataset(tree)
    batches = loader(data, collate_fn=pair)
    held = list(batches)
    for (inputs, outputs), indices in zip(held, batches.batch_sampler, strict=True):
        for row, index in enumerate(indices):
            assert torch.equal(inputs[row], data[index]["input_fields"])
            assert torch.equal(outputs[row], data[index]["output_fields"])
    assert in_slabs(held[0]) == 2


@pytest.mark.parametrize("collate", [renamed, added, stacked, deeply_copied])
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


def test_beyond_the_limit_there_is_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slabs, "MOST", 3)
    kept = [made(number) for number in range(3)]
    assert shared_memory(SHAPE, np.dtype(np.float32)) is None
    kept.pop()
    assert shared_memory(SHAPE, np.dtype(np.float32)) is not None


def test_beyond_the_limit_workers_go_on(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slabs, "MOST", 3)
    data = dataset(tree)
    batches = loader(data)
    held = list(batches)
    for batch, indices in zip(held, batches.batch_sampler, strict=True):
        check(batch, data, indices)
    assert {in_slabs(batch) for batch in held} >= {0, 3}


def test_where_other_processes_cannot_map_it_torch_shares(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slabs, "_can_be_mapped", lambda process: False)
    data = dataset(tree)
    batches = loader(data)
    for batch, indices in zip(list(batches), batches.batch_sampler, strict=True):
        check(batch, data, indices)
    assert not maps()


def test_slabs_that_are_no_longer_needed_go() -> None:
    many = [made(number) for number in range(9)]
    received = [send(batch) for batch in many]
    many.clear()
    received.clear()
    assert len(slabs.SLABS) == 9
    used = {inode(made(0)) for _ in range(2 * slabs.IDLE)}
    assert len(used) == len(slabs.SLABS) == 1
    # The receiver hears of it with the next slab that is new to it.
    other = send(made(1, (2, *SHAPE)))
    assert len(maps()) == 2
    del other


def test_a_message_that_nobody_gets_costs_one_slab() -> None:
    ForkingPickler.dumps(made(1))
    for number in range(5):
        assert torch.all(send(made(number))["x"] == number)
    assert len(slabs.SLABS) == 2


@pytest.mark.parametrize("nbytes", [1, 4096, 4097, 65536, 100_000, 5_000_000, 31_457_280, (1 << 32) + 1])
def test_slabs_are_large_enough_and_not_much_larger(nbytes: int) -> None:
    size = slabs.capacity(nbytes)
    assert nbytes <= size <= max(1.25 * nbytes, nbytes + mmap.PAGESIZE)
    assert size % mmap.PAGESIZE == 0
    assert slabs.capacity(size) == size


def test_what_a_child_of_the_worker_may_look_at_is_not_used_again() -> None:
    batch, idle = made(1), made(2)
    first, second = inode(batch), inode(idle)
    del idle
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    received = send(batch)
    assert not in_slabs(received)  # copied
    assert torch.all(received["x"] == 1)
    del batch, received
    assert first not in {inode(made(3)), inode(made(4))} == {second}


def test_messages_on_their_way_while_the_worker_forks_arrive() -> None:
    batch = made(1)
    message = bytes(ForkingPickler.dumps(batch))
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    del batch
    made(2)
    received = pickle.loads(message)  # noqa: S301
    assert torch.all(received["x"] == 1)
    assert in_slabs(received) == 1
    del received
    assert not maps()
    made(3, (2, *SHAPE))  # a new one: what nobody awaits any more is let go
    assert len(slabs.SLABS) == 2


def test_pinned_copies_keep_no_slab(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor, *_: tensor.clone())  # as on a machine with a GPU
    received = send(made(1))
    pin: Any = pin_memory
    pinned = pin(received)
    assert type(pinned) is dict
    del received
    assert torch.all(send(made(2))["x"] == 2)
    assert len(slabs.SLABS) == 1
    assert torch.all(pinned["x"] == 1)


def test_a_batch_that_lives_to_the_end_of_the_program(tree: Path) -> None:
    program = (
        "import sys, torch, wellkit\n"
        f"data = wellkit.WellDataset(path={str(tree)!r}, well_split_name='train')\n"
        "sys.kept = next(iter(torch.utils.data.DataLoader(data, batch_size=4, num_workers=1)))\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=120)
    assert (ended.returncode, ended.stderr) == (0, "")


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
    assert not any(slab.is_dropped for slab in slabs.SLABS)
    assert not maps()


def inode(batch: SharedBatch) -> int:
    """Which slab it lies in."""
    slab = slabs.SLABS.holder(batch["x"].data_ptr())
    assert slab is not None
    return slab.address.inode


def test_a_killed_worker_leaves_nothing_behind(tree: Path) -> None:
    batches = iter(loader(dataset(tree)))
    batch = next(batches)
    expected = batch["input_fields"].clone()
    workers = list(batches._workers)
    for worker in workers:
        os.kill(worker.pid, signal.SIGKILL)
        worker.join()
    assert torch.equal(batch["input_fields"], expected)
    with pytest.raises(RuntimeError, match=r"exited unexpectedly|killed by signal|has ended"):
        list(batches)
    del batches, batch
    # Names of shared memory begin with whose it is; other processes on the machine have theirs.
    ours = {os.getpid(), *(worker.pid for worker in workers)}
    assert not [name for name in os.listdir("/dev/shm") if any(f"_{pid}_" in name for pid in ours)]
    dead = {address.process for address in maps()}
    held = list(loader(dataset(tree)))  # the next workers' memory takes the place of the dead ones'
    assert in_slabs(held[0]) == 4
    assert not dead & {address.process for address in maps()}


def test_what_is_not_a_plain_tensor_goes_torchs_way() -> None:
    memory = made(1)["x"]
    batch = SharedBatch(grad=memory.clone().requires_grad_(), empty=torch.empty(0, 3), text="a", small=torch.ones(3))
    batch["half"] = torch.ones(3, dtype=torch.bfloat16)
    batch["weight"] = torch.nn.Parameter(torch.ones(3))
    batch["turned"] = memory.transpose(0, 2)[5:9]
    batch["halves"] = memory.view(torch.bfloat16)
    received = send(batch)
    assert type(received["weight"]) is torch.nn.Parameter
    assert all(torch.equal(received[key], batch[key]) for key in ("half", "weight", "turned", "halves"))
    assert received["grad"].requires_grad
    assert received["empty"].shape == (0, 3)
    assert received["text"] == "a"
    received["small"] += 1  # its own memory
    assert torch.equal(batch["small"], torch.ones(3))
