"""Remote HDF5 shards through their index: headers and small arrays without a request, the rest by exact byte ranges.

Windows of fields are read faster still, a batch at a time, by the remote reader from the same index.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import product
from math import prod
from typing import Any, Protocol

import numpy as np

from wellkit.errors import FormatError, ShardError, WellkitWarning
from wellkit.fetch.ranges import ByteRange
from wellkit.index.file import ShardTable
from wellkit.index.model import MISSING, ArrayIndex, ShardIndex
from wellkit.readers import numpy_kernels
from wellkit.readers.hdf5 import Hdf5Reader
from wellkit.readers.inflate import decode_chunk
from wellkit.readers.remote import RemoteReader
from wellkit.readers.stored import TakeBuffer
from wellkit.storage import without_secrets

GAP = 64 << 10  # bytes between two runs that are fetched rather than asked for apart
_told: set[str] = set()  # arrays that libhdf5 reads, each told of once a process


class Ranges(Protocol):
    """What of `wellkit.fetch.ranges.RangeReader` is needed here."""

    def read(
        self, ranges: Sequence[ByteRange], into: Sequence[memoryview], done: Callable[[int], None] | None = None
    ) -> None:
        """Fill `into` with the bytes of `ranges`."""
        ...

    def size(self, location: str) -> int:
        """Bytes of a file."""
        ...


class RangedReader:
    """Arrays of one remote HDF5 shard. Picklable: plain data, and an index that all shards of a tree share.

    Args:
        location: the shard's address.
        table, path: where the shard's index stands: `table.find(path)`.
        ranges: fetches byte ranges; shared by the shards of a tree.
        storage_options: for arrays that only libhdf5 can read.
        is_checked: whether the file is known to have the size that was indexed; else it is asked for before the
            first read.
        windows: reads windows of the shards of the tree from the same ranges; None: one for this shard alone.

    Attributes:
        windows: the same.
    """

    def __init__(
        self,
        location: str,
        table: ShardTable,
        path: str,
        ranges: Ranges,
        storage_options: Mapping[str, Any] | None = None,
        *,
        is_checked: bool = True,
        windows: RemoteReader | None = None,
    ) -> None:
        self.location = location
        self._table, self._path = table, path
        self._ranges = ranges
        self.windows = windows if windows is not None else RemoteReader(ranges)
        self._storage_options = dict(storage_options or {})
        self._is_checked = is_checked
        self._index: ShardIndex | None = None
        self._known: dict[str, ArrayIndex] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_index": None, "_known": {}}  # a child finds them in the table

    @property
    def index(self) -> ShardIndex:
        """Where the shard's arrays lie."""
        if self._index is None:
            found = self._table.find(self._path)
            assert found is not None  # the table does not change
            self._index = found
        return self._index

    def array(self, name: str) -> ArrayIndex:
        """Where one array lies.

        Raises:
            FormatError: there is no array of that name.
            ShardError: the index is damaged, or the file is not the one that was indexed.
        """
        if name in self._known:
            return self._known[name]
        if not self._is_checked:
            size = self._ranges.size(self.location)
            if size != self.index.size:
                raise ShardError(
                    f"{without_secrets(self.location)}: has changed since it was indexed ({size} bytes, "
                    f"{self.index.size} were indexed); write its index again with `wellkit index`"
                )
            self._is_checked = True
        try:
            found = self.index.arrays[name]
        except KeyError:
            raise FormatError(f"{without_secrets(self.location)}: has no array {name!r}") from None
        _check_places(found, self.index.size, self.location)
        self._known[name] = found
        return found

    @contextmanager
    def root(self) -> Iterator[Any]:
        """The root group as the index knows it."""
        yield self.index.root()

    def read(self, name: str, selection: tuple[int | slice, ...] = ()) -> np.ndarray:
        """`selection` of the array at path `name`; a new array, see `Hdf5Reader.read`.

        Raises:
            FormatError: there is no array of that name.
            HubError, DataNotFoundError: the shard cannot be reached, or is gone.
            ShardError: its bytes cannot be decoded.
        """
        array = self.array(name)
        if array.layout == "inline":
            return np.array(array.inline_values()[selection])
        if array.layout == "fallback":
            return self._through_libhdf5(array, selection)
        whole = (*selection, *[slice(None)] * (len(array.shape) - len(selection)))
        cuts = [_cut(part, size, self.location, name) for part, size in zip(whole, array.shape, strict=True)]
        shape = tuple(len(cut) for cut in cuts)
        dtype = np.dtype(array.dtype)
        if array.layout == "missing" or 0 in shape:
            values = np.full(shape, np.frombuffer(array.fill, dtype)[0] if array.fill else 0, dtype)
        elif array.layout == "contiguous":
            values = self._contiguous(array, cuts, shape)
        else:
            values = self._chunked(array, cuts, shape)
        kept = tuple(slice(None) if isinstance(part, slice) else 0 for part in whole)
        native: np.ndarray = np.asarray(values[kept])
        return native if native.dtype.isnative else native.astype(native.dtype.newbyteorder("="))

    def _contiguous(self, array: ArrayIndex, cuts: list[range], shape: tuple[int, ...]) -> np.ndarray:
        """Runs of elements that lie side by side, from one range each or near ones together."""
        out = np.empty(shape, array.dtype)
        steps = [prod(array.shape[axis + 1 :]) * array.itemsize for axis in range(len(shape))]
        axis = len(shape)
        while axis > 0 and len(cuts[axis - 1]) == array.shape[axis - 1] and cuts[axis - 1].step == 1:
            axis -= 1
        if axis > 0 and cuts[axis - 1].step == 1:
            axis -= 1  # a part of this axis still lies side by side
        run = prod(shape[axis:]) * array.itemsize
        starts = np.zeros(1, np.int64)
        for cut, step in zip(cuts[:axis], steps[:axis], strict=True):
            starts = (starts[:, None] + np.arange(cut.start, cut.stop, cut.step, dtype=np.int64) * step).reshape(-1)
        first = sum(cut.start * step for cut, step in zip(cuts[axis:], steps[axis:], strict=True))
        starts += array.offset + first
        target = out.reshape(-1).view(np.uint8).data
        self._fetch([(int(start), run, target[i * run : (i + 1) * run]) for i, start in enumerate(starts)])
        return out

    def _chunked(self, array: ArrayIndex, cuts: list[range], shape: tuple[int, ...]) -> np.ndarray:
        out = np.empty(shape, array.dtype)
        boxes = list(product(*(_cells(cut, size) for cut, size in zip(cuts, array.chunk_shape, strict=True))))
        numbers = [array.chunk_number(tuple(cell for cell, _, _ in box)) for box in boxes]
        stored = {
            number: np.empty(int(array.sizes[number]), np.uint8)
            for number in numbers
            if array.offsets[number] != MISSING
        }
        self._fetch([(int(array.offsets[number]), content.size, content.data) for number, content in stored.items()])
        for box, number in zip(boxes, numbers, strict=True):
            file = _Fetched(without_secrets(self.location), stored.get(number))
            data = decode_chunk(file, array, number, numpy_kernels, lambda size: np.empty(size, np.uint8))
            chunk = data.view(array.dtype).reshape(array.chunk_shape)
            out[tuple(target for _, _, target in box)] = chunk[tuple(source for _, source, _ in box)]
        return out

    def _fetch(self, wanted: Sequence[tuple[int, int, memoryview]]) -> None:
        """Fill each memory with so many bytes from there; near ones are asked for together."""
        groups: list[list[tuple[int, int, memoryview]]] = []
        end = 0  # of the last group; chunks and runs do not overlap
        for part in sorted(wanted, key=lambda part: part[0]):
            if groups and part[0] <= end + GAP:
                groups[-1].append(part)
            else:
                groups.append([part])
            end = part[0] + part[1]
        ranges, into = [], []
        for group in groups:
            stop = max(start + size for start, size, _ in group)
            ranges.append(ByteRange(self.location, group[0][0], stop))
            into.append(group[0][2] if len(group) == 1 else memoryview(bytearray(stop - group[0][0])))
        self._ranges.read(ranges, into)
        for group, whole, buffer in zip(groups, ranges, into, strict=True):
            if len(group) > 1:
                for start, size, memory in group:
                    memory[:] = buffer[start - whole.start : start - whole.start + size]

    def _through_libhdf5(self, array: ArrayIndex, selection: tuple[int | slice, ...]) -> np.ndarray:
        if array.name not in _told:
            _told.add(array.name)
            warnings.warn(
                f"{without_secrets(self.location)}: array {array.name} has {array.reason} and is read through libhdf5, "
                "which is slow over the network; download the dataset to read it often",
                WellkitWarning,
                stacklevel=3,
            )
        return Hdf5Reader(self.location, self._storage_options).read(array.name, selection)

    def close(self) -> None:
        """Let go of what this process holds open."""
        Hdf5Reader(self.location, self._storage_options).close()


class _Fetched:
    """The stored bytes of one chunk, as `decode_chunk` wants them."""

    advice = "its index or the file is wrong: write the index again with `wellkit index`, or download the shard"

    def __init__(self, path: str, content: np.ndarray | None) -> None:
        self.path = path
        self._content = content

    def stored(self, offset: int, nbytes: int, take: TakeBuffer) -> np.ndarray:
        """The bytes there are."""
        assert self._content is not None
        return self._content


def _check_places(array: ArrayIndex, size: int, location: str) -> None:
    """An index can be anybody's: no byte outside the file is asked for."""
    if array.layout == "contiguous":
        inside = 0 <= array.offset <= size - array.nbytes
    elif array.layout == "chunked":
        present = array.offsets != MISSING
        ends = array.offsets + array.sizes
        inside = not np.any(present & ((array.offsets < 0) | (array.sizes <= 0) | (ends > size)))
    else:
        inside = True
    if not inside:
        raise ShardError(
            f"{without_secrets(location)}: the index places parts of {array.name} outside the file of {size} bytes; it "
            "is wrong, write it again with `wellkit index`"
        )


def _cut(part: int | slice, size: int, location: str, name: str) -> range:
    """The indices that a part of a selection takes along an axis."""
    if isinstance(part, slice):
        return range(size)[part]
    if not -size <= part < size:
        raise FormatError(f"{without_secrets(location)}: {name} has no index {part} along an axis of {size}")
    return range(part % size, part % size + 1)


def _cells(cut: range, chunk: int) -> list[tuple[int, slice, slice]]:
    """(chunk along the axis, what of it, where that goes) for all chunks that hold indices of `cut` (positive step)."""
    found = []
    first = 0
    while first < len(cut):
        cell = cut[first] // chunk
        stop = min(len(cut), first + -(-((cell + 1) * chunk - cut[first]) // cut.step))
        low = cut[first] - cell * chunk
        found.append((cell, slice(low, cut[stop - 1] - cell * chunk + 1, cut.step), slice(first, stop)))
        first = stop
    return found
