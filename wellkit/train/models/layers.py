"""What several models are built of: layers by number of dimensions, recomputation, stochastic depth."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from wellkit.errors import ArgumentError

CONVOLUTIONS: dict[int, Callable[..., nn.Module]] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED: dict[int, Callable[..., nn.Module]] = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
POOLS: dict[int, Callable[..., nn.Module]] = {1: nn.MaxPool1d, 2: nn.MaxPool2d, 3: nn.MaxPool3d}
BATCH_NORMS: dict[int, Callable[..., nn.Module]] = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


def check_dimensions(model: str, n_spatial_dims: int, spatial_resolution: Sequence[int]) -> tuple[int, ...]:
    """The resolution as a tuple.

    Raises:
        ArgumentError: the number of dimensions is none of 1, 2 and 3, or not that of the resolution.
    """
    if n_spatial_dims not in CONVOLUTIONS:
        raise ArgumentError(f"{model}: n_spatial_dims={n_spatial_dims}; it works in 1, 2 or 3 dimensions")
    if len(spatial_resolution) != n_spatial_dims:
        raise ArgumentError(
            f"{model}: n_spatial_dims={n_spatial_dims}, but spatial_resolution={tuple(spatial_resolution)} has "
            f"{len(spatial_resolution)} axes; give one number of points for each dimension"
        )
    return tuple(spatial_resolution)


def check_divisible(model: str, size: Sequence[int], step: int, meaning: str, advice: str) -> None:
    """Raise ArgumentError where an axis of the grid is no multiple of `step`."""
    if any(points % step for points in size):
        raise ArgumentError(
            f"{model}: grid {'x'.join(map(str, size))} is not divisible by {meaning} = {step} on every axis; {advice}"
        )


def apply(block: nn.Module, *inputs: Tensor | int, recompute: bool) -> Tensor:
    """`block(*inputs)`; with `recompute` its inside is not kept for the backward pass but computed again there.

    The running statistics of batch normalization count each batch once all the same.
    """
    if not (recompute and torch.is_grad_enabled()):
        return block(*inputs)  # type: ignore[no-any-return]

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _statistics_untouched(block)

    return checkpoint(block, *inputs, use_reentrant=False, context_fn=contexts)  # type: ignore[no-any-return]


@contextmanager
def _statistics_untouched(block: nn.Module) -> Iterator[None]:
    # Not by track_running_stats, which changes what autograd saves.
    norms = [module for module in block.modules() if isinstance(module, _BatchNorm)]
    before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, (momentum, count) in zip(norms, before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, count


class DropPath(nn.Module):
    """Stochastic depth (Huang et al., arXiv 1603.09382): in training, a whole sample is 0 with probability `rate`.

    What stays is divided by 1 - rate, so that the expectation is the input: (B, ...) -> (B, ...).
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0.0:
            return x
        kept = torch.rand(x.shape[0], *(1 for _ in x.shape[1:]), device=x.device) >= self.rate
        return x * kept.to(x.dtype) / (1.0 - self.rate)
