"""What is stored at every point of the grid (fields), and what holds for the whole of it."""

from __future__ import annotations

from itertools import product
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, model_validator
from pydantic import Field as Key

from wellkit.schemas.document import Model

TensorOrder = Literal[0, 1, 2]
Symmetry = Literal["none", "symmetric", "antisymmetric", "symmetric_traceless"]
BoundaryType = Literal["PERIODIC", "WALL", "OPEN"]


class Field(Model):
    """One physical field under its core name ("velocity", never "velocity_x")."""

    name: str = Key(min_length=1, description="core name, as the array is called in the files")
    order: TensorOrder = Key(default=0, description="0 scalar, 1 vector, 2 tensor (two indices)")
    symmetry: Symmetry = Key(default="none", description="of a field of order 2")
    varying: bool = Key(default=True, description="whether it changes in time; a constant field is an input only")
    sample_varying: bool = Key(default=True, description="whether each trajectory has its own; else one per file")
    axes: tuple[str, ...] | None = Key(default=None, description="spatial axes it varies along; left out: all of them")
    unit: str = Key(default="code units", description="physical unit; 1 is dimensionless")
    nan_mask: str | None = Key(
        default=None, description="where NaN is allowed and what it means; left out: NaN is an error"
    )
    description: str | None = None

    @model_validator(mode="after")
    def _check_symmetry(self) -> Self:
        if self.symmetry != "none" and self.order != 2:
            raise ValueError(
                f"symmetry {self.symmetry!r} needs a field of order 2, {self.name!r} is of order {self.order}"
            )
        return self

    def components(self, axis_names: tuple[str, ...]) -> tuple[str, ...]:
        """Names of the stored components, last index fastest: D_xx, D_xy, D_yx, D_yy."""
        if self.order == 0:
            return (self.name,)
        return tuple(f"{self.name}_{''.join(index)}" for index in product(axis_names, repeat=self.order))

    def shape(self, n_spatial_dims: int) -> tuple[int, ...]:
        """Shape of the component axes: (), (D,) or (D, D)."""
        return (n_spatial_dims,) * self.order


class Scalar(Model):
    """One number per trajectory (or per step of it) that the files store under `/scalars`."""

    name: str = Key(min_length=1)
    varying: bool = Key(default=False, description="whether it changes in time")
    unit: str = "1"
    description: str | None = None


def _numbers(value: object) -> object:
    """YAML 1.1 reads 1e10 (no dot) as text; what looks like a number is one."""
    if not isinstance(value, str):
        return value
    try:
        return float(value)
    except ValueError:
        return value


ParameterValue = Annotated[float | str, BeforeValidator(_numbers)]


class Parameter(Model):
    """What differs between the simulations of a dataset, or was fixed for all of them."""

    name: str = Key(min_length=1)
    values: tuple[ParameterValue, ...] | None = Key(default=None, description="the values that occur")
    description: str | None = Key(default=None, description="meaning, or how values are drawn")
    unit: str = "1"
    scalar: str | None = Key(default=None, description="the scalar that stores it, where its name differs")

    @model_validator(mode="after")
    def _check_content(self) -> Self:
        if self.values is None and self.description is None:
            raise ValueError(f"parameter {self.name!r} needs values or a description")
        return self


class Boundary(Model):
    """A condition at the ends of some axes."""

    type: BoundaryType
    axes: tuple[str, ...] = Key(description="the axes it closes; empty where it lies inside the domain")
    description: str | None = None
