"""What only all shards together tell: whether they are alike, how many there are, and their statistics."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from wellkit.datasets.tree import SHARED
from wellkit.errors import DataNotFoundError, WellkitError
from wellkit.formats.statistics_file import load_statistics
from wellkit.schemas.card import SimulationCard
from wellkit.schemas.statistics import Statistics
from wellkit.schemas.validation import Finding
from wellkit.statistics import compare_statistics, component_values
from wellkit.validation import against_card
from wellkit.validation.codes import Where, finding
from wellkit.validation.headers import reason_of
from wellkit.validation.shard import ShardResult

TOLERANCE = 1e-3  # relative, for means to the spread: published files were computed in float32
_IDENTITY = 1e-3  # relative, by which rms² may miss mean² + std²
_LARGE = 1e3  # times the median over trajectories
_FEWEST = 3  # trajectories that have a median


def check_alike(results: Sequence[ShardResult]) -> Iterator[Finding]:
    """Shards that differ from most others in what all have to share."""
    parsed = [result for result in results if result.layout is not None]
    for what, of in SHARED:
        values = [repr(of(result.layout)) for result in parsed if result.layout is not None]
        if len(set(values)) < 2:
            continue
        usual, _ = Counter(values).most_common(1)[0]
        for result, value in zip(parsed, values, strict=True):
            if value != usual:
                told = f"its {what} is {_short(value)}, that of most others {_short(usual)}"
                yield finding("shards-differ", told, split=result.split, shard=result.name)


def _short(text: str) -> str:
    return text if len(text) <= 120 else f"{text[:117]}..."


def check_names(results: Sequence[ShardResult]) -> Iterator[Finding]:
    """File names that several splits use."""
    splits: dict[str, list[str]] = {}
    for result in results:
        splits.setdefault(result.name.rsplit("/", 1)[-1], []).append(result.split)
    shared = {name: found for name, found in splits.items() if len(set(found)) > 1}
    if shared:
        name, found = next(iter(shared.items()))
        which = "a file name is" if len(shared) == 1 else f"{len(shared)} file names are"
        told = f"{which} in more than one split: {name} in {', '.join(found)}"
        yield finding("shared-file-names", told)


def check_counts(
    card: SimulationCard, results: Sequence[ShardResult], chosen: Sequence[str]
) -> tuple[list[Finding], dict[str, bool]]:
    """(what is wrong with counts and sizes, by split whether it is known to be complete)."""
    found: list[Finding] = []
    complete: dict[str, bool] = {}
    for split in chosen:
        own = [result for result in results if result.split == split]
        count = sum(result.layout.n_trajectories for result in own if result.layout is not None)
        told, complete[split] = against_card.check_counts(card, split, len(own), count)
        found += told
    if card.splits and set(chosen) == set(card.splits) and all(complete.values()):
        found += against_card.check_size(card, sum(result.nominal for result in results))
    return found, complete


def check_scales(results: Sequence[ShardResult]) -> Iterator[Finding]:
    """Trajectories whose values are far larger or smaller than those of the others."""
    names = dict.fromkeys(name for result in results for name in result.trajectories)
    for name in names:
        entries = [
            (result, number, one.rms) for result in results for number, one in result.trajectories.get(name, {}).items()
        ]
        if len(entries) < _FEWEST or len({len(rms) for *_, rms in entries}) > 1:
            continue
        rms = np.stack([rms for *_, rms in entries])
        usual = np.median(rms, axis=0)
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = rms / usual
        far = (usual > 0) & ((ratio > _LARGE) | ((ratio < 1 / _LARGE) & (rms > 0)))
        for (result, number, _), wrong, ratios in zip(entries, far, ratio, strict=True):
            if wrong.any():
                component = int(np.argmax(wrong))
                told = f"its rms is {ratios[component]:.3g} times the median over trajectories"
                place: Where = {"split": result.split, "shard": result.name, "trajectory": number, "field": name}
                yield finding("outlier-trajectory", told, place)


def read_statistics(location: str, shapes: Mapping[str, tuple[int, ...]], constant: frozenset[str]) -> Any:
    """The recorded statistics, or the finding that says why there are none.

    Args:
        shapes, constant: as `Statistics.check` takes them.
    """
    try:
        recorded = load_statistics(location)
        recorded.check(shapes, source=location, constant=constant)
    except DataNotFoundError:
        return finding("no-statistics", "there is no stats.yaml: nothing to normalize with")
    except WellkitError as error:
        return finding("bad-statistics", reason_of(error, location))
    return recorded


def check_plausible(recorded: Statistics, steps: int, source: str) -> Iterator[Finding]:
    """What holds for statistics of any data, whether or not the data are at hand.

    Differences add up to last frame - first frame, whose mean is at most 2 sqrt(T) rms (Cauchy and Schwarz).
    """
    for component, values in component_values(recorded).items():
        for suffix in ("", "_delta"):
            mean, std, rms = (values.get(key) for key in (f"mean{suffix}", f"std{suffix}", f"rms{suffix}"))  # type: ignore[call-overload]
            if mean is None or std is None or rms is None:
                continue
            wanted = math.hypot(mean, std)
            if abs(rms - wanted) > _IDENTITY * max(rms, wanted):
                told = f"{source}: rms{suffix} is {rms:.6g}, mean{suffix} and std{suffix} make {wanted:.6g}"
                yield finding("impossible-statistics", told, field=component)
        shift, rms = values.get("mean_delta"), values.get("rms")
        if shift is None or rms is None or steps < 2:
            continue
        total, limit = abs(shift) * (steps - 1), 2 * math.sqrt(steps) * rms
        if total > limit * (1 + TOLERANCE):
            told = (
                f"{source}: |mean_delta| (T - 1) = {total:.4g} is how far a trajectory drifts on average, at most "
                f"2 sqrt(T) rms = {limit:.4g}"
            )
            yield finding("impossible-statistics", told, field=component)


def check_recorded(recorded: Statistics, computed: Statistics) -> Iterator[Finding]:
    """stats.yaml against the training split."""
    for difference in compare_statistics(recorded, computed):
        if not difference.relative <= TOLERANCE:
            told = (
                f"{difference.statistic} is recorded as {_number(difference.recorded)}, the data make "
                f"{_number(difference.computed)}"
            )
            yield finding("statistics-differ", told, field=difference.component)


def check_card_statistics(card: SimulationCard, computed: Statistics) -> Iterator[Finding]:
    """The card's statistics, which are rounded, against the training split."""
    if card.statistics is None:
        return
    rounding = 10.0 ** (1 - card.statistics.digits)
    for difference in compare_statistics(card.statistics, computed):
        a, b = difference.recorded, difference.computed
        if a is None or b is None:
            continue
        if not difference.relative <= TOLERANCE and not abs(a - b) <= rounding * abs(a):
            told = f"{difference.statistic} is {_number(a)} in the card, the data make {_number(b)}"
            yield finding("card-statistics", told, field=difference.component)


def _number(value: float | None) -> str:
    return "nothing" if value is None else f"{value:.8g}"
