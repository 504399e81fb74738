"""A small clean tree with smooth dynamics, statistics and a card: what faults are planted into."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import yaml

from wellkit.formats.well_writer import (
    ShardAxis,
    ShardField,
    ShardScalar,
    WellShard,
    edge_boundary,
    write_well_shard,
)
from wellkit.statistics import compute_statistics, write_statistics

NAME = "waves"
SHAPE = (16, 12)
STEPS = 12
SPACING = 0.25
VISCOSITIES = (0.01, 0.02)
SPLITS = {"train": 2, "valid": 1, "test": 1}
TRAJECTORIES = 2


def waves(seed: int, steps: int, components: int) -> np.ndarray:
    """Waves that run and slowly fade, axes (time, x, y, component): no two frames are alike."""
    random = np.random.default_rng([seed, 11])
    x, y = np.meshgrid(*(np.arange(n) / n for n in SHAPE), indexing="ij")
    time = SPACING * np.arange(steps)[:, None, None]
    found = np.zeros((steps, *SHAPE, components))
    for component in range(components):
        for _ in range(4):
            kx, ky = random.integers(-2, 3, 2)
            size, phase, speed = random.uniform(0.3, 1), random.uniform(0, 6), random.uniform(0.2, 0.6)
            angle = 2 * np.pi * (kx * x + (ky + 0.5) * y) + phase + speed * time
            found[..., component] += size * np.exp(-0.1 * time) * np.cos(angle)
    return found


def make_shard(seed: int, viscosity: float, steps: int = STEPS, trajectories: int = TRAJECTORIES) -> WellShard:
    """Density, velocity, a symmetric stress and a constant mask."""

    def stack(offset: int, components: int) -> np.ndarray:
        return np.stack([waves(100 * seed + 10 * n + offset, steps, components) for n in range(trajectories)])

    stress = stack(3, 3)[..., [0, 1, 1, 2]].reshape(trajectories, steps, *SHAPE, 2, 2)
    axes = tuple(ShardAxis(name, np.linspace(0, 1, size)) for name, size in zip("xy", SHAPE, strict=True))
    return WellShard(
        dataset_name=NAME,
        n_trajectories=trajectories,
        time=ShardAxis("time", SPACING * np.arange(steps)),
        axes=axes,
        fields=(
            ShardField("density", 5 + stack(0, 1)[..., 0]),
            ShardField("pressure", 20 + stack(1, 1)[..., 0]),
            ShardField("velocity", stack(2, 2), order=1),
            ShardField("stress", stress, order=2, symmetric=True),
            ShardField("mask", np.arange(192.0).reshape(SHAPE), sample_varying=False, time_varying=False),
        ),
        scalars=(ShardScalar("viscosity", viscosity),),
        boundaries=(edge_boundary("x_periodic", "PERIODIC", axes[0]), edge_boundary("y_wall", "WALL", axes[1])),
        parameters={"viscosity": viscosity},
    )


def card_content(**changes: Any) -> dict[str, Any]:
    """The card of the tree."""
    content: dict[str, Any] = {
        "schema": "wellkit/simulation-card/1",
        "name": NAME,
        "title": "Waves",
        "description": "Waves that run and slowly fade.",
        "collection": "tests",
        "grid": {
            "type": "cartesian",
            "axes": [{"name": n, "extent": [0.0, 1.0], "points": s} for n, s in zip("xy", SHAPE, strict=True)],
        },
        "time": {"steps": [STEPS], "spacing": SPACING, "horizon": SPACING * (STEPS - 1)},
        "fields": [
            {"name": "density"},
            {"name": "pressure"},
            {"name": "mask", "varying": False, "sample_varying": False},
            {"name": "velocity", "order": 1},
            {"name": "stress", "order": 2, "symmetry": "symmetric"},
        ],
        "scalars": [{"name": "viscosity"}],
        "parameters": [{"name": "viscosity", "values": list(VISCOSITIES)}],
        "boundary_conditions": [{"type": "PERIODIC", "axes": ["x"]}, {"type": "WALL", "axes": ["y"]}],
        "splits": {name: {"files": n, "trajectories": n * TRAJECTORIES} for name, n in SPLITS.items()},
        "trajectories": sum(SPLITS.values()) * TRAJECTORIES,
    }
    return content | changes


def write_card(tree: Path, **changes: Any) -> None:
    (tree / "card.yaml").write_text(yaml.safe_dump(card_content(**changes)))


def make_tree(root: Path, *, card: bool = True, **writing: Any) -> Path:
    """`root/waves` with train, valid and test, stats.yaml and card.yaml."""
    tree = root / NAME
    number = 0
    for split, files in SPLITS.items():
        (tree / "data" / split).mkdir(parents=True)
        for file in range(files):
            shard = make_shard(number, VISCOSITIES[file])
            write_well_shard(tree / "data" / split / f"{split}_{file}.hdf5", shard, **writing)
            number += 1
    write_statistics(compute_statistics(tree), tree / "stats.yaml")
    if card:
        write_card(tree)
    return tree
