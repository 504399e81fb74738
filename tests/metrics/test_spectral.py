"""Measures by band against values worked out by hand; the derivations stand in the comments."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from wellkit import metrics
from wellkit.errors import ScoreError
from wellkit.frameworks import Array

# 8 points: wavenumbers 0, pi/4, pi/2, 3 pi/4, pi. Edges: from 2 pi / 8 to pi in three equal ratios of 4^(1/3) =
# 1.587, the first set to 0: 0, 1.247, 1.979, pi. So 0 and pi/4 are low, pi/2 is middle, 3 pi/4 and pi are high.
# A wave a cos(k x) has mean square a^2 / 2, at k = 0 and pi a^2.
# y = 3 + 2 cos(pi/4 x) + cos(pi/2 x) + 2 cos(pi x): energies 9 + 2 = 11, 1/2, 4.
# x - y = 1 + 2 cos(pi/2 x) + 1/2 cos(pi x): errors 1, 4/2 = 2, 1/4.
# x = 4 + 2 cos(pi/4 x) + 3 cos(pi/2 x) + 5/2 cos(pi x): energies 16 + 2 = 18, 9/2, 25/4.
_X = np.arange(8)
TARGET = (3 + 2 * np.cos(np.pi / 4 * _X) + np.cos(np.pi / 2 * _X) + 2 * np.cos(np.pi * _X))[:, None]
PREDICTION = TARGET + (1 + 2 * np.cos(np.pi / 2 * _X) + 0.5 * np.cos(np.pi * _X))[:, None]
BY_HAND = {
    "binned_spectral_mse": (1.0, 2.0, 0.25),
    "binned_spectral_nmse": (1 / 11, 4.0, 1 / 16),
    "spectral_error": (11**-0.5, 2.0, 0.25),
    "spectral_energy_error": (7 / 11, 8.0, 9 / 16),
}
RELATIVE = tuple(name for name in BY_HAND if name != "binned_spectral_mse")
CONVERSIONS: tuple[Callable[[np.ndarray], Array], ...] = (np.asarray, torch.tensor)


@pytest.mark.parametrize("convert", CONVERSIONS)
@pytest.mark.parametrize("name", sorted(BY_HAND))
def test_values_by_hand(name: str, convert: Callable[[np.ndarray], Array]) -> None:
    found = metrics.BANDED_METRICS[name](convert(PREDICTION), convert(TARGET), n_spatial_dims=1)
    assert type(found) is type(convert(TARGET))
    assert tuple(found.shape) == (3, 1)
    np.testing.assert_allclose(np.asarray(found)[:, 0], BY_HAND[name], rtol=1e-6)


def test_every_measure_has_a_value_by_hand() -> None:
    assert set(metrics.BANDED_METRICS) == set(BY_HAND)
    assert len(metrics.BANDS) == 3


@pytest.mark.parametrize("convert", CONVERSIONS)
@pytest.mark.parametrize("compat", [None, "the_well"])
@pytest.mark.parametrize("space", [(16,), (15,), (12, 9), (9, 12), (5, 6, 7), (4, 4, 4)])
def test_bands_add_up_to_the_squared_error(
    space: tuple[int, ...], compat: Any, convert: Callable[[np.ndarray], Array]
) -> None:
    rng = np.random.default_rng([1, *space])
    x, y = convert(rng.normal(size=(2, *space, 3))), convert(rng.normal(size=(2, *space, 3)))
    bands = metrics.binned_spectral_mse(x, y, n_spatial_dims=len(space), compat=compat)
    assert tuple(bands.shape) == (2, 3, 3)
    whole = metrics.mse(x, y, n_spatial_dims=len(space))
    np.testing.assert_allclose(np.asarray(bands).sum(axis=-2), np.asarray(whole), rtol=1e-12)


@pytest.mark.parametrize("compat", [None, "the_well"])
def test_how_many_modes_the_bands_of_a_wide_grid_hold(compat: Any) -> None:
    # |FFT|^2 of a single 1 is 1 in every mode, so that a band's error is its count / N^2. The counts are known from
    # the_well 1.2 itself.
    x = np.zeros((512, 128, 1))
    x[3, 5] = 1.0
    found = metrics.binned_spectral_mse(x, np.zeros_like(x), n_spatial_dims=2, compat=compat)
    np.testing.assert_allclose(found[:, 0] * (512 * 128) ** 2, [37, 1988, 63511], rtol=1e-9)


def test_compat_equals_the_formulas_of_the_well() -> None:
    # Written out over the whole spectrum; on 18 x 18 points modes lie on edges of shells, to float32.
    space, eps = (18, 18), 1e-7
    rng = np.random.default_rng([2])
    x, y = rng.normal(size=(2, *space, 3)), 1e-3 * rng.normal(size=(2, *space, 3))
    frequency = 2 * np.pi * torch.fft.fftfreq(18)
    wavenumber = torch.sqrt(frequency[:, None] ** 2 + frequency[None, :] ** 2)
    edges = torch.logspace(np.log10(2 * np.pi / 18), np.log10(np.pi * np.sqrt(2) + 1e-6), 4)
    edges[0] = 0.0
    error, energy = (np.abs(np.fft.fftn(field, axes=(1, 2))) ** 2 / 18**4 for field in (x - y, y))
    inside = [((wavenumber >= low) & (wavenumber < high)).numpy() for low, high in itertools.pairwise(edges)]
    mse, true = (np.stack([part[:, band].sum(axis=1) for band in inside], axis=1) for part in (error, energy))
    found = metrics.binned_spectral_mse(x, y, n_spatial_dims=2, compat="the_well")
    np.testing.assert_allclose(found, mse, rtol=1e-9)
    found = metrics.binned_spectral_nmse(x, y, n_spatial_dims=2, eps=5.0, compat="the_well")
    np.testing.assert_allclose(found, mse / (true + eps), rtol=1e-9)
    shells = torch.linspace(0, wavenumber.max().item() + 1e-6, 4)
    spectrum = metrics.power_spectrum(x, n_spatial_dims=2, compat="the_well")
    np.testing.assert_array_equal(spectrum.edges, shells.double())
    power = np.abs(np.fft.fftn(x, axes=(1, 2))) ** 2
    for i in range(3):
        shell = power[:, ((wavenumber >= shells[i]) & (wavenumber < shells[i + 1])).numpy()]
        assert spectrum.counts[i] == shell.shape[1]
        np.testing.assert_allclose(spectrum.mean[:, i], shell.mean(axis=1), rtol=1e-8)
        np.testing.assert_allclose(spectrum.std[:, i], shell.std(axis=1), rtol=1e-8)


@pytest.mark.parametrize("convert", CONVERSIONS)
def test_spectrum_of_a_uniform_field(convert: Callable[[np.ndarray], Array]) -> None:
    # 4 x 4 points, k_i of 0, pi/2 (twice), pi: |k| is 0 once, 1.571 4 times, 2.221 4 times, pi twice, 3.512 4 times,
    # 4.443 once. A field of 2 has |FFT|^2 = (2 * 16)^2 = 1024 at k = 0 and 0 elsewhere: in the first shell of 5 modes
    # mean 1024 / 5, deviation 1024 sqrt(1/5 - 1/25) = 1024 * 0.4.
    field = convert(np.full((4, 4, 1), 2.0))
    found = metrics.power_spectrum(field, n_spatial_dims=2, bins=(0, 1.6, 3.2, 4.5))
    assert found.counts.tolist() == [5, 6, 5]
    np.testing.assert_allclose(np.asarray(found.mean)[:, 0], [204.8, 0, 0], atol=1e-12)
    np.testing.assert_allclose(np.asarray(found.std)[:, 0], [409.6, 0, 0], atol=1e-12)


def test_shells_without_modes_and_modes_without_shell() -> None:
    field = np.full((4, 4, 1), 2.0)
    found = metrics.power_spectrum(field, n_spatial_dims=2, bins=(0.5, 1.0, 1.6, 2.0))  # k = 0 is below all
    assert found.counts.tolist() == [0, 4, 0]
    np.testing.assert_array_equal(np.isnan(found.mean[:, 0]), [True, False, True])
    old = metrics.power_spectrum(field, n_spatial_dims=2, bins=(0.5, 1.0, 1.6, 2.0), compat="the_well")
    np.testing.assert_allclose(old.mean[:, 0], 0, atol=1e-12)
    assert metrics.power_spectrum(field, n_spatial_dims=2).counts.tolist() == [16]  # corner counted: its edge is closed


def test_spacing_makes_bands_of_physical_scales() -> None:
    # A wave of 2 cycles over 8 cells of length 2 along the second axis: k = 2 pi 2 / 16 = 0.785. Longest side 16,
    # corner pi sqrt(1 + 1/4) = 3.512: edges 0, 0.815, 1.692, 3.512, so it is low. Counted in cells: k = 1.571, edges 0,
    # 1.399, 2.494, 4.443: middle.
    wave = np.broadcast_to(np.cos(2 * np.pi * 2 / 8 * np.arange(8)), (8, 8))[..., None]
    zero = np.zeros_like(wave)

    def bands(**arguments: Any) -> list[float]:
        return [float(v) for v in metrics.binned_spectral_mse(wave, zero, n_spatial_dims=2, **arguments)[:, 0]]

    assert bands(spacing=(1.0, 2.0)) == pytest.approx([0.5, 0, 0], abs=1e-12)
    assert bands() == pytest.approx([0, 0.5, 0], abs=1e-12)
    assert bands(spacing=0.1) == pytest.approx(bands(), abs=1e-12)


@pytest.mark.parametrize("name", RELATIVE)
def test_eps_is_used_but_by_compat(name: str) -> None:
    measure = metrics.BANDED_METRICS[name]
    plain, damped = (measure(PREDICTION, TARGET, n_spatial_dims=1, eps=eps) for eps in (0.0, 1.0))
    assert (damped < plain).all()
    compat = [measure(PREDICTION, TARGET, n_spatial_dims=1, eps=eps, compat="the_well") for eps in (0.0, 1.0)]
    np.testing.assert_array_equal(*compat)


def test_empty_target_bands_are_decided_by_eps() -> None:
    # The target is uniform: all its energy is low. An error of mean square 1/2 in the middle over eps = 0.5 is 1.
    target = np.full((8, 1), 3.0)
    prediction = target + np.cos(np.pi / 2 * _X)[:, None]
    found = metrics.binned_spectral_nmse(prediction, target, n_spatial_dims=1, eps=0.5)
    np.testing.assert_allclose(found[:, 0], [0, 1, 0], atol=1e-12)


@pytest.mark.parametrize("convert", CONVERSIONS)
@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("name", sorted(BY_HAND))
def test_nan_stays_in_its_component(name: str, bad: float, convert: Callable[[np.ndarray], Array]) -> None:
    rng = np.random.default_rng([3])
    x, y = rng.normal(size=(2, 6, 6, 3)), rng.normal(size=(2, 6, 6, 3))
    x[1, 2, 2, 0] = bad
    found = np.asarray(metrics.BANDED_METRICS[name](convert(x), convert(y), n_spatial_dims=2))
    assert np.isnan(found[1, :, 0]).all()
    assert np.isfinite(found[0]).all()
    assert np.isfinite(found[1, :, 1:]).all()


@pytest.mark.parametrize("name", sorted(BY_HAND))
def test_numpy_values_do_not_depend_on_the_batch(name: str) -> None:
    rng = np.random.default_rng([4])
    x, y = rng.normal(size=(5, 12, 10, 3)), rng.normal(size=(5, 12, 10, 3))
    whole = metrics.BANDED_METRICS[name](x, y, n_spatial_dims=2)
    for i in range(5):
        one = metrics.BANDED_METRICS[name](np.asfortranarray(x[i]), y[i : i + 1][0], n_spatial_dims=2)
        np.testing.assert_array_equal(one, whole[i])


@pytest.mark.parametrize("name", sorted(BY_HAND))
def test_torch_measures_are_differentiable(name: str) -> None:
    x = torch.randn(2, 6, 5, 2, generator=torch.Generator().manual_seed(5), requires_grad=True)
    metrics.BANDED_METRICS[name](x, torch.zeros(2, 6, 5, 2) + 1, n_spatial_dims=2).sum().backward()
    assert x.grad is not None
    assert bool((x.grad != 0).all())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"bins": (0.0,)}, "at least two"),
        ({"bins": (1.0, 0.5)}, "rising"),
        ({"bins": (0.0, math.inf)}, "finite"),
        ({"spacing": 0.0}, "positive"),
        ({"spacing": 1.0, "compat": "the_well"}, "leave spacing out"),
        ({"compat": "other"}, "'other'"),
    ],
)
def test_unusable_arguments_are_refused(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ScoreError, match=words):
        metrics.binned_spectral_mse(PREDICTION, TARGET, n_spatial_dims=1, **arguments)


def test_grids_without_waves_are_refused() -> None:
    one = np.ones((1, 1))
    with pytest.raises(ScoreError, match="1 points is too small"):
        metrics.binned_spectral_mse(one, one, n_spatial_dims=1)
    with pytest.raises(ScoreError, match="give bins"):
        metrics.power_spectrum(np.ones((3, 3, 1)), n_spatial_dims=2)
