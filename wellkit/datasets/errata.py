"""Known faults of published data, told once a dataset and split when it is opened."""

from __future__ import annotations

import warnings

from wellkit import catalog
from wellkit.errors import UnknownDatasetError, WellkitWarning
from wellkit.schemas.erratum import Erratum


def errata_of(name: str, split: str | None) -> list[Erratum]:
    """Errata of a dataset that touch its data in `split` (any, if None): those above `info`, the gravest first.

    Data that carry the name but have no card have no known errata.
    """
    try:
        card = catalog.get(name)
    except UnknownDatasetError:
        return []
    touching = [
        erratum
        for erratum in card.errata
        if erratum.severity != "info"
        and erratum.concerns != "documentation"
        and erratum.fixed_in is None
        and (split is None or erratum.scope.split in (None, split))
    ]
    return sorted(touching, key=lambda erratum: erratum.severity != "error")


def warn_of_errata(name: str, split: str | None, *, stacklevel: int) -> None:
    """Warn of known faults of a published dataset, on one line."""
    found = errata_of(name, split)
    if found:
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        warnings.warn(
            f"{name}: known fault in the published data ({found[0].scope.describe()}): {found[0].summary}{more}; "
            f"see `wellkit info {name}`; errata='keep' silences this",
            WellkitWarning,
            stacklevel=stacklevel,
        )
