"""Indexes of remote shards from their own headers: fetched side by side, a few pieces a shard, parsed in children.

HDF5 scatters what describes a file through it: group tables and small arrays near the beginning; in files written
with h5py's defaults an array's header behind the array before it, and the nodes of its chunk tree among the chunks;
with 8 MiB pages nearly all in the first page. Nobody knows where before having parsed, so all shards go through rounds:
fetch what is known to be needed, of all shards at once; parse; where bytes are missing, the parser says which. Two to
five rounds do, whatever the number of shards. The parser is libhdf5 in a child process with a time limit: a remote file
is not to be trusted.
"""

from __future__ import annotations

import os
import struct
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from queue import SimpleQueue
from typing import Protocol

from wellkit.errors import WellkitError
from wellkit.fetch.ranges import ByteRange
from wellkit.index.fingerprint import TAIL
from wellkit.index.model import ShardIndex
from wellkit.index.safely import TIMEOUT, Indexer
from wellkit.index.source import Extent, Gap, Piece

FIRST = 64 << 10  # bytes from the beginning that every shard is asked for
STEP = 16 << 10  # pieces are fetched in multiples of this
NEAR = 64 << 10  # pieces nearer to each other than this are fetched as one: a request costs more
MAX_ROUNDS = 100
MAX_PIECES = 4096  # of one shard; listing such a file's chunks over the network would take minutes
MAX_BYTES = 256 << 20
_MAX_AHEAD = 4 << 20
_MAX_CHILDREN = 4
_SHARDS_A_CHILD = 16
_NODE = struct.Struct("<4sBBHQQ")  # signature, type, level, entries, left and right sibling


class Reader(Protocol):
    """What of `wellkit.fetch.ranges.RangeReader` is needed here."""

    def read(
        self, ranges: Sequence[ByteRange], into: Sequence[memoryview], done: Callable[[int], None] | None = None
    ) -> None:
        """Fill `into` with the bytes of `ranges`, calling done(number) for each."""
        ...


class TooScatteredError(Exception):
    """A shard's header lies in so many places that reading it over the network makes no sense; says how many."""


class _Header:
    """What is known of one shard's header."""

    def __init__(self, number: int, location: str, size: int, *, with_fingerprint: bool) -> None:
        self.number, self.location, self.size = number, location, size
        self.pieces: list[Piece] = []
        self.wanted: list[Extent] = _steps([(0, min(FIRST, size))], size)
        if with_fingerprint and size > FIRST:
            self.wanted = _steps([(0, FIRST), (max(FIRST, size - TAIL), size)], size)
        self.with_fingerprint = with_fingerprint
        self.result: ShardIndex | WellkitError | TooScatteredError | None = None
        self.fetched: list[Extent] = []  # behind the beginning
        self._nodes: dict[int, tuple[int, int]] = {}  # of chunk trees: where -> (bytes, rank)
        self._rounds = self._n_pieces = 0

    def add(self, pieces: Iterable[Piece]) -> None:
        """Take in what was fetched."""
        new = list(pieces)
        self.pieces = _joined([*self.pieces, *new])
        self.fetched += [(start, start + len(content)) for start, content in new if start]
        self._rounds += 1
        self._n_pieces += len(new)
        self.wanted = self._below_nodes()

    def want(self, gaps: Sequence[Gap]) -> None:
        """Ask for what the parser missed."""
        self._nodes.update({start: (stop - start, rank) for start, stop, rank in gaps if rank})
        extents: list[Extent] = []
        for start, stop, rank in gaps:
            siblings = self._siblings(start, stop - start, rank) if rank else []
            extents += [(child, child + stop - start) for child in siblings] or [self._ahead(start, stop)]
        self.wanted = self.missing(extents)
        n_bytes = sum(len(content) for _, content in self.pieces) + sum(stop - start for start, stop in self.wanted)
        if self._rounds >= MAX_ROUNDS or self._n_pieces + len(self.wanted) > MAX_PIECES or n_bytes > MAX_BYTES:
            self.result = TooScatteredError(f"{self._n_pieces} pieces, {n_bytes} bytes in {self._rounds} rounds")

    def _ahead(self, start: int, stop: int) -> Extent:
        """What to fetch for a gap: what is read in sequence comes in pieces that double."""
        for first, content in self.pieces:
            end = first + len(content)
            if end - STEP < start < end + NEAR:
                return end, max(stop, min(end + min(len(content), _MAX_AHEAD), self.size))
        return start, stop

    def _siblings(self, start: int, n_bytes: int, rank: int) -> list[int]:
        """The nodes that the node above the one at `start` names, if it is here: all will be asked for."""
        needle = struct.pack("<Q", start)
        for _, content in self.pieces:
            place = content.find(needle)
            while place >= 0:
                node = content.rfind(b"TREE", max(0, place - n_bytes), place)
                found = _children(content[node : node + n_bytes], rank, self.size - n_bytes) if node >= 0 else []
                if start in found:
                    return found
                place = content.find(needle, place + 1)
        return []

    def missing(self, extents: Iterable[Extent]) -> list[Extent]:
        """Whole steps that cover `extents`, without what is here."""
        wanted = []
        for start, stop in _steps(extents, self.size):
            for first, content in self.pieces:
                last = first + len(content)
                if last <= start or first >= stop:
                    continue
                if start < first:
                    wanted.append((start, first))
                start = max(start, last)
            if start < stop:
                wanted.append((start, stop))
        return wanted

    def _below_nodes(self) -> list[Extent]:
        """Where the nodes below those lie that came just now: libhdf5 would ask for one after the other."""
        found: list[Extent] = []
        for start, (n_bytes, rank) in list(self._nodes.items()):
            content = self.bytes_at(start, n_bytes)
            if content is None:
                continue
            del self._nodes[start]
            for child in _children(content, rank, self.size - n_bytes):
                self._nodes[child] = (n_bytes, rank)
                found.append((child, child + n_bytes))
        if self._n_pieces + len(found) > MAX_PIECES:
            return []
        return self.missing(found)

    def bytes_at(self, start: int, n_bytes: int) -> bytes | None:
        """A part of the file, if it is here."""
        for first, content in self.pieces:
            if first <= start and start + n_bytes <= first + len(content):
                return content[start - first : start - first + n_bytes]
        return None


def _steps(extents: Iterable[Extent], size: int) -> list[Extent]:
    """Whole steps that cover `extents`; near ones joined."""
    joined: list[Extent] = []
    for first, last in sorted(extents):
        start, stop = first // STEP * STEP, min(size, -(-last // STEP) * STEP)
        if joined and start <= joined[-1][1] + NEAR:
            joined[-1] = (joined[-1][0], max(joined[-1][1], stop))
        elif start < stop:
            joined.append((start, stop))
    return joined


def _joined(pieces: Iterable[Piece]) -> list[Piece]:
    """Pieces in order, those that touch made one."""
    runs: list[tuple[int, list[bytes], int]] = []
    for start, content in sorted(pieces, key=lambda piece: piece[0]):
        if runs and start == runs[-1][2]:
            runs[-1] = (runs[-1][0], [*runs[-1][1], content], start + len(content))
        else:
            runs.append((start, [content], start + len(content)))
    return [(start, b"".join(contents)) for start, contents, _ in runs]


def _children(node: bytes, rank: int, last: int) -> list[int]:
    """Where the nodes below a node of a chunk tree (version 1) lie; empty for a leaf, or what is no such node.

    Only a hint on what to fetch: libhdf5 reads the tree itself.
    """
    if len(node) < _NODE.size:
        return []
    signature, kind, level, entries, _, _ = _NODE.unpack_from(node)
    key = 8 + 8 * (rank + 1)
    if signature != b"TREE" or kind != 1 or level == 0 or _NODE.size + entries * (key + 8) > len(node):
        return []
    places = (struct.unpack_from("<Q", node, _NODE.size + i * (key + 8) + key)[0] for i in range(entries))
    return [place for place in places if 0 < place <= last]


def read_headers(
    shards: Sequence[tuple[str, int]],
    reader: Reader,
    *,
    with_fingerprint: bool = False,
    timeout: float = TIMEOUT,
    progress: Callable[[int, int], None] | None = None,
    found: Callable[[int, ShardIndex], None] | None = None,
) -> list[ShardIndex | WellkitError | TooScatteredError]:
    """The index of each shard, or why there is none.

    Args:
        shards: location and bytes of each.
        reader: fetches ranges of them, many at a time.
        with_fingerprint: fetch the end of each shard too, so that its index has a fingerprint.
        timeout: seconds that parsing one shard may take.
        progress: called with shards done and shards there are.
        found: called with a shard's number and its index as soon as that is made, in any thread and order.

    Raises:
        HubError, DataNotFoundError, ShardError: a shard cannot be read at all.
    """
    headers = [
        _Header(number, location, size, with_fingerprint=with_fingerprint)
        for number, (location, size) in enumerate(shards)
    ]
    if not headers:
        return []

    def tell(header: _Header) -> None:
        if isinstance(header.result, ShardIndex) and found is not None:
            found(header.number, header.result)
        if progress is not None:
            progress(sum(header.result is not None for header in headers), len(headers))

    with ExitStack() as stack:
        jobs = min(_MAX_CHILDREN, os.cpu_count() or 1, -(-len(headers) // _SHARDS_A_CHILD))
        parsers = _Parsers([stack.enter_context(Indexer(timeout)) for _ in range(jobs)], tell)
        first, rest, ahead = (stack.enter_context(ThreadPoolExecutor(count)) for count in (1, jobs, 1))
        for pool in (first, rest):
            stack.callback(pool.shutdown, wait=False, cancel_futures=True)  # interrupted: nothing more is begun
        stack.callback(parsers.stop)
        # The others profit from what the first one of the usual size has shown: alike shards lie alike.
        ((usual, _),) = Counter(header.size for header in headers).most_common(1)
        leader = next(header for header in headers if header.size == usual)
        others = [header for header in headers if header is not leader]
        leading = ahead.submit(_until_done, [leader], reader, first, parsers)

        def parse_behind(header: _Header) -> None:
            leading.result()
            if header.size == leader.size and isinstance(leader.result, ShardIndex):
                header.wanted = header.missing(leader.fetched)
            if not header.wanted:
                parsers.parse(header)

        _one_round(others, reader, rest, parse_behind)
        leading.result()
        _until_done([header for header in others if header.result is None], reader, rest, parsers)
    results = [header.result for header in headers]
    assert all(result is not None for result in results)
    return [result for result in results if result is not None]


class _Parsers:
    """Child processes that parse, and who hears of it."""

    def __init__(self, indexers: Sequence[Indexer], tell: Callable[[_Header], None]) -> None:
        self._tell = tell
        self.is_stopped = False
        self._idle: SimpleQueue[Indexer] = SimpleQueue()
        for indexer in indexers:
            indexer.start()  # ready when the first bytes are
            self._idle.put(indexer)

    def stop(self) -> None:
        """Let nobody begin another round."""
        self.is_stopped = True

    def parse(self, header: _Header) -> None:
        """Give a shard its result, or note what it wants for one."""
        indexer = self._idle.get()
        try:
            found = indexer.index_pieces(
                header.location, header.size, header.pieces, with_fingerprint=header.with_fingerprint
            )
        except WellkitError as error:
            header.result = error
        else:
            if isinstance(found, ShardIndex):
                header.result = found
            else:
                header.want(found)
        finally:
            self._idle.put(indexer)
        if header.result is not None:
            self._tell(header)


def _until_done(headers: Sequence[_Header], reader: Reader, pool: ThreadPoolExecutor, parsers: _Parsers) -> None:
    waiting = list(headers)
    while waiting and not parsers.is_stopped:
        _one_round(waiting, reader, pool, parsers.parse)
        waiting = [header for header in waiting if header.result is None]


def _one_round(
    headers: Sequence[_Header], reader: Reader, pool: ThreadPoolExecutor, parse: Callable[[_Header], None]
) -> None:
    """Get what the shards want; each is parsed once nothing more is wanted, while others' bytes still come."""
    ranges = [ByteRange(header.location, *extent) for header in headers for extent in header.wanted]
    owners = [header for header in headers for _ in header.wanted]
    buffers = [bytearray(part.stop - part.start) for part in ranges]
    parts: dict[int, list[int]] = {header.number: [] for header in headers}
    for number, header in enumerate(owners):
        parts[header.number].append(number)
    left = {header.number: len(parts[header.number]) for header in headers}
    parsing: list[Future[None]] = []
    lock = threading.Lock()

    def arrived(header: _Header) -> None:
        header.add((ranges[number].start, bytes(buffers[number])) for number in parts[header.number])
        if not header.wanted:
            parsing.append(pool.submit(parse, header))

    def done(number: int) -> None:
        header = owners[number]
        with lock:
            left[header.number] -= 1
            if left[header.number]:
                return
        arrived(header)

    for header in headers:
        if not parts[header.number]:
            arrived(header)
    if ranges:
        reader.read(ranges, [memoryview(buffer) for buffer in buffers], done)
        assert not any(left.values())  # the reader tells of each range or raises
    for future in parsing:
        future.result()
