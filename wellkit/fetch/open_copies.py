"""The copies of remote files that one process has open, and what it adds to them."""

from __future__ import annotations

import errno
import os
import threading
import time
import warnings
from collections.abc import Mapping
from pathlib import Path

from wellkit.errors import StorageError, WellkitWarning
from wellkit.fetch.cache_space import Space, User
from wellkit.fetch.cached_shard import CachedShard, GoneError, make_shard, open_shard
from wellkit.fetch.disk import telling
from wellkit.fetch.identity import Identity, identity_of, local_file
from wellkit.fetch.ranges import ByteRange
from wellkit.storage import without_secrets

PAUSE = 300.0  # seconds after a write that failed until the next is tried


class OpenCopies:
    """Copies of some files. Thread-safe; not for use after a fork.

    Args:
        folder: the cache's.
        max_bytes: bound on what is in it.
        identities: of the files, by location.
    """

    def __init__(self, folder: Path, max_bytes: int | None, identities: Mapping[str, Identity]) -> None:
        self.pid = os.getpid()
        self._folder, self._identities = folder, identities
        self._space = Space(folder, max_bytes)
        self._user = User(folder)
        self._lock = threading.Lock()
        self._shards: dict[str, CachedShard] = {}
        self.served = 0
        self._pause_ends = 0.0
        self._to_tell: list[str] = []
        self._told: set[str] = set()

    def find(self, location: str) -> CachedShard | None:
        """The copy of a file, if there is one."""
        shard = self._shards.get(location)
        if shard is None:
            identity = self._identities.get(location)
            if identity is None or not identity.key:
                return None
            try:
                shard = open_shard(self._folder, identity.key)
            except OSError as error:
                self.fail(error)
                return None
            if shard is None or (shard.header.identity, shard.header.size) != identity[1:]:
                return None
            shard = self._add(location, shard)
        shard.note_use()
        return shard

    def note(self, shard: CachedShard, served: int = 0) -> None:
        """So many bytes were read."""
        if served:
            with self._lock:
                self.served += served
        if shard.damaged:
            self._tell("damaged", f"{self._folder}: holds damaged bytes, which are fetched again; check the disk")

    def _add(self, location: str, shard: CachedShard) -> CachedShard:
        self._user.note(shard.header.key)
        with self._lock:
            return self._shards.setdefault(location, shard)

    def forget(self, location: str, shard: CachedShard) -> None:
        """The copy is gone."""
        with self._lock:
            if self._shards.get(location) is shard:
                del self._shards[location]

    def keep(self, part: ByteRange, content: memoryview) -> None:
        """Keep bytes that were fetched, if there is room. Raises nothing: the caller has what he wanted."""
        identity = self._identities.get(part.location)
        if identity is None or not identity.key:
            if identity is not None:
                name = without_secrets(part.location)
                self._tell("version", f"{name}: nothing tells its version (no hash, ETag or time), so it is not cached")
            return
        if time.monotonic() < self._pause_ends or part.stop > identity.size or not _is_same(part.location, identity):
            return
        try:
            if not self._space.take(part.start, part.stop):
                folder = self._folder.parent
                self._pause(f"{folder}: no more is kept: {self._space.why_full}, and the shards in it are in use")
                return
            for _ in range(2):
                shard = self._shards.get(part.location) or self._make(part.location, identity)
                try:
                    shard.write(part.start, content)
                    return
                except GoneError:
                    self.forget(part.location, shard)
        except OSError as error:
            self.fail(error)

    def _make(self, location: str, identity: Identity) -> CachedShard:
        shard = make_shard(
            self._folder,
            identity.key,
            name=without_secrets(location),
            identity=identity.text,
            size=identity.size,
        )
        return self._add(location, shard)

    def fail(self, error: OSError) -> None:
        """The disk is full, or fails: go on without it for a while."""
        try:
            with telling(self._folder):
                raise error
        except StorageError as told:
            why = str(told) if error.errno in {errno.ENOSPC, errno.EDQUOT} else f"the cache failed ({told})"
        self._pause(why)

    def _pause(self, why: str) -> None:
        self._pause_ends = time.monotonic() + PAUSE
        self._tell("paused", f"{why}; what is not in the cache is fetched each time")

    def _tell(self, kind: str, message: str) -> None:
        """Have the next caller be warned, once: the network's threads must not raise."""
        with self._lock:
            if kind not in self._told:
                self._told.add(kind)
                self._to_tell.append(message)

    def tell(self) -> None:
        """Give the warnings that have come up."""
        while self._to_tell:
            with self._lock:
                message = self._to_tell.pop() if self._to_tell else None
            if message is not None:
                warnings.warn(message, WellkitWarning, stacklevel=4)


def _is_same(location: str, identity: Identity) -> bool:
    """Whether a local file is the one that was listed; of others their own storage makes sure."""
    if "://" in location:
        return True
    try:
        return identity_of(local_file(location)) == identity
    except OSError:
        return False
