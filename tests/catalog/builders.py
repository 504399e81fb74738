"""Small valid cards for tests to bend."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import yaml

_CARD: dict[str, Any] = {
    "schema": "wellkit/simulation-card/1",
    "name": "pendulum_waves",
    "title": "Waves in a row of pendulums",
    "description": "A row of coupled pendulums, seen from above.",
    "collection": "mine",
    "grid": {"type": "cartesian", "axes": [{"name": "x", "points": 8}, {"name": "y", "points": 4}]},
    "time": {"steps": [5], "spacing": 0.5, "horizon": 2.0},
    "fields": [
        {"name": "angle"},
        {"name": "velocity", "order": 1},
        {"name": "stress", "order": 2, "symmetry": "symmetric"},
        {"name": "mass", "varying": False},
    ],
    "splits": {"train": {"files": 2, "trajectories": 6}, "test": {"files": 1, "trajectories": 2}},
    "trajectories": 8,
}


def card_content(**changes: Any) -> dict[str, Any]:
    """A valid card as a mapping, with top-level keys replaced."""
    return {**copy.deepcopy(_CARD), **changes}


def write_card(path: Path, **changes: Any) -> Path:
    """A card file; returns its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(card_content(**changes), sort_keys=False), encoding="utf-8")
    return path
