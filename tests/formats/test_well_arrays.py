"""Plain arrays become a dataset that reads back as what they were."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import wellkit
from wellkit.errors import ArgumentError, StorageError
from wellkit.formats import well_arrays

N, T, X, Y = 10, 6, 5, 4
RNG = np.random.default_rng(3)
DENSITY = RNG.normal(size=(N, T, X, Y))
VELOCITY = RNG.normal(size=(N, T, X, Y, 2)).astype(np.float32)
STRESS = RNG.normal(size=(N, T, X, Y, 2, 2))
AXES = {"x": np.linspace(0, 1, X), "y": np.linspace(-1, 1, Y)}
TIME = np.linspace(0, 3, T)


def write(to: Path, fields: dict[str, Any] | None = None, **arguments: Any) -> list[Path]:
    defaults: dict[str, Any] = {"axes": AXES, "time": TIME}
    return wellkit.write_dataset(to, {"density": DENSITY} if fields is None else fields, **(defaults | arguments))


def read(to: Path, split: str, **arguments: Any) -> Any:
    defaults: dict[str, Any] = {"framework": "numpy", "full_trajectory_mode": True}
    return wellkit.WellDataset(path=to, well_split_name=split, **(defaults | arguments))


def test_arrays_come_back_as_they_were(tmp_path: Path) -> None:
    shared, own = RNG.normal(size=(X, Y, 2)), RNG.normal(size=(N, X, Y))
    times = TIME + np.arange(N)[:, None]
    splits = {"train": [7, 2, 5], "valid": [0], "test": (9, 1)}
    written = write(
        tmp_path / "mine",
        {"stress": STRESS, "velocity": VELOCITY, "density": DENSITY},
        time=times,
        constant_fields={"wind": shared, "material": own},
        scalars={"viscosity": 0.25, "seed": np.arange(N)},
        boundaries={"x": "PERIODIC", "y": ("WALL", "OPEN")},
        splits=splits,
    )
    assert [path.relative_to(tmp_path).as_posix() for path in written] == [
        f"mine/data/{split}/mine_{split}_0000.hdf5" for split in splits
    ]
    for split, members in splits.items():
        data = read(tmp_path / "mine", split, flatten_tensors=False, normalize_time_grid=False)
        assert len(data) == len(members)
        for sample, member in zip(data, members, strict=True):
            for key, frames in (("input_fields", slice(0, 1)), ("output_fields", slice(1, None))):
                found = sample[key]
                for order, name, values in ((0, "density", DENSITY), (1, "velocity", VELOCITY), (2, "stress", STRESS)):
                    np.testing.assert_array_equal(found[order][name], values[member, frames].astype(np.float32))
            np.testing.assert_array_equal(sample["constant_fields"][0]["material"], own[member].astype(np.float32))
            np.testing.assert_array_equal(sample["constant_fields"][1]["wind"], shared.astype(np.float32))
            assert sample["constant_scalars"].tolist() == [0.25, member]
            assert sample["input_time_grid"].tolist() == [np.float32(times[member, 0])]
            assert sample["boundary_conditions"].tolist() == [[2, 2], [0, 1]]


def test_splits_by_default_are_disjoint_whole_and_follow_from_the_seed(tmp_path: Path) -> None:
    for folder, seed in (("a", 0), ("b", 0), ("c", 1)):
        write(tmp_path / folder, scalars={"number": np.arange(N)}, seed=seed)
    held = {
        folder: {
            split: [int(sample["constant_scalars"][0]) for sample in read(tmp_path / folder, split)]
            for split in ("train", "valid", "test")
        }
        for folder in "abc"
    }
    assert held["a"] == held["b"] != held["c"]
    assert {split: len(members) for split, members in held["a"].items()} == {"train": 8, "valid": 1, "test": 1}
    assert sorted(member for members in held["a"].values() for member in members) == list(range(N))


def test_files_hold_as_many_trajectories_as_they_may(tmp_path: Path) -> None:
    of_one = T * X * Y * 4
    splits = {"train": range(7)}
    for limit, files in ((3 * of_one, 3), (of_one - 1, 7), (8 * of_one, 1)):
        assert len(write(tmp_path / str(files), splits=splits, shard_bytes=limit)) == files
        np.testing.assert_array_equal(
            np.stack([sample["output_fields"] for sample in read(tmp_path / str(files), "train")]),
            DENSITY[:7, 1:, ..., None].astype(np.float32),
        )


@pytest.mark.parametrize("block", [1, 2 * X * Y * 4, 1 << 20])
def test_blocks_of_any_size_give_the_same_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(well_arrays, "BLOCK_BYTES", block)
    path = tmp_path / "stored.hdf5"
    with h5py.File(path, "w") as file:
        file["v"] = VELOCITY
        write(tmp_path / "mine", {"velocity": file["v"]}, splits={"train": [1, 0]})  # an h5py array, read by slices
    found = np.stack([sample["output_fields"] for sample in read(tmp_path / "mine", "train")])
    np.testing.assert_array_equal(found, VELOCITY[[1, 0], 1:])


def test_one_and_three_dimensions(tmp_path: Path) -> None:
    line = RNG.normal(size=(3, 4, 9))
    write(tmp_path / "line", {"u": line, "flow": line[..., None]}, axes={"x": np.arange(9)}, time=np.arange(4))
    assert read(tmp_path / "line", "train").metadata.field_names == {0: ["u"], 1: ["flow_x"], 2: []}
    box = RNG.normal(size=(3, 4, 3, 5, 2, 3))
    axes = {"x": np.arange(3), "y": np.arange(5), "z": np.arange(2)}
    write(tmp_path / "box", {"u": box}, axes=axes, time=np.arange(4), compression="gzip")
    assert read(tmp_path / "box", "test").metadata.field_names[1] == ["u_x", "u_y", "u_z"]


def test_arrays_larger_than_memory_pass_through(tmp_path: Path) -> None:
    """One trajectory of 400 MB of float64 in a map, where a process may take 150 MB: 200 MB of float32 are too many."""
    script = f"""
import resource, numpy as np, wellkit
values = np.lib.format.open_memmap({str(tmp_path / "big.npy")!r}, mode="w+", dtype=np.float64,
                                   shape=(1, 50, 1000, 1000))
values[0, ::10, 0, 0] = 1.0
write = wellkit.write_dataset
with open("/proc/self/status") as status:
    taken = next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmData"))
resource.setrlimit(resource.RLIMIT_DATA, (taken + 150_000_000,) * 2)
try:
    values[0].astype(np.float32)
except MemoryError:
    print("bounded")
write({str(tmp_path / "big")!r}, {{"u": values}}, axes={{"x": np.arange(1000), "y": np.arange(1000)}},
      time=np.arange(50), splits={{"train": [0]}})
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "bounded\n"), done.stderr
    shard = next((tmp_path / "big").rglob("*.hdf5"))
    assert shard.stat().st_size > 200_000_000
    shard.unlink()
    (tmp_path / "big.npy").unlink()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fields": {}}, "there are no fields"),
        ({"fields": {"u": [1.0]}}, "field 'u' is a list; give an array"),
        ({"fields": {"u": DENSITY.astype(complex)}}, "field 'u' holds complex128; give real numbers"),
        ({"fields": {"u": DENSITY, "v": DENSITY[:, :, 1:]}}, r"field 'v' has shape .*; expected \(10, 6, 5, 4\), "),
        ({"fields": {"u": DENSITY[..., None]}}, r"\(10, 6, 5, 4, 2\) for a vector"),
        ({"fields": {"u": DENSITY * 1e39}}, "values beyond float32"),
        ({"time": TIME[1:]}, r"time has shape \(5,\); field 'density' has 10 trajectories of 6 frames"),
        ({"axes": {"x": [[0.0]], "y": [1.0]}}, r"axis 'x' has shape \(1, 1\)"),
        ({"axes": {"x": ["left"]}}, "axis 'x' is no array of numbers"),
        ({"axes": {}}, "axes names 0 axes"),
        ({"constant_fields": {"density": DENSITY[0, 0]}}, "given as varying and as constant"),
        ({"constant_fields": {"wind": DENSITY[0]}}, "field 'wind' has shape"),
        ({"scalars": {"seed": [1, 2]}}, r"scalar 'seed' has shape \(2,\)"),
        ({"boundaries": {"xx": "WALL"}}, "boundaries names 'xx'; the axes are x, y.*Did you mean x"),
        ({"boundaries": {"x": "WALLS"}}, "boundary 'WALLS' of axis 'x'; choose PERIODIC"),
        ({"splits": {"train": [0], "test": [1, 0]}}, "trajectory 0 is in train and in test"),
        ({"splits": {"train": [10]}}, "names trajectory 10; there are 10"),
        ({"splits": {"trian": [1]}}, "split 'trian' is unknown"),
        ({"splits": {}}, "names no trajectory"),
    ],
)
def test_what_does_not_fit_is_one_line(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message) as error:
        write(tmp_path / "mine", **changes)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.rglob("*.hdf5"))
    assert not list(tmp_path.rglob("*.partial"))


def test_constants_that_may_be_two_things_are_asked_for(tmp_path: Path) -> None:
    values = RNG.normal(size=(2, 4, 2, 2))
    arguments: dict[str, Any] = {"axes": {"x": [0, 1], "y": [0, 1]}, "time": np.arange(4), "splits": {"train": [0, 1]}}
    with pytest.raises(ArgumentError, match="may have a first axis of trajectories or a last one of components"):
        write(tmp_path / "mine", {"u": values}, constant_fields={"c": np.ones((2, 2, 2))}, **arguments)
    write(tmp_path / "mine", {"u": values}, constant_fields={"c": np.ones((2, 2))}, **arguments)


def test_data_that_are_there_stay(tmp_path: Path) -> None:
    write(tmp_path / "mine")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.hdf5")}
    with pytest.raises(StorageError, match="mine holds shards already"):
        write(tmp_path / "mine", {"density": 2 * DENSITY})
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.hdf5")} == before
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError):
        write(tmp_path / "file" / "mine")


def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    script = f"""
import resource, signal, numpy as np, wellkit
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
try:
    wellkit.write_dataset({str(tmp_path / "mine")!r}, {{"u": np.ones((3, 50, 64, 64))}},
                          axes={{"x": np.arange(64), "y": np.arange(64)}}, time=np.arange(50))
except wellkit.errors.StorageError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("cannot write ")
    assert done.stdout.count("\n") == 1
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
