"""From statistics files to the normalization a dataset applies."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from wellkit.errors import DataNotFoundError, StatisticsError
from wellkit.formats.statistics_file import load_statistics
from wellkit.integrity.guard import check_against_manifest
from wellkit.normalization import Normalization, RMSNormalization, ZScoreNormalization

NORMALIZATIONS: dict[str, type[Normalization]] = {"zscore": ZScoreNormalization, "rms": RMSNormalization}


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
) -> tuple[str, Any]:
    """(where the statistics are, the normalization made of them).

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
        if guarded:
            check_against_manifest(candidate, statistics)
        content = statistics.to_mapping()
        try:
            own = isinstance(build, type) and issubclass(build, Normalization)
            normalization = build(content, variable, constant, **({"min_denom": min_std} if own else {}))
            if own:
                normalization.check_shapes(shapes)
        except StatisticsError as error:
            raise StatisticsError(f"{candidate}: {error}") from error
        return candidate, normalization
    raise StatisticsError(
        f"use_normalization=True needs statistics, but there is no {candidates[0]}; compute them with "
        f"`wellkit stats PATH --write`, give normalization_path=, or set use_normalization=False"
    )
