"""Measures of trajectories and distributions against values worked out by hand."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch

from wellkit import metrics
from wellkit.errors import ScoreError
from wellkit.frameworks import Array

CONVERSIONS: tuple[Callable[[np.ndarray], Array], ...] = (np.asarray, torch.tensor)


@pytest.mark.parametrize("convert", CONVERSIONS)
def test_valid_length_ends_at_the_first_failure(convert: Callable[[np.ndarray], Array]) -> None:
    # Components: recovers after step 2 (counts 2); equal to the threshold is valid; NaN is not; fails at once; never.
    steps = [
        [0.1, 1.0, 0.1, 9.0, 0.1],
        [0.2, 1.0, 0.2, 0.1, 0.2],
        [1.5, 1.0, math.nan, 0.1, 0.3],
        [0.3, 1.1, 0.1, 0.1, 0.4],
    ]
    found = metrics.valid_rollout_length(convert(np.array(steps)))
    assert found.tolist() == [2, 3, 2, 0, 4]


def test_valid_length_of_correlations_and_of_shorter_rollouts() -> None:
    scores = np.array([[[0.99], [0.85], [0.8], [0.79]], [[1.0], [0.9], [math.nan], [math.nan]]])
    found = metrics.valid_rollout_length(scores, threshold=metrics.CORRELATION_THRESHOLD, higher_is_better=True)
    assert found.tolist() == [[3], [2]]
    padded = np.zeros((2, 4, 1))
    assert metrics.valid_rollout_length(padded, n_steps=np.array([[4], [2]])).tolist() == [[4], [2]]
    assert metrics.valid_rollout_length(padded, n_steps=3).tolist() == [[3], [3]]


def test_valid_length_refuses_what_has_no_steps() -> None:
    with pytest.raises(ScoreError, match="step and a component axis"):
        metrics.valid_rollout_length(np.zeros(3))
    with pytest.raises(ScoreError, match="threshold=nan"):
        metrics.valid_rollout_length(np.zeros((3, 1)), threshold=math.nan)


@pytest.mark.parametrize("convert", CONVERSIONS)
def test_drift_by_hand(convert: Callable[[np.ndarray], Array]) -> None:
    # Component 0, mass (1, 3), mean 2: then (2, 4), mean 3: (3 - 2) / 2 = 1/2; then (1, 1): -1/2.
    # Component 1, momentum (-1, 1), mean 0, mean of sizes 1: then (0, 1): 1/2; then (-2, 0): -1.
    # With volumes 3 : 1 mass is 6/4, then 10/4 and 1: 4/6 and -2/6; momentum -2/4, sizes 1: 1/4 and -6/4, so 3/4, -1.
    initial = np.array([[1.0, -1.0], [3.0, 1.0]])
    later = np.array([[[2.0, 0.0], [4.0, 1.0]], [[1.0, -2.0], [1.0, 0.0]]])
    found = metrics.conservation_drift(convert(later), convert(initial), n_spatial_dims=1, eps=0.0)
    np.testing.assert_allclose(np.asarray(found), [[0.5, 0.5], [-0.5, -1.0]], rtol=1e-12)
    weights = np.array([3.0, 1.0])
    found = metrics.conservation_drift(convert(later), convert(initial), n_spatial_dims=1, weights=weights, eps=0.0)
    np.testing.assert_allclose(np.asarray(found), [[4 / 6, 3 / 4], [-2 / 6, -1.0]], rtol=1e-12)


def test_small_drifts_are_not_rounded_away() -> None:
    # Every cell of about 1e4 gains exactly 2^-30: means of 1e4 are 2^-39 apart, which would be 1e-3 of the drift.
    initial = 1e4 + np.random.default_rng([1]).integers(0, 1000, size=(64, 64, 1)) / 1024
    found = metrics.conservation_drift((initial + 2.0**-30)[None], initial, n_spatial_dims=2, eps=0.0)
    assert found[0, 0] == pytest.approx(2.0**-30 / initial.mean(), rel=1e-12)


def test_drift_eps_and_nan() -> None:
    zero, one = np.zeros((4, 1)), np.ones((1, 4, 1))
    assert metrics.conservation_drift(one, zero, n_spatial_dims=1, eps=0.5)[0, 0] == 2.0
    one[0, 1] = np.nan
    assert math.isnan(metrics.conservation_drift(one, zero, n_spatial_dims=1)[0, 0])


def test_drift_refuses_shapes_and_volumes_that_do_not_fit() -> None:
    later, initial = np.ones((2, 3, 4, 1)), np.ones((2, 4, 1))
    assert metrics.conservation_drift(later, initial, n_spatial_dims=1).shape == (2, 3, 1)
    with pytest.raises(ScoreError, match="without the time axis"):
        metrics.conservation_drift(later, later, n_spatial_dims=1)
    with pytest.raises(ScoreError, match="one framework"):
        metrics.conservation_drift(later, torch.ones(2, 4, 1), n_spatial_dims=1)
    for weights in (np.ones(3), np.array([1.0, 1.0, 1.0, -1.0]), np.zeros(4), np.array([1.0, np.nan, 1.0, 1.0])):
        with pytest.raises(ScoreError, match="one volume for each cell"):
            metrics.conservation_drift(later, initial, n_spatial_dims=1, weights=weights)


@pytest.mark.parametrize("convert", CONVERSIONS)
def test_histogram_distance_by_hand(convert: Callable[[np.ndarray], Array]) -> None:
    # Two steps of two points. Sorted x: 1 2 3 4, sorted y: 1 2 2 3: distances 0 0 1 1, mean 1/2. mean(y^2) = 18/4.
    y = convert(np.array([[1.0, 2.0], [2.0, 3.0]])[..., None])
    x = convert(np.array([[2.0, 1.0], [3.0, 4.0]])[..., None])
    assert float(metrics.histogram_w1(x, y, n_spatial_dims=1, normalize=False)[0]) == pytest.approx(0.5)
    assert float(metrics.histogram_w1(x, y, n_spatial_dims=1)[0]) == pytest.approx(0.5 / 4.5**0.5, rel=1e-6)
    old = metrics.histogram_w1(x, y, n_spatial_dims=1, compat="the_well")
    assert float(old[0]) == pytest.approx(0.5 / (4.5 + 1e-7), rel=1e-12)


def test_histogram_distance_knows_no_units_but_with_compat() -> None:
    rng = np.random.default_rng([2])
    x, y = rng.normal(size=(2, 5, 8, 3)), rng.normal(size=(2, 5, 8, 3))
    plain, scaled = (metrics.histogram_w1(s * x, s * y, n_spatial_dims=1, eps=0.0) for s in (1, 10))
    assert plain.shape == (2, 3)
    np.testing.assert_allclose(scaled, plain, rtol=1e-12)
    old, old_scaled = (
        metrics.histogram_w1(s * x, s * y, n_spatial_dims=1, eps=0.0, compat="the_well") for s in (1, 10)
    )
    np.testing.assert_allclose(old_scaled, old / 10, rtol=1e-12)
    x[1, 2, 3, 0] = np.nan
    assert np.isnan(metrics.histogram_w1(x, y, n_spatial_dims=1)[1]).tolist() == [True, False, False]


@pytest.mark.parametrize("convert", CONVERSIONS)
def test_warping_forgives_a_delay(convert: Callable[[np.ndarray], Array]) -> None:
    # x = 0 0 1 2 3 follows y = 0 1 2 3 3 one step late: the path (0,0) (1,0) (2,1) (3,2) (4,3) (4,4) costs nothing and
    # strays 0 1 1 1 1 0, on average 4/6. Without leave to move (window 0) the costs are 0 1 1 1 0: sqrt(3/5).
    x, y = (convert(np.array(v, dtype=float).reshape(5, 1, 1)) for v in ([0, 0, 1, 2, 3], [0, 1, 2, 3, 3]))
    found = metrics.windowed_dtw(x, y, n_spatial_dims=1, normalize=False, window=1)
    assert float(found.distance[0]) == 0.0
    assert float(found.path_distortion[0]) == pytest.approx(4 / 6)
    rigid = metrics.windowed_dtw(x, y, n_spatial_dims=1, normalize=False, window=0)
    assert float(rigid.distance[0]) == pytest.approx(0.6**0.5)
    assert float(rigid.path_distortion[0]) == 0.0


def paths(steps: int, window: int) -> Iterator[list[tuple[int, int]]]:
    """All monotone paths from corner to corner within the window."""

    def go_on(path: list[tuple[int, int]]) -> Iterator[list[tuple[int, int]]]:
        i, j = path[-1]
        if (i, j) == (steps - 1, steps - 1):
            yield path
        for cell in ((i + 1, j), (i, j + 1), (i + 1, j + 1)):
            if max(cell) < steps and abs(cell[0] - cell[1]) <= window:
                yield from go_on([*path, cell])

    yield from go_on([(0, 0)])


@pytest.mark.parametrize("window", [1, 2, 4])
def test_warping_finds_the_best_of_all_paths(window: int) -> None:
    rng = np.random.default_rng([3, window])
    x, y = rng.normal(size=(2, 5, 3, 2, 2)), rng.normal(size=(2, 5, 3, 2, 2))
    found = metrics.windowed_dtw(x, y, n_spatial_dims=2, window=window)
    unit_x, unit_y = (v / np.sqrt((v**2).mean(axis=(2, 3), keepdims=True)) for v in (x, y))
    for b in range(2):
        for c in range(2):
            totals = {
                sum(float(((unit_x[b, i, ..., c] - unit_y[b, j, ..., c]) ** 2).mean()) for i, j in path): path
                for path in paths(5, window)
            }
            best = min(totals)
            assert found.distance[b, c] == pytest.approx((best / 5) ** 0.5, rel=1e-6)
            strayed = [abs(i - j) for i, j in totals[best]]
            assert found.path_distortion[b, c] == pytest.approx(sum(strayed) / len(strayed))


def test_warping_compares_the_first_frame_and_knows_no_amplitude() -> None:
    rng = np.random.default_rng([4])
    y = rng.normal(size=(6, 8, 1))
    x = y.copy()
    x[0] = -x[0]
    assert metrics.windowed_dtw(x, y, n_spatial_dims=1).distance[0] > 0.1
    assert metrics.windowed_dtw(x, y, n_spatial_dims=1, compat="the_well").distance[0] == 0.0  # its step 0 is free
    assert metrics.windowed_dtw(7 * y, y, n_spatial_dims=1).distance[0] < 1e-6


def test_compat_warping_equals_the_formulas_of_the_well() -> None:
    rng = np.random.default_rng([5])
    steps, window, eps = 7, 2, 1e-7
    x, y = rng.normal(size=(steps, 4, 2)), rng.normal(size=(steps, 4, 2))
    found = metrics.windowed_dtw(x, y, n_spatial_dims=1, window=window, compat="the_well")
    unit_x, unit_y = (v / (np.sqrt((v**2).sum(axis=-1, keepdims=True)) + eps) for v in (x, y))
    for c in range(2):
        table = [[1e12] * steps for _ in range(steps)]
        table[0][0] = 0.0
        for i in range(1, steps):
            for j in range(max(1, i - window), min(steps, i + window)):
                cost = float(((unit_x[i, :, c] - unit_y[j, :, c]) ** 2).mean())
                table[i][j] = cost + min(table[i - 1][j], table[i][j - 1], table[i - 1][j - 1])
        assert found.distance[c] == pytest.approx((table[-1][-1] / steps) ** 0.5, rel=1e-9)
        lowest = [min(range(steps), key=lambda i, j=j: table[i][j]) for j in range(steps)]  # type: ignore[misc]
        assert found.path_distortion[c] == pytest.approx(np.mean([abs(i - j) for j, i in enumerate(lowest)]))


def test_warping_nan_and_refusals() -> None:
    x = np.random.default_rng([6]).normal(size=(5, 4, 2))
    y = x.copy()
    y[2, 1, 0] = np.nan
    found = metrics.windowed_dtw(x, y, n_spatial_dims=1)
    for values in found:
        assert np.isnan(values).tolist() == [True, False]
    with pytest.raises(ScoreError, match="window=-1"):
        metrics.windowed_dtw(x, x, n_spatial_dims=1, window=-1)
    with pytest.raises(ScoreError, match="no time axis"):
        metrics.windowed_dtw(x, x, n_spatial_dims=2)


def test_histograms_say_what_is_out_of_range() -> None:
    # Target 0..4 and a NaN; 2 bins: [0, 2) and [2, 4], widths 2: 2 and 3 of 5 values, densities 0.2 and 0.3.
    # Prediction -1, 0, 1, 4, 9, inf: of 6 values 2 and 1 in the bins, densities 2/12 and 1/12.
    target = np.array([0.0, 1.0, 2.0, 3.0, 4.0, np.nan])[:, None]
    prediction = np.array([-1.0, 0.0, 1.0, 4.0, 9.0, np.inf])[:, None]
    for x, y in ((prediction, target), (torch.tensor(prediction), torch.tensor(target))):
        (found,) = metrics.field_histograms(x, y, bins=2)
        np.testing.assert_allclose(found.edges, [0, 2, 4])
        np.testing.assert_allclose(found.target, [0.2, 0.3])
        np.testing.assert_allclose(found.prediction, [2 / 12, 1 / 12])
        assert (found.below, found.above, found.nonfinite, found.outside) == (1, 1, 1, 1)
    # the_well: NaN is 1000, so the bins are [0, 500) and [500, 1000]; infinity, 10000, is dropped with -1; the 4 left
    # are all in the first bin.
    (old,) = metrics.field_histograms(prediction, target, bins=2, compat="the_well")
    np.testing.assert_allclose(old.edges, [0, 500, 1000])
    np.testing.assert_allclose(old.target, [5 / 6 / 500, 1 / 6 / 500])
    np.testing.assert_allclose(old.prediction, [1 / 500, 0])


def test_histograms_refuse_what_has_no_range() -> None:
    nothing = np.full((3, 1), np.nan)
    with pytest.raises(ScoreError, match="no finite value"):
        metrics.field_histograms(nothing, nothing)
    with pytest.raises(ScoreError, match="bins=0"):
        metrics.field_histograms(nothing, nothing, bins=0)
    with pytest.raises(ScoreError, match=r"\(3, 1\).*\(2, 1\)"):
        metrics.field_histograms(nothing, nothing[:2])
