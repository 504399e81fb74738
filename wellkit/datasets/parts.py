"""The parts of one sample, from its shard: as a transform sees them, or as they are delivered."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from wellkit.datasets.assembly import ShardAssembler, WindowSpec
from wellkit.datasets.samples import FieldViews, TrajectoryData, construct_sample, flatten_scalars
from wellkit.frameworks import Array, from_numpy
from wellkit.readers.plan import WindowBatch

if TYPE_CHECKING:
    from wellkit.datasets.well import WellDataset


def read_parts(dataset: WellDataset, shard: ShardAssembler, window: WindowSpec) -> TrajectoryData:
    """One window as arrays of the framework, fields as views by tensor order."""

    def convert(array: np.ndarray) -> Array:
        return from_numpy(array, dataset.framework)

    scalars = shard.variable_scalars(window)
    constants = shard.constant_scalars(window.trajectory)
    data: TrajectoryData = {
        "variable_fields": FieldViews(convert(shard.variable_fields(window)), shard.variable),
        "constant_fields": FieldViews(convert(shard.constant_fields(window)), shard.constant),
        "variable_scalars": {name: convert(scalars[name]) for name in dataset.scalar_names},
        "constant_scalars": {name: convert(constants[name]) for name in dataset.constant_scalar_names},
    }
    for key, value in _surroundings(dataset, shard, window).items():
        data[key] = convert(value)  # type: ignore[literal-required]
    return data


def read_rest(
    dataset: WellDataset, shard: ShardAssembler, window: WindowSpec, read: WindowBatch | None
) -> dict[str, np.ndarray]:
    """Everything of one sample but the time-varying fields, in NumPy; `read`: constants that are there already."""
    pieces: dict[str, Any] = _surroundings(dataset, shard, window)
    if shard.constant:
        pieces["constant_fields"] = shard.constant_fields(window, read)
    if dataset.scalar_names:
        scalars = shard.variable_scalars(window)
        pieces["variable_scalars"] = flatten_scalars({name: scalars[name] for name in dataset.scalar_names})
    if dataset.constant_scalar_names:
        pieces["constant_scalars"] = shard.constant_row(window.trajectory, dataset.constant_scalar_names)
    return construct_sample(pieces, window.n_input)


def _surroundings(dataset: WellDataset, shard: ShardAssembler, window: WindowSpec) -> dict[str, np.ndarray]:
    """Boundaries and grids of one window."""
    found = {}
    if dataset.boundary_return_type is not None:
        found["boundary_conditions"] = shard.boundary_conditions(window)
    if dataset.return_grid:
        found["space_grid"] = shard.space_grid(window)
        found["time_grid"] = shard.time_grid(window, relative=dataset.normalize_time_grid)
    return found
