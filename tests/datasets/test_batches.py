"""Batches read at once: the values of single samples, memory that is not used twice, torch's collate function."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import wellkit
from tests.trees import make_tree
from wellkit.datasets.batches import BatchSamples, BufferPool, Sample

INDICES = [5, 0, 11, 7, 7]


@pytest.fixture(scope="module", params=["contiguous", "gzip"])
def tree(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    compressed: dict[str, Any] = {"chunks": True, "compression": "gzip"} if request.param == "gzip" else {}
    # fields of more than 64 KiB, so that they are read from the file and not from its index
    return make_tree(tmp_path_factory.mktemp(request.param), resolution=(32, 24), trajectories=3, **compressed)


@pytest.mark.parametrize("framework", ["numpy", "torch"])
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (wellkit.WellDataset, {}),
        (wellkit.WellDataset, {"use_normalization": True, "n_steps_input": 3, "min_dt_stride": 1, "max_dt_stride": 2}),
        (wellkit.WellDataset, {"fields": ["stress", "density"], "crop": [(3, 20), (0, 24)], "return_grid": False}),
        (wellkit.WellDataset, {"full_trajectory_mode": True, "n_steps_input": 2, "normalization_type": "rms"}),
        (wellkit.DeltaWellDataset, {"use_normalization": True, "n_steps_input": 2, "n_steps_output": 2}),
    ],
)
def test_batches_equal_single_samples(tree: Path, kind: Any, options: dict[str, Any], framework: str) -> None:
    dataset = kind(path=tree, well_split_name="train", framework=framework, **options)
    indices = [index % len(dataset) for index in INDICES]
    samples = dataset.__getitems__(indices)
    assert isinstance(samples, BatchSamples)
    assert len(samples) == len(indices)
    for index, sample in zip(indices, samples, strict=True):
        single = dataset[index]
        assert list(sample) == list(single)
        for key, value in single.items():
            assert sample[key].dtype == value.dtype
            np.testing.assert_array_equal(np.asarray(sample[key]), np.asarray(value))


def test_the_direct_way_equals_h5py(tree: Path) -> None:
    fast = wellkit.WellDataset(path=tree, well_split_name="train", use_normalization=True, framework="numpy")
    slow = wellkit.WellDataset(
        path=tree,
        well_split_name="train",
        use_normalization=True,
        framework="numpy",
        transform=lambda data, metadata: data,
    )
    for assembler in (slow._assembler(number) for number in range(slow.n_files)):
        assembler.request = lambda window: None  # type: ignore[method-assign]
        assembler._plans["constant"] = None
    for index in (0, 9, len(fast) - 1):
        for key, value in slow[index].items():
            np.testing.assert_array_equal(fast[index][key], value)


def test_no_batch_is_overwritten_while_it_is_held(tree: Path) -> None:
    dataset = wellkit.WellDataset(path=tree, well_split_name="train", framework="torch", use_normalization=True)
    order = [[i % len(dataset), (3 * i) % len(dataset)] for i in range(50)]
    loader: Any = torch.utils.data.DataLoader(dataset, batch_sampler=order)  # type: ignore[arg-type]
    batches = list(loader)
    for indices, batch in zip(order, batches, strict=True):
        for row, index in enumerate(indices):
            torch.testing.assert_close(batch["input_fields"][row], dataset[index]["input_fields"], rtol=0, atol=0)


def test_memory_of_batches_is_used_again_when_it_is_free() -> None:
    pool = BufferPool(limit=2, smallest=1)
    first = pool.take((4, 5), np.dtype(np.float32))
    address = first.ctypes.data
    view = torch.from_numpy(first)[1:]
    del first
    gc.collect()
    assert pool.take((4, 5), np.dtype(np.float32)).ctypes.data != address  # a tensor still looks at it
    del view
    gc.collect()
    again = {pool.take((2, 10), np.dtype(np.float32)).ctypes.data for _ in range(2)}
    assert address in again


def test_default_collate_takes_the_batch_and_others_see_samples(tree: Path) -> None:
    dataset = wellkit.WellDataset(path=tree, well_split_name="train", framework="torch")
    samples: Any = dataset.__getitems__([0, 1])
    assert torch.utils.data.default_collate(samples) is samples.batch
    assert [type(sample) for sample in samples] == [Sample, Sample]
    collated = torch.utils.data.default_collate(list(samples))  # a list of samples, not the batch itself
    torch.testing.assert_close(collated["input_fields"], samples.batch["input_fields"])
    loader: Any = torch.utils.data.DataLoader(
        dataset,  # type: ignore[arg-type]
        batch_size=4,
        collate_fn=lambda batch: torch.stack([sample["input_fields"] for sample in batch]),
    )
    torch.testing.assert_close(next(iter(loader))[3], dataset[3]["input_fields"])
    assert all(value.is_contiguous() for value in samples.batch.values())


def test_a_transform_or_a_hook_of_ones_own_sees_single_samples(tree: Path) -> None:
    class Doubled(wellkit.WellDataset):
        def _preprocess_data(self, data: Any, traj_metadata: Any) -> Any:
            data["variable_fields"][0]["density"] = 2 * data["variable_fields"][0]["density"]
            return data

    plain = wellkit.WellDataset(path=tree, well_split_name="train", framework="numpy")
    doubled = Doubled(path=tree, well_split_name="train", framework="numpy")
    np.testing.assert_array_equal(
        doubled.__getitems__([3])[0]["input_fields"][..., 0], 2 * plain[3]["input_fields"][..., 0]
    )


def test_a_shard_changed_behind_the_index_is_refused(tmp_path: Path) -> None:
    tree = make_tree(tmp_path, resolution=(32, 24), files=1, splits=("train",))
    dataset = wellkit.WellDataset(path=tree, well_split_name="train", framework="numpy")
    (shard,) = (tree / "data" / "train").iterdir()
    content = bytearray(shard.read_bytes())
    content[-100] ^= 1
    shard.write_bytes(content)
    with pytest.raises(wellkit.errors.ShardError, match="changed since it was indexed"):
        dataset.__getitems__([0])
