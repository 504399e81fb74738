"""What a pass over one field of one trajectory finds, frame by frame, and over all frames."""

from __future__ import annotations

import importlib
import sys
from dataclasses import dataclass, field
from functools import lru_cache
from types import ModuleType
from typing import Any

import numpy as np

from wellkit.scanning.columns import (
    COUNT,
    DELTA_COUNT,
    DELTA_SQUARES,
    DELTA_SUM,
    HIGHEST,
    INFINITE,
    LOWEST,
    N_COUNTS,
    N_MOMENTS,
    NAN,
    SQUARES,
    SUM,
    hash_keys,
)


@dataclass
class Moments:
    """Count, mean and sum of squared deviations of each component; float64 of shape (component), or (frame, component).

    Sets are joined by the update of Chan, Golub & LeVeque (1979), so that a large offset costs no digits.
    """

    count: np.ndarray = field(default_factory=lambda: np.zeros(()))
    mean: np.ndarray = field(default_factory=lambda: np.zeros(()))
    squares: np.ndarray = field(default_factory=lambda: np.zeros(()))

    def merge(self, other: Moments, *, weight: int = 1) -> None:
        """Join the moments of another set of values, taken in `weight` times."""
        count = other.count * weight
        total = self.count + count
        share = count / np.maximum(total, 1)
        shift = other.mean - self.mean
        self.squares = self.squares + other.squares * weight + shift * shift * self.count * share
        self.mean = self.mean + shift * share
        self.count = total

    def over_frames(self) -> Moments:
        """Those of all frames together: axes (frame, component) become (component)."""
        count = self.count.sum(axis=0)
        mean = (self.count * self.mean).sum(axis=0) / np.maximum(count, 1)
        off = self.mean - mean
        return Moments(count, mean, (self.squares + self.count * off * off).sum(axis=0))

    @property
    def std(self) -> np.ndarray:
        """Population standard deviation; 0 where there are no values."""
        found: np.ndarray = np.sqrt(self.squares / np.maximum(self.count, 1))
        return found

    @property
    def rms(self) -> np.ndarray:
        """Square root of the mean square."""
        found: np.ndarray = np.sqrt(self.mean * self.mean + self.squares / np.maximum(self.count, 1))
        return found

    def results(self, shape: tuple[int, ...]) -> tuple[Any, Any, Any]:
        """(mean, std, rms) as numbers or nested lists of `shape`."""
        mean, std, rms = (values.reshape(shape).tolist() for values in (self.mean, self.std, self.rms))
        return mean, std, rms


def _empty(n_frames: int, components: int) -> Moments:
    return Moments(*np.zeros((3, n_frames, components)))


@dataclass
class FrameSeries:
    """One field of one trajectory, frame by frame. Values that are not finite count as such, and nowhere else.

    Attributes:
        n_values: of a frame.
        states: moments, axes (frame, component).
        deltas: those of the difference to the frame before; no values in the first.
        lowest, highest: axes (frame, component); infinite where there are no values.
        counts: int64, axes (frame, column): see `wellkit.scanning.columns`.
        hashes: uint64, axis (frame): of a frame's bits; other places or values give another hash.
    """

    n_values: int
    states: Moments
    deltas: Moments
    lowest: np.ndarray
    highest: np.ndarray
    counts: np.ndarray
    hashes: np.ndarray

    @property
    def n_frames(self) -> int:
        """Frames of the trajectory; 1 for a field that is constant in time."""
        return len(self.hashes)

    def first_odd(self, *, infinite_only: bool = False) -> int | None:
        """The first frame with infinity (or NaN), if any."""
        odd = self.counts[:, INFINITE] > 0
        if not infinite_only:
            odd |= self.counts[:, NAN] > 0
        return int(np.argmax(odd)) if odd.any() else None


@lru_cache(maxsize=2)
def load_kernels(compiled: bool | None = None) -> ModuleType:
    """The compiled pass if asked for or, for None, if numba can be imported; else NumPy's."""
    if compiled or (compiled is None and sys.byteorder == "little" and sys.maxsize > 2**32):
        try:
            return importlib.import_module("wellkit.scanning.kernels")
        except ImportError:
            if compiled:
                raise
    return importlib.import_module("wellkit.scanning.numpy_kernels")


@lru_cache(maxsize=1)
def _keys() -> np.ndarray:
    keys = hash_keys()
    keys.flags.writeable = False
    return keys


class FrameScan:
    """Takes one field of one trajectory, a block at a time, and keeps nothing of it but the block before."""

    def __init__(self, n_frames: int, n_values: int, components: int, *, compiled: bool | None = None) -> None:
        self._kernels = load_kernels(compiled)
        self._plain = load_kernels(compiled=False)
        self._components = components
        self._before: np.ndarray | None = None
        shape = (n_frames, components)
        self.series = FrameSeries(
            n_values,
            _empty(*shape),
            _empty(*shape),
            np.full(shape, np.inf),
            np.full(shape, -np.inf),
            np.zeros((n_frames, N_COUNTS), np.int64),
            np.zeros(n_frames, np.uint64),
        )

    def add(self, first: int, block: np.ndarray, start: int = 0) -> None:
        """Take the same part of some consecutive frames. All frames of one part come in order, then the next part.

        Args:
            first: number of the first frame.
            block: axes (frame, value), C-contiguous; must stay as it is until the next call has returned.
            start: values of a frame that lie before the part.
        """
        if first == 0:
            self._before = None
        frames = slice(first, first + len(block))
        moments = np.zeros((len(block), self._components, N_MOMENTS))
        moments[..., LOWEST], moments[..., HIGHEST] = np.inf, -np.inf
        shifts = np.zeros((len(block), 2, self._components))
        series = self.series
        kernels = self._kernels if block.dtype == np.float32 else self._plain
        has_before = self._before is not None
        kernels.scan(
            block, self._before if self._before is not None else block[0], has_before, start, self._components,
            _keys(), shifts, series.hashes[frames], series.counts[frames], moments,
        )  # fmt: skip
        self._before = block[-1]
        np.minimum(series.lowest[frames], moments[..., LOWEST], out=series.lowest[frames])
        np.maximum(series.highest[frames], moments[..., HIGHEST], out=series.highest[frames])
        _merge_into(series.states, frames, _state_moments(moments, shifts[:, 0]))
        changes = _moments(moments, DELTA_COUNT, DELTA_SUM, DELTA_SQUARES, shifts[:, 1])
        _merge_into(series.deltas, frames, changes)


def _moments(columns: np.ndarray, count: int, total: int, squares: int, shift: np.ndarray) -> Moments:
    counts = columns[..., count]
    off = columns[..., total] / np.maximum(counts, 1)
    deviations = np.maximum(columns[..., squares] - off * columns[..., total], 0.0)
    return Moments(counts, np.where(counts > 0, shift + off, 0.0), deviations)


def _state_moments(columns: np.ndarray, shift: np.ndarray) -> Moments:
    """Those of values; exact where there is one value only, which sums would leave a rest of."""
    found = _moments(columns, COUNT, SUM, SQUARES, shift)
    flat = columns[..., LOWEST] == columns[..., HIGHEST]
    return Moments(found.count, np.where(flat, columns[..., LOWEST], found.mean), np.where(flat, 0.0, found.squares))


def _merge_into(whole: Moments, frames: slice, found: Moments) -> None:
    part = Moments(whole.count[frames], whole.mean[frames], whole.squares[frames])
    part.merge(found)
    whole.count[frames], whole.mean[frames], whole.squares[frames] = part.count, part.mean, part.squares
