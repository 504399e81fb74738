"""Statistics against whole-file NumPy in float64."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import yaml

from tests.trees import make_shard, make_tree
from wellkit import statistics
from wellkit.errors import ArgumentError, DataNotFoundError, DataValueError, StatisticsError, StorageError
from wellkit.formats.well_writer import ShardField, write_well_shard
from wellkit.scanning import blocks
from wellkit.statistics import (
    compute_statistics,
    find_split,
    load_statistics,
    statistics_hash,
    write_statistics,
)

KEYS = ("mean", "std", "rms", "mean_delta", "std_delta", "rms_delta")


def trajectories(tree: Path, split: str, order: int, name: str) -> Iterator[np.ndarray]:
    """Every trajectory of a field in float64, read whole; a field common to all comes once for each."""
    for path in sorted((tree / "data" / split).glob("*.hdf5")):
        with h5py.File(path) as file:
            stored = file[f"t{order}_fields/{name}"]
            values = stored[()].astype(np.float64)
            for number in range(int(file.attrs["n_trajectories"])):
                yield values[number] if stored.attrs["sample_varying"] else values


def expected(tree: Path, split: str, order: int, name: str, *, constant: bool) -> dict[str, np.ndarray]:
    whole = list(trajectories(tree, split, order, name))
    n_components = whole[0].shape[-1] ** order if order else 1
    shape = whole[0].shape[-order:] if order else ()

    def flat(pieces: list[np.ndarray]) -> np.ndarray:
        return np.concatenate([piece.reshape(-1, n_components) for piece in pieces])

    kinds = {"": flat(whole)}
    if not constant:
        kinds["_delta"] = flat([np.diff(values, axis=0) for values in whole])
    found = {}
    for suffix, values in kinds.items():
        found["mean" + suffix] = values.mean(axis=0).reshape(shape)
        found["std" + suffix] = values.std(axis=0).reshape(shape)
        found["rms" + suffix] = np.sqrt((values**2).mean(axis=0)).reshape(shape)
    return found


FIELDS = {
    "density": (0, False),
    "pressure": (0, False),
    "profile": (0, False),  # varies along x only
    "mask": (0, True),  # one for all trajectories
    "material": (0, True),  # one a trajectory
    "gravity": (1, True),
    "velocity": (1, False),
    "stress": (2, False),
}


@pytest.mark.parametrize(
    "shape",
    [
        {},
        {"singleton_axes": True},
        {"resolution": (5, 4, 3), "steps": (4, 6, 1)},
        {"resolution": (9,), "boundaries": ("OPEN",)},
        {"time_per_trajectory": True, "grid_per_trajectory": True, "chunks": True, "compression": "gzip"},
    ],
    ids=["2D", "size-1 axes", "3D, unequal lengths", "1D", "gzip"],
)
@pytest.mark.parametrize("block", [1 << 22, 50], ids=["one block", "many blocks"])
def test_every_field_agrees_with_whole_file_numpy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shape: dict[str, Any], block: int
) -> None:
    monkeypatch.setattr(blocks, "BLOCK_VALUES", block)
    tree = make_tree(tmp_path, splits=("train",), files=3, **shape)
    found = compute_statistics(tree)
    for name, (order, constant) in FIELDS.items():
        oracle = expected(tree, "train", order, name, constant=constant)
        for key in KEYS:
            values = getattr(found, key)
            if key not in oracle:
                assert name not in values
                continue
            assert np.shape(values[name]) == oracle[key].shape
            np.testing.assert_allclose(values[name], oracle[key], rtol=1e-9, atol=1e-12, err_msg=f"{key} {name}")


def test_shards_weigh_by_their_trajectories(tmp_path: Path) -> None:
    # A constant common to all trajectories of its shard: 1 in a shard of 1 trajectory, 4 in a shard of 2.
    # mean (1 + 4 + 4) / 3 = 3, variance ((1-3)^2 + 2 (4-3)^2) / 3 = 2, mean square (1 + 16 + 16) / 3 = 11
    for number, value in ((1, 1.0), (2, 4.0)):
        shard = make_shard(trajectories=number, plain=True)
        common = ShardField("level", np.full((8, 6), value), sample_varying=False, time_varying=False)
        write_well_shard(tmp_path / f"{number}.hdf5", replace(shard, fields=(*shard.fields, common)))
    found = compute_statistics(tmp_path)
    np.testing.assert_allclose(found.mean["level"], 3.0)
    np.testing.assert_allclose(found.std["level"], np.sqrt(2.0))
    np.testing.assert_allclose(found.rms["level"], np.sqrt(11.0))


def test_a_large_offset_costs_no_digits(tmp_path: Path) -> None:
    shard = make_shard(plain=True)
    rng = np.random.default_rng(3)
    values = (1e6 + rng.integers(0, 2, (2, 7, 8, 6))).astype(np.float32)  # exact in float32; std about 0.5
    write_well_shard(tmp_path / "a.hdf5", replace(shard, fields=(ShardField("height", values),)))
    found = compute_statistics(tmp_path)
    np.testing.assert_allclose(found.std["height"], (values.astype(np.float64) - 1e6).std(), rtol=1e-10)


def test_the_file_is_read_back_and_normalizes_its_own_data(tmp_path: Path) -> None:
    import wellkit

    tree = make_tree(tmp_path, files=2)
    found = compute_statistics(tree)
    write_statistics(found, tree / "stats.yaml")
    assert load_statistics(tree / "stats.yaml") == found
    assert [path.name for path in tree.iterdir() if path.is_file()] == ["stats.yaml"]
    data = wellkit.WellDataset(
        path=tree, well_split_name="train", use_normalization=True, full_trajectory_mode=True, framework="numpy"
    )
    frames = np.concatenate([np.concatenate([s["input_fields"], s["output_fields"]]) for s in data])
    np.testing.assert_allclose(frames.mean(axis=(0, 1, 2)), 0.0, atol=1e-5)
    np.testing.assert_allclose(frames.std(axis=(0, 1, 2)), 1.0, rtol=1e-5)


def test_the_file_has_the_wells_layout(tmp_path: Path) -> None:
    tree = make_tree(tmp_path, splits=("train",))
    write_statistics(compute_statistics(tree), tree / "stats.yaml")
    content = yaml.safe_load((tree / "stats.yaml").read_text())
    assert tuple(content) == KEYS
    assert isinstance(content["mean"]["density"], float)
    assert np.shape(content["mean"]["velocity"]) == (2,)
    assert np.shape(content["rms_delta"]["stress"]) == (2, 2)
    assert set(content["std"]) - set(content["std_delta"]) == {"mask", "material", "gravity"}


def test_the_hash_follows_the_values_and_nothing_else(tmp_path: Path) -> None:
    tree = make_tree(tmp_path, splits=("train",))
    found = compute_statistics(tree)
    write_statistics(found, tmp_path / "a.yaml")
    shuffled = yaml.safe_load((tmp_path / "a.yaml").read_text())
    (tmp_path / "b.yaml").write_text(yaml.safe_dump(dict(reversed(shuffled.items())), default_flow_style=True))
    assert statistics_hash(load_statistics(tmp_path / "b.yaml")) == statistics_hash(found)
    shuffled["mean"]["density"] += 1e-9
    (tmp_path / "b.yaml").write_text(yaml.safe_dump(shuffled))
    assert statistics_hash(load_statistics(tmp_path / "b.yaml")) != statistics_hash(found)


@pytest.mark.parametrize("given", ["tree", "split", "bare"])
def test_a_tree_a_split_and_a_bare_folder_are_found(tmp_path: Path, given: str) -> None:
    tree = make_tree(tmp_path / "base", files=1)
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "a.hdf5").symlink_to(next((tree / "data" / "train").iterdir()))
    location = {"tree": tree, "split": tree / "data" / "train", "bare": bare}[given]
    found = find_split(location)
    assert found.split == (None if given == "bare" else "train")
    assert Path(found.statistics) == (bare if given == "bare" else tree) / "stats.yaml"
    assert compute_statistics(location) == compute_statistics(tree)


def test_the_split_asked_for_is_the_one_read(tmp_path: Path) -> None:
    tree = make_tree(tmp_path, files=1)
    oracle = expected(tree, "valid", 0, "density", constant=False)
    np.testing.assert_allclose(compute_statistics(tree, "valid").mean["density"], oracle["mean"], rtol=1e-9)


def spoil(tree: Path, value: float) -> Path:
    path = sorted((tree / "data" / "train").glob("*.hdf5"))[1]
    with h5py.File(path, "r+") as file:
        file["t0_fields/pressure"][1, 3, 2, 2] = value
    return path


@pytest.mark.parametrize("block", [1 << 22, 50])
def test_a_nan_is_named_with_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(blocks, "BLOCK_VALUES", block)
    tree = make_tree(tmp_path, splits=("train",))
    path = spoil(tree, np.nan)
    with pytest.raises(DataValueError, match=r"field 'pressure', trajectory 1, frame 3: NaN in 1 of 48 values") as told:
        compute_statistics(tree)
    assert str(path) in str(told.value)


def test_nan_can_be_left_out_but_not_infinity(tmp_path: Path) -> None:
    tree = make_tree(tmp_path, splits=("train",))
    spoil(tree, np.nan)
    found = compute_statistics(tree, nan="omit")
    whole = np.stack(list(trajectories(tree, "train", 0, "pressure")))
    np.testing.assert_allclose(found.mean["pressure"], np.nanmean(whole), rtol=1e-12)
    np.testing.assert_allclose(found.std["pressure"], np.nanstd(whole), rtol=1e-12)
    np.testing.assert_allclose(found.std_delta["pressure"], np.nanstd(np.diff(whole, axis=1)), rtol=1e-12)
    spoil(tree, -np.inf)
    with pytest.raises(DataValueError, match="infinity"):
        compute_statistics(tree, nan="omit")


def test_nothing_but_nan_has_no_statistics(tmp_path: Path) -> None:
    shard = make_shard(plain=True)
    empty = ShardField("hole", np.full((2, 7, 8, 6), np.nan))
    write_well_shard(tmp_path / "a.hdf5", replace(shard, fields=(empty,)))
    with pytest.raises(DataValueError, match="'hole' holds nothing but NaN"):
        compute_statistics(tmp_path, nan="omit")


def test_progress_counts_up_to_its_total(tmp_path: Path) -> None:
    tree = make_tree(tmp_path, splits=("train",), files=2)
    told: list[tuple[int, int]] = []
    compute_statistics(tree, progress=lambda done, total: told.append((done, total)))
    # 5 fields for each of 2 trajectories (material too), 2 common ones, in each of 2 files
    assert told == [(number, 28) for number in range(1, 29)]


def test_bad_requests(tmp_path: Path) -> None:
    tree = make_tree(tmp_path, splits=("train",), files=1)
    with pytest.raises(ArgumentError, match="split='dev' is unknown"):
        compute_statistics(tree, "dev")
    with pytest.raises(DataNotFoundError, match="valid"):
        compute_statistics(tree, "valid")
    with pytest.raises(DataNotFoundError, match="no such folder"):
        compute_statistics(tmp_path / "nowhere")
    with pytest.raises(ArgumentError, match="nan='zero' is unknown"):
        compute_statistics(tree, nan="zero")  # type: ignore[arg-type]
    found = compute_statistics(tree)
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot write"):
        write_statistics(found, tmp_path / "file" / "stats.yaml")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("mean: {density: [1, two]}", "'mean' of 'density' has to be a number"),
        ("- 1", "expected a mapping"),
        ("mean: {density: 1}\naverage: {density: 1}", "average"),
        ("mean: [", "is not YAML"),
    ],
)
def test_a_statistics_file_that_is_none(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "stats.yaml"
    path.write_text(text)
    with pytest.raises(StatisticsError, match=told) as error:
        load_statistics(path)
    assert str(path) in str(error.value)
    with pytest.raises(DataNotFoundError):
        load_statistics(tmp_path / "none.yaml")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_recorded_value_that_is_not_finite_differs_from_every_number(tmp_path: Path, value: float) -> None:
    computed = compute_statistics(make_tree(tmp_path, splits=("train",), files=1))
    recorded = computed.model_copy(update={"std": {**computed.std, "density": value}})
    (difference,) = statistics.compare_statistics(recorded, computed)
    assert (difference.statistic, difference.component, difference.relative) == ("std", "density", float("inf"))


def test_threads_change_nothing_not_even_the_last_bit(tmp_path: Path) -> None:
    tree = make_tree(tmp_path, files=3, chunks=True, compression="gzip")
    assert compute_statistics(tree, jobs=1) == compute_statistics(tree, jobs=4)
