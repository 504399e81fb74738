"""What can be scored: a checkpoint's network or a baseline, set before the data it is to predict."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from wellkit.datasets.well import WellDataset
from wellkit.errors import ArgumentError, TrainingError, did_you_mean
from wellkit.schemas.result import ScoredModel
from wellkit.schemas.training import CheckpointRecord
from wellkit.train.checkpoint import find_checkpoint, load_model
from wellkit.train.data import components, nan_allowed, open_split, statistics_used
from wellkit.train.predictors import BASELINES, Mean, Network, Persistence, Predictor, normalization_of

DEFAULT_STEPS_INPUT = 4


@dataclass(frozen=True)
class Contender:
    """A predictor, what is known about it, and the split it meets.

    Attributes:
        predictor: physical units in, physical units out.
        described: for the result.
        name, data, split: as `open_split` takes them.
        windows: the split as windows of `n_steps_input` + 1 steps, physical units.
        allowed: per channel, whether the card allows NaN.
        device: where the predictor computes.
    """

    predictor: Predictor
    described: ScoredModel
    name: str
    data: str | None
    split: str
    windows: WellDataset
    allowed: tuple[bool, ...]
    device: torch.device

    @property
    def n_steps_input(self) -> int:
        """True steps the predictor sees."""
        return self.described.n_steps_input


def prepare(
    model: str | Path,
    *,
    data: str | Path | None = None,
    dataset: str | None = None,
    split: str = "test",
    n_steps_input: int | None = None,
    device: torch.device,
) -> Contender:
    """A baseline by name, or the network of a run's or checkpoint's folder, and the split it is scored on.

    Args:
        model: "persistence", "mean", or a folder. A run's folder means its `best` checkpoint.
        data: folder that holds `<dataset>/data/...`; None for the one a checkpoint was trained on, or for
            what was downloaded.
        dataset: its name; None for the one a checkpoint was trained on. A baseline needs one.
        split: train, valid or test.
        n_steps_input: of a baseline, so that it meets the same windows as a network with as many; 4 by
            default.

    Raises:
        ArgumentError: a baseline without a dataset, or `n_steps_input` that is not the checkpoint's.
        TrainingError, DocumentError: the checkpoint cannot be used, or was trained on other fields.
        WellkitError: as `WellDataset` does where the data cannot be used.
    """
    place = None if data is None else str(data)
    if str(model) in BASELINES:
        return _baseline(
            str(model), dataset, place, split, DEFAULT_STEPS_INPUT if n_steps_input is None else n_steps_input, device
        )
    if isinstance(model, str) and "/" not in model and not Path(model).exists():
        raise TrainingError(
            f"{model}: neither a baseline ({', '.join(BASELINES)}) nor the folder of a run or checkpoint."
            f"{did_you_mean(model, BASELINES)}"
        )
    folder = find_checkpoint(model)
    network, record = load_model(folder, device)
    config = record.config
    if n_steps_input not in (None, config.n_steps_input):
        raise ArgumentError(f"{folder}: the model takes {config.n_steps_input} input steps, not {n_steps_input}")
    name = dataset or config.dataset
    place = place if place is not None else config.data
    windows = open_split(name, place, split, n_steps_input=config.n_steps_input)
    _check_fits(folder, record, windows)
    allowed = nan_allowed(windows)
    described = ScoredModel(
        name=record.model,
        kind="network",
        arguments=record.model_arguments,
        parameters=record.parameters,
        n_steps_input=config.n_steps_input,
        seed=record.seed,
        epochs=record.epoch,
        training_seconds=record.seconds,
        trained_on=record.dataset,
        weights_sha256=record.weights_sha256,
        statistics_sha256=record.statistics.sha256 if record.statistics is not None else None,
        checkpoint=str(folder),
    )
    predictor = Network(network, normalization_of(record.statistics), nan_fill=allowed)
    return Contender(predictor, described, name, place, split, windows, allowed, device)


def _baseline(
    model: str, dataset: str | None, data: str | None, split: str, n_steps_input: int, device: torch.device
) -> Contender:
    if dataset is None:
        raise ArgumentError(f"baseline {model!r} needs a dataset: dataset=NAME (--dataset NAME)")
    windows = open_split(dataset, data, split, n_steps_input=n_steps_input)
    predictor: Predictor = Persistence()
    statistics = None
    if model == "mean":
        # Opened as for training: statistics that do not fit the fields are refused there, with the file's name.
        normalized = open_split(dataset, data, split, n_steps_input=n_steps_input, normalization="zscore", warn=False)
        statistics = statistics_used(normalized, "zscore")
        normalization: Any = normalization_of(statistics)
        predictor = Mean(torch.from_numpy(normalization.flattened_means["variable"]))
    described = ScoredModel(
        name=model,
        kind="baseline",
        n_steps_input=n_steps_input,
        statistics_sha256=statistics.sha256 if statistics is not None else None,
    )
    return Contender(predictor, described, dataset, data, split, windows, nan_allowed(windows), device)


def _check_fits(folder: Path, record: CheckpointRecord, windows: WellDataset) -> None:
    trained = record.dataset
    found = components(windows), components(windows, constant=True), len(windows.metadata.spatial_resolution)
    if found != (trained.fields, trained.constant_fields, len(trained.resolution)):
        raise TrainingError(
            f"{folder}: trained on {', '.join(trained.fields + trained.constant_fields)} in "
            f"{len(trained.resolution)} dimensions; {windows.data_path} holds {', '.join(found[0] + found[1])} in "
            f"{found[2]}; score it on data of the kind it was trained on"
        )
