"""Chunk tables as libhdf5 tells them: read in one pass, and refused where they cannot be true."""

from __future__ import annotations

from math import prod
from typing import Any

import h5py
import numpy as np

from wellkit.errors import ShardError
from wellkit.index.model import MISSING, Codec
from wellkit.index.source import ShardSource, read

MAX_CHUNKS = 1 << 26  # larger grids than this take longer to index than libhdf5 takes to read them
MAX_CHUNK_BYTES = (1 << 32) - 1  # the format's own limit before HDF5 2.0
MAX_DEFLATE_RATIO = 1100  # deflate cannot do better than 1032 to 1
_PROBES = 8
_DAMAGED = "the file is damaged"


class UnsupportedError(Exception):
    """An array that only libhdf5 can read; says why."""


class ChunkTable:
    """Offsets, sizes and filter masks of one array's chunks, axes (chunk) in C order over the grid."""

    def __init__(self, offsets: np.ndarray, sizes: np.ndarray, masks: np.ndarray | None) -> None:
        self.offsets = offsets
        self.sizes = sizes
        self.masks = masks

    @property
    def n_missing(self) -> int:
        """Chunks of the grid that were never written."""
        return int(np.count_nonzero(self.offsets == MISSING))


def read_chunk_table(
    dataset: h5py.Dataset, codecs: tuple[Codec, ...], source: ShardSource, user_block: int
) -> ChunkTable:
    """The chunk table of an array, one call of libhdf5 for all chunks.

    Args:
        codecs: its filter pipeline.
        source: the file.
        user_block: bytes before the HDF5 superblock.

    Raises:
        ShardError: the table contradicts itself, the array or the file.
        UnsupportedError: the table is right, but cannot be used without libhdf5.
    """
    shape, chunk = dataset.shape, dataset.chunks
    grid = tuple(-(-size // step) for size, step in zip(shape, chunk, strict=True))
    nbytes = prod(chunk) * dataset.dtype.itemsize
    count = prod(grid)
    if nbytes > MAX_CHUNK_BYTES:
        raise UnsupportedError(f"chunks of {nbytes} bytes")
    if count > MAX_CHUNKS:
        raise UnsupportedError(f"a grid of {count} chunks")
    rows = _rows(dataset, count)
    positions, places = rows[:, : len(shape)], rows[:, len(shape) :]
    numbers = _numbers(dataset, positions, chunk, grid)
    masks, offsets, sizes = places[:, 0], places[:, 1], places[:, 2]
    _check_places(dataset, positions, offsets, sizes, masks, codecs, nbytes, source.size)
    if user_block and len(rows):
        _check_user_block(dataset, positions[0], int(offsets[0]), int(sizes[0]), source)
    table = ChunkTable(np.full(count, MISSING, dtype=np.int64), np.zeros(count, dtype=np.int64), None)
    table.offsets[numbers] = offsets
    table.sizes[numbers] = sizes
    if codecs and _edges_unfiltered(dataset, positions, offsets, sizes, masks, codecs, nbytes, source):
        masks = np.where(_at_edge(dataset, positions), (1 << len(codecs)) - 1, masks)
    if np.any(masks):
        table.masks = np.zeros(count, dtype=np.uint32)
        table.masks[numbers] = masks
    return table


def _rows(dataset: h5py.Dataset, count: int) -> np.ndarray:
    """int64, axes (chunk, what): its first element's index along each axis, filter mask, offset, size."""
    numbers: list[int] = []
    width = len(dataset.shape) + 3

    def note(info: Any) -> bool | None:
        numbers.extend(info[0])
        numbers.extend(info[1:])
        return True if len(numbers) > width * count else None  # anything but None ends the iteration

    dataset.id.chunk_iter(note)
    if len(numbers) > width * count:
        raise ShardError(f"lists more chunks than its grid of {count} holds; {_DAMAGED}")
    try:
        return np.array(numbers, dtype=np.int64).reshape(-1, width)
    except OverflowError as error:
        raise ShardError(f"places a chunk beyond any file's end; {_DAMAGED}") from error


def _numbers(dataset: h5py.Dataset, positions: np.ndarray, chunk: tuple[int, ...], grid: tuple[int, ...]) -> np.ndarray:
    """Where in the C order of the grid each chunk stands."""
    cells, rest = np.divmod(positions, np.array(chunk, dtype=np.int64))
    if np.any(rest) or np.any(cells < 0) or np.any(cells >= np.array(grid, dtype=np.int64)):
        raise ShardError(f"has a chunk outside its grid; {_DAMAGED}")
    numbers = np.ravel_multi_index(tuple(cells.T), grid) if len(cells) else np.empty(0, dtype=np.int64)
    if np.unique(numbers).size != numbers.size:
        raise ShardError(f"has two chunks in one place; {_DAMAGED}")
    return np.asarray(numbers, dtype=np.int64)


def _check_places(
    dataset: h5py.Dataset,
    positions: np.ndarray,
    offsets: np.ndarray,
    sizes: np.ndarray,
    masks: np.ndarray,
    codecs: tuple[Codec, ...],
    nbytes: int,
    file_size: int,
) -> None:
    """Every chunk lies in the file and has a size that its codecs can have made."""
    wrong = (offsets < 0) | (sizes <= 0) | (sizes > file_size) | (offsets > file_size - sizes)
    if np.any(wrong):
        row = int(np.argmax(wrong))
        raise ShardError(
            f"chunk at {tuple(positions[row].tolist())} lies at byte {offsets[row]}, {sizes[row]} bytes long, in a "
            f"file of {file_size} bytes; {_DAMAGED}"
        )
    used = [(masks >> number) & 1 == 0 for number in range(len(codecs))]
    deflates = sum(
        (on.astype(np.int64) for codec, on in zip(codecs, used, strict=True) if codec.name == "deflate"),
        start=np.zeros(len(sizes), dtype=np.int64),
    )
    added = sum(
        (4 * on.astype(np.int64) for codec, on in zip(codecs, used, strict=True) if codec.name == "fletcher32"),
        start=np.zeros(len(sizes), dtype=np.int64),
    )
    # Edge chunks may be stored without their filters (see _edges_unfiltered): the plain size is always possible.
    exact = (sizes == nbytes + added) | (sizes == nbytes)
    wrong = np.where(deflates > 0, sizes * float(MAX_DEFLATE_RATIO) ** deflates < nbytes, ~exact)
    if np.any(wrong):
        row = int(np.argmax(wrong))
        raise ShardError(
            f"chunk at {tuple(positions[row].tolist())} has {sizes[row]} bytes, which cannot hold the {nbytes} bytes "
            f"of a chunk; {_DAMAGED}"
        )


def _check_user_block(dataset: h5py.Dataset, position: np.ndarray, offset: int, size: int, source: ShardSource) -> None:
    """Some versions of libhdf5 count a chunk's offset from behind the user block: see which one this is."""
    _, stored = dataset.id.read_direct_chunk(tuple(position.tolist()))
    if read(source, size, offset) != bytes(stored):
        raise UnsupportedError("a user block, with which this libhdf5 does not tell offsets in the file")


def _at_edge(dataset: h5py.Dataset, positions: np.ndarray) -> np.ndarray:
    """Which chunks reach beyond the array, bool, axes (chunk)."""
    return np.asarray(np.any(positions + np.array(dataset.chunks) > np.array(dataset.shape), axis=1))


def _edges_unfiltered(
    dataset: h5py.Dataset,
    positions: np.ndarray,
    offsets: np.ndarray,
    sizes: np.ndarray,
    masks: np.ndarray,
    codecs: tuple[Codec, ...],
    nbytes: int,
    source: ShardSource,
) -> bool:
    """Whether chunks that reach beyond the array are stored without their filters.

    HDF5 has such a property (H5D_CHUNK_DONT_FILTER_PARTIAL_CHUNKS) that neither h5py nor a chunk's filter mask shows.
    Only a chunk of exactly the plain size can be meant; such chunks are compared with what libhdf5 reads.

    Raises:
        UnsupportedError: the chunks read the same both ways, so that others may not.
    """
    candidates = np.flatnonzero(_at_edge(dataset, positions) & (masks == 0) & (sizes == nbytes))
    if all(codec == ("shuffle", 1) for codec in codecs):
        return False  # shuffling bytes changes nothing
    for row in candidates[:_PROBES]:
        position = positions[row].tolist()
        inside = tuple(
            slice(0, min(step, size - first))
            for first, step, size in zip(position, dataset.chunks, dataset.shape, strict=True)
        )
        expected = dataset[tuple(slice(first, first + cut.stop) for first, cut in zip(position, inside, strict=True))]
        raw = np.frombuffer(read(source, nbytes, int(offsets[row])), dtype=np.uint8)
        plain = _equal(raw, dataset, inside, expected)
        if not plain or any(codec.name != "shuffle" for codec in codecs):
            return plain
        for codec in reversed(codecs):
            raw = _unshuffle(raw, codec.element_size)
        if not _equal(raw, dataset, inside, expected):
            return True
    if len(candidates):
        raise UnsupportedError("edge chunks that may be stored with or without shuffle")
    return False


def _equal(raw: np.ndarray, dataset: h5py.Dataset, inside: tuple[slice, ...], expected: np.ndarray) -> bool:
    values: np.ndarray = raw.view(dataset.dtype).reshape(dataset.chunks)[inside]
    return values.tobytes() == expected.tobytes()


def _unshuffle(raw: np.ndarray, element_size: int) -> np.ndarray:
    whole = raw.size // element_size * element_size
    return np.concatenate([raw[:whole].reshape(element_size, -1).T.reshape(-1), raw[whole:]])


def check_overlaps(extents: list[tuple[np.ndarray, np.ndarray]]) -> None:
    """No two pieces of storage share a byte.

    Args:
        extents: (offsets, sizes) of distinct arrays; offsets of `MISSING` are skipped.

    Raises:
        ShardError: two do.
    """
    if not extents:
        return
    starts = np.concatenate([offsets for offsets, _ in extents])
    sizes = np.concatenate([lengths for _, lengths in extents])
    present = starts != MISSING
    starts, sizes = starts[present], sizes[present]
    order = np.argsort(starts, kind="stable")
    starts, ends = starts[order], starts[order] + sizes[order]
    shared = starts[1:] < ends[:-1]
    if np.any(shared):
        row = int(np.argmax(shared))
        raise ShardError(f"two chunks share the bytes from {starts[row + 1]}; {_DAMAGED}")
