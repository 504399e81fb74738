"""The classic U-Net (Ronneberger et al., arXiv 1505.04597) with batch normalization, 1D to 3D.

Layout, parameter names and shapes are those of the benchmark's `UNetClassic` (which follows PDEBench, Takamoto et
al., arXiv 2210.07182: tanh, batch normalization, zero padding), so that its published weights fit in here; the code
is our own.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from wellkit.errors import ArgumentError
from wellkit.train.models.layers import (
    BATCH_NORMS,
    CONVOLUTIONS,
    POOLS,
    TRANSPOSED,
    apply,
    check_dimensions,
    check_divisible,
)

_LEVELS = 4


def _two_convolutions(name: str, dim_in: int, dim_out: int, dims: int) -> nn.Sequential:
    """Twice a convolution of width 3, batch normalization and tanh; layers are named as in the published weights."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for number, width in enumerate((dim_in, dim_out), start=1):
        # no bias: the normalization's takes its place
        layers[f"{name}conv{number}"] = CONVOLUTIONS[dims](width, dim_out, 3, padding=1, bias=False)
        layers[f"{name}norm{number}"] = BATCH_NORMS[dims](dim_out)
        layers[f"{name}tanh{number}"] = nn.Tanh()
    return nn.Sequential(layers)


class UNetClassic(nn.Module):
    """Classic U-Net: (B, dim_in, x...) -> (B, dim_out, x...); sizes divisible by 16.

    The defaults are the benchmark's configuration. Batch normalization makes the output of a sample depend on its
    batch in training, and on the running statistics (which travel with the weights) in evaluation.

    Args:
        dim_in, dim_out: channels in and out.
        n_spatial_dims: 1, 2 or 3.
        spatial_resolution: grid points per axis; checked to be divisible by 16, for the grid is halved four times.
        init_features: channels on the full grid; each level doubles them.
        gradient_checkpointing: recompute blocks in the backward pass: less memory, about a third more time.
    """

    def __init__(
        self,
        dim_in: int,
        dim_out: int,
        n_spatial_dims: int,
        spatial_resolution: Sequence[int],
        init_features: int = 48,
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.spatial_resolution = check_dimensions("unet_classic", n_spatial_dims, spatial_resolution)
        if min(init_features, dim_in, dim_out) < 1:
            raise ArgumentError(
                f"unet_classic: init_features={init_features}, channels {dim_in} -> {dim_out}; "
                "all of them must be at least 1"
            )
        self._check_size(self.spatial_resolution)
        self.recompute = gradient_checkpointing
        self.pool = POOLS[n_spatial_dims](2)
        widths = [init_features * 2**level for level in range(_LEVELS + 1)]
        for level, width in enumerate(widths[:-1], start=1):
            above = dim_in if level == 1 else width // 2
            self.add_module(f"encoder{level}", _two_convolutions(f"enc{level}", above, width, n_spatial_dims))
        self.bottleneck = _two_convolutions("bottleneck", widths[-2], widths[-1], n_spatial_dims)
        for level, width in reversed(list(enumerate(widths[:-1], start=1))):
            self.add_module(f"upconv{level}", TRANSPOSED[n_spatial_dims](2 * width, width, 2, stride=2))
            self.add_module(f"decoder{level}", _two_convolutions(f"dec{level}", 2 * width, width, n_spatial_dims))
        # Transposed or not is all one at width 1, but for the order of the weight's axes: that of the published ones.
        self.conv = TRANSPOSED[n_spatial_dims](init_features, dim_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        self._check_size(tuple(x.shape[2:]))
        skips = []
        for level in range(1, _LEVELS + 1):
            x = self._run(f"encoder{level}", x)
            skips.append(x)
            x = self.pool(x)
        if self.training and x.numel() == x.shape[1]:
            raise ArgumentError(
                f"unet_classic: one sample of {2**_LEVELS} points per axis leaves batch normalization one value per "
                "channel to take a variance of; train with larger batches (also the last), or on a finer grid"
            )
        x = apply(self.bottleneck, x, recompute=self.recompute)
        for level in range(_LEVELS, 0, -1):
            x = self._run(f"upconv{level}", x)
            x = self._run(f"decoder{level}", torch.cat([x, skips.pop()], dim=1))
        return self.conv(x)  # type: ignore[no-any-return]

    def _run(self, name: str, x: Tensor) -> Tensor:
        return apply(self.get_submodule(name), x, recompute=self.recompute)

    def _check_size(self, size: Sequence[int]) -> None:
        check_divisible("unet_classic", size, 2**_LEVELS, f"2^{_LEVELS}", "crop the fields, or try the fno")
