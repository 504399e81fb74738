from __future__ import annotations

import copy
import math
from typing import Any

import pytest

from wellkit.errors import StatisticsError
from wellkit.schemas.statistics import STATISTICS, Statistics, numbers_in, shape_of

SHAPES: dict[str, tuple[int, ...]] = {"p": (), "v": (2,), "C": (2, 2), "mask": ()}
CONSTANT = frozenset({"mask"})


def content() -> dict[str, Any]:
    values: dict[str, Any] = {"p": 1.0, "v": [1.0, 2.0], "C": [[1.0, 0.0], [0.0, 1.0]]}
    return {
        name: copy.deepcopy(values) if name.endswith("_delta") else {**copy.deepcopy(values), "mask": 0.5}
        for name in STATISTICS
    }


def check(changed: dict[str, Any]) -> None:
    Statistics.parse(changed, source="stats.yaml").check(SHAPES, source="stats.yaml", constant=CONSTANT)


def test_a_complete_file_passes_and_survives_a_round_trip() -> None:
    check(content())
    assert Statistics.parse(content(), source="stats.yaml").to_mapping() == content()


def test_values_keep_their_nesting() -> None:
    statistics = Statistics.parse(content(), source="stats.yaml")
    assert statistics.get("mean", "C", source="stats.yaml") == ((1.0, 0.0), (0.0, 1.0))
    assert [shape_of(statistics.mean[name]) for name in SHAPES] == list(SHAPES.values())
    assert list(numbers_in(((1.0, 2.0), (3.0, 4.0)))) == [1.0, 2.0, 3.0, 4.0]


def test_a_missing_statistic_is_named_with_what_there_is() -> None:
    changed = content()
    del changed["rms_delta"]
    with pytest.raises(StatisticsError, match=r"^stats\.yaml: no 'rms_delta' \(present: mean, std, rms, mean_d"):
        check(changed)


def test_a_wrong_field_is_named_with_a_near_match() -> None:
    changed = content()
    changed["std"]["velocity"] = changed["std"].pop("v")
    with pytest.raises(StatisticsError, match=r"'std' has no field 'v' \(it has p, C, mask, velocity\)"):
        check(changed)
    changed = content()
    changed["mean"]["masks"] = 1.0
    with pytest.raises(StatisticsError, match=r"a field 'masks' that the data do not have.*Did you mean mask"):
        check(changed)


def test_a_constant_field_needs_no_differences_but_may_not_lack_the_rest() -> None:
    changed = content()
    del changed["mean"]["mask"]
    with pytest.raises(StatisticsError, match="'mean' has no field 'mask'"):
        check(changed)


@pytest.mark.parametrize(
    ("statistic", "field", "value", "message"),
    [
        ("mean", "v", [1.0, 2.0, 3.0], r"'mean' of 'v' has shape \(3,\), the field \(2,\)"),
        ("mean", "p", [1.0], r"'mean' of 'p' has shape \(1,\)"),
        ("std", "v", [1.0, math.nan], "'std' of 'v' is nan, not a finite number"),
        ("std", "p", -1.0, "'std' of 'p' is -1.0, below zero"),
        ("mean", "p", "high", "'mean' of 'p' has to be a number or .* found 'high'"),
    ],
)
def test_a_value_that_cannot_be_is_named(statistic: str, field: str, value: Any, message: str) -> None:
    changed = content()
    changed[statistic][field] = value
    with pytest.raises(StatisticsError, match=message) as caught:
        check(changed)
    assert str(caught.value).startswith("stats.yaml: ")
    assert "\n" not in str(caught.value)


def test_what_is_no_mapping_or_has_an_unknown_statistic_is_refused() -> None:
    with pytest.raises(StatisticsError, match="expected a mapping with mean, std"):
        Statistics.parse(None, source="stats.yaml")
    with pytest.raises(StatisticsError, match="unknown key 'men'"):
        Statistics.parse({"men": {}}, source="stats.yaml")
