"""Boxes drawn for each sample: the same values as the same box of the whole sample, whatever reads them."""

from __future__ import annotations

import itertools
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import h5py
import numpy as np
import pytest
from torch.utils.data import DataLoader

import wellkit
from tests.trees import make_tree
from tests.trees_zarr import zarr_twin
from wellkit.datasets.batches import BatchSamples
from wellkit.sampling import draw_box

GRIDS = ("input_fields", "output_fields", "constant_fields", "space_grid")
CROP = [(1, 30), (0, 20)]
NAMES = ("density", "velocity", "stress")  # one of each tensor order


@pytest.fixture(scope="module", params=["contiguous", "gzip", "in the index", "zarr", "grids and times of their own"])
def tree(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, own = tmp_path_factory.mktemp("tree"), request.param.startswith("grids")
    options: dict[str, Any] = {"chunks": True, "compression": "gzip"} if request.param == "gzip" else {}
    # The small one has fewer frames, so that its fields are in the index whole.
    steps = (5,) if request.param == "in the index" else (7,)
    made = make_tree(
        folder, resolution=(32, 24), steps=steps, grid_per_trajectory=own, time_per_trajectory=own, **options
    )
    return zarr_twin(made, folder / "zarr") if request.param == "zarr" else made


def opened(tree: Path | str, **options: Any) -> wellkit.WellDataset:
    options = {"n_steps_input": 2, "n_steps_output": 2, "use_normalization": True, "framework": "numpy", **options}
    return wellkit.WellDataset(path=tree, well_split_name="train", errata="keep", **options)


def box_of(data: wellkit.WellDataset, index: int) -> tuple[slice, ...]:
    crop = data._place(index)[1].crop
    assert crop is not None
    return crop


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"crop": CROP},
        {"full_trajectory_mode": True},
        {"max_dt_stride": 2},
        {"max_cache_size": 10},
        {"cache_small": False},
        {"normalization_type": "rms", "fields": ["velocity", "mask", "profile"]},
    ],
)
def test_samples_are_boxes_of_whole_samples(tree: Path, options: dict[str, Any]) -> None:
    whole, data = opened(tree, **{**options, "crop": None}), opened(tree, **options, random_crop=(19, 17))
    seen = set()
    for index in range(0, len(data), 3):
        box = box_of(data, index)
        seen.add(tuple(part.start for part in box))
        for part, (first, last) in zip(box, options.get("crop", [(0, 32), (0, 24)]), strict=True):
            assert first <= part.start < part.stop <= last
        expected, found = whole[index], data[index]
        assert found.keys() == expected.keys()
        for key, values in expected.items():
            if key in GRIDS:
                values = values[:, *box] if key.endswith("put_fields") else values[box]
            if key != "boundary_conditions":
                np.testing.assert_array_equal(found[key], values)
    assert len(seen) > 1
    assert data.metadata.spatial_resolution == (19, 17)
    assert data.metadata.sample_shapes["space_grid"] == [19, 17, 2]


def test_batches_are_their_samples_read_at_once(tree: Path) -> None:
    data = opened(tree, random_crop=(13, 14))
    indices = list(range(0, len(data), 2))
    batch = data.__getitems__(indices)
    assert isinstance(batch, BatchSamples)
    for sample, index in zip(batch, indices, strict=True):
        for key, values in data[index].items():
            np.testing.assert_array_equal(sample[key], values)


def _in_memory(tree: Path) -> Iterator[str]:
    there = fsspec.filesystem("memory")
    there.put(str(tree), "/random-crop", recursive=True)
    yield "memory://random-crop"
    there.rm("/random-crop", recursive=True)


@pytest.fixture(params=["contiguous", "chunks", "gzip", "lzf", "zarr 2", "zarr 3, sharded", "in memory"])
def stored(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Path, Path | str]]:
    """(a tree for h5py, the same as it is to be read); fields of more than 64 KiB, so that no index holds them."""
    kind = request.param
    options: dict[str, Any] = {"chunks": True} if kind in ("chunks", "gzip", "lzf") else {}
    options |= {"compression": kind} if kind in ("gzip", "lzf") else {}
    tree = make_tree(tmp_path, resolution=(56, 44), splits=("train",), **options)
    if kind.startswith("zarr"):
        yield tree, zarr_twin(tree, tmp_path / "zarr", 2 if "2" in kind else 3, sharded="sharded" in kind)
    elif kind == "in memory":
        for address in _in_memory(tree):
            yield tree, address
    else:
        yield tree, tree


def test_fields_and_grids_are_what_h5py_slices(stored: tuple[Path, Path | str]) -> None:
    tree, location = stored
    data = opened(location, random_crop=(21, 17), use_normalization=False)
    files = sorted((tree / "data" / "train").glob("*.hdf5"))
    indices = [0, 15, 3, 8, 8]
    batch = data.__getitems__(indices)
    first_shard = data[0]["space_grid"]
    for sample, index in zip(batch, indices, strict=True):
        window, place = data._place(index)
        rows, columns = box_of(data, index)
        with h5py.File(files[place.file_idx]) as file:
            where = (window.trajectory, slice(window.start, window.start + 4), rows, columns)
            density, velocity, stress = (file[f"t{n}_fields/{name}"][where] for n, name in enumerate(NAMES))
            mask = file["t0_fields/mask"][rows, columns]
            material = file["t0_fields/material"][window.trajectory, rows, columns]
            x, y = (file[f"dimensions/{axis}"][part] for axis, part in (("x", rows), ("y", columns)))
        for found in (sample, data[index]):
            fields = np.concatenate([found["input_fields"], found["output_fields"]])
            constants = found["constant_fields"]
            channel = {name: number for number, name in enumerate(itertools.chain(*data.field_names.values()))}
            np.testing.assert_array_equal(fields[..., channel["density"]], density)
            np.testing.assert_array_equal(fields[..., channel["velocity_y"]], velocity[..., 1])
            np.testing.assert_array_equal(fields[..., channel["stress_yx"]], stress[..., 1, 0])
            constant = {
                name: number for number, name in enumerate(itertools.chain(*data.constant_field_names.values()))
            }
            np.testing.assert_array_equal(constants[..., constant["mask"]], mask)
            np.testing.assert_array_equal(constants[..., constant["material"]], material)
            np.testing.assert_array_equal(found["space_grid"][..., 0], np.broadcast_to(x[:, None], (21, 17)))
            np.testing.assert_array_equal(found["space_grid"][..., 1], np.broadcast_to(y, (21, 17)))
    assert not np.array_equal(first_shard, data[1]["space_grid"])


def test_transforms_draw_the_same_and_know_the_box(tmp_path: Path) -> None:
    tree = make_tree(tmp_path)
    seen: list[tuple[float, Any, tuple[int, ...]]] = []

    def look(data: Any, metadata: Any) -> Any:
        seen.append((metadata.rng.random(), metadata.crop, data["space_grid"].shape))
        return data

    plain, boxed = (opened(tree, transform=look, random_crop=crop) for crop in (None, (5, 4)))
    for data in (plain, boxed):
        data[3]
    (draw, none, whole), (same, box, part) = seen
    assert draw == same
    assert none is None
    assert box == box_of(boxed, 3)
    assert (whole, part) == ((8, 6, 2), (5, 4, 2))


def test_the_delta_dataset_and_named_fields_follow(tree: Path) -> None:
    common: dict[str, Any] = {"path": tree, "well_split_name": "train", "framework": "numpy", "n_steps_input": 2}
    whole, data = wellkit.DeltaWellDataset(**common), wellkit.DeltaWellDataset(**common, random_crop=2)
    named = opened(tree, random_crop=(2, 2), flatten_tensors=False)
    flat = opened(tree, random_crop=(2, 2), n_steps_input=2)
    for index in (0, 3):
        box = box_of(data, index)
        np.testing.assert_array_equal(data[index]["output_fields"], whole[index]["output_fields"][:, *box])
        density = named[index]["input_fields"][0]["density"]
        np.testing.assert_array_equal(density, flat[index]["input_fields"][..., 0])


def test_the_sides_that_are_cut_off_are_open(tmp_path: Path) -> None:
    tree = make_tree(tmp_path, boundaries=("PERIODIC",))
    data = opened(tree, random_crop=(5, 6))
    starts = set()
    for index in range(len(data)):
        first = box_of(data, index)[0].start
        starts.add(first)
        codes = data[index]["boundary_conditions"]
        # PERIODIC is 2 and OPEN 1; the second axis is whole.
        assert codes[0].tolist() == [2 if first == 0 else 1, 2 if first == 3 else 1]
        assert codes[1, 0] == codes[1, 1] == opened(tree)[0]["boundary_conditions"][1, 0]
    assert {0, 3} <= starts


def test_draws_follow_from_seed_epoch_and_index(tmp_path: Path) -> None:
    tree = make_tree(tmp_path)
    data, other = opened(tree, random_crop=3, seed=5), opened(tree, random_crop=3, seed=6)
    boxes = [box_of(data, index) for index in range(len(data))]
    copy = pickle.loads(pickle.dumps(data))  # noqa: S301
    assert boxes == [box_of(copy, index) for index in range(len(data))]
    assert boxes != [box_of(other, index) for index in range(len(data))]
    data.set_epoch(1)
    assert boxes != [box_of(data, index) for index in range(len(data))]
    # Strides are drawn as without boxes.
    plain, boxed = (opened(tree, max_dt_stride=2, n_steps_output=1, random_crop=crop) for crop in (None, 3))
    assert [plain._place(i)[0].stride for i in range(len(plain))] == [
        boxed._place(i)[0].stride for i in range(len(plain))
    ]


def test_every_place_is_drawn_equally_often() -> None:
    counts = np.zeros((4, 3))
    for index in range(2400):
        rows, columns = draw_box((slice(2, 9), slice(0, 5)), (4, 3), seed=1, epoch=0, index=index)
        assert (rows.stop - rows.start, columns.stop - columns.start) == (4, 3)
        counts[rows.start - 2, columns.start] += 1
    assert counts.sum() == 2400
    assert np.all(np.abs(counts - 200) < 5 * np.sqrt(200))


def test_workers_draw_the_same(tmp_path: Path) -> None:
    tree = make_tree(tmp_path)
    data: Any = opened(tree, random_crop=(3, 4), framework="torch")
    for batch, alone in zip(DataLoader(data, batch_size=3, num_workers=2), DataLoader(data, batch_size=3), strict=True):
        for key, values in alone.items():
            np.testing.assert_array_equal(batch[key], values)


@pytest.mark.parametrize(
    ("crop", "message"),
    [
        ((3,), r"random_crop=\(3,\); give one size, or 2"),
        ((9, 2), r"axis 0 has 8 points to choose from, found 9"),
        (0, "axis 0 has 8 points to choose from, found 0"),
        ((2, 2.5), r"axis 1 has 6 points to choose from, found 2\.5"),
        ("all", "give one size"),
    ],
)
def test_sizes_that_do_not_fit(tmp_path: Path, crop: Any, message: str) -> None:
    tree = make_tree(tmp_path)
    with pytest.raises(wellkit.errors.ArgumentError, match=message):
        opened(tree, random_crop=crop)
