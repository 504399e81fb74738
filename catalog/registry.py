"""The cards there are, by name."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable
from functools import cache
from importlib.resources import files
from pathlib import Path

from wellkit import settings
from wellkit.catalog.files import find_card_files, parse_card, read_card
from wellkit.errors import ArgumentError, UnknownDatasetError, did_you_mean
from wellkit.schemas.card import SimulationCard

_KINDS = ("simulation", "survey")
_BUILTIN = "built in"

_lock = threading.Lock()
_registered: dict[str, tuple[SimulationCard, str]] = {}  # name -> (card, where it came from)


def names(collection: str | None = None, kind: str | None = None) -> list[str]:
    """Names of all datasets, sorted without regard to case.

    Args:
        collection: only those of this collection, e.g. "the_well".
        kind: only "simulation" or "survey" datasets.

    Raises:
        ArgumentError: `kind` is neither.
        DocumentError: a user's card (from `$WELLKIT_CATALOG`) cannot be used; the message names file and key.
    """
    _check_kind(kind)
    known = (*_builtin_names(), *(card.name for card, _ in _own_cards().values()))
    if collection is not None or kind is not None:
        known = tuple(card.name for card in cards(collection, kind))
    return sorted(set(known), key=str.casefold)


def get(name: str) -> SimulationCard:
    """The card of a dataset, or of one version of it.

    Args:
        name: NAME, NAME@VERSION, or the name that a version has of its own.

    Raises:
        UnknownDatasetError: there is none of that name or version; the message names near matches.
        DocumentError: the card, or another card of the user, cannot be used.
    """
    own = _own_cards()
    if (found := _find(name, own)) is not None:
        return found
    bare, at, version = name.partition("@")
    if at and (card := _find(bare, own)) is not None:
        if (chosen := card.at_version(version)) is not None:
            return chosen
        versions = [known for known in (card.dataset_version, *(later.version for later in card.versions)) if known]
        held = f"its versions are {', '.join(versions)}" if versions else "its card names no versions"
        hint = did_you_mean(version, versions)
        raise UnknownDatasetError(f"{bare} has no version {version!r}; {held}.{hint}")
    for candidate in sorted({*own, *_builtin_names()}):
        if name.startswith(candidate) and (card := _find(candidate, own)) is not None:
            for later in card.versions:
                if later.name == name and (chosen := card.at_version(later.version)) is not None:
                    return chosen
    known = names()
    hint = did_you_mean(name, known) or " `wellkit list` names all datasets."
    raise UnknownDatasetError(f"no dataset is called {name!r} ({len(known)} are known).{hint}")


def _find(name: str, own: dict[str, tuple[SimulationCard, str]]) -> SimulationCard | None:
    if name in own:
        return own[name][0]
    return _builtin_card(name) if name in _builtin_names() else None


def cards(collection: str | None = None, kind: str | None = None) -> list[SimulationCard]:
    """All cards (of a collection, of a kind), sorted by name without regard to case.

    Raises:
        ArgumentError: `kind` is neither "simulation" nor "survey".
        DocumentError: a user's card cannot be used.
    """
    _check_kind(kind)
    found = {name: _builtin_card(name) for name in _builtin_names()}
    found.update({name: card for name, (card, _) in _own_cards().items()})
    return sorted(
        (card for card in found.values() if collection in (None, card.collection) and kind in (None, card.kind)),
        key=lambda card: card.name.casefold(),
    )


def register(source: str | Path | SimulationCard, *, replace: bool = False) -> SimulationCard:
    """Make a dataset of your own known in this process, as good as those that ship with wellkit.

    Args:
        source: a card, a card file, or a folder that holds one card (such as a dataset's own folder).
        replace: take the place of a card of the same name instead of refusing. Registering the same file once
            more needs no `replace`: it is read again.

    Returns:
        The card.

    Raises:
        ArgumentError: a card of that name is there already, or the folder does not hold exactly one card.
        DataNotFoundError: there is nothing at that path.
        DocumentError: the card cannot be used; the message names file and key.
    """
    if isinstance(source, SimulationCard):
        return _add(source, "registered in this process", replace=replace)
    path = Path(source).expanduser()
    found = find_card_files(path)
    if len(found) != 1:
        listed = f": {', '.join(file.name for file in found[:3])}" if found else ""
        raise ArgumentError(
            f"{path} holds {len(found)} cards{listed}; name one card file, or use "
            f"wellkit.catalog.register_folder for a folder of cards"
        )
    return _add(read_card(found[0]), str(found[0].resolve()), replace=replace)


def register_folder(folder: str | Path, *, replace: bool = False) -> list[SimulationCard]:
    """Register every card in a folder: its YAML files, and `card.yaml` in the folders directly below.

    Nothing is registered unless all of them can be. Raises as `register`.
    """
    found = find_card_files(Path(folder).expanduser())
    read = [(read_card(file), str(file.resolve())) for file in found]
    _refuse_repeats((card.name, where) for card, where in read)
    if not replace:
        for card, where in read:
            _refuse_clash(card.name, where)
    return [_add(card, where, replace=replace) for card, where in read]


def _add(card: SimulationCard, where: str, *, replace: bool) -> SimulationCard:
    with _lock:
        if not replace:
            _refuse_clash(card.name, where)
        _registered[card.name] = (card, where)
    return card


def _refuse_clash(name: str, where: str) -> None:
    known = _own_cards().get(name)
    present = known[1] if known else (_BUILTIN if name in _builtin_names() else None)
    if present is not None and present != where:
        raise ArgumentError(
            f"a card named {name!r} is there already ({present}), so that of {where} is refused; "
            f"give it another name, or pass replace=True"
        )


def _refuse_repeats(found: Iterable[tuple[str, str]]) -> None:
    seen: dict[str, str] = {}
    for name, where in found:
        if name in seen:
            raise ArgumentError(f"two cards are named {name!r}: {seen[name]} and {where}; rename one of them")
        seen[name] = where


def _check_kind(kind: str | None) -> None:
    if kind is not None and kind not in _KINDS:
        raise ArgumentError(f"kind={kind!r} is unknown; choose one of {', '.join(_KINDS)}")


@cache
def _builtin_names() -> tuple[str, ...]:
    """File names are dataset names (a test checks it), so that no card has to be read to list them."""
    folder = files("wellkit.catalog") / "cards"
    found = (re.fullmatch(r"(.+)\.yaml", entry.name) for entry in folder.iterdir())
    return tuple(sorted(match[1] for match in found if match))


@cache
def _builtin_card(name: str) -> SimulationCard:
    resource = files("wellkit.catalog") / "cards" / f"{name}.yaml"
    return parse_card(resource.read_text(encoding="utf-8"), source=f"built-in card {name}")


def _own_cards() -> dict[str, tuple[SimulationCard, str]]:
    """The user's cards: from `$WELLKIT_CATALOG`, then those registered in this process."""
    found = dict(_cards_at(_stamped_files(settings.catalog_paths())))
    found.update(_registered)
    return found


def _stamped_files(paths: tuple[Path, ...]) -> tuple[tuple[Path, int, int], ...]:
    """Card files with size and time of change, so that an edited card is read again."""
    found = [file.resolve() for path in paths for file in find_card_files(path)]
    stats = [(file, file.stat()) for file in dict.fromkeys(found)]
    return tuple((file, stat.st_size, stat.st_mtime_ns) for file, stat in stats)


@cache
def _cards_at(stamped: tuple[tuple[Path, int, int], ...]) -> dict[str, tuple[SimulationCard, str]]:
    read = [(read_card(file), str(file)) for file, _, _ in stamped]
    _refuse_repeats((card.name, where) for card, where in read)
    for card, where in read:
        if card.name in _builtin_names():
            raise ArgumentError(f"{where}: a card named {card.name!r} ships with wellkit; give yours another name")
    return {card.name: (card, where) for card, where in read}
