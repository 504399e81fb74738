"""From statistics files to the normalization a dataset applies."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from wellkit.errors import DataNotFoundError, StatisticsError, WellkitWarning
from wellkit.formats.statistics_comparison import differences_from_card
from wellkit.formats.statistics_file import load_statistics, statistics_hash
from wellkit.integrity.guard import check_against_manifest
from wellkit.normalization import Normalization, RMSNormalization, ZScoreNormalization
from wellkit.schemas.card import SimulationCard
from wellkit.schemas.statistics import Statistics
from wellkit.storage import without_secrets

NORMALIZATIONS: dict[str, type[Normalization]] = {"zscore": ZScoreNormalization, "rms": RMSNormalization}
_told: set[tuple[str, str]] = set()  # (file, hash) of statistics that this process has warned of


class OpenNormalization(NamedTuple):
    """A normalization, its statistics, the file they were read from, and whether a manifest lists them."""

    path: str
    normalization: Any
    statistics: Statistics
    vouched: bool

    @property
    def hash(self) -> str:
        """SHA-256 of the statistics' values."""
        return statistics_hash(self.statistics)


def normalization_class(kind: Callable[..., Any] | str | None) -> Callable[..., Any]:
    """The class a `normalization_type` stands for; None is z-score. Raises StatisticsError for an unknown name."""
    if kind is None:
        return ZScoreNormalization
    if callable(kind):
        return kind
    if kind not in NORMALIZATIONS:
        known = ", ".join(NORMALIZATIONS)
        raise StatisticsError(f"normalization_type={kind!r} is unknown; choose one of {known}, or give a class")
    return NORMALIZATIONS[kind]


def open_normalization(
    candidates: Sequence[str],
    build: Callable[..., Any],
    *,
    variable: list[str],
    constant: list[str],
    shapes: Mapping[str, tuple[int, ...]],
    min_std: float,
    storage_options: Mapping[str, Any],
    guarded: bool = True,
) -> OpenNormalization:
    """Read the statistics and make the normalization.

    Args:
        candidates: statistics files; the first that exists counts.
        build: a `Normalization`, or a class of the caller's own: called with the statistics' content and the names.
        variable, constant: core field names.
        shapes: component shape of each field.
        min_std: smallest divisor; a class of the caller's own chooses its own.
        guarded: compare the file with the manifest of the tree it lies in, if there is one; not for a file that the
            caller has named.

    Raises:
        StatisticsError: there is no file, it does not fit the fields, or it is not the one that the manifest tells of;
            names the file.
    """
    for candidate in candidates:
        try:
            statistics = load_statistics(candidate, storage_options=storage_options)
        except DataNotFoundError:
            continue
        vouched = False
        if guarded:
            vouched = check_against_manifest(candidate, statistics)
        try:
            own = isinstance(build, type) and issubclass(build, Normalization)
            normalization = build(
                statistics.to_mapping(), variable, constant, **({"min_denom": min_std} if own else {})
            )
            if own:
                normalization.check_shapes(shapes)
        except StatisticsError as error:
            raise StatisticsError(f"{candidate}: {error}") from error
        return OpenNormalization(candidate, normalization, statistics, vouched)
    raise StatisticsError(
        f"use_normalization=True needs statistics, but there is no {candidates[0]}; compute them with "
        f"`wellkit stats PATH --write`, give normalization_path=, or set use_normalization=False"
    )


def warn_of_other_statistics(
    opened: OpenNormalization, card: SimulationCard | None, resolution: tuple[int, ...], *, stacklevel: int
) -> None:
    """Warn, once a file and content, where a published dataset's statistics are not those its card repeats.

    Those that the tree's manifest lists are what was fetched, or were computed and recorded on purpose. Data of another
    `resolution` than the card's were made from the published ones and have statistics of their own.
    """
    if opened.vouched or card is None or card.statistics is None or card.resolution != resolution:
        return
    differences = differences_from_card(opened.statistics, card.statistics)
    key = (opened.path, opened.hash)
    if not differences or key in _told:
        return
    _told.add(key)
    worst = differences[0]
    more = f" and {len(differences) - 1} other values differ" if len(differences) > 1 else ""
    warnings.warn(
        f"{without_secrets(opened.path)}: not the published statistics of {card.name}: {worst.statistic} of "
        f"{worst.component} is {worst.recorded:.6g}, published {worst.computed:.6g}{more}; fetch the file again "
        f"(`wellkit download {card.name}`), or give it as normalization_path= to say that it is meant",
        WellkitWarning,
        stacklevel=stacklevel,
    )
