"""One rollout kept whole, with coordinates, times and units: what pictures are drawn of."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from wellkit import metrics
from wellkit.benchmark.contenders import Contender
from wellkit.benchmark.describing import axes_and_units
from wellkit.benchmark.rollout import plan_rollouts, roll_out
from wellkit.errors import ArgumentError
from wellkit.metrics import DEFAULT_EPS
from wellkit.train.data import Batches, components


@dataclass(frozen=True)
class RolloutExample:
    """The rollout of one trajectory; in 3D the middle slice along the last axis.

    Attributes:
        truth, prediction: (step, space..., component), float32, physical units; one or two space axes.
        vrmse: (step, component), over the whole domain (all of it in 3D).
        names: components.
        units: of each component, "" where unknown.
        steps: numbers of the steps, from 1.
        times: of each step, as stored.
        axes: names of the space axes.
        coordinates: of the grid points along each axis.
        title: dataset, split, trajectory, and whose rollout it is.
    """

    truth: np.ndarray
    prediction: np.ndarray
    vrmse: np.ndarray
    names: tuple[str, ...]
    units: tuple[str, ...]
    steps: np.ndarray
    times: np.ndarray
    axes: tuple[str, ...]
    coordinates: tuple[np.ndarray, ...]
    title: str


def check_trajectory(contender: Contender, trajectory: int) -> None:
    """ArgumentError where the contender's split has no trajectory of that number."""
    count = sum(contender.windows.metadata.n_trajectories_per_file)
    if not 0 <= trajectory < count:
        raise ArgumentError(
            f"trajectory {trajectory} is out of range: {contender.name} ({contender.split}) has {count}, from 0"
        )


def rollout_example(
    contender: Contender, *, trajectory: int = 0, max_steps: int | None = None, eps: float = DEFAULT_EPS
) -> RolloutExample:
    """Roll one trajectory of a contender's split out and keep it.

    Args:
        trajectory: its number in the split, file by file.
        max_steps: longest rollout; None for the whole trajectory.
        eps: of the VRMSE.

    Raises:
        ArgumentError: there is no such trajectory.
    """
    check_trajectory(contender, trajectory)
    metadata = contender.windows.metadata
    plan = plan_rollouts(
        contender.name,
        contender.data,
        contender.split,
        n_steps_input=contender.n_steps_input,
        max_steps=max_steps,
        grid=True,
    )
    dims = metadata.n_spatial_dims
    truth, prediction, scores, times = [], [], [], []
    pieces = Batches(plan.dataset, batch_size=1, workers=0, device=contender.device)
    for piece in roll_out(
        contender.forecasts, plan, pieces, trajectory, split=contender.split, allowed=contender.allowed
    ):
        window, skip = piece.window
        sample = plan.dataset[window]
        times.append(np.asarray(sample["output_time_grid"])[skip : skip + len(piece.prediction)])
        scores.append(
            metrics.vrmse(piece.prediction.astype(float), piece.target.astype(float), n_spatial_dims=dims, eps=eps)
        )
        truth.append(_cut(piece.target, dims))
        prediction.append(_cut(piece.prediction, dims))
    names = components(contender.windows)
    axes, units = axes_and_units(metadata.dataset_name, dims, names)
    grid = np.asarray(sample["space_grid"])
    coordinates = tuple(
        np.moveaxis(grid[..., axis], axis, 0).reshape(grid.shape[axis], -1)[:, 0] for axis in range(min(dims, 2))
    )
    made = "generated data, " if contender.windows.generator else ""
    where = f", slice {axes[2]} = {grid[0, 0, grid.shape[2] // 2, 2]:.3g}" if dims == 3 else ""
    return RolloutExample(
        truth=np.concatenate(truth),
        prediction=np.concatenate(prediction),
        vrmse=np.concatenate(scores),
        names=names,
        units=units,
        steps=np.arange(1, plan.lengths[trajectory] + 1),
        times=np.concatenate(times),
        axes=axes[:2],
        coordinates=coordinates,
        title=f"{contender.described.name} on {metadata.dataset_name} ({made}{contender.split}, "
        f"trajectory {trajectory}{where})",
    )


def _cut(fields: np.ndarray, dims: int) -> np.ndarray:
    """(step, space..., component); of three space axes the middle of the last."""
    return fields[:, :, :, fields.shape[3] // 2] if dims == 3 else fields
