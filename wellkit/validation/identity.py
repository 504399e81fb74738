"""Trajectories and frames that are there twice, by their hashes: within a split, and across splits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from wellkit.schemas.validation import Finding
from wellkit.validation.codes import Where, finding
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
    telling: dict[str, dict[int, np.ndarray]] = {}  # by field and trajectory, frames that tell it from others
    for name, entries in by_field.items():
        telling[name] = {number: np.flatnonzero(~quiet) for number, _, quiet in entries}
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


def _is_start(pairs: np.ndarray, telling: np.ndarray) -> bool:
    """Whether what two trajectories share is how both begin: less than half of it."""
    own = pairs[:, 1]
    return bool((pairs[:, 0] == own).all() and 2 * len(own) <= len(telling) + 1 and (own == telling[: len(own)]).all())


def _describe(
    twins: _Twins, members: Sequence[_Member], telling: dict[str, dict[int, np.ndarray]]
) -> Iterator[Finding]:
    here, there = members[twins.second], members[twins.first]
    own = {name: frames[twins.second] for name, frames in telling.items() if len(frames.get(twins.second, ()))}
    crosses = here.split != there.split
    place: Where = {"split": here.split, "shard": here.shard, "trajectory": here.trajectory}
    other = f"{there.place} of {there.split}" if crosses else there.place
    same = {name for name, pairs in twins.frames.items() if len(pairs) >= _NEARLY_ALL * len(own[name])}
    starts = {name for name, pairs in twins.frames.items() if _is_start(pairs, own[name])}
    if set(own) <= same:
        code = "leakage" if crosses else "duplicated-trajectory"
        yield finding(code, f"is the same, bit by bit, as {other}", place)
    elif set(twins.frames) <= starts:
        last = max(int(pairs[-1, 1]) for pairs in twins.frames.values())
        if any(len(pairs) > 1 for pairs in twins.frames.values()):  # one initial state is no reason to say anything
            yield finding("shared-start", f"begins as {other}, up to frame {last}", place, frames=(0, last + 1))
    elif set(own) <= set(twins.frames):
        frames = np.unique(np.concatenate([pairs[:, 1] for pairs in twins.frames.values()]))
        plural = "frame is" if len(frames) == 1 else "frames are"
        told = f"{len(frames)} {plural} the same, bit by bit, as frames of {other}"
        run = (int(frames[0]), int(frames[-1]) + 1)
        yield finding("leakage" if crosses else "duplicated-frames", told, place, frames=run)
    else:
        for name in sorted(set(twins.frames) - starts):
            pairs = twins.frames[name]
            plural = "frame is" if len(pairs) == 1 else "frames are"
            told = f"{len(pairs)} {plural} the same, bit by bit, as those of {other}; other fields differ"
            run = (int(pairs[:, 1].min()), int(pairs[:, 1].max()) + 1)
            yield finding("shared-field", told, place, frames=run, field=name)
