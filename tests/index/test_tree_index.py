"""Indexes on disk: written beside the data or kept in the cache, damaged, old, and gone stale."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import struct
import threading
import time
import warnings
import zlib
from pathlib import Path

import h5py
import numpy as np
import pytest

from tests.index.reference import read
from tests.trees import make_shard, make_tree
from wellkit.errors import DataNotFoundError, ShardError, StorageError, WellkitWarning
from wellkit.formats.well_writer import write_well_shard
from wellkit.index import cache, file
from wellkit.index.columns import HEADER_SIZE, pack
from wellkit.index.file import TreeIndex, index_path, open_tree_index, write_tree_index
from wellkit.index.hdf5 import index_shard
from wellkit.index.lookup import index_for, tree_index
from wellkit.index.model import ShardIndex
from wellkit.index.tree import check_tree, find_shard_files, index_tree


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return make_tree(tmp_path, chunks=True, compression="gzip")


def index_all(folder: Path, inline_limit: int = 0) -> TreeIndex:
    paths = find_shard_files(folder)
    write_tree_index(folder, {path: index_shard(folder / path, inline_limit=inline_limit) for path in paths})
    found = open_tree_index(folder)
    assert found is not None
    return found


def same(one: ShardIndex, other: ShardIndex) -> None:
    assert (one.size, one.fingerprint) == (other.size, other.fingerprint)
    assert list(one.arrays) == list(other.arrays)
    assert list(one.attributes) == list(other.attributes)
    for path, attributes in one.attributes.items():
        assert list(attributes) == list(other.attributes[path])
        for name, value in attributes.items():
            found = other.attributes[path][name]
            assert type(value) is type(found)
            np.testing.assert_array_equal(value, found)
            assert getattr(value, "dtype", None) == getattr(found, "dtype", None)
    for name, array in one.arrays.items():
        found_array = other.arrays[name]
        for key, value in vars(array).items():
            if isinstance(value, np.ndarray):
                np.testing.assert_array_equal(value, getattr(found_array, key))
                assert value.dtype == getattr(found_array, key).dtype
                assert not getattr(found_array, key).flags.writeable
            else:
                assert value == getattr(found_array, key), key


def test_what_is_written_is_what_is_read(tree: Path) -> None:
    for inline_limit in (0, 1 << 16):
        found = index_all(tree, inline_limit)
        assert len(found.paths) == 6
        for path in found.paths:
            fresh = index_shard(tree / path, inline_limit=inline_limit)
            indexed = found.find(path, (tree / path).stat().st_size)
            assert indexed is not None
            same(fresh, indexed)
            indexed.check(tree / path)


def test_every_kind_of_storage_survives_writing(tmp_path: Path) -> None:
    path = tmp_path / "kinds.hdf5"
    with h5py.File(path, "w") as made:
        made.attrs["numbers"] = np.array([[1.5, np.nan], [np.inf, -0.0]])
        made.attrs["unsigned"] = np.uint64(2**64 - 1)
        made.attrs["words"] = np.array([["a", "ä"], ["", "d"]], dtype=object)
        made.create_dataset("masked", shape=(3, 4), dtype="f4", chunks=(1, 4), shuffle=True)
        made["masked"].id.write_direct_chunk((1, 0), np.arange(4, dtype="f4").tobytes(), filter_mask=1)
        made.create_dataset("gaps", shape=(100, 5), dtype="i2", chunks=(10, 5), fillvalue=7, compression="gzip")
        made["gaps"][35:50] = 3
        made["lone"] = np.arange(10)
        made.create_dataset("never", shape=(10,), dtype="f8", fillvalue=1.5)
        made.create_dataset("lzf", data=np.arange(100), compression="lzf")
    fresh = index_shard(path, inline_limit=0)
    assert {array.layout for array in fresh.arrays.values()} == {"chunked", "contiguous", "missing", "fallback"}
    write_tree_index(tmp_path, {"kinds.hdf5": fresh})
    found = open_tree_index(tmp_path)
    assert found is not None
    indexed = found.find("kinds.hdf5")
    assert indexed is not None
    same(fresh, indexed)
    with h5py.File(path) as stored:
        for name in ("masked", "gaps", "lone", "never"):
            np.testing.assert_array_equal(read(indexed.arrays[name], path), stored[name][()])


def test_shards_of_a_kind_share_a_skeleton(tmp_path: Path) -> None:
    for number in range(4):
        write_well_shard(tmp_path / f"{number}.hdf5", make_shard(seed=number))  # another viscosity each
    write_well_shard(tmp_path / "other.hdf5", make_shard(steps=5))
    found = index_all(tmp_path, 1 << 16)
    assert len({found.skeleton_of(f"{number}.hdf5") for number in range(4)}) == 1
    assert found.skeleton_of("other.hdf5") != found.skeleton_of("0.hdf5")
    assert found.varying(found.skeleton_of("0.hdf5")) == {"viscosity"}
    assert found.own_attributes("3.hdf5") == {"viscosity": 3.25}
    assert found.own_attributes("other.hdf5") == {}
    indexed = found.find("3.hdf5")
    assert indexed is not None
    assert indexed.root().attrs["viscosity"] == 3.25
    with pytest.raises(KeyError):
        found.skeleton_of("none.hdf5")


def test_opening_a_thousand_shards_opens_none_of_them(tmp_path: Path) -> None:
    write_well_shard(tmp_path / "real.hdf5", make_shard())
    real = index_shard(tmp_path / "real.hdf5", inline_limit=0)
    (tmp_path / "real.hdf5").unlink()
    names = [f"part_{number:04d}.hdf5" for number in range(1000)]
    for name in names:
        (tmp_path / name).touch()
        os.truncate(tmp_path / name, real.size)  # nothing in them: whoever reads one sees no HDF5
    write_tree_index(tmp_path, dict.fromkeys(names, real))
    assert index_path(tmp_path).stat().st_size < 250 * 1000
    found = open_tree_index(tmp_path)
    assert found is not None
    for name in names:
        indexed = found.find(name, (tmp_path / name).stat().st_size)
        assert indexed is not None
        assert indexed.arrays["t0_fields/density"].shape == (2, 7, 8, 6)
    with pytest.raises(ShardError, match=r"part_0007\.hdf5: has changed.*first or last bytes"):
        index_for(tmp_path / "part_0007.hdf5").check(tmp_path / "part_0007.hdf5")


def test_a_shard_of_another_size_is_not_indexed(tree: Path) -> None:
    found = index_all(tree)
    path = found.paths[0]
    size = (tree / path).stat().st_size
    assert found.find(path, size) is not None
    assert found.find(path, size + 1) is None
    assert found.find("data/train/none.hdf5", size) is None


def open_and_warn(folder: Path, complaint: str) -> None:
    with pytest.warns(WellkitWarning, match=rf"index\.bin: .*{complaint}.*ignored; write it again with `wellkit index"):
        assert open_tree_index(folder) is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert open_tree_index(folder) is None  # told once


def test_no_index_is_no_event(tree: Path) -> None:
    assert open_tree_index(tree) is None
    assert open_tree_index(tree / "data" / "train" / "made_up_part_0.hdf5") is None
    assert open_tree_index(tree / "nowhere") is None


@pytest.mark.parametrize("size", [0, 7, HEADER_SIZE, HEADER_SIZE + 100, -1, -200])
def test_a_truncated_index_is_ignored(tree: Path, size: int) -> None:
    index_all(tree)
    path = index_path(tree)
    os.truncate(path, size if size >= 0 else path.stat().st_size + size)
    open_and_warn(tree, "cannot be used")


def test_another_version_is_ignored(tree: Path) -> None:
    index_all(tree)
    content = bytearray(index_path(tree).read_bytes())
    content[8:12] = struct.pack("<I", 3)
    content[HEADER_SIZE - 4 : HEADER_SIZE] = struct.pack("<I", zlib.crc32(content[: HEADER_SIZE - 4]))
    index_path(tree).write_bytes(content)
    open_and_warn(tree, "version 3, this wellkit reads version 2")


def decode_all(tree: TreeIndex) -> None:
    for path in tree.paths:
        indexed = tree.find(path)
        assert indexed is not None
        for name in indexed.arrays:
            indexed.arrays[name]


def test_no_flipped_bit_goes_unnoticed(tree: Path) -> None:
    index_all(tree)
    whole = index_path(tree).read_bytes()
    (directory,) = struct.unpack_from("<Q", whole, 16)
    rng = np.random.default_rng(8)
    noticed = {"ignored": 0, "refused": 0}
    for position in [*range(HEADER_SIZE), *rng.integers(HEADER_SIZE, len(whole), 150).tolist()]:
        damaged = bytearray(whole)
        damaged[position] ^= 1 << int(rng.integers(8))
        index_path(tree).write_bytes(damaged)
        file._told.clear()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = open_tree_index(tree)
        if position < HEADER_SIZE + directory:
            assert found is None
            noticed["ignored"] += 1
            continue
        assert found is not None
        with pytest.raises(ShardError, match=r"index\.bin: the index is damaged .*wellkit index"):
            decode_all(found)
        noticed["refused"] += 1
    assert min(noticed.values()) > 10


def test_an_index_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot write"):
        write_tree_index(tmp_path / "file" / "below", {})


def offsets_of(pickled: bytes) -> list[int]:
    indexed: ShardIndex = pickle.loads(pickled)  # noqa: S301 - our own bytes
    return list(indexed.arrays["t0_fields/density"].offsets.tolist())


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_indexes_go_to_other_processes(tree: Path, method: str) -> None:
    found = index_all(tree)
    indexed = [found.find(path) for path in found.paths]
    pickled = [pickle.dumps(index) for index in indexed]
    with multiprocessing.get_context(method).Pool(2) as pool:
        there = pool.map(offsets_of, pickled)
    assert there == [index.arrays["t0_fields/density"].offsets.tolist() for index in indexed if index is not None]


def test_an_index_written_meanwhile_is_not_mixed_with_the_old_one(tree: Path) -> None:
    old = index_all(tree)
    path = old.paths[0]
    expected = index_shard(tree / path, inline_limit=0)
    pickled = pickle.dumps(old.find(path))
    write_tree_index(tree, {"one.hdf5": expected})
    indexed = old.find(path)
    assert indexed is not None
    same(expected, indexed)  # this process still holds the old file
    with pytest.raises(ShardError, match=r"index\.bin: was written again since it was opened"):
        offsets_of(pickled)


def test_the_nearest_index_is_found_from_the_shard(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index_all(tree)
    shard = tree / "data" / "valid" / "made_up_part_1.hdf5"
    assert index_for(shard).arrays["t0_fields/density"].layout == "chunked"  # an index of our own would hold it inline
    monkeypatch.chdir(shard.parent)
    assert index_for("made_up_part_1.hdf5").arrays["t0_fields/density"].layout == "chunked"
    known = tree_index(str(tree))
    assert known is not None
    assert tree_index(str(tree)) is known
    with open(shard, "ab") as grown:
        grown.write(b"\0" * 10)
    assert index_for(shard).arrays["t0_fields/density"].layout == "inline"  # stale: parsed
    index_all(tree)
    assert tree_index(str(tree)) is not known
    with pytest.raises(DataNotFoundError, match=r"none\.hdf5: no such file"):
        index_for(shard.with_name("none.hdf5"))


def settle(path: Path) -> os.stat_result:
    long_ago = time.time_ns() - 10**10
    os.utime(path, ns=(long_ago, long_ago))
    return path.stat()


def cached_files() -> list[Path]:
    return sorted(cache.cache_folder().glob("*/*.bin"))


def test_the_cache_knows_a_shard_again_until_it_changes(tree: Path) -> None:
    shard = tree / "data" / "train" / "made_up_part_0.hdf5"
    status = settle(shard)
    assert cache.load(str(shard), status) is None
    fresh = index_for(shard)
    assert len(cached_files()) == 1
    again = cache.load(str(shard), status)
    assert again is not None
    same(fresh, again)
    os.utime(shard, ns=(status.st_mtime_ns + 1, status.st_mtime_ns + 1))
    assert cache.load(str(shard), shard.stat()) is None
    index_for(shard)
    assert len(cached_files()) == 1  # the new version replaced the old one
    (name,) = cached_files()
    content = bytearray(name.read_bytes())
    for position in range(0, len(content), 97):
        name.write_bytes(content[:position] + bytes([content[position] ^ 4]) + content[position + 1 :])
        assert cache.load(str(shard), shard.stat()) is None
    same(fresh, index_for(shard))


def test_a_shard_that_was_just_written_is_not_cached(tree: Path) -> None:
    index_for(tree / "data" / "train" / "made_up_part_0.hdf5")
    assert cached_files() == []


def test_the_cache_is_bounded(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shard = tree / "data" / "train" / "made_up_part_0.hdf5"
    index, status = index_shard(shard), settle(shard)
    monkeypatch.setattr(cache, "_place", lambda key: cache.cache_folder() / "00" / key.rsplit("/", 1)[1])
    for number in range(cache.MAX_FILES + 6):
        cache.store(f"/somewhere/{number}.bin", status, index)
    assert len(cached_files()) == cache.MAX_FILES
    assert cache.load(f"/somewhere/{cache.MAX_FILES + 5}.bin", status) is not None
    monkeypatch.setattr(cache, "MAX_BYTES", 3 * len(pack({"/somewhere/00.bin": index})))
    cache.store("/somewhere/last.bin", status, index)
    assert 1 <= len(cached_files()) <= 3
    assert cache.load("/somewhere/last.bin", status) is not None


def test_a_cache_that_cannot_be_written_costs_nothing(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shard = tree / "data" / "train" / "made_up_part_0.hdf5"
    settle(shard)
    monkeypatch.setenv("WELLKIT_CACHE", str(shard / "below"))
    assert index_for(shard).arrays


def test_threads_may_write_and_read_the_cache_at_once(tree: Path) -> None:
    shard = tree / "data" / "train" / "made_up_part_0.hdf5"
    index, status = index_shard(shard), settle(shard)
    wrong: list[str] = []

    def work() -> None:
        for _ in range(20):
            cache.store(str(shard), status, index)
            found = cache.load(str(shard), status)
            if found is None or found.size != index.size:
                wrong.append("lost")

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_tree_is_indexed_whole_or_not_at_all(tree: Path) -> None:
    bad = tree / "data" / "train" / "made_up_part_9.h5"
    bad.write_bytes(b"<html>")
    steps: list[tuple[int, int]] = []
    report = index_tree(tree, progress=lambda done, total: steps.append((done, total)))
    assert steps == [(number, 7) for number in range(8)]
    assert report.written is None
    assert [shard.path for shard in report.failed] == ["data/train/made_up_part_9.h5"]
    assert str(bad) in (report.failed[0].error or "")
    assert open_tree_index(tree) is None
    assert index_tree(tree, keep_going=True).written == index_path(tree)
    assert [shard.path for shard in check_tree(tree).failed] == ["data/train/made_up_part_9.h5"]
    bad.unlink()
    assert not index_tree(tree).failed
    assert not check_tree(tree).failed


def test_checking_finds_what_size_and_fingerprint_do_not_show(tree: Path) -> None:
    shard = tree / "data" / "train" / "made_up_part_0.hdf5"
    with h5py.File(shard, "r+") as made:
        made.create_dataset("scalars/late", data=np.zeros(3))
        made.create_dataset("filler", data=np.random.default_rng(0).normal(size=20_000))
        made.create_dataset("more", data=np.zeros(8_000))
        made["scalars/inner"] = np.full(900, 1.5)  # more than the last bytes hold
        place = made["scalars/inner"].id.get_offset()
        made.create_dataset("end", data=np.zeros(9_000))
    assert 64 << 10 < place < shard.stat().st_size - (12 << 10)
    index_tree(tree)
    with open(shard, "r+b") as raw:
        raw.seek(place)
        raw.write(np.float64(2.5).tobytes())
    known = open_tree_index(tree)
    assert known is not None
    indexed = known.find("data/train/made_up_part_0.hdf5", shard.stat().st_size)
    assert indexed is not None
    indexed.check(shard)
    (found,) = check_tree(tree).failed
    assert found.error == f"{shard}: differs from what was indexed"
    (tree / "data" / "test" / "made_up_part_0.hdf5").unlink()
    assert "is not there any more" in (check_tree(tree).failed[-1].error or "")
