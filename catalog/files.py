"""Card files: where they are, and how one becomes a card. No network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from wellkit.errors import DataNotFoundError, DocumentError
from wellkit.schemas.card import SimulationCard

CARD_NAME = "card.yaml"
_SUFFIXES = (".yaml", ".yml")
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def parse_card(text: str, *, source: str) -> SimulationCard:
    """Turn the text of a card file into a card.

    Raises:
        DocumentError: not YAML, or a key or value is wrong; the message names `source` and the key.
        DocumentVersionError: the `schema:` line is missing or of a version unknown here.
    """
    try:
        content = yaml.load(text, Loader=_LOADER)  # noqa: S506 - a safe loader either way
    except yaml.YAMLError as error:
        raise DocumentError(f"{source}: not valid YAML: {_problem(error)}") from error
    return SimulationCard.parse(content, source=source)


def read_card(path: Path) -> SimulationCard:
    """Read a card file.

    Raises:
        DataNotFoundError: there is no such file.
        DocumentError: the file is no card, or cannot be read; the message names file and key.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise DataNotFoundError(f"no card file at {path}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise DocumentError(f"{path}: cannot be read as text: {error}") from error
    return parse_card(text, source=str(path))


def find_card_files(path: Path) -> list[Path]:
    """Card files at `path`, sorted.

    A file is itself. In a folder they are its YAML files that look like cards, and `card.yaml` in the folders
    directly below, so that a base folder of generated datasets is a catalog too.

    Raises:
        DataNotFoundError: there is nothing at `path`.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise DataNotFoundError(f"no card file or folder of cards at {path}")
    here = [file for file in path.iterdir() if file.suffix in _SUFFIXES and file.is_file() and _may_be_card(file)]
    below = [folder / CARD_NAME for folder in path.iterdir() if (folder / CARD_NAME).is_file()]
    return sorted(here + below)


def _may_be_card(file: Path) -> bool:
    """Whether a YAML file starts like a document of ours, after comments and blank lines.

    Other YAML lives beside cards (statistics, settings of other programs). A file that names any schema
    counts, so that a card that is too new is reported and not skipped.
    """
    if file.name == CARD_NAME:
        return True
    with file.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            if line.strip() and not line.startswith(("#", "---")):
                return line.startswith(("schema:", "name:"))
    return False


def _problem(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error)
    return f"{problem} (line {mark.line + 1}, column {mark.column + 1})" if mark else " ".join(problem.split())
