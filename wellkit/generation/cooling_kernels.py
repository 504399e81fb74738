"""Compiled kernels of radiative cooling; `wellkit.generation.radiative_layer` explains and wraps them."""

from __future__ import annotations

from math import ceil

import numpy as np

from wellkit.generation.compiling import inlined, kernel

_LONGEST = 0.25  # of the shortest cooling time: the longest substep of the cooling equation


@inlined
def _net_rate(t, cold, hot, scale):  # type: ignore[no-untyped-def]
    """-d(ln T)/dt in units of 1 / (shortest cooling time): 1 where strongest, 0 at both equilibria."""
    part = (t - cold) * (hot - t) / t * scale
    part = part if t < hot else 0.0  # above the hot equilibrium nothing cools and nothing heats
    square = min(part * part, 1.0)
    eighth = square * square * square * square
    return eighth if part > 0.0 else -eighth


@kernel
def net_rate(temperature, cold, hot):  # type: ignore[no-untyped-def]
    """`_net_rate` of an array (n,) of temperatures."""
    scale = 1.0 / (np.sqrt(hot) - np.sqrt(cold)) ** 2
    rates = np.empty_like(temperature)
    for i in range(temperature.size):
        rates[i] = _net_rate(temperature[i], cold, hot, scale)
    return rates


@kernel
def cool(state, temperature, span, gamma, cold, hot):  # type: ignore[no-untyped-def]
    """Cool `state` (4, x, y) at constant density for `span` shortest cooling times, in place.

    The temperature p / rho of each cell follows dT/dt = -T rate(T), by the classical Runge-Kutta method in
    substeps short beside the shortest cooling time.

    Args:
        temperature: float64 (2, y): room for a row before and after.

    Returns:
        Energy radiated, summed over cells.
    """
    scale = 1.0 / (np.sqrt(hot) - np.sqrt(cold)) ** 2
    n = max(1, ceil(span / _LONGEST))
    h = span / n
    total = 0.0
    for i in range(state.shape[1]):
        for j in range(state.shape[2]):
            inverse = 1.0 / state[0, i, j]
            u = state[1, i, j] * inverse
            v = state[2, i, j] * inverse
            temperature[0, j] = (gamma - 1.0) * (state[3, i, j] * inverse - 0.5 * (u * u + v * v))
            temperature[1, j] = temperature[0, j]
        for _ in range(n):
            for j in range(state.shape[2]):
                t = temperature[1, j]
                a = -t * _net_rate(t, cold, hot, scale)
                t2 = t + 0.5 * h * a
                b = -t2 * _net_rate(t2, cold, hot, scale)
                t3 = t + 0.5 * h * b
                c = -t3 * _net_rate(t3, cold, hot, scale)
                t4 = t + h * c
                d = -t4 * _net_rate(t4, cold, hot, scale)
                temperature[1, j] = t + h / 6.0 * (a + 2.0 * b + 2.0 * c + d)
        for j in range(state.shape[2]):
            lost = state[0, i, j] * (temperature[0, j] - temperature[1, j]) * (1.0 / (gamma - 1.0))
            state[3, i, j] -= lost
            temperature[0, j] = lost
        for j in range(state.shape[2]):
            total += temperature[0, j]
    return total
