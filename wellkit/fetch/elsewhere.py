"""One byte range of a file in any storage that fsspec knows."""

from __future__ import annotations

import asyncio
from concurrent.futures import CancelledError
from typing import Any

from wellkit.errors import ShardError
from wellkit.fetch.answers import BrokenAnswerError, WrongAnswerError
from wellkit.fetch.parallel import Job
from wellkit.fetch.sockets import longest_stall
from wellkit.fetch.traffic import Traffic
from wellkit.storage import Location

_SLOWEST = 1 << 17  # bytes a second; less is taken for a connection that hangs
_NEVER_SHORT = frozenset({"file", "memory"})  # what is missing here will not be there the next time


class _NoSuchBytesError(WrongAnswerError):
    """The file, whose length nobody told, is too short."""

    kind = ShardError


def cat_range(place: Location, start: int, stop: int, job: Job, traffic: Traffic) -> bytes:
    """Bytes [start, stop).

    Raises:
        StoppedError: the job ended.
        WrongAnswerError: the server cannot serve ranges, or the file has no such bytes.
        Exception: what the storage raises.
    """
    traffic.add(requests=1)
    content = _cat(place, start, stop, job)
    traffic.add(received=len(content))
    if len(content) > stop - start:
        raise WrongAnswerError(
            f"the server answers bytes {start}-{stop - 1} with {len(content)} bytes: it cannot serve ranges; "
            "download the dataset instead"
        )
    if len(content) < stop - start:
        if place.protocol in _NEVER_SHORT:
            raise _NoSuchBytesError(f"has only {len(content)} of the bytes {start}-{stop - 1}")
        raise BrokenAnswerError(f"{len(content)} bytes came instead of {stop - start}")
    return content


def _cat(place: Location, start: int, stop: int, job: Job) -> bytes:
    fs: Any = place.fs
    if not getattr(fs, "async_impl", False):
        job.check()
        content: bytes = fs.cat_file(place.path, start=start, end=stop)
        return content
    future = asyncio.run_coroutine_threadsafe(fs._cat_file(place.path, start=start, end=stop), fs.loop)
    try:
        with job.interruptible(future.cancel):
            found: bytes = future.result(longest_stall() + (stop - start) / _SLOWEST)
            return found
    except CancelledError:
        job.check()
        raise
    finally:
        future.cancel()
