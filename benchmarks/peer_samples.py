"""Runs inside an environment with the_well: writes the samples of one dataset to an .npz file.

    python peer_samples.py REQUEST.json OUT.npz

REQUEST.json: {case: {"dataset": "WellDataset" | "DeltaWellDataset", "arguments": {...},
"normalization": null | "zscore" | "rms"}}
"""

from __future__ import annotations

import json
import sys
import warnings
from typing import Any

import numpy as np
import the_well.data.datasets as datasets
from the_well.data.normalization import RMSNormalization, ZScoreNormalization

warnings.simplefilter("ignore")


def main(request_path: str, out_path: str) -> None:
    with open(request_path) as file:
        requests = json.load(file)
    arrays: dict[str, Any] = {}
    for case, request in requests.items():
        arguments = dict(request["arguments"])
        if request["normalization"]:
            arguments["normalization_type"] = {"zscore": ZScoreNormalization, "rms": RMSNormalization}[
                request["normalization"]
            ]
        dataset = getattr(datasets, request["dataset"])(**arguments)
        arrays[f"{case}|len"] = np.array(len(dataset))
        metadata = dataset.metadata
        arrays[f"{case}|metadata"] = np.array(
            json.dumps(
                {
                    key: getattr(metadata, key)
                    for key in (
                        "dataset_name",
                        "n_spatial_dims",
                        "spatial_resolution",
                        "scalar_names",
                        "constant_scalar_names",
                        "field_names",
                        "constant_field_names",
                        "n_files",
                        "n_trajectories_per_file",
                        "n_steps_per_trajectory",
                        "grid_type",
                        "n_fields",
                        "n_constant_fields",
                        "sample_shapes",
                    )
                }
                | {"boundary_condition_types": sorted(metadata.boundary_condition_types)}
            )
        )
        for index in range(len(dataset)):
            for key, value in dataset[index].items():
                arrays[f"{case}|{index}|{key}"] = value.numpy()
    np.savez(out_path, **arrays)


if __name__ == "__main__":
    main(*sys.argv[1:])
