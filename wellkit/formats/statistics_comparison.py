"""Two sets of statistics beside each other: what differs, and by how much of what matters."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from wellkit.schemas.statistics import STATISTICS, CardStatistics, Statistic, Statistics, numbers_in, shape_of

CARD_TOLERANCE = 1e-3
_SPREAD: dict[Statistic, Statistic] = {"mean": "std", "mean_delta": "std_delta"}


@dataclass(frozen=True)
class Difference:
    """One value that two sets of statistics do not share; None where one has none.

    `relative` is |a - b| over the larger of the two, for means over the larger spread: what it does to normalized data.
    """

    statistic: Statistic
    component: str
    recorded: float | None
    computed: float | None
    relative: float


def component_values(statistics: Statistics) -> dict[str, dict[Statistic, float]]:
    """Values by component: {"density": {"mean": ...}, "velocity[0]": ..., "stress[0,1]": ...}."""
    table: dict[str, dict[Statistic, float]] = {}
    for statistic in STATISTICS:
        for name, value in getattr(statistics, statistic).items():
            shape = shape_of(value)
            for index, number in zip(np.ndindex(shape), numbers_in(value), strict=True):
                component = f"{name}[{','.join(map(str, index))}]" if shape else name
                table.setdefault(component, {})[statistic] = number
    return table


def compare_statistics(recorded: Statistics, computed: Statistics) -> list[Difference]:
    """Every value of either that is not the same in both, the largest relative difference first."""
    before, after = component_values(recorded), component_values(computed)
    found = []
    for component in dict.fromkeys([*after, *before]):
        old, new = before.get(component, {}), after.get(component, {})
        for statistic in STATISTICS:
            a, b = old.get(statistic), new.get(statistic)
            if a == b:
                continue
            if a is None or b is None or not (math.isfinite(a) and math.isfinite(b)):
                found.append(Difference(statistic, component, a, b, math.inf))
                continue
            yardstick = _SPREAD.get(statistic, statistic)
            scale = max(abs(old.get(yardstick, 0.0)), abs(new.get(yardstick, 0.0)), np.finfo(float).tiny)
            found.append(Difference(statistic, component, a, b, abs(a - b) / scale))
    return sorted(found, key=lambda difference: -difference.relative)


def differences_from_card(recorded: Statistics, card: CardStatistics) -> list[Difference]:
    """Values that differ from a card's by more than 1e-3 and by more than rounding explains, the largest first.

    A card holds what was published, rounded to a number of digits; fields that it does not know are not compared, nor
    are those that the statistics lack.
    """
    published = component_values(card)
    rounding = 10.0 ** (1 - card.digits)
    return [
        difference
        for difference in compare_statistics(recorded, card)
        if difference.recorded is not None
        and difference.computed is not None
        and difference.relative > CARD_TOLERANCE
        and not abs(difference.recorded - difference.computed)
        <= rounding * abs(published[difference.component][difference.statistic])
    ]
