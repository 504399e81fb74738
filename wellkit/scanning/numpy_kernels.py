"""The pass over frames without numba, and of elements other than float32: the same numbers, more slowly."""

from __future__ import annotations

import numpy as np

from wellkit.scanning.columns import (
    CHANGED,
    COUNT,
    DELTA_COUNT,
    DELTA_SQUARES,
    DELTA_SUM,
    HIGHEST,
    INFINITE,
    KEYS,
    LOWEST,
    NAN,
    NEW_NAN,
    SQUARES,
    SUM,
    ZERO,
)

_MASK = (1 << 64) - 1


def scan(
    block: np.ndarray,
    before: np.ndarray,
    has_before: bool,
    start: int,
    components: int,
    keys: np.ndarray,
    shifts: np.ndarray,
    hashes: np.ndarray,
    counts: np.ndarray,
    moments: np.ndarray,
) -> None:
    """Add what there is to know of some frames, or of the same part of each.

    Args:
        block: axes (frame, value); the components of a point lie side by side, and parts begin with a whole point.
        before: axis (value): the same part of the frame before; of no matter where there is none.
        start: values of each frame that lie before this part of it.
        keys: as `columns.hash_keys` makes them.
        shifts: float64, axes (frame, 2, component), zeros: what is taken off values and differences before they are
            summed goes there.
        hashes: uint64, axis (frame): grows.
        counts: int64, axes (frame, column): grow; see `columns`.
        moments: float64, axes (frame, component, column): grow, or widen.
    """
    old = before
    for frame, values in enumerate(block):
        words, per_value = _words(values)
        hashes[frame] = int(hashes[frame]) + _hash(words, start * per_value, keys) & _MASK
        x = values.reshape(-1, components).astype(np.float64)
        finite = np.isfinite(x)
        counts[frame, NAN] += int(np.isnan(x).sum())
        counts[frame, INFINITE] += int(np.isinf(x).sum())
        counts[frame, ZERO] += int((x == 0).sum())
        out = moments[frame]
        shifts[frame, 0] = _first(x, finite)
        present = np.where(finite, np.where(finite, x, 0.0) - shifts[frame, 0], 0.0)
        out[:, COUNT] += finite.sum(axis=0)
        out[:, SUM] += present.sum(axis=0)
        out[:, SQUARES] += (present * present).sum(axis=0)
        out[:, LOWEST] = np.minimum(out[:, LOWEST], np.min(x, axis=0, where=finite, initial=np.inf))
        out[:, HIGHEST] = np.maximum(out[:, HIGHEST], np.max(x, axis=0, where=finite, initial=-np.inf))
        counts[frame, CHANGED] += int((_bits(values) != _bits(old)).sum())
        if has_before or frame > 0:
            y = old.reshape(-1, components).astype(np.float64)
            counts[frame, NEW_NAN] += int((np.isnan(x) & ~np.isnan(y)).sum())
            both = finite & np.isfinite(y)
            difference = np.where(both, x, 0.0) - np.where(both, y, 0.0)
            shifts[frame, 1] = _first(difference, both)
            difference = np.where(both, difference - shifts[frame, 1], 0.0)
            out[:, DELTA_COUNT] += both.sum(axis=0)
            out[:, DELTA_SUM] += difference.sum(axis=0)
            out[:, DELTA_SQUARES] += (difference * difference).sum(axis=0)
        old = values


def _first(values: np.ndarray, present: np.ndarray) -> np.ndarray:
    """The first present value of each column, 0 where there is none."""
    at = np.argmax(present, axis=0)
    columns = np.arange(values.shape[1])
    return np.where(present[at, columns], values[at, columns], 0.0)


def _bits(values: np.ndarray) -> np.ndarray:
    return values.view(f"u{values.dtype.itemsize}")


def _words(values: np.ndarray) -> tuple[np.ndarray, int]:
    """(the values' bits as uint32, words a value)."""
    bits = _bits(values)
    return (bits.view(np.uint32), 2) if bits.itemsize == 8 else (bits.astype(np.uint32, copy=False), 1)


def _weight(number: int) -> int:
    z = (number + 1) * 0x9E3779B97F4A7C15 & _MASK
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & _MASK
    z = (z ^ z >> 27) * 0x94D049BB133111EB & _MASK
    return (z ^ z >> 31) | 1


def _hash(words: np.ndarray, start: int, keys: np.ndarray) -> int:
    total, at = 0, 0
    while at < words.size:
        block, inside = divmod(start + at, KEYS)
        size = min(KEYS - inside, words.size - at)
        part = words[at : at + size]
        turned = (part << np.uint32(16)) | (part >> np.uint32(16))
        products = turned.astype(np.uint64) * keys[inside : inside + size]  # wraps around, as it should
        total += int(products.sum(dtype=np.uint64)) * _weight(block)
        at += size
    return total & _MASK
