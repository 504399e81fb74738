"""The compressible Euler equations in two dimensions, by a finite-volume method of second order.

    d(rho)/dt   + div(rho v)       = 0
    d(rho v)/dt + div(rho v v + P) = 0
    dE/dt       + div((E + P) v)   = 0        E = P / (gamma - 1) + rho v^2 / 2

MUSCL-Hancock (van Leer 1979; Toro, "Riemann Solvers and Numerical Methods for Fluid Dynamics", ch. 14): limited
linear reconstruction of density, velocity and pressure, half a step of prediction, HLLC fluxes; the axes in turn,
x y y x (Strang 1968), which keeps second order. Density and pressure at faces stay positive; mass, momentum and
energy change by boundary fluxes alone, to rounding. All in float64; the kernels are compiled on first use.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from wellkit.errors import ArgumentError, DataValueError

BoundaryKind = Literal["periodic", "open"]  # open: zero gradient
_CODES = {"periodic": 0, "open": 1}
Floats = NDArray[np.float64]


def conserved(density: Floats, velocity_x: Floats, velocity_y: Floats, pressure: Floats, gamma: float) -> Floats:
    """Density, momentum along x and y, total energy density: (4, x, y) from four arrays (x, y)."""
    energy = pressure / (gamma - 1.0) + 0.5 * density * (velocity_x**2 + velocity_y**2)
    return np.array([density, density * velocity_x, density * velocity_y, energy])


def primitive(state: Floats, gamma: float) -> Floats:
    """Density, velocity along x and y, pressure: (4, x, y) from a state (4, x, y)."""
    density = state[0]
    velocity_x, velocity_y = state[1] / density, state[2] / density
    pressure = (gamma - 1.0) * (state[3] - 0.5 * density * (velocity_x**2 + velocity_y**2))
    return np.array([density, velocity_x, velocity_y, pressure])


class Euler2D:
    """A gas in a rectangle of equal cells.

    Attributes:
        state: float64 (4, x, y): density, momentum along x and y, total energy density.
        through: float64 (axis, end, 4): what has flown along each axis through its lower and its upper end, as sums
            over cells; so `state` summed over cells changes by through[:, 0] - through[:, 1] summed over axes.
        time: how far the gas has been advanced.
        steps: time steps taken.
        repeated: pairs of steps that had to be taken again, shorter, because density or pressure became negative.
    """

    def __init__(
        self,
        state: Floats,
        *,
        spacing: Sequence[float],
        boundaries: Sequence[BoundaryKind],
        gamma: float = 5.0 / 3.0,
        cfl: float = 0.8,
    ) -> None:
        """Start from a state.

        Args:
            state: (4, x, y), at least 2 cells along each axis; copied.
            spacing: cell sizes along x and y.
            boundaries: what closes each axis at both ends.
            gamma: ratio of specific heats.
            cfl: time step as a part of the time the fastest wave needs to cross a cell; below 1 for stability.

        Raises:
            ArgumentError: a shape or a number makes no sense.
        """
        if state.ndim != 3 or state.shape[0] != 4 or min(state.shape[1:]) < 2:
            raise ArgumentError(f"a state has shape (4, x, y) with 2 or more cells an axis, found {state.shape}")
        unknown = [kind for kind in boundaries if kind not in _CODES]
        if unknown or len(boundaries) != 2:
            raise ArgumentError(f"boundaries {tuple(boundaries)} are not two of {', '.join(_CODES)}")
        if not 0.0 < cfl < 1.0:
            raise ArgumentError(f"cfl={cfl} is not between 0 and 1")
        if not gamma > 1.0 or not min(spacing) > 0.0:
            raise ArgumentError(f"gamma={gamma} has to be above 1 and cell sizes {tuple(spacing)} above 0")
        self.state = np.array(state, dtype=np.float64, order="C")
        self.spacing = (float(spacing[0]), float(spacing[1]))
        self.gamma = float(gamma)
        self.cfl = float(cfl)
        self.through = np.zeros((2, 2, 4))
        self.time = 0.0
        self.steps = 0
        self.repeated = 0
        self._boundaries = tuple(_CODES[kind] for kind in boundaries)
        from wellkit.generation import euler_kernels

        self._kept = np.empty_like(self.state)
        self._scratch = np.zeros(euler_kernels.SCRATCH)
        self._edge = np.zeros((8, euler_kernels.TILE))
        self._row = np.zeros((4, self.state.shape[2] + 4))

    def primitive(self) -> Floats:
        """Density, velocity along x and y, pressure now: (4, x, y)."""
        return primitive(self.state, self.gamma)

    def advance(self, span: float) -> None:
        """Advance by `span` of time, in equal pairs of steps as long as stability allows.

        Raises:
            DataValueError: density or pressure is no longer positive and finite.
        """
        if span <= 0.0:
            return
        steps, _ = self._advance(span)
        if steps < 0:
            raise DataValueError(
                f"the gas lost its positive density and pressure between times {self.time:g} and "
                f"{self.time + span:g}; use a smaller cfl (now {self.cfl:g}) or a higher resolution"
            )
        self.steps += steps
        self.time += span

    def _advance(self, span: float, t_cool: float = np.inf, cold: float = 0.0, hot: float = 0.0) -> tuple[int, float]:
        """Advance `state` and `through`; steps (-1 where the state is lost) and energy radiated, summed over cells."""
        from wellkit.generation import stepping_kernels

        work = (self.state, self._kept, self._scratch, self._edge, self._row, self.through)
        numbers = (span, self.cfl, *self.spacing, self.gamma, *self._boundaries, t_cool, cold, hot)
        steps, radiated, repeated = stepping_kernels.advance(*work, *numbers)
        self.repeated += int(repeated)
        return int(steps), float(radiated)
