"""Shuffles, restrictions and draws follow from their seeds, and from nothing else."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wellkit.errors import ArgumentError
from wellkit.sampling import draw_stride, generator, restrict, shuffled
from wellkit.windows import WindowTable

TABLE = WindowTable([3, 2], [4, 5])  # samples 0-11 of file 0, 12-21 of file 1


def trajectory_of(sample: int) -> int:
    return sample // 4 if sample < 12 else 3 + (sample - 12) // 5


def test_shuffles_differ_by_seed_and_epoch_without_shifted_copies() -> None:
    orders = {(s, e): tuple(shuffled(50, seed=s, epoch=e)) for s in range(3) for e in range(3)}
    assert len(set(orders.values())) == 9  # seed 1 epoch 0 is not seed 0 epoch 1
    assert all(sorted(order) == list(range(50)) for order in orders.values())
    assert orders[1, 2] == tuple(shuffled(50, seed=1, epoch=2))


def test_generators_are_keyed_by_all_three_numbers() -> None:
    draws = {generator(s, e, i).integers(1 << 60) for s in range(3) for e in range(3) for i in range(3)}
    assert len(draws) == 27


@given(st.integers(0, 10_000), st.integers(1, 4), st.integers(1, 6))
def test_strides_stay_in_their_range(seed: int, smallest: int, largest: int) -> None:
    stride = draw_stride(np.random.default_rng(seed), smallest, largest)
    assert smallest <= stride <= max(smallest, largest)


@pytest.mark.parametrize("count", [1, 2, 4, 5])
def test_restricted_trajectories_are_distinct_and_whole(count: int) -> None:
    chosen = restrict(TABLE, n_trajectories=count, n_samples=None, seed=3)
    trajectories = [trajectory_of(int(sample)) for sample in chosen]
    assert len(set(trajectories)) == count
    assert len(chosen) == sum(4 if trajectory < 3 else 5 for trajectory in set(trajectories))
    assert len(set(chosen.tolist())) == len(chosen)


def test_larger_restrictions_contain_smaller_ones() -> None:
    for argument in ("n_trajectories", "n_samples"):
        other: dict[str, Any] = {"n_samples": None, "n_trajectories": None}
        sets = [set(restrict(TABLE, seed=7, **(other | {argument: n})).tolist()) for n in (1, 2, 4)]
        assert sets[0] < sets[1] < sets[2]


def test_shares_and_counts() -> None:
    assert len(restrict(TABLE, n_trajectories=None, n_samples=0.5, seed=0)) == 11
    assert len(restrict(TABLE, n_trajectories=None, n_samples=1.0, seed=0)) == 22
    assert len(restrict(TABLE, n_trajectories=None, n_samples=1, seed=0)) == 1
    assert len(restrict(TABLE, n_trajectories=99, n_samples=None, seed=0)) == 22
    both = restrict(TABLE, n_trajectories=1, n_samples=2, seed=0)
    assert len({trajectory_of(int(sample)) for sample in both}) == 1


@pytest.mark.parametrize("wanted", [0, -1, 0.0, 0.001, 2.5, float("nan"), float("inf")])
def test_restrictions_that_leave_nothing_are_refused(wanted: float) -> None:
    with pytest.raises(ArgumentError, match="restrict_num_samples"):
        restrict(TABLE, n_trajectories=None, n_samples=wanted, seed=0)
