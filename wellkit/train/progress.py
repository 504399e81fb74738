"""How long work tells what it is doing: a callback that gets one frozen record a batch. Nothing here prints."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Progress:
    """Where training or scoring stands.

    Attributes:
        phase: "train", "valid" (after an epoch), "epoch" (an epoch is finished and saved), "one-step" or
            "rollout" (evaluation).
        done, total: batches of this phase; for "epoch" epochs, `total` None under a time budget alone.
        epoch: the current epoch, from 1; 0 in evaluation.
        fraction: share of the whole budget that is used up, 0 to 1.
        loss: what training minimizes (`TrainConfig.loss`): of the last batch ("train") or the epoch's mean
            ("epoch").
        valid_vrmse: with phase "epoch".
        learning_rate: of the last step.
        samples_per_second: windows a second in this phase.
        stall_share: share of the time spent waiting for data.
    """

    phase: Literal["train", "valid", "epoch", "one-step", "rollout"]
    done: int
    total: int | None
    epoch: int = 0
    fraction: float = 0.0
    loss: float | None = None
    valid_vrmse: float | None = None
    best: bool = False
    learning_rate: float | None = None
    samples_per_second: float = 0.0
    stall_share: float = 0.0


ProgressCallback = Callable[[Progress], None]


def silent(progress: Progress) -> None:
    """The callback that does nothing."""
