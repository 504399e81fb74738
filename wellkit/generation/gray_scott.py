"""Generator of gray_scott_reaction_diffusion: six patterns out of random beginnings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from wellkit.errors import ArgumentError, did_you_mean
from wellkit.formats.well_writer import ShardField
from wellkit.generation.generator import ParameterValue, Run, Setting, SimulationGenerator
from wellkit.generation.reaction_diffusion import Floats, GrayScott2D

REGIMES = {  # feed rate F, kill rate k
    "gliders": (0.014, 0.054),
    "bubbles": (0.098, 0.057),
    "maze": (0.029, 0.057),
    "worms": (0.058, 0.065),
    "spirals": (0.018, 0.051),
    "spots": (0.03, 0.062),
}
DIFFUSIVITIES = (2e-5, 1e-5)
SIDE = 2.0
FINEST_NEEDED = 128  # points a side that resolve the fronts (a few hundredths wide) of all six patterns
STEPS_PER_FRAME = 10  # of length 1


def gaussian_clusters(x: Floats, y: Floats, random: np.random.Generator) -> Floats:
    """Where the reaction starts, 0 to 1 on points (x, y): clusters of Gaussian bumps, periodic."""
    bumps = np.zeros((x.size, y.size))
    for _ in range(int(random.integers(3, 9))):
        centre = random.uniform(-1.0, 1.0, 2)
        for _ in range(int(random.integers(4, 13))):
            at = centre + random.normal(0.0, 0.15, 2)
            width = random.uniform(0.03, 0.08)
            along, across = (
                np.exp(-0.5 * (((points - place + 1.0) % SIDE - 1.0) / width) ** 2)
                for points, place in zip((x, y), at, strict=True)
            )
            bumps += along[:, None] * across[None, :]
    return np.minimum(bumps, 1.0)


def fourier_patches(x: Floats, y: Floats, random: np.random.Generator) -> Floats:
    """Where the reaction starts, 0 to 1 on points (x, y): a random Fourier series above a random level."""
    highest = 5
    series = np.zeros((x.size, y.size))
    power = 0.0
    for kx in range(-highest, highest + 1):
        for ky in range(highest + 1):
            size, phase = random.normal(), random.uniform(0.0, 2.0 * np.pi)
            if 0 < kx * kx + ky * ky <= highest * highest:
                series += size * np.cos(np.pi * (kx * x[:, None] + ky * y[None, :]) + phase)
                power += 0.5 * size**2
    level = random.uniform(-0.3, 1.0)
    patches: Floats = 1.0 / (1.0 + np.exp(-(series / np.sqrt(power) - level) / 0.15))
    return patches


BEGINNINGS: tuple[Callable[[Floats, Floats, np.random.Generator], Floats], ...] = (
    gaussian_clusters,
    fourier_patches,
)


class GrayScott(SimulationGenerator):
    """gray_scott_reaction_diffusion: six settings of feed and kill rate, one file each."""

    name = "gray_scott_reaction_diffusion"
    version = "1"
    axis_names = ("x", "y")
    extent = ((-1.0, 1.0), (-1.0, 1.0))
    resolution = (128, 128)
    trajectories = 1200
    steps = 1001
    spacing = 10.0
    fields = (ShardField("A"), ShardField("B"))
    boundary_types = ("PERIODIC", "PERIODIC")
    parameter_names = ("regime",)

    def settings(self, parameters: Mapping[str, Sequence[ParameterValue]]) -> tuple[Setting, ...]:
        self.check_parameters(parameters)
        chosen = [str(value) for value in parameters.get("regime", tuple(REGIMES))]
        unknown = [regime for regime in chosen if regime not in REGIMES]
        if unknown:
            raise ArgumentError(
                f"regime {unknown[0]!r} is unknown; known are {', '.join(REGIMES)}.{did_you_mean(unknown[0], REGIMES)}"
            )
        return tuple(self._setting(regime, *REGIMES[regime]) for regime in chosen)

    def _setting(self, regime: str, feed: float, kill: float) -> Setting:
        return Setting(
            file_name=f"gray_scott_reaction_diffusion_{regime}_F_{feed:g}_k_{kill:g}.hdf5",
            parameters={"F": feed, "k": kill},
            scalars={"F": feed, "k": kill},
        )

    def coordinates(self, resolution: Sequence[int]) -> tuple[np.ndarray, ...]:
        return tuple(-0.5 * SIDE + SIDE * np.arange(n) / n for n in resolution)

    def simulate(
        self, setting: Setting, resolution: tuple[int, ...], steps: int, random: np.random.Generator
    ) -> dict[str, np.ndarray]:
        # A coarse output grid takes every second, third, ... point of one that resolves the fronts.
        strides = [-(-FINEST_NEEDED // n) for n in resolution]
        x, y = self.coordinates([n * stride for n, stride in zip(resolution, strides, strict=True)])
        started = BEGINNINGS[int(random.integers(len(BEGINNINGS)))](x, y, random)
        species = GrayScott2D(
            1.0 - 0.5 * started,
            0.5 * started,
            feed=setting.scalars["F"],
            kill=setting.scalars["k"],
            lengths=(SIDE, SIDE),
            diffusivities=DIFFUSIVITIES,
            dt=self.spacing / STEPS_PER_FRAME,
        )
        frames = np.empty((2, steps, *resolution), dtype=np.float32)
        for frame in range(steps):
            if frame > 0:
                species.advance(STEPS_PER_FRAME)
            frames[:, frame] = species.concentrations()[:, :: strides[0], :: strides[1]]
        return {"A": frames[0], "B": frames[1]}

    def describe(self, run: Run) -> dict[str, Any]:
        feeds = [setting.scalars["F"] for setting in run.settings]
        kills = [setting.scalars["k"] for setting in run.settings]
        regimes = [
            next(name for name, rates in REGIMES.items() if rates == pair) for pair in zip(feeds, kills, strict=True)
        ]
        return {
            "title": "Gray-Scott reaction and diffusion, generated by wellkit",
            "description": (
                "Two chemicals, one fed and one removed, that react and spread at different speeds. Settings of the "
                "two rates give spots, worms, mazes, bubbles, spirals or gliders out of random beginnings."
            ),
            "equations": [
                {"latex": r"\partial_t A = \delta_A\,\Delta A - A B^2 + F(1-A)"},
                {"latex": r"\partial_t B = \delta_B\,\Delta B + A B^2 - (F+k)B"},
            ],
            "fields": [{"name": "A", "unit": "1"}, {"name": "B", "unit": "1"}],
            "scalars": [{"name": "F"}, {"name": "k"}],
            "parameters": [
                {"name": "regime", "values": regimes, "description": "the pattern; F and k follow in the same order"},
                {"name": "F", "values": feeds, "description": "feed rate"},
                {"name": "k", "values": kills, "description": "kill rate"},
                {"name": "delta_A", "values": [DIFFUSIVITIES[0]], "description": "diffusivity"},
                {"name": "delta_B", "values": [DIFFUSIVITIES[1]], "description": "diffusivity"},
                {
                    "name": "initial_state",
                    "values": [beginning.__name__ for beginning in BEGINNINGS],
                    "description": "g, drawn for each trajectory; then A = 1 - g / 2, B = g / 2",
                },
            ],
            "boundary_conditions": [{"type": "PERIODIC", "axes": ["x", "y"]}],
            "citations": [
                {
                    "title": "spectral-gray-scott, the code behind the published data: the problem, not these data",
                    "url": "https://github.com/danfortunato/spectral-gray-scott",
                }
            ],
            "notes": (
                f"Fourier in space, ETDRK4 in time with step {self.spacing / STEPS_PER_FRAME:g}, float64, stored as "
                f"float32; solved on {FINEST_NEEDED} or more points a side, of which a coarser grid keeps every n-th. "
                "Points are -1 + 2 i / n."
            ),
        }
