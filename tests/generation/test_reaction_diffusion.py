"""The Gray-Scott solver against exact solutions and refined runs of itself."""

from __future__ import annotations

import numpy as np
import pytest

from wellkit.errors import ArgumentError, DataValueError
from wellkit.generation.gray_scott import REGIMES, fourier_patches, gaussian_clusters
from wellkit.generation.reaction_diffusion import Floats, GrayScott2D


def beginning(n: int) -> tuple[Floats, Floats]:
    x = -1.0 + 2.0 * np.arange(n) / n
    started = gaussian_clusters(x, x, np.random.default_rng([4, 2]))
    return 1.0 - 0.5 * started, 0.5 * started


def solve(n: int, dt: float, regime: str, end: float, start: tuple[Floats, Floats] | None = None) -> Floats:
    a, b = start if start is not None else beginning(n)
    feed, kill = REGIMES[regime]
    species = GrayScott2D(a, b, feed=feed, kill=kill, lengths=(2.0, 2.0), dt=dt)
    species.advance(round(end / dt))
    assert species.time == pytest.approx(end)
    return species.concentrations()


def test_pure_diffusion_is_exact() -> None:
    # With B = 0 a wave of A - 1 decays as exp(-(delta_A k^2 + F) t), k^2 = (2 pi / 2)^2 (3^2 + 2^2), in any step.
    n, feed = 24, 0.03
    x = -1.0 + 2.0 * np.arange(n) / n
    wave = 0.3 * np.cos(np.pi * (3 * x[:, None] - 2 * x[None, :]) + 0.4)
    species = GrayScott2D(1.0 + wave, 0 * wave, feed=feed, kill=0.06, lengths=(2.0, 2.0), dt=7.0)
    species.advance(10)
    decay = np.exp(-(2e-5 * np.pi**2 * 13 + feed) * 70.0)
    a, b = species.concentrations()
    np.testing.assert_allclose(a, 1.0 + decay * wave, atol=1e-13)
    assert (b == 0).all()


def test_uniform_reaction_follows_its_equations() -> None:
    from scipy.integrate import solve_ivp

    feed, kill = REGIMES["bubbles"]

    def slope(_: float, state: Floats) -> list[float]:
        a, b = state
        return [-a * b * b + feed * (1 - a), a * b * b - (feed + kill) * b]

    exact = solve_ivp(slope, (0, 40), [0.6, 0.4], method="DOP853", rtol=1e-12, atol=1e-14).y[:, -1]
    species = GrayScott2D(np.full((8, 8), 0.6), np.full((8, 8), 0.4), feed=feed, kill=kill, lengths=(2.0, 2.0), dt=1.0)
    species.advance(40)
    np.testing.assert_allclose(species.concentrations()[:, 0, 0], exact, rtol=1e-5)


def test_fourth_order_in_time() -> None:
    start = beginning(32)
    reference = solve(32, 0.25, "spots", 40.0, start)
    errors = [np.abs(solve(32, dt, "spots", 40.0, start) - reference).max() for dt in (4.0, 2.0)]
    assert np.log2(errors[0] / errors[1]) > 3.6


@pytest.mark.parametrize("regime", list(REGIMES))
def test_the_generators_grid_and_step_agree_with_a_refined_run(regime: str) -> None:
    """128 points and step 1 against 192 points and step 0.5, where both have points; all six regimes."""
    coarse = solve(128, 1.0, regime, 60.0)[:, ::2, ::2]
    fine = solve(192, 0.5, regime, 60.0)[:, ::3, ::3]
    assert np.abs(fine[1] - beginning(192)[1][::3, ::3]).max() > 0.1  # something has happened
    assert np.sqrt(np.mean((coarse - fine) ** 2)) < 4e-3 * fine.std()


@pytest.mark.parametrize("make", [gaussian_clusters, fourier_patches])
def test_beginnings_are_periodic_fractions_that_do_not_depend_on_the_grid(make: type) -> None:
    x = -1.0 + 2.0 * np.arange(64) / 64
    started = make(x, x, np.random.default_rng([1, 2]))
    shifted = make(x + 2.0, x - 4.0, np.random.default_rng([1, 2]))
    finer = -1.0 + 2.0 * np.arange(128) / 128
    assert 0.0 <= started.min() < 0.2
    assert 0.8 < started.max() <= 1.0
    np.testing.assert_allclose(shifted, started, atol=1e-12)
    np.testing.assert_allclose(make(finer, finer, np.random.default_rng([1, 2]))[::2, ::2], started, atol=1e-12)
    assert not np.allclose(make(x, x, np.random.default_rng([1, 3])), started)


def test_bad_arguments_and_lost_solutions_are_told() -> None:
    a, b = beginning(8)
    with pytest.raises(ArgumentError, match="expected twice"):
        GrayScott2D(a, b[:4], feed=0.03, kill=0.06, lengths=(2, 2))
    with pytest.raises(ArgumentError, match="have to be positive"):
        GrayScott2D(a, b, feed=0.03, kill=0.06, lengths=(2, 2), dt=0)
    b[0, 0] = np.nan
    with pytest.raises(DataValueError, match="no longer finite"):
        GrayScott2D(a, b, feed=0.03, kill=0.06, lengths=(2, 2)).advance(1)
