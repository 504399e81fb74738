"""U-Net of ConvNeXt blocks (Ronneberger et al., arXiv 1505.04597; Liu et al., arXiv 2201.03545), 1D to 3D.

Layout, parameter names and shapes are those of the benchmark's `UNetConvNext`, so that its published weights
fit in here; the code is our own.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from wellkit.errors import ArgumentError
from wellkit.train.models.layers import CONVOLUTIONS, TRANSPOSED, apply, check_dimensions, check_divisible


class ChannelNorm(nn.Module):
    """Layer normalization over the channels of (B, C, x...), with weight and bias of shape (C, 1...).

    With `unit_length` the published models' variant: the channel vector is divided by its length and
    multiplied by the weight, without centring, and the bias stays unused.
    """

    def __init__(self, channels: int, n_spatial_dims: int, *, unit_length: bool, eps: float = 1e-6) -> None:
        super().__init__()
        shape = (channels, *(1 for _ in range(n_spatial_dims)))
        self.weight = nn.Parameter(torch.ones(shape))
        self.bias = nn.Parameter(torch.zeros(shape))
        self.unit_length = unit_length
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        if self.unit_length:
            return functional.normalize(x, p=2.0, dim=1, eps=self.eps) * self.weight
        variance, mean = torch.var_mean(x, dim=1, keepdim=True, correction=0)
        return (x - mean) * torch.rsqrt(variance + self.eps) * self.weight + self.bias


class Resample(nn.Module):
    """Normalize the channels, then halve or double the grid with a convolution of width and stride 2."""

    def __init__(self, dim_in: int, dim_out: int, dims: int, *, up: bool, unit_length: bool) -> None:
        super().__init__()
        convolution = TRANSPOSED[dims] if up else CONVOLUTIONS[dims]
        self.block = nn.Sequential(
            ChannelNorm(dim_in, dims, unit_length=unit_length), convolution(dim_in, dim_out, 2, stride=2)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x)  # type: ignore[no-any-return]


class ConvNextBlock(nn.Module):
    """x + gamma * MLP(norm(depthwise convolution of width 7)); gamma starts near 0, the block near x."""

    def __init__(self, channels: int, dims: int, layer_scale: float) -> None:
        super().__init__()
        self.dwconv = CONVOLUTIONS[dims](channels, channels, 7, padding=3, groups=channels)
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.pwconv1 = nn.Linear(channels, 4 * channels)
        self.pwconv2 = nn.Linear(4 * channels, channels)
        self.gamma = nn.Parameter(torch.full((channels,), layer_scale))

    def forward(self, x: Tensor) -> Tensor:
        y = self.dwconv(x).movedim(1, -1)  # the pointwise layers work on the last axis
        y = self.gamma * self.pwconv2(functional.gelu(self.pwconv1(self.norm(y))))
        return x + y.movedim(-1, 1)  # type: ignore[no-any-return]


class Stage(nn.Module):
    """Optional merge with a skip connection, blocks, then a change of resolution ("down", "up" or "none")."""

    def __init__(
        self,
        dim_in: int,
        dim_out: int,
        dims: int,
        *,
        blocks: int,
        resample: str,
        merges_skip: bool,
        layer_scale: float,
        unit_length: bool,
    ) -> None:
        super().__init__()
        self.skip_proj = CONVOLUTIONS[dims](2 * dim_in, dim_in, 1) if merges_skip else nn.Identity()
        self.blocks = nn.ModuleList(ConvNextBlock(dim_in, dims, layer_scale) for _ in range(blocks))
        self.resample: nn.Module = nn.Identity()
        if resample != "none":
            self.resample = Resample(dim_in, dim_out, dims, up=resample == "up", unit_length=unit_length)

    def forward(self, x: Tensor) -> Tensor:
        x = self.skip_proj(x)
        for block in self.blocks:
            x = block(x)
        return self.resample(x)  # type: ignore[no-any-return]


class UNetConvNext(nn.Module):
    """U-Net of ConvNeXt blocks: (B, dim_in, x...) -> (B, dim_out, x...); sizes divisible by 2^stages.

    The defaults are the benchmark's configuration. Convolutions pad with zeros, whatever the boundary.

    Args:
        dim_in, dim_out: channels in and out.
        n_spatial_dims: 1, 2 or 3.
        spatial_resolution: grid points per axis; checked to be divisible by 2^stages.
        stages: how often the grid is halved.
        blocks_per_stage, blocks_at_neck: ConvNeXt blocks per stage, and at the coarsest grid.
        init_features: channels on the full grid; each stage doubles them.
        layer_scale: where each block's gamma starts.
        published_norm: normalize before resampling as the published weights expect (see `ChannelNorm`).
        gradient_checkpointing: recompute stages in the backward pass: less memory, about a third more time.
    """

    def __init__(
        self,
        dim_in: int,
        dim_out: int,
        n_spatial_dims: int,
        spatial_resolution: Sequence[int],
        stages: int = 4,
        blocks_per_stage: int = 2,
        blocks_at_neck: int = 1,
        init_features: int = 42,
        layer_scale: float = 1e-6,
        published_norm: bool = False,
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.spatial_resolution = check_dimensions("unet_convnext", n_spatial_dims, spatial_resolution)
        if min(stages, blocks_per_stage, init_features, dim_in, dim_out) < 1 or blocks_at_neck < 0:
            raise ArgumentError(
                f"unet_convnext: stages={stages}, blocks_per_stage={blocks_per_stage}, "
                f"blocks_at_neck={blocks_at_neck}, init_features={init_features}, "
                f"channels {dim_in} -> {dim_out}; all of them must be at least 1 (blocks_at_neck at least 0)"
            )
        self.stages = stages
        self.recompute = gradient_checkpointing
        self._check_size(self.spatial_resolution)
        convolution = CONVOLUTIONS[n_spatial_dims]
        widths = [init_features * 2**level for level in range(stages + 1)]

        def stage(width_in: int, width_out: int, blocks: int, resample: str, merges_skip: bool) -> Stage:
            return Stage(
                width_in,
                width_out,
                n_spatial_dims,
                blocks=blocks,
                resample=resample,
                merges_skip=merges_skip,
                layer_scale=layer_scale,
                unit_length=published_norm,
            )

        self.in_proj = convolution(dim_in, init_features, 3, padding=1)
        self.out_proj = convolution(init_features, dim_out, 3, padding=1)
        self.encoder = nn.ModuleList(
            stage(widths[i], widths[i + 1], blocks_per_stage, "down", False) for i in range(stages)
        )
        self.neck = stage(widths[-1], widths[-1], blocks_at_neck, "none", False)
        self.decoder = nn.ModuleList(
            stage(widths[i + 1], widths[i], blocks_per_stage, "up", i != stages - 1) for i in reversed(range(stages))
        )

    def forward(self, x: Tensor) -> Tensor:
        self._check_size(tuple(x.shape[2:]))
        x = self.in_proj(x)
        inputs = []  # of each encoder stage; the deepest decoder stage has its input from the neck alone
        for stage in self.encoder:
            inputs.append(x)
            x = self._apply_stage(stage, x)
        x = self._apply_stage(self.neck, x)
        for depth, stage in enumerate(self.decoder):
            # The full-resolution input is in the list but in no skip: the published layout has none for it.
            x = self._apply_stage(stage, x if depth == 0 else torch.cat([x, inputs[-depth]], dim=1))
        return self.out_proj(x)  # type: ignore[no-any-return]

    def _apply_stage(self, stage: nn.Module, x: Tensor) -> Tensor:
        return apply(stage, x, recompute=self.recompute)

    def _check_size(self, size: Sequence[int]) -> None:
        advice = "take fewer stages (model_arguments.stages), crop the fields, or try the fno"
        check_divisible("unet_convnext", size, 2**self.stages, "2^stages", advice)
