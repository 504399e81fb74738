"""Whatever predicts the next state: trained networks and trivial baselines behind one interface.

A predictor takes and gives physical units, so that every one of them is scored alike and against the data as
they are stored; a network's normalization is its own business and travels with its weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from wellkit.normalization import Normalization, RMSNormalization, ZScoreNormalization
from wellkit.schemas.training import StatisticsUsed, Targets

BASELINES = ("persistence", "mean")


class Predictor(Protocol):
    """The next state from the last ones."""

    def predict(self, window: Tensor, constants: Tensor | None) -> Tensor:
        """The state one step after the window.

        Args:
            window: (B, n_steps_input, space..., channel), float32, physical units, oldest step first.
            constants: (B, space..., constant channel), or None where the dataset has none.

        Returns:
            (B, space..., channel), float32, physical units.
        """


class Persistence:
    """Nothing changes: the last state again."""

    def predict(self, window: Tensor, constants: Tensor | None) -> Tensor:
        return window[:, -1]


class Mean:
    """Always the mean of each component over the training split (all trajectories, steps and points).

    This is the constant the dataset's statistics name, not the mean of the sample at hand: it needs no input
    at all. Uniform in space, it scores a VRMSE of 1 or, where a sample's own mean is elsewhere, more.
    """

    def __init__(self, mean: Tensor) -> None:
        self.mean = mean  # (channel,)

    def predict(self, window: Tensor, constants: Tensor | None) -> Tensor:
        return self.mean.to(window).expand_as(window[:, -1])


class Increments:
    """Marks the normalization of a network that answers with the change to the next state, not with that state."""


class ZScoreIncrements(Increments, ZScoreNormalization):
    """States and changes as z-scores, each of its own statistics."""


class RMSIncrements(Increments, RMSNormalization):
    """States and changes by their root mean squares, each of its own statistics."""


class Network:
    """A network with its normalization: normalize, stack steps as channels, predict, undo.

    What it answers is undone with the statistics of what it is: a state with those of the states; a change (where
    the normalization is of `Increments`) with those of the changes, and then added to the last state as it was
    given. Where NaN marks points outside the domain (`nan_fill`, per channel), the network is shown 0 there, which
    is the mean in normalized units.
    """

    def __init__(self, model: nn.Module, normalization: Any | None, *, nan_fill: Sequence[bool] | None = None) -> None:
        self.model = model
        self.normalization = normalization
        self.nan_fill = torch.tensor(nan_fill) if nan_fill is not None and any(nan_fill) else None

    def predict(self, window: Tensor, constants: Tensor | None) -> Tensor:
        last = window[:, -1]
        if self.normalization is not None:
            window = self.normalization.normalize_flattened(window, "variable")
            if constants is not None:
                constants = self.normalization.normalize_flattened(constants, "constant")
        output = next_normalized(self.model, fill_nan(window, self.nan_fill), constants)
        if isinstance(self.normalization, Increments):
            change: Tensor = self.normalization.delta_denormalize_flattened(output, "variable")  # type: ignore[attr-defined]
            return last + change
        if self.normalization is not None:
            output = self.normalization.denormalize_flattened(output, "variable")
        return output


def fill_nan(values: Tensor, channels: Tensor | None) -> Tensor:
    """0 for NaN in the given channels (booleans along the last axis); other NaN stay."""
    if channels is None:
        return values
    return values.masked_fill(values.isnan() & channels.to(values.device), 0.0)


def next_normalized(model: nn.Module, window: Tensor, constants: Tensor | None) -> Tensor:
    """One step of a network in its own, normalized units.

    Args:
        window: (B, T, space..., C).
        constants: (B, space..., K) or None.

    Returns:
        (B, space..., C). The network sees (B, T C + K, space...): oldest step first, all components of a step
        together, constant fields last.
    """
    channels = window.movedim(-1, 2).flatten(1, 2)
    if constants is not None:
        channels = torch.cat([channels, constants.movedim(-1, 1)], dim=1)
    return model(channels).movedim(1, -1)  # type: ignore[no-any-return]


def advance(window: Tensor, state: Tensor) -> Tensor:
    """The window one step later: the oldest step out, `state` in; both axes as in `Predictor.predict`."""
    return torch.cat([window[:, 1:], state.unsqueeze(1)], dim=1)


def input_channels(n_steps_input: int, n_fields: int, n_constant_fields: int) -> int:
    """Channels a network sees: T C + K."""
    return n_steps_input * n_fields + n_constant_fields


_NORMALIZATIONS: dict[tuple[str, Targets], type[Normalization]] = {
    ("zscore", "state"): ZScoreNormalization,
    ("zscore", "delta"): ZScoreIncrements,
    ("rms", "state"): RMSNormalization,
    ("rms", "delta"): RMSIncrements,
}


def normalization_of(statistics: StatisticsUsed | None) -> Any | None:
    """The normalization that statistics stand for, of `Increments` where the model predicts changes; None for none."""
    if statistics is None:
        return None
    return _NORMALIZATIONS[statistics.kind, statistics.targets](
        statistics.values,
        list(statistics.fields),
        list(statistics.constant_fields),
        min_denom=statistics.min_denom,
    )
