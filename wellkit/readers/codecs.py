"""Codecs of Zarr chunks, undone without the interpreter lock by the libraries that numcodecs brings along.

Each decoder takes what is stored, the most bytes that may come out, and what gives memory; it raises ValueError saying
what is wrong with the bytes. Nothing is written beyond the memory that was given, whatever the bytes are.
"""

from __future__ import annotations

import ctypes
import importlib
import threading
from collections.abc import Callable, Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Any

import numpy as np
from deflate import DeflateError, gzip_decompress

from wellkit.readers.stored import TakeBuffer

_CRC = 4  # bytes
_BLOSC_HEADER = 16  # bytes


@lru_cache(maxsize=1)
def _zstd_library() -> Any:
    library = ctypes.CDLL(importlib.import_module("numcodecs.zstd").__file__ or "")
    word, pointer = ctypes.c_size_t, ctypes.c_void_p
    library.ZSTD_createDCtx.argtypes, library.ZSTD_createDCtx.restype = [], pointer
    library.ZSTD_freeDCtx.argtypes, library.ZSTD_freeDCtx.restype = [pointer], word
    library.ZSTD_decompressDCtx.argtypes = [pointer, pointer, word, pointer, word]
    library.ZSTD_decompressDCtx.restype = word
    library.ZSTD_isError.argtypes, library.ZSTD_isError.restype = [word], ctypes.c_uint
    library.ZSTD_getErrorName.argtypes, library.ZSTD_getErrorName.restype = [word], ctypes.c_char_p
    return library


@lru_cache(maxsize=1)
def _blosc_library() -> Any:
    library = ctypes.CDLL(importlib.import_module("numcodecs.blosc").__file__ or "")
    word, pointer = ctypes.c_size_t, ctypes.c_void_p
    library.blosc_cbuffer_validate.argtypes = [pointer, word, ctypes.POINTER(word)]
    library.blosc_cbuffer_validate.restype = ctypes.c_int
    library.blosc_decompress_ctx.argtypes = [pointer, pointer, word, ctypes.c_int]
    library.blosc_decompress_ctx.restype = ctypes.c_int
    return library


class _Context:
    """What zstd works with; no two threads may use it at a time."""

    def __init__(self) -> None:
        library = _zstd_library()
        self._free = library.ZSTD_freeDCtx
        self.address = library.ZSTD_createDCtx()
        if not self.address:
            raise MemoryError("no memory for a decompressor")

    def __del__(self) -> None:
        if getattr(self, "address", None):
            self._free(self.address)


class _Contexts(threading.local):
    context: _Context | None = None

    def address(self) -> int:
        if self.context is None:
            self.context = _Context()
        return int(self.context.address)


_CONTEXTS = _Contexts()


def _zstd(data: np.ndarray, limit: int, take: TakeBuffer) -> np.ndarray:
    library = _zstd_library()
    out = take(limit)
    size = library.ZSTD_decompressDCtx(_CONTEXTS.address(), out.ctypes.data, limit, data.ctypes.data, data.size)
    if library.ZSTD_isError(size):
        raise ValueError(f"zstd: {library.ZSTD_getErrorName(size).decode()}")
    return out if size == limit else out[:size]


def _blosc(data: np.ndarray, limit: int, take: TakeBuffer) -> np.ndarray:
    library = _blosc_library()
    size = ctypes.c_size_t()
    if data.size < _BLOSC_HEADER or library.blosc_cbuffer_validate(data.ctypes.data, data.size, ctypes.byref(size)) < 0:
        raise ValueError(f"blosc: {data.size} bytes are not as many as it says, or it is damaged")
    if size.value > limit:
        raise ValueError(f"blosc: it holds {size.value} bytes, more than {limit}")
    out = take(limit)
    found = library.blosc_decompress_ctx(data.ctypes.data, out.ctypes.data, limit, 1)
    if found != size.value:
        raise ValueError("blosc: it is damaged")
    return out if found == limit else out[:found]


def _gzip(data: np.ndarray, limit: int, take: TakeBuffer) -> np.ndarray:
    try:
        return np.frombuffer(gzip_decompress(data.data, limit), np.uint8)
    except DeflateError as error:
        raise ValueError(f"gzip: the stream is damaged, or holds more than {limit} bytes") from error


def crc32c(data: np.ndarray) -> int:
    """The checksum of bytes. Raises ImportError where no library can tell, see `available`."""
    return int(importlib.import_module("google_crc32c").value(data.tobytes()))


def _checked(data: np.ndarray, limit: int, take: TakeBuffer) -> np.ndarray:
    if data.size < _CRC:
        raise ValueError(f"{data.size} bytes hold no checksum")
    content, stored = data[:-_CRC], int.from_bytes(data[-_CRC:].tobytes(), "little")
    found = crc32c(content)
    if found != stored:
        raise ValueError(f"its checksum is {found:08x}, stored is {stored:08x}")
    return content


Decoder = Callable[[np.ndarray, int, TakeBuffer], np.ndarray]
DECODERS: Mapping[str, Decoder] = MappingProxyType({"zstd": _zstd, "blosc": _blosc, "gzip": _gzip, "crc32c": _checked})


@lru_cache(maxsize=8)
def available(name: str) -> bool:
    """Whether a codec can be undone here: its library is there, with the functions that are needed."""
    try:
        if name == "zstd":
            _zstd_library()
        elif name == "blosc":
            _blosc_library()
        elif name == "crc32c":
            crc32c(np.empty(0, np.uint8))
    except (ImportError, OSError, AttributeError):
        return False
    return name in DECODERS or name in ("deflate", "shuffle")
