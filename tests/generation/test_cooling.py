"""The cooling curve and its integration."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from scipy.integrate import solve_ivp

from wellkit.errors import ArgumentError
from wellkit.generation.cooling import CoolingCurve, CoolingGas2D
from wellkit.generation.euler import Floats, conserved

GAMMA = 5.0 / 3.0


def gas_at(temperature: Floats, curve: CoolingCurve, density: float = 1.0, speed: float = 0.0) -> CoolingGas2D:
    """Gas of one density; temperatures (n,) in pairs of rows."""
    row = np.repeat(temperature[None, :], 2, axis=0)
    ones = np.ones_like(row)
    return CoolingGas2D(
        conserved(density * ones, speed * ones, 0.5 * speed * ones, density * row, GAMMA),
        curve=curve,
        spacing=(1.0, 1.0),
        boundaries=("periodic", "periodic"),
        gamma=GAMMA,
    )


def temperature_of(gas: CoolingGas2D) -> Floats:
    density, _, _, pressure = gas.primitive()
    return np.asarray((pressure / density)[0])


def test_the_net_rate_is_zero_at_both_equilibria_and_above() -> None:
    curve = CoolingCurve(0.1, cold=0.01, hot=1.0)
    assert curve.rate(np.array([0.01, 1.0, 1.0001, 2.0, 100.0])).tolist() == [0.0] * 5


def test_the_shortest_cooling_time_is_t_cool_at_the_geometric_mean() -> None:
    for cold, hot in ((0.01, 1.0), (0.1, 2.5)):
        curve = CoolingCurve(0.3, cold=cold, hot=hot)
        temperature = np.geomspace(cold, hot, 20001)
        rate = curve.rate(temperature)
        assert rate.max() == pytest.approx(1 / 0.3, rel=1e-12)
        assert temperature[rate.argmax()] == pytest.approx(np.sqrt(cold * hot), rel=1e-3)
        assert rate[1:-1].min() > 0.0
        # One hump: it only grows before its top and only falls after it.
        assert (np.diff(rate)[: rate.argmax()] > 0).all()
        assert (np.diff(rate)[rate.argmax() :] < 0).all()


def test_gas_below_the_cold_equilibrium_is_heated_never_faster_than_t_cool() -> None:
    rate = CoolingCurve(0.3).rate(np.geomspace(1e-4, 0.0099, 100))
    assert rate.max() < 0.0
    assert rate.min() == pytest.approx(-1 / 0.3)


def test_cooling_steps_follow_a_refined_integration() -> None:
    curve = CoolingCurve(0.25)
    start = np.array([0.006, 0.008, 0.012, 0.03, 0.1, 0.3, 0.6, 0.9, 1.0, 1.4])

    def slope(_: float, temperature: Floats) -> Floats:
        return np.asarray(-temperature * curve.rate(temperature))

    gas = gas_at(start, curve, density=2.0, speed=0.3)
    before = gas.state.copy()
    for end in (0.05, 0.2, 1.0, 30.0):  # steps much shorter and much longer than the cooling time
        gas.cool(end - gas.time)
        gas.time = end
        exact = solve_ivp(slope, (0.0, end), start, method="DOP853", rtol=1e-11, atol=1e-14).y[:, -1]
        np.testing.assert_allclose(temperature_of(gas), exact, rtol=2e-4)
    assert (gas.state[:3] == before[:3]).all()  # neither mass nor momentum changes
    lost = before[3].sum() - gas.state[3].sum()
    assert gas.radiated == pytest.approx(lost, rel=1e-12)
    assert lost > 1.0


def test_a_gas_in_equilibrium_keeps_its_energy_to_rounding() -> None:
    gas = gas_at(np.array([0.01, 1.0, 1.0, 0.01]), CoolingCurve(1e-3))
    gas.cool(10.0)
    assert abs(gas.radiated) < 1e-14


def test_energy_is_counted_through_ends_and_radiation() -> None:
    random = np.random.default_rng([3, 1])
    ones = np.ones((16, 70))
    temperature = np.exp(random.uniform(np.log(0.01), 0.0, (4, 7)))[np.arange(16)[:, None] // 4, np.arange(70) // 10]
    gas = CoolingGas2D(
        conserved(1.0 / temperature, 0.1 * ones, -0.3 * ones, ones, GAMMA),
        curve=CoolingCurve(0.05),
        spacing=(0.1, 0.1),
        boundaries=("periodic", "open"),
        gamma=GAMMA,
    )
    before = gas.state.sum(axis=(1, 2))
    gas.advance(0.5)
    gained = (gas.through[:, 0] - gas.through[:, 1]).sum(axis=0)
    assert gas.radiated > 10.0
    gained[3] -= gas.radiated
    np.testing.assert_allclose(gas.state.sum(axis=(1, 2)), before + gained, rtol=1e-12)


def test_transport_and_cooling_together_are_second_order() -> None:
    """A smooth wave of mixed gas, carried and cooling: differences between grids fall with the square of the cell."""

    def solve(n: int) -> Floats:
        edges = np.arange(n + 1) / n
        means = 0.15 - 0.05 * np.diff(np.cos(2 * np.pi * edges)) * n / (2 * np.pi)  # of 0.15 + 0.05 sin(2 pi x)
        density = np.repeat(means[:, None], 4, axis=1)
        ones = np.ones_like(density)
        gas = CoolingGas2D(
            conserved(density, 0.2 * ones, 0 * ones, 0.02 * ones, GAMMA),
            curve=CoolingCurve(0.6),
            spacing=(1 / n, 1 / n),
            boundaries=("periodic", "periodic"),
            gamma=GAMMA,
        )
        gas.advance(0.3)
        assert gas.radiated > 0.1 * 0.02 / (GAMMA - 1.0) * density.size
        return np.asarray(gas.state[3, :, 0])

    results = [solve(n) for n in (32, 64, 128, 256)]
    changes = [np.abs(coarse - fine.reshape(-1, 2).mean(axis=1)).mean() for coarse, fine in pairwise(results)]
    assert np.log2(changes[0] / changes[1]) > 1.7
    assert np.log2(changes[1] / changes[2]) > 1.7


@pytest.mark.parametrize("values", [{"t_cool": 0.0}, {"t_cool": 1.0, "cold": 2.0}, {"t_cool": float("nan")}])
def test_a_curve_needs_numbers_that_make_sense(values: dict[str, float]) -> None:
    with pytest.raises(ArgumentError, match="a cooling curve needs"):
        CoolingCurve(**values)
