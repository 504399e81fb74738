"""WellDataset against plain slices of the files, feature by feature; over 400 lines because features are many."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any, cast

import h5py
import numpy as np
import pytest
import torch
import yaml

import wellkit
from tests.trees import make_tree
from wellkit.datasets.samples import TrajectoryData, TrajectoryMetadata

CHANNELS = ["density", "pressure", "profile", "velocity", "stress"]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tree(tmp_path_factory.mktemp("tree"))


def dataset(tree: Path, **arguments: Any) -> wellkit.WellDataset:
    arguments.setdefault("well_split_name", "train")
    arguments.setdefault("framework", "numpy")
    return wellkit.WellDataset(path=tree, **arguments)


def shard(tree: Path, number: int, split: str = "train") -> h5py.File:
    return h5py.File(sorted((tree / "data" / split).glob("*.hdf5"))[number], "r")


def expected_fields(file: h5py.File, trajectory: int, frames: list[int]) -> np.ndarray:
    """Channels of `CHANNELS` at `frames`, straight from the file: (time, x, y, channel)."""
    shape = (len(frames), 8, 6)
    pieces = [
        file["t0_fields/density"][trajectory][frames][..., None],
        file["t0_fields/pressure"][trajectory][frames][..., None],
        np.broadcast_to(file["t0_fields/profile"][trajectory][frames][:, :, None, None], (*shape, 1)),
        file["t1_fields/velocity"][trajectory][frames],
        file["t2_fields/stress"][trajectory][frames].reshape(*shape, 4),
    ]
    return np.concatenate(pieces, axis=-1)


def test_first_sample_of_everything(tree: Path) -> None:
    data = dataset(tree, n_steps_input=3, n_steps_output=2)
    sample = data[0]
    assert {key: (value.shape, value.dtype.name) for key, value in sample.items()} == {
        "input_fields": ((3, 8, 6, 9), "float32"),
        "output_fields": ((2, 8, 6, 9), "float32"),
        "constant_fields": ((8, 6, 4), "float32"),
        "input_scalars": ((3, 2), "float32"),
        "output_scalars": ((2, 2), "float32"),
        "constant_scalars": ((2,), sample["constant_scalars"].dtype.name),
        "boundary_conditions": ((2, 2), "float32"),
        "space_grid": ((8, 6, 2), "float32"),
        "input_time_grid": ((3,), "float32"),
        "output_time_grid": ((2,), "float32"),
    }
    with shard(tree, 0) as file:
        np.testing.assert_array_equal(sample["input_fields"], expected_fields(file, 0, [0, 1, 2]))
        np.testing.assert_array_equal(sample["output_fields"], expected_fields(file, 0, [3, 4]))
        np.testing.assert_array_equal(sample["constant_fields"][..., 0], file["t0_fields/mask"][()])
        np.testing.assert_array_equal(sample["constant_fields"][..., 1], file["t0_fields/material"][0])
        np.testing.assert_array_equal(sample["constant_fields"][..., 2:], file["t1_fields/gravity"][()])
        np.testing.assert_array_equal(sample["output_scalars"][:, 0], file["scalars/drive"][3:5])
        np.testing.assert_array_equal(sample["output_scalars"][:, 1], file["scalars/heat"][0, 3:5])
        np.testing.assert_allclose(sample["constant_scalars"], [0.25, file["scalars/mass"][0]], rtol=1e-6)
        x, y = file["dimensions/x"][()], file["dimensions/y"][()]
        np.testing.assert_array_equal(sample["space_grid"][3, 4], [x[3], y[4]])
        np.testing.assert_allclose(sample["output_time_grid"], file["dimensions/time"][3:5])
    np.testing.assert_array_equal(sample["boundary_conditions"], [[2, 2], [0, 0]])  # x periodic, y wall


def test_samples_are_ordered_by_file_trajectory_time(tree: Path) -> None:
    data = dataset(tree, n_steps_input=2, min_dt_stride=2, max_dt_stride=2)
    assert len(data) == 2 * 2 * 3  # 7 frames hold 3 windows of frames t, t+2, t+4
    for index in range(len(data)):
        file, trajectory, start = index // 6, index // 3 % 2, index % 3
        with shard(tree, file) as stored:
            expected = expected_fields(stored, trajectory, [start, start + 2, start + 4])
        np.testing.assert_array_equal(
            np.concatenate([data[index]["input_fields"], data[index]["output_fields"]]), expected
        )
    np.testing.assert_array_equal(data[-1]["input_fields"], data[len(data) - 1]["input_fields"])
    for outside in (len(data), -len(data) - 1):
        with pytest.raises(IndexError):
            data[outside]


def statistic(tree: Path, key: str, names: list[str]) -> np.ndarray:
    values = yaml.safe_load((tree / "stats.yaml").read_text())[key]
    return np.concatenate([np.ravel(values[name]) for name in names]).astype(np.float32)


@pytest.mark.parametrize("given", [None, "zscore", wellkit.ZScoreNormalization])
def test_use_normalization_means_z_score_unless_told_otherwise(tree: Path, given: Any) -> None:
    raw, normalized = dataset(tree)[5], dataset(tree, use_normalization=True, normalization_type=given)[5]
    mean, std = statistic(tree, "mean", CHANNELS), statistic(tree, "std", CHANNELS)
    for key in ("input_fields", "output_fields"):
        np.testing.assert_allclose(normalized[key], (raw[key] - mean) / std, rtol=2e-6, atol=2e-6)
    constants = ["mask", "material", "gravity"]
    expected = (raw["constant_fields"] - statistic(tree, "mean", constants)) / statistic(tree, "std", constants)
    np.testing.assert_allclose(normalized["constant_fields"], expected, rtol=2e-6, atol=2e-6)
    np.testing.assert_array_equal(normalized["constant_scalars"], raw["constant_scalars"])


def test_normalization_can_be_undone(tree: Path) -> None:
    data = dataset(tree, use_normalization=True, normalization_type="rms")
    raw = dataset(tree)[3]["output_fields"]
    restored = data.norm.denormalize_flattened(data[3]["output_fields"], "variable")
    np.testing.assert_allclose(restored, raw, rtol=1e-5, atol=1e-6)


def test_min_std_bounds_the_divisor(tree: Path) -> None:
    raw, normalized = dataset(tree)[0], dataset(tree, use_normalization=True, min_std=100.0)[0]
    mean = statistic(tree, "mean", CHANNELS)
    np.testing.assert_allclose(normalized["input_fields"], (raw["input_fields"] - mean) / 100, rtol=2e-5, atol=1e-7)


@pytest.mark.parametrize("normalize", [False, True])
def test_delta_outputs_are_differences_with_delta_statistics(tree: Path, normalize: bool) -> None:
    raw = dataset(tree, n_steps_input=2, n_steps_output=3)[4]
    delta = wellkit.DeltaWellDataset(
        path=tree,
        well_split_name="train",
        n_steps_input=2,
        n_steps_output=3,
        framework="numpy",
        use_normalization=normalize,
    )
    frames = np.concatenate([raw["input_fields"], raw["output_fields"]])
    inputs, outputs = frames[:2], frames[2:] - frames[1:-1]
    if normalize:
        inputs = (inputs - statistic(tree, "mean", CHANNELS)) / statistic(tree, "std", CHANNELS)
        outputs = (outputs - statistic(tree, "mean_delta", CHANNELS)) / statistic(tree, "std_delta", CHANNELS)
    np.testing.assert_allclose(delta[4]["input_fields"], inputs, rtol=2e-6, atol=2e-6)
    np.testing.assert_allclose(delta[4]["output_fields"], outputs, rtol=2e-6, atol=2e-6)


def test_full_trajectories(tree: Path) -> None:
    data = dataset(tree, n_steps_input=2, full_trajectory_mode=True)
    assert len(data) == 4
    with shard(tree, 1) as file:
        np.testing.assert_array_equal(data[3]["output_fields"], expected_fields(file, 1, [2, 3, 4, 5, 6]))
    later = dataset(tree, n_steps_input=2, full_trajectory_mode=True, start_output_steps_at_t=4)
    with shard(tree, 1) as file:
        np.testing.assert_array_equal(later[3]["input_fields"], expected_fields(file, 1, [2, 3]))
        np.testing.assert_array_equal(later[3]["output_fields"], expected_fields(file, 1, [4, 5, 6]))
    cut = dataset(tree, n_steps_input=2, full_trajectory_mode=True, max_rollout_steps=3)
    assert cut[0]["output_fields"].shape[0] == 3


def test_rollouts_keep_their_own_length(tmp_path: Path) -> None:
    tree = make_tree(tmp_path, steps=(5, 8), splits=("test",))
    own = dataset(tree, well_split_name="test", n_steps_input=2, full_trajectory_mode=True)
    assert [len(own[i]["output_fields"]) for i in range(4)] == [3, 3, 6, 6]
    batch = own.__getitems__([1, 2])
    assert [len(sample["output_fields"]) for sample in batch] == [6, 6]
    np.testing.assert_array_equal(batch[0]["output_mask"], [True] * 3 + [False] * 3)
    np.testing.assert_array_equal(batch[0]["output_fields"][:3], own[1]["output_fields"])
    assert np.isnan(batch[0]["output_fields"][3:]).all()
    assert np.isnan(batch[0]["output_time_grid"][3:]).all()
    np.testing.assert_array_equal(batch[1]["output_mask"], [True] * 6)
    shortest = dataset(
        tree, well_split_name="test", n_steps_input=2, full_trajectory_mode=True, rollout_length="shortest"
    )
    assert [len(shortest[i]["output_fields"]) for i in range(4)] == [3, 3, 3, 3]
    assert "output_mask" not in shortest.__getitems__([1, 2])[0]


def test_a_single_filter_needs_no_list(tree: Path) -> None:
    # As a sequence of letters it would match every file name.
    assert [Path(file).name for file in dataset(tree, include_filters="part_1").files_paths] == ["made_up_part_1.hdf5"]
    assert [Path(file).name for file in dataset(tree, exclude_filters="part_1").files_paths] == ["made_up_part_0.hdf5"]


def test_unflattened_rollouts_are_padded_field_by_field(tmp_path: Path) -> None:
    tree = make_tree(tmp_path, steps=(5, 8), splits=("test",))
    own = dataset(tree, well_split_name="test", n_steps_input=2, full_trajectory_mode=True, flatten_tensors=False)
    short, long = own.__getitems__([1, 2])
    np.testing.assert_array_equal(short["output_mask"], [True] * 3 + [False] * 3)
    assert long["output_mask"].all()
    velocity, own_velocity = short["output_fields"][1]["velocity"], own[1]["output_fields"][1]["velocity"]
    assert velocity.shape == long["output_fields"][1]["velocity"].shape == (6, 8, 6, 2)
    np.testing.assert_array_equal(velocity[:3], own_velocity)
    assert np.isnan(velocity[3:]).all()
    assert len(short["input_fields"][1]["velocity"]) == 2


def test_long_rollouts_are_not_cut_silently(tmp_path: Path) -> None:
    tree = make_tree(tmp_path, steps=(130,), splits=("test",), files=1, plain=True, resolution=(2, 2))
    assert len(dataset(tree, well_split_name="test", full_trajectory_mode=True)[0]["output_fields"]) == 129


def test_drawn_strides_follow_from_seed_epoch_and_index(tree: Path) -> None:
    def times(data: wellkit.WellDataset) -> list[list[float]]:
        return [data[i]["output_time_grid"].tolist() for i in range(len(data))]

    data = dataset(tree, min_dt_stride=1, max_dt_stride=3, seed=5)
    first = times(data)
    assert times(data) == first
    np.random.seed(0)  # noqa: NPY002 - a global generator must make no difference
    assert times(dataset(tree, min_dt_stride=1, max_dt_stride=3, seed=5)) == first
    assert {round(t[0] * 2) for t in first} == {1, 2, 3}  # frames are 0.5 apart: every stride is drawn
    assert first[5] == [0.5]  # from frame 5 of 7 only stride 1 fits
    data.set_epoch(1)
    assert times(data) != first
    assert times(dataset(tree, min_dt_stride=1, max_dt_stride=3, seed=6)) != first


def test_restrictions_take_distinct_whole_trajectories(tree: Path) -> None:
    data = dataset(tree, restrict_num_trajectories=3, normalize_time_grid=False)
    assert len(data) == 3 * 6
    seen = {(sample["constant_scalars"][0].item(), sample["constant_scalars"][1].item()) for sample in data}
    assert len(seen) == 3
    smaller = dataset(tree, restrict_num_trajectories=1)
    assert set(smaller.restriction_set.tolist()) < set(data.restriction_set.tolist())  # type: ignore[union-attr]
    assert len(dataset(tree, restrict_num_samples=0.25)) == 6


def test_filters_match_file_names_once(tree: Path) -> None:
    assert len(dataset(tree, include_filters=["part_1"]).files_paths) == 1
    assert len(dataset(tree, include_filters=["part", "_1"]).files_paths) == 2
    assert len(dataset(tree, exclude_filters=["part_0"]).files_paths) == 1
    assert len(dataset(tree, exclude_filters=["train"]).files_paths) == 2  # a folder's name is no file's
    with pytest.raises(wellkit.errors.DataNotFoundError, match=r"none of its 2 files passes.*part_0\.hdf5"):
        dataset(tree, include_filters=["part_7"])


def test_fields_and_crop_read_less(tree: Path) -> None:
    whole, data = dataset(tree)[2], dataset(tree, fields=["stress", "density", "mask"], crop=[(2, 5), (0, 6)])
    part = data[2]
    assert data.core_field_names == ["density", "stress"]
    assert data.metadata.field_names[2] == ["stress_xx", "stress_xy", "stress_yx", "stress_yy"]
    assert data.metadata.spatial_resolution == (3, 6)
    np.testing.assert_array_equal(part["input_fields"], whole["input_fields"][:, 2:5][..., [0, 5, 6, 7, 8]])
    np.testing.assert_array_equal(part["constant_fields"], whole["constant_fields"][2:5][..., [0]])
    np.testing.assert_array_equal(part["space_grid"], whole["space_grid"][2:5])
    np.testing.assert_array_equal(part["boundary_conditions"], [[1, 1], [0, 0]])  # cut sides are open


def test_one_field_may_be_named_by_itself(tree: Path) -> None:
    assert dataset(tree, fields="density").core_field_names == ["density"]


def test_unflattened_samples_keep_tensors(tree: Path) -> None:
    flat, sample = dataset(tree, n_steps_input=2)[0], dataset(tree, n_steps_input=2, flatten_tensors=False)[0]
    assert {order: list(fields) for order, fields in sample["input_fields"].items()} == {
        0: ["density", "pressure", "profile"],
        1: ["velocity"],
        2: ["stress"],
    }
    assert sample["output_fields"][2]["stress"].shape == (1, 8, 6, 2, 2)
    np.testing.assert_array_equal(sample["input_fields"][1]["velocity"], flat["input_fields"][..., 3:5])
    np.testing.assert_array_equal(sample["constant_fields"][0]["mask"], flat["constant_fields"][..., 0])


def test_a_transform_sees_fields_by_order_and_may_replace_them(tree: Path) -> None:
    seen: list[TrajectoryMetadata] = []

    def double_velocity(data: TrajectoryData, metadata: TrajectoryMetadata) -> TrajectoryData:
        seen.append(metadata)
        assert data["variable_fields"][2]["stress"].shape == (2, 8, 6, 2, 2)
        assert isinstance(data["variable_fields"][0]["density"], torch.Tensor)
        data["variable_fields"][1]["velocity"] = 2 * data["variable_fields"][1]["velocity"]
        data["variable_fields"][0]["density"][:] = 7  # writing in place counts too
        return data

    plain = dataset(tree, framework="torch")[8]
    changed = dataset(tree, framework="torch", transform=double_velocity)[8]
    expected = plain["input_fields"].clone()
    expected[..., 3:5] *= 2
    expected[..., 0] = 7
    torch.testing.assert_close(changed["input_fields"], expected)
    assert (seen[0].file_idx, seen[0].sample_idx, seen[0].time_idx, seen[0].time_stride) == (0, 1, 2, 1)


def test_metadata_names_what_there_is(tree: Path) -> None:
    metadata = dataset(tree, name_override="mine").metadata
    assert metadata.dataset_name == "made_up"
    assert metadata.field_names == {
        0: ["density", "pressure", "profile"],
        1: ["velocity_x", "velocity_y"],
        2: ["stress_xx", "stress_xy", "stress_yx", "stress_yy"],
    }
    assert metadata.constant_field_names == {0: ["mask", "material"], 1: ["gravity_x", "gravity_y"], 2: []}
    assert (
        metadata.n_fields,
        metadata.n_constant_fields,
        metadata.n_scalars,
        metadata.n_constant_scalars,
    ) == (9, 4, 2, 2)
    assert metadata.scalar_names == ["drive", "heat"]
    assert metadata.constant_scalar_names == ["viscosity", "mass"]
    assert metadata.boundary_condition_types == ["PERIODIC", "WALL"]
    assert (metadata.n_trajectories_per_file, metadata.n_steps_per_trajectory) == ([2, 2], [7, 7])


def test_what_is_left_out_stays_out(tree: Path) -> None:
    sample = dataset(tree, return_grid=False, boundary_return_type=None)[0]
    assert list(sample) == [
        "input_fields",
        "output_fields",
        "constant_fields",
        "input_scalars",
        "output_scalars",
        "constant_scalars",
    ]


def test_kept_constants_cannot_be_spoiled(tree: Path) -> None:
    data = dataset(tree, framework="torch")
    first = data[0]
    before = {key: first[key].clone() for key in ("space_grid", "constant_fields", "boundary_conditions")}
    for key in before:
        first[key] += 1
    again = data[0]
    for key, value in before.items():
        torch.testing.assert_close(again[key], value)


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.parametrize("persistent", [False, True])
def test_torch_loader_workers_give_the_same_batches(tree: Path, method: str, persistent: bool) -> None:
    data = dataset(tree, framework="torch", use_normalization=True, min_dt_stride=1, max_dt_stride=3)
    loader: torch.utils.data.DataLoader[dict[str, torch.Tensor]] = torch.utils.data.DataLoader(
        cast(Any, data), batch_size=5, num_workers=2, multiprocessing_context=method, persistent_workers=persistent
    )
    for epoch in range(2):
        data.set_epoch(epoch)
        expected = [data[i]["output_time_grid"] for i in range(len(data))]
        batches = list(loader)
        assert sum(len(batch["input_fields"]) for batch in batches) == len(data)
        torch.testing.assert_close(torch.cat([batch["output_time_grid"] for batch in batches]), torch.stack(expected))


def test_datasets_pickle_whole(tree: Path) -> None:
    data = dataset(tree, use_normalization=True, framework="torch")
    copy = pickle.loads(pickle.dumps(data))  # noqa: S301 - our own bytes
    torch.testing.assert_close(copy[7]["input_fields"], data[7]["input_fields"])


def test_values_do_not_depend_on_storage(tree: Path, tmp_path: Path) -> None:
    import fsspec

    memory = fsspec.filesystem("memory")
    memory.put(str(tree), "/remote/made_up", recursive=True)
    zipped = make_tree(tmp_path, chunks=True, compression="gzip")
    local = dataset(tree, use_normalization=True, n_steps_input=2)
    for other in (
        wellkit.WellDataset(
            well_base_path="memory://remote",
            well_dataset_name="made_up",
            well_split_name="train",
            use_normalization=True,
            n_steps_input=2,
            framework="numpy",
        ),
        dataset(zipped, use_normalization=True, n_steps_input=2),
    ):
        assert len(other) == len(local)
        for index in (0, 7, len(local) - 1):
            for key, value in local[index].items():
                np.testing.assert_array_equal(other[index][key], value)
    memory.rm("/remote", recursive=True)


def test_a_bare_folder_of_shards_finds_its_statistics_above(tree: Path) -> None:
    bare = wellkit.WellDataset(path=tree / "data" / "train", use_normalization=True, framework="numpy")
    np.testing.assert_array_equal(bare[0]["input_fields"], dataset(tree, use_normalization=True)[0]["input_fields"])


def test_epochs_reach_persistent_forked_workers_without_torch_tensors(tree: Path) -> None:
    data = dataset(tree, min_dt_stride=1, max_dt_stride=3, return_grid=True)
    loader: Any = torch.utils.data.DataLoader(
        cast(Any, data),
        batch_size=8,
        num_workers=1,
        multiprocessing_context="fork",
        persistent_workers=True,
        collate_fn=lambda samples: np.stack([sample["output_time_grid"] for sample in samples]),
    )
    seen = []
    for epoch in range(2):
        data.set_epoch(epoch)
        seen.append(np.concatenate(list(loader)))
        np.testing.assert_array_equal(seen[-1], np.stack([data[i]["output_time_grid"] for i in range(len(data))]))
    assert not np.array_equal(seen[0], seen[1])
    copy = pickle.loads(pickle.dumps(data))  # noqa: S301 - our own bytes
    assert copy.epoch == 1


def test_generated_data_found_by_name_alone_are_not_taken_for_the_published(isolated: Path) -> None:
    name = "turbulent_radiative_layer_2D"
    made = make_tree(isolated / "data", name=name, plain=True, splits=("train",))
    for path in (made / "data" / "train").iterdir():
        with h5py.File(path, "r+") as file:
            file.attrs["generator"] = "wellkit"
    with pytest.warns(wellkit.errors.WellkitWarning, match="generated by wellkit; they are not the published"):
        wellkit.WellDataset(well_dataset_name=name, well_split_name="train", framework="numpy")
    wellkit.WellDataset(  # said where, so it is meant
        well_base_path=isolated / "data", well_dataset_name=name, well_split_name="train", framework="numpy"
    )


def test_a_remote_shard_replaced_in_between_is_read_anew(tmp_path: Path) -> None:
    import fsspec

    memory = fsspec.filesystem("memory")
    firsts = []
    for seed in (1, 2):
        made = make_tree(tmp_path / str(seed), files=1, plain=True, trajectories=seed, splits=("train",))
        if memory.exists("/replaced"):
            memory.rm("/replaced", recursive=True)
        memory.put(str(made), "/replaced/made_up", recursive=True)
        data = wellkit.WellDataset(path="memory://replaced/made_up", well_split_name="train", framework="numpy")
        local = wellkit.WellDataset(path=made, well_split_name="train", framework="numpy")
        assert len(data) == len(local)
        np.testing.assert_array_equal(data[0]["input_fields"], local[0]["input_fields"])
        firsts.append(data[0]["input_fields"])
    assert not np.array_equal(firsts[0], firsts[1])
    memory.rm("/replaced", recursive=True)
