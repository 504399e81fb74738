"""Normalization statistics: the content of `stats.yaml`, and the part of a card that repeats it."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from typing import Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from wellkit.errors import StatisticsError, did_you_mean
from wellkit.schemas.document import Model, describe_validation_error

Statistic = Literal["mean", "std", "rms", "mean_delta", "std_delta", "rms_delta"]
STATISTICS: tuple[Statistic, ...] = ("mean", "std", "rms", "mean_delta", "std_delta", "rms_delta")

# A scalar field has one number, a vector a list of D, a tensor D lists of D.
Value = float | tuple[float, ...] | tuple[tuple[float, ...], ...]
_NEVER_NEGATIVE = ("std", "rms", "std_delta", "rms_delta")


class Statistics(Model):
    """Per field, over all trajectories, frames and points of the training split.

    `*_delta` are those of the difference between consecutive frames. The file `stats.yaml` holds these six
    mappings and no `schema:` line, so that the_well reads it too. Each goes from a field's core name to
    a number (scalar field), D numbers (vector) or D times D (tensor); constant fields have no `*_delta`.
    """

    mean: dict[str, Value] = Field(default_factory=dict)
    std: dict[str, Value] = Field(default_factory=dict)
    rms: dict[str, Value] = Field(default_factory=dict, description="square root of the mean square")
    mean_delta: dict[str, Value] = Field(default_factory=dict)
    std_delta: dict[str, Value] = Field(default_factory=dict)
    rms_delta: dict[str, Value] = Field(default_factory=dict)

    @classmethod
    def parse(cls, content: Any, *, source: str) -> Self:
        """Build statistics from parsed YAML.

        Args:
            content: what the YAML parser returned.
            source: where it came from, for error messages.

        Raises:
            StatisticsError: not a mapping, an unknown statistic, or a value that is no number.
        """
        if not isinstance(content, Mapping):
            raise StatisticsError(
                f"{source}: expected a mapping with {', '.join(STATISTICS)}, found {type(content).__name__}"
            )
        try:
            return cls.model_validate(dict(content))
        except ValidationError as error:
            raise StatisticsError(f"{source}: {_one_line(error, cls)}") from error

    def get(self, statistic: Statistic, field: str, *, source: str) -> Value:
        """One value.

        Raises:
            StatisticsError: the statistic or the field is missing; the message names what there is.
        """
        values: dict[str, Value] = getattr(self, statistic)
        if not values:
            present = [name for name in STATISTICS if getattr(self, name)]
            raise StatisticsError(
                f"{source}: no '{statistic}' (present: {', '.join(present) or 'nothing'}); "
                f"compute it again with: wellkit stats"
            )
        if field not in values:
            raise StatisticsError(
                f"{source}: '{statistic}' has no field {field!r} (it has {', '.join(values)})."
                f"{did_you_mean(field, values)}"
            )
        return values[field]

    def check(
        self, shapes: Mapping[str, tuple[int, ...]], *, source: str, constant: frozenset[str] = frozenset()
    ) -> None:
        """Raise where statistics do not fit the fields of a dataset.

        Args:
            shapes: component shape of every field: () scalar, (D,) vector, (D, D) tensor.
            source: where the statistics came from, for error messages.
            constant: fields that do not vary in time, which have no `*_delta`.

        Raises:
            StatisticsError: a field is missing or unknown, a value has another shape, is not finite, or is a
                negative spread.
        """
        for statistic in STATISTICS:
            expected = [name for name in shapes if not (statistic.endswith("_delta") and name in constant)]
            for name in expected:
                value = self.get(statistic, name, source=source)
                found = shape_of(value)
                if found != shapes[name]:
                    raise StatisticsError(
                        f"{source}: '{statistic}' of {name!r} has shape {found}, the field {shapes[name]}"
                    )
            unknown = [name for name in getattr(self, statistic) if name not in shapes]
            if unknown:
                raise StatisticsError(
                    f"{source}: '{statistic}' has a field {unknown[0]!r} that the data do not have "
                    f"(they have {', '.join(shapes)}).{did_you_mean(unknown[0], shapes)}"
                )
        self._check_values(source)

    def _check_values(self, source: str) -> None:
        for statistic in STATISTICS:
            for name, value in getattr(self, statistic).items():
                for number in numbers_in(value):
                    if not math.isfinite(number):
                        raise StatisticsError(f"{source}: '{statistic}' of {name!r} is {number}, not a finite number")
                    if number < 0 and statistic in _NEVER_NEGATIVE:
                        raise StatisticsError(f"{source}: '{statistic}' of {name!r} is {number}, below zero")

    def to_mapping(self) -> dict[str, Any]:
        """Plain content for YAML: the six mappings, lists for vectors and tensors."""
        return Statistics.model_dump(self, mode="json", include={*map(str, STATISTICS)})

    def sha256(self) -> str:
        """SHA-256, hexadecimal, of the values: the same whatever the order of keys or the layout of the file."""
        canonical = json.dumps(Statistics.to_mapping(self), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()


class CardStatistics(Statistics):
    """Statistics as a card repeats them: rounded, and with where they come from."""

    provenance: str = Field(min_length=1, description="who computed them, over which data")
    digits: int = Field(gt=0, le=17, description="significant digits that survived rounding")

    @model_validator(mode="after")
    def _check_finite(self) -> Self:
        for statistic in STATISTICS:
            for name, value in getattr(self, statistic).items():
                if not all(math.isfinite(number) for number in numbers_in(value)):
                    raise ValueError(f"{statistic} of {name!r} is not finite")
        return self


def shape_of(value: Value) -> tuple[int, ...]:
    """Shape of a nested value: (), (D,) or (D, D)."""
    if not isinstance(value, tuple):
        return ()
    return (len(value), *(shape_of(value[0]) if value else ()))


def numbers_in(value: Value) -> Iterator[float]:
    """The numbers of a nested value, last index fastest."""
    if isinstance(value, tuple):
        for part in value:
            yield from numbers_in(part)
    else:
        yield value


def _one_line(error: ValidationError, model: type[Statistics]) -> str:
    """A union reports one problem per alternative; one sentence says it better."""
    for problem in error.errors(include_url=False, include_context=False):
        if len(problem["loc"]) >= 2:
            statistic, field = problem["loc"][:2]
            found = repr(problem["input"])
            return f"'{statistic}' of {field!r} has to be a number or (nested) lists of numbers, found {found}"
    return describe_validation_error(error, model)
