"""to_xarray against the files themselves."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np
import pytest

import wellkit
from tests.trees import make_tree
from wellkit.errors import ArgumentError, DataNotFoundError

BACKENDS: tuple[Literal["dask", "numpy"], ...] = ("dask", "numpy")


def opened(tree: Path, **arguments: Any) -> wellkit.WellDataset:
    return wellkit.WellDataset(path=tree, well_split_name="train", framework="numpy", **arguments)


def files(tree: Path) -> list[h5py.File]:
    return [h5py.File(path, "r") for path in sorted((tree / "data" / "train").glob("*.hdf5"))]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shape", [{}, {"singleton_axes": True, "chunks": True, "compression": "gzip"}])
def test_every_variable_is_the_files(tmp_path: Path, backend: Literal["dask", "numpy"], shape: dict[str, Any]) -> None:
    tree = make_tree(tmp_path, splits=("train",), files=3, **shape)
    found = opened(tree).to_xarray(backend)
    assert dict(found.sizes) == {"sample": 6, "time": 7, "x": 8, "y": 6, "i": 2, "j": 2, "simulation_parameters_dim": 1}
    stored = files(tree)

    def joined(path: str) -> np.ndarray:
        return np.concatenate([file[path][()] for file in stored])

    def common(path: str) -> np.ndarray:
        return np.concatenate([np.stack([file[path][()]] * 2) for file in stored])

    expected = {
        "density": (("sample", "time", "x", "y"), joined("t0_fields/density")),
        "velocity": (("sample", "time", "x", "y", "i"), joined("t1_fields/velocity")),
        "stress": (("sample", "time", "x", "y", "i", "j"), joined("t2_fields/stress")),
        "profile": (
            ("sample", "time", "x", "y"),
            np.broadcast_to(joined("t0_fields/profile").reshape(6, 7, 8, 1), (6, 7, 8, 6)),
        ),
        "mask": (("sample", "x", "y"), common("t0_fields/mask")),
        "material": (("sample", "x", "y"), joined("t0_fields/material")),
        "gravity": (("sample", "x", "y", "i"), common("t1_fields/gravity")),
        "drive": (("sample", "time"), common("scalars/drive")),
        "heat": (("sample", "time"), joined("scalars/heat")),
        "mass": (("sample",), joined("scalars/mass")),
        "viscosity": (("sample",), common("scalars/viscosity")),
        "x_periodic": (("sample", "x"), common("boundary_conditions/x_periodic/mask")),
        "n_trajectories": (("sample",), np.full(6, 2)),
    }
    for name, (dims, values) in expected.items():
        assert found[name].dims == dims, name
        assert found[name].dtype == values.dtype, name
        np.testing.assert_array_equal(found[name].values, values, err_msg=name)
    np.testing.assert_array_equal(found["x"], stored[0]["dimensions/x"])
    np.testing.assert_array_equal(found["time"], stored[0]["dimensions/time"])
    assert found["i"].values.tolist() == found["j"].values.tolist() == ["x", "y"]
    assert found["dataset_name"].values.tolist() == ["made_up"] * 6
    assert found["stress"].attrs["symmetric"] is False
    one = found.sel(i="y")["velocity"].isel(sample=3, time=2, x=1, y=4).values
    assert one == stored[1]["t1_fields/velocity"][1, 2, 1, 4, 1]


def test_dask_reads_when_asked_and_from_several_threads(tmp_path: Path) -> None:
    import dask

    tree = make_tree(tmp_path, splits=("train",), files=4, resolution=(64, 64), plain=True)  # too large to be kept
    data = opened(tree)
    found = data.to_xarray("dask")
    data.close()
    wanted = [file["t0_fields/density"][()].mean() for file in files(tree)]
    with dask.config.set(scheduler="threads", num_workers=4):
        for _ in range(5):
            means = found["density"].mean(("time", "x", "y")).compute().values.reshape(4, 2).mean(1)
            np.testing.assert_allclose(means, wanted, rtol=1e-5)
    for path in (tree / "data" / "train").glob("*_0.hdf5"):
        data.close()
        path.unlink()
    with pytest.raises(DataNotFoundError, match=r"part_0\.hdf5"):
        found["density"].isel(sample=0).compute()
    np.testing.assert_allclose(found["density"].isel(sample=slice(2, 4)).mean().compute(), wanted[1], rtol=1e-5)


@pytest.mark.parametrize(
    "index",
    [
        {"time": slice(None, None, -1)},
        {"time": slice(6, 1, -2), "sample": -1},
        {"x": [5, 0, 0], "sample": [2, 1]},
        {"y": slice(1, None, 2), "time": 3},
        {"time": slice(0, 0)},
    ],
)
def test_any_index_gives_what_numpy_gives(tmp_path: Path, index: dict[str, Any]) -> None:
    tree = make_tree(tmp_path, splits=("train",))
    data = opened(tree)
    lazy, eager = data.to_xarray("dask"), data.to_xarray("numpy")
    for name in ("density", "velocity", "profile", "mask"):
        chosen = {dim: part for dim, part in index.items() if dim in lazy[name].dims}
        np.testing.assert_array_equal(lazy[name].isel(chosen).values, eager[name].isel(chosen).values)


def test_blocks_are_bounded_and_whole_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import wellkit.datasets.xarray as module

    tree = make_tree(tmp_path, splits=("train",), files=1)
    monkeypatch.setattr(module, "_CHUNK_BYTES", 3 * 8 * 6 * 4)  # three frames of a scalar field
    found = opened(tree).to_xarray("dask")
    assert found["density"].data.chunks == ((1, 1), (3, 3, 1), (8,), (6,))
    assert found["velocity"].data.chunks == ((1, 1), (1,) * 7, (8,), (6,), (2,))
    monkeypatch.setattr(module, "_CHUNK_BYTES", 3 * 6 * 4)  # less than a frame
    assert opened(tree).to_xarray("dask")["density"].data.chunks[2] == (3, 3, 2)


@pytest.mark.parametrize("backend", BACKENDS)
def test_short_files_are_padded_with_nan(tmp_path: Path, backend: Literal["dask", "numpy"]) -> None:
    tree = make_tree(tmp_path, splits=("train",), files=2, steps=(7, 4))
    found = opened(tree).to_xarray(backend)
    stored = files(tree)
    density = found["density"].values
    np.testing.assert_array_equal(density[2:, :4], stored[1]["t0_fields/density"])
    assert np.isnan(density[2:, 4:]).all()
    assert not np.isnan(density[:2]).any()
    assert np.isnan(found["heat"].values[2:, 4:]).all()
    # Frames of the two files are not at the same times: each trajectory has its own.
    assert found["time"].dims == ("sample", "time")
    np.testing.assert_array_equal(found["time"].values[0], stored[0]["dimensions/time"])
    np.testing.assert_array_equal(found["time"].values[3, :4], stored[1]["dimensions/time"])
    assert np.isnan(found["time"].values[3, 4:]).all()


def test_files_that_stop_early_share_their_times(tmp_path: Path) -> None:
    tree = make_tree(tmp_path, splits=("train",), files=2, steps=(7, 4))
    with h5py.File(tree / "data" / "train" / "made_up_part_1.hdf5", "r+") as file:
        file["dimensions/time"][...] = np.linspace(0, 3, 7)[:4]
    found = opened(tree).to_xarray()
    assert found["time"].dims == ("time",)
    np.testing.assert_array_equal(found["time"], np.linspace(0, 3, 7).astype(np.float32))


def test_times_and_grids_of_each_trajectory(tmp_path: Path) -> None:
    tree = make_tree(tmp_path, splits=("train",), time_per_trajectory=True, grid_per_trajectory=True)
    found = opened(tree).to_xarray()
    stored = files(tree)
    for name in ("time", "x", "y"):
        assert found[name].dims == ("sample", name)
        np.testing.assert_array_equal(found[name], np.concatenate([file[f"dimensions/{name}"][()] for file in stored]))


def test_fields_and_crop_of_the_dataset_hold_and_normalization_does_not(tmp_path: Path) -> None:
    tree = make_tree(tmp_path, splits=("train",))
    data = opened(tree, fields=["profile", "velocity"], crop=[(2, 5), (0, 4)], use_normalization=True)
    found = data.to_xarray()
    assert "density" not in found
    assert (found.sizes["x"], found.sizes["y"]) == (3, 4)
    stored = files(tree)[0]
    np.testing.assert_array_equal(found["velocity"].values[:2], stored["t1_fields/velocity"][:, :, 2:5, :4])
    np.testing.assert_array_equal(found["profile"].values[1, :, :, 3], stored["t0_fields/profile"][1, :, 2:5])
    np.testing.assert_array_equal(found["x"], stored["dimensions/x"][2:5])
    np.testing.assert_array_equal(found["x_periodic"].values[0], [False, False, False])


def test_lazy_datasets_can_be_sent_to_another_process(tmp_path: Path) -> None:
    tree = make_tree(tmp_path, splits=("train",), files=1)
    found = opened(tree).to_xarray("dask")
    twin = pickle.loads(pickle.dumps(found))  # noqa: S301 - our own bytes
    np.testing.assert_array_equal(twin["density"].values, found["density"].values)


def test_an_unknown_backend_is_refused(tmp_path: Path) -> None:
    tree = make_tree(tmp_path, splits=("train",), files=1)
    with pytest.raises(ArgumentError, match="backend='zarr' is unknown"):
        opened(tree).to_xarray("zarr")  # type: ignore[arg-type]
