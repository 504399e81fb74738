"""What a dataset's card adds to its numbers for people to read: names of axes, units, lengths."""

from __future__ import annotations

from wellkit import catalog
from wellkit.datasets.well import WellDataset
from wellkit.errors import UnknownDatasetError
from wellkit.schemas.card import SimulationCard


def card_of(name: str) -> SimulationCard | None:
    """The card of a simulation dataset; None where there is none."""
    try:
        return catalog.get(name)
    except UnknownDatasetError:
        return None


def axes_and_units(name: str, dims: int, names: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of the axes and units of the components, as far as the card tells; x, y, z and "" elsewhere."""
    card = card_of(name)
    if card is None:
        return tuple("xyz"[:dims]), ("",) * len(names)
    axes = tuple(card.grid.axis_names)
    units = {component: field.unit for field in card.fields for component in field.components(axes)}
    known = axes if len(axes) == dims else tuple("xyz"[:dims])
    return known, tuple("" if units.get(n, "") in ("1", "code units") else units.get(n, "") for n in names)


def axes_and_lengths(dataset: WellDataset) -> tuple[tuple[str, ...], tuple[float, ...]]:
    """Names of the axes, and how long the domain is along each; numbers of points where the card does not tell."""
    metadata = dataset.metadata
    dims = metadata.n_spatial_dims
    axes, _ = axes_and_units(metadata.dataset_name, dims, ())
    card = card_of(metadata.dataset_name)
    ends = [] if card is None else [axis.extent for axis in card.grid.axes]
    if len(ends) != dims or None in ends:
        return axes, tuple(float(points) for points in metadata.spatial_resolution)
    return axes, tuple(abs(end[1] - end[0]) for end in ends if end is not None)
