"""Indexes of HDF5 files: what they lead to is what h5py reads, for every kind of storage there is."""

from __future__ import annotations

import ctypes
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.index.reference import create, read
from tests.trees import make_shard
from wellkit.errors import DataNotFoundError, ShardError
from wellkit.formats.well import parse_layout
from wellkit.formats.well_writer import write_well_shard
from wellkit.index.chunks import check_overlaps
from wellkit.index.hdf5 import index_shard
from wellkit.index.model import ArrayIndex, ShardIndex
from wellkit.readers.hdf5 import Hdf5Reader

DTYPES = ("<f2", "<f4", "<f8", "|i1", "|u1", "<i2", "<u4", "<i8", "<u8", "|b1")
FILES: tuple[dict[str, Any], ...] = (
    {},
    {"libver": "latest"},
    {"userblock_size": 1024},
    {"userblock_size": 512, "libver": "latest"},
    {"fs_strategy": "page", "fs_page_size": 4096},
    {"fs_strategy": "page", "fs_page_size": 512, "userblock_size": 2048},
)


def same_as_h5py(path: Path, index: ShardIndex) -> None:
    with h5py.File(path, "r") as file:
        for name, array in index.arrays.items():
            expected = file[name][()]
            found = read(array, path)
            assert found.shape == expected.shape
            assert found.tobytes() == np.asarray(expected).tobytes(), name


@st.composite
def arrays(draw: st.DrawFn) -> dict[str, Any]:
    n_dims = draw(st.integers(1, 3))
    shape = tuple(draw(st.lists(st.integers(1, 12), min_size=n_dims, max_size=n_dims)))
    dtype = draw(st.sampled_from(DTYPES))
    made: dict[str, Any] = {"shape": shape, "dtype": dtype, "fill": draw(st.sampled_from([None, 1, 0]))}
    if draw(st.integers(0, 3)):
        made["resizable"] = draw(st.booleans())
        top = [15 if made["resizable"] else size for size in shape]
        made["chunks"] = tuple(draw(st.integers(1, limit)) for limit in top)
        # libhdf5 cannot write through a second shuffle of one pipeline
        filters = st.lists(st.sampled_from(["shuffle", "deflate", "fletcher32"]), max_size=4)
        made["filters"] = tuple(draw(filters.filter(lambda names: names.count("shuffle") < 2)))
    else:
        made["compact"] = draw(st.booleans())
    return made


def boxes(shape: tuple[int, ...]) -> st.SearchStrategy[tuple[slice, ...]]:
    return st.tuples(*(st.tuples(st.integers(0, n), st.integers(0, n)).map(lambda p: slice(*sorted(p))) for n in shape))


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(arrays(), min_size=1, max_size=3), st.sampled_from(FILES), st.sampled_from([0, 200, 1 << 16]), st.data()
)
def test_any_file_reads_through_its_index_as_through_h5py(
    made: list[dict[str, Any]], options: dict[str, Any], inline_limit: int, data: st.DataObject
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "any.hdf5"
        rng = np.random.default_rng(data.draw(st.integers(0, 1 << 30)))
        with h5py.File(path, "w", **options) as file:
            for number, arguments in enumerate(made):
                stored = create(file, f"array{number}", **arguments)
                for box in data.draw(st.lists(boxes(stored.shape), max_size=2)):
                    size = stored[box].shape
                    stored[box] = rng.integers(0, 2 if stored.dtype == bool else 120, size).astype(stored.dtype)
        index = index_shard(path, inline_limit=inline_limit, verify=True)
        assert [array.layout for array in index.arrays.values()].count("fallback") == 0
        same_as_h5py(path, index)
        index.check(path)


@pytest.mark.parametrize("options", FILES)
def test_offsets_count_from_the_beginning_of_the_file(tmp_path: Path, options: dict[str, Any]) -> None:
    path = tmp_path / "one.hdf5"
    values = np.random.default_rng(1).normal(size=(40, 50)).astype("f4")
    with h5py.File(path, "w", **options) as file:
        file["contiguous"] = values
        file.create_dataset("chunked", data=values, chunks=(7, 50))
        file.create_dataset("gzip", data=values, chunks=(7, 13), compression="gzip", shuffle=True)
    index = index_shard(path, inline_limit=0)
    raw = path.read_bytes()
    whole = index.arrays["contiguous"]
    assert raw[whole.offset : whole.offset + whole.nbytes] == values.tobytes()
    rows = index.arrays["chunked"]
    assert raw[rows.offsets[2] : rows.offsets[2] + rows.sizes[2]] == values[14:21].tobytes()
    assert index.arrays["gzip"].grid == (6, 4)
    same_as_h5py(path, index)


class Indexed:
    def __init__(self, location: str, index: ShardIndex) -> None:
        self.location = location
        self._index = index

    @contextmanager
    def root(self) -> Any:
        yield self._index.root()

    def read(self, name: str, selection: tuple[int | slice, ...] = ()) -> np.ndarray:
        raise AssertionError("a layout reads nothing")

    def close(self) -> None:
        pass


@pytest.mark.parametrize("storage", [{}, {"chunks": "frame", "compression": "gzip"}, {"page_size": 8192}])
@pytest.mark.parametrize(
    "shape", [{}, {"resolution": (4, 5, 6), "time_per_trajectory": True, "grid_per_trajectory": True}]
)
def test_a_layout_from_the_index_is_the_layout_from_the_file(
    tmp_path: Path, storage: dict[str, Any], shape: dict[str, Any]
) -> None:
    path = tmp_path / "shard.hdf5"
    write_well_shard(path, make_shard(**shape), **storage)
    layout = parse_layout(Indexed(str(path), index_shard(path)))
    assert layout == parse_layout(Hdf5Reader(str(path)))
    assert layout.fields


def test_the_view_of_the_root_misses_what_the_file_misses(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        file["group/values"] = np.arange(3.0)
        file["group"].attrs["names"] = ["a", "b"]
        file["group"].attrs["flag"] = True
        file["group"].attrs["word"] = np.bytes_(b"text")
        file["soft"] = h5py.SoftLink("/group/values")
        file["dangling"] = h5py.SoftLink("/nowhere")
        file["loop"] = file["/"]
    root: Any = index_shard(tmp_path / "a.hdf5").root()
    assert set(root.keys()) == {"group", "soft"}
    group = root["group"]
    assert list(group.attrs["names"]) == ["a", "b"]
    assert group.attrs["flag"].dtype == np.bool_
    assert group.attrs["word"] == "text"
    assert root["group/values"].shape == (3,)
    assert root["soft"].dtype == np.dtype("f8")
    for name in ("dangling", "other", "group/other"):
        with pytest.raises(KeyError):
            root[name]


def layout_of(path: Path, name: str = "a") -> ArrayIndex:
    return index_shard(path, inline_limit=0).arrays[name]


def test_what_only_libhdf5_can_read_says_why(tmp_path: Path) -> None:
    path = tmp_path / "odd.hdf5"
    (tmp_path / "raw.bin").write_bytes(np.arange(8, dtype="f4").tobytes())
    with h5py.File(tmp_path / "other.hdf5", "w") as other:
        other["values"] = np.arange(8.0)
    with h5py.File(path, "w", libver="latest") as file:
        file.create_dataset("lzf", data=np.arange(40.0), chunks=(20,), compression="lzf")
        file.create_dataset("scaled", data=np.arange(40), chunks=(20,), scaleoffset=7)
        file["big"] = np.arange(5, dtype=">f4")
        file["compound"] = np.zeros(3, dtype=[("x", "f4")])
        file["complex"] = np.zeros(3, dtype=complex)
        file["fixed"] = np.array([b"ab", b"cd"])
        file["text"] = ["a", "b"]
        file["linked"] = h5py.ExternalLink("other.hdf5", "/values")
        file.create_dataset("external", (8,), "f4", external=[(tmp_path / "raw.bin", 0, 32)])
        layout = h5py.VirtualLayout((8,), "f8")
        layout[:] = h5py.VirtualSource(str(tmp_path / "other.hdf5"), "values", (8,))
        file.create_virtual_dataset("virtual", layout)
        file["null"] = h5py.Empty("f4")
        create(file, "unfilled", (6,), "<f4", chunks=(2,), fill_time=h5py.h5d.FILL_TIME_NEVER)
    index = index_shard(path, inline_limit=0)
    reasons = {name: array.reason for name, array in index.arrays.items()}
    assert {array.layout for array in index.arrays.values()} == {"fallback"}
    assert reasons == {
        "lzf": "filter lzf",
        "scaled": "filter scaleoffset",
        "big": "big-endian elements",
        "compound": "compound elements",
        "complex": "complex numbers",
        "fixed": "strings",
        "text": "variable-length elements",
        "linked": "storage in another file",
        "external": "external storage",
        "virtual": "virtual storage",
        "null": "an empty dataspace",
        "unfilled": "unwritten parts without a fill value",
    }
    small = index_shard(path)
    with h5py.File(path) as file:
        for name in ("lzf", "scaled", "big"):  # small arrays are read once, by libhdf5
            np.testing.assert_array_equal(small.arrays[name].inline_values(), file[name][()])
    assert small.arrays["big"].dtype == "<f4"
    assert small.arrays["virtual"].layout == "fallback"


def test_chunks_that_left_a_filter_out(tmp_path: Path) -> None:
    path = tmp_path / "masks.hdf5"
    values = np.arange(24, dtype="<f4").reshape(3, 8)
    with h5py.File(path, "w") as file:
        stored = create(file, "a", (3, 8), "<f4", chunks=(1, 8), filters=("shuffle", "deflate"))
        stored[:] = values
        stored.id.write_direct_chunk((1, 0), values[1].tobytes(), filter_mask=0b11)
    array = layout_of(path)
    assert array.filter_masks is not None
    assert array.filter_masks.tolist() == [0, 3, 0]
    np.testing.assert_array_equal(read(array, path), values)


def set_chunk_options(properties: Any, options: int) -> None:
    """H5Pset_chunk_opts, which h5py does not offer, of the libhdf5 that h5py has loaded."""
    loaded = {line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if "libhdf5" in line}
    (library,) = [name for name in loaded if "_hl" not in name]
    function = ctypes.CDLL(library).H5Pset_chunk_opts
    function.argtypes = [ctypes.c_int64, ctypes.c_uint]
    assert function(properties.id, options) >= 0


@pytest.mark.parametrize("filters", [("shuffle",), ("shuffle", "deflate"), ("deflate",), ("fletcher32",)])
@pytest.mark.parametrize("unfiltered", [False, True])
@pytest.mark.parametrize("zeros", [False, True])
def test_edge_chunks_may_be_stored_without_filters(
    tmp_path: Path, filters: tuple[str, ...], unfiltered: bool, zeros: bool
) -> None:
    path = tmp_path / "edges.hdf5"
    values = np.arange(1000, dtype="<f4") * (not zeros)
    with h5py.File(path, "w", libver="latest") as file:
        properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        properties.set_chunk((300,))
        for codec in filters:
            {"shuffle": properties.set_shuffle, "deflate": properties.set_deflate}.get(
                codec, properties.set_fletcher32
            )()
        if unfiltered:
            set_chunk_options(properties, 2)
        space = h5py.h5s.create_simple((1000,))
        h5py.Dataset(h5py.h5d.create(file.id, b"a", h5py.h5t.IEEE_F32LE, space, properties))[:] = values
    array = layout_of(path)
    if zeros and filters == ("shuffle",):
        assert array.reason == "edge chunks that may be stored with or without shuffle"
        return
    assert (array.filter_masks is not None) == unfiltered
    np.testing.assert_array_equal(read(array, path), values)


def test_nothing_written_reads_as_the_fill_value(tmp_path: Path) -> None:
    path = tmp_path / "empty.hdf5"
    with h5py.File(path, "w") as file:
        create(file, "contiguous", (4, 5), "<f8", fill=2.5)
        create(file, "chunked", (4, 5), "<i4", chunks=(2, 2), fill=-3)
        create(file, "nothing", (0, 5), "<f4", chunks=(2, 2), resizable=True)
        create(file, "one", (), "<f4", fill=9)
    index = index_shard(path, inline_limit=0)
    assert {name: array.layout for name, array in index.arrays.items()} == {
        "contiguous": "missing",
        "chunked": "missing",
        "nothing": "inline",
        "one": "missing",
    }
    same_as_h5py(path, index)


@pytest.mark.timeout(20)  # asking for the chunks one by one takes about that long
def test_many_chunks(tmp_path: Path) -> None:
    path = tmp_path / "many.hdf5"
    with h5py.File(path, "w") as file:
        file.create_dataset("a", data=np.zeros((24_000, 16), "f4"), chunks=(1, 16))
    array = layout_of(path)
    assert array.n_chunks == array.offsets.size == 24_000
    assert array.stored_nbytes == 24_000 * 64
    assert len(np.unique(array.offsets)) == 24_000


def test_two_names_of_one_array_are_no_overlap(tmp_path: Path) -> None:
    path = tmp_path / "hard.hdf5"
    with h5py.File(path, "w") as file:
        file["a"] = np.arange(10.0)
        file["b"] = file["a"]
    index = index_shard(path, inline_limit=0)
    assert index.arrays["a"].offset == index.arrays["b"].offset
    with pytest.raises(ShardError, match="share the bytes from 150"):
        check_overlaps([(np.array([100, 500]), np.array([60, 10])), (np.array([-1, 150]), np.array([0, 10]))])


def test_damage_is_told_with_the_name_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "shard.hdf5"
    values = np.arange(4096, dtype="f8")
    with h5py.File(path, "w") as file:
        file.create_dataset("field", data=values, chunks=(512,))
    whole = path.read_bytes()
    with pytest.raises(DataNotFoundError, match=r"none\.hdf5: no such file"):
        index_shard(tmp_path / "none.hdf5")
    with pytest.raises(ShardError, match="folder"):
        index_shard(tmp_path)
    array = layout_of(path, "field")
    # The B-tree holds each chunk's size and filter mask, its place in the array, and its offset.
    for old, new, complaint in [
        (int(array.offsets[3]), 1 << 40, r"shard\.hdf5: field: chunk at \(1536,\) lies at byte"),
        (int(array.offsets[3]), int(array.offsets[2]) + 8, r"shard\.hdf5: two chunks share the bytes"),
    ]:
        damaged = whole.replace(old.to_bytes(8, "little"), new.to_bytes(8, "little"))
        assert damaged != whole
        path.write_bytes(damaged)
        with pytest.raises(ShardError, match=complaint):
            index_shard(path, inline_limit=0)
    for content, complaint in [(whole[:-1000], "truncated"), (b"<html>", "not an HDF5 file"), (b"", "not an HDF5")]:
        path.write_bytes(content)
        with pytest.raises(ShardError, match=rf"shard\.hdf5: .*({complaint}).*download it again"):
            index_shard(path)


def test_a_changed_file_fails_its_check(tmp_path: Path) -> None:
    path = tmp_path / "shard.hdf5"
    write_well_shard(path, make_shard())
    index = index_shard(path)
    index.check(path)
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)
    with pytest.raises(ShardError, match=r"shard\.hdf5: has changed since it was indexed.*wellkit index"):
        index.check(path)
    path.write_bytes(content[:-1])
    with pytest.raises(ShardError, match=r"shard\.hdf5: has changed .*bytes, .* were indexed"):
        index.check(path)
    path.unlink()
    with pytest.raises(DataNotFoundError, match=r"shard\.hdf5"):
        index.check(path)
