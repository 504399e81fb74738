"""Exact byte ranges of remote files, many at a time, into memory that is there already.

Files on the Hub are read from where it redirects to, which is asked once a file and process; everything else through
fsspec. A range is there as it is at the source, or an error is raised: an answer that is too short, too long, of
another part, of another version of the file, or a web page is never used.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import tenacity

from wellkit.errors import ArgumentError, ShardError, WellkitError
from wellkit.fetch.parallel import MOST_THREADS, Job, StoppedError
from wellkit.storage import Location, explain, locate, reading, without_secrets

if TYPE_CHECKING:
    from wellkit.fetch.links import HubFile

ATTEMPTS = 14  # with these waits between them, about a minute and a half without an answer
BACKOFF: tenacity.wait.wait_base = tenacity.wait_exponential(multiplier=0.02, max=20.0) + tenacity.wait_random(0, 0.02)
LONGEST_PART = 1 << 24  # bytes of one request at most: what is lost when a connection breaks
SHORTEST_PART = 1 << 22  # bytes; a range is not shared among connections below this
_PINNED = 40  # digits of a commit
_Result = TypeVar("_Result")


class ByteRange(NamedTuple):
    """Bytes [start, stop) of a file; 0 <= start < stop."""

    location: str
    start: int
    stop: int


class RangeReader:
    """Reads byte ranges of remote files. Picklable, thread-safe, and safe under fork and spawn.

    Connections and threads are each process's own, and shared by all readers in it.

    Args:
        storage_options: fsspec's; of the Hub `endpoint` and `token`.
        connections: requests at a time.
    """

    def __init__(self, storage_options: Mapping[str, Any] | None = None, *, connections: int = 16) -> None:
        if connections < 1:
            raise ArgumentError(f"connections={connections}; give a whole number from 1 up")
        self.storage_options = dict(storage_options or {})
        self.connections = min(connections, MOST_THREADS)
        self._processes: dict[int, _Process] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_processes": {}}

    @property
    def bytes_received(self) -> int:
        """Bytes of bodies that this reader has received in this process, those of failed attempts included."""
        return self._here().traffic.bytes_received

    @property
    def n_requests(self) -> int:
        """Requests that this reader has made in this process, those that failed included."""
        return self._here().traffic.n_requests

    def read(
        self, ranges: Sequence[ByteRange], into: Sequence[memoryview], done: Callable[[int], None] | None = None
    ) -> None:
        """Fill `into[i]` with the bytes of `ranges[i]`.

        Args:
            ranges: in the order in which they are begun. Long ones are shared among connections.
            into: memory of the ranges' lengths: writable, contiguous.
            done: called with i, in any thread and order, as soon as range i is there.

        Raises:
            HubError: a storage cannot be reached, or refuses access, after retries.
            DataNotFoundError: a file is not there.
            ShardError: a file has no such bytes, or has changed since it was first asked for.
            ArgumentError: a range, or the memory for it, makes no sense.

        Nothing is written to `into`, and `done` is not called, after it returned or raised.
        """
        views = _check(ranges, into)
        here = self._here()
        sources = {location: here.source(location) for location in dict.fromkeys(part.location for part in ranges)}
        total = sum(len(view) for view in views)
        longest = min(LONGEST_PART, max(SHORTEST_PART, -(-total // self.connections)))
        tasks: list[Callable[[Job], None]] = []
        for number, (part, view) in enumerate(zip(ranges, views, strict=True)):
            count = -(-len(view) // longest)
            step = -(-len(view) // count)
            progress = _Progress(number, -(-len(view) // step), done)
            tasks += [
                partial(_transfer, sources[part.location], part.start + at, view[at : at + step], progress)
                for at in range(0, len(view), step)
            ]
        if tasks:
            Job(tasks, self.connections).run()

    def size(self, location: str) -> int:
        """Bytes of a file. Raises as `read`."""
        return self._here().source(location).size()

    def _here(self) -> _Process:
        """What belongs to this process alone."""
        pid = os.getpid()  # a forked child has to begin afresh
        found = self._processes.get(pid)
        return found if found is not None else self._processes.setdefault(pid, _Process(self.storage_options))


def _check(ranges: Sequence[ByteRange], into: Sequence[memoryview]) -> list[memoryview]:
    """The memory, byte by byte."""
    if len(ranges) != len(into):
        raise ArgumentError(f"{len(ranges)} ranges and memory for {len(into)}: give each its own")
    views = []
    for part, memory in zip(ranges, into, strict=True):
        if not 0 <= part.start < part.stop:
            raise ArgumentError(f"{without_secrets(part.location)}: bytes {part.start} to {part.stop} are no range")
        if memory.readonly or not memory.c_contiguous or memory.nbytes != part.stop - part.start:
            raise ArgumentError(
                f"{without_secrets(part.location)}: {part.stop - part.start} bytes need writable, contiguous memory of "
                f"that length, not of {memory.nbytes}"
            )
        views.append(memory.cast("B"))
    return views


class _Progress:
    """How many parts of a range are still to come."""

    def __init__(self, number: int, parts: int, done: Callable[[int], None] | None) -> None:
        self._number, self._left, self._done = number, parts, done
        self._lock = threading.Lock()

    def arrived(self, job: Job) -> None:
        """One part is there."""
        with self._lock:
            self._left -= 1
            is_last = self._left == 0
        if is_last and self._done is not None:
            with job.writing():
                self._done(self._number)


def _transfer(source: _Source, start: int, into: memoryview, progress: _Progress, job: Job) -> None:
    source.read(start, into, job)
    progress.arrived(job)


class _Source:
    """One file."""

    def __init__(self, name: str) -> None:
        self.name = name

    def read(self, start: int, into: memoryview, job: Job) -> None:
        """Fill `into` with what begins at `start`. Raises errors of ours, or StoppedError."""
        self._telling(lambda: self._read(start, into, job))

    def _read(self, start: int, into: memoryview, job: Job) -> None:
        raise NotImplementedError

    def size(self) -> int:
        """Bytes of the file."""
        raise NotImplementedError

    def _telling(self, action: Callable[[], _Result]) -> _Result:
        """Do something whose errors become ours."""
        from wellkit.fetch.answers import ChangedError, WrongAnswerError

        try:
            return action()
        except (WellkitError, StoppedError):
            raise
        except ChangedError as error:
            told: WellkitError = ShardError(
                f"{self.name}: {error} now: the file was replaced while it was read; open the dataset again"
            )
            cause: BaseException = error
        except WrongAnswerError as error:
            told, cause = error.kind(f"{self.name}: {error}"), error
        except Exception as error:
            explained = explain(error, self.name, attempts=ATTEMPTS if _may_pass(error) else 1)
            if explained is None:
                raise
            told, cause = explained, error
        raise told from _without_addresses(cause)


def _without_addresses(error: BaseException) -> BaseException | None:
    """The error as a cause to be shown, unless its text, or that of one behind it, names an address: may be signed."""
    current: BaseException | None = error
    while current is not None:
        if "://" in str(current):
            return None
        current = current.__cause__ or current.__context__
    return error


def _may_pass(error: BaseException) -> bool:
    from wellkit.fetch.retries import is_transient

    return is_transient(error)


def _patiently(action: Callable[[], _Result], job: Job | None) -> _Result:
    """Run `action` again while its failures are transient, as long as the job lives."""
    from wellkit.fetch.retries import patiently

    return patiently(action, attempts=ATTEMPTS, sleep=None if job is None else job.sleep, backoff=BACKOFF)


class _Process:
    """A reader's files in one process."""

    def __init__(self, storage_options: Mapping[str, Any]) -> None:
        from wellkit.fetch.traffic import Traffic

        self.traffic = Traffic()
        self._options = storage_options
        self._sources: dict[str, _Source] = {}

    def source(self, location: str) -> _Source:
        """The file at a location. Raises as `locate`."""
        found = self._sources.get(location)
        return found if found is not None else self._sources.setdefault(location, self._make(location))

    def _make(self, location: str) -> _Source:
        if location.startswith("hf://"):
            from wellkit.fetch.links import HUB_FILES, HubFile
            from wellkit.fetch.listing import hub_place

            place = hub_place(location)
            if place is not None:
                is_pinned = len(place.revision) == _PINNED
                # What another revision names may change: it is this reader's alone to remember what it was.
                file = (
                    HUB_FILES.find(place, self._options) if is_pinned else HubFile(place.source(self._options), place)
                )
                return _OnHub(location, file, self.traffic)
        return _Elsewhere(locate(location, self._options), self.traffic)


class _OnHub(_Source):
    """A file on the Hub."""

    def __init__(self, location: str, file: HubFile, traffic: Any) -> None:
        super().__init__(without_secrets(location))
        self._file, self._traffic = file, traffic

    def _read(self, start: int, into: memoryview, job: Job) -> None:
        _patiently(lambda: self._file.read(start, into, job, self._traffic, self._resolving(job)), job)

    def _resolving(self, job: Job | None) -> Callable[[Callable[[], _Result]], _Result]:
        def resolve(action: Callable[[], _Result]) -> _Result:
            def counted() -> _Result:
                self._traffic.add(requests=1)
                return action()

            return self._telling(lambda: _patiently(counted, job))

        return resolve

    def size(self) -> int:
        if self._file.size is None:
            self._telling(lambda: self._file.link(self._resolving(None)))
        if self._file.size is None:  # mirrors may not tell it before they are asked for bytes
            Job([lambda job: self.read(0, memoryview(bytearray(1)), job)], 1).run()
        if self._file.size is None:
            raise ShardError(f"{self.name}: the server does not tell its size, so no ranges of it can be read")
        return self._file.size


class _Elsewhere(_Source):
    """A file that fsspec reads."""

    def __init__(self, place: Location, traffic: Any) -> None:
        super().__init__(str(place))
        self._place, self._traffic = place, traffic
        self._size: int | None = None

    def _read(self, start: int, into: memoryview, job: Job) -> None:
        from wellkit.fetch.elsewhere import cat_range

        content = _patiently(lambda: cat_range(self._place, start, start + len(into), job, self._traffic), job)
        with job.writing():
            into[:] = content

    def size(self) -> int:
        if self._size is None:
            with reading(self.name):
                found = self._place.fs.info(self._place.path).get("size")
            if found is None:
                raise ShardError(f"{self.name}: the server does not tell its size, so no ranges of it can be read")
            self._size = int(found)
        return self._size


__all__ = ["ByteRange", "RangeReader"]
