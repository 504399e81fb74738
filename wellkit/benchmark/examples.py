"""One rollout kept whole, with coordinates, times and units: what pictures are drawn of."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from wellkit import catalog, metrics
from wellkit.benchmark.contenders import Contender
from wellkit.benchmark.rollout import plan_rollouts, roll_out
from wellkit.errors import ArgumentError, UnknownDatasetError
from wellkit.metrics import DEFAULT_EPS
from wellkit.train.data import components


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
    metadata = contender.windows.metadata
    count = sum(metadata.n_trajectories_per_file)
    if not 0 <= trajectory < count:
        raise ArgumentError(
            f"trajectory {trajectory} is out of range: {contender.name} ({contender.split}) has {count}, from 0"
        )
    plan = plan_rollouts(
        contender.name,
        contender.data,
        contender.split,
        n_steps_input=contender.n_steps_input,
        batch_size=1,
        max_steps=max_steps,
        trajectories=[trajectory],
        grid=True,
    )
    dims = metadata.n_spatial_dims
    truth, prediction, scores, times = [], [], [], []
    pieces = roll_out(
        contender.predictor,
        plan,
        device=contender.device,
        split=contender.split,
        allowed=contender.allowed,
    )
    for piece, (_, skip, use, indices) in zip(pieces, plan.windows((trajectory,)), strict=True):
        sample = plan.dataset[indices[0]]
        times.append(np.asarray(sample["output_time_grid"])[skip : skip + use])
        scores.append(
            metrics.vrmse(piece.prediction[0].double(), piece.target[0].double(), n_spatial_dims=dims, eps=eps)
        )
        truth.append(_cut(piece.target[0], dims))
        prediction.append(_cut(piece.prediction[0], dims))
    names = components(contender.windows)
    axes, units = _axes_and_units(metadata.dataset_name, dims, names)
    grid = np.asarray(sample["space_grid"])
    coordinates = tuple(
        np.moveaxis(grid[..., axis], axis, 0).reshape(grid.shape[axis], -1)[:, 0] for axis in range(min(dims, 2))
    )
    made = "generated data, " if contender.windows.generator else ""
    where = f", slice {axes[2]} = {grid[0, 0, grid.shape[2] // 2, 2]:.3g}" if dims == 3 else ""
    return RolloutExample(
        truth=np.concatenate(truth),
        prediction=np.concatenate(prediction),
        vrmse=torch.cat(scores).cpu().numpy(),
        names=names,
        units=units,
        steps=np.arange(1, plan.lengths[trajectory] + 1),
        times=np.concatenate(times),
        axes=axes[:2],
        coordinates=coordinates,
        title=f"{contender.described.name} on {metadata.dataset_name} ({made}{contender.split}, "
        f"trajectory {trajectory}{where})",
    )


def _cut(fields: torch.Tensor, dims: int) -> np.ndarray:
    """(step, space..., component) on the host; of three space axes the middle of the last."""
    if dims == 3:
        fields = fields[:, :, :, fields.shape[3] // 2]
    return fields.cpu().numpy()


def _axes_and_units(name: str, dims: int, names: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of the axes and units of the components from the dataset's card, as far as there is one."""
    try:
        card = catalog.get(name)
    except UnknownDatasetError:
        return tuple("xyz"[:dims]), ("",) * len(names)
    axes = tuple(card.grid.axis_names)
    units = {component: field.unit for field in card.fields for component in field.components(axes)}
    known = axes if len(axes) == dims else tuple("xyz"[:dims])
    return known, tuple("" if units.get(n, "") in ("1", "code units") else units.get(n, "") for n in names)
