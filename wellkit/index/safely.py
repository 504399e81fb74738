"""Indexing files that may be damaged: in child processes, each with a time limit, started again when one dies."""

from __future__ import annotations

import json
import os
import queue
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from types import TracebackType
from typing import Any

import numpy as np

from wellkit.errors import DataNotFoundError, ShardError, WellkitError
from wellkit.index.child import ANSWER, ERROR, INDEX, MISSING, VALUES
from wellkit.index.columns import BadIndexError, unpack
from wellkit.index.hdf5 import INLINE_LIMIT
from wellkit.index.model import ShardIndex
from wellkit.index.source import Gap, Piece

TIMEOUT = 60.0  # seconds a file; a large one takes a tenth of a second
_START = 60.0  # seconds that a child may take to import what it needs
_MAX_ANSWER = 4 << 30
_DAMAGED = "it is damaged: delete it and download it again"


class Indexer:
    """One child process that indexes one file after another. Not for several threads at once."""

    def __init__(self, timeout: float = TIMEOUT, inline_limit: int = INLINE_LIMIT) -> None:
        self._timeout = timeout
        self._inline_limit = inline_limit
        self._child: subprocess.Popen[bytes] | None = None
        self._fresh = True

    def index(self, path: str | os.PathLike[str]) -> ShardIndex:
        """The index of one shard.

        Raises:
            DataNotFoundError: there is no such file.
            ShardError: it cannot be indexed; also where parsing it crashes or does not end. Names the file.
        """
        where = os.fspath(path)
        found = self._ask(where, {"path": where}, ())
        assert isinstance(found, ShardIndex)  # a whole file has no missing pieces
        return found

    def index_pieces(
        self, where: str, size: int, pieces: Sequence[Piece], *, with_fingerprint: bool = False
    ) -> ShardIndex | list[Gap]:
        """The index of a shard of which only pieces are at hand, or which others are needed to make it.

        Args:
            where: its name, for messages.
            size: its bytes.
            pieces: in order, apart from each other.
            with_fingerprint: whether its first and last bytes are needed too, for the fingerprint.

        Raises:
            ShardError: as `index`.
        """
        extents = [[start, len(content)] for start, content in pieces]
        request = {"path": where, "size": size, "pieces": extents, "fingerprint": with_fingerprint}
        found = self._ask(where, request, [content for _, content in pieces])
        assert not isinstance(found, np.ndarray)
        return found

    def read(self, where: str, name: str, selection: Sequence[int | slice]) -> np.ndarray:
        """`selection` of an array of a shard, through libhdf5: for arrays whose place an index cannot tell.

        Raises:
            ShardError: as `index`.
        """
        chosen = [[part.start, part.stop, part.step] if isinstance(part, slice) else int(part) for part in selection]
        found = self._ask(where, {"path": where, "array": name, "selection": chosen}, ())
        assert isinstance(found, np.ndarray)
        return found

    def start(self) -> None:
        """Start the child now, so that it is ready when it is needed."""
        self._running()

    def _ask(
        self, where: str, request: dict[str, Any], contents: Sequence[bytes]
    ) -> ShardIndex | list[Gap] | np.ndarray:
        request |= {"seconds": self._timeout, "inline_limit": self._inline_limit}
        try:
            child = self._running()
            assert child.stdin is not None
            child.stdin.write(json.dumps(request).encode() + b"\n")
            for content in contents:
                child.stdin.write(content)
            child.stdin.flush()
            kind, answer = self._answer(child)
            self._fresh = False
        except _TimeoutError as error:
            self.close()
            raise ShardError(f"{where}: parsing it did not end within {self._timeout:g} s; {_DAMAGED}") from error
        except (EOFError, BrokenPipeError) as error:
            how = self._end()
            raise ShardError(f"{where}: parsing it crashed ({how}); {_DAMAGED}") from error
        except BaseException:
            self.close()  # interrupted: the next answer would be to this request
            raise
        if kind == ERROR:
            told = json.loads(answer)
            raise (DataNotFoundError if told["kind"] == "DataNotFoundError" else ShardError)(told["message"])
        try:
            if kind == MISSING and "size" in request:
                return _gaps(answer, request["size"])
            if kind == VALUES and "array" in request:
                return _array(answer)
            packed = unpack(answer, where)
            if kind != INDEX or len(packed) != 1:
                raise BadIndexError("not one index")
            found = packed.shard(0)
            arrays = {name: found.arrays[name] for name in found.arrays}
            return ShardIndex(found.size, found.fingerprint, arrays, dict(found.attributes))
        except (BadIndexError, ValueError, TypeError, IndexError) as error:
            self.close()
            raise ShardError(f"{where}: parsing it gave no usable answer ({error}); {_DAMAGED}") from error

    def _running(self) -> subprocess.Popen[bytes]:
        if self._child is not None and self._child.poll() is not None:
            self.close()  # ended while idle: no file's fault
        if self._child is None:
            self._child = subprocess.Popen(
                [sys.executable, "-P", "-m", "wellkit.index.child"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
            self._fresh = True
        return self._child

    def _answer(self, child: subprocess.Popen[bytes]) -> tuple[bytes, bytes]:
        deadline = time.monotonic() + self._timeout + (_START if self._fresh else 0)
        kind, size = ANSWER.unpack(_read(child, ANSWER.size, deadline))
        if size > _MAX_ANSWER:
            raise EOFError
        return kind, _read(child, size, deadline)

    def _end(self) -> str:
        """Let the child go; how it ended."""
        child = self._child
        self.close()
        if child is None or child.returncode is None or child.returncode >= 0:
            return "the parser ended"
        with suppress(ValueError):
            return signal.Signals(-child.returncode).name
        return f"signal {-child.returncode}"

    def close(self) -> None:
        """End the child. The next `index` starts another."""
        child, self._child = self._child, None
        if child is None:
            return
        for stream in (child.stdin, child.stdout):
            if stream is not None:
                with suppress(OSError):
                    stream.close()
        with suppress(subprocess.TimeoutExpired):
            if child.wait(timeout=0.5) is not None:  # it ends by itself when its requests do, or has crashed
                return
        child.kill()
        child.wait()

    def __enter__(self) -> Indexer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._child is not None:
            self._child.kill()  # it holds nothing; to end by itself takes it longer
        self.close()


def _gaps(content: bytes, size: int) -> list[Gap]:
    """The pieces that a child asks for, which must lie in the file. Raises ValueError or TypeError."""
    gaps = [(int(start), int(stop), int(rank)) for start, stop, rank in json.loads(content)]
    if not gaps or not all(0 <= start < stop <= size and 0 <= rank <= 32 for start, stop, rank in gaps):
        raise ValueError("it asks for bytes outside the file")
    return gaps


def _array(content: bytes) -> np.ndarray:
    """The values that a child read. Raises ValueError or TypeError."""
    head, _, raw = content.partition(b"\n")
    told = json.loads(head)
    values = np.frombuffer(raw, np.dtype(told["dtype"]))
    return values.reshape([int(size) for size in told["shape"]]).astype(values.dtype.newbyteorder("="), copy=False)


class _TimeoutError(Exception):
    """The time is up."""


def _read(child: subprocess.Popen[bytes], size: int, deadline: float) -> bytes:
    """Exactly `size` bytes of the child's answer."""
    assert child.stdout is not None
    descriptor = child.stdout.fileno()
    parts: list[bytes] = []
    with selectors.DefaultSelector() as selector:
        selector.register(descriptor, selectors.EVENT_READ)
        while size:
            left = deadline - time.monotonic()
            if left <= 0 or not selector.select(left):
                raise _TimeoutError
            part = os.read(descriptor, min(size, 1 << 20))
            if not part:
                raise EOFError
            parts.append(part)
            size -= len(part)
    return b"".join(parts)


def index_shard_safely(path: str | os.PathLike[str], timeout: float = TIMEOUT) -> ShardIndex:
    """Index one shard in a child process; see `Indexer.index`."""
    with Indexer(timeout) as indexer:
        return indexer.index(path)


def index_shards_safely(
    paths: Sequence[str], *, jobs: int = 2, timeout: float = TIMEOUT, inline_limit: int = INLINE_LIMIT
) -> Iterator[tuple[str, ShardIndex | WellkitError]]:
    """Index many shards in `jobs` child processes; (path, index or error) in the order of `paths`."""
    idle: queue.SimpleQueue[Indexer] = queue.SimpleQueue()
    indexers = [Indexer(timeout, inline_limit) for _ in range(max(1, min(jobs, len(paths))))]
    for indexer in indexers:
        idle.put(indexer)

    def work(path: str) -> Any:
        indexer = idle.get()
        try:
            return indexer.index(path)
        except WellkitError as error:
            return error
        finally:
            idle.put(indexer)

    try:
        with ThreadPoolExecutor(len(indexers)) as pool:
            try:
                yield from zip(paths, pool.map(work, paths), strict=True)
            finally:
                pool.shutdown(cancel_futures=True)
    finally:
        for indexer in indexers:
            indexer.close()
