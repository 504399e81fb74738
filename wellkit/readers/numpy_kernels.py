"""The same values as `wellkit.readers.kernels`, without numba: slower, and the reference that it is tested against."""

from __future__ import annotations

import numpy as np

_MODULUS = 65535


def normalize_into(values: np.ndarray, offset: np.ndarray, scale: np.ndarray, out: np.ndarray) -> None:
    """out = (values - offset) / scale, rounded to out's dtype after each step; `values` broadcast to `out`.

    Args:
        values: any number type, axes (space..., component).
        offset, scale: float32, axis (component).
        out: axes (space..., component).
    """
    with np.errstate(all="ignore"):  # as compiled code: what is infinite in the data is not worth a warning
        np.subtract(values, offset, out=out, casting="same_kind")
        np.divide(out, scale, out=out)


def difference(values: np.ndarray, before: np.ndarray) -> np.ndarray:
    """values - before, in their own dtype; in floating point where that has no negative numbers."""
    if values.dtype.kind in "ub":
        wide = np.result_type(values.dtype, np.float32)
        values, before = values.astype(wide), before.astype(wide)
    with np.errstate(all="ignore"):
        return np.asarray(values - before)


def unshuffle(source: np.ndarray, out: np.ndarray, size: int) -> None:
    """Undo HDF5's shuffle: byte b of element i lies at b * n + i. Bytes beyond the last whole element stay.

    Args:
        source, out: uint8, the same size.
        size: bytes of an element.
    """
    whole = source.size // size * size
    out[:whole].reshape(-1, size)[...] = source[:whole].reshape(size, -1).T
    out[whole:] = source[whole:]


def fletcher32(data: np.ndarray) -> int:
    """HDF5's Fletcher-32 of bytes (uint8), taken as big-endian 16-bit words, the last padded with a zero.

    From H5_checksum_fletcher32 of HDF5: sums that are multiples of 65535 without being zero are given as 65535.
    """
    padded = data if data.size % 2 == 0 else np.append(data, np.uint8(0))
    words = padded.view(">u2").astype(np.uint64)
    first = second = 0
    for start in range(0, words.size, 1 << 15):
        block = words[start : start + (1 << 15)]
        weights = np.arange(block.size, 0, -1, dtype=np.uint64)
        second = (second + first * block.size + int(np.dot(block, weights))) % _MODULUS
        first = (first + int(block.sum())) % _MODULUS
    if words.any():
        first, second = first or _MODULUS, second or _MODULUS
    return second << 16 | first
