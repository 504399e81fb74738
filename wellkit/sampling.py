"""Orders, restrictions and draws, all from explicit seeds: the same numbers give the same samples anywhere."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from wellkit.errors import ArgumentError
from wellkit.windows import WindowTable


def generator(seed: int, epoch: int, index: int) -> np.random.Generator:
    """The random generator of one sample of one epoch, from the key [seed, epoch, index]."""
    return np.random.default_rng([seed, epoch, index])


def shuffled(n: int, *, seed: int, epoch: int) -> np.ndarray:
    """A permutation of range(n), int64, that follows from (seed, epoch) alone."""
    return np.random.default_rng([seed, epoch]).permutation(n)


def draw_stride(rng: np.random.Generator, smallest: int, largest: int) -> int:
    """A stride drawn uniformly from smallest..largest, both included; `smallest` where there is no choice."""
    return int(rng.integers(smallest, largest + 1)) if largest > smallest else smallest


def draw_box(box: Sequence[slice], sizes: Sequence[int], *, seed: int, epoch: int, index: int) -> tuple[slice, ...]:
    """A box of `sizes` points drawn uniformly from those inside `box`: a slice for each spatial axis.

    From the key [seed, epoch, index, 1], so that a sample's other draws are the same with and without it.
    """
    rng = np.random.default_rng([seed, epoch, index, 1])
    drawn = []
    for part, size in zip(box, sizes, strict=True):
        first = part.start + int(rng.integers(part.stop - part.start - size + 1))
        drawn.append(slice(first, first + size))
    return tuple(drawn)


def restrict(
    table: WindowTable,
    *,
    n_trajectories: float | int | None,
    n_samples: float | int | None,
    seed: int,
    allowed: np.ndarray | None = None,
) -> np.ndarray:
    """Sample indices, int64, of a random subset: first of distinct trajectories, then of samples among theirs.

    Subsets of one seed are nested: a larger number contains the smaller one's. A float in (0, 1] is a share, an
    integer a count.

    Args:
        allowed: samples to choose from, int64, ascending; None for all. Trajectories without one of them do not count.

    Raises:
        ArgumentError: a share or count is not positive, or leaves nothing.
    """
    rng = np.random.default_rng(seed)
    indices = np.arange(len(table), dtype=np.int64) if allowed is None else allowed.astype(np.int64)
    if n_trajectories is not None:
        order = np.arange(table.n_trajectories) if allowed is None else np.unique(table.trajectories_of(allowed))
        count = _count("restrict_num_trajectories", n_trajectories, len(order))
        rng.shuffle(order)
        chosen = table.of_trajectories(order[:count])
        indices = chosen if allowed is None else np.intersect1d(chosen, allowed, assume_unique=True)
    if n_samples is not None:
        count = _count("restrict_num_samples", n_samples, len(indices))
        rng.shuffle(indices)
        indices = indices[:count]
    return indices


def _count(argument: str, wanted: float | int, available: int) -> int:
    """A share or a count as a count, at most `available`."""
    share = isinstance(wanted, float) and 0.0 < wanted <= 1.0
    count = int(available * wanted) if share else int(wanted) if math.isfinite(wanted) else 0
    if count < 1 or (not share and count != wanted):
        raise ArgumentError(
            f"{argument}={wanted!r} leaves {count if share else 'no valid number of'} samples or trajectories out of "
            f"{available}; give a whole number from 1 up, or a share above 0 and up to 1.0"
        )
    return min(count, available)


def shard_shuffled(shards: np.ndarray, *, seed: int, epoch: int, at_once: int) -> np.ndarray:
    """A permutation of all samples, int64, that stays within a few shards at a time; from (seed, epoch) alone.

    Shards are taken in random order, `at_once` together; the samples of each such group are in random order.

    Args:
        shards: the shard of each sample, axis (sample).
    """
    rng = np.random.default_rng([seed, epoch])
    kinds = rng.permutation(np.unique(shards))
    groups = [np.flatnonzero(np.isin(shards, kinds[n : n + at_once])) for n in range(0, len(kinds), at_once)]
    return np.concatenate([rng.permutation(group) for group in groups]) if groups else np.empty(0, np.int64)
