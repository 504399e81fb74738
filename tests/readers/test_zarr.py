"""Zarr shards: the same samples as from HDF5, in workers too, and shards that are not what they seem."""

from __future__ import annotations

import json
import multiprocessing
import pickle
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal, cast

import fsspec
import numpy as np
import pytest
import torch

import wellkit
from tests.readers.serving import serve
from tests.trees import make_shard, make_tree
from tests.trees_zarr import hdf5_to_zarr, zarr_twin
from wellkit.errors import (
    ArgumentError,
    DataNotFoundError,
    FormatError,
    HubError,
    MissingDependencyError,
    ShardError,
    WellkitError,
)
from wellkit.formats.well import parse_layout
from wellkit.formats.well_writer import write_well_shard
from wellkit.readers import zarr as zarr_reader
from wellkit.readers.zarr import ZarrReader

FIELD = "t0_fields/density"
FORMATS: list[tuple[Literal[2, 3], bool]] = [(2, False), (3, False), (3, True)]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tree(tmp_path_factory.mktemp("hdf5"), splits=("train",), steps=(5, 4), resolution=(6, 5))


@pytest.fixture(scope="module", params=FORMATS, ids=["v2", "v3", "sharded"])
def twin(request: pytest.FixtureRequest, tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    version, sharded = request.param
    return zarr_twin(tree, tmp_path_factory.mktemp("zarr") / "made_up", version, sharded=sharded)


@pytest.fixture(scope="module")
def twin_v3(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return zarr_twin(tree, tmp_path_factory.mktemp("zarr") / "made_up")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    write_well_shard(tmp_path / "source.hdf5", make_shard(plain=True))
    return tmp_path / "source.hdf5"


def dataset(path: Path | str, **options: Any) -> wellkit.WellDataset:
    options = {"use_normalization": True, "n_steps_input": 2, **options}
    return wellkit.WellDataset(path=path, well_split_name="train", **options)


def assert_same(found: Any, expected: Any) -> None:
    """Equal to the last bit, in type and shape."""
    assert type(found) is type(expected)
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for key in expected:
            assert_same(found[key], expected[key])
    else:
        assert found.dtype == expected.dtype
        assert found.shape == expected.shape
        assert bytes(np.asarray(found).tobytes()) == np.asarray(expected).tobytes()


# The same dataset


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"framework": "numpy", "flatten_tensors": False, "use_normalization": False},
        {"full_trajectory_mode": True, "framework": "numpy"},
        {
            "crop": ((1, 5), (0, 4)),
            "fields": ["velocity", "mask"],
            "min_dt_stride": 3,
            "max_dt_stride": 3,
            "n_steps_input": 1,
        },
    ],
    ids=["normalized", "plain", "rollouts", "crop"],
)
def test_samples_are_those_of_the_hdf5_tree(tree: Path, twin: Path, options: dict[str, Any]) -> None:
    expected, found = dataset(tree, **options), dataset(twin, **options)
    assert len(found) == len(expected) > 0
    assert found.metadata == expected.metadata
    for index in range(len(expected)):
        assert_same(found[index], expected[index])


def test_batches_and_statistics_are_those_of_the_hdf5_tree(tree: Path, twin: Path) -> None:
    expected, found = dataset(tree), dataset(twin)
    for one, other in zip(found.__getitems__([0, 5, 3]), expected.__getitems__([0, 5, 3]), strict=True):
        assert_same(dict(one), dict(other))
    assert wellkit.compute_statistics(twin) == wellkit.compute_statistics(tree)


def loaded(samples: wellkit.WellDataset, **options: Any) -> list[Any]:
    loader: Any = torch.utils.data.DataLoader(cast("torch.utils.data.Dataset[Any]", samples), batch_size=2, **options)
    return list(loader)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_torch_workers_read_zarr(tree: Path, twin_v3: Path, method: str) -> None:
    found = dataset(twin_v3)
    found[0]  # zarr's event loop runs in this process before any worker is started
    batches = loaded(found, num_workers=2, multiprocessing_context=method, timeout=60)
    expected = loaded(dataset(tree))
    assert len(batches) == len(expected)
    for one, other in zip(batches, expected, strict=True):
        assert_same(dict(one), dict(other))
    assert_same(found[1], dataset(tree)[1])


def test_trees_in_memory_and_over_http(tree: Path, twin: Path) -> None:
    memory = fsspec.filesystem("memory")
    memory.put(str(twin), "/zarr_tree/made_up", recursive=True)
    expected = dataset(tree)
    try:
        assert_same(dataset("memory://zarr_tree/made_up")[3], expected[3])
    finally:
        memory.rm("/zarr_tree", recursive=True)
    with serve(twin, index_pages=True) as url:
        found = dataset(url)
        assert [Path(path).name for path in found.files_paths] == ["made_up_part_0.zarr", "made_up_part_1.zarr"]
        assert_same(found[3], expected[3])


def test_a_shard_in_two_formats_is_not_read_twice(tree: Path, tmp_path: Path) -> None:
    both = zarr_twin(tree, tmp_path / "made_up")
    for shard in tree.glob("data/*/*.hdf5"):
        (both / shard.relative_to(tree)).write_bytes(shard.read_bytes())
    with pytest.raises(ArgumentError, match=r"part_0\.hdf5 and .*part_0\.zarr.*include_filters"):
        dataset(both)
    assert dataset(both, include_filters=[".zarr"]).metadata.n_files == 2


# Processes


def _sum(pickled: bytes) -> float:
    reader: ZarrReader = pickle.loads(pickled)  # noqa: S301 - our own bytes
    return float(reader.read(FIELD).sum())


def test_spawned_children_read_from_disk_and_over_http(source: Path, tmp_path: Path) -> None:
    hdf5_to_zarr(source, tmp_path / "shard.zarr", sharded=True)
    with serve(tmp_path) as url:
        readers = [ZarrReader(f"{folder}/shard.zarr") for folder in (tmp_path, url)]
        expected = [float(reader.read(FIELD).sum()) for reader in readers]
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            assert pool.map_async(_sum, [pickle.dumps(reader) for reader in readers]).get(timeout=60) == expected


def test_what_is_kept_open_is_bounded(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hdf5_to_zarr(source, tmp_path / "0.zarr")
    monkeypatch.setattr(zarr_reader, "_POOL", zarr_reader._Pool(limit=3))
    for number in range(1, 6):
        (tmp_path / f"{number}.zarr").symlink_to(tmp_path / "0.zarr")
        assert ZarrReader(str(tmp_path / f"{number}.zarr")).read(FIELD).shape == (2, 7, 8, 6)
    assert len(zarr_reader._POOL._shards) == 3


def test_zarr_is_imported_only_for_zarr(tree: Path) -> None:
    program = (
        "import sys, wellkit; "
        f"wellkit.WellDataset(path={str(tree)!r}, well_split_name='train', framework='numpy')[0]; "
        "sys.exit('zarr' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_a_shard_written_again_is_read_anew(source: Path, tmp_path: Path) -> None:
    path = tmp_path / "shard.zarr"
    hdf5_to_zarr(source, path)
    assert ZarrReader(str(path)).read("dimensions/time").shape == (7,)
    shutil.rmtree(path)
    write_well_shard(tmp_path / "longer.hdf5", make_shard(plain=True, steps=9))
    hdf5_to_zarr(tmp_path / "longer.hdf5", path, 2)
    reader = ZarrReader(str(path))
    assert parse_layout(reader).n_steps == 9
    assert reader.read("dimensions/time").shape == (9,)


def test_without_zarr_the_extra_is_named(twin_v3: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zarr", None)
    with pytest.raises(MissingDependencyError, match=r"made_up_part_0\.zarr.*wellkit\[zarr\]"):
        dataset(twin_v3)


# Plain HTTP


def test_without_listing_consolidated_metadata_are_needed(source: Path, tmp_path: Path) -> None:
    hdf5_to_zarr(source, tmp_path / "bare.zarr", consolidated=False)
    expected = parse_layout(ZarrReader(str(tmp_path / "bare.zarr")))
    with serve(tmp_path) as url:
        reader = ZarrReader(f"{url}/bare.zarr")
        np.testing.assert_array_equal(reader.read(FIELD), ZarrReader(expected.location).read(FIELD))
        with pytest.raises(
            ShardError, match=r"bare\.zarr: /boundary_conditions cannot be listed.*consolidate_metadata"
        ):
            parse_layout(reader)
    with serve(tmp_path, index_pages=True) as url:
        found = parse_layout(ZarrReader(f"{url}/bare.zarr"))
    assert replace(found, location=expected.location) == expected


def test_a_server_that_knows_no_ranges(source: Path, tmp_path: Path) -> None:
    hdf5_to_zarr(source, tmp_path / "shard.zarr", sharded=True)
    part = (1, slice(2, 4), slice(0, 3))
    with serve(tmp_path, ranges=False) as url:
        found = ZarrReader(f"{url}/shard.zarr").read(FIELD, part)
    np.testing.assert_array_equal(found, ZarrReader(str(tmp_path / "shard.zarr")).read(FIELD, part))


def test_signed_addresses_are_kept_whole_and_never_told(source: Path, tmp_path: Path) -> None:
    hdf5_to_zarr(source, tmp_path / "shard.zarr")
    with serve(tmp_path) as url:
        reader = ZarrReader(f"{url}/shard.zarr?signature=secret")
        assert reader.read(FIELD).shape == (2, 7, 8, 6)
        with pytest.raises(FormatError, match=r"shard\.zarr: has no array") as refusal:
            reader.read("t0_fields/none")
    assert "secret" not in str(refusal.value)
    with pytest.raises(HubError, match=r"shard\.zarr.*cannot be reached") as failure:  # nobody listens there
        ZarrReader("http://127.0.0.1:9/shard.zarr?signature=secret").read(FIELD)
    assert "secret" not in str(failure.value)


# Damage


def test_what_is_no_zarr_group_is_named(source: Path, tmp_path: Path) -> None:
    (tmp_path / "file.zarr").write_bytes(b"<html>503</html>")
    (tmp_path / "empty.zarr").mkdir()
    hdf5_to_zarr(source, tmp_path / "shard.zarr")
    for name, message in (
        ("file.zarr", r"file\.zarr: is a file, not the folder of a Zarr group"),
        ("empty.zarr", r"empty\.zarr: is not a Zarr group .*fetch it again"),
        (f"shard.zarr/{FIELD}", r"density: its metadata cannot be read .*array"),
    ):
        with pytest.raises(ShardError, match=message):
            parse_layout(ZarrReader(str(tmp_path / name)))
    with pytest.raises(DataNotFoundError, match=r"none\.zarr"):
        ZarrReader(str(tmp_path / "none.zarr")).read(FIELD)
    with pytest.raises(FormatError, match="has no array 't0_fields'"):
        ZarrReader(str(tmp_path / "shard.zarr")).read("t0_fields")


def metadata_file(shard: Path, version: int) -> Path:
    return shard / FIELD / (".zarray" if version == 2 else "zarr.json")


def a_chunk(shard: Path) -> Path:
    """The first file of the field that is none of its metadata."""
    return min(path for path in (shard / FIELD).rglob("*") if path.is_file() and path.name[0] in "c0123456789")


@pytest.mark.parametrize("version", [2, 3])
def test_damaged_metadata_name_the_file_and_the_array(source: Path, tmp_path: Path, version: Literal[2, 3]) -> None:
    shard = hdf5_to_zarr(source, tmp_path / "shard.zarr", version, consolidated=False)
    path = metadata_file(shard, version)
    whole = path.read_text()
    lacking = {key: value for key, value in json.loads(whole).items() if key not in ("dtype", "data_type")}
    for damaged in (whole[: len(whole) // 2], "", "[]", json.dumps(lacking), "\x00" * 50):
        path.write_text(damaged)
        with pytest.raises(ShardError, match=rf"shard\.zarr: {FIELD} cannot be read .*(damaged|codec)"):
            ZarrReader(str(shard)).read(FIELD)
        with pytest.raises(ShardError, match=r"shard\.zarr"):
            parse_layout(ZarrReader(str(shard)))
    path.write_text(whole)
    assert ZarrReader(str(shard)).read(FIELD).shape == (2, 7, 8, 6)


@pytest.mark.parametrize("version", [2, 3])
def test_an_unknown_codec_is_named(source: Path, tmp_path: Path, version: Literal[2, 3]) -> None:
    shard = hdf5_to_zarr(source, tmp_path / "shard.zarr", version, consolidated=False)
    path = metadata_file(shard, version)
    metadata = json.loads(path.read_text())
    if version == 2:
        metadata["compressor"] = {"id": "shrinkwrap"}
    else:
        metadata["codecs"].append({"name": "shrinkwrap", "configuration": {}})
    path.write_text(json.dumps(metadata))
    with pytest.raises(ShardError, match=rf"shard\.zarr: {FIELD} cannot be read .*shrinkwrap.*codec is not installed"):
        ZarrReader(str(shard)).read(FIELD)


@pytest.mark.parametrize(("version", "sharded"), FORMATS, ids=["v2", "v3", "sharded"])
@pytest.mark.parametrize("damage", ["cut", "zeroed", "emptied"])
def test_damaged_chunks_are_errors_and_not_wrong_data(
    source: Path, tmp_path: Path, version: Literal[2, 3], sharded: bool, damage: str
) -> None:
    shard = hdf5_to_zarr(source, tmp_path / "shard.zarr", version, sharded=sharded)
    chunk = a_chunk(shard)
    size = chunk.stat().st_size
    chunk.write_bytes({"cut": chunk.read_bytes()[: size // 2], "zeroed": bytes(size), "emptied": b""}[damage])
    with pytest.raises(ShardError, match=rf"shard\.zarr: {FIELD} cannot be read"):
        ZarrReader(str(shard)).read(FIELD)


def test_a_chunk_cut_short_without_a_codec_to_notice(source: Path, tmp_path: Path) -> None:
    shard = hdf5_to_zarr(source, tmp_path / "shard.zarr", compressors=None)
    chunk = a_chunk(shard)
    chunk.write_bytes(chunk.read_bytes()[:-4])
    with pytest.raises(ShardError, match=rf"{FIELD} cannot be read"):
        ZarrReader(str(shard)).read(FIELD)


def test_pickles_are_refused_unread(source: Path, tmp_path: Path) -> None:
    shard = hdf5_to_zarr(source, tmp_path / "shard.zarr", 2, consolidated=False, compressors=None)
    path = metadata_file(shard, 2)
    metadata = json.loads(path.read_text())
    metadata["compressor"] = {"id": "pickle", "protocol": 5}
    path.write_text(json.dumps(metadata))
    proof = tmp_path / "executed"

    class Payload:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (proof,)

    for chunk in (shard / FIELD).glob("[0-9]*"):
        chunk.write_bytes(pickle.dumps(Payload()))
    with pytest.raises(ShardError, match=rf"shard\.zarr: {FIELD} .*pickle"):
        ZarrReader(str(shard)).read(FIELD)
    assert not proof.exists()
    node = SimpleNamespace(metadata=SimpleNamespace(filters=(SimpleNamespace(codec_id="pickle"),)))
    with pytest.raises(ShardError, match="here is stored as pickles"):  # for a zarr that does not refuse by itself
        zarr_reader._refuse_pickle(node, "here")


@pytest.mark.parametrize(("version", "sharded"), FORMATS, ids=["v2", "v3", "sharded"])
def test_flipped_bytes_end_in_values_or_an_error_of_ours(
    source: Path, tmp_path: Path, version: Literal[2, 3], sharded: bool
) -> None:
    shard = hdf5_to_zarr(source, tmp_path / "shard.zarr", version, sharded=sharded)
    root = shard / (".zmetadata" if version == 2 else "zarr.json")
    chunk = a_chunk(shard)
    rng = np.random.default_rng([9, version])
    refused: list[str] = []
    for number in range(80):
        path = (root, chunk)[number % 2]
        whole = path.read_bytes()
        damaged = bytearray(whole)
        damaged[int(rng.integers(len(whole)))] ^= 1 << int(rng.integers(8))
        path.write_bytes(bytes(damaged))
        reader = ZarrReader(str(shard))
        reader.close()
        try:
            layout = parse_layout(reader)
            for field in layout.fields:
                assert reader.read(field.path).shape == field.shape
        except WellkitError as error:
            refused.append(str(error))
        path.write_bytes(whole)
    assert 10 < len(refused) < 80
    assert all(str(shard) in message for message in refused)
