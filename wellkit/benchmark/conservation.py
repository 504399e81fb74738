"""Which channels of a dataset are densities of conserved quantities, and how much each grid point counts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from wellkit.errors import FormatError
from wellkit.schemas.card import SimulationCard
from wellkit.schemas.conserved import COLATITUDE
from wellkit.schemas.grid import Grid


class ConservedComponent(NamedTuple):
    """One channel whose total over the domain is conserved.

    Attributes:
        quantity: what it is, e.g. "mass"; with the component where it is one of several, e.g. "momentum x".
        component: index of the channel.
        weights: (space...) float64, the area of each cell up to a factor; None where all are alike.
    """

    quantity: str
    component: int
    weights: np.ndarray | None


def conserved_components(
    card: SimulationCard, components: Sequence[str], grid: np.ndarray | None = None
) -> list[ConservedComponent]:
    """The conserved channels among `components`, in the order of the card.

    Args:
        card: of the dataset; a version's own where it has one.
        components: names of the channels, as a dataset's `metadata.field_names` gives them one after the other;
            conserved ones that are not among them are left out.
        grid: coordinates of the points, axes (space..., axis), as samples have them in `space_grid`; None for those
            of the card. Only totals over a sphere need them.

    Raises:
        FormatError: `grid` has not the axes of the card's.
    """
    found = []
    places = {name: index for index, name in enumerate(components)}
    for conserved in card.conserved:
        field = card.field(conserved.field)
        assert field is not None  # a card is checked when it is made
        chosen = conserved.chosen(field, card.grid.axis_names)
        weights = _area_on_sphere(card.grid, grid) if conserved.weights == "sphere" else None
        for name, component in chosen.items():
            if name in places:
                quantity = f"{conserved.quantity} {component}" if len(chosen) > 1 else conserved.quantity
                found.append(ConservedComponent(quantity, places[name], weights))
    return found


def _area_on_sphere(grid: Grid, points: np.ndarray | None) -> np.ndarray:
    """Sine of the colatitude at every point, (space...): but for a factor, the area of its cell on even angles."""
    along = grid.axis_names.index(COLATITUDE)
    if points is None:
        axis = grid.axes[along]
        assert axis.extent is not None
        shape = [1] * len(grid.axes)
        shape[along] = axis.points
        colatitude = np.broadcast_to(np.linspace(*axis.extent, axis.points).reshape(shape), grid.shape)
    else:
        if points.ndim != len(grid.axes) + 1 or points.shape[-1] != len(grid.axes):
            raise FormatError(
                f"the grid has shape {points.shape}; needed are coordinates along {', '.join(grid.axis_names)}, "
                "axes (space..., axis)"
            )
        colatitude = np.asarray(points[..., along], np.float64)
    return np.clip(np.sin(colatitude), 0.0, None)  # sin(pi) in floating point may lie below 0
