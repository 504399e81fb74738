"""A gas that radiates: the net cooling curve, and the Euler solver with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from wellkit.errors import ArgumentError
from wellkit.generation.euler import Euler2D, Floats


@dataclass(frozen=True)
class CoolingCurve:
    """Net cooling between two phases in equilibrium.

    The temperature T = P / rho of a parcel that does no work follows

        dT/dt = -T S(T) / t_cool,    S(T) = s^8,    s = (T - T_cold) (T_hot - T) / (T (sqrt(T_hot) - sqrt(T_cold))^2)

    s is 1 at the geometric mean of both temperatures, symmetric in log T about it, and 0 at both: there heating
    balances cooling. So t_cool is the shortest cooling time P / ((gamma - 1) rate). The high power confines cooling
    to mixed gas, as the steep flanks of real cooling curves do; else every sound wave would set off the hot phase,
    which is thermally unstable. Below T_cold s is negative, S = -s^8 heats (never faster than t_cool); above
    T_hot nothing happens.
    """

    t_cool: float
    cold: float = 0.01
    hot: float = 1.0

    def __post_init__(self) -> None:
        if not (0.0 < self.t_cool < np.inf and 0.0 < self.cold < self.hot < np.inf):
            raise ArgumentError(
                f"a cooling curve needs t_cool > 0 and 0 < cold < hot, found t_cool={self.t_cool:g}, "
                f"cold={self.cold:g}, hot={self.hot:g}"
            )

    def rate(self, temperature: Floats) -> Floats:
        """Net -d(ln T)/dt at constant density, in 1 / time; negative where heating wins. Any shape."""
        from wellkit.generation import cooling_kernels

        flat = np.ascontiguousarray(temperature, dtype=np.float64).reshape(-1)
        rates: Floats = cooling_kernels.net_rate(flat, self.cold, self.hot)
        return rates.reshape(np.shape(temperature)) / self.t_cool


class CoolingGas2D(Euler2D):
    """A gas that cools: transport and cooling alternate (Strang), so second order in time as a whole.

    Attributes:
        radiated: energy radiated so far (less what heating gave back), as a sum over cells of energy density.
    """

    def __init__(self, state: Floats, *, curve: CoolingCurve, **options: Any) -> None:
        """As `Euler2D`, with the cooling curve."""
        super().__init__(state, **options)
        self.curve = curve
        self.radiated = 0.0

    def cool(self, span: float) -> None:
        """Let every cell cool at constant density for `span` of time, without motion."""
        from wellkit.generation import cooling_kernels

        curve = self.curve
        room = np.empty((2, self.state.shape[2]))
        self.radiated += float(
            cooling_kernels.cool(self.state, room, span / curve.t_cool, self.gamma, curve.cold, curve.hot)
        )

    def _advance(self, span: float, *_: float) -> tuple[int, float]:
        steps, radiated = super()._advance(span, self.curve.t_cool, self.curve.cold, self.curve.hot)
        self.radiated += radiated
        return steps, radiated
