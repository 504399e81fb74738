"""Independent solutions the solvers are held against."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.optimize import brentq


def riemann(
    left: tuple[float, float, float], right: tuple[float, float, float], speed: np.ndarray, gamma: float
) -> np.ndarray:
    """The exact solution of a shock tube (Toro, ch. 4): density, velocity, pressure (3, n) at x / t = `speed` (n,).

    `left` and `right` are density, velocity, pressure; no vacuum in between.
    """

    def change(p: float, state: tuple[float, float, float]) -> float:
        """Velocity change across the wave that joins `state` to pressure p: a shock if p is higher, else a fan."""
        density, _, pressure = state
        if p > pressure:
            a, b = 2.0 / ((gamma + 1.0) * density), (gamma - 1.0) / (gamma + 1.0) * pressure
            return float((p - pressure) * np.sqrt(a / (p + b)))
        sound = np.sqrt(gamma * pressure / density)
        return float(2.0 * sound / (gamma - 1.0) * ((p / pressure) ** ((gamma - 1.0) / (2.0 * gamma)) - 1.0))

    def mismatch(p: float) -> float:
        return change(p, left) + change(p, right) + right[1] - left[1]

    middle = brentq(mismatch, 1e-8, 100.0 * max(left[2], right[2]), xtol=1e-14)
    contact = 0.5 * (left[1] + right[1]) + 0.5 * (change(middle, right) - change(middle, left))
    result = np.empty((3, speed.size))
    for i, s in enumerate(speed):
        # A wave to the right is a wave to the left in a mirror.
        sign, state = (1.0, left) if s < contact else (-1.0, right)
        result[:, i] = _one_side(state[0], sign * state[1], state[2], middle, sign * contact, sign * s, gamma)
        result[1, i] *= sign
    return result


def _one_side(
    density: float, u: float, p: float, middle: float, contact: float, s: float, gamma: float
) -> tuple[float, float, float]:
    """State at x / t = s left of the contact, behind or in the left wave or before it."""
    sound = np.sqrt(gamma * p / density)
    ratio = (gamma - 1.0) / (gamma + 1.0)
    if middle > p:  # a shock
        shock = u - sound * np.sqrt((gamma + 1.0) / (2.0 * gamma) * middle / p + (gamma - 1.0) / (2.0 * gamma))
        if s < shock:
            return density, u, p
        return density * (middle / p + ratio) / (ratio * middle / p + 1.0), contact, middle
    tail_sound = sound * (middle / p) ** ((gamma - 1.0) / (2.0 * gamma))
    if s < u - sound:
        return density, u, p
    if s > contact - tail_sound:
        return density * (middle / p) ** (1.0 / gamma), contact, middle
    local = 2.0 / (gamma + 1.0) * (sound + 0.5 * (gamma - 1.0) * (u - s))
    velocity = 2.0 / (gamma + 1.0) * (sound + 0.5 * (gamma - 1.0) * u + s)
    return (
        density * (local / sound) ** (2.0 / (gamma - 1.0)),
        velocity,
        p * (local / sound) ** (2.0 * gamma / (gamma - 1.0)),
    )


def shear_growth_rate(y: np.ndarray, velocity: np.ndarray, density: np.ndarray, wavenumber: float) -> float:
    """Largest growth rate of a wave on a shear layer without viscosity, gravity and compressibility.

    A stream function phi(y) exp(ik(x - ct)) in a fluid of variable density obeys, from the linear momentum equations
    along x (which gives the pressure, rho U' phi - rho (U - c) phi') and along y,

        [rho (U - c) phi' - rho U' phi]' - k^2 rho (U - c) phi = 0,    phi = 0 far away

    (Rayleigh's equation where rho is constant); here in central differences on even points `y`, a generalized
    eigenvalue problem for c, growth k Im(c).
    """
    h = y[1] - y[0]
    n = y.size - 2  # inner points
    here, below, above = np.arange(n), np.arange(n - 1), np.arange(1, n)

    def between(values: Any) -> Any:
        return 0.5 * (values[1:] + values[:-1])

    def spread(weight: Any) -> Any:
        """phi -> (weight phi')'."""
        matrix = np.zeros((n, n))
        matrix[here, here] = -(weight[1:] + weight[:-1])
        matrix[below, above] = matrix[above, below] = weight[1:-1]
        return matrix / h**2

    def carried(weight: Any) -> Any:
        """phi -> (weight phi)'."""
        matrix = np.zeros((n, n))
        matrix[here, here] = weight[1:] - weight[:-1]
        matrix[below, above] = weight[1:-1]
        matrix[above, below] = -weight[1:-1]
        return matrix / (2.0 * h)

    square = wavenumber**2
    shear = between(density) * np.diff(velocity) / h
    left = spread(between(density * velocity)) - carried(shear) - np.diag(square * (density * velocity)[1:-1])
    right = spread(between(density)) - np.diag(square * density[1:-1])
    return float(wavenumber * np.linalg.eigvals(np.linalg.solve(right, left)).imag.max())
