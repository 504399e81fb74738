"""Scores of many samples: sums without rounding, and tables of entries that come in any order, batch or process.

A mean of floating-point numbers depends on the order they are added in, so a score taken batch by batch depends
on the batch size, and one taken by several processes on their number. Here it does not: `ExactSum` adds without
rounding and rounds once at the end, and `ScoreTable` keeps what each sample scored by itself.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from wellkit.errors import DataValueError, ScoreError
from wellkit.frameworks import Array, to_numpy
from wellkit.metrics.rows import DEFAULT_EPS, NumPyRows, Pair, quiet

# Every float64 is a whole number of 2^-1126: 2^-1074 is the least, and frexp shifts mantissas up by 53 bits at most.
_SHIFT = 1126
_PIECE = 2**24  # numbers at once, so that sums of 27-bit halves stay far below 2^63

Values = np.ndarray | Sequence[float] | float


class ExactSum:
    """A sum of float64 numbers that is rounded once, at the end.

    The sum is one whole number of 2^-1126, so the order of additions and the way they are divided among
    processes make no difference to any bit. Infinities and NaN are counted apart: the sum is what IEEE arithmetic
    makes of them. Memory: a few hundred bytes.
    """

    def __init__(self, values: Values = ()) -> None:
        self._units = 0
        self._special = {"nan": 0, "inf": 0, "-inf": 0}
        self.count = 0
        self.add(values)

    def add(self, values: Values) -> None:
        """Add numbers of any shape; they are converted to float64 first."""
        flat = np.asarray(values, dtype=np.float64).ravel()
        self.count += len(flat)
        finite = np.isfinite(flat)
        if not finite.all():
            special = flat[~finite]
            self._special["nan"] += int(np.isnan(special).sum())
            self._special["inf"] += int((special == np.inf).sum())
            self._special["-inf"] += int((special == -np.inf).sum())
            flat = flat[finite]
        for start in range(0, len(flat), _PIECE):
            self._add_finite(flat[start : start + _PIECE])

    def _add_finite(self, values: np.ndarray) -> None:
        fractions, exponents = np.frexp(values)
        mantissas = np.ldexp(fractions, 53).astype(np.int64)
        powers, place = np.unique(exponents, return_inverse=True)
        high, low = np.zeros(len(powers), dtype=np.int64), np.zeros(len(powers), dtype=np.int64)
        np.add.at(high, place, mantissas >> 26)
        np.add.at(low, place, mantissas & (2**26 - 1))
        for power, upper, lower in zip(powers.tolist(), high.tolist(), low.tolist(), strict=True):
            self._units += ((upper << 26) + lower) << (power - 53 + _SHIFT)

    def merge(self, other: ExactSum) -> None:
        """Add everything that `other` was given."""
        self._units += other._units
        self.count += other.count
        for kind, number in other._special.items():
            self._special[kind] += number

    def _beyond(self) -> float | None:
        if self._special["nan"] or (self._special["inf"] and self._special["-inf"]):
            return math.nan
        if self._special["inf"]:
            return math.inf
        return -math.inf if self._special["-inf"] else None

    def _rounded(self, divisor: int) -> float:
        beyond = self._beyond()
        if beyond is not None:
            return beyond
        try:
            return self._units / (divisor << _SHIFT)  # division of whole numbers rounds correctly
        except OverflowError:
            return math.inf if self._units > 0 else -math.inf

    @property
    def value(self) -> float:
        """The sum, correctly rounded; infinite where it is beyond the largest float64."""
        return self._rounded(1)

    @property
    def mean(self) -> float:
        """Sum over count, rounded once.

        Raises:
            ScoreError: nothing was added.
        """
        if not self.count:
            raise ScoreError("no numbers were added, so there is no mean")
        return self._rounded(self.count)

    def state(self) -> dict[str, Any]:
        """What `from_state` needs, as numbers and text that JSON can hold."""
        return {"units": hex(self._units), "count": self.count, **self._special}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> ExactSum:
        """The sum another process made `state` of."""
        made = cls()
        made._units, made.count = int(state["units"], 16), int(state["count"])
        made._special = {kind: int(state[kind]) for kind in made._special}
        return made


def exact_mean(values: Values) -> float:
    """Mean of numbers, rounded once: the same for any order. Raises ScoreError if there are none."""
    return ExactSum(values).mean


def vrmse_of(mse: np.ndarray, variance: np.ndarray, eps: np.ndarray | float) -> np.ndarray:
    """sqrt(MSE / (variance + eps)); 0 where nothing is missed, infinite where the error is or nothing varies."""
    with quiet():
        return np.where(mse == 0, 0.0, np.where(np.isinf(mse), np.inf, np.sqrt(mse / (variance + eps))))


@dataclass(frozen=True)
class ScoreSummary:
    """What a table of VRMSE comes to.

    Attributes:
        mean: over entries (samples, steps and components alike).
        median: over entries.
        pooled: sqrt(mean of MSE / (mean of variance + eps)) per component, mean over components: frames of large
            variance weigh more, so a few quiet frames cannot decide the score.
        per_component: the same three, each (component).
        samples, entries: how many.
        nonfinite: entries predicted with NaN or infinity; each scores infinity, and so do means with it.
        flat: entries whose target varies by less than 100 eps, where eps has a say in the score.
    """

    mean: float
    median: float
    pooled: float
    per_component: dict[str, np.ndarray]
    samples: int
    entries: int
    nonfinite: int
    flat: int

    @property
    def flat_share(self) -> float:
        """Flat entries over entries."""
        return self.flat / self.entries


class ScoreTable:
    """MSE and target variance of every sample, frame and component, for VRMSE by any mean.

    Each frame is scored by itself in float64, kept under its sample's number, and
    means are rounded once, so every figure is the same to the last bit for any batch size, order and division
    among processes. Memory: 16 bytes an entry and about 200 a sample, besides one batch.

    Args:
        n_spatial_dims: how many axes before the last one are space.
        eps: of `wellkit.metrics.vrmse`, in the square of the fields' unit.
        outside: what NaN in a target means. False: bad data, refused. True: a point outside the domain, left out
            of the sums of its frame (at least 2 points must remain).
    """

    def __init__(self, *, n_spatial_dims: int, eps: float = DEFAULT_EPS, outside: bool = False) -> None:
        if not 0 <= eps < math.inf:
            raise ScoreError(f"eps={eps}; give a number from 0 up, e.g. {DEFAULT_EPS:g}")
        self.n_spatial_dims, self.eps, self.outside = n_spatial_dims, float(eps), outside
        self._entries: dict[int, np.ndarray] = {}  # sample -> (MSE | variance, ..., component)

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, samples: Sequence[int], prediction: Array, target: Array) -> None:
        """Score a batch.

        Args:
            samples: number of each sample in the split. One that is there already (loaders of several processes
                repeat some to give all equally many) counts once.
            prediction, target: (sample, ..., space..., component), physical units, NumPy or torch.

        Raises:
            ScoreError: shapes do not fit, or a sample that is there already scores otherwise.
            DataValueError: the target holds infinity, or NaN where none is allowed.
        """
        x, y = to_numpy(prediction), to_numpy(target)
        if x.shape != y.shape or not x.ndim or len(x) != len(samples):
            raise ScoreError(
                f"prediction has shape {x.shape}, target {y.shape}, for {len(samples)} samples; "
                "they must be equal, and as long as there are samples"
            )
        for number, predicted, true in zip(samples, x, y, strict=True):
            self._put(int(number), self._score(int(number), predicted, true))

    def _score(self, number: int, prediction: np.ndarray, target: np.ndarray) -> np.ndarray:
        with quiet():
            pair = Pair(prediction, target, self.n_spatial_dims, None)
            entries = np.stack([pair.mean_square_error(), pair.unbiased_variance()])
            bad = ~np.isfinite(pair.target)
            if bad.any():
                self._score_inside(number, pair, bad, entries)
        entries[0][~np.isfinite(entries[0])] = np.inf
        return entries

    def _score_inside(self, number: int, pair: Pair, bad: np.ndarray, entries: np.ndarray) -> None:
        infinite = bool(np.isinf(pair.target).any())
        if infinite or not self.outside:
            kind = "infinity" if infinite else "NaN"
            raise DataValueError(f"the target of sample {number} holds {kind}; the data cannot be scored against")
        for place in np.argwhere(bad.any(axis=-1)):
            inside = ~bad[tuple(place)]
            count = int(inside.sum())
            if count < 2:
                raise DataValueError(f"a frame of sample {number} holds {count} points that are not NaN; 2 are needed")
            x, y = pair.prediction[tuple(place)][inside], pair.target[tuple(place)][inside]
            variance = NumPyRows.mean(NumPyRows.centred(y) ** 2) * (count / (count - 1))
            entries[(slice(None), *place)] = NumPyRows.mean((x - y) ** 2), variance

    def _put(self, number: int, entries: np.ndarray) -> None:
        known = self._entries.setdefault(number, entries)
        if known is not entries and not np.array_equal(known, entries):
            raise ScoreError(f"sample {number} was scored before, with other values; number each sample once")
        first = next(iter(self._entries.values()))
        if (entries.ndim, entries.shape[-1]) != (first.ndim, first.shape[-1]):
            del self._entries[number]
            raise ScoreError(
                f"sample {number} has scores of shape {entries.shape[1:]}, those before it {first.shape[1:]}; "
                "axes and components must be the same"
            )

    def merge(self, other: ScoreTable) -> None:
        """Take over what another process scored.

        Raises:
            ScoreError: it was scored with other settings, or one sample with other values.
        """
        mine, theirs = ((t.n_spatial_dims, t.eps, t.outside) for t in (self, other))
        if mine != theirs:
            raise ScoreError(f"tables of unequal (n_spatial_dims, eps, outside) cannot be joined: {mine} and {theirs}")
        for number, entries in other._entries.items():
            self._put(number, entries)

    def state(self) -> dict[str, np.ndarray]:
        """Plain arrays to hand to another process (`numpy.savez`, a gather), for `from_state`."""
        numbers = sorted(self._entries)
        tables = [self._entries[number] for number in numbers]
        return {
            "settings": np.array([self.n_spatial_dims, self.eps, self.outside], dtype=np.float64),
            "samples": np.array(numbers, dtype=np.int64),
            "shapes": np.array([table.shape[1:] for table in tables], dtype=np.int64).reshape(
                len(numbers), tables[0].ndim - 1 if tables else 0
            ),
            "values": np.concatenate([table.ravel() for table in tables] or [np.empty(0)]),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, np.ndarray]) -> ScoreTable:
        """The table another process made `state` of. Raises ScoreError if the arrays do not fit together."""
        try:
            dims, eps, outside = np.asarray(state["settings"]).tolist()
            table = cls(n_spatial_dims=int(dims), eps=eps, outside=bool(outside))
            values, shapes = np.asarray(state["values"]), np.asarray(state["shapes"])
            ends = np.cumsum([2 * math.prod(shape) for shape in shapes.tolist()], dtype=np.int64)
            if (int(ends[-1]) if len(ends) else 0) != len(values):
                raise ValueError(f"{len(values)} values for shapes that hold {ends[-1:].tolist()}")
            parts = np.split(values, ends[:-1]) if len(ends) else []
            for number, shape, part in zip(np.asarray(state["samples"]).tolist(), shapes.tolist(), parts, strict=True):
                table._put(number, part.reshape(2, *shape))
        except (KeyError, ValueError, TypeError) as error:
            raise ScoreError(
                f"not the state of a table of scores ({error}); pass what ScoreTable.state gave"
            ) from error
        return table

    def vrmse(self, sample: int) -> np.ndarray:
        """VRMSE of one sample, (..., component). Raises ScoreError if it was not scored."""
        if sample not in self._entries:
            raise ScoreError(f"sample {sample} was not scored; {len(self)} others were")
        return self._vrmse([self._entries[sample]])[0]

    def entries(self, samples: Iterable[int]) -> np.ndarray:
        """What samples scored: (MSE | variance, sample, ..., component). Raises ScoreError for one that was not."""
        numbers = list(samples)
        missing = [number for number in numbers if number not in self._entries]
        if missing or not numbers:
            raise ScoreError(f"sample {missing[0] if missing else '(none)'} was not scored; {len(self)} others were")
        return np.stack([self._entries[number] for number in numbers], axis=1)

    def _vrmse(self, tables: Iterable[np.ndarray]) -> list[np.ndarray]:
        return [vrmse_of(mse, variance, self.eps) for mse, variance in tables]

    def summary(self, *, expected: int | None = None) -> ScoreSummary:
        """All figures.

        Args:
            expected: how many samples the split has; None to take what is there.

        Raises:
            ScoreError: nothing was scored, or not exactly the samples 0 to `expected` - 1.
        """
        numbers = sorted(self._entries)
        if expected is not None and numbers != list(range(expected)):
            missing = next((n for n in range(expected) if n not in self._entries), None)
            problem = f"sample {missing} is missing" if missing is not None else f"sample {numbers[-1]} is too many"
            raise ScoreError(f"{len(numbers)} of {expected} samples were scored: {problem}")
        if not numbers:
            raise ScoreError("no samples were scored, so there is no mean")
        tables = [self._entries[number] for number in numbers]
        flat = [table.reshape(2, -1, table.shape[-1]) for table in tables]
        mse, variance = (np.concatenate([table[i] for table in flat]) for i in (0, 1))
        vrmse = np.concatenate(self._vrmse(flat))
        components = range(vrmse.shape[-1])
        means = [np.array([exact_mean(values[:, c]) for c in components]) for values in (mse, variance)]
        pooled = vrmse_of(means[0], means[1], self.eps)
        return ScoreSummary(
            mean=exact_mean(vrmse),
            median=float(np.median(vrmse)),
            pooled=exact_mean(pooled),
            per_component={
                "mean": np.array([exact_mean(vrmse[:, c]) for c in components]),
                "median": np.median(vrmse, axis=0),
                "pooled": pooled,
            },
            samples=len(numbers),
            entries=vrmse.size,
            nonfinite=int(np.isinf(mse).sum()),
            flat=int((variance < 100 * self.eps).sum()),
        )
