"""The first bytes of HDF5 files: what is none and what was cut short is found without libhdf5."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from wellkit.errors import DataNotFoundError, ShardError
from wellkit.index.superblock import check_superblock


@pytest.mark.parametrize(
    "options",
    [
        {"libver": "earliest"},
        {"libver": ("v108", "v108")},
        {"libver": "latest"},
        {"userblock_size": 512},
        {"userblock_size": 2048, "libver": "latest"},
        {"fs_strategy": "page", "fs_page_size": 65536},
    ],
)
def test_whole_files_pass_and_cut_ones_do_not(tmp_path: Path, options: dict[str, Any]) -> None:
    path = tmp_path / "shard.hdf5"
    with h5py.File(path, "w", **options) as file:
        file["values"] = np.arange(5000)
    whole = path.read_bytes()
    assert check_superblock(path) == len(whole)
    for size in (len(whole) // 2, 3000):
        path.write_bytes(whole[:size])
        with pytest.raises(ShardError, match=f"has {size} bytes, its header says .*cut short"):
            check_superblock(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"<html>503 Service Unavailable</html>" * 200, "is not an HDF5 file"),
        (b"\x89HDF\r\n\x1a\n", "superblock cannot be understood"),
        (b"\x89HDF\r\n\x1a\n" + b"\xff" * 64, "superblock cannot be understood"),
        (b"\x89HDF\r\n\x1a\n" + b"\x02\x03" + b"\0" * 64, "superblock cannot be understood"),
    ],
)
def test_what_is_no_hdf5_is_told(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "shard.hdf5"
    path.write_bytes(content)
    with pytest.raises(ShardError, match=message):
        check_superblock(path)
    with pytest.raises(ShardError, match="cannot be read"):
        check_superblock(tmp_path)
    with pytest.raises(DataNotFoundError):
        check_superblock(tmp_path / "none.hdf5")
