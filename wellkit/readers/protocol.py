"""What every shard reader offers, whatever lies below it."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, Protocol

import numpy as np


class ShardReader(Protocol):
    """Arrays of one shard.

    Implementations are picklable (they hold where the shard is, not an open handle), safe under fork, spawn and
    threads, return values in the array's own dtype and native byte order, and keep nothing of what they read.
    """

    @property
    def location(self) -> str:
        """Where the shard is, as the user would write it."""
        ...

    def root(self) -> AbstractContextManager[Any]:
        """The root group (h5py's or zarr's interface: `attrs`, `keys()`, `[]`), for parsing the layout."""
        ...

    def read(self, name: str, selection: tuple[int | slice, ...] = ()) -> np.ndarray:
        """`selection` of the array at path `name`; a new array."""
        ...

    def close(self) -> None:
        """Let go of what this process holds open."""
        ...
