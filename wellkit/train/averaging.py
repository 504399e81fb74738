"""The weights that are validated and saved: those of the last step, or an exponential moving average of them."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from wellkit.schemas.training import TrainConfig
from wellkit.train.processes import Processes


def whole(tensor: Tensor) -> Tensor:
    """A tensor that is kept in shares, put together (every process has to ask at once); any other as it is."""
    gather = getattr(tensor, "full_tensor", None)
    return tensor if gather is None else gather()


@torch.no_grad()
def put(target: Tensor, values: Tensor) -> None:
    """Copy whole `values` into a tensor, or into this process's share of one."""
    if hasattr(target, "full_tensor"):
        from torch.distributed.tensor import DTensor, distribute_tensor

        assert isinstance(target, DTensor)
        values = distribute_tensor(values.to(target.device), target.device_mesh, target.placements)
    target.copy_(values)


def decay_at(update: int, decay: float) -> float:
    """The decay of an update, counted from 0: min(decay, (1 + update) / (10 + update)).

    The ramp is TensorFlow's ExponentialMovingAverage's with `num_updates`: random first weights are soon forgotten.
    """
    return min(decay, (1 + update) / (10 + update))


class WeightAverage:
    """average = decay x average + (1 - decay) x weights, after every step; `scored` is the model that has it.

    Without averaging `scored` has the weights themselves. Buffers (running statistics of a BatchNorm) are those of
    the last step, in several processes those of process 0.

    Args:
        model: before it is wrapped, so that a copy of it is whole and not compiled.
    """

    def __init__(self, model: nn.Module, config: TrainConfig, processes: Processes) -> None:
        self._processes = processes
        self._decay = config.ema_decay
        self._updates = 0
        apart = config.ema_decay > 0 or config.compile or (config.strategy == "fsdp" and processes.count > 1)
        self._scored = copy.deepcopy(model) if apart else model
        self._model = model
        self._average: dict[str, Tensor] = {}

    def follow(self, model: nn.Module) -> None:
        """Begin at the weights of `model`, which may by now be kept in shares."""
        self._model = model
        if self._decay > 0:
            self._average = {name: p.detach().clone() for name, p in model.named_parameters()}

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights of a step."""
        if not self._average:
            return
        decay = decay_at(self._updates, self._decay)
        self._updates += 1
        weights = [p.detach() for p in self._model.parameters()]
        torch._foreach_lerp_(list(self._average.values()), weights, 1.0 - decay)

    @torch.no_grad()
    def scored(self) -> nn.Module:
        """The model to validate and save, ready to predict; every process has to ask at once."""
        for buffer in self._model.buffers():
            self._processes.copy_from_first(buffer)
        if self._scored is not self._model:
            state = dict(self._model.state_dict()) | self._average
            self._scored.load_state_dict({name: whole(tensor) for name, tensor in state.items()})
        return self._scored.eval()

    def tensors(self) -> dict[str, Tensor]:
        """What a later `restore` needs; nothing without averaging."""
        if not self._average:
            return {}
        return self._average | {"updates": torch.tensor(self._updates)}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over what `tensors` gave."""
        for name, tensor in self._average.items():
            put(tensor, tensors[name])
        if self._average:
            self._updates = int(tensors["updates"])
