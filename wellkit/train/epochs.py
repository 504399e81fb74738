"""One epoch of training: its steps in order, what they told, and the states saved on the way."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from wellkit.errors import TrainingError
from wellkit.schemas.training import TrainConfig
from wellkit.train.data import Batch, check_finite
from wellkit.train.energy import EnergyMeter
from wellkit.train.processes import Processes
from wellkit.train.progress import Progress, ProgressCallback
from wellkit.train.run_folder import RunFolder, Standing
from wellkit.train.splits import Splits
from wellkit.train.steps import Learner, PendingOutcome, learning_rate, share_out


@dataclass
class Clock:
    """What of the budget is used up, the same in every process, and what was used before a run was resumed."""

    config: TrainConfig
    steps_per_epoch: int
    standing: Standing
    processes: Processes
    meter: EnergyMeter
    _began: float = field(default_factory=time.perf_counter)

    def __post_init__(self) -> None:
        self._before, self._joules_before = self.standing.seconds, self.standing.joules or 0.0
        self.tick()

    def tick(self) -> None:
        """Look at the time."""
        seconds = self._before + time.perf_counter() - self._began
        # Processes have to agree on the end, and on the learning rate where it follows from the time.
        self.standing.seconds = seconds if self.config.hours is None else self.processes.number_of_first(seconds)

    def read_meter(self) -> None:
        """Look at the energy, of all processes."""
        joules = self.meter.joules()
        known = [part for part in self.processes.gather(joules) if part is not None]
        self.standing.joules = self._joules_before + sum(known) if known else None

    @property
    def fraction(self) -> float:
        """Share of the budget used up, 0 to 1: of the epochs or of the hours, whichever is more."""
        parts = [0.0]
        if self.config.epochs is not None:
            parts.append(self.standing.step / (self.config.epochs * self.steps_per_epoch))
        if self.config.hours is not None:
            parts.append(self.standing.seconds / (3600 * self.config.hours))
        return min(1.0, max(parts))

    @property
    def out_of_time(self) -> bool:
        """Whether the hours are over."""
        return self.config.hours is not None and self.standing.seconds >= 3600 * self.config.hours

    @property
    def epochs_done(self) -> bool:
        """Whether all epochs are trained."""
        return self.config.epochs is not None and self.standing.epoch > self.config.epochs

    @property
    def finished(self) -> bool:
        """Whether there is nothing left to train and validate."""
        return self.epochs_done or (self.out_of_time and self.standing.last.get("step") == self.standing.step)


@dataclass(frozen=True)
class _Taken:
    """A step that was taken, and what came of it, which may still be on its way."""

    number: int
    step: int
    windows: int
    rate: float
    batches: Sequence[Batch]
    outcome: PendingOutcome


@dataclass(frozen=True)
class Epoch:
    """Trains one epoch from where it stands."""

    config: TrainConfig
    splits: Splits
    learner: Learner
    standing: Standing
    clock: Clock
    processes: Processes
    run: RunFolder
    tell: ProgressCallback
    save: Callable[[], None]

    def train(self) -> None:
        """Take the steps that are left of the epoch, or until the time is over.

        The outcome of a step is looked at when the next one is under way, so that a GPU never waits for that.

        Raises:
            DataValueError: NaN where the card allows none, or infinity.
            TrainingError: the loss or its gradient is not finite.
            StorageError: a state cannot be written.
        """
        config, standing, clock = self.config, self.standing, self.clock
        self.learner.model.train()
        order = self.splits.batches.order_of_epoch(config.seed, standing.epoch)
        steps = share_out(
            order,
            batch_size=config.batch_size,
            accumulate=config.accumulate,
            number=self.processes.number,
            count=self.processes.count,
        )[standing.batch :]
        stream = self.splits.batches.of_groups([piece.indices for pieces in steps for piece in pieces])
        began, spent, waited = time.perf_counter(), standing.spent, standing.waited
        before: _Taken | None = None
        for pieces in steps:
            rate = learning_rate(
                config, step=standing.step, steps_per_epoch=self.splits.steps_per_epoch, fraction=clock.fraction
            )
            outcome, batches = self.learner.step(pieces, stream, rate)
            windows = min(config.batch_size, len(order) - standing.batch * config.batch_size)
            standing.step, standing.batch, standing.rate = standing.step + 1, standing.batch + 1, rate
            standing.samples += windows
            taken = _Taken(standing.batch, standing.step, windows, rate, batches, outcome)
            standing.spent = spent + time.perf_counter() - began
            standing.waited = waited + self.splits.batches.waited
            clock.tick()
            self._settle(before)
            before = taken
            if config.checkpoint_every and standing.step % config.checkpoint_every == 0:
                self._settle(before)
                before = None
                self.save()
            if clock.out_of_time:
                break
        self._settle(before)
        standing.spent = spent + time.perf_counter() - began

    def _settle(self, taken: _Taken | None) -> None:
        """Look at what came of a step: refuse bad data and divergence, count the rest and tell it."""
        if taken is None:
            return
        standing, outcome = self.standing, taken.outcome.wait()
        if not outcome.finite:
            self.processes.together(self._check, taken.batches)
        for what, value in (("loss", outcome.loss), ("norm of the gradient", outcome.gradient_norm)):
            if value is not None and not math.isfinite(value):
                raise TrainingError(
                    diverged(f"the {what} is {value}", standing, step=taken.step, rate=taken.rate, run=self.run)
                )
        standing.seen += taken.windows
        standing.loss_sum += outcome.loss * taken.windows
        told = {"train_loss": outcome.loss, "learning_rate": taken.rate}
        if outcome.gradient_norm is not None:
            told["gradient_norm"] = outcome.gradient_norm
        self.processes.track(told, taken.step)
        if self.processes.is_first:
            self.tell(
                Progress(
                    "train",
                    taken.number,
                    self.splits.steps_per_epoch,
                    epoch=standing.epoch,
                    fraction=self.clock.fraction,
                    loss=outcome.loss,
                    learning_rate=taken.rate,
                    samples_per_second=standing.seen / standing.spent,
                    stall_share=standing.waited / standing.spent,
                )
            )

    def _check(self, batches: Sequence[Batch]) -> None:
        for batch in batches:
            check_finite(batch, self.splits.training, self.splits.allowed, split="train")


def diverged(what: str, standing: Standing, *, step: int, rate: float, run: RunFolder) -> str:
    """One line for a training that came to no finite number."""
    best = run.path / "best"
    kept = f"; the best epoch so far ({standing.best_epoch}) is kept in {best}" if standing.best_epoch else ""
    return (
        f"training diverged: {what} at epoch {standing.epoch}, step {step}, learning rate {rate:.3g}{kept}; "
        "try a smaller learning_rate, a longer warm-up, or clip_norm = 1"
    )
