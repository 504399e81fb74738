"""Training, to be read from top to bottom: open, build, step, score, save."""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from wellkit.errors import ArgumentError, StorageError, TrainingError
from wellkit.metrics import DEFAULT_EPS
from wellkit.schemas.training import CheckpointRecord, TrainConfig, TrainReport
from wellkit.train.checkpoint import save_checkpoint
from wellkit.train.data import (
    Batch,
    Batches,
    check_finite,
    choose_device,
    components,
    identify,
    nan_allowed,
    open_split,
    statistics_used,
)
from wellkit.train.models import build_model, check_model_arguments, count_parameters
from wellkit.train.predictors import Network, advance, fill_nan, input_channels, next_normalized, normalization_of
from wellkit.train.progress import Progress, ProgressCallback, silent
from wellkit.train.provenance import code_version, hardware, now
from wellkit.train.scoring import score_windows

LOG = "log.jsonl"
CONFIG = "config.json"
REPORT = "report.json"


@dataclass
class _Clock:
    """What of the budget is used up."""

    config: TrainConfig
    steps_per_epoch: int
    step: int = 0
    began: float = field(default_factory=time.perf_counter)

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self.began

    @property
    def fraction(self) -> float:
        parts = [0.0]
        if self.config.epochs is not None:
            parts.append(self.step / (self.config.epochs * self.steps_per_epoch))
        if self.config.hours is not None:
            parts.append(self.seconds / (3600 * self.config.hours))
        return min(1.0, max(parts))

    @property
    def out_of_time(self) -> bool:
        return self.config.hours is not None and self.seconds >= 3600 * self.config.hours


def learning_rate(config: TrainConfig, *, step: int, steps_per_epoch: int, fraction: float) -> float:
    """Linear warm-up times a cosine that falls to 0 over the whole budget, set anew for every step.

    Args:
        step: steps taken before this one.
        fraction: share of the budget used up, 0 to 1 (of the epochs, or of the hours).
    """
    warmup = config.warmup_epochs * steps_per_epoch
    if config.epochs is not None:
        warmup = min(warmup, config.epochs * steps_per_epoch / 2)
    rise = min(1.0, (step + 1) / (warmup + 1))
    return config.learning_rate * rise * 0.5 * (1.0 + math.cos(math.pi * fraction))


def train(
    config: TrainConfig,
    to: str | Path,
    *,
    progress: ProgressCallback | None = None,
    overwrite: bool = False,
) -> TrainReport:
    """Train a model and leave a run's folder behind.

    The folder holds `config.json`, `log.jsonl` (a line an epoch), `report.json`, and two checkpoints: `best`
    (lowest one-step VRMSE over every window of the validation split) and `last`. Float32 throughout. On one
    machine and number of threads, the same configuration with a budget of epochs gives the same weights.

    Args:
        config: what to do.
        to: the run's folder; made where it is missing.
        progress: called after every batch.
        overwrite: replace a run that is already there.

    Raises:
        ConfigError: unknown model or argument, unusable device.
        WellkitError: as `WellDataset` does where data or statistics cannot be used.
        DataValueError: NaN where the card allows none.
        TrainingError: the loss or the validation score is no longer finite, or there is a run in `to`
            already.
        StorageError: `to` cannot be written.
    """
    report_progress = progress or silent
    check_model_arguments(config.model, config.model_arguments)
    device = choose_device(config.device)
    training = open_split(
        config.dataset,
        config.data,
        "train",
        n_steps_input=config.n_steps_input,
        n_steps_output=config.n_steps_output,
        normalization=config.normalization,
    )
    validation = open_split(config.dataset, config.data, "valid", n_steps_input=config.n_steps_input, warn=False)
    _check_same_fields(components(training), components(validation), config)
    statistics = statistics_used(training, config.normalization)
    allowed = nan_allowed(training)
    nan_fill = torch.tensor(allowed) if any(allowed) else None
    batches = Batches(training, batch_size=config.batch_size, workers=config.workers, device=device)
    validation_batches = Batches(validation, batch_size=config.batch_size, workers=config.workers, device=device)

    metadata = training.metadata
    dim_in = input_channels(config.n_steps_input, metadata.n_fields, metadata.n_constant_fields)
    model = build_model(
        config.model,
        config.model_arguments,
        dim_in=dim_in,
        dim_out=metadata.n_fields,
        spatial_resolution=metadata.spatial_resolution,
        seed=config.seed,
    ).to(device)
    predictor = Network(model, normalization_of(statistics), nan_fill=allowed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)

    run = _make_run_folder(Path(to).expanduser(), config, overwrite)
    clock = _Clock(config, len(batches))
    best, best_epoch, epoch = math.inf, 0, 0
    with _full_float32():
        while True:
            epoch += 1
            model.train()
            epoch_began, seen, loss_sum = time.perf_counter(), 0, 0.0
            rate = 0.0
            for number, batch in enumerate(batches.of_epoch(config.seed, epoch), start=1):
                check_finite(batch, training, allowed, split="train")
                rate = learning_rate(config, step=clock.step, steps_per_epoch=len(batches), fraction=clock.fraction)
                for group in optimizer.param_groups:
                    group["lr"] = rate
                loss = _loss(model, batch, nan_fill)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                clock.step += 1
                value = float(loss.detach())
                if not math.isfinite(value):
                    raise TrainingError(_diverged(f"the loss is {value}", epoch, clock.step, rate, run, best_epoch))
                seen, loss_sum = seen + len(batch), loss_sum + value * len(batch)
                elapsed = time.perf_counter() - epoch_began
                report_progress(
                    Progress(
                        "train",
                        number,
                        len(batches),
                        epoch=epoch,
                        fraction=clock.fraction,
                        loss=value,
                        learning_rate=rate,
                        samples_per_second=seen / elapsed,
                        stall_share=batches.waited / elapsed,
                    )
                )
                if clock.out_of_time:
                    break
            training_seconds = time.perf_counter() - epoch_began

            model.eval()
            scores = score_windows(
                predictor,
                validation_batches,
                eps=DEFAULT_EPS,
                split="valid",
                allowed=allowed,
                epoch=epoch,
                progress=report_progress,
            )
            if not math.isfinite(scores.mean):
                what = f"{scores.nonfinite} validation predictions are not finite"
                raise TrainingError(_diverged(what, epoch, clock.step, rate, run, best_epoch))

            record = CheckpointRecord(
                schema_=CheckpointRecord.schema_name(),
                model=config.model,
                model_arguments=config.model_arguments,
                parameters=count_parameters(model),
                dim_in=dim_in,
                dim_out=metadata.n_fields,
                config=config,
                dataset=identify(training, "train"),
                statistics=statistics,
                epoch=epoch,
                step=clock.step,
                train_loss=loss_sum / seen,
                valid_vrmse=scores.mean,
                seconds=clock.seconds,
                seed=config.seed,
                code_version=code_version(),
                hardware=hardware(device),
                created=now(),
                weights_sha256="",
            )
            save_checkpoint(run / "last", model, record)
            improved = scores.mean < best
            if improved:
                best, best_epoch = scores.mean, epoch
                save_checkpoint(run / "best", model, record)
            speed, stall = seen / training_seconds, batches.waited / training_seconds
            _append(
                run / LOG,
                {
                    "epoch": epoch,
                    "step": clock.step,
                    "train_loss": record.train_loss,
                    "valid_vrmse": scores.mean,
                    "valid_vrmse_per_field": dict(
                        zip(components(validation), scores.vrmse.mean(axis=0).tolist(), strict=True)
                    ),
                    "learning_rate": rate,
                    "seconds": clock.seconds,
                    "samples_per_second": speed,
                    "stall_share": stall,
                },
            )
            report_progress(
                Progress(
                    "epoch",
                    epoch,
                    config.epochs,
                    epoch=epoch,
                    fraction=clock.fraction,
                    loss=record.train_loss,
                    valid_vrmse=scores.mean,
                    best=improved,
                    learning_rate=rate,
                    samples_per_second=speed,
                    stall_share=stall,
                )
            )
            if clock.out_of_time or epoch == config.epochs:
                break

    report = TrainReport(
        schema_=TrainReport.schema_name(),
        run=str(run),
        dataset=config.dataset,
        model=config.model,
        parameters=record.parameters,
        seed=config.seed,
        epochs=epoch,
        steps=clock.step,
        stopped_by="epochs" if epoch == config.epochs else "hours",
        best_epoch=best_epoch,
        best_valid_vrmse=best,
        last_valid_vrmse=record.valid_vrmse,
        last_train_loss=record.train_loss,
        seconds=clock.seconds,
        samples_per_second=speed,
        stall_share=stall,
        hardware=hardware(device),
    )
    _write(run / REPORT, json.dumps(report.to_mapping(), indent=1) + "\n")
    return report


def _loss(model: nn.Module, batch: Batch, nan_fill: Tensor | None) -> Tensor:
    """Mean squared error in normalized units over all output steps, the model fed its own predictions.

    Points whose target is NaN (allowed by the card) are left out.
    """
    window = fill_nan(batch.inputs, nan_fill)
    losses = []
    for step in range(batch.outputs.shape[1]):
        predicted = next_normalized(model, window, batch.constants)
        target = batch.outputs[:, step]
        if nan_fill is None:
            losses.append((predicted - target).square().mean())
        else:
            # NaN must be gone before the difference: its gradient would be NaN even behind a mask.
            inside = ~target.isnan()
            squared = (predicted - target.masked_fill(~inside, 0.0)).square()
            losses.append(squared.masked_fill(~inside, 0.0).sum() / inside.sum())
        window = advance(window, predicted)
    return torch.stack(losses).mean()


@contextmanager
def _full_float32() -> Iterator[None]:
    """No TensorFloat-32 in matrix products and convolutions (cuDNN's default); settings are put back."""
    kept = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = kept


def _diverged(what: str, epoch: int, step: int, rate: float, run: Path, best_epoch: int) -> str:
    kept = f"; the best epoch so far ({best_epoch}) is kept in {run / 'best'}" if best_epoch else ""
    return (
        f"training diverged: {what} at epoch {epoch}, step {step}, learning rate {rate:.3g}{kept}; "
        "try a smaller learning_rate or a longer warm-up"
    )


def _check_same_fields(training: tuple[str, ...], validation: tuple[str, ...], config: TrainConfig) -> None:
    if training != validation:
        raise ArgumentError(
            f"{config.dataset}: train has fields {', '.join(training)}, valid has {', '.join(validation)}; "
            "both splits must come from one dataset"
        )


def _make_run_folder(run: Path, config: TrainConfig, overwrite: bool) -> Path:
    try:
        occupied = [name for name in ("best", "last", LOG, CONFIG) if (run / name).exists()]
        if occupied and not overwrite:
            raise TrainingError(
                f"{run}: holds a run already ({', '.join(occupied)}); choose another folder with --to, "
                "or pass --overwrite"
            )
        if not occupied and run.is_dir() and any(run.iterdir()):
            raise TrainingError(f"{run}: holds files that are no run's; choose another folder with --to")
        run.mkdir(parents=True, exist_ok=True)
        for name in ("best", "last"):
            shutil.rmtree(run / name, ignore_errors=True)
        for name in (LOG, REPORT):
            (run / name).unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(f"cannot make run folder {run}: {error.strerror}; choose another with --to") from error
    _write(run / CONFIG, json.dumps(config.to_mapping(), indent=1) + "\n")
    return run


def _write(path: Path, text: str, mode: str = "w") -> None:
    try:
        with path.open(mode, encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror}; free space or choose another --to") from error


def _append(path: Path, content: dict[str, object]) -> None:
    _write(path, json.dumps(content) + "\n", mode="a")
