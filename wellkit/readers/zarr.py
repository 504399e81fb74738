"""Zarr shards: groups of format 2 and 3, sharded or not, on local disk and over fsspec.

zarr-python reads metadata. Windows of local arrays with the usual codecs are read as those of HDF5 shards are, by
`wellkit.readers.local`; zarr-python decodes the chunks of all others. Consolidated metadata are used where they are
there; without them, the groups of a shard are found by listing, which plain HTTP servers may not offer.

A chunk that is not stored holds the array's fill value: so says the format, and a chunk that got lost looks the same.
"""

from __future__ import annotations

import math
import operator
import os
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np

from wellkit.errors import DataNotFoundError, FormatError, MissingDependencyError, ShardError, WellkitError
from wellkit.frameworks import require
from wellkit.index.model import ArrayIndex
from wellkit.index.zarr import index_zarr_array
from wellkit.readers.codecs import available, crc32c
from wellkit.readers.indexed import local_windows
from wellkit.readers.protocol import WindowReader
from wellkit.storage import explain, locate, without_secrets

_METADATA = ("zarr.json", ".zarray", ".zgroup")
_OPEN_SHARDS = 64


class ZarrReader:
    """Arrays of one Zarr shard. Picklable: holds the location only; what is open lives in the process's pool.

    Safe under threads, fork and spawn. Keeps nothing of what it reads.

    Args:
        location: the group's folder, e.g. "data/train/part_0.zarr" or "https://host/part_0.zarr".
        storage_options: options of the fsspec filesystem.
    """

    def __init__(self, location: str, storage_options: Mapping[str, Any] | None = None) -> None:
        self.location = location
        self._storage_options = dict(storage_options or {})

    @property
    def _key(self) -> str:
        return f"{self.location}\0{sorted(self._storage_options.items())!r}"

    @contextmanager
    def root(self) -> Iterator[Group]:
        """The shard's root group, for parsing its layout. Looked up anew: the shard may have been written again.

        Raises:
            DataNotFoundError: there is no such folder.
            ShardError: it is not a readable Zarr group; the message names it.
            MissingDependencyError: zarr is not installed.
        """
        with self._reading("its metadata"):
            self.close()
            yield Group(self._open(), "")

    def read(self, name: str, selection: tuple[int | slice, ...] = ()) -> np.ndarray:
        """`selection` of the array at path `name`, C-contiguous, in native byte order; a new array.

        Args:
            name: path inside the shard, e.g. "t0_fields/density".
            selection: an integer or slice (positive step) for each leading axis; missing axes are taken whole.

        Raises:
            FormatError: there is no such array.
            ShardError: metadata or a chunk cannot be read or decoded.
            HubError: the network or the server failed.
            IndexError: the selection does not fit the array.
        """
        with self._reading(name):
            array = self._open().array(name)
        chosen = _checked(selection, array.shape)
        with self._reading(name):
            values = np.asarray(array[chosen])
        return np.require(values, values.dtype.newbyteorder("="), ["C", "W"])

    def array(self, name: str) -> ArrayIndex:
        """Where the chunks of one array lie; its layout is "fallback" where only zarr-python can read it.

        Raises:
            FormatError: there is no such array.
            ShardError: its metadata cannot be read.
        """
        place = locate(self.location, self._storage_options)
        if not place.is_local:
            return ArrayIndex(name, (), "", "fallback", (), reason="not on this machine's own file systems")
        with self._reading(name):
            array = self._open().array(name)
            folder = os.path.join(os.path.abspath(place.path), *name.strip("/").split("/"))
            return index_zarr_array(array, name, folder, available, crc32c)

    def chunks(self, name: str) -> Chunks:
        """How an array is cut up, and how much of it was ever stored.

        Raises:
            FormatError: there is no such array.
            ShardError: its metadata cannot be read, or its chunks cannot be listed.
        """
        with self._reading(name):
            array = self._open().array(name)
            stored = min(array.nchunks_initialized, array.nchunks)
            return Chunks(tuple(array.shape), np.dtype(array.dtype), tuple(array.chunks), array.nchunks, stored)

    @property
    def windows(self) -> WindowReader:
        """What reads windows of those arrays that `array` has found."""
        return local_windows()

    def close(self) -> None:
        """Let go of what this process keeps of the shard's metadata. What is read next is looked up anew."""
        _POOL.drop(self._key)

    def _open(self) -> _Shard:
        shard = _POOL.get(self._key)
        if shard is None:
            shard = _Shard(self.location, self._storage_options)
            _POOL.put(self._key, shard)
        return shard

    @contextmanager
    def _reading(self, what: str) -> Iterator[None]:
        """Turn whatever zarr, a codec or a storage raises into one line of ours."""
        try:
            yield
        except WellkitError:
            raise
        except Exception as error:  # codecs and metadata parsers raise all there is, from KeyError to zlib.error
            self.close()
            place = without_secrets(self.location)
            told = explain(error, place) if "://" in self.location and isinstance(error, OSError) else None
            if told is None:
                reason = without_secrets(" ".join(f"{type(error).__name__}: {error}".split()))[:300]
                told = ShardError(f"{place}: {what} cannot be read ({reason}); {_advice(error)}")
            raise told from error


def _advice(error: Exception) -> str:
    if isinstance(error, PermissionError):
        return "check its permissions"
    if "codec" in str(error).lower():
        return "its codec is not installed here, or its metadata are damaged"
    return "it is damaged or was not copied whole: delete it and fetch it again"


class Chunks(NamedTuple):
    """How an array is cut up.

    Attributes:
        shape, dtype: of the array.
        chunk_shape: of a chunk, the unit of reading.
        total: chunks of the whole array.
        stored: chunks that are stored; where several share a file, all those of the files there are.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    chunk_shape: tuple[int, ...]
    total: int
    stored: int

    @property
    def nbytes(self) -> int:
        """Bytes of one chunk, decoded."""
        return self.dtype.itemsize * math.prod(self.chunk_shape)


class Group:
    """A group as parsers of layouts want it: `attrs`, `keys()`, `[]`."""

    def __init__(self, shard: _Shard, path: str) -> None:
        self._shard = shard
        self._path = path
        self.attrs: dict[str, Any] = shard.node(path).attrs.asdict()

    def keys(self) -> list[str]:
        """Names of the groups and arrays directly below, sorted."""
        return self._shard.names(self._path)

    def __contains__(self, name: str) -> bool:
        try:
            self[name]
        except KeyError:
            return False
        return True

    def __getitem__(self, name: str) -> Group | Array:
        path = f"{self._path}/{name}".strip("/")
        if hasattr(self._shard.node(path), "shape"):
            return Array(self._shard, path)
        return Group(self._shard, path)


class Array:
    """An array's description: `attrs`, `shape`, `dtype`. Values come from `ZarrReader.read`."""

    def __init__(self, shard: _Shard, path: str) -> None:
        array = shard.array(path)
        self.attrs: dict[str, Any] = array.attrs.asdict()
        self.shape: tuple[int, ...] = tuple(array.shape)
        self.dtype: np.dtype[Any] = array.dtype


class _Shard:
    """An open root group and the nodes below it that were met, by path."""

    def __init__(self, location: str, storage_options: Mapping[str, Any]) -> None:
        zarr = _library(location)
        self._location = without_secrets(location)
        self._place = locate(location, storage_options)
        self._store = self._make_store(zarr)
        root = None
        for version in (3, 2):  # one after the other: a request for what is not there costs less than four at once
            try:
                root = zarr.open_group(store=self._store, mode="r", zarr_format=version)
                break
            except FileNotFoundError:
                continue
        if root is None:
            self._fail_without_root()
        self._consolidated = root.metadata.consolidated_metadata is not None
        self._nodes: dict[str, Any] = {"": root}

    def _make_store(self, zarr: Any) -> Any:
        if not self._place.is_local:
            from wellkit.readers.zarr_store import LocationStore

            return LocationStore(self._place)
        path = Path(self._place.path)
        if not path.exists():
            raise DataNotFoundError(f"{self._location}: no such folder")
        if not path.is_dir():
            raise ShardError(f"{self._location}: is a file, not the folder of a Zarr group")
        return zarr.storage.LocalStore(path.absolute(), read_only=True)

    def _fail_without_root(self) -> NoReturn:
        if not self._place.is_local:
            raise DataNotFoundError(f"{self._location}: no Zarr group there (neither zarr.json nor .zgroup)")
        raise ShardError(
            f"{self._location}: is not a Zarr group (it holds neither zarr.json nor .zgroup); it is damaged or was not "
            "copied whole: delete it and fetch it again"
        )

    def node(self, path: str) -> Any:
        """zarr's group or array at `path`. Raises KeyError where there is none."""
        found = self._nodes.get(path)
        if found is None:
            try:
                found = self._nodes[""][path]
            except KeyError as error:
                if self._described(path):  # the metadata are there, but not whole
                    raise ShardError(
                        f"{self._location}: {path} cannot be read (its metadata lack {error}); it is damaged or was "
                        "not copied whole: delete it and fetch it again"
                    ) from error
                raise
            _refuse_pickle(found, f"{self._location}: {path}")
            self._nodes[path] = found
        return found

    def array(self, path: str) -> Any:
        """zarr's array at `path`. Raises FormatError where there is none."""
        try:
            found = self.node(path.strip("/"))
        except KeyError:
            found = None
        if not hasattr(found, "shape"):
            raise FormatError(f"{self._location}: has no array {path!r}")
        return found

    def names(self, path: str) -> list[str]:
        """Names of the nodes directly below the group at `path`, sorted."""
        if self._consolidated:
            known = self.node(path).metadata.consolidated_metadata
            return sorted({name.partition("/")[0] for name in known.metadata}) if known is not None else []
        entries = self._entries(path)
        if not any(name in entries for name in _METADATA):
            # A group's folder holds at least its own metadata: nothing can be concluded from such a listing.
            raise ShardError(
                f"{self._location}: /{path} cannot be listed here, and the group has no consolidated metadata; "
                "run zarr.consolidate_metadata(...) on it where it can be written"
            )
        return [name for name in entries if self._described(f"{path}/{name}".strip("/"))]

    def _entries(self, path: str) -> list[str]:
        if self._place.is_local:
            return sorted(os.listdir(os.path.join(self._place.path, path)))
        found: list[str] = self._store.entries(path)
        return found

    def _described(self, path: str) -> bool:
        """Whether metadata of a group or array lie at `path`."""
        if self._consolidated:
            return False
        place = self._place.join(path)
        return any(place.join(name).exists() for name in _METADATA)


def _library(location: str) -> Any:
    zarr = require("zarr", extra="zarr", purpose=f"reading {without_secrets(location)}")
    if int(zarr.__version__.partition(".")[0]) < 3:
        raise MissingDependencyError(
            f"reading {without_secrets(location)} needs zarr 3, found {zarr.__version__}; "
            "run: pip install 'wellkit[zarr]'"
        )
    return zarr


def _refuse_pickle(node: Any, where: str) -> None:
    """Metadata name the codecs; unpickling would run whatever the chunks say."""
    metadata = node.metadata
    codecs = (*(getattr(metadata, "filters", None) or ()), getattr(metadata, "compressor", None))
    if any(getattr(codec, "codec_id", None) == "pickle" for codec in codecs):
        raise ShardError(f"{where} is stored as pickles, which can run any program: it is not read")


def _checked(selection: tuple[int | slice, ...], shape: tuple[int, ...]) -> tuple[int | slice, ...]:
    """`selection` with every index counted from 0 and inside the array."""
    if len(selection) > len(shape):
        raise IndexError(f"{len(selection)} indices for an array of {len(shape)} axes")
    chosen: list[int | slice] = []
    for part, size in zip(selection, shape, strict=False):
        if isinstance(part, slice):
            start, stop, step = part.indices(size)
            if step < 1:
                raise IndexError(f"step {step}: only positive steps are read")
            chosen.append(slice(start, max(start, stop), step))
        else:
            index = operator.index(part)
            if not -size <= index < size:
                raise IndexError(f"index {index} is out of range for an axis of size {size}")
            chosen.append(index % size)
    return (*chosen, *(slice(0, size) for size in shape[len(selection) :]))


class _Pool:
    """Open shards of this process, the least recently used forgotten beyond a limit."""

    def __init__(self, limit: int = _OPEN_SHARDS) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._shards: OrderedDict[str, _Shard] = OrderedDict()
        self._inherited: list[OrderedDict[str, _Shard]] = []

    def get(self, key: str) -> _Shard | None:
        with self._lock:
            shard = self._shards.get(key)
            if shard is not None:
                self._shards.move_to_end(key)
            return shard

    def put(self, key: str, shard: _Shard) -> None:
        with self._lock:
            self._shards[key] = shard
            while len(self._shards) > self._limit:
                self._shards.popitem(last=False)

    def drop(self, key: str) -> None:
        with self._lock:
            self._shards.pop(key, None)

    def start_anew(self) -> None:
        """In a forked child: the parent's connections are not ours, not even to close by forgetting them."""
        self._inherited.append(self._shards)
        self._lock = threading.Lock()
        self._shards = OrderedDict()


_POOL = _Pool()
os.register_at_fork(after_in_child=_POOL.start_anew)

__all__ = ["Array", "Group", "ZarrReader"]
