"""Runs inside an environment with the_well: scores stored one-step predictions as a hand-written script would.

    python peer_score.py TREE N_INPUT PREDICTIONS

PREDICTIONS holds one_step/NNNNNN.npy, an array a trajectory. Prints "ready"; then, for each line on standard input,
the seconds that one pass over all windows took, and the mean VRMSE it found.
"""

from __future__ import annotations

import sys
import time
import warnings
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock

import numpy as np
import torch

try:
    import matplotlib  # noqa: F401
except ImportError:  # its drawing is not timed, so nothing that draws will do
    drawing = MagicMock()
    drawing.subplots.return_value = (MagicMock(), MagicMock())
    sys.modules |= {"matplotlib": MagicMock(pyplot=drawing), "matplotlib.pyplot": drawing}
    sys.modules["matplotlib.animation"] = MagicMock()

from the_well.benchmark.metrics import VRMSE
from the_well.data.datasets import WellDataset

warnings.simplefilter("ignore")


def main(tree: str, n_input: int, predictions: str) -> None:
    dataset = WellDataset(path=f"{tree}/data/train", use_normalization=False, n_steps_input=n_input, n_steps_output=1)
    arrays = [np.load(path, mmap_mode="r") for path in sorted(Path(predictions, "one_step").glob("*.npy"))]
    fields = {0: [f"f{i}" for i in range(arrays[0].shape[-1])]}
    meta = SimpleNamespace(n_spatial_dims=2, dataset_name="d", field_names=fields, constant_field_names={})
    print("ready", flush=True)
    for _ in sys.stdin:
        began = time.perf_counter()
        scores, index = [], 0
        for array in arrays:
            for window in range(len(array)):
                target = dataset[index]["output_fields"]
                scores.append(VRMSE()(torch.from_numpy(np.array(array[window]))[None], target, meta))
                index += 1
        print(time.perf_counter() - began, float(torch.stack(scores).mean()), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
