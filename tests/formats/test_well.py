"""Layouts of Well shards: what is read off them, the quirks they come with, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from tests.trees import make_shard
from wellkit.errors import FormatError, ShardError
from wellkit.formats.well import BoundaryCondition, WellLayout, parse_layout
from wellkit.formats.well_writer import write_well_shard
from wellkit.readers.hdf5 import Hdf5Reader


def layout_of(path: Path) -> WellLayout:
    reader = Hdf5Reader(str(path))
    try:
        return parse_layout(reader)
    finally:
        reader.close()


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    path = tmp_path / "shard.hdf5"
    write_well_shard(path, make_shard())
    return path


def edit(path: Path, change: Callable[[h5py.File], object]) -> None:
    with h5py.File(path, "r+") as file:
        change(file)


def test_layout_of_a_shard_with_everything(shard: Path) -> None:
    layout = layout_of(shard)
    assert (layout.dataset_name, layout.grid_type) == ("made_up", "cartesian")
    assert (layout.n_trajectories, layout.n_steps, layout.resolution) == (2, 7, (8, 6))
    assert [(f.name, f.order, f.time_varying) for f in layout.fields] == [
        ("density", 0, True),
        ("pressure", 0, True),
        ("profile", 0, True),
        ("mask", 0, False),
        ("material", 0, False),
        ("velocity", 1, True),
        ("gravity", 1, False),
        ("stress", 2, True),
    ]
    assert [(s.name, s.sample_varying, s.time_varying) for s in layout.scalars] == [
        ("viscosity", False, False),
        ("drive", False, True),
        ("heat", True, True),
        ("mass", True, False),
    ]
    assert {b.type for b in layout.boundaries} == {BoundaryCondition.PERIODIC, BoundaryCondition.WALL}
    assert layout.generator is None


@pytest.mark.parametrize("singleton", [False, True])
def test_an_axis_a_field_misses_may_be_absent_or_of_size_one(tmp_path: Path, singleton: bool) -> None:
    path = tmp_path / "thin.hdf5"
    made = make_shard(singleton_axes=singleton)
    write_well_shard(path, made)
    profile = next(f for f in layout_of(path).fields if f.name == "profile")
    assert profile.shape == ((2, 7, 8, 1) if singleton else (2, 7, 8))
    selection = profile.selection(1, slice(2, 5), (slice(0, 8), slice(0, 6)))
    values = profile.expand(Hdf5Reader(str(path)).read(profile.path, selection))
    expected = next(f for f in made.fields if f.name == "profile").values
    assert expected is not None
    np.testing.assert_array_equal(values, expected.reshape(2, 7, 8, 1)[1, 2:5])


def rewrite(name: str, value: object, place: str = "/") -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        del file[place].attrs[name]
        file[place].attrs[name] = value

    return change


def scalar_of_one(file: h5py.File) -> None:
    attrs = dict(file["scalars/viscosity"].attrs)
    del file["scalars/viscosity"]
    file["scalars/viscosity"] = np.array([0.25])
    file["scalars/viscosity"].attrs.update(attrs)


@pytest.mark.parametrize(
    "change",
    [
        rewrite("associated_dims", "x", "boundary_conditions/x_periodic"),  # a bare string for a list of one
        rewrite("bc_type", b"periodic", "boundary_conditions/x_periodic"),  # bytes, lower case
        rewrite("bc_type", np.array(["Periodic"], dtype=object), "boundary_conditions/x_periodic"),
        rewrite("time_varying", np.bool_(True), "t0_fields/density"),
        rewrite("time_varying", np.uint8(1), "t0_fields/density"),
        rewrite("dim_varying", np.array([1, 1], dtype=np.int8), "t0_fields/density"),
        rewrite("dataset_name", np.bytes_(b"made_up")),
        rewrite("n_trajectories", np.array([2])),
        rewrite("field_names", np.array([b"viscosity", b"drive", b"heat", b"mass"]), "scalars"),
        scalar_of_one,
    ],
)
def test_quirks_of_real_files_make_no_difference(shard: Path, change: Callable[[h5py.File], None]) -> None:
    before = layout_of(shard)
    edit(shard, change)
    after = layout_of(shard)
    assert after.fields == before.fields
    assert after.boundaries == before.boundaries
    assert [s.name for s in after.scalars] == [s.name for s in before.scalars]
    assert after.dataset_name == before.dataset_name


def test_an_empty_tensor_group_may_lack_its_list_or_be_absent(tmp_path: Path) -> None:
    path = tmp_path / "plain.hdf5"
    write_well_shard(path, make_shard(plain=True))
    before = layout_of(path)
    edit(path, lambda file: file["t2_fields"].attrs.pop("field_names"))
    assert layout_of(path).fields == before.fields
    edit(path, lambda file: file.pop("t2_fields"))
    assert layout_of(path).fields == before.fields


def drop(place: str, attribute: str | None = None) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        if attribute is None:
            del file[place]
        else:
            del file[place].attrs[attribute]

    return change


def replace(place: str, values: object) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        attrs = dict(file[place].attrs)
        del file[place]
        file[place] = values
        file[place].attrs.update(attrs)

    return change


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (drop("dimensions"), "no /dimensions"),
        (drop("dimensions/x"), "no /dimensions/x"),
        (drop("dimensions", "spatial_dims"), "'spatial_dims'"),
        (drop("/", "n_trajectories"), "'n_trajectories'"),
        (drop("/", "dataset_name"), "'dataset_name'"),
        (drop("t0_fields/density"), "no /t0_fields/density"),
        (drop("t0_fields/density", "time_varying"), "'time_varying'"),
        (drop("t0_fields/density", "dim_varying"), "'dim_varying'"),
        (drop("t0_fields", "field_names"), "'field_names'"),
        (drop("boundary_conditions/x_periodic/mask"), "no /boundary_conditions/x_periodic/mask"),
        (
            rewrite("bc_type", "STICKY", "boundary_conditions/x_periodic"),
            "'STICKY'; known are WALL, OPEN, PERIODIC",
        ),
        (rewrite("associated_dims", "q", "boundary_conditions/x_periodic"), "names axis 'q'"),
        (rewrite("n_spatial_dims", 3), "n_spatial_dims is 3"),
        (rewrite("n_trajectories", 5), "shape"),
        (rewrite("n_trajectories", "many"), "expected a whole number"),
        (rewrite("dim_varying", [True], "t0_fields/density"), "expected 2 booleans"),
        (replace("t0_fields/density", np.zeros((2, 7, 8, 5), "f4")), r"\(2, 7, 8, 5\).*\(2, 7, 8, 6\)"),
        (replace("dimensions/time", np.zeros((0,))), "non-empty"),
        (replace("t0_fields/density", np.array([b"text"])), "shape"),
        (replace("scalars/heat", np.zeros((3, 7))), "scalars/heat"),
    ],
)
def test_contradictions_are_refused_with_file_and_place(
    shard: Path, change: Callable[[h5py.File], None], complaint: str
) -> None:
    edit(shard, change)
    with pytest.raises(FormatError, match=rf"shard\.hdf5: .*{complaint}"):
        layout_of(shard)


def test_damaged_headers_end_in_an_error_that_names_the_file(shard: Path) -> None:
    whole = shard.read_bytes()
    rng = np.random.default_rng(4)
    refused = 0
    for position in rng.integers(0, 4000, 60):
        # libhdf5 may crash on rare damage of its own structures; text it stores as it is, so attributes are safe.
        start = whole.find(b"field_names", int(position))
        if start < 0:
            continue
        damaged = bytearray(whole)
        damaged[start] ^= 0xFF
        shard.write_bytes(damaged)
        with pytest.raises((FormatError, ShardError), match=r"shard\.hdf5"):
            layout_of(shard)
        refused += 1
    assert refused > 0
