"""Rollouts: a predictor fed its own output from the first frames of trajectories on, streamed in pieces."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from wellkit.datasets.well import WellDataset
from wellkit.train.data import Batches, check_finite, open_split
from wellkit.train.predictors import Predictor, advance
from wellkit.train.progress import Progress, ProgressCallback, silent
from wellkit.train.scoring import score_frames

# Bytes of fields that are held at once; what a piece of a rollout is cut to.
MEMORY = 512 * 2**20


@dataclass(frozen=True)
class RolloutPiece:
    """Some consecutive steps of the rollouts of some trajectories.

    Attributes:
        trajectories: their numbers in the split, file by file.
        first_step: number of the first step in here, from 1.
        prediction, target: (trajectory, step, space..., component), physical units.
    """

    trajectories: Sequence[int]
    first_step: int
    prediction: Tensor
    target: Tensor


@dataclass(frozen=True)
class RolloutScores:
    """VRMSE of every rollout.

    Attributes:
        vrmse: (trajectory, step, component), float64: infinite where a prediction is not finite, NaN beyond
            the end of a trajectory.
        lengths: (trajectory), steps that each has.
        nonfinite: how many entries are of predictions with NaN or infinity.
    """

    vrmse: np.ndarray
    lengths: np.ndarray
    nonfinite: int


@dataclass(frozen=True)
class RolloutPlan:
    """Which windows to read: pieces of `piece` steps, `together` trajectories of equal length at a time."""

    dataset: WellDataset
    lengths: tuple[int, ...]  # per trajectory, steps to predict
    groups: tuple[tuple[int, ...], ...]  # trajectories to go through side by side
    piece: int

    def windows(self, group: Sequence[int]) -> Iterator[tuple[int, int, int, list[int]]]:
        """(first step from 0, steps to skip, steps to use, window indices) of one group, in order of time."""
        length = self.lengths[group[0]]
        starts_of = [self._first_window(trajectory) for trajectory in group]
        # Trajectories that predict equally many steps may be stored with unequal numbers of frames.
        last_start = min(self._last_start(trajectory) for trajectory in group)
        step = 0
        while step < length:
            # The last piece reaches back, so that it ends with the trajectory.
            start = min(step, last_start)
            skip = step - start
            use = min(self.piece - skip, length - step)
            yield step, skip, use, [first + start for first in starts_of]
            step += use

    def _file_of(self, trajectory: int) -> tuple[int, int]:
        for file, count in enumerate(self.dataset.metadata.n_trajectories_per_file):
            if trajectory < count:
                return file, trajectory
            trajectory -= count
        raise IndexError(trajectory)

    def _first_window(self, trajectory: int) -> int:
        file, within = self._file_of(trajectory)
        counts = self.dataset.metadata.n_trajectories_per_file
        windows = self.dataset.n_windows_per_trajectory
        before = sum(n * w for n, w in zip(counts[:file], windows[:file], strict=True))
        return before + within * windows[file]

    def _last_start(self, trajectory: int) -> int:
        return self.dataset.n_windows_per_trajectory[self._file_of(trajectory)[0]] - 1


def plan_rollouts(
    dataset: str,
    data: str | None,
    split: str,
    *,
    n_steps_input: int,
    batch_size: int,
    max_steps: int | None = None,
    trajectories: Sequence[int] | None = None,
    memory: int = MEMORY,
    grid: bool = False,
) -> RolloutPlan:
    """Cut the rollouts of a split into pieces that fit into `memory` bytes.

    Args:
        batch_size: trajectories side by side, at most.
        max_steps: longest rollout; None for whole trajectories.
        trajectories: which ones; None for all.
        grid: whether the plan's dataset delivers coordinates and times.

    Raises:
        WindowError: a trajectory has no step beyond its inputs.
    """
    described = open_split(dataset, data, split, n_steps_input=n_steps_input, warn=False)
    metadata = described.metadata
    steps = [
        n
        for n, count in zip(metadata.n_steps_per_trajectory, metadata.n_trajectories_per_file, strict=True)
        for _ in range(count)
    ]
    lengths = tuple(min(n - n_steps_input, max_steps or n) for n in steps)
    chosen = range(len(steps)) if trajectories is None else trajectories
    frame = 4 * metadata.n_fields * math.prod(metadata.spatial_resolution)
    shortest = min(min(metadata.n_steps_per_trajectory) - n_steps_input, max(lengths))
    # A frame is held as input or target, as prediction, and twice in float64 while it is scored.
    piece = max(1, min(shortest, memory // (6 * frame) - n_steps_input))
    together = max(1, min(batch_size, memory // (6 * frame * (piece + n_steps_input))))
    groups: list[tuple[int, ...]] = []
    for trajectory in chosen:
        if groups and len(groups[-1]) < together and lengths[groups[-1][0]] == lengths[trajectory]:
            groups[-1] = (*groups[-1], trajectory)
        else:
            groups.append((trajectory,))
    opened = open_split(dataset, data, split, n_steps_input=n_steps_input, n_steps_output=piece, warn=False, grid=grid)
    return RolloutPlan(opened, lengths, tuple(groups), piece)


@torch.inference_mode()
def roll_out(
    predictor: Predictor,
    plan: RolloutPlan,
    *,
    device: torch.device,
    split: str,
    allowed: Sequence[bool],
    workers: int = 0,
) -> Iterator[RolloutPiece]:
    """All rollouts of a plan, piece by piece, group by group.

    Raises:
        DataValueError: the data hold NaN where the card allows none, or infinity.
    """
    steps = [step for group in plan.groups for step in plan.windows(group)]
    of_group = [group for group in plan.groups for _ in plan.windows(group)]
    batches = Batches(plan.dataset, batch_size=1, workers=workers, device=device)
    window: Tensor | None = None
    pieces = batches.of_groups([indices for *_, indices in steps])
    for (first, skip, use, _), group, batch in zip(steps, of_group, pieces, strict=True):
        check_finite(batch, plan.dataset, allowed, split=split)
        if first == 0:
            window = batch.inputs
        assert window is not None
        predictions = []
        for _ in range(use):
            state = predictor.predict(window, batch.constants)
            window = advance(window, state)
            predictions.append(state)
        yield RolloutPiece(group, first + 1, torch.stack(predictions, dim=1), batch.outputs[:, skip : skip + use])


def score_rollouts(
    predictor: Predictor,
    plan: RolloutPlan,
    *,
    device: torch.device,
    eps: float,
    split: str,
    allowed: Sequence[bool],
    workers: int = 0,
    progress: ProgressCallback = silent,
) -> RolloutScores:
    """VRMSE of every step of every rollout of a plan."""
    metadata = plan.dataset.metadata
    lengths = np.array(plan.lengths, dtype=np.int64)
    values = np.full((len(lengths), int(lengths.max()), metadata.n_fields), np.nan)
    nonfinite = done = 0
    total = sum(plan.lengths[trajectory] for group in plan.groups for trajectory in group)
    pieces = roll_out(predictor, plan, device=device, split=split, allowed=allowed, workers=workers)
    for piece in pieces:
        scores, bad = score_frames(piece.prediction, piece.target, n_spatial_dims=metadata.n_spatial_dims, eps=eps)
        first = piece.first_step - 1
        values[list(piece.trajectories), first : first + scores.shape[1]] = scores
        nonfinite += bad
        done += scores.shape[0] * scores.shape[1]
        progress(Progress("rollout", done, total))
    return RolloutScores(values, lengths, nonfinite)
