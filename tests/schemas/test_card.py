from __future__ import annotations

from typing import Any

import pytest

from tests.catalog.builders import card_content
from wellkit.errors import DocumentError, DocumentVersionError
from wellkit.schemas.card import SimulationCard
from wellkit.schemas.erratum import Scope
from wellkit.schemas.field import Field, Parameter


def parse(**changes: Any) -> SimulationCard:
    return SimulationCard.parse(card_content(**changes), source="mine.yaml")


def test_names_and_counts_follow_the_axes() -> None:
    card = parse()
    assert card.n_spatial_dims == 2
    assert card.resolution == (8, 4)
    assert card.kind == "simulation"
    assert card.components() == (
        "angle",
        "velocity_x",
        "velocity_y",
        "stress_xx",
        "stress_xy",
        "stress_yx",
        "stress_yy",
    )
    assert card.components(varying=False) == ("mass",)
    assert (card.n_channels, card.n_constant_channels) == (7, 1)


def test_components_are_ordered_by_tensor_order_whatever_the_card_says() -> None:
    card = parse(fields=[{"name": "v", "order": 1}, {"name": "b"}, {"name": "a"}])
    assert card.components() == ("b", "a", "v_x", "v_y")


def test_long_axis_names_join_as_in_the_files() -> None:
    assert Field(name="B", order=1).components(("log_r", "theta")) == ("B_log_r", "B_theta")
    assert Field(name="S", order=2).components(("r", "phi")) == ("S_rr", "S_rphi", "S_phir", "S_phiphi")


def test_expected_bytes() -> None:
    # 8 runs of 5 frames of 32 points with 7 channels, and one constant channel a run; 4 bytes a value:
    # (8*5*7 + 8*1) * 32 * 4 = 36864.
    assert parse().expected_bytes() == 36864


def test_expected_bytes_of_what_a_file_shares_and_of_fewer_axes() -> None:
    fields = [
        {"name": "u"},  # 8 * 5 * 32
        {"name": "mask", "varying": False, "sample_varying": False},  # 3 files * 32
        {"name": "profile", "varying": False, "axes": ["y"]},  # 8 runs * 4 points of y
    ]
    assert parse(fields=fields).expected_bytes() == 4 * (8 * 5 * 32 + 3 * 32 + 8 * 4)


def test_expected_bytes_with_two_lengths() -> None:
    card = parse(fields=[{"name": "u"}], time={"steps": [2, 10], "counts": [3, 5], "variable": True})
    assert card.total_frames() == 3 * 2 + 5 * 10
    assert card.expected_bytes() == 56 * 32 * 4


def test_expected_bytes_unknown_without_counts() -> None:
    assert parse(trajectories=None, splits={}).expected_bytes() is None
    assert parse(time={"steps": [2, 10]}).expected_bytes() is None


def test_a_card_is_frozen_and_survives_a_round_trip() -> None:
    card = parse()
    with pytest.raises(ValueError, match="frozen"):
        card.title = "other"  # type: ignore[misc]
    mapping = card.to_mapping()
    assert next(iter(mapping)) == "schema"
    assert SimulationCard.parse(mapping, source="again") == card


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"equatons": []}, r"unknown key 'equatons'\. Did you mean equations"),
        ({"time": {"steps": [5], "spacng": 1.0}}, r"unknown key 'time\.spacng'\. Did you mean spacing"),
        ({"grid": {"type": "polar", "axes": [{"name": "x", "points": 4}]}}, "'grid.type'.*'cartesian'"),
        ({"grid": {"type": "cartesian", "axes": [{"name": "x", "points": 0}]}}, r"grid\.axes\.0\.points"),
        ({"fields": [{"name": "u"}, {"name": "u"}]}, "field names repeat: u, u"),
        ({"fields": [{"name": "u", "symmetry": "symmetric"}]}, "needs a field of order 2"),
        ({"fields": [{"name": "u", "axes": ["z"]}]}, "field 'u' names an axis 'z'; the grid has x, y"),
        ({"boundary_conditions": [{"type": "WALL", "axes": ["q"]}]}, "WALL names an axis 'q'"),
        ({"trajectories": 9}, "splits add up to 8 trajectories, the card says 9"),
        ({"time": {"steps": [5, 6], "counts": [8]}}, "1 counts for 2 possible lengths"),
        ({"time": {"steps": [5, 6], "counts": [1, 1]}}, "time.counts add up to 2, trajectories are 8"),
        ({"time": {"steps": [6, 5]}}, "ascending"),
        ({"name": "../etc"}, "'name'"),
    ],
)
def test_wrong_content_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DocumentError, match=message) as caught:
        parse(**changes)
    assert str(caught.value).startswith("mine.yaml: ")
    assert "\n" not in str(caught.value)


def test_a_missing_key_is_named() -> None:
    content = card_content()
    del content["grid"]
    with pytest.raises(DocumentError, match=r"^mine\.yaml: key 'grid' is missing$"):
        SimulationCard.parse(content, source="mine.yaml")


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ("wellkit/simulation-card/2", "upgrade wellkit"),
        ("wellkit/simulation-card/0", "write it again"),
        ("wellkit/result/1", "is not a simulation-card"),
        (None, "no 'schema:' line"),
    ],
)
def test_an_unknown_version_is_one_clear_line(schema: str | None, message: str) -> None:
    with pytest.raises(DocumentVersionError, match=message) as caught:
        parse(schema=schema)
    assert "\n" not in str(caught.value)


def test_statistics_have_to_fit_the_fields() -> None:
    told = {"provenance": "test", "digits": 5}
    with pytest.raises(DocumentError, match=r"statistics\.mean names a field 'angel' that the card lacks"):
        parse(statistics={**told, "mean": {"angel": 0.0}})
    with pytest.raises(DocumentError, match=r"statistics.std of 'velocity' has shape \(3,\)"):
        parse(statistics={**told, "std": {"velocity": [1.0, 1.0, 1.0]}})
    with pytest.raises(DocumentError, match="mean of 'angle' is not finite"):
        parse(statistics={**told, "mean": {"angle": float("nan")}})


def test_errata_point_at_what_is_there() -> None:
    erratum = {"id": "bad", "severity": "error", "summary": "bad", "source": "test"}
    with pytest.raises(DocumentError, match="about a field 'angel' that the card lacks"):
        parse(errata=[{**erratum, "scope": {"field": "angel"}}])
    with pytest.raises(DocumentError, match="the scope has to name the file"):
        parse(errata=[{**erratum, "scope": {"trajectories": [3]}}])
    with pytest.raises(DocumentError, match="erratum ids repeat"):
        parse(errata=[erratum, erratum])


def test_a_scope_reads_as_a_phrase() -> None:
    assert Scope().describe() == "whole dataset"
    scope = Scope(split="train", file="a.hdf5", trajectories=(47,), frames=(3, 8), field="u")
    assert scope.describe() == "train, a.hdf5, trajectory 47, frames 3 to 7, field u"


def test_numbers_that_yaml_reads_as_text_are_numbers() -> None:
    # PyYAML follows YAML 1.1, where 1e10 (no dot, no sign) is a string.
    assert Parameter.model_validate({"name": "Ra", "values": ["1e10", "maze", 3]}).values == (1e10, "maze", 3.0)


VECTOR = [{"name": "c"}, {"name": "u", "order": 1}, {"name": "w", "order": 1, "varying": False}]


def conserved(**entry: Any) -> dict[str, Any]:
    return {"fields": VECTOR, "conserved": [{"quantity": "q", **entry}]}


def on_grid(grid_type: str, *axes: dict[str, Any]) -> dict[str, Any]:
    return {"grid": {"type": grid_type, "axes": [{"points": 4, "unit": "rad", **axis} for axis in axes]}}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (conserved(field="v"), "conserved quantity 'q' is of a field 'v' that the card lacks"),
        (conserved(field="w"), "'w', which does not vary in time"),
        (conserved(field="u", components=["z"]), "of components z of 'u', which has x, y"),
        (conserved(field="u", components=["x", "x"]), "of components x, x of 'u', which has x, y"),
        (conserved(field="c", components=["x"]), "of components x of 'c', which has none, being a scalar"),
        (conserved(field="u", components=[]), r"conserved\.0\.components"),
        (conserved(field="c", weights="volume"), r"conserved\.0\.weights.*'cells' or 'sphere'"),
        (conserved(field="c", weights="sphere"), "needs a grid of two axes in rad, one of them 'theta'"),
        ({**conserved(field="c"), **on_grid("cartesian", {"name": "x", "kind": "chebyshev"})}, "is not evenly spaced"),
        ({**conserved(field="c"), **on_grid("spherical", {"name": "r"})}, "the grid is spherical"),
        (
            {
                **conserved(field="c", weights="sphere"),
                **on_grid("equiangular", {"name": "theta", "extent": [-1.6, 1.6]}, {"name": "phi"}),
            },
            "within 0 to pi",
        ),
        (
            {
                "fields": VECTOR,
                "conserved": [
                    {"quantity": "momentum", "field": "u"},
                    {"quantity": "flux", "field": "u", "components": ["y"]},
                ],
            },
            "'flux' is of 'u_y', which is said to be another one as well",
        ),
    ],
)
def test_conserved_quantities_that_cannot_be_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DocumentError, match=message) as caught:
        parse(statistics=None, boundary_conditions=[], **changes)
    assert "\n" not in str(caught.value)
