"""Where predictions come from: computed by a predictor as they are asked for, or made before and read from a folder."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from wellkit.benchmark.predictions import Predictions
from wellkit.train.data import Batch
from wellkit.train.predictors import Predictor, advance

GoOn = Callable[[int], np.ndarray]
"""The next so many steps of a rollout, (step, space..., component), float32 on the host."""


class Forecasts(Protocol):
    """Predictions in physical units for the windows and rollouts of a split.

    Attributes:
        nan_is_a_mistake: whether NaN can only mean that something is missing: of predictions on disk, which say
            infinity where a model diverged. What a model computes may be NaN, and scores infinity.
    """

    nan_is_a_mistake: bool

    def one_step(self, trajectory: int, start: int, batch: Batch) -> np.ndarray:
        """(B, space..., component): the frame after each window of a batch, whose windows follow one another.

        Args:
            trajectory: its number in the split.
            start: first frame of the first window.
            batch: the windows themselves.
        """

    def rollout(self, trajectory: int, inputs: Tensor, constants: Tensor | None) -> GoOn:
        """The rollout of one trajectory, step by step from its first on; (1, n_steps_input, space..., component) in."""


class Computed:
    """What a predictor predicts."""

    nan_is_a_mistake = False

    def __init__(self, predictor: Predictor) -> None:
        self.predictor = predictor

    @torch.inference_mode()
    def one_step(self, trajectory: int, start: int, batch: Batch) -> np.ndarray:
        return _on_host(self.predictor.predict(batch.inputs, batch.constants))

    def rollout(self, trajectory: int, inputs: Tensor, constants: Tensor | None) -> GoOn:
        window = inputs

        @torch.inference_mode()
        def go_on(steps: int) -> np.ndarray:
            nonlocal window
            states = []
            for _ in range(steps):
                state = self.predictor.predict(window, constants)
                window = advance(window, state)
                states.append(_on_host(state[0]))
            return np.stack(states)

        return go_on


class Stored:
    """What was predicted before."""

    nan_is_a_mistake = True

    def __init__(self, predictions: Predictions) -> None:
        self.predictions = predictions

    def one_step(self, trajectory: int, start: int, batch: Batch) -> np.ndarray:
        return self.predictions.one_step(trajectory, start, start + len(batch))

    def rollout(self, trajectory: int, inputs: Tensor, constants: Tensor | None) -> GoOn:
        done = 0

        def go_on(steps: int) -> np.ndarray:
            nonlocal done
            done += steps
            return self.predictions.rollout(trajectory, done - steps, done)

        return go_on


def _on_host(values: Tensor) -> np.ndarray:
    return values.detach().to("cpu", torch.float32).numpy()
