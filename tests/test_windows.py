"""Index arithmetic of windows, against brute force and hand-counted cases."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wellkit.errors import ArgumentError
from wellkit.windows import Window, WindowTable, count_windows, largest_stride, rollout_outputs


@pytest.mark.parametrize(
    ("steps", "n_steps", "stride", "windows"),
    [
        (5, 2, 1, 4),  # [0 1] [1 2] [2 3] [3 4]
        (5, 2, 2, 3),  # [0 2] [1 3] [2 4]
        (5, 2, 3, 2),  # [0 3] [1 4]
        (5, 3, 2, 1),  # [0 2 4]
        (5, 3, 3, 0),  # needs 7 frames
        (5, 1, 4, 5),  # one frame has no stride
    ],
)
def test_count_windows_by_hand(steps: int, n_steps: int, stride: int, windows: int) -> None:
    assert count_windows(steps, n_steps, stride) == windows


@given(st.integers(1, 40), st.integers(1, 8), st.integers(1, 6))
def test_count_windows_is_the_number_that_fit(steps: int, n_steps: int, stride: int) -> None:
    fitting = [t for t in range(steps) if t + stride * (n_steps - 1) < steps]
    assert count_windows(steps, n_steps, stride) == len(fitting)


@given(st.integers(2, 40), st.integers(2, 8), st.data())
def test_largest_stride_fits_and_the_next_does_not(steps: int, n_steps: int, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, steps - 1))
    stride = largest_stride(start, steps, n_steps)
    assert start + stride * (n_steps - 1) < steps
    assert start + (stride + 1) * (n_steps - 1) >= steps


def test_rollout_outputs_by_hand() -> None:
    assert rollout_outputs(101, 4, 1, -1) == 97  # frames 4..100
    assert rollout_outputs(101, 4, 1, 17) == 84  # frames 17..100
    assert rollout_outputs(10, 1, 3, -1) == 2  # input 0; outputs 3, 6; the floor leaves 9 out
    assert rollout_outputs(4, 4, 1, -1) == 0


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 5)), min_size=1, max_size=6))
def test_window_table_enumerates_file_trajectory_start(files: list[tuple[int, int]]) -> None:
    table = WindowTable([n for n, _ in files], [w for _, w in files])
    listed = [Window(f, n, t) for f, (count, w) in enumerate(files) for n in range(count) for t in range(w)]
    assert len(table) == len(listed)
    assert [table.locate(i) for i in range(len(table))] == listed
    for outside in (-1, len(table)):
        with pytest.raises(IndexError, match="out of range"):
            table.locate(outside)


def test_window_table_samples_of_whole_trajectories() -> None:
    # file 0: trajectories 0, 1 with 3 windows each (samples 0-2, 3-5); file 1: trajectory 2 with 2 (samples 6, 7)
    table = WindowTable([2, 1], [3, 2])
    assert table.n_trajectories == 3
    np.testing.assert_array_equal(table.of_trajectories([2, 0]), [0, 1, 2, 6, 7])
    np.testing.assert_array_equal(table.of_trajectories([]), [])


def test_window_table_wants_one_count_a_file() -> None:
    with pytest.raises(ArgumentError, match="2 files but 1"):
        WindowTable([1, 1], [3])
