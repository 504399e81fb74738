"""A file on its way: `NAME.<identity>.partial` beside the final name, and a note of what it is the beginning of.

Beside it, because a rename is atomic only within one file system; the identity in its name and in the note, so that
what is left of one version is never taken for the beginning of another. A lock on the file keeps two downloads into
one folder apart, file by file.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from wellkit.fetch.disk import Digests, telling, write_atomically
from wellkit.fetch.plan import RemoteFile

_LEFTOVER = re.compile(r"(?P<partial>.+\.[0-9a-f]{12}\.partial)(?:\.json(?:\.\d+-\d+\.new)?|\.xet)?")
_BLOCK = 1 << 20
_POLL = 0.2  # seconds


def partial_path(target: Path, file: RemoteFile) -> Path:
    """Where `file` lies until it is verified."""
    identity = f"{file.hash.kind} {file.hash.value} {file.size}".encode()
    return target.with_name(f"{target.name}.{hashlib.sha256(identity).hexdigest()[:12]}.partial")


def note_path(partial: Path) -> Path:
    """Where it is written down what `partial` is the beginning of."""
    return partial.with_name(f"{partial.name}.json")


class Partial:
    """The beginning of a file, held by this process alone.

    Attributes:
        path: of the partial file.
        received: bytes of it.
        etag: what the server that sent them calls the version; empty where it does not say.
        origin: which server that was.
        responses: how many answers the bytes were put together from.
    """

    def __init__(self, path: Path, file: RemoteFile, handle: int) -> None:
        self.path = path
        self.received = 0
        self.etag = self.origin = ""
        self.responses = 0
        self._file = file
        self._handle = handle
        self.digests = Digests(file)

    def recall(self, stopped: Callable[[], bool]) -> None:
        """Take up what an earlier process left, if its note says that it is the beginning of this file."""
        size = os.fstat(self._handle).st_size
        if not size:
            return
        note = _read_note(self.path)
        if note is None or size > self._file.size or note.get("identity") != _identity(self._file):
            self.restart()
            return
        with telling(self.path, "read"):
            while not stopped() and (block := os.pread(self._handle, _BLOCK, self.received)):
                self.digests.update(block)
                self.received += len(block)
        self.etag, self.origin = str(note.get("etag", "")), str(note.get("origin", ""))
        self.responses = 1

    def restart(self) -> int:
        """Forget everything; returns how many bytes that were."""
        with telling(self.path):
            os.ftruncate(self._handle, 0)
        lost, self.received, self.responses = self.received, 0, 0
        self.etag = self.origin = ""
        self.digests = Digests(self._file)
        return lost

    def begin(self, origin: str, etag: str) -> None:
        """Another answer's bytes follow, from a server `origin` that calls the version `etag`."""
        self.responses += 1
        if (origin, etag) != (self.origin, self.etag) or self.responses == 1:
            self.origin, self.etag = origin, etag
            note = {"identity": _identity(self._file), "path": self._file.path, "origin": origin, "etag": etag}
            write_atomically(note_path(self.path), json.dumps(note).encode())

    def append(self, piece: bytes) -> None:
        """Write the next bytes."""
        view = memoryview(piece)
        with telling(self.path):
            while view:
                n_bytes = os.pwrite(self._handle, view, self.received)
                self.digests.update(view[:n_bytes])
                self.received += n_bytes
                view = view[n_bytes:]

    def replace_by(self, path: Path) -> None:
        """Take in the content of another file."""
        self.restart()
        with telling(path, "read"), path.open("rb", buffering=0) as content:
            while block := content.read(_BLOCK):
                self.append(block)

    def finish(self, target: Path) -> None:
        """Give the file its final name, so that it lasts through a power cut."""
        with telling(target):
            os.fsync(self._handle)
            os.replace(self.path, target)
            with suppress(FileNotFoundError):
                note_path(self.path).unlink()
            _sync_folder(target.parent)

    def discard(self) -> None:
        """Leave nothing of it."""
        with suppress(OSError):  # what went wrong first is what has to be told
            self.path.unlink(missing_ok=True)
            note_path(self.path).unlink(missing_ok=True)


def _identity(file: RemoteFile) -> dict[str, object]:
    return {"size": file.size, "kind": str(file.hash.kind), "hash": file.hash.value}


def _read_note(partial: Path) -> dict[str, object] | None:
    try:
        note = json.loads(note_path(partial).read_bytes())
    except (OSError, ValueError):
        return None
    return note if isinstance(note, dict) else None


def bytes_at_hand(target: Path, file: RemoteFile) -> int:
    """How much of `file` an interrupted download left beside `target`."""
    partial = partial_path(target, file)
    try:
        size = partial.stat().st_size
    except OSError:
        return 0
    note = _read_note(partial)
    usable = note is not None and note.get("identity") == _identity(file) and size <= file.size
    return size if usable else 0


@contextmanager
def hold(target: Path, file: RemoteFile, *, wait: Callable[[float], None]) -> Iterator[tuple[Partial, bool]]:
    """(the partial file of `file`, whether another process had it before), for this process alone.

    What was written stays when the block ends, unless it was finished or discarded; an empty one does not.

    Args:
        target: the final name.
        file: what is to be brought there.
        wait: called with seconds while another process holds it; raises to give up.

    Raises:
        StorageError: it cannot be made.
    """
    path = partial_path(target, file)
    with telling(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    contested = False
    while True:
        with telling(path):
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            if not _lock(handle):
                contested = True
                wait(_POLL)
            elif not _is_at(handle, path):
                contested = True  # finished or removed between opening and locking
            else:
                partial = Partial(path, file, handle)
                try:
                    yield partial, contested
                finally:
                    if not partial.received and _is_at(handle, path):
                        partial.discard()
                return
        finally:
            os.close(handle)


def _lock(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        # Some network file systems have no locks: there two writers spoil each other's file, and the hash tells.
        return error.errno not in {errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES}
    return True


def _is_at(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except OSError:
        return False


def remove_leftovers(directory: Path, wanted: Iterable[RemoteFile]) -> int:
    """Remove what interrupted downloads left in a dataset's folder of anything but `wanted`; returns how many files.

    What another process is working on stays.
    """
    useful = set()
    for file in wanted:
        partial = partial_path(directory / file.path, file)
        useful |= {partial, note_path(partial)} if partial.exists() else set()
    removed = 0
    for folder in (directory, *(directory / "data").glob("*")):
        for path in folder.glob("*.partial*") if folder.is_dir() else ():
            match = _LEFTOVER.fullmatch(path.name)
            if path in useful or match is None:
                continue
            with suppress(FileNotFoundError), telling(path, "remove"):
                removed += _remove_unless_held(path, path.with_name(match["partial"]))
    return removed


def _remove_unless_held(path: Path, partial: Path) -> bool:
    try:
        handle = os.open(partial, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        handle = -1  # what belongs to nothing any more
    try:
        if handle >= 0 and not _lock(handle):
            return False
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
        return True
    finally:
        if handle >= 0:
            os.close(handle)


def _sync_folder(folder: Path) -> None:
    """Make a rename last through a power cut: what the manifest calls verified must be there."""
    with suppress(OSError):  # some network file systems cannot
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
