"""Local HDF5 shards through their index: headers and small arrays without opening the file, the rest through h5py.

Windows of fields are read faster still, by `wellkit.readers.local` from the same index.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import numpy as np

from wellkit.errors import FormatError
from wellkit.index.lookup import index_for
from wellkit.index.model import ArrayIndex, ShardIndex
from wellkit.readers.hdf5 import Hdf5Reader
from wellkit.readers.local import LocalReader
from wellkit.readers.protocol import WindowReader


def local_windows() -> LocalReader:
    """This process's reader of windows of local shards."""
    return _windows(os.getpid())


@lru_cache(maxsize=1)
def _windows(pid: int) -> LocalReader:
    # A worker process is one of several: threads of its own would only stand in the way of the others.
    return LocalReader(threads=1 if multiprocessing.parent_process() is not None else None)


class IndexedReader:
    """Arrays of one local HDF5 shard. Picklable: holds the location; the index is found again where it is used.

    Args:
        location: a path of this machine's own file system.
        index: the shard's index, if it is at hand; looked up when first needed otherwise.
        windows: what reads windows of it; None: one that all shards of this process share.
    """

    def __init__(self, location: str, index: ShardIndex | None = None, *, windows: WindowReader | None = None) -> None:
        self.location = location
        self._index = index
        self._windows = windows
        self._checked = False
        self._opened: Hdf5Reader | None = None  # made when something has to be read through h5py

    def __getstate__(self) -> dict[str, Any]:
        # A written index is one file for all shards: a child opens it once.
        return {**self.__dict__, "_index": None, "_checked": False}

    @property
    def windows(self) -> WindowReader:
        """What reads windows of it."""
        return self._windows if self._windows is not None else local_windows()

    @property
    def index(self) -> ShardIndex:
        """Where the shard's arrays lie. Raises DataNotFoundError or ShardError."""
        if self._index is None:
            self._index = index_for(self.location)
        return self._index

    def array(self, name: str) -> ArrayIndex:
        """Where one array lies, in the file as it is now.

        Raises:
            FormatError: there is no array of that name.
            DataNotFoundError, ShardError: the file is gone, or is not the one that was indexed.
        """
        if not self._checked:
            self.index.check(self.location)
            self._checked = True
        try:
            return self.index.arrays[name]
        except KeyError:
            raise FormatError(f"{self.location}: has no array {name!r}") from None

    @contextmanager
    def root(self) -> Iterator[Any]:
        """The root group as the index knows it."""
        yield self.index.root()

    def read(self, name: str, selection: tuple[int | slice, ...] = ()) -> np.ndarray:
        """`selection` of the array at path `name`; a new array, see `Hdf5Reader.read`."""
        array = self.array(name)
        if array.layout == "inline":
            return np.array(array.inline_values()[selection])
        return self._file.read(name, selection)

    @property
    def _file(self) -> Hdf5Reader:
        if self._opened is None:
            self._opened = Hdf5Reader(self.location)
        return self._opened

    def close(self) -> None:
        """Let go of what this process holds open. What is read next is checked anew."""
        self._checked = False
        if self._opened is not None:
            self._opened.close()
        LocalReader().close(self.location)
