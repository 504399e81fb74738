"""Sums and tables of scores: by hand, against exact fractions, and the same bits however the work is divided."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wellkit import metrics
from wellkit.errors import DataValueError, ScoreError
from wellkit.metrics import ExactSum, ScoreSummary, ScoreTable

FINITE = st.floats(allow_nan=False, allow_infinity=False)  # to the largest, and subnormals


@settings(max_examples=200, deadline=None)
@given(st.lists(FINITE, max_size=30))
def test_sums_are_exact_fractions_rounded_once(values: list[float]) -> None:
    exact = sum((Fraction(v) for v in values), Fraction())
    found = ExactSum(values)
    try:
        expected = float(exact)
    except OverflowError:
        expected = math.inf if exact > 0 else -math.inf
    assert found.value == expected
    if values:
        assert found.mean == float(exact / len(values))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.one_of(FINITE, st.sampled_from([math.inf, -math.inf])), min_size=1, max_size=20), st.randoms())
def test_order_and_division_of_a_sum_do_not_matter(values: list[float], chance: object) -> None:
    whole = ExactSum(values)
    shuffled = list(values)
    chance.shuffle(shuffled)  # type: ignore[attr-defined]
    cut = chance.randint(0, len(values))  # type: ignore[attr-defined]
    first, second = ExactSum(shuffled[:cut]), ExactSum(shuffled[cut:])
    first.merge(ExactSum.from_state(json.loads(json.dumps(second.state()))))
    assert first.state() == whole.state()
    np.testing.assert_array_equal(first.mean, whole.mean)  # NaN of opposite infinities included


def test_sums_where_plain_ones_lose_everything() -> None:
    # 1e16 + 1 = 1e16 in float64: added in order, the ones are gone.
    values = [1e16, *[1.0] * 10, -1e16]
    assert math.isclose(sum(values), 0.0)
    assert ExactSum(values).value == 10.0
    assert metrics.exact_mean([1e16, 1.0, 1.0, -1e16]) == 0.5
    assert ExactSum(np.full((3, 4), 0.1)).value == 1.2000000000000002  # 12 times 0.1's own value, above 1.2
    assert ExactSum([5e-324] * 3).value == 1.5e-323
    assert ExactSum([1.7e308, 1.7e308]).value == math.inf
    assert ExactSum([1.7e308, 1.7e308]).mean == 1.7e308


def test_sums_with_infinity_and_nan() -> None:
    assert ExactSum([1.0, math.inf]).mean == math.inf
    assert ExactSum([1.0, -math.inf]).mean == -math.inf
    assert math.isnan(ExactSum([math.inf, -math.inf]).value)
    assert math.isnan(ExactSum([1.0, math.nan]).value)
    with pytest.raises(ScoreError, match="no numbers"):
        metrics.exact_mean([])


# Sample 0: y = 1 2 3 6, x = 1 4 3 2: MSE 20/4 = 5, unbiased variance 14/3. Sample 1: y = 0 0 0 2, x = y + 1: MSE 1,
# variance 3/3 = 1 (mean 1/2: 3/4 + 9/4 = 3).
Y = np.array([[[1.0, 2.0], [3.0, 6.0]], [[0.0, 0.0], [0.0, 2.0]]])[..., None]
X = np.array([[[1.0, 4.0], [3.0, 2.0]], [[1.0, 1.0], [1.0, 3.0]]])[..., None]


def test_summary_by_hand() -> None:
    table = ScoreTable(n_spatial_dims=2, eps=0.0)
    table.add([0, 1], X, Y)
    table.add([2], X[:1] * 0 + Y[:1], Y[:1])  # exact: VRMSE 0
    found = table.summary(expected=3)
    # VRMSE sqrt(15/14), 1, 0: mean a third of the sum, median 1; pooled: mean MSE 6/3, mean variance (28/3 + 1)/3.
    assert found.mean == pytest.approx(((15 / 14) ** 0.5 + 1) / 3, rel=1e-15)
    assert found.median == 1.0
    assert found.pooled == pytest.approx((2 / (31 / 9)) ** 0.5, rel=1e-15)
    assert {name: values.shape for name, values in found.per_component.items()} == dict.fromkeys(
        ("mean", "median", "pooled"), (1,)
    )
    assert (found.samples, found.entries, found.nonfinite, found.flat_share) == (3, 3, 0, 0.0)
    assert table.vrmse(1).tolist() == [1.0]


def test_flat_targets_are_counted_and_eps_counts() -> None:
    # 100 eps = 1: the variance of sample 1 is just not below it, that of a uniform target is.
    table = ScoreTable(n_spatial_dims=2, eps=0.01)
    flat = np.full((1, 2, 2, 1), 5.0)
    table.add([0, 1], X, Y)
    table.add([2], flat + 0.2, flat)
    found = table.summary()
    assert (found.flat, found.entries) == (1, 3)
    assert table.vrmse(2)[0] == pytest.approx(2.0)  # sqrt(0.04 / 0.01)
    nothing = ScoreTable(n_spatial_dims=2, eps=0.0)
    nothing.add([0], flat, flat)
    assert nothing.summary().mean == nothing.summary().pooled == 0.0  # nothing varies, nothing is missed
    nothing.add([1], flat + 1, flat)
    assert nothing.summary().mean == nothing.summary().pooled == math.inf


def test_predictions_that_are_not_finite_score_infinity_and_are_counted() -> None:
    table = ScoreTable(n_spatial_dims=2)
    x = np.concatenate([X, X])
    x[0, 0, 0], x[1, 1, 1], x[2, 0, 0] = np.nan, -np.inf, 1e200
    table.add(range(4), x, np.concatenate([Y, Y]))
    found = table.summary()
    assert found.nonfinite == 3  # the square of 1e200 is beyond float64 too
    assert found.mean == found.pooled == math.inf
    assert math.isinf(found.median)


def fields() -> tuple[np.ndarray, np.ndarray]:
    """(sample, step, space, space, component), components of very unlike size."""
    rng = np.random.default_rng([1])
    scale = np.array([1.0, 1e-4, 3e3])
    y = (scale * (5 + rng.normal(size=(23, 2, 12, 10, 3)))).astype(np.float32)
    return (y + scale * rng.normal(size=y.shape)).astype(np.float32), y


def scored(groups: Iterable[Sequence[int]]) -> ScoreTable:
    x, y = fields()
    table = ScoreTable(n_spatial_dims=2)
    for group in groups:
        table.add(list(group), x[list(group)], y[list(group)])
    return table


def assert_same_bits(first: ScoreSummary, second: ScoreSummary) -> None:
    assert (first.mean, first.median, first.pooled) == (second.mean, second.median, second.pooled)
    for name, values in first.per_component.items():
        assert values.tobytes() == second.per_component[name].tobytes()


@settings(max_examples=15, deadline=None)
@given(st.permutations(range(23)), st.integers(1, 23), st.integers(1, 4))
def test_any_order_batch_and_division_gives_the_same_bits(order: list[int], size: int, processes: int) -> None:
    whole = scored([range(23)]).summary(expected=23)
    parts = [order[rank::processes] for rank in range(processes)]
    tables = [scored(part[i : i + size] for i in range(0, len(part), size)) for part in parts]
    for other in tables[1:]:
        tables[0].merge(ScoreTable.from_state(other.state()))
    assert_same_bits(tables[0].summary(expected=23), whole)


def test_scores_are_those_of_vrmse_to_the_last_bit() -> None:
    x, y = fields()
    expected = metrics.vrmse(x, y, n_spatial_dims=2)
    table = scored([range(23)])
    for sample in range(23):
        np.testing.assert_array_equal(table.vrmse(sample), expected[sample])
    found = table.summary()
    assert found.mean == pytest.approx(expected.mean(), rel=1e-14)
    assert found.median == np.median(expected)
    np.testing.assert_array_equal(found.per_component["median"], np.median(expected, axis=(0, 1)))


@pytest.mark.parametrize("lay_out", [np.asfortranarray, lambda a: a[::-1][::-1], lambda a: torch.tensor(a)])
def test_layout_in_memory_and_framework_change_no_bit(lay_out: object) -> None:
    x, y = fields()
    table = ScoreTable(n_spatial_dims=2)
    table.add(range(23), lay_out(x), lay_out(y))  # type: ignore[operator]
    assert_same_bits(table.summary(), scored([range(23)]).summary())


WORKER = """
import sys
import numpy as np
from wellkit.metrics import ScoreTable
rank, processes, size = (int(text) for text in sys.argv[1:4])
data = np.load(sys.argv[4])
x, y = data["x"], data["y"]
mine = [n % 23 for n in range(rank, -(-23 // processes) * processes, processes)]
table = ScoreTable(n_spatial_dims=2)
for i in range(0, len(mine), size):
    table.add(mine[i:i + size], x[mine[i:i + size]], y[mine[i:i + size]])
np.savez(sys.argv[5], **table.state())
"""


def test_real_processes_give_the_same_bits(tmp_path: Path) -> None:
    # Three processes with unequal batches; 23 samples do not divide by 3, so the last process repeats sample 0.
    x, y = fields()
    np.savez(tmp_path / "fields.npz", x=x, y=y)
    paths = [str(tmp_path / name) for name in ("fields.npz", "0.npz", "1.npz", "2.npz")]
    running = [
        subprocess.Popen([sys.executable, "-c", WORKER, str(rank), "3", str(size), paths[0], paths[rank + 1]])
        for rank, size in enumerate((1, 3, 16))
    ]
    assert [process.wait(120) for process in running] == [0, 0, 0]
    table = ScoreTable(n_spatial_dims=2)
    for rank in (2, 0, 1):
        with np.load(tmp_path / f"{rank}.npz", allow_pickle=False) as state:
            table.merge(ScoreTable.from_state(state))
    assert_same_bits(table.summary(expected=23), scored([range(23)]).summary())


def test_samples_missing_or_too_many_are_named() -> None:
    table = scored([range(5), range(6, 23)])
    with pytest.raises(ScoreError, match="22 of 23 samples were scored: sample 5 is missing"):
        table.summary(expected=23)
    with pytest.raises(ScoreError, match="sample 22 is too many"):
        scored([range(23)]).summary(expected=22)
    with pytest.raises(ScoreError, match="no samples"):
        ScoreTable(n_spatial_dims=2).summary()
    with pytest.raises(ScoreError, match="sample 5 was not scored"):
        table.vrmse(5)


def test_a_repeated_sample_counts_once_and_a_changed_one_is_refused() -> None:
    table = ScoreTable(n_spatial_dims=2)
    table.add([0, 1, 0], X[[0, 1, 0]], Y[[0, 1, 0]])
    assert len(table) == 2
    with pytest.raises(ScoreError, match="sample 1 was scored before"):
        table.add([1], X[:1], Y[:1])


def test_targets_that_are_not_finite() -> None:
    y = Y.copy()
    y[0, 0, 0] = np.nan
    with pytest.raises(DataValueError, match="sample 7 holds NaN"):
        ScoreTable(n_spatial_dims=2).add([7], X[:1], y[:1])
    # Left out: y = 2 3 6, x = 4 3 2: MSE 20/3; mean 11/3, squares 49 - 121/3 = 26/3, variance 13/3.
    table = ScoreTable(n_spatial_dims=2, eps=0.0, outside=True)
    table.add([7], X[:1], y[:1])
    assert table.vrmse(7)[0] == pytest.approx((20 / 13) ** 0.5)
    x = X.copy()
    x[0, 0, 0] = np.nan  # outside too: not scored
    table.add([8], x[:1], y[:1])
    np.testing.assert_array_equal(table.vrmse(8), table.vrmse(7))
    y[0, 0, 0] = np.inf
    with pytest.raises(DataValueError, match="holds infinity"):
        table.add([9], X[:1], y[:1])
    y[0, :, 0] = y[0, 0, 1] = np.nan
    with pytest.raises(DataValueError, match="holds 1 points"):
        table.add([9], X[:1], y[:1])


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ScoreError, match="eps=-1"):
        ScoreTable(n_spatial_dims=2, eps=-1.0)
    table = ScoreTable(n_spatial_dims=2)
    with pytest.raises(ScoreError, match="for 3 samples"):
        table.add([0, 1, 2], X, Y)
    with pytest.raises(ScoreError, match=r"\(2, 2, 2, 1\).*\(1, 2, 2, 1\)"):
        table.add([0, 1], X, Y[:1])
    table.add([0, 1], X, Y)
    with pytest.raises(ScoreError, match="components must be the same"):
        table.add([2], np.repeat(X[:1], 2, axis=-1), np.repeat(Y[:1], 2, axis=-1))
    assert table.summary().samples == 2  # the refused one has left nothing behind
    with pytest.raises(ScoreError, match="unequal"):
        table.merge(ScoreTable(n_spatial_dims=2, eps=1.0))
    state = table.state()
    for broken in ({}, state | {"values": state["values"][1:]}, state | {"samples": state["samples"][1:]}):
        with pytest.raises(ScoreError, match="not the state"):
            ScoreTable.from_state(broken)
    assert len(ScoreTable.from_state(ScoreTable(n_spatial_dims=2).state())) == 0
