"""Indexes from pieces of shards: the same as from the whole, in few rounds, and one line for what is damaged."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from tests.index.file_ranges import FileRanges
from tests.index.reference import create
from tests.trees import make_shard
from wellkit.errors import ShardError, WellkitError
from wellkit.formats.well_writer import write_well_shard
from wellkit.index import headers
from wellkit.index.columns import pack
from wellkit.index.fingerprint import UNKNOWN
from wellkit.index.hdf5 import index_shard
from wellkit.index.headers import TooScatteredError, read_headers
from wellkit.index.model import ShardIndex
from wellkit.index.source import PiecesSource


def read_one(path: Path, ranges: FileRanges | None = None, **options: Any) -> Any:
    [found] = read_headers([(str(path), path.stat().st_size)], ranges or FileRanges(), **options)
    return found


def by_default(path: Path) -> None:
    write_well_shard(path, make_shard(resolution=(96, 80), steps=9))


def chunked(path: Path) -> None:
    write_well_shard(path, make_shard(resolution=(96, 80), steps=9), chunks=True, compression="gzip")


def rewritten(path: Path, *, chunk: tuple[int, ...] | None, **creation: Any) -> None:
    """A shard's content copied object by object, as a conversion script would, into a file made with `creation`."""
    by_default(path.with_suffix(".source"))
    with h5py.File(path.with_suffix(".source")) as source, h5py.File(path, "w", **creation) as target:

        def copy(found: Any, made: Any) -> None:
            for name, value in found.attrs.items():
                made.attrs[name] = value
            for name, child in found.items():
                if isinstance(child, h5py.Group):
                    copy(child, made.create_group(name))
                    continue
                chunks = None if chunk is None or child.ndim < 4 else (*chunk, *child.shape[4:])
                stored = made.create_dataset(name, data=child[()], chunks=chunks)
                for key, value in child.attrs.items():
                    stored.attrs[key] = value

        copy(source, target)


def many_nodes(path: Path) -> None:
    """A chunk tree of two levels, its leaves between the chunks."""
    rng = np.random.default_rng(3)
    with h5py.File(path, "w") as file:
        file["first"] = rng.normal(size=(200, 100))
        stored = create(file, "tiles", (900, 64, 64), "<f4", chunks=(1, 64, 64), filters=("shuffle", "deflate"))
        stored[:] = rng.normal(size=(900, 64, 64))
        file["last"] = rng.normal(size=(200, 100))


LAYOUTS: dict[str, Callable[[Path], None]] = {
    "h5py's default": by_default,
    "chunked, gzip": chunked,
    "8 MiB pages": lambda path: rewritten(path, chunk=None, fs_strategy="page", fs_page_size=8 << 20),
    "8 MiB pages, chunked": lambda path: rewritten(path, chunk=(1, 1, 8, 16), fs_strategy="page", fs_page_size=8 << 20),
    "latest format, chunked": lambda path: rewritten(path, chunk=(1, 1, 8, 16), libver="latest"),
    "user block": lambda path: rewritten(path, chunk=None, userblock_size=512),
    "a tree of chunks": many_nodes,
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_pieces_give_the_index_of_the_whole(tmp_path: Path, layout: str) -> None:
    path = tmp_path / "shard.hdf5"
    LAYOUTS[layout](path)
    ranges = FileRanges()
    found = read_one(path, ranges, with_fingerprint=True)
    assert isinstance(found, ShardIndex)
    assert pack({"": found}) == pack({"": index_shard(path, verify=True)})
    assert ranges.calls <= 7
    assert ranges.bytes_received < 0.6 * path.stat().st_size
    assert len({(part.start, part.stop) for part in ranges.asked}) == len(ranges.asked)  # nothing twice
    without = read_one(path)
    assert without.fingerprint == UNKNOWN
    assert pack({"": without}) != pack({"": found})


def test_the_leaves_of_a_chunk_tree_are_fetched_at_once(tmp_path: Path) -> None:
    many_nodes(tmp_path / "shard.hdf5")
    ranges = FileRanges()
    assert isinstance(read_one(tmp_path / "shard.hdf5", ranges), ShardIndex)
    assert len(ranges.asked) > 10
    assert ranges.calls <= 7


def test_alike_shards_cost_one_round_behind_the_first(tmp_path: Path) -> None:
    by_default(tmp_path / "0.hdf5")
    for number in range(1, 12):
        shutil.copy(tmp_path / "0.hdf5", tmp_path / f"{number}.hdf5")
    paths = [tmp_path / f"{number}.hdf5" for number in range(12)]
    ranges = FileRanges()
    found = read_headers([(str(path), path.stat().st_size) for path in paths], ranges)
    expected = pack({"": found[0]})  # type: ignore[dict-item]
    assert all(isinstance(index, ShardIndex) and pack({"": index}) == expected for index in found)
    of_first = sum(part.location == str(paths[0]) for part in ranges.asked)
    assert all(1 < sum(part.location == str(path) for part in ranges.asked) <= of_first for path in paths)
    alone = FileRanges()
    read_one(paths[0], alone)
    assert ranges.calls == alone.calls + 2  # the others' beginnings, and all else of them


def test_a_shard_of_the_same_size_that_lies_otherwise_is_read_as_it_is(tmp_path: Path) -> None:
    by_default(tmp_path / "usual.hdf5")
    LAYOUTS["latest format, chunked"](tmp_path / "other.hdf5")
    size = max(path.stat().st_size for path in tmp_path.glob("*.hdf5"))
    paths = [tmp_path / "usual.hdf5", tmp_path / "other.hdf5"]
    for path in paths:
        os.truncate(path, size)  # bytes behind the end that the superblock names are allowed
    found = read_headers([(str(path), size) for path in paths], FileRanges())
    for path, index in zip(paths, found, strict=True):
        assert isinstance(index, ShardIndex)
        assert list(index.arrays) == list(index_shard(path).arrays)
        for name, array in index_shard(path).arrays.items():
            assert index.arrays[name].layout == array.layout
            np.testing.assert_array_equal(index.arrays[name].offsets, array.offsets)


@pytest.mark.parametrize("content", [b"", b"x", b"<html>" * 40_000])
def test_what_is_no_hdf5_ends_in_an_error_that_names_it(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "shard.hdf5"
    path.write_bytes(content)
    found = read_one(path)
    assert isinstance(found, ShardError)
    assert "shard.hdf5" in str(found)
    assert "\n" not in str(found)


def test_a_truncated_shard_ends_in_an_error(tmp_path: Path) -> None:
    path = tmp_path / "shard.hdf5"
    by_default(path)
    os.truncate(path, path.stat().st_size - 5000)
    found = read_one(path)
    assert isinstance(found, ShardError)
    assert "truncated" in str(found)


def test_damaged_metadata_end_in_an_error_or_in_the_truth(tmp_path: Path) -> None:
    path = tmp_path / "shard.hdf5"
    by_default(path)
    true = index_shard(path)
    content = path.read_bytes()
    rng = np.random.default_rng(11)
    outcomes: Counter[str] = Counter()
    for number in range(40):
        position = int(rng.integers(0, 20_000))
        damaged = tmp_path / f"{number}.hdf5"
        damaged.write_bytes(content[:position] + bytes([content[position] ^ 0x41]) + content[position + 1 :])
    shards = [(str(tmp_path / f"{number}.hdf5"), len(content)) for number in range(40)]
    for found in read_headers(shards, FileRanges(), timeout=5):
        outcomes[type(found).__name__] += 1
        if isinstance(found, ShardIndex):
            for name, array in found.arrays.items():
                if array.layout == "contiguous" and name in true.arrays:
                    assert 0 <= array.offset <= len(content) - array.nbytes
        else:
            assert isinstance(found, WellkitError)
    assert sum(outcomes.values()) == 40
    assert outcomes["ShardIndex"] > 5
    assert outcomes["ShardError"] > 5


def test_what_is_too_scattered_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    many_nodes(tmp_path / "shard.hdf5")
    monkeypatch.setattr(headers, "MAX_PIECES", 4)
    found = read_one(tmp_path / "shard.hdf5")
    assert isinstance(found, TooScatteredError)


def test_what_cannot_be_read_at_all_is_the_readers_error(tmp_path: Path) -> None:
    class Broken(FileRanges):
        def read(self, *arguments: Any, **options: Any) -> None:
            raise ShardError("gone")

    by_default(tmp_path / "0.hdf5")
    by_default(tmp_path / "1.hdf5")
    paths = [(str(tmp_path / name), (tmp_path / name).stat().st_size) for name in ("0.hdf5", "1.hdf5")]
    with pytest.raises(ShardError, match="gone"):
        read_headers(paths, Broken())


def test_a_part_of_a_file_notes_what_is_missing() -> None:
    source = PiecesSource("name", 100, [(0, bytes(range(10))), (50, bytes(range(50, 60)))])
    buffer = bytearray(4)
    assert source.read_into(memoryview(buffer), 52) == 4
    assert bytes(buffer) == bytes([52, 53, 54, 55])
    for offset in (8, 30):
        with source.attempt():
            source.read_into(memoryview(buffer), offset)
            raise AssertionError("reached")
    with source.attempt():
        source.rank = 3
        source.read_into(memoryview(bytearray(20)), 95)
    assert source.missing == [(8, 12, 0), (30, 34, 0), (95, 100, 3)]
    with pytest.raises(KeyError), source.attempt():
        raise KeyError("not for want of bytes")
