"""Measures against values worked out by hand; the derivations stand in the comments."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wellkit import metrics
from wellkit.errors import ScoreError
from wellkit.frameworks import Array

# One component on a 2 x 2 grid: y = [[1, 2], [3, 6]], x = [[1, 4], [3, 2]].
# x - y = [[0, 2], [0, -4]]: MSE = (0 + 4 + 0 + 16) / 4 = 5, MAE = (2 + 4) / 4 = 1.5, largest 4.
# mean(y) = 3, mean|y| = 3, mean(y^2) = (1 + 4 + 9 + 36) / 4 = 12.5.
# y' = [-2, -1, 0, 3]: sum y'^2 = 14, unbiased variance = 14 / 3.
# x' = x - 2.5 = [-1.5, 1.5, 0.5, -0.5]: sum x'^2 = 5; sum x'y' = 3 - 1.5 + 0 - 1.5 = 0, so r = 0.
TARGET = np.array([[1.0, 2.0], [3.0, 6.0]])[..., None]
PREDICTION = np.array([[1.0, 4.0], [3.0, 2.0]])[..., None]
BY_HAND = {
    "mse": 5.0,
    "rmse": 5.0**0.5,
    "mae": 1.5,
    "linf": 4.0,
    "nmae": 1.5 / 3.0,
    "nmse": 5.0 / 12.5,
    "nrmse": (5.0 / 12.5) ** 0.5,
    "vmse": 5.0 / (14.0 / 3.0),
    "vrmse": (5.0 / (14.0 / 3.0)) ** 0.5,
    "pearson_r": 0.0,
}
WITH_EPS = ("nmae", "nmse", "nrmse", "vmse", "vrmse", "pearson_r")


def as_numpy64(array: np.ndarray) -> Array:
    return array


def as_numpy32(array: np.ndarray) -> Array:
    return array.astype(np.float32)


def as_torch64(array: np.ndarray) -> Array:
    return torch.from_numpy(array)


def as_torch32(array: np.ndarray) -> Array:
    return torch.from_numpy(array).float()


@pytest.mark.parametrize("convert", [as_numpy64, as_numpy32, as_torch64, as_torch32])
@pytest.mark.parametrize("name", sorted(BY_HAND))
def test_values_by_hand(name: str, convert: Callable[[np.ndarray], Array]) -> None:
    found = metrics.METRICS[name](convert(PREDICTION), convert(TARGET), n_spatial_dims=2)
    assert tuple(found.shape) == (1,)
    assert float(found[0]) == pytest.approx(BY_HAND[name], rel=1e-6, abs=1e-7)


def test_every_measure_has_a_value_by_hand() -> None:
    assert set(metrics.METRICS) == set(BY_HAND)


@pytest.mark.parametrize("n_spatial_dims", [1, 2, 3])
@pytest.mark.parametrize("name", sorted(BY_HAND))
def test_only_space_is_reduced(name: str, n_spatial_dims: int) -> None:
    rng = np.random.default_rng([1, n_spatial_dims])
    shape = (2, 3, *(5, 4, 6)[:n_spatial_dims], 7)
    x, y = rng.normal(size=shape), rng.normal(size=shape)
    whole = metrics.METRICS[name](x, y, n_spatial_dims=n_spatial_dims)
    assert whole.shape == (2, 3, 7)
    one = metrics.METRICS[name](x[1, 2, ..., 4:5], y[1, 2, ..., 4:5], n_spatial_dims=n_spatial_dims)
    np.testing.assert_allclose(whole[1, 2, 4], one[0], rtol=1e-12)


def test_predicting_the_mean_scores_just_under_one() -> None:
    # x = mean(y) everywhere: MSE = sum y'^2 / N; var = sum y'^2 / (N - 1); the ratio is (N - 1) / N. N = 30
    # here, and eps = 1e-7 beside a variance of order 1 changes the 8th digit.
    y = np.random.default_rng([2]).normal(size=(5, 6, 2))
    x = np.broadcast_to(y.mean(axis=(0, 1), keepdims=True), y.shape)
    np.testing.assert_allclose(metrics.vrmse(x, y, n_spatial_dims=2), (29 / 30) ** 0.5, rtol=1e-6)


def test_eps_decides_on_a_uniform_target() -> None:
    # var(y) = 0, MSE = (1e-3)^2 = 1e-6: sqrt(1e-6 / 1e-7) = sqrt(10) = 3.162; with eps = 1e-2: sqrt(1e-4) =
    # 0.01.
    y = np.full((8, 8, 1), 2.0)
    assert metrics.vrmse(y + 1e-3, y, n_spatial_dims=2)[0] == pytest.approx(10**0.5, rel=1e-9)
    assert metrics.vrmse(y + 1e-3, y, n_spatial_dims=2, eps=1e-2)[0] == pytest.approx(0.01, rel=1e-9)


def test_compat_ignores_eps_as_the_well_does() -> None:
    y = np.full((8, 8, 1), 2.0)
    for name, expected in (("vrmse", 10**0.5), ("vmse", 10.0)):
        found = metrics.METRICS[name](y + 1e-3, y, n_spatial_dims=2, eps=1e-2, compat="the_well")
        assert found[0] == pytest.approx(expected, rel=1e-9)


def test_compat_correlation_with_itself() -> None:
    # Biased covariance sum y'^2 / N over unbiased variance sum y'^2 / (N - 1), plus 1e-7: for the 2 x 2
    # target 3.5 / (14 / 3 + 1e-7) = 0.75 = (N - 1) / N; without compat the correlation of a field with itself
    # is 1.
    found = metrics.pearson_r(TARGET, TARGET, n_spatial_dims=2, compat="the_well")[0]
    assert found == pytest.approx(3.5 / (14 / 3 + 1e-7), rel=1e-12)
    assert metrics.pearson_r(TARGET, TARGET, n_spatial_dims=2)[0] == pytest.approx(1.0, rel=1e-12)


@pytest.mark.parametrize("framework", [np.asarray, torch.tensor])
def test_correlation_with_a_uniform_field_is_undefined(framework: Callable[[np.ndarray], Array]) -> None:
    # The mean of 1000 times 0.1 is not exactly 0.1: what is left over must not be taken for a pattern.
    uniform, pattern = np.full((1000, 1), 0.1), np.linspace(0, 1, 1000)[:, None]
    for x, y in ((uniform, 3 * uniform), (uniform, pattern), (pattern, uniform)):
        assert math.isnan(metrics.pearson_r(framework(x), framework(y), n_spatial_dims=1)[0])


def test_compat_equals_the_formulas_of_the_well() -> None:
    # The same measures written out with torch's own reductions, as the_well 1.2 defines them, in float32.
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(2, 3, 16, 12, 4, generator=generator)
    y = 5.0 + torch.randn(2, 3, 16, 12, 4, generator=generator)
    dims, eps = (-3, -2), 1e-7
    squared = ((x - y) ** 2).mean(dims)
    variance = y.std(dims) ** 2
    flat_x, flat_y = x.flatten(-3, -2), y.flatten(-3, -2)
    covariance = ((flat_x - flat_x.mean(-2, keepdim=True)) * (flat_y - flat_y.mean(-2, keepdim=True))).mean(-2)
    expected = {
        "mse": squared,
        "rmse": squared.sqrt(),
        "mae": (x - y).abs().mean(dims),
        "linf": (x - y).abs().amax(dims),
        "nmae": (x - y).abs().mean(dims) / (y.abs().mean(dims) + eps),
        "nmse": squared / ((y**2).mean(dims) + eps),
        "nrmse": (squared / ((y**2).mean(dims) + eps)).sqrt(),
        "vmse": squared / (variance + eps),
        "vrmse": (squared / (variance + eps)).sqrt(),
        "pearson_r": covariance / (flat_x.std(-2) * flat_y.std(-2) + eps),
    }
    for name, values in expected.items():
        found = metrics.METRICS[name](x, y, n_spatial_dims=2, compat="the_well")
        torch.testing.assert_close(found, values, rtol=2e-6, atol=1e-7)
        as_arrays = metrics.METRICS[name](x.numpy(), y.numpy(), n_spatial_dims=2, compat="the_well")
        np.testing.assert_allclose(as_arrays, values.numpy(), rtol=2e-5, atol=1e-6)


def test_float32_input_is_summed_in_float64() -> None:
    # y = 1000 + ramp of height 0.01 in float32 (spacing 6.1e-5): a variance taken as E[y^2] - E[y]^2, or
    # summed in float32, is lost in the rounding of 1e6. The reference is the exact sum over the float32
    # values.
    y = (1000 + np.linspace(0, 0.01, 4096)).astype(np.float32).reshape(64, 64, 1)
    x = y + np.float32(0.001)
    exact_y = y.astype(np.longdouble).ravel()
    exact_error = (x.astype(np.longdouble).ravel() - exact_y) ** 2
    expected = np.sqrt(exact_error.mean() / (exact_y.var(ddof=1) + np.longdouble(1e-7)))
    found = metrics.vrmse(x, y, n_spatial_dims=2)
    assert found.dtype == np.float64
    assert found[0] == pytest.approx(float(expected), rel=1e-10)


def test_integers_do_not_wrap() -> None:
    y = np.array([[0, 200], [10, 250]], dtype=np.uint8)[..., None]
    x = np.array([[5, 190], [10, 255]], dtype=np.uint8)[..., None]  # errors 5, -10, 0, 5: MSE 150 / 4
    assert metrics.mse(x, y, n_spatial_dims=2)[0] == pytest.approx(37.5)
    assert float(metrics.mse(torch.from_numpy(x), torch.from_numpy(y), n_spatial_dims=2)[0]) == pytest.approx(37.5)


@pytest.mark.parametrize("convert", [as_numpy64, as_torch32])
@pytest.mark.parametrize("name", sorted(BY_HAND))
def test_nan_stays_in_its_component(name: str, convert: Callable[[np.ndarray], Array]) -> None:
    rng = np.random.default_rng([4])
    x, y = rng.normal(size=(2, 4, 4, 3)), rng.normal(size=(2, 4, 4, 3))
    x[1, 2, 2, 0] = np.nan
    found = np.asarray(metrics.METRICS[name](convert(x), convert(y), n_spatial_dims=2))
    assert np.isnan(found[1, 0])
    assert np.isfinite(np.delete(found.ravel(), 3)).all()


def test_infinite_prediction_is_an_infinite_score() -> None:
    x = PREDICTION.copy()
    x[0, 0, 0] = np.inf
    assert metrics.vrmse(x, TARGET, n_spatial_dims=2)[0] == np.inf


def test_half_precision_is_raised() -> None:
    found = metrics.mse(torch.full((4, 4, 1), 300.0).half(), torch.zeros(4, 4, 1).half(), n_spatial_dims=2)
    assert found.dtype == torch.float32
    assert float(found[0]) == 90000.0  # beyond float16's largest number


def test_torch_measures_are_differentiable() -> None:
    x = torch.zeros(4, 4, 2, requires_grad=True)
    y = torch.randn(4, 4, 2, generator=torch.Generator().manual_seed(5))
    metrics.vrmse(x, y, n_spatial_dims=2).sum().backward()
    assert x.grad is not None
    assert bool((x.grad != 0).all())


@pytest.mark.parametrize(
    ("prediction", "target", "n_spatial_dims", "words"),
    [
        (np.zeros((4, 4, 1)), np.zeros((4, 4, 2)), 2, r"\(4, 4, 1\).*\(4, 4, 2\)"),
        (np.zeros((1, 4, 4, 1)), np.zeros((4, 4, 1)), 2, "nothing is broadcast"),
        (np.zeros((4, 4)), np.zeros((4, 4)), 2, "n_spatial_dims=2"),
        (np.zeros((4, 4)), np.zeros((4, 4)), 0, "n_spatial_dims=0"),
        (np.zeros((0, 4, 1)), np.zeros((0, 4, 1)), 2, "no grid points"),
        (np.zeros((1, 1, 1)), np.zeros((1, 1, 1)), 2, "at least 2 grid points"),
        (np.zeros((2, 2, 1)), torch.zeros(2, 2, 1), 2, "numpy array, target a torch array"),
        (np.zeros((2, 2, 1), complex), np.zeros((2, 2, 1), complex), 2, "real numbers"),
    ],
)
def test_unusable_input_is_refused(prediction: Array, target: Array, n_spatial_dims: int, words: str) -> None:
    with pytest.raises(ScoreError, match=words):
        metrics.vrmse(prediction, target, n_spatial_dims=n_spatial_dims)


def test_unknown_compat_is_refused() -> None:
    with pytest.raises(ScoreError, match="'thewell'"):
        metrics.mse(TARGET, TARGET, n_spatial_dims=2, compat="thewell")  # type: ignore[arg-type]


@settings(max_examples=50, deadline=None)
@given(
    scale=st.floats(1e-3, 1e3),
    offset=st.floats(-1e3, 1e3),
    seed=st.integers(0, 2**31),
)
def test_vrmse_without_eps_knows_no_units(scale: float, offset: float, seed: int) -> None:
    rng = np.random.default_rng([seed])
    x, y = rng.normal(size=(6, 6, 1)), rng.normal(size=(6, 6, 1))
    plain = metrics.vrmse(x, y, n_spatial_dims=2, eps=0.0)
    scaled = metrics.vrmse(scale * x + offset, scale * y + offset, n_spatial_dims=2, eps=0.0)
    np.testing.assert_allclose(scaled, plain, rtol=1e-6)


@pytest.mark.parametrize("name", WITH_EPS)
def test_eps_is_used(name: str) -> None:
    plain = metrics.METRICS[name](PREDICTION + TARGET, TARGET, n_spatial_dims=2, eps=0.0)
    damped = metrics.METRICS[name](PREDICTION + TARGET, TARGET, n_spatial_dims=2, eps=1.0)
    assert abs(damped[0]) < abs(plain[0])


def test_importing_the_measures_imports_no_torch() -> None:
    code = "import sys, wellkit.metrics; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
