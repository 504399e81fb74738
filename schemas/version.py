"""Another version of a dataset than the one its card describes."""

from __future__ import annotations

from typing import Any

from pydantic import Field as Key

from wellkit.schemas.document import Model


class DatasetVersion(Model):
    """A later version of a dataset, by what is known to differ; `NAME@VERSION` is its card.

    What depends on the data themselves (counts, sizes, statistics, sources) is unknown of another version unless
    `changes` says it; what describes the problem (grid, fields, equations, ...) is taken to be the same.
    """

    version: str = Key(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="what follows the @")
    name: str = Key(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="its folder and repository; begins with the card's name"
    )
    note: str | None = None
    changes: dict[str, Any] = Key(default_factory=dict, description="top-level keys of a card, as they are there")
