"""Arrays of remote shards by exact ranges: the values h5py gives, the bytes that are needed and few others."""

from __future__ import annotations

import pickle
import warnings
from pathlib import Path
from typing import Any

import fsspec
import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.index.file_ranges import FileRanges
from tests.index.reference import create
from wellkit.errors import FormatError, ShardError, WellkitWarning
from wellkit.index.columns import pack, unpack
from wellkit.index.file import ShardTable
from wellkit.index.hdf5 import index_shard
from wellkit.readers import ranged
from wellkit.readers.ranged import RangedReader

SHAPE = (3, 10, 8, 6)
NAMES = ("contiguous", "plain", "gzip", "gaps", "never", "big_endian_small", "point", "ints")


@pytest.fixture(scope="module")
def shard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ranged") / "kinds.hdf5"
    rng = np.random.default_rng(7)
    values = rng.normal(size=SHAPE).astype("<f4")
    with h5py.File(path, "w") as file:
        file.attrs["name"] = "kinds"
        file["contiguous"] = values
        create(file, "plain", SHAPE, "<f4", chunks=(1, 3, 8, 4))[:] = values
        create(file, "gzip", SHAPE, "<f4", chunks=(2, 4, 3, 6), filters=("shuffle", "deflate", "fletcher32"))[:] = (
            values
        )
        create(file, "gaps", SHAPE, "<f4", chunks=(1, 5, 8, 6), fill=2.5)[1:2] = values[1:2]
        create(file, "never", SHAPE, "<f8", fill=-1.5)
        file["big_endian_small"] = values[0, 0].astype(">f4")
        file["point"] = np.float64(3.25)
        file["ints"] = rng.integers(0, 9, SHAPE)
        file.create_dataset("lzf", data=values, chunks=(1, 10, 8, 6), compression="lzf")
    return path


def reader_of(path: Path, ranges: FileRanges | None = None, *, inline_limit: int = 300, **options: Any) -> RangedReader:
    table = ShardTable(unpack(pack({"shard": index_shard(path, inline_limit=inline_limit)}), "table"))
    return RangedReader(str(path), table, "shard", ranges or FileRanges(), **options)


def parts(size: int) -> st.SearchStrategy[int | slice]:
    inside = st.integers(0, size - 1)
    return st.one_of(
        inside,
        st.just(slice(None)),
        st.builds(slice, inside, st.integers(0, size), st.integers(1, 4)),
        st.builds(lambda i: i - size, inside),
    )


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_every_selection_of_every_storage(shard: Path, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(NAMES))
    with h5py.File(shard) as file:
        stored = file[name]
        axes = data.draw(st.integers(0, stored.ndim))
        selection = tuple(data.draw(parts(size)) for size in stored.shape[:axes])
        expected = np.asarray(stored[()])[selection]
    found = reader_of(shard).read(name, selection)
    assert found.dtype == expected.dtype.newbyteorder("=")
    np.testing.assert_array_equal(found, expected)
    found += 1  # the caller's own


def test_only_what_is_needed_is_fetched(shard: Path) -> None:
    ranges = FileRanges()
    reader = reader_of(shard, ranges)
    frame = 8 * 6 * 4
    reader.read("contiguous", (1, slice(2, 5)))
    assert [part.stop - part.start for part in ranges.asked] == [3 * frame]
    ranges.asked.clear()
    reader.read("plain", (1, 4, slice(None), slice(0, 4)))  # one chunk
    assert [part.stop - part.start for part in ranges.asked] == [3 * 8 * 4 * 4]
    ranges.asked.clear()
    reader.read("gaps", (0,))
    reader.read("never")
    reader.read("point")
    with reader.root() as root:
        assert root.attrs["name"] == "kinds"
    assert ranges.asked == []


def test_runs_far_apart_are_asked_for_apart(tmp_path: Path) -> None:
    path = tmp_path / "wide.hdf5"
    values = np.arange(4 * 50_000, dtype="<f4").reshape(4, 50_000)
    with h5py.File(path, "w") as file:
        file["wide"] = values
    ranges = FileRanges()
    found = reader_of(path, ranges).read("wide", (slice(None), slice(10, 20)))
    np.testing.assert_array_equal(found, values[:, 10:20])
    assert ranges.bytes_received == 4 * 40
    assert ranges.calls == 1


def test_a_copy_in_another_process_knows_where_to_read(shard: Path) -> None:
    reader = reader_of(shard)
    reader.read("gzip")
    copy = pickle.loads(pickle.dumps(reader))  # noqa: S301 - our own
    np.testing.assert_array_equal(copy.read("gzip", (2,)), reader.read("gzip", (2,)))


def test_what_only_libhdf5_can_read_is_told_of_once(shard: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranged, "_told", set())
    files = fsspec.filesystem("memory")
    files.pipe("/ranged/kinds.hdf5", shard.read_bytes())
    table = ShardTable(unpack(pack({"shard": index_shard(shard, inline_limit=0)}), "table"))
    reader = RangedReader("memory://ranged/kinds.hdf5", table, "shard", FileRanges())
    try:
        with pytest.warns(WellkitWarning, match="array lzf has filter lzf and is read through libhdf5"):
            found = reader.read("lzf", (1,))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            np.testing.assert_array_equal(reader.read("lzf")[1], found)
        with h5py.File(shard) as file:
            np.testing.assert_array_equal(found, file["lzf"][1])
    finally:
        reader.close()
        files.rm("/ranged", recursive=True)


def test_wrong_names_and_changed_files_are_told(shard: Path, tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="has no array 'nothing'"):
        reader_of(shard).read("nothing")
    with pytest.raises(FormatError, match="no index 3 along an axis of 3"):
        reader_of(shard).read("plain", (3,))
    changed = tmp_path / "changed.hdf5"
    changed.write_bytes(shard.read_bytes())
    reader = reader_of(changed, is_checked=False)
    changed.write_bytes(shard.read_bytes() + b"more")
    with pytest.raises(ShardError, match="has changed since it was indexed"):
        reader.read("plain")


def test_a_damaged_chunk_is_an_error(shard: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.hdf5"
    content = bytearray(shard.read_bytes())
    array = index_shard(shard, inline_limit=0).arrays["gzip"]
    content[int(array.offsets[1]) + 20] ^= 0xFF
    damaged.write_bytes(content)
    with pytest.raises(ShardError, match=r"damaged\.hdf5: chunk 1 of array 'gzip' .* cannot be decoded"):
        reader_of(damaged).read("gzip")
