"""Published scores beside a table: only where it is of the same data, without a rank, and with their taints.

Loaded when first asked for.
"""

from __future__ import annotations

from functools import lru_cache
from importlib.resources import files
from typing import Any

import yaml

from wellkit.schemas.card import SimulationCard
from wellkit.schemas.reference import ReferenceRow, ReferenceTable
from wellkit.schemas.training import DatasetIdentity

__all__ = ["ReferenceRow", "reference_rows", "reference_tables", "references_for"]

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@lru_cache(maxsize=1)
def reference_tables() -> tuple[ReferenceTable, ...]:
    """All published tables that come with wellkit."""
    folder = files("wellkit.benchmark.published")
    found = sorted((entry for entry in folder.iterdir() if entry.name.endswith(".yaml")), key=lambda entry: entry.name)
    return tuple(
        ReferenceTable.parse(yaml.load(entry.read_text(encoding="utf-8"), Loader=_LOADER), source=entry.name)  # noqa: S506
        for entry in found
    )


def reference_rows(dataset_name: str) -> tuple[ReferenceRow, ...]:
    """Every published figure of a dataset, of all splits; empty where none is known."""
    return tuple(row for table in reference_tables() for row in table.rows(dataset_name))


def references_for(data: DatasetIdentity, card: SimulationCard) -> tuple[ReferenceRow, ...]:
    """The published figures that may stand beside scores on `data`: those of its split, if it is what they are of.

    Args:
        data: what was scored.
        card: of the published dataset.

    Returns:
        Nothing where the data were generated, have another name, another resolution or other components than the
        published dataset.
    """
    original = (
        data.generator is None
        and card.generator is None
        and data.name == card.name
        and tuple(data.resolution) == card.resolution
        and sorted(data.fields) == sorted(card.components())
    )
    return tuple(row for row in reference_rows(data.name) if row.split == data.split) if original else ()
