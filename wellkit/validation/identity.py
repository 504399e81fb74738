"""Trajectories and frames that are there twice, by their hashes: within a split, and across splits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from wellkit.schemas.validation import Finding
from wellkit.validation.codes import Where, finding
from wellkit.validation.series import runs
from wellkit.validation.shard import ShardResult

_NEARLY_ALL = 0.9  # of the frames of a trajectory: then it is the same trajectory, cut or repaired


@dataclass(frozen=True)
class _Member:
    """One trajectory of the tree."""

    split: str
    shard: str
    trajectory: int

    @property
    def place(self) -> str:
        return f"{self.shard}, trajectory {self.trajectory}"


@dataclass
class _Twins:
    """Two trajectories that share frames; by field, pairs of frame numbers, axes (pair, 2)."""

    first: int
    second: int
    frames: dict[str, np.ndarray] = field(default_factory=dict)


def find_duplicates(results: Sequence[ShardResult]) -> Iterator[Finding]:
    """Duplicated trajectories, frames and fields of different trajectories, one finding for each two of them."""
    members: list[_Member] = []
    by_field: dict[str, list[tuple[int, np.ndarray, np.ndarray]]] = {}
    numbers: dict[tuple[int, int], int] = {}
    for which, result in enumerate(results):
        for name, trajectories in result.trajectories.items():
            for number, one in trajectories.items():
                key = (which, number)
                if key not in numbers:
                    numbers[key] = len(members)
                    members.append(_Member(result.split, result.name, number))
                by_field.setdefault(name, []).append((numbers[key], one.hashes, one.quiet))
    twins: dict[tuple[int, int], _Twins] = {}
    telling: dict[str, dict[int, int]] = {}  # by field and trajectory, frames that tell it from others
    for name, entries in by_field.items():
        telling[name] = {number: int((~quiet).sum()) for number, _, quiet in entries}
        for first, second, pairs in _shared(entries):
            twins.setdefault((first, second), _Twins(first, second)).frames[name] = pairs
    for pair in sorted(twins):
        yield from _describe(twins[pair], members, telling)


def _shared(entries: Sequence[tuple[int, np.ndarray, np.ndarray]]) -> Iterator[tuple[int, int, np.ndarray]]:
    """(trajectory, trajectory, pairs of frames) of one field. Of many alike, each is paired with the first."""
    hashes = np.concatenate([h[~quiet] for _, h, quiet in entries])
    owners = np.concatenate([np.full(int((~quiet).sum()), number) for number, _, quiet in entries])
    frames = np.concatenate([np.flatnonzero(~quiet) for *_, quiet in entries])
    order = np.lexsort((frames, owners, hashes))
    hashes, owners, frames = hashes[order], owners[order], frames[order]
    begins = np.concatenate(([True], hashes[1:] != hashes[:-1]))
    leader = np.maximum.accumulate(np.where(begins, np.arange(len(hashes)), 0))
    others = np.flatnonzero(owners != owners[leader])
    if not others.size:
        return
    first, second = owners[leader[others]], owners[others]
    pairs = np.stack([frames[leader[others]], frames[others]], axis=1)
    grouped = np.lexsort((pairs[:, 1], second, first))
    first, second, pairs = first[grouped], second[grouped], pairs[grouped]
    edges = np.flatnonzero((np.diff(first) != 0) | (np.diff(second) != 0)) + 1
    for group in np.split(np.arange(len(first)), edges):
        yield int(first[group[0]]), int(second[group[0]]), pairs[group]


def _describe(twins: _Twins, members: Sequence[_Member], telling: dict[str, dict[int, int]]) -> Iterator[Finding]:
    here, there = members[twins.second], members[twins.first]
    names = [name for name, counts in telling.items() if counts.get(twins.second)]
    crosses = here.split != there.split
    place: Where = {"split": here.split, "shard": here.shard, "trajectory": here.trajectory}
    other = f"{there.place} of {there.split}" if crosses else there.place
    shares = {name: len(pairs) / max(1, telling[name][twins.second]) for name, pairs in twins.frames.items()}
    same = [name for name in names if shares.get(name, 0.0) >= _NEARLY_ALL]
    if set(names) <= set(same):
        code = "leakage" if crosses else "duplicated-trajectory"
        yield finding(code, f"is the same, bit by bit, as {other}", place)
        return
    if all(pairs.tolist() == [[0, 0]] for pairs in twins.frames.values()):
        return  # one initial state for several settings
    if set(names) <= set(twins.frames):
        pairs = next(iter(twins.frames.values()))
        flags = np.zeros(int(pairs[:, 1].max()) + 1, bool)
        flags[pairs[:, 1]] = True
        found = runs(flags)
        starts = len(found) == 1 and found[0][0] == 0 and bool((pairs[:, 0] == pairs[:, 1]).all())
        if starts:
            yield finding(
                "shared-start", f"begins as {other}: {found[0][1]} frames are the same", place, frames=found[0]
            )
            return
        told = f"{int(flags.sum())} frames are the same, bit by bit, as frames of {other}"
        frames = (found[0][0], found[-1][1])
        yield finding("leakage" if crosses else "duplicated-frames", told, place, frames=frames)
        return
    for name in twins.frames:
        pairs = twins.frames[name]
        if pairs.tolist() == [[0, 0]]:
            continue
        told = f"{len(pairs)} frames are the same, bit by bit, as those of {other}; other fields differ"
        frames = (int(pairs[:, 1].min()), int(pairs[:, 1].max()) + 1)
        yield finding("shared-field", told, place, frames=frames, field=name)
