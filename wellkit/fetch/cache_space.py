"""The room a cache of shards takes: what is in it, what may be added, and what goes when it is full.

Only whole shards are removed, those that were used longest ago, and none that a living process uses: a data set that
does not fit would otherwise push out its own shards all the time, and be written again every epoch for nothing.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import stat
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from wellkit.fetch.cached_shard import FILE_NAME, PAGE, read_header

USERS = "users"
_LOCK = "evicting.lock"
_SLICE = 1 << 28  # bytes that a process writes at most before it looks again what there is
_LEAST_FREE, _SHARE_FREE, _MOST_FREE = 1 << 30, 0.05, 0.25  # of a disk, to be left to others
_ABANDONED = 3600.0  # seconds after which a file that belongs to nothing is nobody's work in progress


@dataclass
class Held:
    """The files of one shard.

    Attributes:
        names: of its files, the log first: without it the others are nothing.
        allocated: bytes of the disk they take.
        used: when the shard was last used, seconds since the epoch.
    """

    key: str
    names: list[str] = field(default_factory=list)
    allocated: int = 0
    used: float = 0.0


def scan(folder: Path) -> dict[str, Held]:
    """What a cache's folder holds, by key. Links and whatever else has no name of ours are passed over."""
    held: dict[str, Held] = {}
    with os.scandir(folder) as entries:
        for entry in entries:
            match = FILE_NAME.fullmatch(entry.name)
            if match is None:
                continue
            with suppress(FileNotFoundError):
                status = entry.stat(follow_symlinks=False)
                if not stat.S_ISREG(status.st_mode):
                    continue
                found = held.setdefault(match["key"], Held(match["key"]))
                found.allocated += status.st_blocks * 512
                if match["kind"] is None:
                    found.names.insert(0, entry.name)
                    found.used = status.st_mtime
                else:
                    found.names.append(entry.name)
                    if not found.names[0].endswith(".blocks"):
                        found.used = max(found.used, status.st_mtime)
    return held


def remove(folder: Path, held: Held) -> int:
    """Remove the files of one shard; returns the bytes that were freed. Open files stay as they are for who has them.

    Raises:
        OSError: one cannot be removed.
    """
    within = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    freed = 0
    try:
        for name in held.names:
            with suppress(FileNotFoundError):
                allocated = os.stat(name, dir_fd=within, follow_symlinks=False).st_blocks * 512
                os.unlink(name, dir_fd=within)
                freed += allocated
    finally:
        os.close(within)
    return freed


def remove_leftovers(folder: Path, held: Held) -> int:
    """Remove files of a shard that belong to no log: processes that were killed leave them. Returns bytes freed."""
    own = {f"{held.key}.blocks"}
    with suppress(OSError):
        header = read_header(folder / f"{held.key}.blocks")
        own.add(header.data_name if header is not None else "")
    old = []
    for name in held.names:
        with suppress(OSError):
            if name not in own and time.time() - os.stat(folder / name).st_mtime > _ABANDONED:
                old.append(name)
    return remove(folder, Held(held.key, old)) if old else 0


class User:
    """One reader in one process, known to the others as long as it lives: a locked file with the keys it uses."""

    def __init__(self, folder: Path) -> None:
        self._lock = threading.Lock()
        self._noted: set[str] = set()
        self._handle = -1
        with suppress(OSError):  # a cache that may only be read, or a file system without locks
            (folder / USERS).mkdir(exist_ok=True)
            path = folder / USERS / secrets.token_hex(8)
            self._handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o666)
            weakref.finalize(self, _leave, self._handle, path, os.getpid())
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def note(self, key: str) -> None:
        """Have others know that this shard is in use."""
        if self._handle < 0 or key in self._noted:
            return
        with self._lock, suppress(OSError):
            os.write(self._handle, key.encode() + b"\n")
            self._noted.add(key)


def _leave(handle: int, path: Path, pid: int) -> None:
    with suppress(OSError):
        os.close(handle)
    if os.getpid() == pid:  # a forked child holds its parent's file open, no more
        path.unlink(missing_ok=True)


def in_use(folder: Path) -> tuple[set[str], int]:
    """(keys that living processes use, how many users there are). Files of dead ones are removed."""
    keys: set[str] = set()
    count = 0
    with suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder / USERS) as entries:
        for entry in entries:
            with suppress(OSError):
                handle = os.open(entry.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
                try:
                    if _can_lock(handle):
                        os.unlink(entry.path)
                    else:
                        count += 1
                        keys.update(os.pread(handle, os.fstat(handle).st_size, 0).decode("ascii", "ignore").split())
                finally:
                    os.close(handle)
    return keys, count


def _can_lock(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


class Space:
    """What one process may still write. Thread-safe; not for use after a fork.

    Args:
        folder: the cache's.
        max_bytes: its bound; None where only the disk bounds it.
    """

    def __init__(self, folder: Path, max_bytes: int | None) -> None:
        self._folder, self._max_bytes = folder, max_bytes
        self._lock = threading.Lock()
        self._left = 0
        self.why_full = ""

    def take(self, start: int, stop: int) -> bool:
        """Whether bytes [start, stop) of a shard may be written; what was removed for them is gone then.

        Raises:
            OSError: the disk cannot be asked.
        """
        needed = (-(-stop // PAGE) - start // PAGE + 1) * PAGE  # whole pages, and one for the log
        with self._lock:
            if self._left < needed:
                self._left = self._measure(needed)
            if self._left < needed:
                return False
            self._left -= needed
            return True

    def _measure(self, needed: int) -> int:
        """How much may be written before it is measured again."""
        held = scan(self._folder)
        keys, users = in_use(self._folder)
        room = self._room(held)
        if room < needed:
            with _sole_eviction(self._folder) as is_sole:
                if is_sole:
                    self._evict(held, keys, needed)
            room = self._room(scan(self._folder))
        return max(needed, min(room // (8 * max(users, 1)), _SLICE)) if room >= needed else 0

    def _room(self, held: dict[str, Held]) -> int:
        disk = os.statvfs(self._folder)
        whole = disk.f_blocks * disk.f_frsize
        reserve = int(min(max(whole * _SHARE_FREE, _LEAST_FREE), whole * _MOST_FREE))
        room = disk.f_bavail * disk.f_frsize - reserve
        self.why_full = f"its disk has no more than {reserve} bytes free, which are left to others"
        if self._max_bytes is not None:
            bound = self._max_bytes - sum(shard.allocated for shard in held.values())
            if bound < room:
                room, self.why_full = bound, f"it is bounded to {self._max_bytes} bytes"
        return room

    def _evict(self, held: dict[str, Held], keys: set[str], needed: int) -> None:
        """Remove what was used longest ago, until there is room."""
        for shard in held.values():
            if len(shard.names) != 2 or not shard.names[0].endswith(".blocks"):
                shard.allocated -= remove_leftovers(self._folder, shard)
        for shard in sorted(held.values(), key=lambda shard: shard.used):
            if self._room(held) >= needed:
                return
            if shard.key not in keys:
                remove(self._folder, shard)
                del held[shard.key]


@contextmanager
def _sole_eviction(folder: Path) -> Iterator[bool]:
    """While nobody else removes shards; False where somebody does. The lock goes with the process."""
    handle = os.open(folder / _LOCK, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
    try:
        try:
            is_sole = _can_lock(handle)
        except OSError:
            is_sole = True  # a file system without locks: two at once remove more than they had to
        yield is_sole
    finally:
        os.close(handle)
