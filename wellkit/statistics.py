"""Normalization statistics of a whole split: mean, standard deviation and root mean square of states and deltas.

Over all trajectories, frames and grid points, for each field and component:

    mean = E[x]    std = sqrt(E[(x - mean)^2])  (population)    rms = sqrt(E[x^2])

and the same of d(t) = x(t+1) - x(t), consecutive frames of one trajectory only. Sums are float64 and are merged
block by block (Chan, Golub and LeVeque, 1979), so that large offsets cost no digits. Memory is bounded by the block.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import yaml

from wellkit.datasets.sources import STATISTICS_FILE, find_shards, resolve_source
from wellkit.datasets.tree import ShardTree, open_tree
from wellkit.errors import DataValueError, StorageError
from wellkit.formats.well import FieldLayout, WellLayout
from wellkit.readers.protocol import ShardReader
from wellkit.schemas.statistics import Statistics

BLOCK_BYTES = 32 << 20
Progress = Callable[[int, int], None]  # (shards and fields done, all of them)


@dataclass
class Moments:
    """Count, mean and summed squared deviation of each component, float64; merged exactly under any blocking."""

    count: np.ndarray = field(default_factory=lambda: np.zeros(()))
    mean: np.ndarray = field(default_factory=lambda: np.zeros(()))
    squares: np.ndarray = field(default_factory=lambda: np.zeros(()))

    def add(self, values: np.ndarray, order: int) -> None:
        """Take in `values`, axes (..., component * order). Values that are not finite are left out."""
        wide = values.astype(np.float64)
        axes = tuple(range(wide.ndim - order))
        finite = np.isfinite(wide)
        if finite.all():
            finite = np.ones((1,) * wide.ndim, dtype=bool)
            count = np.full(wide.shape[wide.ndim - order :], float(wide.size)) / max(
                int(np.prod(wide.shape[wide.ndim - order :])), 1
            )
        else:
            wide[~finite] = 0.0
            count = finite.sum(axis=axes, dtype=np.float64)
        some = np.maximum(count, 1.0)
        mean = wide.sum(axis=axes) / some
        wide -= mean
        wide *= finite
        np.square(wide, out=wide)
        total = self.count + count
        shift = np.where(count > 0, mean - self.mean, 0.0)
        self.squares = self.squares + wide.sum(axis=axes) + shift**2 * (self.count * count / np.maximum(total, 1.0))
        self.mean = self.mean + shift * (count / np.maximum(total, 1.0))
        self.count = total

    def results(self) -> tuple[Any, Any, Any]:
        """(mean, std, rms) as numbers or nested lists."""
        variance = self.squares / np.maximum(self.count, 1.0)
        rms = np.sqrt(variance + self.mean**2)
        return self.mean.tolist(), np.sqrt(variance).tolist(), rms.tolist()


def compute_statistics(
    location: str | os.PathLike[str],
    split: str | None = "train",
    *,
    nan: Literal["raise", "omit"] = "raise",
    progress: Progress | None = None,
    block_bytes: int = BLOCK_BYTES,
) -> Statistics:
    """Statistics of one split of a Well tree.

    Args:
        location: the dataset's folder, or, with `split=None`, a folder of shards; local or remote.
        split: "train", "valid", "test" or None.
        nan: "raise" on a value that is not finite, or "omit" such values (for data with a declared NaN mask).
        progress: called after each field of each shard.
        block_bytes: bytes of a field read at a time; the working memory is a few times that.

    Raises:
        DataNotFoundError, ShardError, FormatError: as opening a dataset does.
        DataValueError: a value is not finite; names file, trajectory, frame and field.
    """
    source = resolve_source(
        path=location, base_path=None, name=None, split=split, normalization_path=None, storage_options=None
    )
    shards = find_shards(source, include=(), exclude=(), storage_options=None)
    tree = open_tree(shards, storage_options=None, fields=None)
    names = [*tree.variable, *tree.constant]
    states = {name: Moments() for name in names}
    deltas = {name: Moments() for name in tree.variable}
    done = 0
    for number, (layout, reader) in enumerate(zip(tree.layouts, tree.readers, strict=True)):
        for item in tree.fields_of(number, names):
            for block in _blocks(reader, layout, item, block_bytes):
                if nan == "raise":
                    _check_finite(block, layout, item)
                # All blocks but a trajectory's first begin with the last frame of the block before, for its delta.
                fresh = block.values[1:] if item.time_varying and block.start > 0 else block.values
                states[item.name].add(fresh, item.order)
                if item.time_varying:
                    steps = np.subtract(block.values[1:], block.values[:-1], dtype=np.float64)
                    deltas[item.name].add(steps, item.order)
            done += 1
            if progress is not None:
                progress(done, len(names) * len(tree.layouts))
    return _collect(tree, states, deltas)


class _Block(NamedTuple):
    """Consecutive frames of one trajectory: values (time?, space..., component...), from frame `start`."""

    trajectory: int
    start: int
    values: np.ndarray


def _blocks(reader: ShardReader, layout: WellLayout, item: FieldLayout, block_bytes: int) -> Iterator[_Block]:
    """Every stored frame of a field; blocks overlap by the one frame that deltas need."""
    whole = tuple(slice(None) for _ in layout.resolution)

    def read(trajectory: int, frames: slice) -> np.ndarray:
        return reader.read(item.path, item.selection(trajectory, frames, whole))

    trajectories = layout.n_trajectories if item.sample_varying else 1
    if not item.time_varying:
        yield from (_Block(trajectory, 0, read(trajectory, slice(None))) for trajectory in range(trajectories))
        return
    lead = int(item.sample_varying) + 1
    frame_bytes = int(np.prod(item.shape[lead:], dtype=np.int64)) * np.dtype(item.dtype).itemsize
    frames = max(2, block_bytes // max(frame_bytes, 1))
    for trajectory in range(trajectories):
        for start in range(0, max(layout.n_steps - 1, 1), frames - 1):
            yield _Block(trajectory, start, read(trajectory, slice(start, min(start + frames, layout.n_steps))))


def _check_finite(block: _Block, layout: WellLayout, item: FieldLayout) -> None:
    finite = np.isfinite(block.values)
    if finite.all():
        return
    where = f"trajectory {block.trajectory}"
    if item.time_varying:
        bad_frames = np.flatnonzero(~finite.reshape(len(finite), -1).all(axis=1))
        where += f", frame {block.start + int(bad_frames[0])}"
    raise DataValueError(
        f"{layout.location}: field {item.name!r} has {int((~finite).sum())} values that are not finite ({where}); "
        "if they are a declared mask, leave them out with nan='omit' (--nan omit); else the data are damaged"
    )


def _collect(tree: ShardTree, states: dict[str, Moments], deltas: dict[str, Moments]) -> Statistics:
    content: dict[str, dict[str, Any]] = {key: {} for key in ("mean", "std", "rms")}
    content |= {key: {} for key in ("mean_delta", "std_delta", "rms_delta")}
    for suffix, table in (("", states), ("_delta", deltas)):
        for name, moments in table.items():
            if not (moments.count > 0).all():
                raise DataValueError(
                    f"{tree.layouts[0].location}: no value of field {name!r} is finite"
                    if not suffix
                    else f"{tree.layouts[0].location}: field {name!r} has no two consecutive frames for deltas"
                )
            mean, std, rms = moments.results()
            content[f"mean{suffix}"][name] = mean
            content[f"std{suffix}"][name] = std
            content[f"rms{suffix}"][name] = rms
    return Statistics.parse(content, source="computed statistics")


def write_statistics(statistics: Statistics, path: str | os.PathLike[str]) -> None:
    """Write `stats.yaml` in the layout that the_well reads too; whole or not at all.

    Raises:
        StorageError: the target cannot be written; names it.
    """
    target = Path(path)
    partial = target.with_name(f".{target.name}.partial")
    text = yaml.safe_dump(statistics.to_mapping(), sort_keys=False, default_flow_style=None)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, target)
    except OSError as error:
        with suppress(OSError):
            partial.unlink()
        raise StorageError(f"{target}: cannot be written ({error.strerror or error})") from error


def statistics_path(dataset: str | os.PathLike[str]) -> Path:
    """Where a dataset's statistics lie: DATASET/stats.yaml."""
    return Path(dataset) / STATISTICS_FILE
