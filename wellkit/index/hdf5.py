"""From an HDF5 file to its index, through h5py.

libhdf5 does not survive every damaged file: it may crash or loop on one whose metadata are wrong. Files that one
cannot trust are indexed in a child process (`wellkit.index.child`); this module is what runs there.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import h5py
import numpy as np

from wellkit.errors import DataNotFoundError, ShardError, WellkitError
from wellkit.index.chunks import ChunkTable, UnsupportedError, check_overlaps, read_chunk_table
from wellkit.index.lookups import check_lookups
from wellkit.index.model import ArrayIndex, Attributes, Codec, ShardIndex
from wellkit.index.source import LocalSource, ShardSource

INLINE_LIMIT = 64 << 10  # bytes of an array that the index holds itself
MAX_OBJECTS = 100_000
_MAX_SMALL_CHUNK = 64 << 20  # libhdf5 decodes whole chunks, however little of them the array fills
_CODECS = {
    h5py.h5z.FILTER_DEFLATE: "deflate",
    h5py.h5z.FILTER_SHUFFLE: "shuffle",
    h5py.h5z.FILTER_FLETCHER32: "fletcher32",
}
_DAMAGED = "it is damaged or was not downloaded whole: delete it and download it again"


def index_shard(path: str | os.PathLike[str], *, inline_limit: int = INLINE_LIMIT, verify: bool = False) -> ShardIndex:
    """Index one shard in this process.

    Args:
        inline_limit: bytes up to which an array's content is kept in the index.
        verify: look up each chunk too (`wellkit.index.lookups`), which takes about 10 us a chunk.

    Raises:
        DataNotFoundError: there is no such file.
        ShardError: it is not HDF5, is damaged, or is being written; names the file.
    """
    where = os.fspath(path)
    with _explained(where):
        source = LocalSource(where)
        try:
            return index_source(source, inline_limit=inline_limit, verify=verify)
        finally:
            source.close()


def index_source(source: ShardSource, *, inline_limit: int = INLINE_LIMIT, verify: bool = False) -> ShardIndex:
    """As `index_shard`, of a shard that need not be a local file, or not all of one.

    Where bytes are missing (`PiecesSource.missing`), what is returned or raised means nothing.
    """
    with _explained(source.where):
        identity = source.identity()
        with source.open() as file:
            walk = _Walk(file, source, inline_limit)
            walk.visit(file["/"], "", ())
        check_overlaps(walk.extents)
        if verify:
            check_lookups(source, list(walk.arrays.values()))
        if identity != source.identity():
            raise ShardError("is being written; try again when it is whole")
    return ShardIndex(*identity, walk.arrays, walk.attributes)


@contextmanager
def _explained(where: str) -> Iterator[None]:
    """Every failure as one line that names the file."""
    try:
        yield
    except WellkitError as error:
        text = str(error)
        raise error if text.startswith(where) else ShardError(f"{where}: {text}") from error
    except FileNotFoundError as error:
        raise DataNotFoundError(f"{where}: no such file") from error
    except PermissionError as error:
        raise ShardError(f"{where}: cannot be read (permission denied); check its permissions") from error
    except (OSError, RuntimeError, KeyError, TypeError, ValueError, OverflowError, MemoryError, SystemError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        if "truncated file" in reason:
            reason = "the file is truncated"
        elif "file signature not found" in reason:
            reason = "it is not an HDF5 file"
        raise ShardError(f"{where}: cannot be indexed ({reason}); {_DAMAGED}") from error


class _Walk:
    """Visits every object of a file once a path, and indexes it."""

    def __init__(self, file: h5py.File, source: ShardSource, inline_limit: int) -> None:
        self.arrays: dict[str, ArrayIndex] = {}
        self.attributes: dict[str, Attributes] = {}
        self.extents: list[tuple[np.ndarray, np.ndarray]] = []
        self._source = source
        self._size = source.size
        self._inline_limit = inline_limit
        self._user_block = int(file.userblock_size)
        self._fileno = h5py.h5o.get_info(file.id).fileno
        self._seen: set[tuple[int, int]] = set()

    def visit(self, group: h5py.Group, path: str, above: tuple[tuple[int, int], ...]) -> None:
        """Index a group and all below it."""
        identity = _identity(group)
        with self._source.attempt():
            self.attributes[path] = _attributes(group, path)
        for name in group:
            text = name if isinstance(name, str) else name.decode("utf-8", errors="backslashreplace")
            below = f"{path}/{text}".lstrip("/")
            self._source.rank = 0
            with self._source.attempt():
                found = self._child(group, name)
                if isinstance(found, h5py.Dataset):
                    self._visit_array(found, below)
                elif isinstance(found, h5py.Group) and _identity(found) not in (*above, identity):
                    self.visit(found, below, (*above, identity))
            if len(self.attributes) > MAX_OBJECTS:
                raise ShardError(f"holds more than {MAX_OBJECTS} objects, which is more than an index is made for")

    def _visit_array(self, dataset: h5py.Dataset, path: str) -> None:
        self._source.rank = len(dataset.shape or ())
        with _named(path):
            with self._source.attempt():
                self.attributes[path] = _attributes(dataset, path)
            self.arrays[path] = self._array(dataset, path)

    def _child(self, group: h5py.Group, name: str | bytes) -> Any:
        try:
            return group[name]
        except KeyError:
            if isinstance(group.get(name, getlink=True), h5py.HardLink):
                raise
            return None  # a link to nothing: as absent for h5py as for the index

    def _array(self, dataset: h5py.Dataset, name: str) -> ArrayIndex:
        try:
            dtype = np.dtype(dataset.dtype)
        except (TypeError, ValueError):
            return ArrayIndex(name, dataset.shape or (), "|V1", "fallback", (), reason="a type NumPy has no name for")
        shape = dataset.shape
        if shape is None:
            return ArrayIndex(name, (), dtype.str, "fallback", (), reason="an empty dataspace")
        common: dict[str, Any] = {"name": name, "shape": shape, "dtype": dtype.str}
        try:
            return self._indexed(dataset, common)
        except UnsupportedError as error:
            return ArrayIndex(name, shape, dtype.str, "fallback", dataset.chunks or shape, reason=str(error))

    def _indexed(self, dataset: h5py.Dataset, common: dict[str, Any]) -> ArrayIndex:
        dtype = np.dtype(dataset.dtype)
        plist = dataset.id.get_create_plist()
        layout = plist.get_layout()
        if dtype.kind not in "fiub":
            raise UnsupportedError(_kind(dtype))
        if h5py.h5o.get_info(dataset.id).fileno != self._fileno:
            raise UnsupportedError("storage in another file")
        if layout == h5py.h5d.VIRTUAL:
            raise UnsupportedError("virtual storage")
        if plist.get_external_count():
            raise UnsupportedError("external storage")
        nbytes = dataset.size * dtype.itemsize
        if dataset.chunks and np.prod(dataset.chunks, dtype=float) * dtype.itemsize > _MAX_SMALL_CHUNK:
            small = False
        else:
            small = nbytes <= self._inline_limit
        if small or nbytes == 0 or layout == h5py.h5d.COMPACT:
            content, little = (b"", dtype.newbyteorder("<")) if nbytes == 0 else _content(dataset)
            common["dtype"] = little.str
            return ArrayIndex(**common, layout="inline", chunk_shape=dataset.shape, inline=content)
        _check_type(dataset, dtype)
        return self._stored(dataset, plist, layout, common)

    def _stored(self, dataset: h5py.Dataset, plist: Any, layout: int, common: dict[str, Any]) -> ArrayIndex:
        """An array whose bytes stay in the file."""
        common["fill"] = _fill(plist, np.dtype(dataset.dtype))
        codecs = _codecs(plist)
        new = self._is_new(dataset)
        if layout == h5py.h5d.CHUNKED:
            table = read_chunk_table(dataset, codecs, self._source, self._user_block)
            common["chunk_shape"] = dataset.chunks
            _check_fill(plist, table.n_missing)
            if table.n_missing == table.offsets.size:
                return ArrayIndex(**common, layout="missing")
            return self._chunked(table, codecs, common, new)
        common["chunk_shape"] = dataset.shape
        offset = dataset.id.get_offset()  # of what was never written: None, or with a user block a wrong number
        if offset is None or dataset.id.get_space_status() == h5py.h5d.SPACE_STATUS_NOT_ALLOCATED:
            _check_fill(plist, 1)
            return ArrayIndex(**common, layout="missing")
        nbytes = dataset.size * dataset.dtype.itemsize
        if dataset.id.get_storage_size() != nbytes or offset + nbytes > self._size:
            raise ShardError(
                f"lies at byte {offset}, {nbytes} bytes long, in a file of {self._size} bytes; the file is damaged"
            )
        if new:
            self.extents.append((np.array([offset], dtype=np.int64), np.array([nbytes], dtype=np.int64)))
        return ArrayIndex(**common, layout="contiguous", offset=int(offset))

    def _chunked(self, table: ChunkTable, codecs: tuple[Codec, ...], common: dict[str, Any], new: bool) -> ArrayIndex:
        for numbers in (table.offsets, table.sizes, table.masks):
            if numbers is not None:
                numbers.flags.writeable = False
        if new:
            self.extents.append((table.offsets, table.sizes))
        return ArrayIndex(
            **common,
            layout="chunked",
            offsets=table.offsets,
            sizes=table.sizes,
            filter_masks=table.masks,
            codecs=codecs,
        )

    def _is_new(self, dataset: h5py.Dataset) -> bool:
        """Whether this is the first of an object's names."""
        identity = _identity(dataset)
        new = identity not in self._seen
        self._seen.add(identity)
        return new


@contextmanager
def _named(path: str) -> Iterator[None]:
    """Put an object's path before the message of whatever fails there."""
    try:
        yield
    except WellkitError as error:
        raise ShardError(f"{path}: {error}") from error
    except (OSError, RuntimeError) as error:
        raise ShardError(f"{path} cannot be indexed ({' '.join(str(error).split())}); {_DAMAGED}") from error


def _identity(found: h5py.Group | h5py.Dataset) -> tuple[int, int]:
    info = h5py.h5o.get_info(found.id)
    return int(info.fileno), int(info.addr)


def _attributes(found: h5py.Group | h5py.Dataset, path: str) -> Attributes:
    """Attributes of text, numbers and booleans; see ShardIndex."""
    plain = {}
    for name in found.attrs:
        with _named(f"{path or '/'} attribute {name!r}"):
            value = None
            with suppress(TypeError):  # a type that h5py has no NumPy type for
                value = _plain(found.attrs[name])
            if value is not None:
                plain[str(name)] = value
    return plain


def _plain(value: Any) -> Any:
    if isinstance(value, str | bytes):
        return value if isinstance(value, str) else value.decode("utf-8", errors="replace")
    if isinstance(value, np.generic) and value.dtype.kind in "fiub":
        return value
    if isinstance(value, np.ndarray) and value.dtype.kind in "fiub":
        return value
    if isinstance(value, np.ndarray) and value.dtype.kind in "SUO":
        items = [_plain(item) if isinstance(item, str | bytes) else None for item in value.reshape(-1).tolist()]
        if all(item is not None for item in items):
            texts = np.empty(value.shape, dtype=object)
            texts.reshape(-1)[:] = items
            return texts
    return None


def _kind(dtype: np.dtype[Any]) -> str:
    names = {"O": "variable-length elements", "S": "strings", "V": "compound elements", "c": "complex numbers"}
    return names.get(dtype.kind, f"elements of {dtype}")


def _content(dataset: h5py.Dataset) -> tuple[bytes, np.dtype[Any]]:
    """A small array whole, little-endian, as libhdf5 reads it."""
    try:
        values = np.asarray(dataset[()])
    except OSError as error:
        if "filter" in str(error) and "required" in str(error):  # libhdf5 was built without it
            raise UnsupportedError("a filter that this libhdf5 does not have") from error
        raise
    little = values.dtype.newbyteorder("<")
    return values.astype(little).tobytes(), little


def _check_type(dataset: h5py.Dataset, dtype: np.dtype[Any]) -> None:
    """The bytes in the file are the elements in memory, bit by bit."""
    if dtype.newbyteorder("<") != dtype:
        raise UnsupportedError("big-endian elements")
    if dataset.id.get_type() != h5py.h5t.py_create(dataset.dtype, logical=True):
        raise UnsupportedError(f"elements that are not plain {dtype}")


def _codecs(plist: Any) -> tuple[Codec, ...]:
    codecs = []
    for number in range(plist.get_nfilters()):
        code, _, values, name = plist.get_filter(number)
        known = _CODECS.get(code)
        if (
            known is None
            or (known == "shuffle" and (len(values) != 1 or values[0] == 0))
            or (known == "deflate" and (len(values) != 1 or values[0] > 9))
        ):
            raise UnsupportedError(f"filter {name.decode('ascii', 'replace') or code}")
        codecs.append(Codec(known, int(values[0]) if known == "shuffle" else 0))  # type: ignore[arg-type]
    return tuple(codecs)


def _fill(plist: Any, dtype: np.dtype[Any]) -> bytes:
    value = np.zeros((), dtype=dtype)
    if plist.fill_value_defined() != h5py.h5d.FILL_VALUE_UNDEFINED:
        plist.get_fill_value(value)
    return value.tobytes()


def _check_fill(plist: Any, n_missing: int) -> None:
    """What is missing reads as the fill value, unless the file says that nothing is ever filled in."""
    filled = (h5py.h5d.FILL_TIME_ALLOC, h5py.h5d.FILL_TIME_IFSET)
    undefined = plist.fill_value_defined() == h5py.h5d.FILL_VALUE_UNDEFINED
    if n_missing and (undefined or plist.get_fill_time() not in filled):
        raise UnsupportedError("unwritten parts without a fill value")
