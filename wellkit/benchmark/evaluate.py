"""One model, one split, one protocol, one result. What the protocols are: `wellkit.benchmark.protocols`."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import torch

from wellkit.benchmark.contenders import Contender, Scorable, prepare
from wellkit.benchmark.describing import axes_and_lengths, card_of
from wellkit.benchmark.forecasts import Stored
from wellkit.benchmark.predictions import PredictionsWriter, open_predictions
from wellkit.benchmark.protocols import DEFAULT_PROTOCOL, get_protocol
from wellkit.benchmark.results import load_result, save_result
from wellkit.benchmark.scoring import Scorer, shares
from wellkit.benchmark.showing import ExampleMaker
from wellkit.benchmark.tables import TrajectoryTable, summarize
from wellkit.errors import ArgumentError
from wellkit.fetch.manifest import read_manifest
from wellkit.schemas.predictions import PredictedTrajectory, PredictingModel, PredictionsDescription
from wellkit.schemas.result import DataUsed, Result, RunRecord, content_hash
from wellkit.train.data import choose_device, hash_of_statistics, identify
from wellkit.train.progress import Progress, ProgressCallback, silent
from wellkit.train.provenance import code_version, hardware, now

__all__ = ["evaluate", "evaluate_contender", "load_result", "save_result"]


@dataclass(frozen=True)
class How:
    """How an evaluation is done; of these `protocol` and `rollout_steps` alone decide what the scores are."""

    protocol: str = DEFAULT_PROTOCOL
    rollout_steps: int | None = None
    batch_size: int = 16
    workers: int = 0
    jobs: int = 1

    def check(self) -> None:
        """Raise ArgumentError for numbers that make no sense."""
        get_protocol(self.protocol)
        for name, value, least in (
            ("batch_size", self.batch_size, 1),
            ("rollout_steps", self.rollout_steps, 1),
            ("workers", self.workers, 0),
            ("jobs", self.jobs, 1),
        ):
            if value is not None and value < least:
                raise ArgumentError(f"{name}={value}; give a whole number from {least} up")


def evaluate(
    model: Scorable,
    *,
    data: str | Path | None = None,
    dataset: str | None = None,
    split: str = "test",
    protocol: str = DEFAULT_PROTOCOL,
    n_steps_input: int | None = None,
    rollout_steps: int | None = None,
    name: str | None = None,
    batch_size: int = 16,
    workers: int = 0,
    jobs: int = 1,
    device: str = "auto",
    save_predictions: str | Path | None = None,
    progress: ProgressCallback | None = None,
) -> Result:
    """Score a model, a function, or predictions.

    Memory: a batch of windows, or a piece of a rollout of at most half a GiB of fields, for each process, and 16
    bytes for each frame and component that is scored (64 with spectra).

    Args:
        model: "persistence", "mean" (the train statistics' mean of each component), the folder of a run or
            checkpoint, a published checkpoint's folder or OWNER/NAME on the Hub, predictions (`docs/predictions.md`),
            "module:function", or a function; see `wellkit.benchmark.contenders.prepare`.
        data: folder that holds `<dataset>/data/...`; None for the one a checkpoint was trained on, or for
            what was downloaded.
        dataset: its name; None for the one a checkpoint or predictions name. Others need one.
        split: train, valid or test.
        protocol: well-2024, walrus-style-1 or wellkit-1.
        n_steps_input: of a baseline or function; 4 by default.
        rollout_steps: longest rollout; None for whole trajectories. Results of another limit stand in another table.
        name: of a function, in the result.
        batch_size: windows at once; changes speed and memory, not the score: the same bits for predictions, 1e-6
            for a network, whose own arithmetic knows the batch size. Rollouts go one by one.
        workers: processes that read ahead.
        jobs: processes that score, each its trajectories; for what can be named (not for a function itself).
        device: auto, cpu, cuda, ...
        save_predictions: write everything that is predicted there, too, for others to score again.
        progress: called after every batch.

    Raises:
        ArgumentError: arguments make no sense, or the protocol does not fit the model.
        TrainingError, DocumentError: the checkpoint cannot be used.
        PredictionsError: predictions cannot be used, or are not of this data.
        DataValueError: NaN in the data where the card allows none.
        WellkitError: as `WellDataset` does where the data cannot be used.
    """
    how = How(protocol, rollout_steps, batch_size, workers, jobs)
    how.check()
    contender = prepare(
        model,
        data=data,
        dataset=dataset,
        split=split,
        n_steps_input=n_steps_input,
        name=name,
        device=choose_device(device),
    )
    return evaluate_contender(contender, how, model=model, save_predictions=save_predictions, progress=progress)


@dataclass(frozen=True)
class _Again:
    """What another process needs to prepare the same contender."""

    model: str
    data: str | None
    dataset: str
    split: str
    n_steps_input: int
    name: str | None
    device: str

    def prepare(self) -> Contender:
        return prepare(
            self.model,
            data=self.data,
            dataset=self.dataset,
            split=self.split,
            n_steps_input=self.n_steps_input,
            name=self.name,
            device=choose_device(self.device),
        )


def evaluate_contender(
    contender: Contender,
    how: How | None = None,
    *,
    model: Scorable | None = None,
    save_predictions: str | Path | None = None,
    progress: ProgressCallback | None = None,
) -> Result:
    """As `evaluate`, for what was set before a split already; `model` is what it was, for `jobs` above 1."""
    how = how or How()
    how.check()
    again = _again(contender, how, model, save_predictions)
    protocol = get_protocol(how.protocol)
    report = progress or silent
    began = time.perf_counter()
    scorer = Scorer(contender, protocol, how.rollout_steps, how.batch_size, how.workers)
    _check_predictions(scorer)
    axes, lengths = axes_and_lengths(contender.windows)
    example = ExampleMaker(0, scorer.plan.lengths[0], scorer.names, axes, lengths)
    told = _Told(report, scorer.totals, began)
    described = contender.described
    if again is not None:
        tables = _score_in_processes(scorer, how, again, example, told)
    else:
        with ExitStack() as stack:
            if save_predictions is not None:
                scorer.writer = stack.enter_context(PredictionsWriter(save_predictions, _description(scorer)))
            tables = [
                scorer.score(number, on_piece=example.see if number == 0 else None, advance=told)
                for number in range(scorer.n_trajectories)
            ]
        if save_predictions is not None:
            saved = open_predictions(save_predictions)
            described = described.model_copy(update={"predictions_sha256": saved.sha256()})
    first = scorer.plan.first_frame
    one_step, rollout, trajectories = summarize(protocol, tables, scorer.names, first_frame=first)
    seconds = time.perf_counter() - began
    return Result(
        schema_=Result.schema_name(),
        model=described,
        dataset=identify(contender.windows, contender.split),
        data=_data_used(contender, tables),
        protocol=protocol,
        rollout_limit=how.rollout_steps,
        one_step=one_step,
        rollout=rollout,
        trajectories=trajectories,
        example=example.made(),
        run=RunRecord(
            code_version=code_version(),
            hardware=hardware(contender.device),
            seconds=seconds,
            stall_share=min(1.0, scorer.waited / seconds),
            created=now(),
        ),
    ).sealed()


def _again(
    contender: Contender, how: How, model: Scorable | None, save_predictions: str | Path | None
) -> _Again | None:
    """What other processes prepare; None where this one does all."""
    if how.jobs == 1:
        return None
    if save_predictions is not None:
        raise ArgumentError("predictions are written by one process; leave jobs out")
    if not isinstance(model, str | os.PathLike):
        raise ArgumentError("jobs above 1 need a model that other processes can find: a folder, or module:function")
    described = contender.described
    return _Again(
        os.fspath(model),
        contender.data,
        contender.name,
        contender.split,
        described.n_steps_input,
        described.name if described.kind == "callable" else None,
        str(contender.device),
    )


class _Told:
    """Counts what is done and tells it."""

    def __init__(self, report: ProgressCallback, totals: dict[str, int], began: float) -> None:
        self._report, self._totals, self._began = report, totals, began
        self._done = dict.fromkeys(totals, 0)

    def __call__(self, phase: str, count: int) -> None:
        self._done[phase] += count
        self._report(
            Progress(
                "one-step" if phase == "one-step" else "rollout",
                self._done[phase],
                self._totals[phase],
                samples_per_second=self._done[phase] / max(time.perf_counter() - self._began, 1e-9),
            )
        )


def _score_in_processes(
    scorer: Scorer, how: How, again: _Again, example: ExampleMaker, told: _Told
) -> list[TrajectoryTable]:
    """The trajectories divided among processes; the first is scored here, for the example."""
    tables = {0: scorer.score(0, on_piece=example.see, advance=told)}
    rest = range(1, scorer.n_trajectories)
    if rest:
        # Spawned: a forked process would inherit the threads' locks of whatever framework is loaded here.
        context = multiprocessing.get_context("spawn")
        parts = [[rest[i] for i in share] for share in shares(len(rest), how.jobs)]
        with ProcessPoolExecutor(len(parts), mp_context=context) as pool:
            waiting = [pool.submit(_score_share, again, how, part) for part in parts]
            for done in as_completed(waiting):
                for number, table in done.result():
                    tables[number] = table
                    told("one-step", table.one_step.shape[1])
                    told("rollout", table.rollout.shape[1])
    return [tables[number] for number in range(scorer.n_trajectories)]


def _score_share(again: _Again, how: How, trajectories: list[int]) -> list[tuple[int, TrajectoryTable]]:
    """Runs in a process of its own."""
    torch.set_num_threads(max(1, torch.get_num_threads() // how.jobs))
    scorer = Scorer(again.prepare(), get_protocol(how.protocol), how.rollout_steps, how.batch_size, how.workers)
    return [(number, scorer.score(number)) for number in trajectories]


def _check_predictions(scorer: Scorer) -> None:
    """Refuse predictions of other data before anything is scored."""
    forecasts = scorer.contender.forecasts
    if not isinstance(forecasts, Stored):
        return
    metadata = scorer.contender.windows.metadata
    frames = [
        steps
        for steps, count in zip(metadata.n_steps_per_trajectory, metadata.n_trajectories_per_file, strict=True)
        for _ in range(count)
    ]
    forecasts.predictions.check(
        dataset_name=metadata.dataset_name,
        split=scorer.contender.split,
        fields=scorer.names,
        resolution=metadata.spatial_resolution,
        frames_per_trajectory=frames,
        n_steps_input=scorer.contender.n_steps_input,
        first_frame=scorer.plan.first_frame,
        rollout_limit=scorer.rollout_steps,
    )


def _description(scorer: Scorer) -> PredictionsDescription:
    contender, model = scorer.contender, scorer.contender.described
    return PredictionsDescription(
        schema_=PredictionsDescription.schema_name(),
        model=PredictingModel(
            name=model.name,
            parameters=model.parameters,
            seed=model.seed,
            epochs=model.epochs,
            training_seconds=model.training_seconds,
            samples_seen=model.samples_seen,
        ),
        dataset=contender.windows.metadata.dataset_name,
        split=contender.split,
        protocol=scorer.protocol.name,
        n_steps_input=contender.n_steps_input,
        first_frame=scorer.plan.first_frame,
        fields=scorer.names,
        resolution=tuple(contender.windows.metadata.spatial_resolution),
        trajectories=tuple(
            PredictedTrajectory(windows=len(scorer.windows_of(number)), rollout_steps=length)
            for number, length in enumerate(scorer.plan.lengths)
        ),
    )


def _data_used(contender: Contender, tables: list[TrajectoryTable]) -> DataUsed:
    windows = contender.windows
    version = windows.generator
    if version is None:
        card = card_of(windows.metadata.dataset_name)
        version = None if card is None else card.dataset_version
    return DataUsed(
        content_sha256=content_hash([table.content_sha256 for table in tables]),
        manifest_sha256=_manifest_hash(Path(str(windows.data_path)).parents[1]),
        statistics_sha256=hash_of_statistics(windows),
        dataset_version=version,
    )


def _manifest_hash(tree: Path) -> str | None:
    """SHA-256 over path and hash of every file of a tree's manifest; None for remote trees and those without one."""
    manifest = read_manifest(tree) if tree.is_dir() else None
    if manifest is None:
        return None
    listed = {path: file.sha256 for path, file in sorted(manifest.files.items())}
    return hashlib.sha256(json.dumps(listed, sort_keys=True).encode()).hexdigest()
