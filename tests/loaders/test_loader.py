"""wellkit.DataLoader: order from the seed, exact resume, shares of several processes, and nothing left behind."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import wellkit
from tests.trees import make_tree
from wellkit.errors import ArgumentError


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tree(tmp_path_factory.mktemp("loader"), files=3, splits=("train",), plain=True)


def dataset(tree: Path, **options: Any) -> wellkit.WellDataset:
    options.setdefault("framework", "numpy")
    return wellkit.WellDataset(path=tree, well_split_name="train", **options)


class Numbers:
    """A dataset whose samples are their own numbers."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.epochs: list[int] = []

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        return {"number": np.array(index)}

    def set_epoch(self, epoch: int) -> None:
        self.epochs.append(epoch)

    def shard_of(self, indices: np.ndarray) -> np.ndarray:
        return indices // 10


def numbers(loader: wellkit.DataLoader) -> list[list[int]]:
    return [batch["number"].tolist() for batch in loader]


def flat(batches: list[list[int]]) -> list[int]:
    return [number for batch in batches for number in batch]


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_every_sample_once_in_an_order_from_seed_and_epoch(threads: int) -> None:
    source = Numbers(23)
    loader = wellkit.DataLoader(source, batch_size=4, seed=5, threads=threads)
    first, second = numbers(loader), numbers(loader)
    assert [len(batch) for batch in first] == [4, 4, 4, 4, 4, 3]
    assert len(loader) == 6
    assert sorted(flat(first)) == sorted(flat(second)) == list(range(23))
    assert first != second
    assert source.epochs == [0, 1]
    loader.set_epoch(0)
    assert numbers(loader) == first
    assert numbers(wellkit.DataLoader(Numbers(23), batch_size=4, seed=5, threads=2)) == first
    assert numbers(wellkit.DataLoader(Numbers(23), batch_size=4, seed=6)) != first
    assert flat(numbers(wellkit.DataLoader(Numbers(23), batch_size=4, shuffle=False))) == list(range(23))


@pytest.mark.parametrize("drop_last", [False, True])
def test_processes_share_an_epoch_without_repeating_a_sample(drop_last: bool) -> None:
    loaders = [
        wellkit.DataLoader(Numbers(23), batch_size=4, rank=rank, world_size=3, drop_last=drop_last) for rank in range(3)
    ]
    shares = [flat(numbers(loader)) for loader in loaders]
    assert len({n for share in shares for n in share}) == sum(map(len, shares))
    if drop_last:
        assert [len(share) for share in shares] == [4, 4, 4]
    else:
        assert sorted(flat(shares)) == list(range(23))
    assert [len(loader) for loader in loaders] == [-(-len(share) // 4) for share in shares]


def test_shard_local_order_stays_within_a_few_shards() -> None:
    loader = wellkit.DataLoader(Numbers(60), batch_size=5, shuffle="shards", shards_at_once=2)
    order = flat(numbers(loader))
    assert sorted(order) == list(range(60))
    for start in range(0, 60, 20):
        assert len({number // 10 for number in order[start : start + 20]}) == 2
    assert order != sorted(order)
    assert flat(numbers(loader)) != order


@pytest.mark.parametrize("stop", [0, 1, 3, 5])
def test_resuming_goes_on_exactly_where_the_state_was_taken(stop: int) -> None:
    whole_loader = wellkit.DataLoader(Numbers(23), batch_size=4, seed=2)
    whole = [numbers(whole_loader) for _ in range(3)]
    loader = wellkit.DataLoader(Numbers(23), batch_size=4, seed=2)
    assert numbers(loader) == whole[0]
    running = iter(loader)
    for expected in whole[1][:stop]:
        assert next(running)["number"].tolist() == expected
    state = json.loads(json.dumps(loader.state_dict()))  # batches read ahead do not count
    running.close()
    resumed = wellkit.DataLoader(Numbers(23), batch_size=4, seed=2)
    resumed.load_state_dict(state)
    assert numbers(resumed) == whole[1][stop:]
    assert numbers(resumed) == whole[2]


def test_a_state_taken_after_the_last_batch_begins_the_next_epoch() -> None:
    loader = wellkit.DataLoader(Numbers(8), batch_size=4)
    for _ in loader:
        state = loader.state_dict()
    following = numbers(loader)
    resumed = wellkit.DataLoader(Numbers(8), batch_size=4)
    resumed.load_state_dict(state)
    assert numbers(resumed) == following


def test_a_state_of_something_else_is_refused(tree: Path, tmp_path: Path) -> None:
    state = wellkit.DataLoader(dataset(tree), seed=1).state_dict()
    wellkit.DataLoader(dataset(tree), seed=1).load_state_dict(state)
    with pytest.raises(ArgumentError, match="seed=1, this loader has 2"):
        wellkit.DataLoader(dataset(tree), seed=2).load_state_dict(state)
    for changed in (
        dataset(tree, n_steps_input=2),
        dataset(tree, exclude_filters=["part_2"]),
        dataset(tree, restrict_num_samples=5),
        dataset(make_tree(tmp_path, files=3, splits=("train",), plain=True, steps=(7, 8))),
    ):
        with pytest.raises(ArgumentError, match="not the one the loader's state was saved with"):
            wellkit.DataLoader(changed, seed=1).load_state_dict(state)
    with pytest.raises(ArgumentError, match="version 99"):
        wellkit.DataLoader(dataset(tree), seed=1).load_state_dict(state | {"version": 99})


@pytest.mark.parametrize("framework", ["numpy", "torch"])
def test_batches_are_the_dataset_s_samples(tree: Path, framework: str) -> None:
    data = dataset(tree, framework=framework, use_normalization=True, n_steps_input=2)
    loader = wellkit.DataLoader(data, batch_size=5, shuffle=False, threads=2)
    batches = list(loader)  # held together: memory of one must not be used for another
    rows = [
        {key: value[row] for key, value in batch.items()}
        for batch in batches
        for row in range(len(batch["space_grid"]))
    ]
    assert len(rows) == len(data)
    for index, row in enumerate(rows):
        for key, value in data[index].items():
            np.testing.assert_array_equal(np.asarray(row[key]), np.asarray(value))
    assert isinstance(batches[0]["input_fields"], torch.Tensor if framework == "torch" else np.ndarray)


def test_strides_are_drawn_anew_each_epoch(tree: Path) -> None:
    data = dataset(tree, min_dt_stride=1, max_dt_stride=3)
    loader = wellkit.DataLoader(data, shuffle=False, batch_size=8)
    first, second = ([batch["output_time_grid"] for batch in loader] for _ in range(2))
    assert not np.array_equal(np.concatenate(first), np.concatenate(second))
    assert data.epoch == 1


def test_unequal_rollouts_are_padded(tmp_path: Path) -> None:
    data = dataset(make_tree(tmp_path, steps=(5, 8), splits=("train",), plain=True), full_trajectory_mode=True)
    batch = next(iter(wellkit.DataLoader(data, batch_size=4, shuffle=False)))
    np.testing.assert_array_equal(batch["output_mask"].sum(axis=1), [4, 4, 7, 7])


def test_errors_come_through_and_no_thread_stays(tree: Path) -> None:
    class Broken(Numbers):
        def __getitem__(self, index: int) -> dict[str, np.ndarray]:
            if index == 9:
                raise OSError("shard 9 is gone")
            return super().__getitem__(index)

    broken = iter(wellkit.DataLoader(Broken(20), batch_size=4, shuffle=False, threads=3))
    assert [next(broken)["number"].tolist() for _ in range(2)] == [[0, 1, 2, 3], [4, 5, 6, 7]]
    with pytest.raises(OSError, match="shard 9"):
        next(broken)
    running = iter(wellkit.DataLoader(Numbers(50), batch_size=4))
    next(running)
    running.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("wellkit-loader")]


@pytest.mark.parametrize(
    "options",
    [
        {"batch_size": 0},
        {"threads": -1},
        {"prefetch": 0},
        {"prefetch_bytes": 0},
        {"rank": 2, "world_size": 2},
        {"shuffle": "files"},
        {"seed": -1},
    ],
)
def test_numbers_that_make_no_sense(options: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError, match=next(iter(options))):
        wellkit.DataLoader(Numbers(5), **options)


class Watched(Numbers):
    """Samples of a kilobyte; notes how many were asked for before the batch that is looked at."""

    def __init__(self, count: int) -> None:
        super().__init__(count)
        self.asked = 0
        self.reserved: list[list[int]] = []

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        self.asked += 1
        return {"number": np.array(index), "values": np.zeros(128)}

    def reserve_memory(self, sizes: list[int]) -> None:
        self.reserved.append(sizes)


@pytest.mark.parametrize(
    ("options", "ahead"),
    [({}, 4), ({"prefetch": 2}, 2), ({"prefetch_bytes": 3200}, 3), ({"prefetch_bytes": None}, 4)],
)
def test_reading_ahead_is_bounded_in_batches_and_bytes(options: dict[str, Any], ahead: int) -> None:
    source = Watched(40)
    loader = wellkit.DataLoader(source, batch_size=1, shuffle=False, **options)
    for number, batch in enumerate(loader):
        assert batch["number"].tolist() == [number]
        assert source.asked <= number + 1 + ahead
    assert source.asked == 40
    assert source.reserved[0] == [8, 1024] * (ahead + 2)


def test_memory_of_batches_is_taken_at_the_start_and_does_not_grow(tree: Path) -> None:
    data = dataset(tree, framework="torch")
    data._buffers._smallest = 1
    sizes: dict[int, int] = {}
    loader = wellkit.DataLoader(data, batch_size=2, threads=2, drop_last=True)
    for _ in range(4):
        for number, batch in enumerate(loader):
            held = {nbytes: len(buffers) for nbytes, buffers in data._buffers._buffers.items()}
            if number > 0:
                assert held == (sizes or held)
                sizes = held
            del batch
    assert min(sizes.values()) >= 6


def test_pinned_batches_need_the_dataset_s_memory_only_while_they_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    class Tensors(Watched):
        def __getitem__(self, index: int) -> dict[str, Any]:
            return {key: torch.as_tensor(value) for key, value in super().__getitem__(index).items()}

    pinned: list[int] = []

    def pin(tensor: torch.Tensor) -> torch.Tensor:
        pinned.append(tensor.nbytes)
        return tensor.clone()

    monkeypatch.setattr(torch.Tensor, "pin_memory", pin)
    source = Tensors(10)
    loader = wellkit.DataLoader(source, batch_size=1, shuffle=False, threads=3, pin_memory=True)
    assert [batch["number"].tolist() for batch in loader] == [[number] for number in range(10)]
    assert source.reserved == [[8, 1024] * 3]
    assert sorted(pinned) == [8] * 10 + [1024] * 10


class Distant(Numbers):
    """Samples of some size that take a while to come, during which others can be asked for."""

    is_remote = True

    def __init__(self, count: int, size: int, *, until: int) -> None:
        super().__init__(count)
        self.size = size
        self.asked = self.most = 0
        self._until = until
        self._changed = threading.Condition()

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        with self._changed:
            self.asked += 1
            self.most = max(self.most, self.asked)
            self._changed.notify_all()
            # The first wait for as many as there should be at once: on a busy machine threads are slow to begin.
            self._changed.wait_for(lambda: self.most >= self._until, timeout=10)
        time.sleep(0.02)  # and whoever is one too many may come
        with self._changed:
            self.asked -= 1
        return {"number": np.array(index), "values": np.empty(self.size, np.uint8)}


@pytest.mark.parametrize(
    ("size", "options", "most"),
    [
        (1 << 10, {}, 16),
        ((1 << 25) - 8, {}, 12),
        (1 << 27, {}, 4),
        (1 << 10, {"prefetch": 3}, 3),
        (1 << 10, {"threads": 2}, 2),
        (1 << 20, {"prefetch_bytes": 2 << 20}, 1),
    ],
)
def test_what_comes_from_a_network_is_on_its_way_side_by_side(size: int, options: dict[str, Any], most: int) -> None:
    source = Distant(24, size, until=most)
    loader = wellkit.DataLoader(source, batch_size=1, shuffle=False, **options)
    assert [batch["number"].tolist() for batch in loader] == [[number] for number in range(24)]
    assert source.most == most


def test_batches_that_are_larger_than_the_dataset_says() -> None:
    source = Distant(24, 1 << 25, until=1)
    source.sample_nbytes = 1 << 10  # type: ignore[attr-defined]
    loader = wellkit.DataLoader(source, batch_size=1, shuffle=False, prefetch_bytes=3 << 25)
    assert [batch["number"].tolist() for batch in loader] == [[number] for number in range(24)]


@pytest.mark.parametrize("options", [{"batch_size": 1.5}, {"batch_size": 0}, {"threads": "2"}, {"prefetch": 0.5}])
def test_numbers_that_are_not_whole(options: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError, match="give a whole number from"):
        wellkit.DataLoader(Numbers(4), **options)
