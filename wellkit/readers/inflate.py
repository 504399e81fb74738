"""One chunk, from its bytes in the file to its elements."""

from __future__ import annotations

import ctypes
import sys
import threading
from collections.abc import Callable
from functools import lru_cache
from types import ModuleType
from typing import NamedTuple

import numpy as np
from deflate import DeflateError, zlib_decompress

from wellkit.errors import ShardError
from wellkit.index.model import MISSING, ArrayIndex, ChunkFiles, Codec
from wellkit.readers.codecs import DECODERS
from wellkit.readers.descriptors import DAMAGED
from wellkit.readers.stored import StoredFile, TakeBuffer

_CHECKSUM = 4  # bytes
_CHECKSUMS = ("fletcher32", "crc32c")
_COMPRESSORS = ("deflate", "gzip", "zstd", "blosc")
_KEPT = 8 << 20  # bytes of a thread's scratch that it keeps


class _Scratch(threading.local):
    """Memory of each thread for a chunk's stored bytes."""

    buffer = np.empty(0, np.uint8)

    def take(self, size: int) -> np.ndarray:
        if size > _KEPT:
            return np.empty(size, np.uint8)
        if self.buffer.size < size:
            self.buffer = np.empty(min(_KEPT, 2 * size), np.uint8)
        return self.buffer[:size]


_SCRATCH = _Scratch()


class Libdeflate(NamedTuple):
    """libdeflate's own functions, for compiled code.

    Attributes:
        inflate: address of `libdeflate_zlib_decompress`.
        allocate: makes a decompressor, of use to one thread at a time, and returns its address; None without memory.
        free: ends one.
    """

    inflate: int
    allocate: Callable[[], int | None]
    free: Callable[[int], None]


@lru_cache(maxsize=1)
def libdeflate() -> Libdeflate | None:
    """None where the library that the package `deflate` brings along does not show its functions, as on Windows."""
    try:
        library = ctypes.CDLL(sys.modules[zlib_decompress.__module__].__file__)
        inflate = library.libdeflate_zlib_decompress
        allocate, free = library.libdeflate_alloc_decompressor, library.libdeflate_free_decompressor
    except (OSError, AttributeError, KeyError):
        return None
    allocate.argtypes, allocate.restype = [], ctypes.c_void_p
    free.argtypes, free.restype = [ctypes.c_void_p], None
    address = ctypes.cast(inflate, ctypes.c_void_p).value
    return None if address is None else Libdeflate(address, allocate, free)


class _BadChunkError(Exception):
    """Why a chunk cannot be decoded."""


def decode_chunk(file: StoredFile, array: ArrayIndex, number: int, kernels: ModuleType, take: TakeBuffer) -> np.ndarray:
    """Chunk `number` of `array`, decoded: uint8, its elements in C order, as stored in memory order.

    Args:
        file: the shard.
        kernels: `wellkit.readers.kernels` or `numpy_kernels`.
        take: gives the buffer of the result, where it is not one that a library made.

    Raises:
        ShardError: the file ends before the chunk does, a checksum does not match, or the decoded size is wrong;
            names the file, the array and the chunk.
    """
    place, size = int(array.offsets[number]), int(array.sizes[number])
    if place == MISSING:
        return np.tile(np.frombuffer(array.fill, np.uint8), array.chunk_nbytes // array.itemsize)
    mask = 0 if array.filter_masks is None else int(array.filter_masks[number])
    codecs = [codec for bit, codec in enumerate(array.codecs) if not mask >> bit & 1]
    data = file.stored(place, size, _SCRATCH.take if _moves(codecs) else take)
    try:
        return _undo_all(codecs, data, array.chunk_nbytes, kernels, take)
    except _BadChunkError as error:
        raise ShardError(
            f"{file.path}: chunk {number} of array {array.name!r} at byte {place} cannot be decoded ({error}); "
            f"{file.advice}"
        ) from error.__cause__


def decode_apart(
    files: ChunkFiles, array: ArrayIndex, number: int, kernels: ModuleType, take: TakeBuffer
) -> np.ndarray:
    """As `decode_chunk`, of an array whose chunks lie in files of their own. Raises DataNotFoundError too."""
    codecs = list(array.codecs)
    limit = _largest(array.chunk_nbytes, codecs)
    data = files.stored(number, limit, _SCRATCH.take if _moves(codecs) else take)
    if data is None:
        return np.tile(np.frombuffer(array.fill, np.uint8), array.chunk_nbytes // array.itemsize)
    try:
        return _undo_all(codecs, data, array.chunk_nbytes, kernels, take)
    except _BadChunkError as error:
        raise ShardError(
            f"{files.describe(number)}: chunk {number} of array {array.name!r} cannot be decoded ({error}); {DAMAGED}"
        ) from error.__cause__


def _moves(codecs: list[Codec]) -> bool:
    """Whether what is decoded lies elsewhere than what was stored."""
    return any(codec.name not in _CHECKSUMS for codec in codecs)


def _undo_all(codecs: list[Codec], data: np.ndarray, nbytes: int, kernels: ModuleType, take: TakeBuffer) -> np.ndarray:
    while codecs:
        codec = codecs.pop()
        data = _undo(codec, data, _largest(nbytes, codecs), kernels, take)
    if data.size != nbytes:
        raise _BadChunkError(f"it decodes to {data.size} bytes, not {nbytes}")
    return data


def _largest(nbytes: int, left: list[Codec]) -> int:
    """Bytes that codecs still to be undone can start from, at most."""
    if any(codec.name in _COMPRESSORS for codec in left):
        return 2 * nbytes + (1 << 16)
    return nbytes + _CHECKSUM * sum(codec.name in _CHECKSUMS for codec in left)


def _undo(codec: Codec, data: np.ndarray, limit: int, kernels: ModuleType, take: TakeBuffer) -> np.ndarray:
    if codec.name == "deflate":
        return _inflate(data, limit)
    if codec.name == "fletcher32":
        return _verified(data, kernels)
    if codec.name != "shuffle":
        try:
            return DECODERS[codec.name](data, limit, take)
        except ValueError as error:
            raise _BadChunkError(str(error)) from error
    if codec.element_size < 1:
        raise _BadChunkError(f"shuffle of {codec.element_size}-byte elements")
    out = take(data.size)
    kernels.unshuffle(data, out, codec.element_size)
    return out


def _inflate(data: np.ndarray, limit: int) -> np.ndarray:
    """At most `limit` bytes: a damaged chunk must not fill the memory. By libdeflate, without the interpreter lock."""
    try:
        return np.frombuffer(zlib_decompress(data.data, limit), np.uint8)
    except DeflateError as error:
        raise _BadChunkError(f"deflate: the stream is damaged, or holds more than {limit} bytes") from error


def _verified(data: np.ndarray, kernels: ModuleType) -> np.ndarray:
    """Without its checksum, which must match."""
    if data.size < _CHECKSUM:
        raise _BadChunkError(f"{data.size} bytes hold no checksum")
    content, stored = data[:-_CHECKSUM], int.from_bytes(data[-_CHECKSUM:].tobytes(), "little")
    found = int(kernels.fletcher32(content))
    # Old libraries stored the checksum with the bytes of each half exchanged; HDF5 accepts both.
    exchanged = (found & 0x00FF00FF) << 8 | (found & 0xFF00FF00) >> 8
    if stored not in (found, exchanged):
        raise _BadChunkError(f"its checksum is {found:08x}, stored is {stored:08x}")
    return content
