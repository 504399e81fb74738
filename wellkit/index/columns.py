"""Indexes of many shards as bytes: few columns instead of many objects, so that opening costs nothing a shard.

    header     48 bytes: magic, version, sizes of what follows, checksums of directory and header
    directory  columns over shards, arrays, blobs, tables; read and checked as a whole when opened
    tables     chunk tables, each with its own checksum in the directory; read when an array is first used

Numbers are little-endian. What several shards share (skeletons, the content of small arrays, chunk tables of files
written alike) stands there once.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Protocol

import numpy as np

from wellkit.errors import ShardError
from wellkit.index.fingerprint import LENGTH
from wellkit.index.model import ArrayIndex, Attributes, ShardIndex
from wellkit.index.skeleton import ArraySkeleton, Skeleton, own_attributes, split_skeletons

VERSION = 2
_OLDER = {1: 14}  # columns of older versions, which lack the last ones
_MAGIC = b"WKINDEX\x00"
_HEADER = struct.Struct("<8sIIQQIII")  # magic, version, columns, directory size, tables size, checksum, zero, own
HEADER_SIZE = _HEADER.size
_COLUMN = struct.Struct("<Q")
_TABLE = struct.Struct("<QBBBxxxxx")  # chunks; kinds of offsets, sizes, masks
_NONE, _STEPS, _NARROW, _WIDE = range(4)

# name -> dtype; the order is that of the directory
_COLUMNS = {
    "paths": "u1",  # ends of paths are zero bytes
    "sizes": "<i8",
    "fingerprints": "u1",
    "skeletons": "<i4",  # (shard)
    "own_starts": "<i8",  # (shard + 1)
    "own": "u1",
    "place_starts": "<i8",  # (shard + 1)
    "places": "<i8",  # one an array: offset in the shard, or number of a blob or table
    "skeleton_starts": "<i8",
    "skeleton_text": "u1",
    "blob_starts": "<i8",
    "blobs": "u1",
    "table_starts": "<i8",
    "table_sums": "<u4",
    "contents": "u1",  # (shard) what is known of the content, see ShardIndex; ends are zero bytes
}


class BadIndexError(Exception):
    """Bytes that are no index of this version, or a damaged one; says why."""


class TableSource(Protocol):
    """Where chunk tables are read from. Picklable; safe under fork, spawn and threads."""

    def read(self, start: int, size: int) -> bytes:
        """`size` bytes from byte `start` of the tables; fewer at their end."""
        ...


class _Memory:
    def __init__(self, content: bytes) -> None:
        self._content = content

    def read(self, start: int, size: int) -> bytes:
        return self._content[start : start + size]


class _Pool:
    """Distinct byte strings in the order in which they first came."""

    def __init__(self) -> None:
        self._numbers: dict[bytes, int] = {}

    def add(self, content: bytes) -> int:
        return self._numbers.setdefault(content, len(self._numbers))

    def join(self) -> tuple[np.ndarray, bytes]:
        """Where each starts and the last ends, int64, axes (string + 1); and all of them."""
        return _starts(self._numbers), b"".join(self._numbers)

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._numbers)


def _starts(pieces: Iterable[bytes]) -> np.ndarray:
    return np.cumsum([0, *(len(piece) for piece in pieces)], dtype=np.int64)


def pack(shards: Mapping[str, ShardIndex]) -> bytes:
    """Indexes by name (a relative path, without zero bytes) as bytes that `Packed` reads."""
    indexes = list(shards.values())
    skeletons, numbers, own = split_skeletons(indexes)
    blobs, tables = _Pool(), _Pool()
    places: list[int] = []
    place_starts = [0]
    for shard in indexes:
        for path in shard.attributes:
            array = shard.arrays.get(path)
            if array is None:
                continue
            if array.layout == "inline":
                places.append(blobs.add(array.inline or b""))
            elif array.layout == "chunked":
                places.append(tables.add(_pack_table(array)))
            else:
                places.append(array.offset)
        place_starts.append(len(places))
    blob_starts, blob_content = blobs.join()
    table_starts, table_content = tables.join()
    columns: dict[str, Any] = {
        "paths": b"".join(os.fsencode(path) + b"\0" for path in shards),
        "sizes": [shard.size for shard in indexes],
        "fingerprints": b"".join(shard.fingerprint for shard in indexes),
        "skeletons": numbers,
        "own_starts": _starts(own),
        "own": b"".join(own),
        "place_starts": place_starts,
        "places": places,
        "skeleton_starts": _starts(skeletons),
        "skeleton_text": b"".join(skeletons),
        "blob_starts": blob_starts,
        "blobs": blob_content,
        "table_starts": table_starts,
        "table_sums": [zlib.crc32(table) for table in tables],
        "contents": b"".join(shard.content.encode() + b"\0" for shard in indexes),
    }
    parts: list[bytes] = []
    for name, dtype in _COLUMNS.items():
        column = columns[name]
        content = column if isinstance(column, bytes) else np.asarray(column, dtype=dtype).tobytes()
        parts += [_COLUMN.pack(len(content)), content, bytes(-len(content) % 8)]
    directory = b"".join(parts)
    head = _HEADER.pack(_MAGIC, VERSION, len(_COLUMNS), len(directory), len(table_content), zlib.crc32(directory), 0, 0)
    return head[:-4] + struct.pack("<I", zlib.crc32(head[:-4])) + directory + table_content


def sizes_of(header: bytes) -> tuple[int, int]:
    """Bytes of directory and tables that follow a header.

    Raises:
        BadIndexError: it is none, damaged, or of another version.
    """
    if len(header) < HEADER_SIZE or header[:8] != _MAGIC:
        raise BadIndexError("not an index")
    _, version, columns, directory, tables, _, _, own = _HEADER.unpack(header[:HEADER_SIZE])
    if zlib.crc32(header[: HEADER_SIZE - 4]) != own:
        raise BadIndexError("a damaged header")
    if columns != (len(_COLUMNS) if version == VERSION else _OLDER.get(version)):
        raise BadIndexError(f"version {version}, this wellkit reads version {VERSION}")
    return directory, tables


def unpack(content: bytes, name: str) -> Packed:
    """A packed index that is wholly in memory; `name` is for messages. Raises BadIndexError."""
    directory, tables = sizes_of(content[:HEADER_SIZE])
    if len(content) != HEADER_SIZE + directory + tables:
        raise BadIndexError("truncated")
    start = HEADER_SIZE + directory
    return Packed(content[:HEADER_SIZE], content[HEADER_SIZE:start], _Memory(content[start:]), name)


class Packed:
    """Indexes of many shards. Immutable, picklable; every shard's is made when it is asked for.

    Raises:
        BadIndexError: (on making one) header or directory are damaged.
    """

    def __init__(self, header: bytes, directory: bytes, tables: TableSource, name: str) -> None:
        self._header, self._directory, self._tables, self._name = header, directory, tables, name
        if len(directory) != sizes_of(header)[0] or zlib.crc32(directory) != _HEADER.unpack(header)[5]:
            raise BadIndexError("a damaged directory")
        column: dict[str, np.ndarray] = {}
        position = 0
        for key, dtype in list(_COLUMNS.items())[: _HEADER.unpack(header)[2]]:
            (size,) = _COLUMN.unpack_from(directory, position)
            position += _COLUMN.size
            kind = np.dtype(dtype)
            column[key] = np.frombuffer(directory, dtype=kind, count=size // kind.itemsize, offset=position)
            position += size + -size % 8
        self._column = column
        self.paths = tuple(os.fsdecode(path) for path in column["paths"].tobytes().split(b"\0")[:-1])
        self.sizes: list[int] = column["sizes"].tolist()
        self.skeleton_numbers: list[int] = column["skeletons"].tolist()
        self._fingerprints = column["fingerprints"].tobytes()
        known = column["contents"].tobytes().decode("utf-8", "replace").split("\0") if "contents" in column else []
        self.contents = tuple(known[: len(self.paths)]) or ("",) * len(self.paths)
        self._skeletons: dict[int, Skeleton] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return Packed, (self._header, self._directory, self._tables, self._name)

    def __len__(self) -> int:
        return len(self.paths)

    def shard(self, number: int) -> ShardIndex:
        """The index of one shard; its arrays and attributes are decoded when they are first asked for."""
        return ShardIndex(
            size=self.sizes[number],
            fingerprint=self._fingerprints[number * LENGTH : (number + 1) * LENGTH],
            arrays=PackedArrays(self, number),
            attributes=PackedAttributes(self, number),
            content=self.contents[number],
        )

    def skeleton(self, number: int) -> Skeleton:
        """Skeleton `number`, parsed once."""
        found = self._skeletons.get(number)
        if found is None:
            try:
                found = Skeleton.parse(self._piece("skeleton_starts", "skeleton_text", number))
            except (ValueError, KeyError, TypeError, IndexError) as error:
                raise self._damaged(f"skeleton {number}: {error}") from error
            self._skeletons[number] = found
        return found

    def own_attributes(self, number: int) -> Attributes:
        """Root attributes of shard `number` that are not those of its skeleton."""
        return own_attributes(self._piece("own_starts", "own", number))

    def array(self, number: int, position: int) -> ArrayIndex:
        """The array at `position` of shard `number`'s skeleton."""
        described = self.skeleton(self.skeleton_numbers[number]).arrays[position]
        place = int(self._column["places"][self._column["place_starts"][number] + position])
        common = vars(described)
        if described.layout == "inline":
            content = self._piece("blob_starts", "blobs", place)
            index = ArrayIndex(**common, inline=content)
            if len(content) != index.nbytes:
                raise self._damaged(f"content of {described.name}")
            return index
        if described.layout == "chunked":
            return self._chunked(described, place)
        return ArrayIndex(**common, offset=place)

    def _chunked(self, described: ArraySkeleton, place: int) -> ArrayIndex:
        start, end = self._column["table_starts"][place : place + 2].tolist()
        content = self._tables.read(start, end - start)
        if zlib.crc32(content) != int(self._column["table_sums"][place]):
            raise self._damaged(f"chunk table of {described.name}")
        try:
            offsets, sizes, masks = _unpack_table(content)
        except (struct.error, ValueError) as error:
            raise self._damaged(f"chunk table of {described.name}") from error
        index = ArrayIndex(**vars(described), offsets=offsets, sizes=sizes, filter_masks=masks)
        if offsets.size != index.n_chunks:
            raise self._damaged(f"chunk table of {described.name}")
        return index

    def _piece(self, starts: str, content: str, number: int) -> bytes:
        start, end = self._column[starts][number : number + 2].tolist()
        return self._column[content][start:end].tobytes()

    def _damaged(self, what: str) -> ShardError:
        return ShardError(f"{self._name}: the index is damaged ({what}); write it again with `wellkit index`")


class PackedArrays(Mapping[str, ArrayIndex]):
    """Arrays of one shard by path; each is decoded once."""

    def __init__(self, packed: Packed, number: int) -> None:
        self._packed = packed
        self._number = number
        self._known: dict[str, ArrayIndex] = {}

    def _described(self) -> tuple[ArraySkeleton, ...]:
        return self._packed.skeleton(self._packed.skeleton_numbers[self._number]).arrays

    def __getitem__(self, name: str) -> ArrayIndex:
        found = self._known.get(name)
        if found is None:
            for position, described in enumerate(self._described()):
                if described.name == name:
                    found = self._known[name] = self._packed.array(self._number, position)
                    return found
            raise KeyError(name)
        return found

    def __contains__(self, name: object) -> bool:
        return any(described.name == name for described in self._described())

    def __iter__(self) -> Iterator[str]:
        return (described.name for described in self._described())

    def __len__(self) -> int:
        return len(self._described())

    def __reduce__(self) -> tuple[Any, ...]:
        return PackedArrays, (self._packed, self._number)


class PackedAttributes(Mapping[str, Attributes]):
    """Attributes of one shard by path; the root's with the shard's own among them."""

    def __init__(self, packed: Packed, number: int) -> None:
        self._packed = packed
        self._number = number

    def _skeleton(self) -> Skeleton:
        return self._packed.skeleton(self._packed.skeleton_numbers[self._number])

    def __getitem__(self, path: str) -> Attributes:
        skeleton = self._skeleton()
        if path != "" or not skeleton.varying:
            return skeleton.attributes[path]
        merged = {**skeleton.attributes[""], **self._packed.own_attributes(self._number)}
        return {name: merged[name] for name in skeleton.root_names}

    def __iter__(self) -> Iterator[str]:
        return iter(self._skeleton().attributes)

    def __len__(self) -> int:
        return len(self._skeleton().attributes)


def _pack_table(array: ArrayIndex) -> bytes:
    columns = [_pack_numbers(array.offsets), _pack_numbers(array.sizes), _pack_numbers(array.filter_masks)]
    return _TABLE.pack(array.offsets.size, *(kind for kind, _ in columns)) + b"".join(content for _, content in columns)


def _pack_numbers(numbers: np.ndarray | None) -> tuple[int, bytes]:
    """How a column is written, and its bytes: nothing, start and step, or every number in 4 or 8 bytes."""
    if numbers is None:
        return _NONE, b""
    wide = numbers.astype("<i8")
    step = int(wide[1] - wide[0]) if wide.size > 1 else 0
    if wide.size and np.array_equal(wide, wide[0] + step * np.arange(wide.size, dtype=np.int64)):
        return _STEPS, struct.pack("<qq", int(wide[0]), step)
    if wide.size and wide.min() >= 0 and wide.max() < 1 << 32:
        return _NARROW, wide.astype("<u4").tobytes()
    return _WIDE, wide.tobytes()


def _unpack_table(content: bytes) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    count, *kinds = _TABLE.unpack_from(content)
    position = _TABLE.size
    columns: list[np.ndarray | None] = []
    for kind in kinds:
        column: np.ndarray | None = None
        if kind == _STEPS:
            first, step = struct.unpack_from("<qq", content, position)
            column = first + step * np.arange(count, dtype=np.int64)
            position += 16
        elif kind != _NONE:
            dtype = np.dtype("<u4" if kind == _NARROW else "<i8")
            column = np.frombuffer(content, dtype=dtype, count=count, offset=position).astype(np.int64)
            position += count * dtype.itemsize
        columns.append(column)
    offsets, sizes, masks = columns
    if offsets is None or sizes is None:
        raise ValueError("a table without offsets")
    masks = None if masks is None else masks.astype(np.uint32)
    for column in (offsets, sizes, masks):
        if column is not None:
            column.flags.writeable = False
    return offsets, sizes, masks
