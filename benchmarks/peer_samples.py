"""Runs inside an environment with the_well: writes the samples of one dataset to an .npz file.

    python peer_samples.py REQUEST.json OUT.npz

REQUEST.json: {case: {"dataset": "WellDataset" | "DeltaWellDataset", "arguments": {...},
"normalization": null | "zscore" | "rms", "transform": null | [class, function, arguments],
"loader": null | name of a WellDataModule's method}}
"""

from __future__ import annotations

import json
import sys
import warnings
from typing import Any

import numpy as np
import the_well.data.augmentation as augmentation
import the_well.data.datasets as datasets
import torch
from the_well.data.datamodule import WellDataModule
from the_well.data.normalization import RMSNormalization, ZScoreNormalization

warnings.simplefilter("ignore")


def transform(given: list[Any]) -> Any:
    """A transform without chance: [class, null, arguments of the class], or [class, static method, its argument]."""
    kind, function, arguments = getattr(augmentation, given[0]), given[1], given[2]
    if function is None:
        return kind(**arguments)
    argument = {int(k): v for k, v in arguments.items()} if isinstance(arguments, dict) else torch.tensor(arguments)
    return lambda data, metadata: getattr(kind, function)(data, argument)


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
        if request["transform"]:
            arguments["transform"] = transform(request["transform"])
        if request["loader"]:
            module = WellDataModule(**arguments)
            loader = getattr(module, f"{request['loader']}_dataloader")()
            dataset, samples = loader.dataset, list(loader)
        else:
            dataset = getattr(datasets, request["dataset"])(**arguments)
            samples = [dataset[index] for index in range(len(dataset))]
        arrays[f"{case}|len"] = np.array(len(samples))
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
        for index, sample in enumerate(samples):
            for key, value in sample.items():
                arrays[f"{case}|{index}|{key}"] = value.numpy()
    np.savez(out_path, **arrays)


if __name__ == "__main__":
    main(*sys.argv[1:])
