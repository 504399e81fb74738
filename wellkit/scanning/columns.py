"""What a scan counts and sums, by column, and the keys of its hash."""

from __future__ import annotations

import numpy as np

# Counts of a frame's values.
NAN, INFINITE, NEW_NAN, ZERO, CHANGED = range(5)
N_COUNTS = 5
# Moments of a frame's components; sums are those of x - shift.
COUNT, SUM, SQUARES, DELTA_COUNT, DELTA_SUM, DELTA_SQUARES, LOWEST, HIGHEST = range(8)
N_MOMENTS = 8

KEYS = 1024  # words that are hashed with keys of their own, before the keys come again under another weight


def hash_keys() -> np.ndarray:
    """uint64, axis (word): odd numbers, the same everywhere and always."""
    return np.random.Generator(np.random.PCG64(0x5EED)).integers(0, 2**63, KEYS, dtype=np.uint64) * np.uint64(
        2
    ) + np.uint64(1)
