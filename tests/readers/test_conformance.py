"""Every reader over every way to store a shard, on every storage: one contract."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import fsspec
import h5py
import pytest

from tests.readers.conformance import Case, ReaderContract, write_source
from tests.readers.serving import serve
from tests.trees_zarr import hdf5_to_zarr
from wellkit.readers.hdf5 import Hdf5Reader
from wellkit.readers.indexed import IndexedReader
from wellkit.readers.protocol import ShardReader
from wellkit.readers.zarr import ZarrReader


def as_hdf5(source: Path, folder: Path, *, file_options: dict[str, Any], **storage: Any) -> str:
    """The source's groups in a new file, its arrays with `storage` as `create_dataset` takes it."""
    with h5py.File(source, "r") as old, h5py.File(folder / "shard.hdf5", "w", libver="latest", **file_options) as new:
        new.attrs.update(old.attrs)

        def copy(name: str, item: Any) -> None:
            if isinstance(item, h5py.Group):
                made = new.require_group(name)
            else:
                options = storage if item.shape else {}
                made = new.create_dataset(name, data=item[()], dtype=item.dtype, **options)
            made.attrs.update(item.attrs)

        old.visititems(copy)
    return "shard.hdf5"


def as_zarr(source: Path, folder: Path, **options: Any) -> str:
    return hdf5_to_zarr(source, folder / "shard.zarr", **options).name


HDF5_WAYS: dict[str, Callable[[Path, Path], str]] = {
    "contiguous": partial(as_hdf5, file_options={}),
    "chunked": partial(as_hdf5, file_options={}, chunks=True),
    "gzip": partial(as_hdf5, file_options={}, chunks=True, compression="gzip", shuffle=True, fletcher32=True),
    "paged": partial(as_hdf5, file_options={"fs_strategy": "page", "fs_page_size": 1 << 16}, chunks=True),
}
CASES = [
    *(Case(f"hdf5-{way}", write, Hdf5Reader) for way, write in HDF5_WAYS.items()),
    *(Case(f"indexed-{way}", write, IndexedReader, storages=("local",)) for way, write in HDF5_WAYS.items()),
    Case("zarr-v2", partial(as_zarr, zarr_format=2), ZarrReader),
    Case("zarr-v2-listed", partial(as_zarr, zarr_format=2, consolidated=False), ZarrReader, ("local", "memory")),
    Case("zarr-v3", partial(as_zarr, zarr_format=3), ZarrReader),
    Case("zarr-v3-listed", partial(as_zarr, zarr_format=3, consolidated=False), ZarrReader, ("local", "memory")),
    Case("zarr-v3-uncompressed", partial(as_zarr, zarr_format=3, compressors=None), ZarrReader, ("local",)),
    Case("zarr-sharded", partial(as_zarr, zarr_format=3, sharded=True), ZarrReader),
]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_source(tmp_path_factory.mktemp("source") / "source.hdf5")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the cases' shards are written."""
    return tmp_path_factory.mktemp("written")


@pytest.fixture(scope="module")
def address(written: Path) -> Iterator[str]:
    with serve(written) as url:
        yield url


@pytest.fixture(
    scope="module",
    params=[(case, storage) for case in CASES for storage in case.storages],
    ids=lambda pair: f"{pair[0].name}-{pair[1]}",
)
def stored(request: pytest.FixtureRequest, source: Path, written: Path) -> Iterator[tuple[Case, str, str]]:
    """A case, the folder its shard lies in as the storage knows it, and the shard's name there."""
    case, storage = request.param
    folder = written / f"{case.name}-{storage}"
    folder.mkdir()
    name = case.write(source, folder)
    if storage == "local":
        yield case, str(folder), name
    elif storage == "http":
        yield case, f"{request.getfixturevalue('address')}/{folder.name}", name
    else:
        memory = fsspec.filesystem("memory")
        memory.put(str(folder), f"/conformance/{folder.name}", recursive=True)
        shutil.rmtree(folder)
        yield case, f"memory://conformance/{folder.name}", name
        memory.rm(f"/conformance/{folder.name}", recursive=True)


class TestReaders(ReaderContract):
    @pytest.fixture
    def reader(self, stored: tuple[Case, str, str]) -> Iterator[ShardReader]:
        case, folder, name = stored
        reader = case.open(f"{folder}/{name}")
        yield reader
        reader.close()

    @pytest.fixture
    def missing(self, stored: tuple[Case, str, str]) -> ShardReader:
        case, folder, name = stored
        return case.open(f"{folder}/absent{Path(name).suffix}")
