"""Values that only libhdf5 can read, through a child process."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import h5py
import numpy as np
import pytest

from wellkit.errors import ShardError
from wellkit.index.safely import Indexer


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    path = tmp_path / "a.hdf5"
    values = np.arange(60, dtype=">f4").reshape(3, 4, 5)
    with h5py.File(path, "w") as file:
        file["big"] = values
        file.create_dataset("lzf", data=values, chunks=(1, 4, 5), compression="lzf")
        file.create_dataset("sum", data=values, chunks=(1, 4, 5), fletcher32=True)
        file["text"] = ["a", "b"]
        file["flag"] = np.array([True, False])
    return path


def test_a_selection_comes_as_native_numbers(shard: Path) -> None:
    expected = np.arange(60, dtype=np.float32).reshape(3, 4, 5)
    with Indexer(timeout=10) as indexer:
        for name in ("big", "lzf"):
            found = indexer.read(str(shard), name, (1, slice(0, 3), slice(None)))
            assert found.dtype == np.float32
            assert found.dtype.isnative
            np.testing.assert_array_equal(found, expected[1, :3])
            np.testing.assert_array_equal(indexer.read(str(shard), name, ()), expected)
        assert indexer.read(str(shard), "flag", ()).tolist() == [True, False]
        assert indexer.index(shard).arrays["lzf"].layout == "inline"  # the same child goes on indexing


def test_what_cannot_be_read_is_told(shard: Path) -> None:
    with Indexer(timeout=10) as indexer:
        for name, reason in [("text", "not numbers"), ("none", "none")]:
            with pytest.raises(ShardError, match=reason) as told:
                indexer.read(str(shard), name, ())
            assert "a.hdf5" in str(told.value)
        with pytest.raises(ShardError, match="cannot be read"):
            indexer.read(str(shard) + "x", "big", ())
        content = bytearray(shard.read_bytes())
        with h5py.File(shard) as file:
            place = file["sum"].id.get_chunk_info(1).byte_offset
        content[place : place + 20] = b"\xff" * 20
        shard.write_bytes(content)
        with pytest.raises(ShardError, match="'sum' cannot be read"):
            indexer.read(str(shard), "sum", ())


def test_a_read_that_hangs_is_ended(shard: Path) -> None:
    with Indexer(timeout=10) as indexer:
        indexer.read(str(shard), "big", ())
        assert indexer._child is not None
        os.kill(indexer._child.pid, signal.SIGSTOP)
        indexer._timeout = 0.2
        with pytest.raises(ShardError, match=r"did not end within 0\.2 s"):
            indexer.read(str(shard), "big", ())
        indexer._timeout = 10
        assert indexer.read(str(shard), "big", ()).shape == (3, 4, 5)
