"""`DeltaWellDataset`: outputs as changes from one step to the next."""

from __future__ import annotations

from typing import Any

from wellkit.datasets.well import WellDataset
from wellkit.errors import ArgumentError


class DeltaWellDataset(WellDataset):
    """As `WellDataset`, but each output step is its difference to the step before it.

    Inputs are normalized with the statistics of the fields, outputs with those of their deltas; undo the latter
    with `norm.delta_denormalize_flattened`.

    Raises:
        ArgumentError: a stride other than 1 together with normalization: the delta statistics are those of
            consecutive frames.
    """

    _delta = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.use_normalization and (self.min_dt_stride, self.max_dt_stride) != (1, 1):
            raise ArgumentError(
                f"DeltaWellDataset with strides {self.min_dt_stride} to {self.max_dt_stride} cannot be normalized: "
                "delta statistics are those of consecutive frames; use stride 1 or use_normalization=False"
            )
