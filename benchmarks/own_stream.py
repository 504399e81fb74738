"""wellkit's side of `bench_stream.py`: opens a dataset anywhere, then times batches of it, a round at a time.

    python own_stream.py '{"path": ADDRESS, "n_input": 4, "batch": 8, ...}'

Further settings: "threads" of the loader, "cache" of the dataset. Prints the seconds that opening took; then, for each
line "SEED COUNT" on standard input, the seconds that COUNT random samples took, and for "SEED COUNT digest" a hash of
their values instead.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
import warnings
from collections.abc import Sequence
from typing import Any

import h5py  # noqa: F401 - what is imported when it is needed is imported now: importing is not timed
import huggingface_hub  # noqa: F401
import numpy as np
import torch  # noqa: F401

import wellkit.readers.kernels  # noqa: F401
from wellkit import DataLoader, WellDataset

warnings.simplefilter("ignore")


class Chosen:
    """Some windows of a dataset, in a given order; else like the dataset."""

    def __init__(self, dataset: WellDataset, indices: Sequence[int]) -> None:
        self._dataset = dataset
        self._indices = indices

    def __len__(self) -> int:
        return len(self._indices)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._dataset, name)

    def __getitem__(self, number: int) -> dict[str, Any]:
        return self._dataset[self._indices[number]]

    def __getitems__(self, numbers: Sequence[int]) -> Sequence[dict[str, Any]]:
        return self._dataset.__getitems__([self._indices[number] for number in numbers])


def main(settings: dict[str, Any]) -> None:
    options = {name: settings[name] for name in ("cache",) if name in settings}
    loading = {name: settings[name] for name in ("threads", "prefetch") if name in settings}
    began = time.perf_counter()
    dataset = WellDataset(
        path=settings["path"],
        well_split_name="train",
        use_normalization=True,
        n_steps_input=settings["n_input"],
        n_steps_output=1,
        **options,
    )
    print(time.perf_counter() - began, flush=True)
    for line in sys.stdin:
        seed, count, *rest = line.split()
        indices = np.random.default_rng(int(seed)).integers(len(dataset), size=int(count)).tolist()
        digest = hashlib.sha256()
        began = time.perf_counter()
        for batch in DataLoader(Chosen(dataset, indices), settings["batch"], shuffle=False, **loading):
            if rest:
                for key in sorted(batch):
                    digest.update(batch[key].numpy())
        print(digest.hexdigest() if rest else time.perf_counter() - began, flush=True)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
