"""Generator of turbulent_radiative_layer_2D: hot thin gas glides over cold dense gas, mixes with it and cools.

After Fielding, Ostriker, Bryan & Jermyn, "Multiphase gas and the fractal nature of radiative turbulent mixing layers"
(ApJL 894, L24, 2020): units in which the hot phase has density, pressure and temperature P / rho of 1, and the box
is 1 wide.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from wellkit.errors import ArgumentError
from wellkit.formats.well_writer import ShardField
from wellkit.generation.cooling import CoolingCurve, CoolingGas2D
from wellkit.generation.euler import Floats, conserved
from wellkit.generation.generator import ParameterValue, Run, Setting, SimulationGenerator, numbers

GAMMA = 5.0 / 3.0
CONTRAST = 100.0  # density of the cold phase
SHEAR = 0.06  # velocity of the hot phase relative to the cold one: Mach 0.05 in the hot, 0.5 in the cold phase
INFLOW = 0.025  # velocity at which the hot phase starts towards the layer, at t_cool = 1; goes as t_cool^(-1/2)
FASTEST_INFLOW = 0.15
WIDTH = 0.02  # of the tanh profile
NOISE = 0.01  # root mean square of the transverse velocity at the interface
MODES = 8  # sine waves in the noise
CFL = 0.9  # nothing moves faster than sound for long here, so little margin will do
SHORTEST_TIME = 1e-3  # thirty times shorter than the shortest of the published values
COOLING_TIMES = (0.03, 0.06, 0.1, 0.18, 0.32, 0.56, 1.0, 1.78, 3.16)


def inflow_velocity(t_cool: float) -> float:
    """How fast the hot phase moves towards the layer at the beginning.

    A cooling layer draws in hot gas (faster the faster it cools). If the hot phase started at rest, the layer would
    pull both phases towards it by a drop in pressure, and the cold phase would rise through the box.
    """
    return float(min(INFLOW / np.sqrt(t_cool), FASTEST_INFLOW))


def initial_state(
    x: Floats, y: Floats, t_cool: float, random: np.random.Generator, *, contrast: float = CONTRAST
) -> Floats:
    """State (4, x, y) at time 0 on cell centres x and y: a tanh layer at y = 0 in pressure equilibrium, with noise.

    The noise does not depend on the resolution.
    """
    phases = random.uniform(0.0, 2.0 * np.pi, MODES)
    weights = random.normal(size=MODES)
    weights *= NOISE / np.sqrt(0.5 * np.sum(weights**2))
    along, across = x[:, None], y[None, :]
    hot = 0.5 * (1.0 + np.tanh(across / WIDTH)) * np.ones_like(along)
    density = contrast + (1.0 - contrast) * hot
    velocity_x = SHEAR * (hot - 0.5)
    velocity_y = -inflow_velocity(t_cool) * hot
    for mode, (weight, phase) in enumerate(zip(weights, phases, strict=True), start=1):
        velocity_y += weight * np.sin(2.0 * np.pi * mode * along + phase) * np.exp(-np.pi * mode * np.abs(across))
    return conserved(density, velocity_x, velocity_y, np.ones_like(density), GAMMA)


class RadiativeLayer(SimulationGenerator):
    """turbulent_radiative_layer_2D: nine cooling times, one file each."""

    name = "turbulent_radiative_layer_2D"
    version = "1"
    axis_names = ("x", "y")
    extent = ((-0.5, 0.5), (-1.0, 2.0))
    resolution = (128, 384)
    trajectories = 90
    steps = 101
    spacing = 1.597033
    fields = (ShardField("density"), ShardField("pressure"), ShardField("velocity", order=1))
    boundary_types = ("PERIODIC", "OPEN")
    parameter_names = ("tcool",)

    def settings(self, parameters: Mapping[str, Sequence[ParameterValue]]) -> tuple[Setting, ...]:
        self.check_parameters(parameters)
        times = numbers("tcool", parameters.get("tcool", COOLING_TIMES))
        if min(times) < SHORTEST_TIME:
            raise ArgumentError(
                f"parameter 'tcool' needs values of at least {SHORTEST_TIME:g}, found {min(times):g}: gas that cools "
                "faster would need steps too short to simulate"
            )
        if len(set(times)) != len(times):
            raise ArgumentError(f"parameter 'tcool' repeats a value: {', '.join(map(str, times))}")
        return tuple(
            Setting(
                file_name=f"turbulent_radiative_layer_tcool_{_in_file_name(t_cool)}.hdf5",
                parameters={"tcool": t_cool},
                scalars={"tcool": t_cool},
            )
            for t_cool in times
        )

    def coordinates(self, resolution: Sequence[int]) -> tuple[np.ndarray, ...]:
        return tuple(
            low + (high - low) * (np.arange(n) + 0.5) / n
            for (low, high), n in zip(self.extent, resolution, strict=True)
        )

    def prepare(self) -> None:
        x, y = self.coordinates((8, 8))
        state = initial_state(x, y, 1.0, np.random.default_rng(0))
        gas = CoolingGas2D(state, curve=CoolingCurve(1.0), spacing=(0.1, 0.1), boundaries=("periodic", "open"))
        gas.advance(1e-3)

    def simulate(
        self, setting: Setting, resolution: tuple[int, ...], steps: int, random: np.random.Generator
    ) -> dict[str, np.ndarray]:
        t_cool = setting.scalars["tcool"]
        x, y = self.coordinates(resolution)
        gas = CoolingGas2D(
            initial_state(x, y, t_cool, random),
            curve=CoolingCurve(t_cool, cold=1.0 / CONTRAST, hot=1.0),
            spacing=[(high - low) / n for (low, high), n in zip(self.extent, resolution, strict=True)],
            boundaries=("periodic", "open"),
            gamma=GAMMA,
            cfl=CFL,
        )
        frames = np.empty((4, steps, *resolution), dtype=np.float32)
        for frame in range(steps):
            if frame > 0:
                gas.advance(self.spacing)
            frames[:, frame] = gas.primitive()
        return {"density": frames[0], "pressure": frames[3], "velocity": np.stack([frames[1], frames[2]], axis=-1)}

    def describe(self, run: Run) -> dict[str, Any]:
        times = [setting.scalars["tcool"] for setting in run.settings]
        return {
            "title": "Turbulent radiative mixing layer, 2D, generated by wellkit",
            "description": (
                f"Hot gas (density 1, pressure 1) glides over cold gas (density {CONTRAST:g}, pressure 1) below "
                f"y = 0 at a relative velocity of {SHEAR:g} along x. The shear rolls up, the two mix, and what is "
                "mixed cools and joins the cold side."
            ),
            "equations": [
                {"latex": r"\partial_t\rho + \nabla\cdot(\rho v) = 0"},
                {"latex": r"\partial_t(\rho v) + \nabla\cdot(\rho v v + P) = 0"},
                {
                    "latex": r"\partial_t E + \nabla\cdot\left[(E+P)v\right] = "
                    r"-\frac{P}{\gamma-1}\,\frac{S(P/\rho)}{t_\mathrm{cool}}",
                    "note": "S: net cooling curve, see below",
                },
                {
                    "latex": r"S(T) = \left[\frac{(T-T_c)(T_h-T)}{T(\sqrt{T_h}-\sqrt{T_c})^2}\right]^8,\quad "
                    rf"T_c = {1.0 / CONTRAST:g},\; T_h = 1",
                    "note": (
                        "1 at T = sqrt(T_c T_h), where the cooling time is t_cool; 0 at both equilibria; "
                        "-min(s^8, 1) (heating) below T_c, 0 above T_h"
                    ),
                },
                {"latex": r"E = \frac{P}{\gamma-1} + \frac{1}{2}\rho v^2,\quad \gamma = 5/3"},
            ],
            "fields": [{"name": "density"}, {"name": "pressure"}, {"name": "velocity", "order": 1}],
            "scalars": [{"name": "tcool"}],
            "parameters": [
                {"name": "tcool", "values": times, "description": "shortest cooling time; box width 1, hot P / rho 1"},
                {"name": "density_contrast", "values": [CONTRAST]},
                {"name": "shear_velocity", "values": [SHEAR], "description": "hot phase +1/2, cold phase -1/2 of it"},
                {
                    "name": "inflow_velocity",
                    "values": [round(inflow_velocity(t_cool), 6) for t_cool in times],
                    "description": "of the hot phase towards the layer at the beginning, in the order of tcool",
                },
                {"name": "interface_width", "values": [WIDTH], "description": "w of the profile tanh(y / w)"},
                {
                    "name": "noise",
                    "values": [NOISE],
                    "description": f"rms of v_y at the interface: {MODES} sine waves of random weight and phase",
                },
            ],
            "boundary_conditions": [
                {"type": "PERIODIC", "axes": ["x"]},
                {"type": "OPEN", "axes": ["y"], "description": "zero gradient"},
            ],
            "citations": [
                {
                    "title": (
                        "Multiphase gas and the fractal nature of radiative turbulent mixing layers "
                        "(ApJL 894:L24, 2020): the problem, not these data"
                    ),
                    "doi": "10.3847/2041-8213/ab8d2c",
                }
            ],
            "notes": (
                "Finite volumes of second order (MUSCL-Hancock, HLLC, Strang splitting), float64, stored as float32; "
                "points are cell centres, values cell means of conserved quantities turned into density, pressure "
                "and velocity."
            ),
        }


def _in_file_name(t_cool: float) -> str:
    """Two decimals as in the published files, more where two do not tell the value."""
    short = f"{t_cool:.2f}"
    return short if float(short) == t_cool else repr(t_cool)
