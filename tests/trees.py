"""Small Well trees with every feature of the format, for tests and for the comparison with the_well."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml

from wellkit.formats.well_writer import (
    ShardAxis,
    ShardBoundary,
    ShardField,
    ShardScalar,
    WellShard,
    edge_boundary,
    write_well_shard,
)

AXES = ("x", "y", "z")


def make_shard(
    name: str = "made_up",
    *,
    resolution: tuple[int, ...] = (8, 6),
    trajectories: int = 2,
    steps: int = 7,
    seed: int = 0,
    singleton_axes: bool = False,
    time_per_trajectory: bool = False,
    grid_per_trajectory: bool = False,
    boundaries: tuple[str, ...] = ("PERIODIC", "WALL", "OPEN"),
    plain: bool = False,
) -> WellShard:
    """A shard of random numbers: scalar, vector and tensor fields, constant ones, ones that miss an axis.

    `plain` leaves all but one scalar and one vector field out.
    """
    rng = np.random.default_rng([seed, 77])
    n_dims = len(resolution)

    def draw(*shape: int) -> np.ndarray:
        return rng.normal(rng.uniform(-3, 3), rng.uniform(0.5, 2), shape).astype(np.float32)

    lead = (trajectories, steps)
    axes = tuple(
        ShardAxis(
            axis,
            np.stack([np.linspace(0, 1 + n, size) for n in range(trajectories)])
            if grid_per_trajectory
            else np.linspace(0, 1, size),
            sample_varying=grid_per_trajectory,
        )
        for axis, size in zip(AXES, resolution, strict=False)
    )
    times = np.linspace(0, 3, steps)
    if time_per_trajectory:
        times = np.stack([times * (1 + n) + n for n in range(trajectories)])
    first_only = (True, *[False] * (n_dims - 1))
    thin = [size if varies else 1 for size, varies in zip(resolution, first_only, strict=True)]
    stored = tuple(thin) if singleton_axes else tuple(s for s, v in zip(resolution, first_only, strict=True) if v)
    fields = [
        ShardField("density", draw(*lead, *resolution)),
        ShardField("velocity", draw(*lead, *resolution, n_dims), order=1),
    ]
    if not plain:
        fields += [
            ShardField("pressure", draw(*lead, *resolution)),
            ShardField("profile", draw(*lead, *stored), dim_varying=first_only, singleton_axes=singleton_axes),
            ShardField("mask", draw(*resolution), sample_varying=False, time_varying=False),
            ShardField("material", draw(trajectories, *resolution), time_varying=False),
            ShardField("gravity", draw(*resolution, n_dims), order=1, sample_varying=False, time_varying=False),
            ShardField("stress", draw(*lead, *resolution, n_dims, n_dims), order=2),
        ]
    scalars = [ShardScalar("viscosity", 0.25 + seed)]
    if not plain:
        scalars += [
            ShardScalar("drive", draw(steps), time_varying=True),
            ShardScalar("heat", draw(*lead), sample_varying=True, time_varying=True),
            ShardScalar("mass", draw(trajectories), sample_varying=True),
        ]
    return WellShard(
        dataset_name=name,
        n_trajectories=trajectories,
        time=ShardAxis("time", times, sample_varying=time_per_trajectory),
        axes=axes,
        fields=tuple(fields),
        scalars=tuple(scalars),
        boundaries=tuple(
            edge_boundary(f"{axis.name}_{kind.lower()}", kind, axis) if not grid_per_trajectory else _edges(axis, kind)
            for axis, kind in zip(axes, boundaries, strict=False)
        ),
        parameters={"viscosity": 0.25 + seed},
    )


def _edges(axis: ShardAxis, kind: str) -> ShardBoundary:
    mask = np.zeros(axis.values.shape[-1], dtype=bool)
    mask[[0, -1]] = True
    return ShardBoundary(f"{axis.name}_{kind.lower()}", kind, (axis.name,), mask)


def make_tree(
    root: Path,
    *,
    name: str = "made_up",
    files: int = 2,
    steps: tuple[int, ...] = (7,),
    splits: tuple[str, ...] = ("train", "valid", "test"),
    chunks: Literal[True] | None = None,
    compression: str | None = None,
    **shard: Any,
) -> Path:
    """`root/name/data/<split>/*.hdf5` and stats.yaml; file i has `steps[i % len(steps)]` frames. Returns root/name."""
    tree = root / name
    fields: dict[str, tuple[np.ndarray, bool]] = {}
    for split_number, split in enumerate(splits):
        folder = tree / "data" / split
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(files):
            made = make_shard(name, steps=steps[number % len(steps)], seed=10 * split_number + number, **shard)
            write_well_shard(folder / f"{name}_part_{number}.hdf5", made, chunks=chunks, compression=compression)
            for field in made.fields:
                assert field.values is not None
                fields.setdefault(field.name, (field.values, field.time_varying))
    rng = np.random.default_rng(5)
    n_dims = len(made.axes)
    statistics: dict[str, dict[str, object]] = {
        key: {} for key in ("mean", "std", "rms", "mean_delta", "std_delta", "rms_delta")
    }
    for field in made.fields:
        shape = (n_dims,) * field.order
        for key in statistics:
            if key.endswith("delta") and not field.time_varying:
                continue
            statistics[key][field.name] = rng.uniform(0.5, 2.0, shape).round(3).tolist()
    (tree / "stats.yaml").write_text(yaml.safe_dump(statistics))
    return tree
