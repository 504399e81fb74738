"""What training minimizes: an error of the network's steps, in normalized units."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from wellkit.normalization import Normalization
from wellkit.schemas.training import Loss
from wellkit.train.data import Batch
from wellkit.train.predictors import Increments, advance, fill_nan, next_normalized

# Under this variance, in normalized units, a component of a frame is as good as flat: 1e-7 of the component's variance
# is what the scores take as eps, and entries under 100 eps are flat to them.
FLAT_VARIANCE = 1e-5


@dataclass(frozen=True)
class Units:
    """From a change that a network answers with to the next state: state = last + (output + shift) / ratio.

    States are in the normalized units of states, the output in those of changes.

    Attributes:
        ratio: (channel,) scale of states over scale of changes.
        shift: (channel,) mean change over scale of changes.
    """

    ratio: Tensor
    shift: Tensor

    @classmethod
    def of(cls, normalization: Normalization | None, device: torch.device) -> Units | None:
        """Those of a normalization of `Increments`; None for a network that answers with states."""
        if not isinstance(normalization, Increments):
            return None
        assert isinstance(normalization, Normalization)
        ratios, shifts = [], []
        for field in normalization.core_field_names:
            _, scale = normalization.affine(field)
            mean_change, scale_of_change = normalization.affine(field, delta=True)
            ratios.append(torch.as_tensor(scale / scale_of_change).flatten())
            shifts.append(torch.as_tensor(mean_change / scale_of_change).flatten())
        return cls(torch.cat(ratios).to(device), torch.cat(shifts).to(device))

    def wanted(self, last: Tensor, following: Tensor) -> Tensor:
        """What a network should answer to get from state `last` to state `following`."""
        return (following - last) * self.ratio - self.shift

    def reached(self, last: Tensor, output: Tensor) -> Tensor:
        """The state a network's answer leads to from state `last`."""
        return last + (output + self.shift) / self.ratio


def rollout_loss(
    model: nn.Module,
    batch: Batch,
    *,
    loss: Loss,
    units: Units | None,
    nan_fill: Tensor | None,
    pushforward: bool,
    precision: Callable[[], AbstractContextManager[Any]],
) -> Tensor:
    """The error of the output steps, averaged over them, the model fed its own predictions.

    The gradient goes through all steps. With `pushforward` (Brandstetter et al., arXiv 2202.03376) it is that of the
    last step alone: the steps before it run without gradients and only make the input it learns to start from. A
    network that predicts changes is compared with the change that leads from its own last state to the true next one.

    Points whose target is NaN (allowed by the card) are left out; every window weighs the same.

    Args:
        loss: "mse" is the mean squared error of what the network answers with (states or changes). "vrmse" is that of
            states over their spatial variance, the root of it, per window and component, and the mean over these.
        precision: its context is entered for every call of the model. The loss is float32 whatever it is.
    """
    window = fill_nan(batch.inputs, nan_fill)
    losses = []
    last_step = batch.outputs.shape[1] - 1
    for step in range(last_step + 1):
        silent = pushforward and step < last_step
        with torch.no_grad() if silent else nullcontext():
            with precision():
                output = next_normalized(model, window, batch.constants)
            output = output.float()
            last = window[:, -1]
            if not silent:
                following = batch.outputs[:, step]
                losses.append(_error(loss, output, last, following, units=units, masked=nan_fill is not None))
            if step < last_step:
                window = advance(window, output if units is None else units.reached(last, output))
    return losses[0] if len(losses) == 1 else torch.stack(losses).mean()


def _error(loss: Loss, output: Tensor, last: Tensor, following: Tensor, *, units: Units | None, masked: bool) -> Tensor:
    if loss == "vrmse":
        reached = output if units is None else units.reached(last, output)
        return _relative_error(reached, following, inside=~following.isnan() if masked else None)
    target = following if units is None else units.wanted(last, following)
    if not masked:
        return (output - target).square().mean()
    # NaN must be gone before the difference: its gradient would be NaN even behind a mask.
    inside = ~target.isnan()
    squared = (output - target.masked_fill(~inside, 0.0)).square().masked_fill(~inside, 0.0)
    return (squared.flatten(1).sum(1) / inside.flatten(1).sum(1).clamp(min=1)).mean()


def _relative_error(reached: Tensor, following: Tensor, *, inside: Tensor | None) -> Tensor:
    """Mean over windows and components of sqrt(mean (reached - following)^2 / variance of following).

    Args:
        reached, following: (window, x..., channel).
        inside: which points count; None for all.
    """
    space = tuple(range(1, following.ndim - 1))
    if inside is None:
        squared = (reached - following).square().mean(space)
        variance = following.var(space)
    else:
        count = inside.sum(space).clamp(min=1)
        truth = following.masked_fill(~inside, 0.0)
        squared = (reached - truth).square().masked_fill(~inside, 0.0).sum(space) / count
        mean = (truth.sum(space) / count).reshape(truth.shape[0], *(1 for _ in space), truth.shape[-1])
        variance = (truth - mean).square().masked_fill(~inside, 0.0).sum(space) / (count - 1).clamp(min=1)
    # The root has no gradient at 0, where there is nothing left to learn.
    return (squared / variance.clamp(min=FLAT_VARIANCE)).clamp(min=1e-12).sqrt().mean()
