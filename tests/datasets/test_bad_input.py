"""What a dataset says when it is given what it cannot use: one line, the file or folder named."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import yaml

import wellkit
from tests.trees import make_shard, make_tree
from wellkit import errors
from wellkit.formats.well_writer import write_well_shard


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return make_tree(tmp_path)


def open_dataset(tree: Path, **arguments: Any) -> wellkit.WellDataset:
    defaults: dict[str, Any] = {"path": tree, "well_split_name": "train", "framework": "numpy"}
    return wellkit.WellDataset(**(defaults | arguments))


def one_line(error: pytest.ExceptionInfo[BaseException]) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


def test_unknown_dataset_names_near_matches() -> None:
    with pytest.raises(errors.UnknownDatasetError) as error:
        wellkit.WellDataset(well_dataset_name="turbulent_radiative_layer2D", well_split_name="train")
    assert "turbulent_radiative_layer_2D" in one_line(error)


def test_missing_split_names_those_there_are(tree: Path) -> None:
    shutil.rmtree(tree / "data" / "valid")
    with pytest.raises(errors.DataNotFoundError) as error:
        open_dataset(tree, well_split_name="valid")
    assert re.search("no such folder; .*data holds test, train, not 'valid'", one_line(error))
    with pytest.raises(errors.ArgumentError, match="choose one of train, valid, test"):
        open_dataset(tree, well_split_name="validation")


def test_wrong_base_path_and_wrong_name_are_told_apart(tree: Path) -> None:
    with pytest.raises(errors.DataNotFoundError, match=r"holds made_up, not 'made_down'.*Did you mean made_up"):
        open_dataset(tree, path=None, well_base_path=tree.parent, well_dataset_name="made_down")
    with pytest.raises(errors.ArgumentError, match="give path="):
        open_dataset(tree, path=None)


@pytest.mark.parametrize("split", ["train", None])
def test_a_folder_one_level_off_is_told_which_to_give(tree: Path, split: str | None) -> None:
    with pytest.raises(errors.DataNotFoundError, match=r"[Ii]t holds datasets: give one of them, e\.g\. .*/made_up$"):
        open_dataset(tree.parent, well_split_name=split)
    with pytest.raises(errors.DataNotFoundError, match=r"[Ii]t holds the splits .* give the folder above, .*/made_up$"):
        open_dataset(tree / "data", well_split_name=split)


def test_the_datasets_folder_is_neither_the_base_nor_a_split(tree: Path) -> None:
    with pytest.raises(
        errors.DataNotFoundError, match=f"own folder: give the one above, {re.escape(str(tree.parent))}"
    ):
        open_dataset(tree, path=None, well_base_path=tree, well_dataset_name="made_up")
    with pytest.raises(errors.DataNotFoundError, match="it is a dataset's folder: name the split too"):
        open_dataset(tree, well_split_name=None)


def test_a_shard_given_for_a_folder_is_told_to_be_a_file(tree: Path) -> None:
    shard = next((tree / "data" / "train").iterdir())
    for split in ("train", None):
        with pytest.raises(errors.DataNotFoundError, match=f"{re.escape(shard.name)} is a file, give the folder"):
            open_dataset(shard, well_split_name=split)


def test_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(errors.DataNotFoundError, match=r"holds no \.hdf5 or \.h5 file"):
        open_dataset(tmp_path, well_split_name=None)


@pytest.mark.parametrize("content", [b"", b"<html>503</html>", None])
def test_unreadable_shards_are_named(tree: Path, content: bytes | None) -> None:
    victim = tree / "data" / "train" / "made_up_part_1.hdf5"
    whole = victim.read_bytes()
    victim.write_bytes(whole[: len(whole) // 3] if content is None else content)
    with pytest.raises(errors.ShardError) as error:
        open_dataset(tree)
    assert "made_up_part_1.hdf5" in one_line(error)


@pytest.mark.parametrize(
    ("different", "what"),
    [
        ({"resolution": (8, 7)}, "resolution"),
        ({"resolution": (4, 4, 4)}, "number of spatial dimensions"),
        ({"name": "other"}, "dataset name"),
        ({"plain": True}, "fields"),
    ],
)
def test_shards_that_do_not_belong_together(tree: Path, different: dict[str, Any], what: str) -> None:
    write_well_shard(tree / "data" / "train" / "stranger.hdf5", make_shard(**different))
    with pytest.raises(errors.FormatError, match=rf"differ in {what}: .*part_0.*stranger"):
        open_dataset(tree)


def test_too_few_steps_name_file_and_numbers(tree: Path) -> None:
    for arguments in ({"n_steps_input": 7}, {"n_steps_input": 3, "min_dt_stride": 3, "max_dt_stride": 3}):
        with pytest.raises(errors.WindowError, match=r"part_0\.hdf5: trajectories of 7 steps are too short"):
            open_dataset(tree, **arguments)
    with pytest.raises(errors.WindowError, match="too short for 7 input steps and at least 1 output"):
        open_dataset(tree, n_steps_input=7, full_trajectory_mode=True)


def edit_statistics(tree: Path, key: str, field: str | None, value: Any = None) -> None:
    path = tree / "stats.yaml"
    content = yaml.safe_load(path.read_text())
    if field is None:
        del content[key]
    elif value is None:
        del content[key][field]
    else:
        content[key][field] = value
    path.write_text(yaml.safe_dump(content))


@pytest.mark.parametrize(
    ("key", "field", "value"),
    [
        ("std", None, None),
        ("mean", "velocity", None),
        ("std_delta", "density", None),
        ("mean", "velocity", 0.5),  # one number for a vector
        ("std", "density", [1.0, 2.0]),
        ("std", "density", float("nan")),
        ("std", "density", -1.0),
        ("mean", "density", "much"),
    ],
)
def test_statistics_that_do_not_fit(tree: Path, key: str, field: str | None, value: Any) -> None:
    edit_statistics(tree, key, field, value)
    with pytest.raises(errors.StatisticsError) as error:
        open_dataset(tree, use_normalization=True)
    message = one_line(error)
    assert "stats.yaml" in message
    assert key in message
    assert field is None or field in message


def test_a_wrong_field_in_the_statistics(tree: Path) -> None:
    edit_statistics(tree, "mean", "densty", 1.0)
    edit_statistics(tree, "mean", "density")
    with pytest.raises(errors.StatisticsError, match="density"):
        open_dataset(tree, use_normalization=True)


def test_missing_statistics_raise_only_where_they_are_needed(tree: Path) -> None:
    (tree / "stats.yaml").unlink()
    assert len(open_dataset(tree)) > 0
    with pytest.raises(errors.StatisticsError, match=r"no .*stats\.yaml; compute them with `wellkit stats"):
        open_dataset(tree, use_normalization=True)
    with pytest.raises(errors.StatisticsError, match="normalization_type='minmax' is unknown"):
        open_dataset(tree, use_normalization=True, normalization_type="minmax")
    with pytest.raises(errors.StatisticsError, match=r"normalization_type=3 is unknown.*or give a class"):
        open_dataset(tree, normalization_type=3)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"n_steps_input": 0}, "n_steps_input=0"),
        ({"min_dt_stride": 0}, "min_dt_stride=0"),
        ({"min_dt_stride": 3}, "max_dt_stride=1 is below"),
        ({"max_dt_stride": 2.0}, "max_dt_stride=2.0"),
        ({"max_rollout_steps": 0}, "max_rollout_steps=0"),
        ({"max_rollout_steps": 2.5}, "max_rollout_steps=2.5"),
        ({"seed": -1}, "seed=-1"),
        ({"restriction_seed": -1, "restrict_num_samples": 2}, "restriction_seed=-1"),
        ({"boundary_return_type": "exact"}, "boundary_return_type='exact'"),
        ({"errata": "drop"}, "errata='drop'; choose"),
        ({"rollout_length": "long"}, "rollout_length='long'"),
        ({"framework": "tensorflow"}, "framework='tensorflow'"),
        ({"full_trajectory_mode": True, "max_dt_stride": 2}, "one stride"),
        (
            {"full_trajectory_mode": True, "n_steps_input": 3, "start_output_steps_at_t": 2},
            "start_output_steps_at_t=2",
        ),
        ({"fields": ["densty"]}, "no field 'densty'.*Did you mean density"),
        ({"crop": 4}, r"crop=4; give a pair"),
        ({"crop": (0, 4)}, r"crop=\(0, 4\); give a pair"),
        ({"fields": []}, "leaves nothing to read"),
        ({"min_std": -1.0}, "min_std=-1.0"),
        ({"min_std": float("nan")}, "min_std=nan"),
        ({"crop": [(0, 4)]}, "1 pairs for 2"),
        ({"crop": [(0, 4), (3, 9)]}, r"axis 1 needs 0 <= first < last <= 6"),
        ({"restrict_num_trajectories": 0}, "restrict_num_trajectories=0"),
    ],
)
def test_arguments_that_make_no_sense(tree: Path, arguments: dict[str, Any], complaint: str) -> None:
    with pytest.raises(errors.ArgumentError, match=complaint):
        open_dataset(tree, **arguments)


def test_delta_statistics_are_those_of_consecutive_frames(tree: Path) -> None:
    with pytest.raises(errors.ArgumentError, match="strides 2 to 2 cannot be normalized"):
        wellkit.DeltaWellDataset(
            path=tree, well_split_name="train", use_normalization=True, min_dt_stride=2, max_dt_stride=2
        )


def test_a_shard_damaged_after_opening_is_an_error(tree: Path) -> None:
    data = open_dataset(tree, include_filters=["part_0"])
    with h5py.File(tree / "data" / "train" / "made_up_part_0.hdf5", "r") as file:
        assert file["t0_fields/density"].shape
    victim = tree / "data" / "train" / "made_up_part_0.hdf5"
    data.close()
    victim.unlink()
    with pytest.raises(errors.DataNotFoundError, match=r"part_0\.hdf5"):
        data[0]


def test_errata_of_published_data_are_told_and_those_of_generated_data_are_not(tmp_path: Path) -> None:
    name = "acoustic_scattering_inclusions"
    tree = make_tree(tmp_path, name=name, splits=("train",))
    with pytest.warns(errors.WellkitWarning, match=f"{name}: known fault"):
        open_dataset(tree)
    open_dataset(tree, errata="keep").close()
    for shard in (tree / "data" / "train").iterdir():
        with h5py.File(shard, "r+") as file:
            file.attrs["generator"] = "wellkit"
    open_dataset(tree)


def test_nothing_above_a_path_is_there_either() -> None:
    with pytest.raises(errors.DataNotFoundError, match=r"^/nowhere_at_all/x/data/train: no such folder; / holds .*"):
        open_dataset(Path("/nowhere_at_all/x"))


def test_numbers_of_samples_are_whole(tree: Path) -> None:
    data = open_dataset(tree)
    for index in (1.5, "1", None):
        with pytest.raises(TypeError):
            data[index]  # type: ignore[index]
    number: Any = np.int64(1)
    np.testing.assert_array_equal(data[number]["input_fields"], data[1]["input_fields"])
