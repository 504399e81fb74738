"""Scores of frames: float64, non-finite predictions, masked targets."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from wellkit.errors import DataValueError
from wellkit.train.scoring import score_frames


def test_frames_are_scored_in_float64() -> None:
    # y = 1000 + i/1024 over 256 points, x = y + 2^-13, all exact in float32: MSE = 2^-26; the unbiased
    # variance of the ramp i/1024, i < N, is (N^2 - 1) / 12 * N / (N - 1) / 1024^2 = N (N + 1) / 12 / 1024^2.
    y = (1000 + torch.arange(256) / 1024).reshape(1, 16, 16, 1)
    x = y + 2.0**-13
    values, bad = score_frames(x, y, n_spatial_dims=2, eps=0.0)
    assert bad == 0
    assert values[0, 0] == pytest.approx(2.0**-13 / math.sqrt(256 * 257 / 12 / 1024**2), rel=1e-12)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_prediction_that_is_not_finite_scores_infinity(value: float) -> None:
    generator = torch.Generator().manual_seed(1)
    x, y = torch.randn(2, 3, 8, 8, 2, generator=generator), torch.randn(2, 3, 8, 8, 2, generator=generator)
    x[1, 2, 3, 3, 0] = value
    values, bad = score_frames(x, y, n_spatial_dims=2, eps=1e-7)
    assert bad == 1
    assert values[1, 2, 0] == math.inf
    assert np.isfinite(np.delete(values.ravel(), 10)).all()  # entry (1, 2, 0) of (2, 3, 2)


def test_points_outside_the_domain_are_left_out() -> None:
    # Four points, one outside: y = [0, 2, 4], x = [0, 2, 1]: MSE = 9/3 = 3, variance = (4 + 0 + 4)/2 = 4.
    nan = math.nan
    y = torch.tensor([[0.0, 2.0], [4.0, nan]]).reshape(1, 2, 2, 1)
    x = torch.tensor([[0.0, 2.0], [1.0, 77.0]]).reshape(1, 2, 2, 1)
    values, bad = score_frames(x, y, n_spatial_dims=2, eps=0.0)
    assert bad == 0
    assert values[0, 0] == pytest.approx(math.sqrt(3 / 4))
    with pytest.raises(DataValueError, match="2 are needed"):
        score_frames(x, torch.full_like(y, nan), n_spatial_dims=2, eps=0.0)
