"""A tiny dataset with a known answer: waves carried around a periodic box at constant speed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import yaml

from wellkit.formats.well_writer import ShardAxis, ShardField, WellShard, edge_boundary, write_well_shard

NAME = "advection"
SPEED = (1, 2)  # grid points a step along x and y: the exact next state is a roll


def make_advection(
    base: Path,
    *,
    name: str = NAME,
    resolution: tuple[int, ...] = (16, 16),
    trajectories: tuple[int, int, int] = (6, 2, 2),
    steps: int = 10,
    steps_of_second_file: int | None = None,
    constant: bool = False,
    seed: int = 0,
) -> Path:
    """`base/name` with splits of so many trajectories and stats.yaml; returns `base`.

    Two components: a scalar `tracer` (mean 5, spread about 1) and a vector `velocity` of small waves, all of
    them carried along. `constant` adds a constant field `mask`. With `steps_of_second_file` every split gets
    a second shard of such trajectories.
    """
    train: list[WellShard] = []
    for number, (split, count) in enumerate(zip(("train", "valid", "test"), trajectories, strict=True)):
        lengths = [steps] if steps_of_second_file is None else [steps, steps_of_second_file]
        for part, length in enumerate(lengths):
            shard = _shard(name, resolution, count, length, constant, np.random.default_rng([seed, number, part]))
            write_well_shard(base / name / "data" / split / f"{name}_{part}.hdf5", shard)
            if split == "train":
                train.append(shard)
    (base / name / "stats.yaml").write_text(yaml.safe_dump(_statistics(train)))
    return base


def _shard(
    name: str, resolution: tuple[int, ...], n: int, steps: int, constant: bool, rng: np.random.Generator
) -> WellShard:
    dims = len(resolution)
    axes = tuple(ShardAxis("xyz"[d], np.arange(size) / size) for d, size in enumerate(resolution))
    fields = [
        ShardField("tracer", 5.0 + _carried(rng, n, steps, resolution)),
        ShardField(
            "velocity", np.stack([0.1 * _carried(rng, n, steps, resolution) for _ in resolution], axis=-1), order=1
        ),
    ]
    if constant:
        fields.append(ShardField("mask", rng.uniform(size=(n, *resolution)), time_varying=False))
    return WellShard(
        dataset_name=name,
        n_trajectories=n,
        time=ShardAxis("time", 0.5 * np.arange(steps)),
        axes=axes,
        fields=tuple(fields),
        boundaries=tuple(edge_boundary(f"{a.name}_periodic", "PERIODIC", a) for a in axes[:dims]),
    )


def _carried(rng: np.random.Generator, n: int, steps: int, resolution: tuple[int, ...]) -> np.ndarray:
    """(n, steps, x...): a few random waves, rolled by SPEED each step."""
    waves = np.zeros((n, *resolution))
    grids = np.meshgrid(*(2 * np.pi * np.arange(s) / s for s in resolution), indexing="ij")
    for trajectory in range(n):
        for _ in range(3):
            numbers = rng.integers(1, 3, size=len(resolution))
            phase = sum(k * g for k, g in zip(numbers, grids, strict=True)) + rng.uniform(0, 2 * np.pi)
            waves[trajectory] += rng.normal() * np.sin(phase)
    axes = tuple(range(1, 1 + len(resolution)))
    speed = (*SPEED, 1)[: len(resolution)]
    return np.stack([np.roll(waves, [s * t for s in speed], axis=axes) for t in range(steps)], axis=1)


def _statistics(shards: list[WellShard]) -> dict[str, dict[str, object]]:
    table: dict[str, dict[str, object]] = {}
    for field in shards[0].fields:
        arrays = [np.asarray(f.values) for shard in shards for f in shard.fields if f.name == field.name]
        lead = arrays[0].ndim - field.order
        flat = np.concatenate([a.reshape(-1, *a.shape[lead:]) for a in arrays])
        table.setdefault("mean", {})[field.name] = flat.mean(0).tolist()
        table.setdefault("std", {})[field.name] = flat.std(0).tolist()
        table.setdefault("rms", {})[field.name] = np.sqrt((flat**2).mean(0)).tolist()
        if field.time_varying:
            change = np.concatenate([np.diff(a, axis=1).reshape(-1, *a.shape[lead:]) for a in arrays])
            table.setdefault("mean_delta", {})[field.name] = change.mean(0).tolist()
            table.setdefault("std_delta", {})[field.name] = change.std(0).tolist()
            table.setdefault("rms_delta", {})[field.name] = np.sqrt((change**2).mean(0)).tolist()
    return table
