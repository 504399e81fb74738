"""Arguments of a run as people type them."""

from __future__ import annotations

from collections.abc import Iterable

from wellkit.errors import ArgumentError
from wellkit.generation.generator import ParameterValue


def parse_resolution(text: str) -> tuple[int, ...]:
    """`64x192` -> (64, 192).

    Raises:
        ArgumentError: not whole numbers with `x` between them.
    """
    try:
        return tuple(int(part) for part in text.lower().split("x"))
    except ValueError:
        raise ArgumentError(f"resolution {text!r} is not of the form 64x192") from None


def parse_parameters(items: Iterable[str]) -> dict[str, list[ParameterValue]]:
    """`["tcool=0.1,0.3"]` -> {"tcool": [0.1, 0.3]}; what is not a number stays text.

    Raises:
        ArgumentError: not of that form, or a name comes twice.
    """
    parameters: dict[str, list[ParameterValue]] = {}
    for item in items:
        name, equals, values = item.partition("=")
        name = name.strip()
        parts = [part.strip() for part in values.split(",")]
        if not equals or not name or not all(parts):
            raise ArgumentError(f"parameter {item!r} is not of the form NAME=VALUE,VALUE")
        if name in parameters:
            raise ArgumentError(f"parameter {name!r} is given twice; put all its values in one list")
        parameters[name] = [_value(part) for part in parts]
    return parameters


def _value(text: str) -> ParameterValue:
    try:
        return float(text)
    except ValueError:
        return text
