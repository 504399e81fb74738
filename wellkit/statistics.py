"""Normalization statistics of a dataset, computed from its shards: what `stats.yaml` holds.

    mean = sum(x) / n     std = sqrt(sum((x - mean)^2) / n)     rms = sqrt(mean^2 + std^2)

per component, over all trajectories, frames and grid points (population variance); `*_delta` are those of the
difference between consecutive frames of one trajectory. Sums are float64 and taken around each block's own mean;
blocks are joined by the update of Chan, Golub & LeVeque (1979), so that a large offset costs no digits.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any, Literal

import numpy as np

from wellkit.datasets.sources import SPLITS, STATISTICS_FILE, find_shards, resolve_source
from wellkit.datasets.tree import ShardTree, open_tree
from wellkit.errors import ArgumentError, DataValueError
from wellkit.formats.statistics_comparison import Difference, compare_statistics, component_values
from wellkit.formats.statistics_file import load_statistics, statistics_hash, write_statistics
from wellkit.formats.well import FieldLayout, WellLayout
from wellkit.readers.protocol import ShardReader
from wellkit.schemas.statistics import STATISTICS, Statistics
from wellkit.storage import locate

BLOCK_VALUES = 1 << 21  # values of one block: 16 MiB as float64, a few of which are alive at a time

Progress = Callable[[int, int], None]
"""Called with (done, total), in fields of trajectories."""


@dataclass(frozen=True)
class SplitLocation:
    """The shards of one split, and where their statistics file belongs."""

    shards: tuple[str, ...]
    statistics: str
    split: str | None


def find_split(
    location: str | os.PathLike[str], split: str = "train", *, storage_options: Mapping[str, Any] | None = None
) -> SplitLocation:
    """The shards of a dataset's folder, or of a bare folder of shards.

    Args:
        location: the dataset's folder (with data/<split> below it), or a folder of shards; local or a URL.
        split: train, valid or test; a bare folder of shards is taken as it is.

    Raises:
        ArgumentError: there is no such split.
        DataNotFoundError: there are no shards there; the message names what is there.
    """
    if split not in SPLITS:
        raise ArgumentError(f"split={split!r} is unknown; choose one of {', '.join(SPLITS)}")
    root = os.fspath(location).rstrip("/") or "/"
    parts = root.split("/")
    if parts[-1] in SPLITS and parts[-2:-1] == ["data"]:
        # one split of a tree: its statistics lie at the top
        root, split = "/".join(parts[:-2]) or ("/" if root.startswith("/") else "."), parts[-1]
    is_tree = locate(root, storage_options).join("data").exists()
    source = resolve_source(
        path=root,
        base_path=None,
        name=None,
        split=split if is_tree else None,
        normalization_path=STATISTICS_FILE,
        storage_options=storage_options,
    )
    shards = find_shards(source, include=(), exclude=(), storage_options=storage_options)
    return SplitLocation(tuple(shards), source.statistics[0], split if is_tree else None)


@dataclass
class _Moments:
    """Count, mean and sum of squared deviations of each component; all float64 of shape (component)."""

    count: np.ndarray = field(default_factory=lambda: np.zeros(()))
    mean: np.ndarray = field(default_factory=lambda: np.zeros(()))
    squares: np.ndarray = field(default_factory=lambda: np.zeros(()))

    def add(self, values: np.ndarray, *, weight: int, has_nan: bool) -> None:
        """Take `values` (component, n), float64, in `weight` times; NaN are left out where there are any."""
        if not has_nan:
            count = np.full(values.shape[0], float(values.shape[1]))
            mean = values.mean(axis=1)
            centred = values - mean[:, None]
        else:
            present = ~np.isnan(values)
            count = present.sum(axis=1).astype(np.float64)
            mean = np.sum(values, axis=1, where=present) / np.maximum(count, 1)
            centred = np.where(present, values - mean[:, None], 0.0)
        self.merge(count * weight, mean, np.einsum("ij,ij->i", centred, centred) * weight)

    def merge(self, count: np.ndarray, mean: np.ndarray, squares: np.ndarray) -> None:
        """Join the moments of another set of values."""
        total = self.count + count
        share = count / np.maximum(total, 1)
        shift = mean - self.mean
        self.squares = self.squares + squares + shift * shift * self.count * share
        self.mean = self.mean + shift * share
        self.count = total

    def results(self, shape: tuple[int, ...]) -> tuple[Any, Any, Any]:
        """(mean, std, rms) as numbers or nested lists of `shape`."""
        variance = self.squares / self.count
        every = (self.mean, np.sqrt(variance), np.sqrt(self.mean * self.mean + variance))
        mean, std, rms = (values.reshape(shape).tolist() for values in every)
        return mean, std, rms


def compute_statistics(
    location: str | os.PathLike[str],
    split: str = "train",
    *,
    nan: Literal["raise", "omit"] = "raise",
    progress: Progress | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> Statistics:
    """Statistics of every field of one split. Reads every value once, a bounded block at a time.

    A field that is the same in all trajectories of a shard counts once for each of them, so that shards weigh by
    their trajectories. Constant fields have no `*_delta`, nor has any field if every trajectory is one frame long.

    Args:
        location: a dataset's folder or a folder of shards, local or a URL.
        split: train, valid or test. Normalization uses those of train.
        nan: "omit" leaves NaN out (and differences with NaN), for fields that mark masked points with it.
        progress: called with (done, total) as the work goes on.
        storage_options: passed to fsspec.

    Raises:
        ArgumentError, DataNotFoundError: as `find_split`.
        ShardError, FormatError: a shard is unreadable or does not fit the others.
        DataValueError: NaN (unless omitted) or infinity; names file, field, trajectory and frame.
    """
    if nan not in ("raise", "omit"):
        raise ArgumentError(f"nan={nan!r} is unknown; choose 'raise' or 'omit'")
    found = find_split(location, split, storage_options=storage_options)
    tree = open_tree(found.shards, storage_options=storage_options, fields=None)
    names = [layout.name for layout in tree.layouts[0].fields]
    states = {name: _Moments() for name in names}
    deltas = {name: _Moments() for name in names}
    work = list(_work(tree))
    try:
        for done, (reader, layout, part, trajectory, weight) in enumerate(work, start=1):
            one = _Pass(reader, layout, part, trajectory, weight, omit=nan == "omit")
            one.run(states[part.name], deltas[part.name])
            if progress is not None:
                progress(done, len(work))
    finally:
        for reader in tree.readers:
            reader.close()  # nobody comes back to these files: leave them free for others
    return _statistics(tree, states, deltas)


def _work(tree: ShardTree) -> Iterator[tuple[ShardReader, WellLayout, FieldLayout, int, int]]:
    """(reader, layout, field, trajectory, weight), shard by shard."""
    for reader, layout in zip(tree.readers, tree.layouts, strict=True):
        for part in layout.fields:
            if part.sample_varying:
                yield from ((reader, layout, part, trajectory, 1) for trajectory in range(layout.n_trajectories))
            else:
                yield reader, layout, part, 0, layout.n_trajectories


def _statistics(tree: ShardTree, states: Mapping[str, _Moments], deltas: Mapping[str, _Moments]) -> Statistics:
    content: dict[str, dict[str, Any]] = {statistic: {} for statistic in STATISTICS}
    first = tree.layouts[0]
    for part in first.fields:
        shape = (first.n_spatial_dims,) * part.order
        for suffix, moments in (("", states[part.name]), ("_delta", deltas[part.name])):
            if suffix and not moments.count.any():
                continue  # constant in time, or a single frame
            if not np.all(moments.count):
                raise DataValueError(f"{first.location} and its like: field {part.name!r} holds nothing but NaN")
            results = moments.results(shape)
            for key, value in zip(("mean", "std", "rms"), results, strict=True):
                content[key + suffix][part.name] = value
    return Statistics.model_validate(content)


@dataclass(frozen=True)
class _Pass:
    """One field of one trajectory, read in blocks."""

    reader: ShardReader
    layout: WellLayout
    field: FieldLayout
    trajectory: int
    weight: int
    omit: bool

    def run(self, states: _Moments, deltas: _Moments) -> None:
        """Add every value to `states` and every difference between consecutive frames to `deltas`."""
        for slab, frames_per_block in self._slabs():
            before: np.ndarray | None = None
            for first in range(0, self._n_steps, frames_per_block):
                last = min(first + frames_per_block, self._n_steps)
                values, has_nan = self._read(first, last, slab)
                self._add(states, values, has_nan)
                if before is not None:
                    self._add(deltas, values[:, :1] - before, has_nan or bool(np.isnan(before).any()))
                if last - first > 1:
                    self._add(deltas, values[:, 1:] - values[:, :-1], has_nan)
                before = values[:, -1:].copy()

    @property
    def _n_steps(self) -> int:
        return self.layout.n_steps if self.field.time_varying else 1

    def _add(self, moments: _Moments, values: np.ndarray, has_nan: bool) -> None:
        moments.add(values.reshape(values.shape[0], -1), weight=self.weight, has_nan=has_nan)

    def _slabs(self) -> Iterator[tuple[tuple[slice, ...], int]]:
        """(box in space, frames a block): one box where a frame fits a block, else slabs along the first axis."""
        resolution = self.layout.resolution
        sizes = [size if varies else 1 for size, varies in zip(resolution, self.field.dim_varying, strict=True)]
        frame = prod(sizes) * self.field.n_components(len(sizes))
        axis = next((number for number, varies in enumerate(self.field.dim_varying) if varies), 0)
        length = sizes[axis]
        rows = length if frame <= BLOCK_VALUES else max(1, BLOCK_VALUES * length // frame)
        frames_per_block = max(1, BLOCK_VALUES * length // (frame * rows))
        for first in range(0, length, rows):
            box = [slice(0, size) for size in resolution]
            if self.field.dim_varying[axis]:
                box[axis] = slice(first, min(first + rows, length))
            yield tuple(box), frames_per_block

    def _read(self, first: int, last: int, slab: tuple[slice, ...]) -> tuple[np.ndarray, bool]:
        """(frames first..last as float64 (component, frame, point), whether there are NaN among them)."""
        selection = self.field.selection(self.trajectory, slice(first, last), slab)
        raw = self.reader.read(self.field.path, selection)
        components = self.field.n_components(self.layout.n_spatial_dims)
        # Components first: sums along contiguous memory are several times faster, and pairwise.
        values = np.ascontiguousarray(np.moveaxis(raw.reshape(last - first, -1, components), -1, 0), np.float64)
        with np.errstate(invalid="ignore", over="ignore"):
            total = values.sum()
        if np.isfinite(total):
            return values, False  # a sum is finite only if every term is
        wrong = np.isinf(values) if self.omit else ~np.isfinite(values)
        if wrong.any():
            raise self._not_finite(values, wrong, first)
        return values, bool(np.isnan(values).any())

    def _not_finite(self, values: np.ndarray, wrong: np.ndarray, first: int) -> DataValueError:
        frame = int(np.argmax(wrong.any(axis=(0, 2))))
        kind = "NaN" if np.isnan(values[:, frame][wrong[:, frame]]).any() else "infinity"
        trajectory = f"trajectory {self.trajectory}, " if self.field.sample_varying else ""
        place = f"frame {first + frame}" if self.field.time_varying else "constant in time"
        count = int(wrong[:, frame].sum())
        advice = (
            "; if NaN marks points outside the domain, leave them out with nan='omit' (--nan omit)"
            if kind == "NaN"
            else "; statistics of such data mean nothing"
        )
        return DataValueError(
            f"{self.layout.location}: field {self.field.name!r}, {trajectory}{place}: {kind} in {count} of "
            f"{wrong[:, frame].size} values{advice}"
        )


__all__ = [
    "Difference",
    "SplitLocation",
    "compare_statistics",
    "component_values",
    "compute_statistics",
    "find_split",
    "load_statistics",
    "statistics_hash",
    "write_statistics",
]
