"""The processes that train together, the device of this one and its precision: what comes from accelerate."""

from __future__ import annotations

import atexit
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed, nn

from wellkit import errors
from wellkit.errors import ConfigError, WellkitError
from wellkit.frameworks import require
from wellkit.schemas.training import Strategy, TrainConfig
from wellkit.settings import allow_deterministic_products
from wellkit.train.data import choose_device
from wellkit.train.models.fno import SpectralConvolutions

_MIXED = {"float32": "no", "tf32": "no", "bf16": "bf16", "fp16": "fp16"}
_PACKAGES = {"tensorboard": "tensorboard", "wandb": "wandb"}


class Processes:
    """One process among those that train together; alone where nothing started several.

    Attributes:
        device: of this process.
        number, count: of this process, from 0, and of all. Process 0 is the one that writes and tells.
        scaler: of the loss in fp16, else None.
    """

    def __init__(self, accelerator: Any, device: torch.device) -> None:
        self._accelerator = accelerator
        self.device = device
        self.number: int = accelerator.process_index
        self.count: int = accelerator.num_processes
        self.scaler: Any | None = accelerator.scaler

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes and tells."""
        return self.number == 0

    def autocast(self) -> AbstractContextManager[Any]:
        """The precision of training steps."""
        context: AbstractContextManager[Any] = self._accelerator.autocast()
        return context

    def wrap(self, model: nn.Module, strategy: Strategy) -> nn.Module:
        """The model as training steps call it. With fsdp its parameters are from now on shares, in place."""
        if self.count == 1:
            return model
        if strategy == "fsdp":
            try:
                from torch.distributed.device_mesh import init_device_mesh
                from torch.distributed.fsdp import fully_shard
            except ImportError as error:
                raise ConfigError(
                    f"strategy='fsdp' needs torch 2.6 or newer, here is {torch.__version__}; use 'ddp'"
                ) from error
            fully_shard(model, mesh=init_device_mesh(self.device.type, (self.count,)))
            return model
        # Buffers are left alone: broadcasting them between the steps of a rollout would change what its
        # backward pass needs. accelerate's own wrapper would round outputs of validation, too.
        # An operator that skips its blocks leaves their weights without gradients.
        unused = bool(getattr(getattr(model, "model", None), "skip_blocks", False))
        wrapper = nn.parallel.DistributedDataParallel
        # The name of that choice since torch 2.13.
        new_name = "forward_sync_buffers" in inspect.signature(wrapper).parameters
        alone: dict[str, Any] = {"forward_sync_buffers" if new_name else "broadcast_buffers": False}
        return wrapper(
            model,
            device_ids=[self.device] if self.device.type == "cuda" else None,
            **alone,
            find_unused_parameters=unused,
        )

    def sum(self, values: Tensor) -> Tensor:
        """`values`, on this process's device, added up over all processes, in place."""
        if self.count > 1:
            distributed.all_reduce(values)
        return values

    def copy_from_first(self, values: Tensor) -> Tensor:
        """Process 0's `values`, in place."""
        if self.count > 1:
            distributed.broadcast(values, 0)
        return values

    def number_of_first(self, value: float) -> float:
        """Process 0's `value` in every process, to the last bit."""
        if self.count == 1:
            return value
        return float(self.copy_from_first(torch.tensor(value, dtype=torch.float64, device=self.device)))

    def gather(self, part: Any) -> list[Any]:
        """Every process's `part`, in order."""
        if self.count == 1:
            return [part]
        parts: list[Any] = [None] * self.count
        distributed.all_gather_object(parts, part)
        return parts

    def together(self, work: Callable[..., Any], *arguments: Any, first_only: bool = False) -> Any:
        """Do `work(*arguments)` in every process, or in process 0 alone; what fails in one is raised in all.

        Returns:
            What `work` returned here; None where it was not done.
        """
        result = None
        caught: WellkitError | None = None
        if self.is_first or not first_only:
            try:
                result = work(*arguments)
            except WellkitError as error:
                caught = error
        if self.count > 1:
            told = self.gather(None if caught is None else (type(caught).__name__, str(caught)))
            failed = next((one for one in told if one is not None), None)
            if failed is not None:
                caught = caught or getattr(errors, failed[0])(failed[1])
                caught.told_elsewhere = not self.is_first
        if caught is not None:
            raise caught
        return result

    def track(self, values: Mapping[str, float], step: int) -> None:
        """Tell the trackers."""
        self._accelerator.log(dict(values), step=step)

    def start_trackers(self, name: str, settings: Mapping[str, Any]) -> None:
        """Begin a run of that name with the trackers; `settings` are what decided it."""
        if self._accelerator.log_with:
            flat = {key: v if isinstance(v, str | int | float | bool) else str(v) for key, v in settings.items()}
            self._accelerator.init_trackers(name, config=flat)


@contextmanager
def processes_of(config: TrainConfig, folder: Path) -> Iterator[Processes]:
    """Join the other processes, if `torchrun` (or accelerate) started several.

    Args:
        folder: trackers that write files do so there.

    Raises:
        ConfigError: no such device or precision here, fewer windows in a batch than processes, or a tracker
            that is not installed.
    """
    require("accelerate", extra="train", purpose="training")
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    device = choose_device(config.device)
    _check_trackers(config.trackers)
    if config.precision == "fp16" and device.type != "cuda":
        raise ConfigError(f"precision='fp16' needs a CUDA GPU, the device is {device}; use bf16 or float32")
    if config.precision == "tf32" and device.type != "cuda":
        raise ConfigError(f"precision='tf32' needs a CUDA GPU, the device is {device}; use bf16 or float32")
    began_here = not distributed.is_initialized()
    kept = bool(AcceleratorState._shared_state)
    with _current(device):
        try:
            accelerator = Accelerator(
                cpu=device.type == "cpu",
                mixed_precision=_MIXED[config.precision],
                log_with=list(config.trackers) or None,
                project_dir=str(folder) if config.trackers else None,
            )
        except ValueError as error:
            raise ConfigError(f"precision={config.precision!r} on {device}: {str(error).splitlines()[0]}") from error
        try:
            if accelerator.num_processes > 1:
                if device.index is not None:
                    raise ConfigError(
                        f"device={config.device!r} names one device for {accelerator.num_processes} processes; "
                        f"use device={device.type!r}, and each takes its own"
                    )
                device = accelerator.device
            if config.batch_size < accelerator.num_processes:
                raise ConfigError(
                    f"batch_size={config.batch_size} is of all {accelerator.num_processes} processes together, "
                    "so that some would have nothing to do; use a larger one"
                )
            yield Processes(accelerator, device)
            if began_here and distributed.is_initialized():
                # Not now: processes that parted cannot be sure to meet again for the next training.
                atexit.register(distributed.destroy_process_group)
        finally:
            for tracker in accelerator.trackers:
                tracker.finish()
            # accelerate keeps its state for the life of a process and refuses another precision: the next
            # training in this process starts anew, unless the state is that of a program around it.
            if not kept:
                AcceleratorState._reset_state(reset_partial_state=True)


def _check_trackers(trackers: Sequence[str]) -> None:
    if not trackers:
        return
    from accelerate.tracking import get_available_trackers

    available = {str(tracker) for tracker in get_available_trackers()}
    for tracker in trackers:
        if tracker not in available:
            raise ConfigError(
                f"trackers: {tracker} is not installed; run: pip install {_PACKAGES[tracker]} (or leave it out)"
            )


@contextmanager
def _current(device: torch.device) -> Iterator[None]:
    """Make a GPU that was named the current one, for as long as this lasts."""
    if device.type != "cuda" or device.index is None:
        yield
        return
    with torch.cuda.device(device):
        yield


@contextmanager
def arithmetic(config: TrainConfig, model: nn.Module, device: torch.device) -> Iterator[None]:
    """How products are rounded and which algorithms are allowed; torch's settings are put back afterwards.

    TensorFloat-32 is used only with precision "tf32". Spectral convolutions multiply matrices of their own and
    stay in float32: a model that has them gets it for convolutions alone.
    """
    cuda, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    kept = cuda.allow_tf32, cudnn.allow_tf32, cudnn.benchmark, cudnn.deterministic
    strict = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    tf32 = config.precision == "tf32"
    spectral = any(isinstance(module, SpectralConvolutions) for module in model.modules())
    cuda.allow_tf32, cudnn.allow_tf32 = tf32 and not spectral, tf32
    if config.deterministic:
        allow_deterministic_products()
        cudnn.benchmark, cudnn.deterministic = False, True
        torch.use_deterministic_algorithms(True)
    devices = [device] if device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        cuda.allow_tf32, cudnn.allow_tf32, cudnn.benchmark, cudnn.deterministic = kept
        torch.use_deterministic_algorithms(strict[0], warn_only=strict[1])
