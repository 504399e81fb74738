"""What can be scored, set before the data it is to predict: a checkpoint, a baseline, a function, predictions."""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wellkit.benchmark.forecasts import Computed, Forecasts, Stored
from wellkit.benchmark.predictions import Predictions, open_predictions
from wellkit.datasets.well import WellDataset
from wellkit.errors import ArgumentError, DataNotFoundError, ScoreError, TrainingError, did_you_mean
from wellkit.schemas.result import LONGEST_NAME, ScoredModel
from wellkit.schemas.training import CheckpointRecord
from wellkit.train.checkpoint import RECORD, find_checkpoint, load_model
from wellkit.train.data import components, nan_allowed, open_split, statistics_used
from wellkit.train.predictors import BASELINES, Mean, Network, Persistence, Predictor, normalization_of
from wellkit.train.pretrained import CONFIG, Pretrained, load_pretrained

DEFAULT_STEPS_INPUT = 4
_FUNCTION = re.compile(r"(?P<module>[A-Za-z_][\w.]*):(?P<name>[A-Za-z_][\w.]*)")
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")

Function = Callable[[Any, Any], Any]
Scorable = str | os.PathLike[str] | Function | Predictor


@dataclass(frozen=True)
class Contender:
    """Predictions to come, what is known of where they come from, and the split they are for.

    Attributes:
        forecasts: physical units in, physical units out.
        described: for the result.
        name, data, split: as `open_split` takes them.
        windows: the split as windows of `n_steps_input` + 1 steps, physical units.
        allowed: per channel, whether the card allows NaN.
        device: where a predictor computes.
    """

    forecasts: Forecasts
    described: ScoredModel
    name: str
    data: str | None
    split: str
    windows: WellDataset
    allowed: tuple[bool, ...]
    device: torch.device

    @property
    def n_steps_input(self) -> int:
        """True steps a prediction is made from."""
        return self.described.n_steps_input


@dataclass(frozen=True)
class Place:
    """The data somebody asked to score on, as far as they said.

    Attributes:
        dataset, data, split: see `prepare`.
        n_steps_input: of a model that can take any number.
    """

    dataset: str | None
    data: str | None
    split: str
    n_steps_input: int | None

    def named(self, what: str) -> str:
        """The dataset's name; ArgumentError where it is needed and missing."""
        if self.dataset is None:
            raise ArgumentError(f"{what} needs a dataset: dataset=NAME (--dataset NAME)")
        return self.dataset

    def with_steps(self, taken: int, what: str) -> int:
        """The input steps a model takes; ArgumentError where others were asked for."""
        if self.n_steps_input not in (None, taken):
            raise ArgumentError(f"{what}: the model takes {taken} input steps, not {self.n_steps_input}")
        return taken


def prepare(
    model: Scorable,
    *,
    data: str | Path | None = None,
    dataset: str | None = None,
    split: str = "test",
    n_steps_input: int | None = None,
    name: str | None = None,
    device: torch.device,
) -> Contender:
    """Whatever predicts, and the split it is scored on.

    Args:
        model: "persistence" or "mean"; the folder of a run (its `best` checkpoint) or checkpoint; a published
            checkpoint's folder or OWNER/NAME on the Hub; predictions; "module:function" or the function itself,
            which takes a window (B, n_steps_input, space..., channel) and constants (B, space..., constant
            channel) or None, both torch float32 in physical units, and returns the next state (B, space..., channel)
            as a tensor or an array; or an object with such a method `predict`.
        data: folder that holds `<dataset>/data/...`; None for the one a checkpoint was trained on, or for
            what was downloaded.
        dataset: its name; None for the one a checkpoint or predictions name. Others need one.
        split: train, valid or test.
        n_steps_input: of a baseline or function; 4 by default.
        name: of a function, in the result.

    Raises:
        ArgumentError: a dataset is missing, or `n_steps_input` is not what the model takes.
        TrainingError, DocumentError: a checkpoint cannot be used, or was trained on other fields.
        PredictionsError: predictions cannot be used, or are for other data.
        WellkitError: as `WellDataset` does where the data cannot be used.
    """
    place = Place(dataset, None if data is None else str(data), split, n_steps_input)
    if not isinstance(model, str | os.PathLike):
        return _function(model, name or str(getattr(model, "__name__", type(model).__name__)), place, device)
    text = os.fspath(model)
    if text in BASELINES:
        return _baseline(text, place, device)
    if _is_predictions(Path(text)):
        return _predictions(open_predictions(text), place, device)
    function = _FUNCTION.fullmatch(text)
    if function and not os.path.exists(text):
        return _function(_imported(text, function), name or text, place, device)
    if not os.path.exists(text) and isinstance(model, str):
        if "/" not in text:
            raise TrainingError(
                f"{text}: neither a baseline ({', '.join(BASELINES)}), nor predictions, nor module:function, nor the "
                f"folder of a run or checkpoint.{did_you_mean(text, BASELINES)}"
            )
        if _REPOSITORY.fullmatch(text):
            return _published(text, place, device)
    folder = find_checkpoint(text)
    if (folder / RECORD).is_file() or not (folder / CONFIG).is_file():
        return _checkpoint(folder, place, device)
    return _published(str(folder), place, device)


def _is_predictions(path: Path) -> bool:
    return path.suffix == ".zarr" or any(
        os.path.isfile(path / name) for name in ("predictions.json", "zarr.json", ".zgroup")
    )


def _checkpoint(folder: Path, place: Place, device: torch.device) -> Contender:
    network, record = load_model(folder, device)
    config = record.config
    steps = place.with_steps(config.n_steps_input, str(folder))
    name = place.dataset or config.dataset
    data = place.data if place.data is not None else config.data
    windows = open_split(name, data, place.split, n_steps_input=steps)
    _check_fits(folder, record, windows)
    allowed = nan_allowed(windows)
    described = ScoredModel(
        name=record.model,
        kind="network",
        arguments=record.model_arguments,
        parameters=record.parameters,
        n_steps_input=steps,
        seed=record.seed,
        epochs=record.epoch,
        training_seconds=record.seconds,
        samples_seen=record.samples_seen or None,
        stall_share=record.stall_share,
        energy_joules=record.energy_joules,
        training_hardware=record.hardware,
        trained_on=record.dataset,
        weights_sha256=record.weights_sha256,
        statistics_sha256=record.statistics.sha256 if record.statistics is not None else None,
        checkpoint=str(folder),
    )
    predictor = Network(network, normalization_of(record.statistics), nan_fill=allowed)
    return Contender(Computed(predictor), described, name, data, place.split, windows, allowed, device)


def _published(location: str, place: Place, device: torch.device) -> Contender:
    """A checkpoint in the layout The Well's models are published in: z-scored by the statistics beside the data."""
    loaded = load_pretrained(location, device=str(device))
    name = place.dataset or _dataset_of(location)
    described = open_split(place.named(location) if name is None else name, place.data, place.split, n_steps_input=1)
    metadata = described.metadata
    steps = place.with_steps(_steps_of(loaded, location, metadata.n_fields, metadata.n_constant_fields), location)
    windows = open_split(described.metadata.dataset_name, place.data, place.split, n_steps_input=steps, warn=False)
    normalized = open_split(
        windows.metadata.dataset_name, place.data, place.split, n_steps_input=steps, normalization="zscore", warn=False
    )
    statistics = statistics_used(normalized, "zscore")
    allowed = nan_allowed(windows)
    of_weights = ScoredModel(
        name=location.rstrip("/").rsplit("/", 1)[-1],
        kind="network",
        arguments=loaded.arguments,
        parameters=sum(parameter.numel() for parameter in loaded.model.parameters()),
        n_steps_input=steps,
        weights_sha256=loaded.weights_sha256,
        statistics_sha256=statistics.sha256 if statistics is not None else None,
        checkpoint=location if loaded.commit is None else f"{location}@{loaded.commit}",
    )
    predictor = Network(loaded.model, normalization_of(statistics), nan_fill=allowed)
    name = windows.metadata.dataset_name
    return Contender(Computed(predictor), of_weights, name, place.data, place.split, windows, allowed, device)


def _dataset_of(location: str) -> str | None:
    """The dataset a published checkpoint is named after: UNetConvNext-active_matter."""
    _, dash, dataset = location.rstrip("/").rsplit("/", 1)[-1].partition("-")
    return dataset if dash and "/" in location and not Path(location).exists() else None


def _steps_of(loaded: Pretrained, location: str, fields: int, constants: int) -> int:
    steps, rest = divmod(loaded.dim_in - constants, fields)
    if rest or steps < 1 or loaded.dim_out != fields:
        raise TrainingError(
            f"{location}: takes {loaded.dim_in} channels and gives {loaded.dim_out}; data of {fields} fields and "
            f"{constants} constant fields do not fit; name the dataset it was trained on (--dataset)"
        )
    return steps


def _predictions(predictions: Predictions, place: Place, device: torch.device) -> Contender:
    told = predictions.description
    steps = place.with_steps(told.n_steps_input, str(predictions.path))
    name = place.dataset or told.dataset
    windows = open_split(name, place.data, place.split, n_steps_input=steps)
    described = ScoredModel(
        name=told.model.name,
        kind="predictions",
        parameters=told.model.parameters or 0,
        n_steps_input=steps,
        seed=told.model.seed,
        epochs=told.model.epochs,
        training_seconds=told.model.training_seconds,
        samples_seen=told.model.samples_seen,
        predictions_sha256=predictions.sha256(),
        url=told.model.url,
    )
    forecasts = Stored(predictions)
    return Contender(forecasts, described, name, place.data, place.split, windows, nan_allowed(windows), device)


class _Wrapped:
    """A function of a user's as a predictor: what it returns is checked, and may be an array."""

    def __init__(self, function: Function, name: str) -> None:
        self._function, self._name = function, name

    def predict(self, window: Tensor, constants: Tensor | None) -> Tensor:
        # Copies in and out: a function may work in place, and may answer from one buffer again and again.
        state = self._function(window.clone(), None if constants is None else constants.clone())
        wanted = (len(window), *window.shape[2:])
        if not isinstance(state, Tensor | np.ndarray) or tuple(state.shape) != wanted:
            found = f"shape {tuple(state.shape)}" if hasattr(state, "shape") else type(state).__name__
            raise ScoreError(
                f"{self._name} returned {found}; expected a tensor or array of shape {wanted}: the next state of every "
                "window, (B, space..., channel)"
            )
        if isinstance(state, np.ndarray):
            if isinstance(state, np.ma.MaskedArray) or state.dtype.kind not in "fiub":
                raise self._unusable(f"{type(state).__name__} of {state.dtype}")
            with np.errstate(over="ignore"):  # too large for float32: infinite, and scored as such
                state = torch.from_numpy(np.array(state, np.float32, order="C"))
        elif state.is_complex() or state.layout != torch.strided:
            raise self._unusable(f"tensor of {state.dtype}, {state.layout}")
        return state.to(window, copy=True)

    def _unusable(self, found: str) -> ScoreError:
        return ScoreError(f"{self._name} returned a {found}; expected a dense tensor or array of real numbers")


def _imported(text: str, match: re.Match[str]) -> Function:
    """The function MODULE:NAME, from the folder one stands in or what is installed."""
    here = os.getcwd()
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found: Any = importlib.import_module(match["module"])
        for step in match["name"].split("."):
            found = getattr(found, step)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{match['module']}.".startswith(f"{error.name}."):
            raise  # the module is there, and what it imports is not
        raise DataNotFoundError(f"{text}: no module {error.name!r}; stand in its folder, or install it") from error
    except AttributeError as error:
        raise DataNotFoundError(f"{text}: {error}") from error
    if not callable(getattr(found, "predict", found)):
        raise ArgumentError(f"{text} is a {type(found).__name__}; name a function or an object with a method `predict`")
    return found  # type: ignore[no-any-return]


def _function(model: Any, name: str, place: Place, device: torch.device) -> Contender:
    if not (name.strip() and name.isprintable() and len(name) <= LONGEST_NAME):
        raise ArgumentError(f"name={name[:70]!r}; give one line of 1 to {LONGEST_NAME} printable characters")
    if name in BASELINES:
        raise ArgumentError(f"name={name!r} is that of a baseline; give the function another name")
    dataset = place.named(f"the function {name}")
    steps = DEFAULT_STEPS_INPUT if place.n_steps_input is None else place.n_steps_input
    windows = open_split(dataset, place.data, place.split, n_steps_input=steps)
    function = model.predict if hasattr(model, "predict") else model
    described = ScoredModel(name=name, kind="callable", n_steps_input=steps)
    forecasts = Computed(_Wrapped(function, name))
    return Contender(forecasts, described, dataset, place.data, place.split, windows, nan_allowed(windows), device)


def _baseline(model: str, place: Place, device: torch.device) -> Contender:
    dataset = place.named(f"baseline {model!r}")
    steps = DEFAULT_STEPS_INPUT if place.n_steps_input is None else place.n_steps_input
    windows = open_split(dataset, place.data, place.split, n_steps_input=steps)
    predictor: Predictor = Persistence()
    statistics = None
    if model == "mean":
        # Opened as for training: statistics that do not fit the fields are refused there, with the file's name.
        normalized = open_split(
            dataset, place.data, place.split, n_steps_input=steps, normalization="zscore", warn=False
        )
        statistics = statistics_used(normalized, "zscore")
        normalization: Any = normalization_of(statistics)
        predictor = Mean(torch.from_numpy(normalization.flattened_means["variable"]))
    described = ScoredModel(
        name=model,
        kind="baseline",
        n_steps_input=steps,
        statistics_sha256=statistics.sha256 if statistics is not None else None,
    )
    forecasts = Computed(predictor)
    return Contender(forecasts, described, dataset, place.data, place.split, windows, nan_allowed(windows), device)


def _check_fits(folder: Path, record: CheckpointRecord, windows: WellDataset) -> None:
    trained = record.dataset
    found = components(windows), components(windows, constant=True), len(windows.metadata.spatial_resolution)
    if found != (trained.fields, trained.constant_fields, len(trained.resolution)):
        raise TrainingError(
            f"{folder}: trained on {', '.join(trained.fields + trained.constant_fields)} in "
            f"{len(trained.resolution)} dimensions; {windows.data_path} holds {', '.join(found[0] + found[1])} in "
            f"{found[2]}; score it on data of the kind it was trained on"
        )
