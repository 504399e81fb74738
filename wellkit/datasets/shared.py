"""Arrays that the shards of a dataset have in common: the grid of a thousand shards is one array."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from weakref import WeakValueDictionary

import numpy as np


class SharedArrays:
    """Read-only arrays by what they are made of, as long as somebody holds them. Pickled with whoever holds them."""

    def __init__(self) -> None:
        self._known: WeakValueDictionary[bytes, np.ndarray] = WeakValueDictionary()

    def __getstate__(self) -> dict[bytes, np.ndarray]:
        return dict(self._known)

    def __setstate__(self, state: dict[bytes, np.ndarray]) -> None:
        self._known = WeakValueDictionary(state)
        for array in state.values():
            array.flags.writeable = False  # pickles do not keep this

    def same(self, kind: str, parts: Sequence[np.ndarray], make: Callable[[], np.ndarray]) -> np.ndarray:
        """What `make` makes of `parts`; the array that equal parts gave before, if there is one.

        Args:
            kind: arrays of different kinds are kept apart.
            parts: all that the result of `make` depends on.
        """
        digest = hashlib.sha256(kind.encode())
        for part in parts:
            digest.update(f" {part.dtype.str}{part.shape}".encode())
            digest.update(np.ascontiguousarray(part).reshape(-1).view(np.uint8).data)
        key = digest.digest()
        found = self._known.get(key)
        if found is None:
            made = make()
            made.flags.writeable = False
            found = self._known.setdefault(key, made)
        return found
