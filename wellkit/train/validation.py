"""The score training selects by: one-step VRMSE over every window of the validation split, shared among processes."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import torch

from wellkit.metrics import DEFAULT_EPS
from wellkit.train.data import Batches, check_finite
from wellkit.train.predictors import Predictor
from wellkit.train.processes import Processes
from wellkit.train.progress import Progress, ProgressCallback
from wellkit.train.scoring import WindowScores, score_frames


@torch.no_grad()
def validate(
    predictor: Predictor,
    batches: Batches,
    processes: Processes,
    *,
    allowed: Sequence[bool],
    epoch: int,
    progress: ProgressCallback,
) -> WindowScores:
    """VRMSE of every window, the same in every process and, for one batch size, for any number of them.

    Whole batches are shared out in turn, so that a window is predicted in the same company however many processes
    there are; means are taken over all windows in their order.

    Raises:
        DataValueError: NaN where the card allows none, or infinity; in every process, whichever met it.
    """
    began = time.perf_counter()
    dataset = batches.dataset
    size = batches.batch_size
    groups = [range(start, min(start + size, len(dataset))) for start in range(0, len(dataset), size)]
    own = groups[processes.number :: processes.count]
    values = np.zeros((len(dataset), dataset.metadata.n_fields), dtype=np.float64)
    nonfinite = 0

    def score() -> None:
        nonlocal nonfinite
        done = 0
        for number, batch in enumerate(batches.of_groups(own), start=1):
            check_finite(batch, dataset, allowed, split="valid")
            predicted = predictor.predict(batch.inputs, batch.constants)
            scores, bad = score_frames(
                predicted, batch.outputs[:, 0], n_spatial_dims=dataset.metadata.n_spatial_dims, eps=DEFAULT_EPS
            )
            values[list(batch.indices)] = scores
            done, nonfinite = done + len(batch), nonfinite + bad
            if processes.is_first:
                elapsed = time.perf_counter() - began
                progress(
                    Progress(
                        "valid",
                        number,
                        len(own),
                        epoch=epoch,
                        samples_per_second=done / elapsed,
                        stall_share=batches.waited / elapsed,
                    )
                )

    processes.together(score)
    if processes.count > 1:
        parts = processes.gather((values, nonfinite))
        for number, (part, _) in enumerate(parts):
            for group in groups[number :: processes.count]:
                values[group.start : group.stop] = part[group.start : group.stop]
        nonfinite = sum(count for _, count in parts)
    return WindowScores(values, nonfinite, time.perf_counter() - began)
