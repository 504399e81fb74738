"""Shards as they are written: read back with h5py alone, and written whole or not at all."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from wellkit.errors import ArgumentError, StorageError
from wellkit.formats.well_writer import (
    ShardAxis,
    ShardBoundary,
    ShardField,
    ShardScalar,
    WellShard,
    create_well_shard,
    edge_boundary,
    write_well_shard,
)

N, T, X, Y = 2, 3, 4, 5


def shard(**changes: Any) -> WellShard:
    """Every kind of field, scalar, axis and boundary there is, in two dimensions."""
    random = np.random.default_rng([8, 1])
    x = ShardAxis("x", np.linspace(0.0, 1.0, X))
    y = ShardAxis("y", random.normal(size=(N, Y)), sample_varying=True)
    wall = np.zeros((X, Y), dtype=bool)
    wall[1:3, 2] = True
    described = WellShard(
        dataset_name="made_up",
        n_trajectories=N,
        time=ShardAxis("time", random.normal(size=(N, T)), sample_varying=True, dtype="float64"),
        axes=(x, y),
        fields=(
            ShardField("pressure", random.normal(size=(N, T, X, Y))),
            ShardField("gravity", random.normal(size=(Y,)), dim_varying=(False, True), sample_varying=False,
                       time_varying=False),
            ShardField("column", random.normal(size=(N, T, X, 1)), dim_varying=(True, False), singleton_axes=True),
            ShardField("velocity", random.normal(size=(N, T, X, Y, 2)), order=1),
            ShardField("stress", random.normal(size=(T, X, Y, 2, 2)), order=2, sample_varying=False, symmetric=True),
            ShardField("spin", random.normal(size=(N, X, Y, 2, 2)), order=2, time_varying=False, antisymmetric=True),
        ),
        scalars=(
            ShardScalar("viscosity", 0.25),
            ShardScalar("drag", np.array([0.5])),
            ShardScalar("drive", np.arange(T), time_varying=True),
            ShardScalar("both", random.normal(size=(N, T)), sample_varying=True, time_varying=True),
        ),
        boundaries=(
            edge_boundary("x_periodic", "PERIODIC", x),
            edge_boundary("y_top", "open", y, lower=False, fields=("pressure",)),
            ShardBoundary("body", "WALL", ("x", "y"), wall, fields=("velocity",), values=np.zeros((2, 2))),
        ),
        parameters={"viscosity": 0.25, "kind": "test"},
        attributes={"generator": "a test", "generator_seed": 3},
    )  # fmt: skip
    return dataclasses.replace(described, **changes)


def text(value: Any) -> list[str]:
    assert h5py.check_string_dtype(value.dtype) is not None
    return [str(item) for item in value]


def test_everything_is_where_the_format_has_it(tmp_path: Path) -> None:
    written = shard()
    write_well_shard(tmp_path / "new" / "folder" / "a.hdf5", written)
    with h5py.File(tmp_path / "new" / "folder" / "a.hdf5") as file:
        assert set(file) == {"dimensions", "boundary_conditions", "scalars", "t0_fields", "t1_fields", "t2_fields"}
        attrs = file.attrs
        assert (attrs["dataset_name"], attrs["grid_type"]) == ("made_up", "cartesian")
        assert (attrs["n_spatial_dims"], attrs["n_trajectories"]) == (2, N)
        assert text(attrs["simulation_parameters"]) == ["viscosity", "kind"]
        assert (attrs["viscosity"], attrs["kind"]) == (0.25, "test")
        assert (attrs["generator"], attrs["generator_seed"]) == ("a test", 3)

        dimensions = file["dimensions"]
        assert text(dimensions.attrs["spatial_dims"]) == ["x", "y"]
        assert dimensions["time"].shape == (N, T)
        assert dimensions["time"].dtype == np.float64
        assert dimensions["time"].attrs["sample_varying"] == np.True_
        assert dimensions["x"].dtype == np.float32
        assert dimensions["x"].attrs["sample_varying"] == np.False_
        assert dimensions["x"].attrs["time_varying"] == np.False_
        np.testing.assert_array_equal(dimensions["y"], written.axes[1].values.astype(np.float32))

        names = {"t0_fields": ["pressure", "gravity", "column"], "t1_fields": ["velocity"]}
        names["t2_fields"] = ["stress", "spin"]
        for group, expected in names.items():
            assert text(file[group].attrs["field_names"]) == expected
        for field in written.fields:
            stored = file[f"t{field.order}_fields/{field.name}"]
            assert stored.dtype == np.float32
            assert stored.chunks is None
            assert field.values is not None
            np.testing.assert_array_equal(stored, field.values.astype(np.float32))
            assert stored.attrs["dim_varying"].tolist() == list(field.dim_varying or (True, True))
            for flag in ("sample_varying", "time_varying"):
                assert stored.attrs[flag] == getattr(field, flag)
                assert isinstance(stored.attrs[flag], np.bool_)
        assert file["t2_fields/stress"].attrs["symmetric"] == np.True_
        assert file["t2_fields/stress"].attrs["antisymmetric"] == np.False_
        assert file["t2_fields/spin"].attrs["antisymmetric"] == np.True_

        assert text(file["scalars"].attrs["field_names"]) == ["viscosity", "drag", "drive", "both"]
        shapes = {name: file["scalars"][name].shape for name in file["scalars"]}
        assert shapes == {"viscosity": (), "drag": (1,), "drive": (T,), "both": (N, T)}
        assert file["scalars/drive"].attrs["time_varying"] == np.True_
        assert file["scalars/drive"].attrs["sample_varying"] == np.False_

        conditions = file["boundary_conditions"]
        assert [conditions[name].attrs["bc_type"] for name in ("x_periodic", "y_top", "body")] == [
            "PERIODIC",
            "open",
            "WALL",
        ]
        assert conditions["x_periodic/mask"][:].tolist() == [True, False, False, True]
        assert conditions["y_top/mask"][:].tolist() == [False] * 4 + [True]
        assert text(conditions["y_top"].attrs["associated_dims"]) == ["y"]
        assert text(conditions["y_top"].attrs["associated_fields"]) == ["pressure"]
        assert conditions["body/mask"].shape == (X, Y)
        assert conditions["body/values"].shape == (2, 2)
        assert "values" not in conditions["x_periodic"]


def test_groups_without_fields_have_an_empty_list_of_names(tmp_path: Path) -> None:
    path = tmp_path / "a.hdf5"
    write_well_shard(path, shard(fields=(), scalars=()))
    with h5py.File(path) as file:
        for group in ("t0_fields", "t1_fields", "t2_fields", "scalars"):
            assert text(file[group].attrs["field_names"]) == []


@pytest.mark.parametrize("n_dims", [1, 3])
def test_one_and_three_dimensions(tmp_path: Path, n_dims: int) -> None:
    axes = tuple(ShardAxis(name, np.arange(3.0)) for name in "xyz"[:n_dims])
    values = np.arange(2.0 * 3**n_dims * n_dims).reshape(1, 2, *[3] * n_dims, n_dims)
    described = WellShard("small", 1, ShardAxis("time", np.arange(2.0)), axes, (ShardField("v", values, order=1),))
    write_well_shard(tmp_path / "a.hdf5", described)
    with h5py.File(tmp_path / "a.hdf5") as file:
        np.testing.assert_array_equal(file["t1_fields/v"], values)


def test_chunks_and_compression(tmp_path: Path) -> None:
    path = tmp_path / "a.hdf5"
    layouts: dict[str, tuple[Any, str | None, Any]] = {
        "frames": ("frame", None, {"pressure": (1, 1, X, Y), "velocity": (1, 1, X, Y, 2), "spin": (1, X, Y, 2, 2)}),
        "leading sizes": ((9, 2), "gzip", {"pressure": (N, 2, X, Y), "velocity": (N, 2, X, Y, 2)}),
        "by name": ({"pressure": (1, 1, 2, 5)}, None, {"pressure": (1, 1, 2, 5), "velocity": None}),
    }
    for chunks, compression, expected in layouts.values():
        write_well_shard(path, shard(), chunks=chunks, compression=compression)
        with h5py.File(path) as file:
            for name, wanted in expected.items():
                stored = next(file[f"t{order}_fields"][name] for order in range(3) if name in file[f"t{order}_fields"])
                assert stored.chunks == wanted
                assert stored.compression == (compression if wanted else None)
    write_well_shard(path, shard(), compression="lzf", page_size=4096)
    with h5py.File(path) as file:
        assert file["t0_fields/gravity"].compression == "lzf"
        assert file.id.get_create_plist().get_file_space_page_size() == 4096


def test_trajectories_one_by_one_give_the_same_file(tmp_path: Path) -> None:
    whole = shard()
    write_well_shard(tmp_path / "whole.hdf5", whole)
    empty = tuple(dataclasses.replace(field, values=None) for field in whole.fields)
    with create_well_shard(tmp_path / "pieces.hdf5", shard(fields=empty)) as writer:
        assert not (tmp_path / "pieces.hdf5").exists()
        for index in (1, 0):
            writer.write_trajectory(
                index,
                {
                    f.name: f.values[index] if f.sample_varying else f.values
                    for f in whole.fields
                    if f.values is not None
                },
            )
    with h5py.File(tmp_path / "whole.hdf5") as a, h5py.File(tmp_path / "pieces.hdf5") as b:
        for field in whole.fields:
            place = f"t{field.order}_fields/{field.name}"
            np.testing.assert_array_equal(a[place], b[place])


def test_a_trajectory_that_does_not_fit_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    good = {"pressure": np.zeros((T, X, Y))}
    for index, values, message in (
        (N, good, "trajectory 2 is not one of the shard's 2"),
        (0, {"presure": np.zeros((T, X, Y))}, "has no field 'presure'; it has pressure, gravity"),
        (0, {"pressure": np.zeros((T, Y, X))}, r"shape \(3, 5, 4\); expected \(3, 4, 5\)"),
    ):
        with (
            pytest.raises(ArgumentError, match=message),
            create_well_shard(tmp_path / "a.hdf5", shard()) as writer,
        ):
            writer.write_trajectory(index, values)
        assert list(tmp_path.iterdir()) == []


def _with_field(field: ShardField) -> WellShard:
    return shard(fields=(field,))


@pytest.mark.parametrize(
    ("described", "message"),
    [
        (
            _with_field(ShardField("p", np.zeros((N, T, Y, X)))),
            r"'p' has shape \(2, 3, 5, 4\); expected \(2, 3, 4, 5\)",
        ),
        (_with_field(ShardField("p", np.zeros((N, T, X, Y)), order=1)), r"expected \(2, 3, 4, 5, 2\)"),
        (_with_field(ShardField("p", np.zeros((N, T, X)), dim_varying=(True,))), "dim_varying of 1 axes; .* has 2"),
        (_with_field(ShardField("p", np.zeros((N, T, X, Y)), order=3)), "tensor order 3"),
        (_with_field(ShardField("p")), "'p' has no values"),
        (shard(fields=shard().fields[:1] * 2), "two fields have the same name"),
        (shard(axes=()), "1 to 3 spatial axes, not 0"),
        (shard(scalars=(ShardScalar("s", np.zeros(2)),)), r"scalar 's' has shape \(2,\); expected \(\)"),
        (shard(time=ShardAxis("time", np.zeros((3, T)), sample_varying=True)), "axis 'time' has shape"),
        (shard(boundaries=(ShardBoundary("b", "WALL", ("z",), np.zeros(4)),)), "names axis 'z'; the axes are x, y"),
        (shard(boundaries=(ShardBoundary("b", "WALL", ("x",), np.zeros(5)),)), r"a mask of shape \(5,\); expected"),
    ],
)
def test_a_shard_that_contradicts_itself_is_refused(tmp_path: Path, described: WellShard, message: str) -> None:
    with pytest.raises(ArgumentError, match=message) as caught:
        write_well_shard(tmp_path / "a.hdf5", described)
    assert str(tmp_path / "a.hdf5") in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_an_error_in_the_block_leaves_the_old_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.hdf5"
    write_well_shard(path, shard())
    before = path.read_bytes()
    error = OSError("not about this file")
    with pytest.raises(OSError, match="not about this file") as caught, create_well_shard(path, shard()):
        raise error
    assert caught.value is error  # somebody else's failure is not retold as ours
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.hdf5"]
    assert path.read_bytes() == before


def test_an_unwritable_target_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    target = tmp_path / "file" / "data" / "a.hdf5"
    with pytest.raises(StorageError, match=r"cannot write .*a\.hdf5: Not a directory"):
        write_well_shard(target, shard())
    (tmp_path / "folder.hdf5").mkdir()
    with pytest.raises(StorageError, match=r"folder\.hdf5: Is a directory"):
        write_well_shard(tmp_path / "folder.hdf5", shard())
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["file", "folder.hdf5"]


_FULL_DISK = """
import resource, sys
import numpy as np
from tests.formats.test_well_writer import shard
from wellkit.errors import StorageError
from wellkit.formats.well_writer import ShardField, create_well_shard, write_well_shard

room, path = int(sys.argv[1]), sys.argv[2]
resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))  # as a full disk: writes past it fail
big = shard(fields=(ShardField("pressure", np.ones((2, 3, 4, 5))), ShardField("v", np.ones((2, 3, 4, 5, 2)), order=1)))
for chunks, compression in ((None, None), ("frame", "gzip")):
    try:
        write_well_shard(path, big, chunks=chunks, compression=compression)
    except StorageError as error:
        print(error)
try:
    with create_well_shard(path, big) as writer:
        for index in range(2):
            writer.write_trajectory(index, {"pressure": np.ones((3, 4, 5))})
except StorageError as error:
    print(error)
"""


@pytest.mark.parametrize("room", [0, 2000, 6000, 10_000])
def test_a_full_disk_is_told_and_survived(tmp_path: Path, room: int) -> None:
    # In a process of its own: libhdf5 could take it down.
    path = tmp_path / "a.hdf5"
    done = subprocess.run(
        [sys.executable, "-c", _FULL_DISK, str(room), str(path)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert (
        done.stdout.splitlines()
        == [f"cannot write {path}: the file is too large; free space there or choose another target"] * 3
    )
    assert list(tmp_path.iterdir()) == []
