"""Runs inside an environment with the_well: opens a dataset at an address, then times batches of it, a round at a time.

    python peer_stream.py ADDRESS N_INPUT WORKERS BATCH

Prints the seconds that opening took; then, for each line "SEED COUNT" on standard input, the seconds that COUNT random
samples took. WORKERS 0 and above: batches come from torch's DataLoader, its workers kept.
"""

from __future__ import annotations

import sys
import time
import warnings

import huggingface_hub  # noqa: F401 - importing is not timed
import numpy as np
import torch
from peer_speed import Batches
from the_well.data.datasets import WellDataset
from the_well.data.normalization import ZScoreNormalization

warnings.simplefilter("ignore")


def main(address: str, n_input: int, workers: int, batch: int) -> None:
    began = time.perf_counter()
    dataset = WellDataset(
        path=address,
        well_split_name="train",
        use_normalization=True,
        normalization_type=ZScoreNormalization,
        n_steps_input=n_input,
        n_steps_output=1,
    )
    print(time.perf_counter() - began, flush=True)
    order = Batches()
    # Forked children would inherit fsspec's event loop without the thread that runs it, and wait for ever.
    loader = torch.utils.data.DataLoader(
        dataset,
        batch_sampler=order,
        num_workers=workers,
        persistent_workers=workers > 0,
        multiprocessing_context="spawn" if workers else None,
    )
    for line in sys.stdin:
        seed, count = map(int, line.split())
        indices = np.random.default_rng(seed).integers(len(dataset), size=count).tolist()
        order.batches = [indices[first : first + batch] for first in range(0, count, batch)]
        began = time.perf_counter()
        for _ in loader:
            pass
        print(time.perf_counter() - began, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
