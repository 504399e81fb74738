"""Where the chunks of a local Zarr array lie: files named by the grid, looked at when a chunk is asked for.

Metadata are zarr-python's; this says which arrays can be read without it, and finds the bytes of their chunks. A chunk
whose file is not there was never written, as the format has it.
Formats: https://zarr-specs.readthedocs.io, "Zarr core specification" versions 2 and 3, "Sharding codec" version 1.0.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any

import numpy as np

from wellkit.errors import DataNotFoundError, ShardError
from wellkit.index.model import ArrayIndex, Codec

_V2_CODECS = {"zlib": "deflate", "gzip": "gzip", "zstd": "zstd", "blosc": "blosc", "shuffle": "shuffle"}
_V3_CODECS = ("gzip", "zstd", "blosc", "crc32c")
_METADATA = (".zarray", "zarr.json")
_NOWHERE = np.uint64(2**64 - 1)  # offset and size of a chunk that a shard does not hold
_CRC = 4  # bytes
_KEPT_TABLES = 1 << 25  # bytes of chunk tables of shards that a process keeps
_MOST_CHUNKS = 1 << 22  # of one shard
_DAMAGED = "it is damaged or was not copied whole: delete it and fetch it again"
Take = Callable[[int], np.ndarray]


class _UnsupportedError(Exception):
    """An array that only zarr-python can read; says why."""


def index_zarr_array(
    array: Any, name: str, folder: str, knows: Callable[[str], bool], crc32c: Callable[[np.ndarray], int]
) -> ArrayIndex:
    """The index entry of an array of zarr-python's; its layout is "fallback" where only that can read it.

    Args:
        array: the open array.
        folder: the array's own.
        knows: whether a codec, by `Codec.name`, can be undone here.
        crc32c: the checksum of bytes.
    """
    shape = tuple(int(size) for size in array.shape)
    dtype = np.dtype(array.dtype)
    try:
        if not shape or 0 in shape or dtype.kind not in "biuf" or dtype.itemsize > 8:
            raise _UnsupportedError(f"an array of shape {shape} and type {dtype}")
        metadata = array.metadata
        read = _format_2 if metadata.zarr_format == 2 else _format_3
        chunk_shape, codecs, sharding = read(metadata, dtype)
        for codec in (*codecs, *([Codec("crc32c", 0)] if sharding and sharding.has_checksum else [])):
            if not knows(codec.name):
                raise _UnsupportedError(f"codec {codec.name} is not installed")
        value = 0 if metadata.fill_value is None else metadata.fill_value
        return ArrayIndex(
            name=name,
            shape=shape,
            dtype=np.dtype(dtype).newbyteorder("<").str,
            layout="chunked",
            chunk_shape=chunk_shape,
            codecs=codecs,
            fill=np.array(value).astype(dtype.newbyteorder("<")).tobytes(),
            files=ZarrChunks(folder, metadata.encode_chunk_key, shape, chunk_shape, sharding, crc32c),
        )
    except _UnsupportedError as error:
        return ArrayIndex(name, shape, dtype.str, "fallback", shape, reason=str(error))


class _Sharding:
    """How chunks are put together in files."""

    def __init__(self, per_file: tuple[int, ...], at_end: bool, has_checksum: bool) -> None:
        self.per_file = per_file  # chunks along each axis
        self.at_end = at_end
        self.has_checksum = has_checksum
        self.count = prod(per_file)
        self.table_bytes = 16 * self.count + _CRC * has_checksum


_Description = tuple[tuple[int, ...], tuple[Codec, ...], _Sharding | None]


def _format_2(metadata: Any, dtype: np.dtype[Any]) -> _Description:
    stored = np.dtype(metadata.dtype.to_native_dtype())
    if metadata.order != "C" and len(metadata.shape) > 1:
        raise _UnsupportedError("elements in Fortran's order")
    if stored.newbyteorder("<") != stored or stored != dtype:
        raise _UnsupportedError(f"elements of type {stored.str}")
    codecs = []
    for codec in (*(metadata.filters or ()), *([metadata.compressor] if metadata.compressor is not None else [])):
        settings = codec.get_config()
        name = _V2_CODECS.get(settings.get("id"))
        if name is None:
            raise _UnsupportedError(f"codec {settings.get('id')}")
        codecs.append(Codec(name, int(settings.get("elementsize", 0))))  # type: ignore[arg-type]
    return tuple(int(size) for size in metadata.chunks), tuple(codecs), None


def _format_3(metadata: Any, dtype: np.dtype[Any]) -> _Description:
    grid = metadata.chunk_grid.to_dict()
    if grid.get("name") != "regular" or getattr(metadata, "storage_transformers", ()):
        raise _UnsupportedError("an irregular grid of chunks, or storage transformers")
    outer = tuple(int(size) for size in grid["configuration"]["chunk_shape"])
    pipeline = [codec.to_dict() for codec in metadata.codecs]
    if len(pipeline) != 1 or pipeline[0]["name"] != "sharding_indexed":
        return outer, _pipeline(pipeline, dtype), None
    settings = pipeline[0]["configuration"]
    inner = tuple(int(size) for size in settings["chunk_shape"])
    if len(inner) != len(outer) or any(step < 1 or size % step for size, step in zip(outer, inner, strict=True)):
        raise _UnsupportedError(f"shards of {outer} in chunks of {inner}")
    index = [_plain(codec) for codec in settings["index_codecs"]]
    names = [codec["name"] for codec in index]
    if names not in (["bytes"], ["bytes", "crc32c"]) or index[0].get("configuration", {}).get("endian") != "little":
        raise _UnsupportedError(f"a table of chunks encoded by {', '.join(names)}")
    if settings["index_location"] not in ("start", "end"):
        raise _UnsupportedError(f"a table of chunks at {settings['index_location']}")
    per_file = tuple(size // step for size, step in zip(outer, inner, strict=True))
    if prod(per_file) > _MOST_CHUNKS:
        raise _UnsupportedError(f"{prod(per_file)} chunks in a shard")
    sharding = _Sharding(per_file, settings["index_location"] == "end", len(names) == 2)
    return inner, _pipeline([_plain(codec) for codec in settings["codecs"]], dtype), sharding


def _plain(codec: Any) -> Mapping[str, Any]:
    found: Mapping[str, Any] = codec if isinstance(codec, Mapping) else codec.to_dict()
    return found


def _pipeline(codecs: Sequence[Mapping[str, Any]], dtype: np.dtype[Any]) -> tuple[Codec, ...]:
    first, *rest = codecs
    if first["name"] != "bytes":
        raise _UnsupportedError(f"codec {first['name']}")
    if dtype.itemsize > 1 and (first.get("configuration") or {}).get("endian") != "little":
        raise _UnsupportedError("elements in big-endian order")
    for codec in rest:
        if codec["name"] not in _V3_CODECS:
            raise _UnsupportedError(f"codec {codec['name']}")
    return tuple(Codec(codec["name"], 0) for codec in rest)


class ZarrChunks:
    """Chunks of one local array: a `ChunkFiles`. Holds no file open: one that is replaced is seen at once."""

    def __init__(
        self,
        folder: str,
        key: Callable[[tuple[int, ...]], str],
        shape: tuple[int, ...],
        chunk_shape: tuple[int, ...],
        sharding: _Sharding | None,
        crc32c: Callable[[np.ndarray], int],
    ) -> None:
        self._folder, self._key, self._sharding, self._crc32c = folder, key, sharding, crc32c
        self._grid = tuple(-(-size // step) for size, step in zip(shape, chunk_shape, strict=True))
        self._tables: dict[str, tuple[tuple[int, ...], np.ndarray]] = {}
        self._tables_kept = 0

    def _locate(self, number: int) -> tuple[str, int]:
        """(path of its file, number in the file) of a chunk."""
        position = []
        for count in reversed(self._grid):
            number, index = divmod(number, count)
            position.append(index)
        position.reverse()
        inner = 0
        if self._sharding is not None:
            for axis, count in enumerate(self._sharding.per_file):
                position[axis], index = divmod(position[axis], count)
                inner = inner * count + index
        return os.path.join(self._folder, self._key(tuple(position))), inner

    def describe(self, number: int) -> str:
        """The file that holds a chunk."""
        return self._locate(number)[0]

    def stored(self, number: int, limit: int, take: Take) -> np.ndarray | None:
        """The bytes of a chunk as stored, see `ChunkFiles`."""
        path, inner = self._locate(number)
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            # Most likely never written; but of a folder that is gone, no chunk is known to be empty.
            if any(os.path.exists(os.path.join(self._folder, name)) for name in _METADATA):
                return None
            raise DataNotFoundError(f"{self._folder}: the Zarr array is no longer there") from None
        except OSError as error:
            raise ShardError(f"{path}: cannot be opened ({error.strerror}); check its permissions") from error
        try:
            status = os.fstat(descriptor)
            offset, size = 0, status.st_size
            if self._sharding is not None:
                table = self._table(path, descriptor, status)
                first, length = table[inner]
                if first == _NOWHERE and length == _NOWHERE:
                    return None
                offset, size = int(first), int(length)
                if offset + size > status.st_size:
                    raise ShardError(
                        f"{path}: chunk {inner} lies at byte {offset}, {size} bytes long, in a file of "
                        f"{status.st_size} bytes; {_DAMAGED}"
                    )
            if size > limit:
                raise ShardError(f"{path}: chunk {inner} has {size} bytes, more than it can have; {_DAMAGED}")
            buffer = take(size)
            _fill(descriptor, buffer, offset, path)
            return buffer
        except OSError as error:
            if isinstance(error, ShardError | DataNotFoundError):
                raise
            raise ShardError(f"{path}: cannot be read ({error.strerror}); {_DAMAGED}") from error
        finally:
            os.close(descriptor)

    def _table(self, path: str, descriptor: int, status: os.stat_result) -> np.ndarray:
        """uint64, axes (chunk, 2): offset and size of each chunk of a file; kept as long as the file is the same."""
        sharding = self._sharding
        assert sharding is not None
        identity = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
        kept = self._tables.get(path)
        if kept is not None and kept[0] == identity:
            return kept[1]
        if status.st_size < sharding.table_bytes:
            raise ShardError(f"{path}: has {status.st_size} bytes, too few for its table of chunks; {_DAMAGED}")
        raw = np.empty(sharding.table_bytes, np.uint8)
        _fill(descriptor, raw, status.st_size - raw.size if sharding.at_end else 0, path)
        if sharding.has_checksum:
            found, told = self._crc32c(raw[:-_CRC]), int.from_bytes(raw[-_CRC:].tobytes(), "little")
            if found != told:
                raise ShardError(
                    f"{path}: the checksum of its table of chunks is {found:08x}, stored is {told:08x}; {_DAMAGED}"
                )
        table = raw[: 16 * sharding.count].view("<u8").reshape(-1, 2)
        if self._tables_kept + raw.size > _KEPT_TABLES:
            self._tables, self._tables_kept = {}, 0
        self._tables[path] = identity, table
        self._tables_kept += raw.size
        return table


def _fill(descriptor: int, buffer: np.ndarray, offset: int, path: str) -> None:
    view, at = buffer.data, offset
    while view:
        got = os.preadv(descriptor, [view], at)
        if got == 0:
            raise ShardError(f"{path}: ends at byte {at}, before a chunk of it does; {_DAMAGED}")
        view, at = view[got:], at + got
