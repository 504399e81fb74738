from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.catalog.builders import card_content, write_card
from wellkit import catalog
from wellkit.catalog import registry
from wellkit.errors import (
    ArgumentError,
    DataNotFoundError,
    DocumentError,
    DocumentVersionError,
    UnknownDatasetError,
)
from wellkit.schemas.card import SimulationCard


@pytest.fixture(autouse=True)
def _nothing_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_registered", {})


def test_names_are_sorted_without_regard_to_case() -> None:
    names = catalog.names()
    assert names == sorted(names, key=str.casefold)
    assert names.index("MHD_64") < names.index("planetswe")


def test_names_by_collection_and_kind() -> None:
    assert catalog.names(collection="nobody's") == []
    assert catalog.names(kind="survey") == []
    with pytest.raises(ArgumentError, match="kind='film' is unknown; choose one of simulation, survey"):
        catalog.names(kind="film")


def test_listing_names_reads_no_card(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> SimulationCard:
        raise AssertionError("a card was parsed")

    monkeypatch.setattr(registry, "parse_card", refuse)
    registry._builtin_card.cache_clear()
    assert len(catalog.names()) >= 23


def test_a_miss_names_near_matches() -> None:
    with pytest.raises(UnknownDatasetError, match=r"'mhd_64' .*Did you mean MHD_64"):
        catalog.get("mhd_64")
    with pytest.raises(KeyError, match="`wellkit list` names all"):
        catalog.get("qqqq")


def test_a_card_is_read_once() -> None:
    assert catalog.get("shear_flow") is catalog.get("shear_flow")


def test_a_registered_card_is_first_class(tmp_path: Path) -> None:
    card = catalog.register(write_card(tmp_path / "mine.yaml"))
    assert card.name == "pendulum_waves"
    assert catalog.get("pendulum_waves") is card
    assert "pendulum_waves" in catalog.names()
    assert catalog.names(collection="mine") == ["pendulum_waves"]
    assert catalog.search("pendulums") == [card]


def test_a_card_object_and_a_dataset_folder_register_too(tmp_path: Path) -> None:
    card = SimulationCard.parse(card_content(name="from_object"), source="test")
    assert catalog.register(card) is card
    folder = tmp_path / "from_folder"
    write_card(folder / "card.yaml", name="from_folder")
    (folder / "stats.yaml").write_text("mean: {angle: 0.0}\n", encoding="utf-8")
    assert catalog.register(folder).name == "from_folder"


def test_registering_a_file_again_reads_it_again(tmp_path: Path) -> None:
    path = write_card(tmp_path / "mine.yaml")
    catalog.register(path)
    write_card(path, title="Changed")
    catalog.register(path)
    assert catalog.get("pendulum_waves").title == "Changed"


def test_a_name_that_is_taken_is_refused_unless_replaced(tmp_path: Path) -> None:
    path = write_card(tmp_path / "mine.yaml", name="shear_flow")
    with pytest.raises(ArgumentError, match=r"'shear_flow' is there already \(built in\).*replace=True"):
        catalog.register(path)
    assert catalog.get("shear_flow").collection == "the_well"
    catalog.register(path, replace=True)
    assert catalog.get("shear_flow").collection == "mine"
    assert len(catalog.cards()) == len(catalog.names()) == 23


def test_a_folder_of_cards(tmp_path: Path) -> None:
    write_card(tmp_path / "a.yaml", name="a")
    write_card(tmp_path / "b.yml", name="b")
    write_card(tmp_path / "generated" / "card.yaml", name="c")
    (tmp_path / "mkdocs.yaml").write_text("site: mine\n", encoding="utf-8")
    with pytest.raises(ArgumentError, match="holds 3 cards"):
        catalog.register(tmp_path)
    assert [card.name for card in catalog.register_folder(tmp_path)] == ["a", "b", "c"]


def test_a_folder_with_one_bad_card_registers_none(tmp_path: Path) -> None:
    write_card(tmp_path / "a.yaml", name="a")
    write_card(tmp_path / "b.yaml", name="shear_flow")
    with pytest.raises(ArgumentError, match="'shear_flow' is there already"):
        catalog.register_folder(tmp_path)
    assert "a" not in catalog.names()


def test_the_catalog_variable_names_files_and_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_card(tmp_path / "one.yaml", name="one")
    write_card(tmp_path / "more" / "two.yaml", name="two")
    paths = [tmp_path / "one.yaml", tmp_path / "more"]
    monkeypatch.setenv("WELLKIT_CATALOG", os.pathsep.join(map(str, paths)))
    assert {"one", "two"} <= set(catalog.names())
    assert catalog.get("two").collection == "mine"
    write_card(tmp_path / "more" / "two.yaml", name="two", title="A longer title than before")
    assert catalog.get("two").title == "A longer title than before"


def test_the_catalog_variable_cannot_hide_a_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_card(tmp_path / "mine.yaml", name="shear_flow")
    monkeypatch.setenv("WELLKIT_CATALOG", str(path))
    with pytest.raises(ArgumentError, match=r"mine\.yaml: a card named 'shear_flow' ships with wellkit"):
        catalog.get("shear_flow")


def test_two_cards_of_one_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_card(tmp_path / "a.yaml")
    write_card(tmp_path / "b.yaml")
    monkeypatch.setenv("WELLKIT_CATALOG", str(tmp_path))
    with pytest.raises(ArgumentError, match=r"two cards are named 'pendulum_waves': .*a\.yaml and .*b\.yaml"):
        catalog.names()


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("schema: wellkit/simulation-card/1\nname: x\ntitel: y\n", DocumentError, "unknown key 'titel'.*title"),
        ("schema: wellkit/simulation-card/9\nname: x\n", DocumentVersionError, "upgrade wellkit"),
        ("name: x\n", DocumentVersionError, "no 'schema:' line"),
        ("schema: [unclosed\n", DocumentError, "not valid YAML: .*line 2"),
        ("- a\n- list\n", DocumentError, "expected a mapping"),
        ("", DocumentError, "found NoneType"),
    ],
)
def test_a_broken_card_is_one_line_that_names_the_file(
    tmp_path: Path, text: str, error: type[Exception], message: str
) -> None:
    path = tmp_path / "card.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(error, match=message) as caught:
        catalog.register(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "card.yaml"
    path.write_bytes(b"\x89HDF\r\n\x1a\n\xff")
    with pytest.raises(DocumentError, match="cannot be read as text"):
        catalog.register(path)


def test_a_path_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataNotFoundError, match=r"no card file or folder of cards at .*nowhere"):
        catalog.register(tmp_path / "nowhere")
    monkeypatch.setenv("WELLKIT_CATALOG", str(tmp_path / "nowhere"))
    with pytest.raises(DataNotFoundError, match="nowhere"):
        catalog.names()


def test_search_ranks_names_above_descriptions() -> None:
    assert [card.name for card in catalog.search("magneto")] == ["MHD_256", "MHD_64"]
    found = [card.name for card in catalog.search("supernova")]
    assert found[:2] == ["supernova_explosion_128", "supernova_explosion_64"]


def test_search_wants_every_word_and_ignores_case() -> None:
    assert [card.name for card in catalog.search("CHEBYSHEV buoyancy")] == ["rayleigh_benard"]
    assert catalog.search("buoyancy neutrino") == []
    assert catalog.search("  ") == []


def test_search_looks_into_fields_parameters_and_equations() -> None:
    assert "post_neutron_star_merger" in [card.name for card in catalog.search("electron_fraction")]
    assert "shear_flow" in [card.name for card in catalog.search("schmidt")]
    assert "viscoelastic_instability" in [card.name for card in catalog.search(r"\mathrm{Wi}")]
