"""Two models on the same trajectories: differences pair by pair, and how far they can be told from chance.

The spread between trajectories is mostly the same for both models, so it is the differences that are looked at, each
trajectory's mean one-step score of the one model minus that of the other. The unit that is drawn is the trajectory:
frames of one trajectory are anything but independent.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from wellkit.errors import ScoreError
from wellkit.schemas.result import Result, TrajectoryScores

LEAST_TRAJECTORIES = 10
DRAWS = 10_000
LEVEL = 0.95
_AT_ONCE = 2**22  # drawn numbers in memory


@dataclass(frozen=True)
class Interval:
    """A 95 % interval of a mean difference.

    Attributes:
        low, high: its ends; None where there are fewer than 10 independent trajectories ("no interval").
        trajectories: how many were paired.
        strata: how many groups of equal parameters they were drawn within.
    """

    low: float | None
    high: float | None
    trajectories: int
    strata: int

    @property
    def excludes_zero(self) -> bool:
        """Whether there is an interval, and all of it is on one side of 0."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


@dataclass(frozen=True)
class Comparison:
    """A row against another (persistence, in a table), trajectory by trajectory.

    Attributes:
        mean_difference: of the trajectories' one-step scores, row minus the other: negative is better.
        ratio: mean over trajectories of the other's score over the row's.
        better: on how many trajectories the row is better.
        interval: of the mean difference.
        behind_from: first rollout step at which the row's score exceeds the other's; None if it never does.
    """

    mean_difference: float
    ratio: float
    better: int
    interval: Interval
    behind_from: int | None


def compare(row: Sequence[Result], other: Sequence[Result]) -> Comparison:
    """A model's results (one a seed) against another's.

    A trajectory's value is the mean over components of its one-step means (`headline_of_trajectory`), averaged over
    seeds before anything else: seeds are no further trajectories. Trajectories are paired by their content, whatever
    their files are called, and such of equal content count once. Those without a score (all targets flat) are left
    out. Where both models are infinite the difference is 0.

    Raises:
        ScoreError: there is nothing to compare, or not the same trajectories.
    """
    if not row or not other:
        raise ScoreError("two models are compared by their results; one of them has none")
    mine, theirs = _by_trajectory(row), _by_trajectory(other)
    if mine.keys() != theirs.keys():
        raise ScoreError(
            f"{row[0].model.name} and {other[0].model.name} were not scored on the same trajectories "
            f"({len(mine.keys() & theirs.keys())} of {len(mine)} and {len(theirs)} are shared); score both on one split"
        )
    strata = {each.content_sha256: each.stratum for each in row[0].trajectories}
    digests = [key for key in mine if not math.isnan(mine[key]) and not math.isnan(theirs[key])]
    if not digests:
        raise ScoreError(f"{row[0].model.name} and {other[0].model.name} have no trajectory with a score in common")
    pairs = [(mine[key], theirs[key]) for key in digests]
    differences = [0.0 if one == two else one - two for one, two in pairs]
    ids = sorted(result.id for result in (*row, *other))
    seed = int.from_bytes(hashlib.sha256(" ".join(ids).encode()).digest()[:8], "big")
    return Comparison(
        mean_difference=float(_mean(np.array(differences))),
        ratio=_mean_ratio(pairs),
        better=sum(one < two for one, two in pairs),
        interval=paired_interval(differences, [strata[key] for key in digests], seed=seed),
        behind_from=_behind_from(row, other),
    )


def headline_of_trajectory(scores: TrajectoryScores) -> float:
    """Mean over components of a trajectory's one-step means; NaN where all its targets are flat."""
    known = [value for value in scores.one_step.values() if value == value]
    return math.fsum(known) / len(known) if known else math.nan


def paired_interval(differences: Sequence[float], strata: Sequence[Hashable], *, seed: int) -> Interval:
    """The 95 % percentile interval of the mean of paired differences, by a bootstrap stratified by parameters.

    Within a stratum of n trajectories, n - 1 are drawn with replacement, and its mean weighs n: with n draws the spread
    would come out too small by (n - 1) / n, which for two trajectories of a kind is half (Rao and Wu 1988, Journal of
    the American Statistical Association 83, 231-241; percentile interval: Efron and Tibshirani 1993, An Introduction
    to the Bootstrap, chapter 13). Strata of one trajectory are pooled into one. 10,000 draws. Ends are drawn values,
    not values between such, so infinite differences give infinite ends and never NaN.

    Args:
        differences: one for each trajectory; infinite ones are allowed.
        strata: a key for each: trajectories of equal keys differ by their initial state alone.
        seed: of the draws.
    """
    groups = _groups(strata)
    count = len(differences)
    if count < LEAST_TRAJECTORIES:
        return Interval(None, None, count, len(groups))
    values = np.array(differences, dtype=np.float64)
    generator = np.random.default_rng(seed)
    infinite = np.isinf(values)
    finite = np.where(infinite, 0.0, values)
    means = np.zeros(DRAWS)
    ups, downs = np.zeros(DRAWS, dtype=bool), np.zeros(DRAWS, dtype=bool)
    for group in groups:
        size = len(group) - 1
        for start in range(0, DRAWS, piece := max(1, _AT_ONCE // size)):
            chosen = group[generator.integers(0, len(group), (min(piece, DRAWS - start), size))]
            part = slice(start, start + len(chosen))
            means[part] += finite[chosen].mean(axis=1) * (len(group) / count)
            ups[part] |= (values[chosen] == np.inf).any(axis=1)
            downs[part] |= (values[chosen] == -np.inf).any(axis=1)
    tail = (1 - LEVEL) / 2
    # A draw with infinities of both signs has no mean: it may be anything.
    low = np.quantile(np.where(downs, -np.inf, np.where(ups, np.inf, means)), tail, method="lower")
    high = np.quantile(np.where(ups, np.inf, np.where(downs, -np.inf, means)), 1 - tail, method="higher")
    return Interval(float(low), float(high), count, len(groups))


def _groups(strata: Sequence[Hashable]) -> list[np.ndarray]:
    """Places of each stratum's trajectories; those alone in theirs together, and never one alone."""
    places: dict[Hashable, list[int]] = {}
    for place, key in enumerate(strata):
        places.setdefault(key, []).append(place)
    groups = [group for group in places.values() if len(group) > 1]
    alone = [group[0] for group in places.values() if len(group) == 1]
    if len(alone) == 1 and groups:
        min(groups, key=len).append(alone[0])
    elif alone:
        groups.append(alone)
    return [np.array(group) for group in groups]


def _by_trajectory(results: Sequence[Result]) -> dict[str, float]:
    """Mean over seeds of each trajectory's value, by the digest of its content."""
    names = [tuple(each.content_sha256 for each in result.trajectories) for result in results]
    if len(set(names)) != 1:
        raise ScoreError(f"the seeds of {results[0].model.name} were not scored on the same trajectories")
    return {
        each.content_sha256: math.fsum(headline_of_trajectory(result.trajectories[n]) for result in results)
        / len(results)
        for n, each in enumerate(results[0].trajectories)
    }


def _mean(values: np.ndarray) -> float:
    """Mean; 0 where both infinities are there, since neither model can be said to be better."""
    if np.isposinf(values).any() and np.isneginf(values).any():
        return 0.0
    return float(values.mean())


def _mean_ratio(pairs: Sequence[tuple[float, float]]) -> float:
    """Mean of the other's score over the row's; 1 where they are equal, be it 0 or infinity."""
    ratios = [1.0 if one == two else math.inf if one == 0 else two / one for one, two in pairs]
    return math.fsum(ratios) / len(ratios)


def _behind_from(row: Sequence[Result], other: Sequence[Result]) -> int | None:
    curves = [np.mean([result.rollout.per_step for result in results], axis=0) for results in (row, other)]
    for step, (one, two) in enumerate(zip(*curves, strict=False), start=1):
        if one > two:
            return step
    return None
