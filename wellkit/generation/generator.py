"""What a generator of a dataset is: the seam between solvers and the code that runs and stores them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from wellkit import __version__
from wellkit.errors import ArgumentError, did_you_mean
from wellkit.formats.well_writer import ShardAxis, ShardBoundary, ShardField, ShardScalar, WellShard
from wellkit.schemas.card import Generator as GeneratorEntry
from wellkit.schemas.card import SimulationCard, Split

ParameterValue = float | str
COLLECTION = "generated"


@dataclass(frozen=True)
class Setting:
    """One point of a generator's parameter grid: one file in each split.

    Attributes:
        file_name: name of the files that hold it.
        parameters: what is written as simulation parameters.
        scalars: those of them that are written as scalars too.
    """

    file_name: str
    parameters: Mapping[str, ParameterValue]
    scalars: Mapping[str, float]


@dataclass(frozen=True)
class Run:
    """One call of a generator, fully decided.

    Attributes:
        resolution: points along each axis.
        trajectories: in all splits and settings together.
        steps: stored frames of a trajectory.
    """

    settings: tuple[Setting, ...]
    resolution: tuple[int, ...]
    trajectories: int
    steps: int
    seed: int


class SimulationGenerator(ABC):
    """A dataset that can be simulated: its grid, its fields, its parameter grid, and one trajectory of it."""

    name: ClassVar[str]  # of the dataset it stands in for
    version: ClassVar[str]  # a new one whenever the same seed gives other data
    axis_names: ClassVar[tuple[str, ...]]
    extent: ClassVar[tuple[tuple[float, float], ...]]
    resolution: ClassVar[tuple[int, ...]]
    smallest_resolution: ClassVar[int] = 8
    trajectories: ClassVar[int]
    steps: ClassVar[int]
    spacing: ClassVar[float]  # time between frames
    fields: ClassVar[tuple[ShardField, ...]]
    boundary_types: ClassVar[tuple[str, ...]]  # an axis: PERIODIC, OPEN or WALL
    parameter_names: ClassVar[tuple[str, ...]]  # what a caller may choose

    @abstractmethod
    def settings(self, parameters: Mapping[str, Sequence[ParameterValue]]) -> tuple[Setting, ...]:
        """The parameter grid, with values chosen by the caller where there are any.

        Raises:
            ArgumentError: a parameter or a value makes no sense.
        """

    @abstractmethod
    def coordinates(self, resolution: Sequence[int]) -> tuple[np.ndarray, ...]:
        """Positions of the stored points along each axis, float64."""

    @abstractmethod
    def simulate(
        self, setting: Setting, resolution: tuple[int, ...], steps: int, random: np.random.Generator
    ) -> dict[str, np.ndarray]:
        """One trajectory: field name -> float32 (time, x, y[, component]). All chance comes from `random`.

        Raises:
            DataValueError: the solver lost the solution.
        """

    @abstractmethod
    def describe(self, run: Run) -> dict[str, Any]:
        """What the card says beyond grid, time, splits and generator."""

    def check_parameters(self, parameters: Mapping[str, Sequence[ParameterValue]]) -> None:
        """Raise ArgumentError where a parameter is unknown, has no values or repeats one."""
        for name, values in parameters.items():
            if name not in self.parameter_names:
                raise ArgumentError(
                    f"{self.name} has no parameter {name!r}; it has {', '.join(self.parameter_names)}."
                    f"{did_you_mean(name, self.parameter_names)}"
                )
            if len(values) == 0 or len(set(values)) != len(values):
                raise ArgumentError(f"parameter {name!r} needs one or more different values, found {list(values)}")

    def provenance(self, seed: int) -> dict[str, str | int]:
        """Root attributes that tell generated shards from published ones."""
        return {
            "generator": f"wellkit.generation:{self.name}",
            "generator_version": self.version,
            "generator_seed": seed,
            "wellkit_version": __version__,
        }

    def prepare(self) -> None:  # noqa: B027 - a hook: most solvers have nothing to prepare
        """Do now, once, what would else be done by every worker process (compile kernels)."""

    def shard(self, run: Run, number: int, indices: Sequence[int]) -> WellShard:
        """The shard of trajectories `indices` of setting `number`, fields still to be filled."""
        setting = run.settings[number]
        axes = tuple(
            ShardAxis(name, values)
            for name, values in zip(self.axis_names, self.coordinates(run.resolution), strict=True)
        )
        boundaries = []
        for axis, kind in zip(axes, self.boundary_types, strict=True):
            mask = np.zeros(axis.values.size, dtype=bool)
            mask[[0, -1]] = True
            boundaries.append(ShardBoundary(f"{axis.name}_{kind.lower()}", kind, (axis.name,), mask))
        return WellShard(
            dataset_name=self.name,
            n_trajectories=len(indices),
            time=ShardAxis("time", self.spacing * np.arange(run.steps)),
            axes=axes,
            fields=self.fields,
            scalars=tuple(ShardScalar(name, value) for name, value in setting.scalars.items()),
            boundaries=tuple(boundaries),
            parameters=setting.parameters,
            attributes={
                **self.provenance(run.seed),
                "generator_setting": number,
                "generator_trajectories": np.array(indices, dtype=np.int64),
            },
        )

    def card(self, run: Run, splits: Mapping[str, Split]) -> SimulationCard:
        """The card of the generated tree."""
        content = {
            "schema": SimulationCard.schema_name(),
            "name": self.name,
            "collection": COLLECTION,
            "grid": {
                "type": "cartesian",
                "axes": [
                    {"name": name, "extent": extent, "points": points}
                    for name, extent, points in zip(self.axis_names, self.extent, run.resolution, strict=True)
                ],
            },
            "time": {
                "steps": [run.steps],
                "spacing": self.spacing,
                **({"horizon": round(self.spacing * (run.steps - 1), 9)} if run.steps > 1 else {}),
            },
            "splits": {name: split.model_dump(exclude_none=True) for name, split in splits.items()},
            "trajectories": run.trajectories,
            "software": f"wellkit {__version__}",
            "generator": GeneratorEntry(
                name=f"wellkit.generation:{self.name}",
                version=self.version,
                seed=run.seed,
                notes="simulated by wellkit in the shape of the published dataset; not the published data",
            ).model_dump(exclude_none=True),
            **self.describe(run),
        }
        return SimulationCard.parse(content, source=f"the card of generator {self.name}")


def numbers(name: str, values: Sequence[ParameterValue]) -> tuple[float, ...]:
    """Values of a parameter as positive, finite numbers.

    Raises:
        ArgumentError: one is not.
    """
    result = []
    for value in values:
        try:
            number = float(value)
        except ValueError:
            number = np.nan
        if not 0.0 < number < np.inf:
            raise ArgumentError(f"parameter {name!r} needs positive numbers, found {value!r}")
        result.append(number)
    return tuple(result)
