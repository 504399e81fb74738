"""Normalization statistics of a dataset, computed from its shards: what `stats.yaml` holds.

    mean = sum(x) / n     std = sqrt(sum((x - mean)^2) / n)     rms = sqrt(mean^2 + std^2)

per component, over all trajectories, frames and grid points (population variance); `*_delta` are those of the
difference between consecutive frames of one trajectory. The pass is `wellkit.scanning`'s: sums are float64, taken
around a value near the mean, and joined so that a large offset costs no digits.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from wellkit.datasets.sources import SPLITS, STATISTICS_FILE, find_shards, resolve_source
from wellkit.datasets.tree import open_tree
from wellkit.errors import ArgumentError, DataValueError
from wellkit.formats.statistics_comparison import Difference, compare_statistics, component_values
from wellkit.formats.statistics_file import load_statistics, statistics_hash, write_statistics
from wellkit.formats.well import WellLayout
from wellkit.readers.workers import usable_cores
from wellkit.scanning.blocks import FieldWork, field_work
from wellkit.scanning.columns import INFINITE, NAN
from wellkit.scanning.frames import FrameSeries, Moments
from wellkit.schemas.statistics import STATISTICS, Statistics
from wellkit.storage import locate

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


def compute_statistics(
    location: str | os.PathLike[str],
    split: str = "train",
    *,
    nan: Literal["raise", "omit"] = "raise",
    jobs: int | None = None,
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
        jobs: threads; the default is one for each core.
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
    totals = FieldTotals()
    work = [
        item for reader, layout in zip(tree.readers, tree.layouts, strict=True) for item in field_work(reader, layout)
    ]
    total, done = sum(len(item.trajectories) for item in work), 0
    try:
        for item, scanned in scan_all(work, jobs or usable_cores()):
            for number, series in enumerate(scanned):
                wrong = series.first_odd(infinite_only=nan == "omit")
                if wrong is not None:
                    raise _not_finite(item, number, series, wrong)
                totals.add(item, series)
                done += 1
                if progress is not None:
                    progress(done, total)
    finally:
        for reader in tree.readers:
            reader.close()  # nobody comes back to these files: leave them free for others
    return totals.statistics(tree.layouts[0])


def scan_all(work: Sequence[FieldWork], jobs: int) -> Iterator[tuple[FieldWork, list[FrameSeries]]]:
    """Scan on `jobs` threads; in the order of `work`, so that sums do not depend on who was first."""
    if jobs == 1:
        yield from ((item, item.scan()) for item in work)
        return
    with ThreadPoolExecutor(jobs, thread_name_prefix="wellkit-scan") as pool:
        waiting: deque[tuple[FieldWork, Future[list[FrameSeries]]]] = deque()
        try:
            for item in work:
                waiting.append((item, pool.submit(item.scan)))
                if len(waiting) > 2 * jobs:
                    first, future = waiting.popleft()
                    yield first, future.result()
            while waiting:
                first, future = waiting.popleft()
                yield first, future.result()
        finally:
            pool.shutdown(cancel_futures=True)


@dataclass
class FieldTotals:
    """Moments of every field over many trajectories; plain data, to be sent between processes and joined."""

    states: dict[str, Moments] = field(default_factory=dict)
    deltas: dict[str, Moments] = field(default_factory=dict)

    def add(self, work: FieldWork, series: FrameSeries) -> None:
        """Take one trajectory. What all trajectories of a shard share counts once for each of them."""
        weight = 1 if work.field.sample_varying else work.layout.n_trajectories
        self.states.setdefault(work.field.name, Moments()).merge(series.states.over_frames(), weight=weight)
        self.deltas.setdefault(work.field.name, Moments()).merge(series.deltas.over_frames(), weight=weight)

    def merge(self, other: FieldTotals) -> None:
        """Join those of other trajectories."""
        for mine, theirs in ((self.states, other.states), (self.deltas, other.deltas)):
            for name, moments in theirs.items():
                mine.setdefault(name, Moments()).merge(moments)

    def statistics(self, first: WellLayout) -> Statistics:
        """What `stats.yaml` holds.

        Args:
            first: the layout of one of the shards: fields in their order, and their shapes.

        Raises:
            DataValueError: a field holds nothing but NaN.
        """
        content: dict[str, dict[str, Any]] = {statistic: {} for statistic in STATISTICS}
        for part in first.fields:
            shape = (first.n_spatial_dims,) * part.order
            for suffix, moments in (("", self.states[part.name]), ("_delta", self.deltas[part.name])):
                if suffix and not moments.count.any():
                    continue  # constant in time, or a single frame
                if not np.all(moments.count):
                    raise DataValueError(f"{first.location} and its like: field {part.name!r} holds nothing but NaN")
                for key, value in zip(("mean", "std", "rms"), moments.results(shape), strict=True):
                    content[key + suffix][part.name] = value
        return Statistics.model_validate(content)


def _not_finite(work: FieldWork, number: int, series: FrameSeries, frame: int) -> DataValueError:
    has_nan = series.counts[frame, NAN] > 0
    trajectory = f"trajectory {work.trajectories[number]}, " if work.field.sample_varying else ""
    place = f"frame {frame}" if work.field.time_varying else "constant in time"
    count = int(series.counts[frame, NAN] + series.counts[frame, INFINITE])
    advice = (
        "; if NaN marks points outside the domain, leave them out with nan='omit' (--nan omit)"
        if has_nan
        else "; statistics of such data mean nothing"
    )
    return DataValueError(
        f"{work.layout.location}: field {work.field.name!r}, {trajectory}{place}: {'NaN' if has_nan else 'infinity'} "
        f"in {count} of {series.n_values} values{advice}"
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
