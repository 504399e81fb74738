"""Training, to be read from top to bottom: open, build, step, score, save."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from wellkit.errors import TrainingError
from wellkit.schemas.training import CheckpointRecord, TrainConfig, TrainReport
from wellkit.train.data import components, identify
from wellkit.train.energy import EnergyMeter
from wellkit.train.epochs import Clock, Epoch, diverged
from wellkit.train.models import build_model, check_model_arguments, count_parameters
from wellkit.train.predictors import Network, input_channels, normalization_of
from wellkit.train.processes import Processes, arithmetic, processes_of
from wellkit.train.progress import Progress, ProgressCallback, silent
from wellkit.train.provenance import code_version, hardware, now
from wellkit.train.resume import load_state, save_state, seed_generators
from wellkit.train.run_folder import REPORT, RunFolder, Standing
from wellkit.train.splits import Splits, open_splits
from wellkit.train.steps import Learner, learning_rate
from wellkit.train.validation import validate

__all__ = ["learning_rate", "train"]


def train(
    config: TrainConfig,
    to: str | Path,
    *,
    progress: ProgressCallback | None = None,
    overwrite: bool = False,
    resume: bool = False,
) -> TrainReport:
    """Train a model and leave a run's folder behind.

    The folder holds `config.json`, `log.jsonl` (a line an epoch), `report.json`, two checkpoints, `best` (lowest
    one-step VRMSE over every window of the validation split) and `last`, and `resume.safetensors`, the state a run
    goes on from. On one machine and number of threads, the same configuration with a budget of epochs gives the same
    weights, whether or not the run was stopped (by anything, at any moment) and resumed.

    Started several times over by `torchrun`, the processes train one model together: `batch_size` is of all of them,
    process 0 writes and tells, and every one of them returns the report.

    Args:
        config: what to do.
        to: the run's folder; made where it is missing.
        progress: called after every batch.
        overwrite: replace a run that is already there.
        resume: go on with the run that is there, from its last state; without one, begin.

    Raises:
        ConfigError: unknown model or argument, unusable device, precision or tracker, or a run to resume that was
            configured otherwise.
        WellkitError: as `WellDataset` does where data or statistics cannot be used.
        DataValueError: NaN where the card allows none.
        TrainingError: the loss, its gradient or the validation score is no longer finite, or there is a run in `to`
            already.
        StorageError: `to` cannot be written.
    """
    check_model_arguments(config.model, config.model_arguments)
    folder = RunFolder(Path(to).expanduser())
    with processes_of(config, folder.path) as processes:
        return _train(config, folder, processes, progress or silent, overwrite, resume)


def _train(
    config: TrainConfig,
    run: RunFolder,
    processes: Processes,
    tell: ProgressCallback,
    overwrite: bool,
    resume: bool,
) -> TrainReport:
    device = processes.device
    splits: Splits = processes.together(open_splits, config, device)
    metadata = splits.training.metadata
    dim_in = input_channels(config.n_steps_input, metadata.n_fields, metadata.n_constant_fields)
    model = build_model(
        config.model,
        config.model_arguments,
        dim_in=dim_in,
        dim_out=metadata.n_fields,
        spatial_resolution=metadata.spatial_resolution,
        seed=config.seed,
    ).to(device)
    parameters = count_parameters(model)
    normalization = normalization_of(splits.statistics)

    with arithmetic(config, model, device):
        stands = processes.together(lambda: run.open(config, overwrite=overwrite, resume=resume), first_only=True)
        seed_generators(config.seed, processes)
        learner = Learner(config, model, normalization, splits.allowed, processes)
        standing = Standing(data=splits.fingerprint)
        if processes.number_of_first(float(bool(stands))):
            standing = load_state(run, learner, processes, splits.fingerprint)
        else:
            save_state(run, learner, standing, processes)
        clock = Clock(
            config, splits.steps_per_epoch, standing, processes, EnergyMeter(device, processors=processes.is_first)
        )
        if processes.is_first:
            processes.start_trackers(f"{config.dataset}-{config.model}", config.to_mapping())
        if not clock.finished:
            processes.together(run.cut_log, standing.epoch, first_only=True)

        def save() -> None:
            clock.read_meter()
            save_state(run, learner, standing, processes)

        epoch = Epoch(config, splits, learner, standing, clock, processes, run, tell, save)
        while not clock.finished:
            epoch.train()

            scored = learner.average.scored()
            scores = validate(
                Network(scored, normalization, nan_fill=splits.allowed),
                splits.validation_batches,
                processes,
                allowed=splits.allowed,
                epoch=standing.epoch,
                progress=tell,
            )
            if not math.isfinite(scores.mean):
                what = f"{scores.nonfinite} validation predictions are not finite"
                raise TrainingError(diverged(what, standing, step=standing.step, rate=standing.rate, run=run))
            improved = standing.best is None or scores.mean < standing.best
            if improved:
                standing.best, standing.best_epoch = scores.mean, standing.epoch

            clock.tick()
            clock.read_meter()
            line: dict[str, Any] = {
                "epoch": standing.epoch,
                "step": standing.step,
                "train_loss": standing.loss_sum / standing.seen,
                "valid_vrmse": scores.mean,
                "valid_vrmse_per_field": dict(
                    zip(components(splits.validation), scores.vrmse.mean(axis=0).tolist(), strict=True)
                ),
                "learning_rate": standing.rate,
                "seconds": standing.seconds,
                "samples_per_second": standing.seen / standing.spent,
                "stall_share": standing.waited / standing.spent,
            }
            record = CheckpointRecord(
                schema_=CheckpointRecord.schema_name(),
                model=config.model,
                model_arguments=config.model_arguments,
                parameters=parameters,
                dim_in=dim_in,
                dim_out=metadata.n_fields,
                config=config,
                dataset=identify(splits.training, "train"),
                statistics=splits.statistics,
                epoch=standing.epoch,
                step=standing.step,
                train_loss=line["train_loss"],
                valid_vrmse=scores.mean,
                seconds=standing.seconds,
                seed=config.seed,
                code_version=code_version(),
                hardware=hardware(device),
                created=now(),
                weights_sha256="",
                targets=config.targets,
                samples_seen=standing.samples,
                stall_share=standing.stall_share,
                energy_joules=standing.joules,
                processes=processes.count,
            )
            names = ("last", "best") if improved else ("last",)
            processes.together(run.save_epoch, scored, record, names, line, first_only=True)
            processes.track({"valid_vrmse": scores.mean}, standing.step)
            standing.last = line
            if standing.batch == splits.steps_per_epoch:
                standing.next_epoch()
            save_state(run, learner, standing, processes)
            if processes.is_first:
                tell(
                    Progress(
                        "epoch",
                        line["epoch"],
                        config.epochs,
                        epoch=line["epoch"],
                        fraction=clock.fraction,
                        loss=line["train_loss"],
                        valid_vrmse=scores.mean,
                        best=improved,
                        learning_rate=line["learning_rate"],
                        samples_per_second=line["samples_per_second"],
                        stall_share=line["stall_share"],
                    )
                )

    report = TrainReport(
        schema_=TrainReport.schema_name(),
        run=str(run.path),
        dataset=config.dataset,
        model=config.model,
        parameters=parameters,
        seed=config.seed,
        epochs=standing.last["epoch"],
        steps=standing.step,
        stopped_by="epochs" if clock.epochs_done else "hours",
        best_epoch=standing.best_epoch,
        best_valid_vrmse=math.inf if standing.best is None else standing.best,
        last_valid_vrmse=standing.last["valid_vrmse"],
        last_train_loss=standing.last["train_loss"],
        seconds=standing.seconds,
        samples_per_second=standing.last["samples_per_second"],
        stall_share=standing.stall_share,
        hardware=hardware(device),
        samples_seen=standing.samples,
        energy_joules=standing.joules,
        processes=processes.count,
    )
    processes.together(run.write_json, REPORT, report.to_mapping(), first_only=True)
    return report
