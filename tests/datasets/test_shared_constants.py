"""What shards of a dataset have in common is kept once; what differs is kept apart."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

import wellkit
from tests.trees import make_tree
from wellkit.datasets.batches import BatchSamples
from wellkit.datasets.shared import SharedArrays


def opened(tree: Path, **options: Any) -> wellkit.WellDataset:
    options = {"framework": "numpy", **options}
    return wellkit.WellDataset(path=tree, well_split_name="train", errata="keep", **options)


def sample_of(data: wellkit.WellDataset, shard: int) -> dict[str, Any]:
    """A sample of a shard, read by itself."""
    return data[int(np.flatnonzero(data.shard_of(np.arange(len(data))) == shard)[0])]


def test_equal_grids_are_one_array_and_the_rest_is_each_shard_s(tmp_path: Path) -> None:
    data = opened(make_tree(tmp_path, files=3))
    first, second = sample_of(data, 0), sample_of(data, 2)
    assert first["space_grid"] is second["space_grid"]
    assert not first["space_grid"].flags.writeable
    # Shards were made of other random numbers.
    assert not np.array_equal(first["constant_fields"], second["constant_fields"])
    assert not np.array_equal(first["constant_scalars"], second["constant_scalars"])
    assert len(data._shared._known) < sum(len(shard._cache) for shard in data._assemblers.values())
    copy = pickle.loads(pickle.dumps(data))  # noqa: S301
    assert sample_of(copy, 1)["space_grid"] is sample_of(copy, 2)["space_grid"]
    assert not sample_of(copy, 1)["space_grid"].flags.writeable


def test_grids_that_differ_are_kept_apart(tmp_path: Path) -> None:
    tree = make_tree(tmp_path, files=1)
    other = make_tree(tmp_path / "other", files=1)
    moved = other / "data" / "train" / "made_up_part_0.hdf5"
    with h5py.File(moved, "a") as file:
        file["dimensions/x"][...] += 1
    moved.rename(tree / "data" / "train" / "made_up_part_1.hdf5")
    data = opened(tree)
    first, second = sample_of(data, 0)["space_grid"], sample_of(data, 1)["space_grid"]
    np.testing.assert_allclose(second[..., 0], first[..., 0] + 1, rtol=1e-6)
    np.testing.assert_array_equal(second[..., 1], first[..., 1])
    batch = data.__getitems__([0, len(data) - 1])
    assert isinstance(batch, BatchSamples)
    np.testing.assert_array_equal(batch.batch["space_grid"], [first, second])


def test_writing_into_a_tensor_changes_no_other_sample(tmp_path: Path) -> None:
    data = opened(make_tree(tmp_path), framework="torch")
    before = {key: value.clone() for key, value in data[0].items()}
    for sample in (data[0], data[1], *data.__getitems__([0, 1])):
        for value in sample.values():
            value += 5
    for key, value in data[0].items():
        assert torch.equal(value, before[key]), key


def test_scalars_of_each_trajectory(tmp_path: Path) -> None:
    data = opened(make_tree(tmp_path, trajectories=3))
    seen = opened(make_tree(tmp_path, trajectories=3), transform=lambda data, metadata: data)
    for index in range(0, len(data), 4):  # with and without a transform they come by different ways
        found, expected = data[index]["constant_scalars"], seen[index]["constant_scalars"]
        np.testing.assert_array_equal(found, expected)
        assert found.dtype == expected.dtype
        found += 1  # one's own
    assert len({data[index]["constant_scalars"].tobytes() for index in range(len(data))}) == 6  # 3 in each of 2 files


def test_kinds_shapes_and_types_are_kept_apart() -> None:
    shared = SharedArrays()
    values = np.arange(6, dtype=np.float32)
    held = [
        shared.same("a", [part], part.copy)
        for part in (values, values.reshape(2, 3), values.view(np.int32), values[::-1], values[:0])
    ]
    held.append(shared.same("b", [values], values.copy))
    assert len({id(array) for array in held}) == len(held) == len(shared._known)
    assert shared.same("a", [values], lambda: pytest.fail("made again")) is held[0]
    held.clear()
    assert len(shared._known) == 0
