"""Rollouts in pieces: which frames of a trajectory to read while a model is fed its own output."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from wellkit.benchmark.forecasts import Forecasts
from wellkit.datasets.well import WellDataset
from wellkit.errors import WindowError
from wellkit.train.data import Batches, check_finite, open_split
from wellkit.windows import WindowTable

# Bytes of fields that are held at once; what a piece of a rollout is cut to.
MEMORY = 512 * 2**20


@dataclass(frozen=True)
class RolloutPiece:
    """Some consecutive steps of one rollout.

    Attributes:
        first_step: number of the first step in here, from 1.
        window: number of the piece's window in the plan's dataset, and how many of its output steps come before.
        prediction, target: (step, space..., component), physical units, on the host.
        initial: (space..., component), the last true frame before the rollout; in the first piece alone.
    """

    first_step: int
    window: tuple[int, int]
    prediction: np.ndarray
    target: np.ndarray
    initial: np.ndarray | None


@dataclass(frozen=True)
class RolloutPlan:
    """Which windows to read for the rollouts of a split.

    Attributes:
        dataset: windows of `n_steps_input` + `piece` frames.
        lengths: steps to predict, by trajectory of the split.
        first_frame: number of the first predicted frame, from 0.
        piece: steps in a piece, at most.
    """

    dataset: WellDataset
    lengths: tuple[int, ...]
    first_frame: int
    piece: int

    @property
    def table(self) -> WindowTable:
        """The plan's windows by file, trajectory and first frame."""
        return WindowTable(self.dataset.metadata.n_trajectories_per_file, self.dataset.n_windows_per_trajectory)

    def pieces(self, trajectory: int) -> Iterator[tuple[int, int, int, int]]:
        """(first step from 0, steps to skip, steps to use, window) of one trajectory, in order of time."""
        windows = self.table.of_trajectories(np.array([trajectory]))
        begin = self.first_frame - self.dataset.n_steps_input
        length, step = self.lengths[trajectory], 0
        while step < length:
            # The last piece reaches back, so that it ends with the trajectory.
            start = min(begin + step, len(windows) - 1)
            skip = begin + step - start
            use = min(self.piece - skip, length - step)
            yield step, skip, use, int(windows[start])
            step += use


def plan_rollouts(
    dataset: str,
    data: str | None,
    split: str,
    *,
    n_steps_input: int,
    first_frame: int | None = None,
    max_steps: int | None = None,
    memory: int = MEMORY,
    grid: bool = False,
) -> RolloutPlan:
    """Cut the rollouts of a split into pieces that fit into `memory` bytes.

    Args:
        n_steps_input: true frames that a model sees before the first prediction.
        first_frame: number, from 0, of the first predicted frame; None for `n_steps_input`.
        max_steps: longest rollout; None for whole trajectories.
        grid: whether the plan's dataset delivers coordinates and times.

    Raises:
        WindowError: a trajectory has no frame to predict.
    """
    described = open_split(dataset, data, split, n_steps_input=n_steps_input, warn=False)
    metadata = described.metadata
    first = n_steps_input if first_frame is None else first_frame
    frames = [
        n
        for n, count in zip(metadata.n_steps_per_trajectory, metadata.n_trajectories_per_file, strict=True)
        for _ in range(count)
    ]
    if min(frames) <= first:
        raise WindowError(
            f"{metadata.dataset_name} ({split}): rollouts predict from frame {first} on, and the shortest "
            f"trajectory has {min(frames)} frames (0 to {min(frames) - 1}); choose another protocol"
        )
    lengths = tuple(min(n - first, max_steps or n) for n in frames)
    frame = 4 * metadata.n_fields * math.prod(metadata.spatial_resolution)
    # A frame is held as input or target, as prediction, and a few times in float64 while it is scored.
    piece = max(1, min(min(frames) - n_steps_input, max(lengths), memory // (8 * frame) - n_steps_input))
    opened = open_split(dataset, data, split, n_steps_input=n_steps_input, n_steps_output=piece, warn=False, grid=grid)
    return RolloutPlan(opened, lengths, first, piece)


def roll_out(
    forecasts: Forecasts,
    plan: RolloutPlan,
    batches: Batches,
    trajectory: int,
    *,
    split: str,
    allowed: tuple[bool, ...],
) -> Iterator[RolloutPiece]:
    """One rollout of a plan, piece by piece.

    Args:
        batches: of the plan's dataset.
        trajectory: its number in the split, file by file.
        allowed: per channel, whether the card allows NaN.

    Raises:
        DataValueError: the data hold NaN where the card allows none, or infinity.
    """
    steps = list(plan.pieces(trajectory))
    go_on = None
    for (first, skip, use, window), batch in zip(steps, batches.of_groups([[w] for *_, w in steps]), strict=True):
        check_finite(batch, plan.dataset, allowed, split=split)
        initial = None
        if go_on is None:
            # A plan's first window begins so that its inputs end right before the first predicted frame.
            inputs = _inputs(batch.inputs, batch.outputs, skip)
            go_on = forecasts.rollout(trajectory, inputs, batch.constants)
            initial = inputs[0, -1].cpu().numpy()
        target = batch.outputs[0, skip : skip + use].cpu().numpy()
        yield RolloutPiece(first + 1, (window, skip), go_on(use), target, initial)


def _inputs(inputs: Tensor, outputs: Tensor, skip: int) -> Tensor:
    """The frames before output `skip` of a window, as many as there are inputs."""
    if not skip:
        return inputs
    both = inputs.new_empty((1, inputs.shape[1] + skip, *inputs.shape[2:]))
    both[:, : inputs.shape[1]], both[:, inputs.shape[1] :] = inputs, outputs[:, :skip]
    return both[:, skip:]
