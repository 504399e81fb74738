"""A dataset's later versions: found by name, described by what is known of them, refused by near matches."""

from __future__ import annotations

import re
import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest

import wellkit
from tests.catalog.builders import card_content
from tests.trees import make_tree
from wellkit.catalog import registry
from wellkit.errors import DocumentError, UnknownDatasetError
from wellkit.schemas.card import SimulationCard


@pytest.fixture(autouse=True)
def own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_registered", {})


def erratum(name: str, **keys: Any) -> dict[str, Any]:
    return {"id": name, "severity": "warning", "summary": "It is wrong.", "source": "a test", **keys}


def content(**changes: Any) -> dict[str, Any]:
    versions = [
        {"version": "1.1", "name": "pendulum_waves_fixed", "changes": {"trajectories": 9, "splits": {}}},
        {"version": "2", "name": "pendulum_waves_v2", "note": "All anew."},
    ]
    errata = [
        erratum("for-ever"),
        erratum("until-1-1", fixed_in="1.1"),
        erratum("until-2", fixed_in="2"),
        erratum("long-ago", fixed_in="2020-01-01"),
    ]
    return card_content(**{"dataset_version": "1", "versions": versions, "errata": errata, **changes})


def test_a_version_is_a_card_of_its_own() -> None:
    wellkit.catalog.register(SimulationCard.parse(content(), source="test"))
    first, middle, last = (wellkit.catalog.get(f"pendulum_waves@{version}") for version in ("1", "1.1", "2"))
    assert first is wellkit.catalog.get("pendulum_waves")
    assert (middle.name, middle.dataset_version, middle.trajectories) == ("pendulum_waves_fixed", "1.1", 9)
    assert (last.name, last.trajectories, last.statistics, last.sources.hub) == ("pendulum_waves_v2", None, None, None)
    assert last.names_in_files == ("pendulum_waves",)
    assert last.fields == first.fields
    assert wellkit.catalog.get("pendulum_waves_v2") == last
    assert [later.version for later in middle.versions] == ["2"]


def test_an_erratum_holds_until_the_version_that_mends_it() -> None:
    wellkit.catalog.register(SimulationCard.parse(content(), source="test"))
    held = {
        version: [e.id for e in card.errata if card.holds(e)]
        for version in ("1", "1.1", "2")
        if (card := wellkit.catalog.get(f"pendulum_waves@{version}"))
    }
    assert held == {"1": ["for-ever", "until-1-1", "until-2"], "1.1": ["for-ever", "until-2"], "2": ["for-ever"]}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("viscoelastic_instability@3", "viscoelastic_instability has no version '3'; its versions are 1, 2."),
        ("active_matter@2", "active_matter has no version '2'; its card names no versions."),
        ("viscoelastic_instabilty@2", "Did you mean viscoelastic_instability"),
        ("pendulum_waves@1.2", "its versions are 1, 1.1, 2. Did you mean 1.1"),
    ],
)
def test_unknown_versions_name_those_there_are(name: str, message: str) -> None:
    wellkit.catalog.register(SimulationCard.parse(content(), source="test"))
    with pytest.raises(UnknownDatasetError, match=re.escape(message)):
        wellkit.catalog.get(name)
    with pytest.raises(UnknownDatasetError, match=re.escape(message)):
        wellkit.download(name, dry_run=True)
    with pytest.raises(UnknownDatasetError, match=re.escape(message)):
        wellkit.WellDataset(well_dataset_name=name, well_split_name="train")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dataset_version": None}, "dataset_version, which is missing"),
        ({"dataset_version": "2"}, "versions repeat: 2, 1.1, 2"),
        ({"versions": [{"version": "2", "name": "waves"}]}, "begins with 'pendulum_waves'"),
        (
            {"versions": [{"version": "2", "name": "pendulum_waves_2", "changes": {"feilds": []}}]},
            "Did you mean fields",
        ),
        ({"versions": [{"version": "2", "name": "pendulum_waves_2", "changes": {"trajectories": -1}}]}, "trajectories"),
    ],
)
def test_versions_that_make_no_card_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DocumentError, match=message):
        SimulationCard.parse(content(**changes), source="test")


def test_a_version_on_disk_is_opened_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wellkit.catalog.register(
        SimulationCard.parse(content(versions=content()["versions"][1:], errata=[]), source="test")
    )
    make_tree(tmp_path, name="pendulum_waves_v2")
    arguments: dict[str, Any] = {"well_split_name": "train", "framework": "numpy"}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        given = wellkit.WellDataset(well_base_path=tmp_path, well_dataset_name="pendulum_waves@2", **arguments)
        monkeypatch.setenv("WELLKIT_DATA", str(tmp_path))
        found = wellkit.WellDataset(well_dataset_name="pendulum_waves@2", **arguments)
    assert given.files_paths == found.files_paths
    assert "pendulum_waves_v2" in given.files_paths[0]
    shutil.move(tmp_path / "pendulum_waves_v2", tmp_path / "pendulum_waves@2")  # a folder that bears the whole name
    literal = wellkit.WellDataset(well_base_path=tmp_path, well_dataset_name="pendulum_waves@2", **arguments)
    assert "pendulum_waves@2" in literal.files_paths[0]


def test_the_corrected_release_has_lost_the_fault_that_it_corrects() -> None:
    first, second = (wellkit.catalog.get(f"viscoelastic_instability@{version}") for version in ("1", "2"))
    assert "superseded" in [e.id for e in first.errata if first.holds(e)]
    assert "superseded" not in [e.id for e in second.errata]
    assert second.sources.hub is not None
    assert second.sources.hub.repo_id == "polymathic-ai/viscoelastic_instability_v2"
