"""Finding datasets by words."""

from __future__ import annotations

from wellkit.catalog.registry import cards
from wellkit.schemas.card import SimulationCard

# How much a word counts by where it is found: what names a dataset outweighs what is said about it.
_NAME, _TITLE, _FIELD, _PARAMETER, _DESCRIPTION, _EQUATION = 16, 8, 6, 4, 2, 1


def search(text: str) -> list[SimulationCard]:
    """Cards in which every word of `text` occurs, best first.

    Words are looked for, without regard to case and as parts of words, in name, title, fields, parameters,
    scalars, description, boundary types, grid, software and equations. Equally good cards follow by name.
    """
    words = text.casefold().split()
    scored = [(_score(card, words), card) for card in cards()]
    found = [(score, card) for score, card in scored if score > 0]
    return [card for _, card in sorted(found, key=lambda pair: (-pair[0], pair[1].name.casefold()))]


def _score(card: SimulationCard, words: list[str]) -> int:
    """Sum over the words of the best place each is found in; 0 where one of them is found nowhere."""
    places = _places(card)
    best = [max((weight for weight, text in places if word in text), default=0) for word in words]
    return sum(best) if best and all(best) else 0


def _places(card: SimulationCard) -> list[tuple[int, str]]:
    fields = " ".join(f"{field.name} {field.description or ''}" for field in card.fields)
    parameters = [f"{parameter.name} {parameter.description or ''}" for parameter in card.parameters]
    values = [value for parameter in card.parameters for value in parameter.values or () if isinstance(value, str)]
    scalars = [scalar.name for scalar in card.scalars]
    boundaries = [f"{boundary.type} {boundary.description or ''}" for boundary in card.boundary_conditions]
    grid = [card.grid.type, *(axis.kind for axis in card.grid.axes), f"{card.n_spatial_dims}D"]
    equations = [f"{equation.latex} {equation.note or ''}" for equation in card.equations]
    told = [card.description, card.collection, *boundaries, *grid, card.software or "", card.notes or ""]
    return [
        (_NAME, card.name.casefold()),
        (_NAME, card.name.casefold().replace("_", " ")),
        (_TITLE, card.title.casefold()),
        (_FIELD, fields.casefold()),
        (_PARAMETER, " ".join([*parameters, *values, *scalars]).casefold()),
        (_DESCRIPTION, " ".join(told).casefold()),
        (_EQUATION, " ".join(equations).casefold()),
    ]
