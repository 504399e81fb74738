from __future__ import annotations

import pytest

from wellkit.errors import ArgumentError
from wellkit.generation import registry
from wellkit.generation.arguments import parse_parameters, parse_resolution


def test_resolutions() -> None:
    assert parse_resolution("64x192") == (64, 192)
    assert parse_resolution("64X64X8") == (64, 64, 8)
    for text in ("64", "x", "64x", "64 by 192", "", "6.4x2"):
        if text == "64":
            assert parse_resolution(text) == (64,)
            continue
        with pytest.raises(ArgumentError, match="is not of the form 64x192"):
            parse_resolution(text)


def test_parameters() -> None:
    assert parse_parameters([]) == {}
    assert parse_parameters(["tcool=0.1, 1e-2,3", "regime=spots,maze"]) == {
        "tcool": [0.1, 0.01, 3.0],
        "regime": ["spots", "maze"],
    }


@pytest.mark.parametrize("item", ["tcool", "tcool=", "=1", "tcool=1,,2"])
def test_parameters_of_another_form(item: str) -> None:
    with pytest.raises(ArgumentError, match=r"is not of the form NAME=VALUE,VALUE"):
        parse_parameters([item])


def test_a_parameter_given_twice() -> None:
    with pytest.raises(ArgumentError, match="'tcool' is given twice"):
        parse_parameters(["tcool=1", "tcool=2"])


def test_cooling_times_too_short_to_simulate() -> None:
    with pytest.raises(ArgumentError, match=r"'tcool' needs values of at least 0\.001, found 1e-300"):
        registry.get("turbulent_radiative_layer_2D").settings({"tcool": [1e-300]})
