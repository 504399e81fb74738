"""Bytes of shards as they are stored, wherever they are: what decoding and gathering ask for."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol

import numpy as np

TakeBuffer = Callable[[int], np.ndarray]  # bytes -> uint8 array of that size, content undefined


class StoredFile(Protocol):
    """One shard whose bytes can be asked for. Thread-safe."""

    @property
    def path(self) -> str:
        """The shard as messages name it."""
        ...

    @property
    def advice(self) -> str:
        """What to do where its bytes make no sense, for messages."""
        ...

    def stored(self, offset: int, nbytes: int, take: TakeBuffer) -> np.ndarray:
        """Bytes of the file: uint8, in memory that `take` gives or that the file has anyway, to be read only.

        Raises:
            ShardError: the file ends before, or the storage fails; names the file.
        """
        ...


class StoredFiles(Protocol):
    """Shards by path."""

    def use(self, path: str) -> AbstractContextManager[StoredFile]:
        """The shard at `path`, while a block runs. Raises DataNotFoundError or ShardError."""
        ...
