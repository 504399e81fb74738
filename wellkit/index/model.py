"""What an index says of a shard: every array's dtype, shape, chunk grid, and where each chunk's bytes lie.

The index of a shard is enough to parse its layout (`ShardIndex.root`) and to read its arrays without libhdf5.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from math import prod
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np

from wellkit.errors import ShardError
from wellkit.index.fingerprint import UNKNOWN, fingerprint, fingerprint_of

Layout = Literal["contiguous", "chunked", "inline", "missing", "fallback"]
LAYOUTS: tuple[Layout, ...] = ("contiguous", "chunked", "inline", "missing", "fallback")
MISSING = -1  # offset of a chunk that was never written: it reads as the fill value


class Codec(NamedTuple):
    """One step that a chunk went through on its way to disk. `element_size` is shuffle's, in bytes."""

    name: Literal["shuffle", "deflate", "fletcher32", "gzip", "zstd", "blosc", "crc32c"]
    element_size: int


class ChunkFiles(Protocol):
    """Chunks that lie in files of their own, found when they are asked for. Thread-safe."""

    def stored(self, number: int, limit: int, take: Callable[[int], np.ndarray]) -> np.ndarray | None:
        """The bytes of a chunk as stored, uint8, in memory that `take` gives; None where it was never written.

        Args:
            number: of the chunk, in C order over the grid.
            limit: bytes; more than so many are no such chunk.

        Raises:
            DataNotFoundError: the array is gone.
            ShardError: its file cannot be read, or contradicts itself; names the file.
        """
        ...

    def describe(self, number: int) -> str:
        """The file that holds a chunk, for messages."""
        ...


def _nowhere() -> np.ndarray:
    empty = np.empty(0, dtype=np.int64)
    empty.flags.writeable = False
    return empty


@dataclass(frozen=True, eq=False)
class ArrayIndex:
    """One array of a shard.

    Attributes:
        name: path in the shard, e.g. "t0_fields/density".
        shape: of the whole array; () for a single number.
        dtype: NumPy's name of the elements as they lie in the file, e.g. "<f4": always little-endian numbers or
            "|b1" unless the layout is "fallback".
        layout: "contiguous": one run of bytes at `offset`; "chunked": `offsets` and `sizes`; "inline": the content
            is in the index; "missing": never written, all `fill`; "fallback": only libhdf5 can read it (`reason`).
        chunk_shape: as stored, every chunk in full, those at the edges too; equals `shape` unless chunked.
        offset: contiguous: of the first byte, counted from the beginning of the file.
        offsets: chunked: int64, axes (chunk) in C order over `grid`; `MISSING` where a chunk was never written.
        sizes: chunked: int64, axes (chunk); bytes of each chunk as stored, 0 where missing.
        filter_masks: chunked: uint32, axes (chunk); bit i set: codec i was left out for this chunk. None: no bit is.
        codecs: in the order in which they were applied when writing.
        fill: one element.
        inline: the whole array's elements in C order, little-endian; None unless the layout is "inline".
        reason: why the layout is "fallback"; else empty.
        files: chunked: where the chunks are if not in the shard's one file; `offsets`, `sizes` and `filter_masks` are
            empty then.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    layout: Layout
    chunk_shape: tuple[int, ...]
    offset: int = MISSING
    offsets: np.ndarray = field(default_factory=_nowhere)
    sizes: np.ndarray = field(default_factory=_nowhere)
    filter_masks: np.ndarray | None = None
    codecs: tuple[Codec, ...] = ()
    fill: bytes = b""
    inline: bytes | None = None
    reason: str = ""
    files: ChunkFiles | None = None

    @property
    def lies_plain(self) -> bool:
        """Whether the chunks that were written lie in the shard's file as they are in memory."""
        return not self.codecs and self.files is None

    @property
    def itemsize(self) -> int:
        """Bytes of an element."""
        return int(np.dtype(self.dtype).itemsize)

    @property
    def nbytes(self) -> int:
        """Bytes of the whole array, decoded."""
        return prod(self.shape) * self.itemsize

    @property
    def chunk_nbytes(self) -> int:
        """Bytes of a chunk, decoded."""
        return prod(self.chunk_shape) * self.itemsize

    @property
    def grid(self) -> tuple[int, ...]:
        """Number of chunks along each axis."""
        return tuple(-(-size // chunk) for size, chunk in zip(self.shape, self.chunk_shape, strict=True) if chunk)

    @property
    def n_chunks(self) -> int:
        """Chunks of the grid, missing ones counted."""
        return prod(self.grid) if self.layout == "chunked" else 0

    @property
    def stored_nbytes(self) -> int:
        """Bytes in the shard that hold the array."""
        if self.layout == "contiguous":
            return self.nbytes
        return int(self.sizes.sum()) if self.layout == "chunked" else 0

    def chunk_number(self, position: tuple[int, ...]) -> int:
        """Where in `offsets` the chunk at `position` of the grid stands."""
        number = 0
        for index, count in zip(position, self.grid, strict=True):
            if not 0 <= index < count:
                raise IndexError(f"{self.name}: no chunk at {position}; the grid is {self.grid}")
            number = number * count + index
        return number

    def inline_values(self) -> np.ndarray:
        """The array itself, read-only, where the layout is "inline"."""
        if self.inline is None:
            raise ValueError(f"{self.name} is {self.layout}, not inline")
        return np.frombuffer(self.inline, dtype=self.dtype).reshape(self.shape)


Attributes = Mapping[str, Any]
NO_ATTRIBUTES: Attributes = MappingProxyType({})


@dataclass(frozen=True, eq=False)
class ShardIndex:
    """One shard.

    Attributes:
        size: bytes of the file.
        fingerprint: see `wellkit.index.fingerprint`.
        arrays: by path, in the order of the file.
        attributes: of every group and array by path ("" is the root group): str, or NumPy scalars and arrays
            (of numbers, of bool, of object holding str). Attributes of other types are left out.
        content: hash of the whole file as a listing tells it, e.g. "sha256:..."; empty where it is not known.
    """

    size: int
    fingerprint: bytes
    arrays: Mapping[str, ArrayIndex]
    attributes: Mapping[str, Attributes]
    content: str = ""

    def root(self) -> IndexGroup:
        """The root group as h5py would show it: attributes, names, shapes and dtypes; no values."""
        return IndexGroup(self, "")

    def check(self, path: str | os.PathLike[str], descriptor: int | None = None) -> None:
        """Compare size and fingerprint of the file at `path` with those that were indexed.

        Args:
            descriptor: the file, if it is open already.

        Raises:
            DataNotFoundError: there is no such file.
            ShardError: it has changed since it was indexed, or cannot be read.
        """
        where = os.fspath(path)
        size, found = fingerprint(where) if descriptor is None else fingerprint_of(descriptor, where)
        if size != self.size or (found != self.fingerprint and self.fingerprint != UNKNOWN):
            what = f"{size} bytes, {self.size} were indexed" if size != self.size else "its first or last bytes differ"
            raise ShardError(
                f"{where}: has changed since it was indexed ({what}); run `wellkit index` on its folder again"
            )


class IndexArray:
    """An array in an `IndexGroup`: what can be known without reading it."""

    def __init__(self, index: ArrayIndex, attributes: Attributes) -> None:
        self.index = index
        self.attrs = attributes

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes along the axes."""
        return self.index.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the elements."""
        return np.dtype(self.index.dtype)


class IndexGroup(Mapping[str, "IndexGroup | IndexArray"]):
    """A group of a shard seen through its index; the part of h5py.Group's interface that parsing a layout needs."""

    def __init__(self, shard: ShardIndex, path: str) -> None:
        self._shard = shard
        self._path = path

    @property
    def attrs(self) -> Attributes:
        """The group's attributes."""
        return self._shard.attributes.get(self._path, NO_ATTRIBUTES)

    def __getitem__(self, name: str) -> IndexGroup | IndexArray:
        path = f"{self._path}/{name}".strip("/")
        array = self._shard.arrays.get(path)
        if array is not None:
            return IndexArray(array, self._shard.attributes.get(path, NO_ATTRIBUTES))
        if path not in self._shard.attributes:
            raise KeyError(f"no object {path!r} in the index")
        return IndexGroup(self._shard, path)

    def __iter__(self) -> Iterator[str]:
        prefix = f"{self._path}/" if self._path else ""
        for path in self._shard.attributes:
            if path.startswith(prefix) and path and "/" not in path[len(prefix) :]:
                yield path[len(prefix) :]

    def __len__(self) -> int:
        return sum(1 for _ in self)
