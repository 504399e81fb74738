"""The space and the time a simulation is sampled on."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from wellkit.schemas.document import Model

GridType = Literal["cartesian", "spherical", "equiangular"]
AxisKind = Literal["uniform", "chebyshev", "log", "equiangular"]


class Axis(Model):
    """One spatial axis: `points` samples between the two ends of `extent`."""

    name: str = Field(min_length=1, description="name of the axis in the files, e.g. x, theta, log_r")
    kind: AxisKind = Field(default="uniform", description="how the samples are spaced")
    extent: tuple[float, float] | None = Field(
        default=None,
        description="lower and upper end in `unit`; left out where it differs between trajectories",
    )
    points: int = Field(gt=0, description="number of samples")
    unit: str = Field(default="1", description="unit of the coordinate; 1 is dimensionless")
    note: str | None = None

    @model_validator(mode="after")
    def _check_extent(self) -> Self:
        if self.extent is not None and not self.extent[0] < self.extent[1]:
            raise ValueError(
                f"extent of axis {self.name!r} has to grow, {self.extent[0]} is not below {self.extent[1]}"
            )
        return self


class Grid(Model):
    """The spatial grid, axes in the order in which the arrays store them."""

    type: GridType = Field(description="coordinate system, as the files' attribute grid_type")
    axes: tuple[Axis, ...] = Field(min_length=1, max_length=3, description="in storage order")
    note: str | None = None

    @model_validator(mode="after")
    def _check_names(self) -> Self:
        if len({axis.name for axis in self.axes}) < len(self.axes):
            raise ValueError(f"axis names repeat: {', '.join(self.axis_names)}")
        return self

    @property
    def axis_names(self) -> tuple[str, ...]:
        """Names in storage order."""
        return tuple(axis.name for axis in self.axes)

    @property
    def shape(self) -> tuple[int, ...]:
        """Samples along each axis, in storage order."""
        return tuple(axis.points for axis in self.axes)


class Time(Model):
    """The time axis."""

    steps: tuple[int, ...] = Field(min_length=1, description="lengths a trajectory can have, in stored frames")
    counts: tuple[int, ...] | None = Field(
        default=None, description="how many trajectories have each of these lengths, in the same order"
    )
    spacing: float | None = Field(default=None, gt=0, description="time between stored frames; left out if it varies")
    horizon: float | None = Field(default=None, gt=0, description="time from the first frame to the last")
    variable: bool = Field(default=False, description="whether spacing or length differs between trajectories")
    unit: str = "1"
    note: str | None = None

    @model_validator(mode="after")
    def _check_lengths(self) -> Self:
        if min(self.steps) < 1 or list(self.steps) != sorted(set(self.steps)):
            raise ValueError(f"steps have to be positive, different and ascending, found {list(self.steps)}")
        if self.counts is not None and len(self.counts) != len(self.steps):
            raise ValueError(f"{len(self.counts)} counts for {len(self.steps)} possible lengths")
        return self
