"""The two splits a training reads: what it learns from and what it is selected by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from wellkit.datasets.well import WellDataset
from wellkit.errors import ArgumentError
from wellkit.schemas.training import StatisticsUsed, TrainConfig
from wellkit.train.data import Batches, components, nan_allowed, open_split, statistics_used


@dataclass(frozen=True)
class Splits:
    """Training and validation split, opened.

    Attributes:
        training: normalized. validation: in physical units.
        allowed: per channel, whether the card allows NaN.
        steps_per_epoch: the last one may be of fewer windows.
    """

    training: WellDataset
    validation: WellDataset
    batches: Batches
    validation_batches: Batches
    statistics: StatisticsUsed | None
    allowed: tuple[bool, ...]
    steps_per_epoch: int

    @property
    def fingerprint(self) -> dict[str, Any]:
        """Enough to notice that a run would go on with other data than it began with."""
        return {
            "training_windows": len(self.training),
            "validation_windows": len(self.validation),
            "resolution": list(self.training.metadata.spatial_resolution),
            "statistics_sha256": None if self.statistics is None else self.statistics.sha256,
        }


def open_splits(config: TrainConfig, device: torch.device) -> Splits:
    """Open both splits of a configuration's dataset.

    Raises:
        WellkitError: as `WellDataset` does.
        ArgumentError: the splits hold different fields.
    """
    training = open_split(
        config.dataset,
        config.data,
        "train",
        n_steps_input=config.n_steps_input,
        n_steps_output=config.n_steps_output,
        normalization=config.normalization,
    )
    validation = open_split(config.dataset, config.data, "valid", n_steps_input=config.n_steps_input, warn=False)
    found, wanted = components(validation), components(training)
    if found != wanted:
        raise ArgumentError(
            f"{config.dataset}: train has fields {', '.join(wanted)}, valid has {', '.join(found)}; "
            "both splits must come from one dataset"
        )
    # Windows that fit through the model at once in a training step fit in validation, too.
    together = -(-config.batch_size // config.accumulate)
    return Splits(
        training=training,
        validation=validation,
        batches=Batches(training, batch_size=config.batch_size, workers=config.workers, device=device),
        validation_batches=Batches(validation, batch_size=together, workers=config.workers, device=device),
        statistics=statistics_used(training, config.normalization, targets=config.targets),
        allowed=nan_allowed(training),
        steps_per_epoch=-(-len(training) // config.batch_size),
    )
