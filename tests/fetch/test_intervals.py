"""Sets of bytes against the plainest there is: a flag for each byte."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from wellkit.fetch.intervals import Intervals

N = 60
SPAN = st.tuples(st.integers(0, N - 1), st.integers(1, 12)).map(lambda pair: (pair[0], min(N, sum(pair))))
BATCHES = st.lists(st.lists(SPAN, max_size=4), max_size=6)


def flags(spans: list[tuple[int, int]]) -> np.ndarray:
    found = np.zeros(N, bool)
    for start, stop in spans:
        found[start:stop] = True
    return found


def stretches(intervals: Intervals) -> list[tuple[int, int]]:
    return list(zip(intervals.starts[1:].tolist(), intervals.stops[1:].tolist(), strict=True))


@given(BATCHES, st.lists(SPAN, min_size=1, max_size=5))
def test_a_set_holds_what_was_put_into_it(batches: list[list[tuple[int, int]]], asked: list[tuple[int, int]]) -> None:
    intervals, truth = Intervals(), np.zeros(N, bool)
    for batch in batches:
        pairs = np.array(batch, np.int64).reshape(-1, 2)
        intervals = intervals.union(pairs[:, 0], pairs[:, 1])
        truth |= flags(batch)
    found = stretches(intervals)
    np.testing.assert_array_equal(flags(found), truth)
    assert all(stop < start for (_, stop), (start, _) in pairwise(found))  # as few as can be
    assert intervals.nbytes == truth.sum()
    ranges = np.array(asked, np.int64)
    inside = [bool(truth[start:stop].all()) for start, stop in asked]
    assert intervals.covered(ranges[:, 0], ranges[:, 1]).tolist() == inside
    assert intervals.covers(ranges) == all(inside)
    for start, stop in asked:
        gaps = intervals.gaps(start, stop)
        np.testing.assert_array_equal(flags(gaps), flags([(start, stop)]) & ~truth)
        assert gaps == sorted(gaps)


def test_nothing_asked_is_there() -> None:
    assert Intervals().covers(np.empty((0, 2), np.int64))
    assert not Intervals().covers(np.array([[0, 1]]))
    assert Intervals().gaps(3, 9) == [(3, 9)]
