"""One optimizer step: its windows shared out, the loss, the gradient of all of them, the new weights."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from wellkit.errors import ConfigError, TrainingError
from wellkit.normalization import Normalization
from wellkit.schemas.training import TrainConfig
from wellkit.train.averaging import WeightAverage, put, whole
from wellkit.train.data import Batch, all_finite
from wellkit.train.losses import Units, rollout_loss
from wellkit.train.processes import Processes


@dataclass(frozen=True)
class Piece:
    """Windows that go through the model together, in one process.

    Attributes:
        indices: their numbers in the dataset.
        weight: their share of the step's windows, 0 to 1. At 0 the process only keeps the others company.
    """

    indices: Sequence[int]
    weight: float


def share_out(
    order: Sequence[int], *, batch_size: int, accumulate: int, number: int, count: int
) -> list[tuple[Piece, ...]]:
    """The pieces of every step of a pass for process `number` of `count`.

    Every step takes the next `batch_size` windows of `order` (the last step what is left), cut into pieces that
    differ by at most one window. All processes have equally many pieces, since they exchange gradients after each
    step's last one: where there are fewer windows than pieces, a process is given one that weighs nothing.
    """
    steps = []
    for start in range(0, len(order), batch_size):
        batch = order[start : start + batch_size]
        size, larger = divmod(len(batch), accumulate * count)
        pieces = []
        for first in range(0, accumulate * count, count):
            if size == 0 and first >= larger:
                break
            place = first + number
            begin = place * size + min(place, larger)
            own = batch[begin : begin + size + (place < larger)]
            pieces.append(Piece(own, len(own) / len(batch)) if own else Piece(batch[:1], 0.0))
        steps.append(tuple(pieces))
    return steps


@dataclass(frozen=True)
class Outcome:
    """What a step came to, over all processes.

    Attributes:
        loss: over the step's windows.
        finite: whether all their numbers were.
        gradient_norm: before clipping; None where nothing asked for it.
    """

    loss: float
    finite: bool
    gradient_norm: float | None


class PendingOutcome:
    """An `Outcome` on its way from the device, so that the next step can be begun before anybody waits for it."""

    def __init__(self, values: Tensor) -> None:
        self._event: Any | None = None
        if values.device.type == "cuda":
            self._values = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
            self._values.copy_(values, non_blocking=True)
            self._event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._event.record()
        else:
            self._values = values

    def wait(self) -> Outcome:
        """The numbers, once they are there."""
        if self._event is not None:
            self._event.synchronize()
        loss, unfit, norm = self._values.tolist()
        return Outcome(loss, unfit == 0.0, None if norm < 0.0 else norm)


class Learner:
    """A model, its optimizer and its averaged weights: everything that a step changes.

    Args:
        model: on the device of `processes`; changed in place.

    Attributes:
        model: as training steps call it.
    """

    def __init__(
        self,
        config: TrainConfig,
        model: nn.Module,
        normalization: Normalization | None,
        allowed: Sequence[bool],
        processes: Processes,
    ) -> None:
        self._config, self._processes, self._bare, self._allowed = config, processes, model, allowed
        self._nan_fill = torch.tensor(allowed) if any(allowed) else None
        self._units = Units.of(normalization, processes.device)
        self._sharded = config.strategy == "fsdp" and processes.count > 1
        self.average = WeightAverage(model, config, processes)
        if config.compile:
            model.compile()
        self.model = processes.wrap(model, config.strategy)
        self.average.follow(model)
        # After sharding: the optimizer must know the parameters that there are from now on.
        self.optimizer = torch.optim.AdamW(
            model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
        )

    def step(
        self, pieces: Sequence[Piece], batches: Iterator[Batch], rate: float
    ) -> tuple[PendingOutcome, list[Batch]]:
        """One step at learning rate `rate`: what comes of it, and the batches it took.

        The gradient is that of the mean over the step's windows, whatever the pieces.

        Raises:
            ConfigError: there is no compiler for `compile`, or no deterministic algorithm.
            TrainingError: the device has too little memory.
        """
        try:
            return self._step(pieces, batches, rate)
        except torch.cuda.OutOfMemoryError as error:
            raise TrainingError(
                f"the GPU's memory does not hold a step of {len(pieces[0].indices)} windows at once; "
                "use a larger accumulate, a smaller batch_size or bf16"
            ) from error
        except RuntimeError as error:
            raise _explained(error, self._config) from error

    def _step(
        self, pieces: Sequence[Piece], batches: Iterator[Batch], rate: float
    ) -> tuple[PendingOutcome, list[Batch]]:
        config, processes, scaler = self._config, self._processes, self._processes.scaler
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        told = torch.zeros(2, device=processes.device)
        taken = []
        for number, piece in enumerate(pieces, start=1):
            batch = next(batches)
            taken.append(batch)
            with self._unsynchronized(number < len(pieces)):
                loss = rollout_loss(
                    self.model,
                    batch,
                    loss=config.loss,
                    units=self._units,
                    nan_fill=self._nan_fill,
                    pushforward=config.pushforward,
                    precision=processes.autocast,
                )
                # Processes exchange the mean of their gradients; what is wanted is the sum.
                part = loss * (piece.weight * processes.count)
                (part if scaler is None else scaler.scale(part)).backward()
            told += torch.stack([loss.detach() * piece.weight, (~all_finite(batch, self._allowed)).float()])
        norm = self._clip() if config.clip_norm > 0 else None
        if scaler is None:
            self.optimizer.step()
        else:
            scaler.step(self.optimizer)
            scaler.update()
        self.average.update()
        processes.sum(told)
        # A step that the scaler leaves out is no divergence: it has lowered the scale and goes on.
        kept = norm.reshape(1) if norm is not None and scaler is None else told.new_full((1,), -1.0)
        return PendingOutcome(torch.cat([told, kept])), taken

    def _clip(self) -> Tensor:
        if self._processes.scaler is not None:
            self._processes.scaler.unscale_(self.optimizer)
        return whole(nn.utils.clip_grad_norm_(self._bare.parameters(), self._config.clip_norm))

    def _unsynchronized(self, wanted: bool) -> AbstractContextManager[Any]:
        """Leave the exchange of gradients to the last piece. Shares of fsdp are exchanged every time: the whole
        gradient is what they are there to avoid."""
        if wanted and isinstance(self.model, nn.parallel.DistributedDataParallel):
            context: AbstractContextManager[Any] = self.model.no_sync()
            return context
        return nullcontext()

    def tensors(self) -> dict[str, Tensor]:
        """Everything a step changes, whole, by name, on the host; every process has to ask at once."""
        found = {f"model.{name}": tensor for name, tensor in self._bare.state_dict().items()}
        found |= {f"average.{name}": tensor for name, tensor in self.average.tensors().items()}
        for name, parameter in self._bare.named_parameters():
            for key, value in self.optimizer.state.get(parameter, {}).items():
                found[f"optimizer.{name}.{key}"] = value
        # Copies: a tensor on the host would go on changing.
        return {name: whole(tensor).detach().to("cpu", copy=True).contiguous() for name, tensor in found.items()}

    @torch.no_grad()
    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Take over what `tensors` gave."""
        for name, tensor in self._bare.state_dict().items():
            put(tensor, tensors[f"model.{name}"])
        self.average.restore({k.removeprefix("average."): v for k, v in tensors.items() if k.startswith("average.")})
        for name, parameter in self._bare.named_parameters():
            begin = f"optimizer.{name}."
            for key in ("step", "exp_avg", "exp_avg_sq"):
                if begin + key not in tensors:
                    continue  # a parameter that nothing used has no state
                value = tensors[begin + key]
                if key != "step":
                    value, given = torch.zeros_like(parameter), value
                    put(value, given)
                self.optimizer.state[parameter][key] = value


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


def _explained(error: RuntimeError, config: TrainConfig) -> Exception:
    """What a failure of torch's means for a configuration; the failure itself where it is not of these."""
    text = " ".join(str(error).split())
    if "does not have a deterministic implementation" in text:
        return ConfigError(f"deterministic = true: {text.split('. ')[0]}; leave it out for model {config.model!r}")
    if config.compile and type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
        return ConfigError(f"compile = true: torch cannot compile the model here ({text[:160]}); leave it out")
    return error
