"""The Euler solver against conservation laws, exact solutions and linear theory."""

from __future__ import annotations

import numpy as np
import pytest

from tests.generation.references import riemann, shear_growth_rate
from wellkit.errors import ArgumentError, DataValueError
from wellkit.generation.euler import BoundaryKind, Euler2D, Floats, conserved

GAMMA = 5.0 / 3.0
PERIODIC: tuple[BoundaryKind, BoundaryKind] = ("periodic", "periodic")


def rough_state(nx: int, ny: int, seed: int = 0) -> Floats:
    """Blocks of different density, pressure and velocity: shocks, contacts and fans within a few steps."""
    random = np.random.default_rng([seed, 5])

    def blocks(low: float, high: float) -> Floats:
        coarse = random.uniform(low, high, (4, 4))
        return coarse[np.arange(nx)[:, None] * 4 // nx, np.arange(ny)[None, :] * 4 // ny]

    return conserved(blocks(0.1, 3.0), blocks(-1.0, 1.0), blocks(-1.0, 1.0), blocks(0.05, 2.0), GAMMA)


# 150 cells along y: two whole pieces of the kernels and a rest; 130 along y and 70 along x reach other seams.
@pytest.mark.parametrize(("nx", "ny"), [(12, 150), (70, 130), (3, 2)])
def test_mass_momentum_and_energy_are_conserved_in_a_periodic_box(nx: int, ny: int) -> None:
    gas = Euler2D(rough_state(nx, ny), spacing=(0.1, 0.07), boundaries=PERIODIC)
    before, sizes = gas.state.sum(axis=(1, 2)), np.abs(gas.state).sum(axis=(1, 2))
    start = gas.state.copy()
    gas.advance(1.0)
    assert gas.steps >= 10
    assert np.abs(gas.state - start).max() > 0.1
    assert np.abs(gas.state.sum(axis=(1, 2)) - before).max() < 1e-13 * sizes.max()


@pytest.mark.parametrize("boundaries", [("periodic", "open"), ("open", "open"), ("open", "periodic")])
def test_an_open_box_changes_by_what_flows_through_its_ends(boundaries: tuple[BoundaryKind, BoundaryKind]) -> None:
    gas = Euler2D(rough_state(20, 90), spacing=(0.1, 0.1), boundaries=boundaries)
    before, sizes = gas.state.sum(axis=(1, 2)), np.abs(gas.state).sum(axis=(1, 2))
    gas.advance(1.0)
    gained = (gas.through[:, 0] - gas.through[:, 1]).sum(axis=0)
    assert np.abs(gained).max() > 1.0  # there is something to count
    assert np.abs(gas.state.sum(axis=(1, 2)) - before - gained).max() < 1e-13 * sizes.max()


def test_a_uniform_wind_leaves_an_open_box_as_it_is() -> None:
    ones = np.ones((8, 9))
    gas = Euler2D(conserved(ones, 0.3 * ones, -0.4 * ones, ones, GAMMA), spacing=(1, 1), boundaries=("open", "open"))
    start = gas.state.copy()
    gas.advance(5.0)
    np.testing.assert_allclose(gas.state, start, rtol=0, atol=1e-14)


def sod_tube(n: int, axis: int) -> tuple[Floats, Floats]:
    """Density, velocity along the tube and pressure at time 0.2 (3, n), and the exact ones."""
    x = (np.arange(n) + 0.5) / n - 0.5
    density = np.where(x < 0, 1.0, 0.125)
    pressure = np.where(x < 0, 1.0, 0.1)

    def spread(values: Floats) -> Floats:
        return np.repeat(values[:, None], 4, axis=1) if axis == 0 else np.repeat(values[None, :], 4, axis=0)

    rest = spread(np.zeros(n))
    gas = Euler2D(
        conserved(spread(density), rest, rest, spread(pressure), 1.4),
        spacing=(1 / n, 1 / n),
        boundaries=("open", "periodic") if axis == 0 else ("periodic", "open"),
        gamma=1.4,
    )
    gas.advance(0.2)
    density, u, v, pressure = gas.primitive()[:, :, 0] if axis == 0 else gas.primitive()[:, 0, :]
    across = v if axis == 0 else u
    assert np.abs(across).max() < 1e-14
    found = np.array([density, u if axis == 0 else v, pressure])
    return found, riemann((1.0, 0.0, 1.0), (0.125, 0.0, 0.1), x / 0.2, 1.4)


def test_the_exact_riemann_solution_is_the_published_one() -> None:
    # Toro, table 4.2, test 1 (Sod): p* = 0.30313, u* = 0.92745, rho*L = 0.42632, rho*R = 0.26557.
    left, right = riemann((1.0, 0.0, 1.0), (0.125, 0.0, 0.1), np.array([0.9, 0.95]), 1.4).T
    np.testing.assert_allclose(left, [0.42632, 0.92745, 0.30313], atol=1e-5)
    np.testing.assert_allclose(right, [0.26557, 0.92745, 0.30313], atol=1e-5)


@pytest.mark.parametrize("axis", [0, 1])
def test_sod_tube(axis: int) -> None:
    found, exact = sod_tube(200, axis)
    error = np.abs(found - exact).mean(axis=1)
    # A shock and a contact, each smeared over a few of 200 cells, leave about 0.3 % of the jumps.
    assert error[0] < 0.0035
    assert error[1] < 0.006
    assert error[2] < 0.0025
    assert found[0].max() <= 1.0 + 1e-6  # no overshoot
    assert found[0].min() >= 0.125 - 1e-6


def test_sod_tube_converges_as_discontinuities_allow() -> None:
    errors = [np.abs(np.subtract(*sod_tube(n, 0))).mean() for n in (100, 400)]
    assert np.log2(errors[0] / errors[1]) / 2 > 0.8


def test_both_axes_are_treated_alike() -> None:
    along_x, along_y = sod_tube(96, 0)[0], sod_tube(96, 1)[0]
    np.testing.assert_allclose(along_x, along_y, rtol=0, atol=1e-12)


def test_a_mirrored_gas_stays_mirrored() -> None:
    state = rough_state(24, 80)
    mirrored = state[:, ::-1, ::-1] * np.array([1.0, -1.0, -1.0, 1.0])[:, None, None]
    results = []
    for start in (state, mirrored):
        gas = Euler2D(start, spacing=(0.1, 0.1), boundaries=("open", "open"))
        gas.advance(0.3)
        results.append(gas.state)
    back = results[1][:, ::-1, ::-1] * np.array([1.0, -1.0, -1.0, 1.0])[:, None, None]
    np.testing.assert_allclose(back, results[0], rtol=0, atol=1e-10)


def entropy_wave_error(n: int) -> float:
    """Mean error of the density after a smooth wave has crossed a periodic square diagonally.

    rho = 1 + 0.2 sin(2 pi (x + y - 2 t)) with u = v = p = 1 solves the equations exactly; cell means of a sine
    are the sine at cell centres times (sin(pi h) / (pi h)) for each axis.
    """
    h = 1.0 / n
    x, y = np.meshgrid((np.arange(n) + 0.5) * h, (np.arange(n) + 0.5) * h, indexing="ij")
    damping = (np.sin(np.pi * h) / (np.pi * h)) ** 2

    def exact(time: float) -> Floats:
        return np.asarray(1.0 + 0.2 * damping * np.sin(2.0 * np.pi * (x + y - 2.0 * time)))

    ones = np.ones((n, n))
    gas = Euler2D(conserved(exact(0.0), ones, ones, ones, GAMMA), spacing=(h, h), boundaries=PERIODIC)
    gas.advance(0.5)
    return float(np.abs(gas.state[0] - exact(0.5)).mean())


def test_second_order_on_a_smooth_entropy_wave() -> None:
    errors = np.array([entropy_wave_error(n) for n in (16, 32, 64, 128)])
    orders = np.log2(errors[:-1] / errors[1:])
    assert orders.min() >= 1.8
    assert errors[-1] < 2e-4


def test_linear_theory_gives_michalkes_growth_rate() -> None:
    # Michalke, JFM 19 (1964): the profile tanh(y) grows fastest at k = 0.4446, with 0.1897.
    y = np.linspace(-12.0, 12.0, 301)
    assert shear_growth_rate(y, np.tanh(y), np.ones_like(y), 0.4446) == pytest.approx(0.1897, abs=5e-4)


# Velocities low enough (Mach 0.15 and below in either gas, 0.3 in the dense gas of the last) for incompressible theory.
@pytest.mark.parametrize(("contrast", "speed"), [(1.0, 0.1), (10.0, 0.1), (100.0, 0.03)])
def test_kelvin_helmholtz_growth(contrast: float, speed: float) -> None:
    """A small wave on a tanh layer, as in the mixing layer, grows as linear theory says."""
    n, height, width = 64, 2.0, 0.08
    wavenumber = 2.0 * np.pi
    x, y = np.meshgrid((np.arange(n) + 0.5) / n, (np.arange(2 * n) + 0.5) / n - height / 2, indexing="ij")

    def upper(at: Floats) -> Floats:
        return np.asarray(0.5 * (1.0 + np.tanh(at / width)))

    fine = np.linspace(-height / 2, height / 2, 301)
    rate = shear_growth_rate(
        fine, speed * (2.0 * upper(fine) - 1.0), contrast + (1.0 - contrast) * upper(fine), wavenumber
    )
    wave = 1e-4 * np.sin(wavenumber * x) * np.exp(-wavenumber * np.abs(y))
    gas = Euler2D(
        conserved(contrast + (1.0 - contrast) * upper(y), speed * (2.0 * upper(y) - 1.0), wave, np.ones_like(x), GAMMA),
        spacing=(1 / n, 1 / n),
        boundaries=("periodic", "open"),
    )
    # The seeded wave is no eigenmode: two growth times pass before the growing one stands alone; at five it is
    # still small (e^5 * 1e-4 = 0.015 times the shape's norm), so linear.
    times, sizes = [], []
    for time in np.linspace(2.0, 5.0, 7) / rate:
        gas.advance(time - gas.time)
        mode = (gas.primitive()[2] * np.exp(-1j * wavenumber * x)).mean(axis=0)
        times.append(time)
        sizes.append(np.linalg.norm(mode))
    measured = np.polyfit(times, np.log(sizes), 1)[0]
    assert measured == pytest.approx(rate, rel=0.2)
    assert measured == pytest.approx(rate, rel=0.06)  # what this resolution has to reach


def test_near_vacuum_stays_positive() -> None:
    """Two streams apart (Toro, test 2, harder): density and pressure nearly vanish and must not become negative."""
    n = 100
    x = (np.arange(n) + 0.5) / n
    ones = np.ones((n, 4))
    u = np.where(x < 0.5, -2.2, 2.2)[:, None] * ones
    gas = Euler2D(
        conserved(ones, u, 0 * ones, 0.4 * ones, 1.4),
        spacing=(1 / n, 1 / n),
        boundaries=("open", "periodic"),
        gamma=1.4,
    )
    gas.advance(0.12)
    density, _, _, pressure = gas.primitive()
    assert 0.0 < density.min() < 0.03
    assert pressure.min() > 0.0


def test_steps_that_fail_are_repeated_and_still_conserve() -> None:
    """White noise over four orders of magnitude, Mach 30 and more: no scheme of second order survives each step."""
    random = np.random.default_rng([6, 6])
    density, pressure = (10 ** random.uniform(low, 1.0, (32, 32)) for low in (-3.0, -4.0))
    u, v = random.uniform(-3.0, 3.0, (2, 32, 32))
    gas = Euler2D(conserved(density, u, v, pressure, GAMMA), spacing=(1, 1), boundaries=PERIODIC, cfl=0.9)
    before = gas.state.sum(axis=(1, 2))
    gas.advance(3.0)
    assert gas.repeated > 10
    found = gas.primitive()
    assert min(found[0].min(), found[3].min()) > 0.0
    assert np.abs(gas.state.sum(axis=(1, 2)) - before).max() < 1e-13 * np.abs(gas.state).sum()


def test_a_lost_state_is_told() -> None:
    state = rough_state(8, 8)
    state[3, 2, 2] = -1.0
    with pytest.raises(DataValueError, match=r"lost its positive density and pressure .* smaller cfl \(now 0.8\)"):
        Euler2D(state, spacing=(1, 1), boundaries=PERIODIC).advance(0.1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"boundaries": ("periodic", "wall")}, "not two of periodic, open"),
        ({"cfl": 1.0}, "cfl=1.0 is not between 0 and 1"),
        ({"gamma": 1.0}, "gamma=1.0 has to be above 1"),
        ({"spacing": (0.0, 1.0)}, "cell sizes"),
    ],
)
def test_arguments_are_checked(change: dict[str, object], message: str) -> None:
    options: dict[str, object] = {"spacing": (1.0, 1.0), "boundaries": PERIODIC, **change}
    with pytest.raises(ArgumentError, match=message):
        Euler2D(rough_state(4, 4), **options)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match=r"shape \(4, x, y\)"):
        Euler2D(np.ones((3, 4, 4)), spacing=(1, 1), boundaries=PERIODIC)
