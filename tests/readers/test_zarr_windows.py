"""Windows of local Zarr arrays without zarr-python: every codec gives the values of HDF5, and damage is told."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import pytest
import zarr
from zarr.codecs import BloscCodec, Crc32cCodec, GzipCodec, ZstdCodec

import wellkit
from tests.trees import make_tree
from tests.trees_zarr import hdf5_to_zarr
from wellkit.errors import DataNotFoundError, ShardError
from wellkit.readers.zarr import ZarrReader

FIELD = "t0_fields/density"
FAST: dict[str, dict[str, Any]] = {
    "v2-blosc": {"zarr_format": 2},
    "v2-plain": {"zarr_format": 2, "compressors": None},
    "v2-zlib": {"zarr_format": 2, "compressors": numcodecs.Zlib(1)},
    "v2-gzip": {"zarr_format": 2, "compressors": numcodecs.GZip(1)},
    "v2-zstd": {"zarr_format": 2, "compressors": numcodecs.Zstd(1)},
    "v2-shuffle-zlib": {"zarr_format": 2, "compressors": numcodecs.Zlib(1), "filters": [numcodecs.Shuffle(4)]},
    "v3-zstd": {},
    "v3-plain": {"compressors": None},
    "v3-gzip": {"compressors": GzipCodec(level=1)},
    "v3-blosc": {"compressors": BloscCodec(cname="zstd")},
    "v3-zstd-crc32c": {"compressors": [ZstdCodec(level=1, checksum=True), Crc32cCodec()]},
    "sharded": {"sharded": True},
    "sharded-plain": {"sharded": True, "compressors": None},
    "sharded-start": {"sharded": True, "index_location": "start"},
}
SLOW: dict[str, dict[str, Any]] = {
    "v2-fortran": {"zarr_format": 2, "order": "F"},
    "v2-lzma": {"zarr_format": 2, "compressors": numcodecs.LZMA()},
    "v3-big-endian": {"serializer": zarr.codecs.BytesCodec(endian="big")},
}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = make_tree(tmp_path_factory.mktemp("hdf5"), splits=("train",), steps=(5, 5), resolution=(6, 5))
    for further in sorted(made.glob("data/train/*.hdf5"))[1:]:
        further.unlink()
    return made


_MADE: dict[str, Path] = {}  # written once: zarr-python takes a second for each


def twin(tree: Path, folder: Path, **options: Any) -> Path:
    """The tree's one shard as Zarr, in a tree of its own."""
    key = f"{tree} {options}"
    if key in _MADE:
        return Path(shutil.copytree(_MADE[key], folder / "again"))
    made = _written(tree, folder, **options)
    _MADE[key] = Path(shutil.copytree(made, tree.parent / f"zarr_{len(_MADE)}"))
    return made


def _written(tree: Path, folder: Path, **options: Any) -> Path:
    (source,) = tree.glob("data/train/*.hdf5")
    target = folder / "made_up" / "data" / "train" / f"{source.stem}.zarr"
    target.parent.mkdir(parents=True)
    hdf5_to_zarr(source, target, **options)
    shutil.copy(tree / "stats.yaml", folder / "made_up")
    return folder / "made_up"


def dataset(path: Path, **options: Any) -> wellkit.WellDataset:
    options = {"n_steps_input": 2, "framework": "numpy", "use_normalization": True, **options}
    return wellkit.WellDataset(path=str(path), well_split_name="train", **options)


def shard_of(tree: Path) -> Path:
    (shard,) = tree.glob("data/train/*.zarr")
    return shard


def array_of(path: Path, mode: Any) -> Any:
    """The field as zarr-python opens it."""
    return zarr.open_group(str(shard_of(path)), mode=mode)[FIELD]


def samples(path: Path, **options: Any) -> list[dict[str, np.ndarray]]:
    found = dataset(path, **options)
    return [dict(sample) for sample in found.__getitems__(list(range(len(found))))]


def assert_same(found: list[dict[str, np.ndarray]], expected: list[dict[str, np.ndarray]]) -> None:
    assert len(found) == len(expected) > 0
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.keys() == theirs.keys()
        for name in theirs:
            np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name, strict=True)


@pytest.fixture
def read_by_zarr(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of arrays that were read through zarr-python."""
    names: list[str] = []
    read = ZarrReader.read

    def noted(self: ZarrReader, name: str, selection: tuple[int | slice, ...] = ()) -> np.ndarray:
        names.append(name)
        return read(self, name, selection)

    monkeypatch.setattr(ZarrReader, "read", noted)
    return names


@pytest.mark.parametrize("options", FAST.values(), ids=FAST.keys())
def test_usual_codecs_are_read_without_zarr_and_give_the_values_of_hdf5(
    options: dict[str, Any], tree: Path, tmp_path: Path, read_by_zarr: list[str]
) -> None:
    path = twin(tree, tmp_path, **options)
    array = ZarrReader(str(shard_of(path))).array(FIELD)
    assert (array.layout, array.reason) == ("chunked", "")
    for more in ({}, {"use_normalization": False, "n_steps_input": 1, "max_dt_stride": 2}):
        assert_same(samples(path, **more), samples(tree, **more))
    assert not [name for name in read_by_zarr if "_fields/" in name]


@pytest.mark.parametrize("options", SLOW.values(), ids=SLOW.keys())
def test_other_arrays_are_left_to_zarr(
    options: dict[str, Any], tree: Path, tmp_path: Path, read_by_zarr: list[str]
) -> None:
    path = twin(tree, tmp_path, **options)
    array = ZarrReader(str(shard_of(path))).array(FIELD)
    assert array.layout == "fallback"
    assert array.reason
    assert_same(samples(path), samples(tree))
    assert FIELD in read_by_zarr


def chunk_files(path: Path) -> list[Path]:
    files = (shard_of(path) / FIELD).rglob("*")
    return sorted(
        file for file in files if file.is_file() and not file.name.startswith(".z") and file.name != "zarr.json"
    )


@pytest.mark.parametrize("name", ["v2-blosc", "v2-plain", "v3-zstd", "sharded", "sharded-start"])
def test_chunks_that_are_not_stored_hold_the_fill_value(name: str, tree: Path, tmp_path: Path) -> None:
    path = twin(tree, tmp_path, **FAST[name], fill_value=7)
    before = samples(path, use_normalization=False)
    gone = chunk_files(path)[0]
    gone.unlink()
    expected = np.asarray(array_of(path, "r")[...])
    assert np.any(expected == 7)
    after = dataset(path, use_normalization=False, flatten_tensors=True)
    channel = after.metadata.field_names[0].index("density")
    first = after[0]["input_fields"][..., channel]
    np.testing.assert_array_equal(first, expected[0, :2])
    assert not np.array_equal(first, before[0]["input_fields"][..., channel])


@pytest.mark.parametrize("name", ["v2-blosc", "v2-plain", "v2-zlib", "v3-zstd", "v3-gzip", "sharded"])
def test_truncated_chunk_files_are_told_in_one_line(name: str, tree: Path, tmp_path: Path) -> None:
    path = twin(tree, tmp_path, **FAST[name])
    found = dataset(path)
    file = chunk_files(path)[0]
    content = file.read_bytes()
    for size in (3, len(content) - 1):
        file.write_bytes(content[:size])
        with pytest.raises(ShardError) as caught:
            found[0]
        assert "\n" not in str(caught.value)
        assert str(file) in str(caught.value)
    file.write_bytes(content)
    assert_same([dict(found[0])], [dict(dataset(tree)[0])])


@pytest.mark.parametrize("name", ["v2-zlib", "v2-gzip", "v3-gzip", "v3-zstd-crc32c"])
def test_flipped_bits_never_give_wrong_values(name: str, tree: Path, tmp_path: Path) -> None:
    path = twin(tree, tmp_path, **FAST[name])
    found, expected = dataset(path), [dict(dataset(tree)[0])]
    file = chunk_files(path)[0]
    content = file.read_bytes()
    refused = 0
    for place in np.random.default_rng(7).integers(0, len(content), 10).tolist():
        file.write_bytes(content[:place] + bytes([content[place] ^ 0x10]) + content[place + 1 :])
        try:
            assert_same([dict(found[0])], expected)
        except ShardError:
            refused += 1
    assert refused >= 5


@pytest.mark.parametrize("name", ["sharded", "sharded-start"])
def test_every_flip_in_a_table_of_chunks_is_told(name: str, tree: Path, tmp_path: Path) -> None:
    path = twin(tree, tmp_path, **FAST[name])
    found = dataset(path)
    file = chunk_files(path)[0]
    content = file.read_bytes()
    table = 16 * 2 ** len(ZarrReader(str(shard_of(path))).array(FIELD).shape) + 4
    first = 0 if name == "sharded-start" else len(content) - table
    for place in range(first, first + table, 49):
        file.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        with pytest.raises(ShardError, match="checksum of its table"):
            found[0]


def test_a_chunk_written_again_is_seen_and_a_folder_that_is_gone_is_told(tree: Path, tmp_path: Path) -> None:
    path = twin(tree, tmp_path, sharded=True)
    found = dataset(path, use_normalization=False)
    channel = found.metadata.field_names[0].index("density")
    assert not np.all(found[0]["input_fields"][..., channel] == 3)
    array_of(path, "r+")[...] = 3
    assert np.all(found[0]["input_fields"][..., channel] == 3)
    shutil.rmtree(shard_of(path))
    with pytest.raises(DataNotFoundError, match="no longer there"):
        found[0]
