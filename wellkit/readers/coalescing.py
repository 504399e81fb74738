"""From what a batch needs of remote shards to the byte ranges to ask for: each byte once, near ones together.

Pure arithmetic: nothing is fetched here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from wellkit.index.model import MISSING
from wellkit.readers.chunked import Frame, Unit
from wellkit.readers.geometry import row_major
from wellkit.readers.pieces import Piece

if TYPE_CHECKING:
    from wellkit.fetch.ranges import ByteRange

GAP = 1 << 16  # bytes; fetching as many takes less time than a request of their own
WASTE = 0.04  # unneeded bytes between what is needed that are fetched for the sake of fewer requests, at most
SMALLEST, LARGEST = 1 << 20, 1 << 23  # bytes of a request when a long run is shared among connections


class Need(NamedTuple):
    """Bytes of a shard that are needed in memory as one block.

    Attributes:
        begin, end: the block.
        starts: int64, axis (run): where its runs of needed bytes begin, in order; the rest of the block may hold
            anything.
        run: bytes of each of them.
    """

    begin: int
    end: int
    starts: np.ndarray
    run: int

    @property
    def bounds(self) -> tuple[int, int]:
        """From the first needed byte to behind the last one."""
        return int(self.starts[0]), int(self.starts[-1]) + self.run


@dataclass(frozen=True, eq=False)
class Transfers:
    """What to ask one shard for, and the memory it goes to.

    Attributes:
        location: the shard.
        blocks: int64, axes (block, 2): disjoint stretches of the shard, in order, that each lie in memory as one.
        ranges: int64, axes (range, 2): disjoint, in order, each within a block.
        needed: bytes that were asked for, each counted once.
    """

    location: str
    blocks: np.ndarray
    ranges: np.ndarray
    needed: int

    def byte_ranges(self) -> list[ByteRange]:
        """The ranges as the network's side wants them."""
        from wellkit.fetch.ranges import ByteRange  # imports the network's libraries

        return [ByteRange(self.location, begin, end) for begin, end in self.ranges.tolist()]

    def over(self, begin: int, end: int) -> range:
        """Numbers of the ranges that have bytes in [begin, end)."""
        first = int(np.searchsorted(self.ranges[:, 1], begin, side="right"))
        return range(first, int(np.searchsorted(self.ranges[:, 0], end, side="left")))


def plan_transfers(
    needs: dict[str, list[Need]], *, connections: int, gap: int = GAP, waste: float = WASTE
) -> list[Transfers]:
    """What to ask each shard for.

    Args:
        needs: by location.
        connections: how many ranges are fetched at a time; long ones are cut so that each has something to do.
        gap: runs with at most so many bytes between them are fetched as one,
        waste: as long as such gaps, smallest first, add no more than this share to the bytes of a shard.
    """
    merged = {location: _runs(found, gap, waste) for location, found in needs.items()}
    total = sum(int((runs[:, 1] - runs[:, 0]).sum()) for runs, _ in merged.values())
    part = min(LARGEST, max(SMALLEST, -(-total // connections)))
    transfers = []
    for location, (runs, needed) in merged.items():
        spans = np.array([(need.begin, need.end) for need in needs[location]], dtype=np.int64).reshape(-1, 2)
        blocks = _united(np.concatenate([spans, runs]))
        transfers.append(Transfers(location, blocks, _cut(runs, part), needed))
    return transfers


def _runs(needs: Sequence[Need], gap: int, waste: float) -> tuple[np.ndarray, int]:
    """(stretches to fetch, axes (stretch, 2), and how many bytes of them are needed)."""
    starts = np.concatenate([need.starts for need in needs])
    lengths = np.repeat([need.run for need in needs], [need.starts.size for need in needs])
    exact = _united(np.stack([starts, starts + lengths], axis=1))
    needed = int((exact[:, 1] - exact[:, 0]).sum())
    gaps = exact[1:, 0] - exact[:-1, 1]
    order = np.argsort(gaps, kind="stable")
    bridged = np.zeros(gaps.size, bool)
    bridged[order] = (gaps[order] <= gap) & (np.cumsum(gaps[order]) <= waste * needed)
    first = np.concatenate([[True], ~bridged])
    last = np.concatenate([~bridged, [True]])
    return np.stack([exact[first, 0], exact[last, 1]], axis=1), needed


def _united(stretches: np.ndarray) -> np.ndarray:
    """The union of stretches, axes (stretch, 2), as disjoint ones in order; those that touch become one."""
    stretches = stretches[np.argsort(stretches[:, 0], kind="stable")]
    ends = np.maximum.accumulate(stretches[:, 1])
    first = np.concatenate([[True], stretches[1:, 0] > ends[:-1]])
    last = np.concatenate([first[1:], [True]])
    return np.stack([stretches[first, 0], ends[last]], axis=1)


def _cut(runs: np.ndarray, part: int) -> np.ndarray:
    """Runs cut into equal parts of at most `part` bytes."""
    pieces: list[tuple[int, int]] = []
    for begin, end in runs.tolist():
        count = -(-(end - begin) // part)
        size = -(-(end - begin) // count)
        pieces += [(at, min(at + size, end)) for at in range(begin, end, size)]
    return np.array(pieces, dtype=np.int64).reshape(-1, 2)


def unit_needs(unit: Unit, gap: int = GAP) -> list[tuple[Piece, Need]]:
    """What a step needs of its pieces, chunks that were never written left out; see `frame_needs`."""
    geometry = unit.job.geometry
    dims, strides = geometry.dims.tolist(), geometry.strides.tolist()
    return [
        (piece, need)
        for frames in unit.frames
        for frame, steps in zip(frames, strides, strict=True)
        for piece, need in zip(frame.pieces, frame_needs(frame, dims, steps, gap), strict=True)
        if need is not None
    ]


def frame_needs(frame: Frame, dims: Sequence[int], strides: Sequence[int], gap: int = GAP) -> list[Need | None]:
    """What a frame needs of each of its pieces; None for a chunk that was never written.

    Of what is stored as it is that is all but what lies between distant rows or planes of a crop, or belongs to other
    frames; of a compressed chunk, all of it.

    Args:
        dims: points along each axis, outermost first; axes that lie side by side may be one.
        strides: elements between them along each axis, and components of a point.
        gap: bytes between rows below which they are fetched too.
    """
    field = frame.field
    array, item = field.array, field.dtype.itemsize
    needs: list[Need | None] = []
    for number, piece in enumerate(frame.pieces):
        _, _, place, nbytes = piece.source
        if piece.is_chunk:
            offset, size = int(array.offsets[place]), int(array.sizes[place])
            whole = Need(offset, offset + size, np.array([offset], np.int64), size)
            needs.append(None if offset == MISSING else whole)
            continue
        first, sizes, pitches = 0, dims, strides
        if field.kind == "boxes":
            cuts, steps = field.boxes[number].source, row_major(array.chunk_shape[field.lead :])
            first = item * sum(cut.start * step for cut, step in zip(cuts, steps, strict=True))
            sizes = [len(range(cut.start, cut.stop, cut.step)) for cut in cuts]
            pitches = [*(step * cut.step for cut, step in zip(cuts, steps, strict=True)), 1]
        starts, run = _runs_of(item, sizes, pitches, gap)
        needs.append(Need(place, place + nbytes, place + first + starts, run))
    return needs


def _runs_of(itemsize: int, dims: Sequence[int], strides: Sequence[int], gap: int) -> tuple[np.ndarray, int]:
    """Bytes from the first element to the beginning of each run, and bytes of a run."""
    run = itemsize * strides[-1]
    starts = np.zeros(1, np.int64)
    for size, stride in reversed(list(zip(dims, strides[:-1], strict=True))):
        pitch = itemsize * stride
        if size == 1 or pitch == 0:
            continue
        if starts.size == 1 and pitch - run <= gap:
            run += (size - 1) * pitch
        else:
            starts = (np.arange(size, dtype=np.int64)[:, None] * pitch + starts).reshape(-1)
    return starts, run
