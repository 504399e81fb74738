"""What a planted fault is, and what the catalogue of them is made with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import yaml

SHARD = "data/train/train_1.hdf5"
OTHER = "data/train/train_0.hdf5"
DENSITY = "t0_fields/density"
Plant = Callable[[Path], None]


class Fault(NamedTuple):
    """A fault, its code, and what the finding has to name."""

    name: str
    code: str
    plant: Plant
    where: dict[str, Any]
    card: bool = True


FAULTS: list[Fault] = []


def fault(code: str, *, card: bool = True, **where: Any) -> Callable[[Plant], Plant]:
    """Add a fault to the catalogue."""

    def add(plant: Plant) -> Plant:
        FAULTS.append(Fault(plant.__name__, code, plant, where, card))
        return plant

    return add


def edit(change: Callable[[h5py.File], object]) -> Plant:
    def plant(tree: Path) -> None:
        with h5py.File(tree / SHARD, "r+") as file:
            change(file)

    return plant


def values(file: h5py.File, name: str = DENSITY) -> Any:
    return file[name]


def declare_mask(tree: Path) -> None:
    """Have the card say that NaN in density mark what lies outside the domain."""
    card = yaml.safe_load((tree / "card.yaml").read_text())
    card["fields"][0]["nan_mask"] = "outside the domain"
    (tree / "card.yaml").write_text(yaml.safe_dump(card))


def statistics(tree: Path) -> Any:
    """What stats.yaml holds."""
    return yaml.safe_load((tree / "stats.yaml").read_text())


def record(tree: Path, content: Any) -> None:
    """Write stats.yaml."""
    (tree / "stats.yaml").write_text(yaml.safe_dump(content))
