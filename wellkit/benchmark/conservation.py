"""Which totals of stored components a dataset's card says are conserved."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from wellkit.datasets.well import WellDataset
from wellkit.schemas.card import SimulationCard


@dataclass(frozen=True)
class Conserved:
    """One conserved total.

    Attributes:
        quantity: its name.
        component: number of the component.
        weights: (space...), of the cells; None where all are equal.
    """

    quantity: str
    component: int
    weights: np.ndarray | None


def conserved_of(card: SimulationCard, names: tuple[str, ...], windows: WellDataset) -> tuple[Conserved, ...]:
    """The conserved totals among a dataset's components."""
    return ()
