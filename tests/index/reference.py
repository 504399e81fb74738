"""Reading arrays through an index in the plainest way, and files with every kind of storage to read them from."""

from __future__ import annotations

import itertools
import zlib
from math import prod
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from wellkit.index.model import ArrayIndex, Codec


def read(index: ArrayIndex, path: Path) -> np.ndarray:
    """The whole array; ValueError or zlib.error where the bytes are damaged."""
    if index.layout == "inline":
        return index.inline_values()
    dtype = np.dtype(index.dtype)
    if index.layout == "fallback":
        raise AssertionError(f"{index.name}: {index.reason}")
    values = np.empty(index.shape, dtype=dtype)
    values[...] = np.frombuffer(index.fill, dtype=dtype)[0]
    if index.layout == "missing":
        return values
    content = path.read_bytes()
    if index.layout == "contiguous":
        stored = content[index.offset : index.offset + index.nbytes]
        return np.frombuffer(stored, dtype=dtype).reshape(index.shape)
    for cell in itertools.product(*(range(count) for count in index.grid)):
        number = index.chunk_number(cell)
        offset, size = int(index.offsets[number]), int(index.sizes[number])
        if offset < 0:
            continue
        mask = 0 if index.filter_masks is None else int(index.filter_masks[number])
        chunk = np.frombuffer(decode(content[offset : offset + size], index.codecs, mask), dtype=dtype)
        if chunk.size != prod(index.chunk_shape):
            raise ValueError(f"a chunk of {chunk.size} elements")
        place = tuple(slice(i * step, (i + 1) * step) for i, step in zip(cell, index.chunk_shape, strict=True))
        target = values[place]
        target[...] = chunk.reshape(index.chunk_shape)[tuple(slice(0, size) for size in target.shape)]
    return values


def decode(stored: bytes, codecs: tuple[Codec, ...], mask: int) -> bytes:
    """Undo the codecs, the last one first."""
    for number, codec in reversed(list(enumerate(codecs))):
        if mask >> number & 1:
            continue
        if codec.name == "deflate":
            stored = zlib.decompress(stored)
        elif codec.name == "shuffle":
            whole = len(stored) // codec.element_size * codec.element_size
            turned = np.frombuffer(stored[:whole], dtype=np.uint8).reshape(codec.element_size, -1).T
            stored = turned.tobytes() + stored[whole:]
        else:
            stored, found = stored[:-4], int.from_bytes(stored[-4:], "little")
            if fletcher32(stored) != found:
                raise ValueError("a wrong checksum")
    return stored


def fletcher32(content: bytes) -> int:
    """HDF5's: over big-endian 16-bit words, sums modulo 65535 where a sum that is not empty is never written as 0."""
    words = np.frombuffer(content + b"\0" * (len(content) % 2), dtype=">u2").astype(object)
    first = int(words.sum()) if len(words) else 0
    second = int((words * np.arange(len(words), 0, -1, dtype=object)).sum()) if len(words) else 0

    def fold(total: int) -> int:
        return (total - 1) % 65535 + 1 if total else 0

    return fold(second) << 16 | fold(first)


def create(
    file: h5py.File,
    name: str,
    shape: tuple[int, ...],
    dtype: str,
    *,
    chunks: tuple[int, ...] | None = None,
    filters: tuple[str, ...] = (),
    fill: Any = None,
    compact: bool = False,
    resizable: bool = False,
    fill_time: int | None = None,
) -> h5py.Dataset:
    """An array with its filters in the given order, which h5py's own interface does not choose."""
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    if chunks is not None:
        properties.set_chunk(chunks)
    if compact:
        properties.set_layout(h5py.h5d.COMPACT)
    for codec in filters:
        {
            "shuffle": properties.set_shuffle,
            "deflate": lambda: properties.set_deflate(4),
            "fletcher32": properties.set_fletcher32,
        }[codec]()
    if fill is not None:
        properties.set_fill_value(np.array(fill, dtype=dtype))
    if fill_time is not None:
        properties.set_fill_time(fill_time)
    limits = (h5py.h5s.UNLIMITED,) * len(shape) if resizable else shape
    space = h5py.h5s.create_simple(shape, limits) if shape else h5py.h5s.create(h5py.h5s.SCALAR)
    kind = h5py.h5t.py_create(np.dtype(dtype), logical=True)
    return h5py.Dataset(h5py.h5d.create(file.id, name.encode(), kind, space, properties))
