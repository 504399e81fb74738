"""Baselines and networks behind one interface: shapes, order of channels, units."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from wellkit.normalization import RMSNormalization, ZScoreNormalization
from wellkit.train.predictors import Mean, Network, Persistence, advance, fill_nan, input_channels, next_normalized

STATISTICS = {
    "mean": {"a": 10.0, "b": [1.0, 2.0], "k": 5.0},
    "std": {"a": 2.0, "b": [4.0, 8.0], "k": 0.5},
    "rms": {"a": 10.0, "b": [4.0, 8.0], "k": 2.0},
    "mean_delta": {"a": 0.0, "b": [0.0, 0.0]},
    "std_delta": {"a": 1.0, "b": [1.0, 1.0]},
    "rms_delta": {"a": 1.0, "b": [1.0, 1.0]},
}


class Recorder(nn.Module):
    """Keeps what it is shown and answers with the given channels of it."""

    def __init__(self, answer: slice) -> None:
        super().__init__()
        self.answer = answer
        self.seen = torch.empty(0)

    def forward(self, x: Tensor) -> Tensor:
        self.seen = x
        return x[:, self.answer]


def window(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("size", [(5,), (5, 6), (5, 6, 7)])
def test_persistence_is_the_last_state(size: tuple[int, ...]) -> None:
    x = window(2, 4, *size, 3)
    assert torch.equal(Persistence().predict(x, None), x[:, 3])


@pytest.mark.parametrize("size", [(5,), (5, 6), (5, 6, 7)])
def test_mean_is_the_same_everywhere(size: tuple[int, ...]) -> None:
    predicted = Mean(torch.tensor([1.0, -2.0, 3.0])).predict(window(2, 4, *size, 3), None)
    assert predicted.shape == (2, *size, 3)
    assert torch.equal(predicted, torch.tensor([1.0, -2.0, 3.0]).expand(2, *size, 3))


def test_channels_are_steps_then_components_then_constants() -> None:
    x, constants = window(2, 2, 4, 5, 3), window(2, 4, 5, 1)
    model = Recorder(slice(3, 6))  # the components of the last step
    predicted = next_normalized(model, x, constants)
    assert model.seen.shape == (2, input_channels(2, 3, 1), 4, 5)
    for step in range(2):
        for component in range(3):
            assert torch.equal(model.seen[:, 3 * step + component], x[:, step, ..., component])
    assert torch.equal(model.seen[:, 6], constants[..., 0])
    assert torch.equal(predicted, x[:, 1])


def test_a_network_is_shown_normalized_fields_and_answers_in_physical_units() -> None:
    normalization = ZScoreNormalization(STATISTICS, ["a", "b"], ["k"])
    x = torch.tensor([14.0, 9.0, 10.0]).expand(1, 1, 2, 2, 3)  # (14-10)/2 = 2, (9-1)/4 = 2, (10-2)/8 = 1
    constants = torch.full((1, 2, 2, 1), 6.0)  # (6-5)/0.5 = 2
    model = Recorder(slice(0, 3))
    predicted = Network(model, normalization).predict(x, constants)
    assert model.seen[0, :, 0, 0].tolist() == [2.0, 2.0, 1.0, 2.0]
    torch.testing.assert_close(predicted, x[:, 0])


def test_root_mean_square_and_no_normalization() -> None:
    x = torch.tensor([20.0, 8.0, 4.0]).expand(1, 1, 2, 2, 3)
    model = Recorder(slice(0, 3))
    Network(model, RMSNormalization(STATISTICS, ["a", "b"], ["k"])).predict(x, None)
    assert model.seen[0, :, 0, 0].tolist() == [2.0, 2.0, 0.5]
    Network(model, None).predict(x, None)
    assert model.seen[0, :, 0, 0].tolist() == [20.0, 8.0, 4.0]


def test_nan_is_filled_only_where_it_is_allowed() -> None:
    x = torch.full((1, 1, 2, 2, 3), float("nan"))
    model = Recorder(slice(0, 3))
    Network(model, None, nan_fill=(False, True, False)).predict(x, None)
    assert np.isnan(model.seen[0, :, 0, 0].numpy()).tolist() == [True, False, True]
    assert float(model.seen[0, 1, 0, 0]) == 0.0
    assert fill_nan(x, None) is x


def test_a_window_advances_by_one() -> None:
    x, state = window(2, 3, 4, 1), window(2, 4, 1)
    moved = advance(x, state)
    assert torch.equal(moved[:, :2], x[:, 1:])
    assert torch.equal(moved[:, 2], state)
