"""Paired differences: by hand where it can be, and an interval that covers what it says."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tests.benchmark.results import make_result
from wellkit.benchmark.pairing import Interval, compare, headline_of_trajectory, paired_interval
from wellkit.errors import ScoreError
from wellkit.schemas.result import Result


def scored(name: str, values: list[list[float]], *, seed: int = 0, rollout: tuple[float, ...] = (1.0,)) -> Result:
    """A result of which trajectory i scores values[i] (by component) one step ahead: all that `compare` reads."""
    made = make_result(name, seed=seed, trajectories=(len(values),), frames=(12,))
    trajectories = tuple(
        each.model_copy(update={"one_step": dict(zip("uv", value, strict=True))})
        for each, value in zip(made.trajectories, values, strict=True)
    )
    curve = made.rollout.model_copy(update={"per_step": rollout})
    return made.model_copy(update={"trajectories": trajectories, "rollout": curve})


def test_by_hand() -> None:
    row = scored("fno", [[0.1, 0.3], [0.4, 0.6], [0.5, 0.5]], rollout=(0.5, 0.9, 1.3))  # 0.2, 0.5, 0.5
    other = scored("persistence", [[0.4, 0.4], [0.3, 0.5], [1.0, 1.0]], rollout=(0.9, 0.9, 1.2))  # 0.4, 0.4, 1.0
    found = compare([row], [other])
    assert found.mean_difference == pytest.approx((-0.2 + 0.1 - 0.5) / 3)
    assert found.ratio == pytest.approx((2 + 0.8 + 2) / 3)
    assert found.better == 2
    assert found.interval == Interval(None, None, 3, 1)
    assert found.behind_from == 3  # equal at step 2


def test_seeds_are_averaged_before_pairs_are_made() -> None:
    row = [scored("fno", [[0.1, 0.1], [0.5, 0.5]]), scored("fno", [[0.3, 0.3], [0.1, 0.1]], seed=1)]  # 0.2, 0.3
    found = compare(row, [scored("persistence", [[0.25, 0.25], [0.25, 0.25]])])
    assert found.mean_difference == pytest.approx(0.0)
    assert found.better == 1
    assert found.interval.trajectories == 2


def test_components_that_are_all_flat_are_left_out() -> None:
    row = scored("fno", [[0.1, math.nan], [math.nan, math.nan]])
    assert headline_of_trajectory(row.trajectories[0]) == 0.1
    found = compare([row], [scored("persistence", [[0.2, math.nan], [math.nan, math.nan]])])
    assert found.mean_difference == pytest.approx(-0.1)
    assert found.interval.trajectories == 1


def test_infinity_is_no_nan() -> None:
    inf = math.inf
    row = scored("fno", [[inf, 0.1], [0.1, 0.1], [inf, inf]], rollout=(inf, inf))
    other = scored("persistence", [[0.2, 0.2], [0.2, 0.2], [inf, inf]], rollout=(0.5, inf))
    found = compare([row], [other])
    assert found.mean_difference == inf
    assert found.ratio == pytest.approx((0 + 2 + 1) / 3)
    assert (found.better, found.behind_from) == (1, 1)
    back = compare([other], [row])
    assert (back.mean_difference, back.ratio, back.behind_from) == (-inf, inf, None)
    both = compare([row], [scored("persistence", [[0.2, 0.2], [inf, inf], [0.1, 0.1]])])
    assert both.mean_difference == 0.0
    zero = compare([scored("fno", [[0.0, 0.0]])], [scored("persistence", [[0.0, 0.0]])])
    assert (zero.ratio, zero.mean_difference) == (1.0, 0.0)


def test_intervals_with_infinite_differences() -> None:
    strata = ["a"] * 12
    one = paired_interval([math.inf] + [-0.1] * 11, strata, seed=0)
    assert one.low == pytest.approx(-0.1)
    assert one.high == math.inf
    assert not one.excludes_zero
    both = paired_interval([math.inf, -math.inf] + [-0.1] * 10, strata, seed=0)
    assert (both.low, both.high) == (-math.inf, math.inf)
    whole = paired_interval([math.inf] * 12, strata, seed=0)
    assert (whole.low, whole.high, whole.excludes_zero) == (math.inf, math.inf, True)


def test_an_interval_from_ten_trajectories_up() -> None:
    values = np.random.default_rng(0).normal(-0.3, 0.1, 10).tolist()
    assert paired_interval(values[:9], ["a"] * 9, seed=0) == Interval(None, None, 9, 1)
    found = paired_interval(values, ["a"] * 10, seed=0)
    assert found.low is not None
    assert found.high is not None
    assert found.low < np.mean(values) < found.high < 0
    assert found.excludes_zero
    assert found == paired_interval(values, ["a"] * 10, seed=0)
    assert found != paired_interval(values, ["a"] * 10, seed=1)


def test_strata() -> None:
    values = [0.0] * 5 + [1.0] * 5
    # Nothing varies within the strata: all there is to know is known.
    by_stratum = paired_interval(values, ["a"] * 5 + ["b"] * 5, seed=0)
    assert (by_stratum.low, by_stratum.high, by_stratum.strata) == (0.5, 0.5, 2)
    # All alone: one stratum. Mean of 9 draws of 0 or 1: the 2.5 % and 97.5 % quantiles of Binomial(9, 1/2) are 2 and 7.
    alone = paired_interval(values, list(range(10)), seed=0)
    assert alone.low == pytest.approx(2 / 9)
    assert alone.high == pytest.approx(7 / 9)
    assert alone.strata == 1
    # One alone joins the smallest stratum.
    assert paired_interval(values, ["a"] * 4 + ["b"] * 5 + ["c"], seed=0).strata == 2
    # Pairs: one of two is drawn, so the ends are those of which all draws are the one.
    pairs = paired_interval([0.0, 1.0] * 5, [i // 2 for i in range(10)], seed=0)
    assert (pairs.low, pairs.high, pairs.strata) == (0.0, 1.0, 5)


@pytest.mark.parametrize(("count", "strata"), [(10, 1), (12, 3), (20, 10), (40, 5)])
def test_the_interval_covers_the_truth_about_as_often_as_it_says(count: int, strata: int) -> None:
    generator = np.random.default_rng([count, strata])
    keys = [place % strata for place in range(count)]
    effects = generator.normal(0, 1, strata)
    truth = float(np.mean([effects[key] for key in keys]))
    hits = 0
    for number in range(300):
        values = [effects[key] + generator.normal(0, 0.5) for key in keys]
        found = paired_interval(values, keys, seed=number)
        assert found.low is not None
        assert found.high is not None
        hits += found.low <= truth <= found.high
    assert 0.88 <= hits / 300 <= 0.99, hits


def test_what_cannot_be_paired_is_refused() -> None:
    one = make_result("fno")
    with pytest.raises(ScoreError, match=r"not scored on the same trajectories \(0 of 3 and 3 are shared\)"):
        compare([one], [make_result("persistence", data=1)])
    with pytest.raises(ScoreError, match="none"):
        compare([one], [])
    with pytest.raises(ScoreError, match="the seeds of fno"):
        compare([one, make_result("fno", data=1, seed=2)], [one])
    flat = scored("fno", [[math.nan, math.nan]])
    with pytest.raises(ScoreError, match="no trajectory with a score"):
        compare([flat], [flat])
