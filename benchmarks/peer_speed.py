"""Runs inside an environment with the_well: times its dataset or its loader, a round at a time.

    python peer_speed.py TREE N_INPUT WORKERS BATCH

Prints "ready"; then, for each line "SEED COUNT" on standard input, the seconds that COUNT random samples took.
WORKERS 0 with BATCH 1 calls the dataset itself; otherwise torch's DataLoader, its workers kept, reads the batches.
"""

from __future__ import annotations

import sys
import time
import warnings
from typing import Any

import numpy as np
import torch
from the_well.data.datasets import WellDataset
from the_well.data.normalization import ZScoreNormalization

warnings.simplefilter("ignore")


class Batches(torch.utils.data.Sampler[list[int]]):
    """The indices of the round to come."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []

    def __iter__(self) -> Any:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


def main(tree: str, n_input: int, workers: int, batch: int) -> None:
    dataset = WellDataset(
        path=f"{tree}/data/train",
        normalization_path=f"{tree}/stats.yaml",
        use_normalization=True,
        normalization_type=ZScoreNormalization,
        n_steps_input=n_input,
        n_steps_output=1,
    )
    order = Batches()
    loader: Any = None
    if workers or batch > 1:
        loader = torch.utils.data.DataLoader(
            dataset, batch_sampler=order, num_workers=workers, persistent_workers=workers > 0
        )
    print("ready", flush=True)
    for line in sys.stdin:
        seed, count = map(int, line.split())
        indices = np.random.default_rng(seed).integers(len(dataset), size=count).tolist()
        order.batches = [indices[first : first + batch] for first in range(0, count, batch)]
        began = time.perf_counter()
        for _ in loader if loader is not None else map(dataset.__getitem__, indices):
            pass
        print(time.perf_counter() - began, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
