"""What every shard reader offers, whatever lies below it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import numpy as np

from wellkit.readers.plan import FieldPlan, WindowBatch, WindowRequest


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


class WindowReader(Protocol):
    """Fills the caller's arrays with windows of shards. Picklable, safe under fork, spawn and threads."""

    def read_windows(self, requests: Sequence[WindowRequest], out: np.ndarray, tail: np.ndarray | None = None) -> None:
        """Fill `out`, axes (window, step, space..., channel), and with the steps behind those `tail`."""
        ...

    def read_all(self, batches: Sequence[WindowBatch]) -> None:
        """As `read_windows` for each, at once where that takes less time."""
        ...

    def read_constant(
        self, path: str, fields: tuple[FieldPlan, ...], trajectory: int, crop: tuple[slice, ...], out: np.ndarray
    ) -> None:
        """Fill `out`, axes (space..., channel), with fields that have no time axis."""
        ...
