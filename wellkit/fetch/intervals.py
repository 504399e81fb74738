"""Sets of bytes of a file, as disjoint stretches in order. Pure arithmetic on arrays."""

from __future__ import annotations

import numpy as np

_NONE = np.array([-1], np.int64)  # before all bytes: every look-up finds something at or before its byte


class Intervals:
    """A set of bytes. Never changed: a thread may go on with the one it has.

    Attributes:
        starts, stops: int64, axis (stretch + 1): [start, stop), in order, none touching the next. The first is empty.
    """

    __slots__ = ("starts", "stops")

    def __init__(self, starts: np.ndarray = _NONE, stops: np.ndarray = _NONE) -> None:
        self.starts, self.stops = starts, stops

    @property
    def nbytes(self) -> int:
        """How many bytes are in the set."""
        return int((self.stops - self.starts).sum())

    def covers(self, ranges: np.ndarray) -> bool:
        """Whether all bytes of `ranges`, int64, axes (range, 2), are in the set."""
        behind = self.stops[np.searchsorted(self.starts, ranges[:, 0], side="right") - 1]
        return bool((behind >= ranges[:, 1]).all())

    def covered(self, starts: np.ndarray, stops: np.ndarray) -> np.ndarray:
        """Of each stretch, whether it is in the set; bool."""
        found: np.ndarray = self.stops[np.searchsorted(self.starts, starts, side="right") - 1] >= stops
        return found

    def gaps(self, start: int, stop: int) -> list[tuple[int, int]]:
        """What of [start, stop) is not in the set, in order."""
        first = int(np.searchsorted(self.stops, start, side="right"))
        end = int(np.searchsorted(self.starts, stop, side="left"))
        if first >= end:
            return [(start, stop)]
        begins = [start, *self.stops[first:end].tolist()]
        ends = [*self.starts[first:end].tolist(), stop]
        return [(begin, end) for begin, end in zip(begins, ends, strict=True) if begin < end]

    def union(self, starts: np.ndarray, stops: np.ndarray) -> Intervals:
        """The set with more stretches in it, which may overlap."""
        starts, stops = np.concatenate([self.starts, starts]), np.concatenate([self.stops, stops])
        order = np.argsort(starts, kind="stable")
        starts, stops = starts[order], np.maximum.accumulate(stops[order])
        is_first = np.ones(starts.size, bool)
        is_first[1:] = starts[1:] > stops[:-1]
        if starts.size > 1:
            is_first[1] = True  # the empty one stays by itself
        return Intervals(starts[is_first], stops[np.append(is_first[1:], True)])
