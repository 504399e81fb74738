"""From statistics files to the normalization a dataset applies."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from wellkit.errors import DataNotFoundError, StatisticsError
from wellkit.formats.statistics_file import load_statistics
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
) -> tuple[str, Any]:
    """(where the statistics are, the normalization made of them).

    Args:
        candidates: statistics files; the first that exists counts.
        build: a `Normalization`, or a class of the caller's own: called with the statistics' content and the names.
        variable, constant: core field names.
        shapes: component shape of each field.
        min_std: smallest divisor; a class of the caller's own chooses its own.

    Raises:
        StatisticsError: there is no file, or it does not fit the fields; names the file.
    """
    for candidate in candidates:
        try:
            content = load_statistics(candidate, storage_options=storage_options).to_mapping()
        except DataNotFoundError:
            continue
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
