"""Known faults of published data: told once a dataset and split, or left out.

An erratum that names files, trajectories or frames can be left out to the frame: a window goes if and only if it reads
one of them. One that speaks of a whole split, of the statistics or of nothing in particular cannot, and is told.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

import numpy as np

from wellkit import catalog
from wellkit.errors import UnknownDatasetError, WellkitWarning, WindowError
from wellkit.formats.well import WellLayout
from wellkit.schemas.card import SimulationCard
from wellkit.schemas.erratum import Erratum
from wellkit.windows import WindowTable, largest_stride, reads_frames

_told: set[tuple[str, ...]] = set()  # what this process has said already


def card_of(name: str) -> SimulationCard | None:
    """The card of a dataset, or None: data that carry a name without a card have no known faults."""
    try:
        return catalog.get(name)
    except UnknownDatasetError:
        return None


def known_as(given: str | None, root: str, name_in_files: str) -> str:
    """The name under which the catalog may know a dataset: the one that was asked for, its folder's, or its files'.

    Files of several datasets call themselves otherwise than the dataset is called; the folder's name counts where its
    card says that its files may bear that name.
    """
    if given is not None:
        return given
    parts = root.partition("?")[0].rstrip("/").split("/")
    if parts[-2:-1] == ["data"]:
        parts = parts[:-2]
    folder = parts[-1].partition("@")[0] if parts else ""
    card = card_of(folder) if folder not in ("", name_in_files) else None
    return folder if card is not None and name_in_files in card.names_in_files else name_in_files


def errata_of(name: str, split: str | None) -> list[Erratum]:
    """Errata of a dataset that touch its data in `split` (any, if None): those above `info`, the gravest first."""
    card = card_of(name)
    touching = [
        erratum
        for erratum in (() if card is None else card.errata)
        if erratum.severity != "info"
        and erratum.concerns != "documentation"
        and card is not None
        and card.holds(erratum)
        and (split is None or erratum.scope.split in (None, split))
    ]
    return sorted(touching, key=lambda erratum: erratum.severity != "error")


def split_of(location: str, given: str | None) -> str | None:
    """The split that was asked for, or that a folder `.../data/<split>` says it is; None where nothing tells."""
    if given is not None:
        return given
    parts = location.partition("?")[0].rstrip("/").rsplit("/", 2)
    return parts[-1] if parts[-2:-1] == ["data"] and parts[-1] in ("train", "valid", "test") else None


def warn_of_errata(name: str, errata: Sequence[Erratum], *, stacklevel: int) -> None:
    """Warn of known faults of a published dataset, on one line."""
    if errata:
        more = f" (and {len(errata) - 1} more)" if len(errata) > 1 else ""
        warnings.warn(
            f"{name}: known fault in the published data ({errata[0].scope.describe()}): {errata[0].summary}{more}; "
            f"see `wellkit info {name}`; errata='keep' silences this",
            WellkitWarning,
            stacklevel=stacklevel,
        )


@dataclass(frozen=True)
class WindowReads:
    """Which frames the windows of a dataset read.

    Attributes:
        n_frames: per shard, frames of a window.
        strides: (start of a window, shard) -> the strides that may be drawn for it, first and last.
        first: (start of a window, stride) -> the first frame that it reads.
    """

    n_frames: Sequence[int]
    strides: Callable[[int, int], tuple[int, int]]
    first: Callable[[int, int], int]

    def touching(self, start: int, shard: int, frames: tuple[int, int]) -> bool:
        """Whether a window may read one of the frames from frames[0] up to, not including, frames[1]."""
        least, most = self.strides(start, shard)
        return any(
            reads_frames(self.first(start, stride), self.n_frames[shard], stride, frames)
            for stride in range(least, most + 1)
        )


def window_reads(
    steps: Sequence[int],
    outputs: Sequence[int],
    *,
    n_steps_input: int,
    min_stride: int,
    max_stride: int,
    first_output: int,
) -> WindowReads:
    """Which frames windows read.

    Args:
        steps, outputs: per shard, frames of a trajectory and output steps of a window.
        first_output: the frame that outputs of every window start at; negative where they follow the inputs.
    """
    n_frames = [n_steps_input + count for count in outputs]

    def strides(start: int, shard: int) -> tuple[int, int]:
        if max_stride == min_stride:
            return min_stride, min_stride
        return min_stride, min(largest_stride(start, steps[shard], n_frames[shard]), max_stride)

    def first(start: int, stride: int) -> int:
        return start if first_output < 0 else first_output - n_steps_input * stride

    return WindowReads(n_frames, strides, first)


@dataclass(frozen=True)
class LeftOut:
    """What `errata="exclude"` does to a dataset.

    Attributes:
        kept: samples that stay, int64, ascending; None where all do.
        windows: windows that an erratum leaves out, by its id; one that two errata touch counts for both.
        remaining: errata that cannot be left out.
    """

    kept: np.ndarray | None = None
    windows: dict[str, int] = field(default_factory=dict)
    remaining: tuple[Erratum, ...] = ()


def leave_out(
    errata: Iterable[Erratum],
    layouts: Sequence[WellLayout],
    table: WindowTable,
    windows: Sequence[int],
    reads: WindowReads,
    *,
    split: str | None,
    fields: Sequence[str],
) -> LeftOut:
    """Decide which windows stay.

    Args:
        errata: as `errata_of` gives them.
        layouts, windows: of each shard: what it holds, and the windows of one of its trajectories.
        split: the split that the shards are; None where nothing tells. File names recur in other splits, so an erratum
            that names a split is then none that could be left out.
        fields: names of the fields that are read; a fault of another field touches nothing.

    Raises:
        WindowError: no window is left.
    """
    dropped = np.zeros(len(table), dtype=bool)
    counts: dict[str, int] = {}
    remaining = []
    for erratum in errata:
        scope = erratum.scope
        if scope.field is not None and scope.field not in fields:
            continue
        places = scope.file is not None or scope.frames is not None
        if erratum.concerns != "data" or not places or (scope.split is not None and split is None):
            remaining.append(erratum)
            continue
        found = _windows_of(erratum, layouts, table, windows, reads)
        if found is None:
            remaining.append(erratum)
            continue
        counts[erratum.id] = int(np.count_nonzero(found))
        dropped |= found
    if dropped.all() and len(table):
        raise WindowError(
            f"errata='exclude' leaves no window: all {len(table)} read what {', '.join(counts)} is about; ask for "
            "shorter windows, or open the dataset with errata='keep'"
        )
    return LeftOut(np.flatnonzero(~dropped) if dropped.any() else None, counts, tuple(remaining))


def _windows_of(
    erratum: Erratum, layouts: Sequence[WellLayout], table: WindowTable, windows: Sequence[int], reads: WindowReads
) -> np.ndarray | None:
    """Of all windows, which read what an erratum is about; None where a file lacks the trajectories it names."""
    scope = erratum.scope
    found = np.zeros(len(table), dtype=bool)
    for shard, layout in enumerate(layouts):
        if scope.file is not None and not _is_named(layout.location, scope.file):
            continue
        positions = range(layout.n_trajectories) if scope.trajectories is None else scope.trajectories
        if any(position >= layout.n_trajectories for position in positions):
            return None  # files cut otherwise than those the erratum is about
        bad = np.ones(windows[shard], dtype=bool)
        if scope.frames is not None:
            bad[:] = [reads.touching(start, shard, scope.frames) for start in range(windows[shard])]
        first = int(table.first_of(shard))
        for position in positions:
            found[first + position * windows[shard] :][: windows[shard]] |= bad
    return found


def _is_named(location: str, pattern: str) -> bool:
    """Whether a shard is one that an erratum names, in whatever format it lies here."""
    name = location.partition("?")[0].rstrip("/").rsplit("/", 1)[-1]
    return fnmatchcase(name, pattern) or fnmatchcase(f"{name.rsplit('.', 1)[0]}.hdf5", pattern)


def tell_remaining(name: str, split: str | None, errata: Sequence[Erratum], *, stacklevel: int) -> None:
    """Say once which known faults could not be left out."""
    key = (name, split or "", *(erratum.id for erratum in errata))
    if not errata or key in _told:
        return
    _told.add(key)
    warnings.warn(
        f"{name}: errata='exclude' cannot leave out {', '.join(erratum.id for erratum in errata)}: "
        f"{'they name' if len(errata) > 1 else 'it names'} no part of these data that could go; see `wellkit info "
        f"{name}`",
        WellkitWarning,
        stacklevel=stacklevel,
    )
