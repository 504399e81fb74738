"""Statistics applied to fields and undone: z-score and RMS, for states and for deltas.

    z-score: (x - mean) / std        RMS: x / rms

`mean`, `std` and `rms` are numbers for a scalar field and arrays over components for vectors and tensors, float32.
Divisors are at least `min_denom`. Methods take NumPy arrays and torch tensors (on any device) and return the same
kind; the values agree with the_well's classes of the same names to float32 rounding.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from wellkit.errors import StatisticsError
from wellkit.frameworks import Array, like
from wellkit.schemas.statistics import Statistic, Statistics

Mode = Literal["variable", "constant"]
_Affine = tuple[np.ndarray, np.ndarray]  # (offset, scale): normalized = (x - offset) / scale


class Normalization(ABC):
    """Offsets and scales per field: normalized = (x - offset) / scale.

    Args:
        stats: the content of stats.yaml, or `Statistics`.
        core_field_names: time-varying fields, in channel order.
        core_constant_field_names: constant fields, in channel order.
        min_denom: smallest divisor.

    Raises:
        StatisticsError: a statistic or a field's value is missing or not finite; names both.
    """

    def __init__(
        self,
        stats: Mapping[str, Any] | Statistics,
        core_field_names: Sequence[str],
        core_constant_field_names: Sequence[str],
        min_denom: float = 1e-4,
    ) -> None:
        statistics = stats if isinstance(stats, Statistics) else Statistics.parse(stats, source="statistics")
        self.core_field_names = list(core_field_names)
        self.core_constant_field_names = list(core_constant_field_names)
        self.min_denom = min_denom
        every = [*self.core_field_names, *self.core_constant_field_names]
        self._states = {name: self._pair(statistics, name, delta=False) for name in every}
        self._deltas = {name: self._pair(statistics, name, delta=True) for name in self.core_field_names}
        names = {"variable": self.core_field_names, "constant": self.core_constant_field_names}
        self._flat_states = {mode: _flatten([self._states[n] for n in members]) for mode, members in names.items()}
        self._flat_deltas = {"variable": _flatten([self._deltas[n] for n in self.core_field_names])}

    @abstractmethod
    def _pair(self, statistics: Statistics, field: str, *, delta: bool) -> _Affine:
        """(offset, scale) of one field."""

    def _value(self, statistics: Statistics, statistic: Statistic, field: str) -> np.ndarray:
        value = np.asarray(statistics.get(statistic, field, source="statistics"), dtype=np.float32)
        if not np.isfinite(value).all():
            raise StatisticsError(f"statistics: '{statistic}' of {field!r} is {value.tolist()}, not finite")
        return value

    def _divisor(self, statistics: Statistics, statistic: Statistic, field: str) -> np.ndarray:
        value = self._value(statistics, statistic, field)
        if (value < 0).any():
            raise StatisticsError(f"statistics: '{statistic}' of {field!r} is {value.tolist()}, below zero")
        divisor: np.ndarray = np.maximum(value, np.float32(self.min_denom))
        return divisor

    def check_shapes(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Raise StatisticsError where a field's statistics do not have its component shape: (), (D,) or (D, D)."""
        for table, what in ((self._states, "statistics"), (self._deltas, "delta statistics")):
            for name, pair in table.items():
                for part in pair:
                    if part.shape != shapes[name]:
                        raise StatisticsError(
                            f"{what} (mean, std or rms) of {name!r} have shape {part.shape}, "
                            f"its components {shapes[name]}"
                        )

    def affine(self, field: str, *, delta: bool = False) -> _Affine:
        """(offset, scale) of one field, float32, shape of its components: normalized = (x - offset) / scale.

        Raises:
            StatisticsError: there are no such statistics (constant fields have none for deltas).
        """
        table = self._deltas if delta else self._states
        try:
            return table[field]
        except KeyError:
            kind = "delta statistics" if delta else "statistics"
            raise StatisticsError(f"no {kind} of field {field!r}; there are those of {', '.join(table)}") from None

    def _flat(self, x: Array, mode: str, *, delta: bool) -> tuple[Array, Array]:
        table = self._flat_deltas if delta else self._flat_states
        if mode not in table:
            raise StatisticsError(
                f"mode={mode!r} has no {'delta ' * delta}statistics; choose one of {', '.join(table)}"
            )
        offset, scale = table[mode]
        if x.shape[-1] != scale.shape[0]:
            raise StatisticsError(f"array has {x.shape[-1]} channels, the {mode} fields have {scale.shape[0]}")
        return like(offset, x), like(scale, x)

    def normalize(self, x: Array, field: str) -> Array:
        """One field, components last: (..., component...)."""
        offset, scale = self.affine(field)
        return (x - like(offset, x)) / like(scale, x)

    def denormalize(self, x: Array, field: str) -> Array:
        """The inverse of `normalize`."""
        offset, scale = self.affine(field)
        return x * like(scale, x) + like(offset, x)

    def delta_normalize(self, x: Array, field: str) -> Array:
        """Differences between consecutive steps of one field."""
        offset, scale = self.affine(field, delta=True)
        return (x - like(offset, x)) / like(scale, x)

    def delta_denormalize(self, x: Array, field: str) -> Array:
        """The inverse of `delta_normalize`."""
        offset, scale = self.affine(field, delta=True)
        return x * like(scale, x) + like(offset, x)

    def normalize_flattened(self, x: Array, mode: Mode = "variable") -> Array:
        """All fields as channels: (..., channel); `mode` says whether those that vary in time or the constant ones."""
        offset, scale = self._flat(x, mode, delta=False)
        return (x - offset) / scale

    def denormalize_flattened(self, x: Array, mode: Mode = "variable") -> Array:
        """The inverse of `normalize_flattened`."""
        offset, scale = self._flat(x, mode, delta=False)
        return x * scale + offset

    def delta_normalize_flattened(self, x: Array, mode: Mode = "variable") -> Array:
        """Differences of all time-varying fields as channels."""
        offset, scale = self._flat(x, mode, delta=True)
        return (x - offset) / scale

    def delta_denormalize_flattened(self, x: Array, mode: Mode = "variable") -> Array:
        """The inverse of `delta_normalize_flattened`."""
        offset, scale = self._flat(x, mode, delta=True)
        return x * scale + offset


def _flatten(pairs: Sequence[_Affine]) -> _Affine:
    """Components of several fields side by side, as channels."""
    if not pairs:
        return np.empty(0, np.float32), np.empty(0, np.float32)
    return np.concatenate([o.ravel() for o, _ in pairs]), np.concatenate([s.ravel() for _, s in pairs])


class ZScoreNormalization(Normalization):
    """(x - mean) / std, and (d - mean_delta) / std_delta for differences. Needs mean, std, mean_delta, std_delta."""

    def _pair(self, statistics: Statistics, field: str, *, delta: bool) -> _Affine:
        mean: Statistic = "mean_delta" if delta else "mean"
        std: Statistic = "std_delta" if delta else "std"
        return self._value(statistics, mean, field), self._divisor(statistics, std, field)

    @property
    def means(self) -> dict[str, np.ndarray]:
        """Mean of each field."""
        return {name: offset for name, (offset, _) in self._states.items()}

    @property
    def stds(self) -> dict[str, np.ndarray]:
        """Standard deviation of each field, at least min_denom."""
        return {name: scale for name, (_, scale) in self._states.items()}

    @property
    def means_delta(self) -> dict[str, np.ndarray]:
        """Mean difference of each time-varying field."""
        return {name: offset for name, (offset, _) in self._deltas.items()}

    @property
    def stds_delta(self) -> dict[str, np.ndarray]:
        """Standard deviation of the differences of each time-varying field, at least min_denom."""
        return {name: scale for name, (_, scale) in self._deltas.items()}

    @property
    def flattened_means(self) -> dict[str, np.ndarray]:
        """Means by mode, one a channel."""
        return {mode: offset for mode, (offset, _) in self._flat_states.items()}

    @property
    def flattened_stds(self) -> dict[str, np.ndarray]:
        """Standard deviations by mode, one a channel."""
        return {mode: scale for mode, (_, scale) in self._flat_states.items()}

    @property
    def flattened_means_delta(self) -> dict[str, np.ndarray]:
        """Mean differences by mode, one a channel."""
        return {mode: offset for mode, (offset, _) in self._flat_deltas.items()}

    @property
    def flattened_stds_delta(self) -> dict[str, np.ndarray]:
        """Standard deviations of differences by mode, one a channel."""
        return {mode: scale for mode, (_, scale) in self._flat_deltas.items()}


class RMSNormalization(Normalization):
    """x / rms, and d / rms_delta for differences. Needs rms and rms_delta."""

    def _pair(self, statistics: Statistics, field: str, *, delta: bool) -> _Affine:
        scale = self._divisor(statistics, "rms_delta" if delta else "rms", field)
        return np.zeros_like(scale), scale

    @property
    def rmss(self) -> dict[str, np.ndarray]:
        """Root mean square of each field, at least min_denom."""
        return {name: scale for name, (_, scale) in self._states.items()}

    @property
    def rmss_delta(self) -> dict[str, np.ndarray]:
        """Root mean square difference of each time-varying field, at least min_denom."""
        return {name: scale for name, (_, scale) in self._deltas.items()}

    @property
    def flattened_rmss(self) -> dict[str, np.ndarray]:
        """Root mean squares by mode, one a channel."""
        return {mode: scale for mode, (_, scale) in self._flat_states.items()}

    @property
    def flattened_rmss_delta(self) -> dict[str, np.ndarray]:
        """Root mean square differences by mode, one a channel."""
        return {mode: scale for mode, (_, scale) in self._flat_deltas.items()}
