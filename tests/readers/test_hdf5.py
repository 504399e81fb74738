"""The HDF5 reader: values, handles across threads and processes, and files that are not what they seem."""

from __future__ import annotations

import multiprocessing
import os
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
import h5py
import numpy as np
import pytest

from tests.trees import make_shard
from wellkit.errors import DataNotFoundError, FormatError, ShardError
from wellkit.formats.well_writer import write_well_shard
from wellkit.readers.hdf5 import HandlePool, Hdf5Reader


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    path = tmp_path / "shard.hdf5"
    write_well_shard(path, make_shard())
    return path


def stored(path: Path, name: str) -> np.ndarray:
    with h5py.File(path, "r") as file:
        return np.asarray(file[name][()])


def test_reads_what_was_asked_for(shard: Path) -> None:
    reader = Hdf5Reader(str(shard))
    whole = stored(shard, "t1_fields/velocity")
    np.testing.assert_array_equal(reader.read("t1_fields/velocity"), whole)
    np.testing.assert_array_equal(
        reader.read("t1_fields/velocity", (1, slice(1, 6, 2), slice(2, 5))), whole[1, 1:6:2, 2:5]
    )


def test_big_endian_comes_in_native_order(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "big.hdf5", "w") as file:
        file["values"] = np.arange(5, dtype=">f4")
    values = Hdf5Reader(str(tmp_path / "big.hdf5")).read("values")
    assert values.dtype == np.dtype("float32")
    assert values.dtype.isnative
    np.testing.assert_array_equal(values, np.arange(5))


def test_remote_files_give_the_same_values(shard: Path) -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe_file("/shards/one.hdf5", shard.read_bytes())
    remote = Hdf5Reader("memory://shards/one.hdf5")
    np.testing.assert_array_equal(remote.read("t0_fields/density"), stored(shard, "t0_fields/density"))
    remote.close()
    memory.rm("/shards", recursive=True)
    with pytest.raises(DataNotFoundError, match=r"one\.hdf5"):
        remote.read("t0_fields/density")


@pytest.mark.parametrize("content", [b"", b"<html>503 Service Unavailable</html>" * 50])
def test_what_is_not_hdf5_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "page.hdf5"
    path.write_bytes(content)
    with pytest.raises(ShardError, match=r"page\.hdf5.*(not an HDF5 file|truncated).*download it again"):
        Hdf5Reader(str(path)).read("anything")


def test_truncated_files_are_named(shard: Path) -> None:
    os.truncate(shard, shard.stat().st_size // 2)
    with pytest.raises(ShardError, match=r"shard\.hdf5.*truncated.*download it again"):
        Hdf5Reader(str(shard)).read("t0_fields/density")


def test_missing_file_folder_and_array_are_told_apart(shard: Path, tmp_path: Path) -> None:
    with pytest.raises(DataNotFoundError, match=r"none\.hdf5"):
        Hdf5Reader(str(tmp_path / "none.hdf5")).read("x")
    with pytest.raises(ShardError, match=r"folder|directory"):
        Hdf5Reader(str(tmp_path)).read("x")
    with pytest.raises(FormatError, match="no array 't0_fields/nothing'"):
        Hdf5Reader(str(shard)).read("t0_fields/nothing")


def test_a_damaged_chunk_is_an_error_and_not_wrong_data(tmp_path: Path) -> None:
    path = tmp_path / "damaged.hdf5"
    write_well_shard(path, make_shard(), chunks="frame", compression="gzip")
    with h5py.File(path, "r") as file:
        info = file["t0_fields/density"].id.get_chunk_info(3)
    with open(path, "r+b") as raw:
        raw.seek(info.byte_offset + 2)
        raw.write(b"\x00" * (info.size - 4))
    with pytest.raises(ShardError, match=r"damaged\.hdf5: t0_fields/density cannot be read"):
        Hdf5Reader(str(path)).read("t0_fields/density")


def test_the_pool_is_bounded(tmp_path: Path) -> None:
    pool = HandlePool(limit=3)
    for number in range(6):
        path = tmp_path / f"{number}.hdf5"
        write_well_shard(path, make_shard(plain=True))
        with pool.use(str(path)) as file:
            assert file["t0_fields/density"].shape == (2, 7, 8, 6)
    assert len(pool._open) == 3


def test_threads_share_a_reader(shard: Path) -> None:
    reader = Hdf5Reader(str(shard))
    whole = stored(shard, "t0_fields/density")
    with ThreadPoolExecutor(4) as threads:
        frames = list(threads.map(lambda i: reader.read("t0_fields/density", (i % 2, i % 7)), range(40)))
    for i, frame in enumerate(frames):
        np.testing.assert_array_equal(frame, whole[i % 2, i % 7])


def _read_sum(pickled: bytes) -> float:
    reader: Hdf5Reader = pickle.loads(pickled)  # noqa: S301 - our own bytes
    return float(reader.read("t0_fields/density").sum())


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_children_read_with_handles_of_their_own(shard: Path, method: str) -> None:
    reader = Hdf5Reader(str(shard))
    expected = float(reader.read("t0_fields/density").sum())  # the parent's handle is open when it forks
    with multiprocessing.get_context(method).Pool(2) as pool:
        assert pool.map(_read_sum, [pickle.dumps(reader)] * 4) == [expected] * 4
    assert float(reader.read("t0_fields/density").sum()) == expected
