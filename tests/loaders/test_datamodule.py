"""WellDataModule: what each loader yields, how often, and in which order."""

from __future__ import annotations

import inspect
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import wellkit
from tests.trees import make_tree
from wellkit.augmentation import RandomAxisFlip
from wellkit.errors import ArgumentError, DataNotFoundError, WellkitWarning

LOADERS = ("val", "test", "rollout_val", "rollout_test")


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tree(tmp_path_factory.mktemp("base"), plain=True)


def module(tree: Path, **arguments: Any) -> wellkit.WellDataModule:
    arguments.setdefault("data_workers", 0)
    arguments.setdefault("batch_size", 5)
    return wellkit.WellDataModule(tree.parent, tree.name, **arguments)


def rows(loader: Any, key: str = "input_fields") -> list[bytes]:
    return [sample.numpy().tobytes() for batch in loader for sample in batch[key]]


def test_the_wells_arguments_in_the_wells_order() -> None:
    parameters = list(inspect.signature(wellkit.WellDataModule).parameters)
    assert parameters == [
        *("well_base_path", "well_dataset_name", "batch_size", "include_filters", "exclude_filters"),
        *("use_normalization", "normalization_type", "train_dataset", "max_rollout_steps", "n_steps_input"),
        *("n_steps_output", "min_dt_stride", "max_dt_stride", "world_size", "data_workers", "rank"),
        *("boundary_return_type", "transform", "dataset_kws", "storage_kwargs", "seed"),
    ]


@pytest.mark.parametrize("part", LOADERS)
def test_evaluation_sees_every_sample_once_in_order(tree: Path, part: str) -> None:
    data = module(tree)
    loader = getattr(data, f"{part}_dataloader")()
    dataset = getattr(data, f"{part}_dataset")
    assert len(dataset) == (4 if "rollout" in part else 24)
    assert rows(loader) == [dataset[index]["input_fields"].numpy().tobytes() for index in range(len(dataset))]
    sizes = [len(batch["input_fields"]) for batch in loader]
    assert sizes == ([1] * 4 if "rollout" in part else [5, 5, 5, 5, 4])
    split = "valid" if "val" in part else "test"
    assert Path(dataset.data_path) == tree / "data" / split


@pytest.mark.parametrize("part", LOADERS)
def test_processes_share_evaluation_without_repeats(tree: Path, part: str) -> None:
    whole = rows(getattr(module(tree), f"{part}_dataloader")())
    shares = [rows(getattr(module(tree, world_size=3, rank=rank), f"{part}_dataloader")()) for rank in range(3)]
    assert Counter(row for share in shares for row in share) == Counter(whole)


def test_rollouts_are_whole_trajectories_unless_cut(tree: Path) -> None:
    batch = next(iter(module(tree, n_steps_input=2).rollout_val_dataloader()))
    assert batch["output_fields"].shape == (1, 5, 8, 6, 3)
    batch = next(iter(module(tree, n_steps_input=2, max_rollout_steps=3).rollout_test_dataloader()))
    assert batch["output_fields"].shape == (1, 3, 8, 6, 3)


def test_rollouts_keep_their_own_length(tmp_path: Path) -> None:
    tree = make_tree(tmp_path, plain=True, steps=(7, 4))
    data = module(tree)
    lengths = [batch["output_fields"].shape[1] for batch in data.rollout_val_dataloader()]
    assert lengths == [6, 6, 3, 3]


@pytest.mark.parametrize("kind", [None, "rms", wellkit.ZScoreNormalization])
def test_every_part_is_normalized_alike(tree: Path, kind: Any) -> None:
    data = module(tree, use_normalization=True, normalization_type=kind)
    plain = module(tree)
    for part in ("train", *LOADERS):
        normalized, raw = (getattr(one, f"{part}_dataset")[3]["input_fields"] for one in (data, plain))
        assert not torch.allclose(normalized, raw)
        np.testing.assert_allclose(
            data.train_dataset.norm.denormalize_flattened(normalized, "variable"), raw, rtol=1e-5, atol=1e-5
        )


def test_a_normalization_that_is_off_is_told(tree: Path) -> None:
    with pytest.warns(WellkitWarning, match="nothing is normalized"):
        data = module(tree, normalization_type=wellkit.RMSNormalization)
    assert data.train_dataset.norm is data.val_dataset.norm is None


def test_training_order_follows_from_seed_and_epoch(tree: Path) -> None:
    def epochs(count: int, **arguments: Any) -> list[list[bytes]]:
        loader = module(tree, **arguments).train_dataloader()
        return [rows(loader) for _ in range(count)]

    first, second = epochs(2)
    assert first != second  # a new order, without being told of a new epoch
    assert len(first) == len(set(first)) == 20  # 24 windows in batches of 5, the rest left out
    torch.manual_seed(5)
    assert epochs(2) == [first, second]
    assert epochs(1, seed=1) != [first]
    loader = module(tree).train_dataloader()
    loader.sampler.set_epoch(1)
    assert rows(loader) == second


def test_loading_leaves_the_global_generators_alone(tree: Path) -> None:
    before = torch.get_rng_state().clone(), np.random.get_state()[1].copy()  # type: ignore[index]  # noqa: NPY002
    for batch in module(tree, max_dt_stride=3, transform=RandomAxisFlip(), data_workers=1).train_dataloader():
        assert batch
    assert torch.equal(before[0], torch.get_rng_state())
    np.testing.assert_array_equal(before[1], np.random.get_state()[1])  # type: ignore[index]  # noqa: NPY002


def test_processes_share_training_in_equal_parts(tree: Path) -> None:
    loaders = [module(tree, batch_size=2, world_size=5, rank=rank).train_dataloader() for rank in range(5)]
    shares = [rows(loader) for loader in loaders]
    assert [len(share) for share in shares] == [4] * 5  # 24 windows: 4 a process, the rest another time
    everything = [row for share in shares for row in share]
    assert len(set(everything)) == 20
    assert set(rows(loaders[0])) != set(shares[0])


@pytest.mark.parametrize("workers", [0, 2])
def test_strides_and_transforms_follow_the_epoch_in_workers_too(tree: Path, workers: int) -> None:
    data = module(tree, max_dt_stride=3, transform=RandomAxisFlip(), data_workers=workers)
    loader = data.train_dataloader()
    found = [rows(loader, "output_fields") for _ in range(2)]
    for epoch in range(2):
        expected = wellkit.WellDataset(
            well_base_path=tree.parent,
            well_dataset_name=tree.name,
            well_split_name="train",
            max_dt_stride=3,
            transform=RandomAxisFlip(),
        )
        expected.set_epoch(epoch)
        loader.sampler.set_epoch(epoch)
        order = list(loader.sampler)[:20]
        assert found[epoch] == [expected[index]["output_fields"].numpy().tobytes() for index in order]
    assert len({tuple(one) for one in found}) == 2


def test_only_training_is_transformed_and_strided(tree: Path) -> None:
    data = module(tree, min_dt_stride=2, max_dt_stride=3, transform=RandomAxisFlip())
    assert data.train_dataset.max_dt_stride == 3
    assert data.train_dataset.transform is not None
    for part in LOADERS:
        dataset = getattr(data, f"{part}_dataset")
        assert (dataset.min_dt_stride, dataset.max_dt_stride, dataset.transform) == (2, 2, None)


def test_dataset_kws_reach_their_part_and_win(tree: Path) -> None:
    data = module(
        tree,
        dataset_kws={
            "train": {"n_steps_input": 3},
            "val": {"return_grid": False},
            "rollout_test": {"fields": ["density"]},
        },
    )
    assert data.train_dataset[0]["input_fields"].shape[0] == 3
    assert "space_grid" not in data.val_dataset[0]
    assert "space_grid" in data.test_dataset[0]
    assert data.rollout_test_dataset[0]["input_fields"].shape[-1] == 1
    with pytest.raises(ArgumentError, match="no part 'valid'; the parts are train, val, rollout_val"):
        module(tree, dataset_kws={"valid": {}})


def test_delta_datasets_are_for_training_only(tree: Path) -> None:
    data = module(tree, train_dataset=wellkit.DeltaWellDataset)
    assert isinstance(data.train_dataset, wellkit.DeltaWellDataset)
    assert not isinstance(data.val_dataset, wellkit.DeltaWellDataset)
    raw = module(tree).train_dataset[4]
    change = raw["output_fields"] - raw["input_fields"]
    np.testing.assert_allclose(data.train_dataset[4]["output_fields"], change, rtol=1e-6)


def test_splits_are_opened_when_they_are_used(tmp_path: Path) -> None:
    data = module(make_tree(tmp_path, plain=True, splits=("train", "valid")))
    assert len(data.train_dataloader()) == 4
    assert len(data.val_dataloader()) == 5
    with pytest.raises(DataNotFoundError, match="test"):
        data.test_dataloader()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"rank": 2, "world_size": 2}, r"rank=2 is not one of the 2 processes: 0 to 1"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"batch_size": 25}, "24 training samples for 1 processes do not fill one batch of 25"),
    ],
)
def test_bad_arguments(tree: Path, arguments: dict[str, Any], told: str) -> None:
    with pytest.raises(ArgumentError, match=told):
        module(tree, **arguments).train_dataloader()
