"""The datasets that can be generated."""

from __future__ import annotations

from wellkit.errors import UnknownDatasetError, did_you_mean
from wellkit.generation.generator import SimulationGenerator
from wellkit.generation.gray_scott import GrayScott
from wellkit.generation.radiative_layer import RadiativeLayer

_GENERATORS: dict[str, SimulationGenerator] = {
    generator.name: generator for generator in (RadiativeLayer(), GrayScott())
}


def names() -> list[str]:
    """Names of the datasets that can be generated, sorted."""
    return sorted(_GENERATORS)


def get(name: str) -> SimulationGenerator:
    """The generator of a dataset.

    Raises:
        UnknownDatasetError: there is none; the message names near matches and all there are.
    """
    if name not in _GENERATORS:
        raise UnknownDatasetError(
            f"no generator for dataset {name!r}.{did_you_mean(name, _GENERATORS)} "
            f"These can be generated: {', '.join(names())}"
        )
    return _GENERATORS[name]
