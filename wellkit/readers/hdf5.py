"""HDF5 shards through h5py: correct for every file libhdf5 reads, local or over fsspec.

Handles are kept open per process in a bounded pool. A forked or spawned child starts with an empty pool of its
own: neither libhdf5 handles nor asynchronous filesystems survive a fork.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import h5py
import numpy as np

from wellkit.errors import DataNotFoundError, FormatError, ShardError, WellkitError
from wellkit.storage import explain, locate, reading

# Remote reads go through one block cache a file; 1 MiB keeps the waste of small header reads low.
_REMOTE_CACHE = {"cache_type": "blockcache", "block_size": 1 << 20}


class _Handle:
    """An open shard and the remote file object behind it, if any."""

    def __init__(self, location: str, storage_options: Mapping[str, Any] | None) -> None:
        self._stream: Any = None
        place = locate(location, storage_options)
        with _opening(location):
            if place.is_local:
                self.file = _open_local(place.path)
            else:
                with reading(location):
                    self._stream = place.fs.open(place.path, "rb", **_REMOTE_CACHE)
                    self.file = h5py.File(self._stream, "r")

    def close(self) -> None:
        with suppress(Exception):  # closing must not hide the error that led here
            self.file.close()
        if self._stream is not None:
            with suppress(Exception):
                self._stream.close()


def _open_local(path: str) -> h5py.File:
    """A file opened for reading, without a lock where the file system has none to give."""
    try:
        # The default locking: with any other, the caller's own h5py.File of the same file would be refused.
        return h5py.File(path, "r")
    except OSError as error:
        if "lock" not in str(error):
            raise
        return h5py.File(path, "r", locking=False)


@contextmanager
def _opening(location: str) -> Iterator[None]:
    """Turn libhdf5's errors on opening into ours, with the file's name."""
    try:
        yield
    except WellkitError:
        raise
    except FileNotFoundError as error:
        raise DataNotFoundError(f"{location}: no such file") from error
    except IsADirectoryError as error:
        raise ShardError(f"{location}: is a folder, not an HDF5 file") from error
    except OSError as error:
        raise ShardError(f"{location}: cannot be opened as HDF5 ({_reason(error)}); {_advice(error)}") from error


def _reason(error: OSError) -> str:
    text = str(error)
    if "truncated file" in text:
        return "the file is truncated"
    if "file signature not found" in text:
        return "it is not an HDF5 file"
    return text


def _advice(error: Exception) -> str:
    if isinstance(error, PermissionError):
        return "check its permissions"
    return "it is damaged or was not downloaded whole: delete it and download it again"


class HandlePool:
    """Open shards of this process, the least recently used closed beyond `limit`."""

    def __init__(self, limit: int = 64) -> None:
        self._limit = limit
        self._reset()

    def _reset(self) -> None:
        self._lock = threading.RLock()
        self._open: OrderedDict[str, _Handle] = OrderedDict()

    def forget(self) -> None:
        """In a forked child: the parent's handles and lock are not ours, not even to close or to wait for."""
        self._reset()

    @contextmanager
    def use(self, location: str, storage_options: Mapping[str, Any] | None = None) -> Iterator[h5py.File]:
        """The open file at `location`. Held under the pool's lock: libhdf5 runs one call at a time anyway."""
        key = _key(location, storage_options)
        with self._lock:
            handle = self._open.pop(key, None) or _Handle(location, storage_options)
            self._open[key] = handle
            while len(self._open) > self._limit:
                self._open.popitem(last=False)[1].close()
            yield handle.file

    def drop(self, location: str, storage_options: Mapping[str, Any] | None = None) -> None:
        """Close `location` if it is open here."""
        with self._lock:
            handle = self._open.pop(_key(location, storage_options), None)
        if handle is not None:
            handle.close()


def _key(location: str, storage_options: Mapping[str, Any] | None) -> str:
    """What tells open files apart: with other options (an endpoint, a token) one location is another file."""
    return f"{location}|{sorted(storage_options.items(), key=str)!r}" if storage_options else location


_POOL = HandlePool()
os.register_at_fork(after_in_child=_POOL.forget)


class Hdf5Reader:
    """Arrays of one HDF5 shard. Picklable: holds the location only; handles live in the process's pool.

    Thread-safe. Keeps nothing of what it reads.
    """

    def __init__(self, location: str, storage_options: Mapping[str, Any] | None = None) -> None:
        self.location = location
        self._storage_options = dict(storage_options or {})

    @contextmanager
    def root(self) -> Iterator[h5py.Group]:
        """The shard's root group, for parsing its layout.

        Raises:
            DataNotFoundError: there is no such file.
            ShardError: it is not readable HDF5; the message names it.
        """
        with _POOL.use(self.location, self._storage_options) as file, self._reading("its header"):
            yield file

    def read(self, name: str, selection: tuple[int | slice, ...] = ()) -> np.ndarray:
        """`selection` of the array at path `name`, in native byte order.

        Args:
            name: path inside the shard, e.g. "t0_fields/density".
            selection: an integer or slice (positive step) for each leading axis; missing axes are taken whole.

        Raises:
            ShardError: the bytes cannot be read or decoded.
            FormatError: there is no such array.
        """
        with _POOL.use(self.location, self._storage_options) as file, self._reading(name):
            if name not in file:
                raise FormatError(f"{self.location}: has no array {name!r}")
            values: np.ndarray = np.asarray(file[name][selection])
        return values if values.dtype.isnative else values.astype(values.dtype.newbyteorder("="))

    @contextmanager
    def _reading(self, what: str) -> Iterator[None]:
        try:
            yield
        except WellkitError:
            raise
        except (OSError, RuntimeError) as error:
            _POOL.drop(self.location, self._storage_options)
            remote = not locate(self.location, self._storage_options).is_local
            told = explain(error, self.location) if remote else None
            if told is None:
                reason = " ".join(str(error).split())
                told = ShardError(f"{self.location}: {what} cannot be read ({reason}); {_advice(error)}")
            raise told from error

    def close(self) -> None:
        """Let go of this process's handle, if there is one."""
        _POOL.drop(self.location, self._storage_options)
