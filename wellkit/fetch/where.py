"""Selection by physical parameter: `tcool=0.1`, `Re>=1e4,Sc=0.5`, by the values that file names carry."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from wellkit.errors import ArgumentError, DataNotFoundError, did_you_mean

_TOLERANCE = 1e-9  # relative: 0.10 in a name is 0.1
_NUMBER = r"[-+]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?"
_CONDITION = re.compile(rf"\s*(?P<name>[A-Za-z]\w*)\s*(?P<sign>==|=|!=|<=|>=|<|>)\s*(?P<value>{_NUMBER})\s*")
_VALUE = re.compile(rf"(?<![A-Za-z0-9])(?P<name>[A-Za-z]+)[_=]?(?P<value>{_NUMBER})(?=$|_)")


def _same(one: float, other: float) -> bool:
    return math.isclose(one, other, rel_tol=_TOLERANCE, abs_tol=0.0)


_SIGNS: dict[str, Callable[[float, float], bool]] = {
    "=": _same,
    "==": _same,
    "!=": lambda one, other: not _same(one, other),
    "<": lambda one, other: one < other and not _same(one, other),
    ">": lambda one, other: one > other and not _same(one, other),
    "<=": lambda one, other: operator.le(one, other) or _same(one, other),
    ">=": lambda one, other: operator.ge(one, other) or _same(one, other),
}


@dataclass(frozen=True)
class Condition:
    """What a parameter has to be."""

    name: str
    sign: str
    value: float

    def holds(self, value: float) -> bool:
        """Whether a parameter with this value passes."""
        return _SIGNS[self.sign](value, self.value)


def parse_where(text: str) -> tuple[Condition, ...]:
    """Conditions of an expression such as `tcool=0.1` or `Re>=1e4,Sc=0.5`: all of them have to hold.

    Raises:
        ArgumentError: it is no such expression.
    """
    conditions = []
    for part in text.split(","):
        match = _CONDITION.fullmatch(part)
        if match is None:
            raise ArgumentError(
                f"where={text!r}: {part.strip()!r} is no condition; write for example tcool=0.1 or Re>=1e4,Sc=0.5"
            )
        conditions.append(Condition(match["name"], match["sign"], float(match["value"])))
    return tuple(conditions)


def parameters_in(name: str) -> dict[str, float]:
    """Parameters in a file name, in lower case: `layer_tcool_0.10.hdf5` -> {"tcool": 0.1}."""
    stem = re.sub(r"\.(?:hdf5|h5)$", "", name)
    return {match["name"].lower(): float(match["value"]) for match in _VALUE.finditer(stem)}


def choose(names: Iterable[str], conditions: Iterable[Condition], *, source: str) -> set[str]:
    """Those file names whose parameters pass all conditions.

    Raises:
        ArgumentError: no name carries the parameter; tells which ones are carried.
        DataNotFoundError: no name passes; tells the values there are.
    """
    found = {name: parameters_in(name) for name in names}
    left = set(found)
    for condition in conditions:
        key = condition.name.lower()
        values = sorted({carried[key] for carried in found.values() if key in carried})
        if not values:
            known = sorted({parameter for carried in found.values() for parameter in carried})
            raise ArgumentError(
                f"{source}: no file name carries the parameter {condition.name!r} (they carry "
                f"{', '.join(known) or 'none'}); select with include= and exclude=."
                f"{did_you_mean(condition.name, known)}"
            )
        left &= {name for name, carried in found.items() if key in carried and condition.holds(carried[key])}
        if not left:
            raise DataNotFoundError(
                f"{source}: no file has {condition.name}{condition.sign}{condition.value:g}; "
                f"{condition.name} is one of {', '.join(f'{value:g}' for value in values)}"
            )
    return left
