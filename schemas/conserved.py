"""Totals that the equations and boundaries of a dataset keep."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from pydantic import Field as Key

from wellkit.schemas.document import Model
from wellkit.schemas.field import Field
from wellkit.schemas.grid import Axis, Grid

Weights = Literal["cells", "sphere"]
COLATITUDE = "theta"


class Conserved(Model):
    """One quantity whose total over the domain does not change, and the stored field that is its density."""

    quantity: str = Key(min_length=1, description="what is conserved, e.g. mass, momentum, magnetic flux")
    field: str = Key(min_length=1, description="core name of the varying field whose total it is")
    components: tuple[str, ...] | None = Key(
        default=None, min_length=1, description="of a vector or tensor field, as its axes are named; left out: all"
    )
    weights: Weights = Key(
        default="cells",
        description="how a total is made of points: cells, all alike; or sphere, by area, on a grid with a colatitude",
    )
    note: str | None = Key(default=None, description="why: the equation and the boundaries")

    def chosen(self, field: Field, axis_names: tuple[str, ...]) -> dict[str, str]:
        """Flat channel name -> name of the component ("" of a scalar), in order of storage."""
        if field.order == 0:
            return {field.name: ""}
        named = {name: name.removeprefix(f"{field.name}_") for name in field.components(axis_names)}
        wanted = set(named.values()) if self.components is None else set(self.components)
        return {name: component for name, component in named.items() if component in wanted}


def check_conserved(all_of_them: Sequence[Conserved], fields: Sequence[Field], grid: Grid) -> None:
    """Raise ValueError where a conserved quantity is of nothing the card has, or its total is not what is said."""
    by_name = {field.name: field for field in fields}
    seen: set[str] = set()
    for conserved in all_of_them:
        told = f"conserved quantity {conserved.quantity!r}"
        field = by_name.get(conserved.field)
        if field is None:
            raise ValueError(f"{told} is of a field {conserved.field!r} that the card lacks")
        if not field.varying:
            raise ValueError(f"{told} is of {field.name!r}, which does not vary in time")
        chosen = conserved.chosen(field, grid.axis_names)
        if conserved.components is not None and sorted(chosen.values()) != sorted(conserved.components):
            known = [name.removeprefix(f"{field.name}_") for name in field.components(grid.axis_names)]
            hint = ", ".join(known) if field.order else "none, being a scalar"
            raise ValueError(
                f"{told} is of components {', '.join(conserved.components)} of {field.name!r}, which has {hint}"
            )
        if twice := seen & set(chosen):
            raise ValueError(f"{told} is of {min(twice)!r}, which is said to be another one as well")
        seen |= set(chosen)
        _check_weights(conserved, told, grid)


def _check_weights(conserved: Conserved, told: str, grid: Grid) -> None:
    if conserved.weights == "cells":
        uneven = [axis.name for axis in grid.axes if axis.kind not in ("uniform", "equiangular")]
        if uneven or grid.type != "cartesian":
            where = f"axis {uneven[0]!r} is not evenly spaced" if uneven else f"the grid is {grid.type}"
            raise ValueError(
                f"{told} adds up cells as if all were alike, but {where}; leave it out or use weights: sphere"
            )
    elif not _is_sphere(grid):
        raise ValueError(
            f"{told} weighs by area on a sphere, which needs a grid of two axes in rad, one of them {COLATITUDE!r} "
            f"within 0 to pi; this one has {', '.join(grid.axis_names)}"
        )


def _is_sphere(grid: Grid) -> bool:
    angles = [axis for axis in grid.axes if axis.unit == "rad" and axis.kind in ("uniform", "equiangular")]
    if grid.type == "cartesian" or len(grid.axes) != 2 or len(angles) != 2:
        return False
    return any(axis.name == COLATITUDE and _within_half_turn(axis) for axis in angles)


def _within_half_turn(axis: Axis) -> bool:
    return axis.extent is not None and axis.extent[0] >= 0 and axis.extent[1] <= math.pi + 1e-6
