"""Axial vision transformer (the AViT of multiple physics pretraining, McCabe et al., arXiv 2310.02994), 1D to 3D.

Patches of 16 points per axis from a hierarchical stem (Touvron et al., arXiv 2203.09795), blocks in which attention
runs along one axis at a time (Ho et al., arXiv 1912.12180) beside a parallel feed-forward branch (Dehghani et al.,
arXiv 2302.05442), and back. Time is stacked in the channels. Layout, parameter names and shapes are those of the
benchmark's `AViT`, so that weights saved with it fit in here; the code is our own.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from wellkit.errors import ArgumentError
from wellkit.train.models.layers import CONVOLUTIONS, TRANSPOSED, DropPath, apply, check_dimensions, check_divisible

PATCH = 16
_STRIDES = (4, 2, 2)  # of the stem's convolutions; those back go the other way
_GROUPS = 12  # of the group normalizations in between


class Embedding(nn.Module):
    """Patches to vectors: (B, dim_in, x...) -> (B, width, x / 16...)."""

    def __init__(self, dim_in: int, width: int, dims: int) -> None:
        super().__init__()
        widths = (dim_in, width // 4, width // 4, width)
        layers: list[nn.Module] = []
        for stride, (a, b) in zip(_STRIDES, pairwise(widths), strict=True):
            layers += [CONVOLUTIONS[dims](a, b, stride, stride=stride, bias=False), nn.GroupNorm(_GROUPS, b), nn.GELU()]
        self.in_projs = nn.Sequential(*layers[:-1])

    def forward(self, x: Tensor) -> Tensor:
        return self.in_projs(x)  # type: ignore[no-any-return]


class Debedding(nn.Module):
    """Vectors to patches: (B, width, x / 16...) -> (B, dim_out, x...)."""

    def __init__(self, width: int, dim_out: int, dims: int) -> None:
        super().__init__()
        widths = (width, width // 4, width // 4, dim_out)
        layers: list[nn.Module] = []
        for stride, (a, b) in zip(reversed(_STRIDES), pairwise(widths), strict=True):
            if layers:
                layers += [nn.GroupNorm(_GROUPS, a), nn.GELU()]
            layers += [TRANSPOSED[dims](a, b, stride, stride=stride, bias=False)]
        self.out_proj = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.out_proj(x)  # type: ignore[no-any-return]


def attend(query: Tensor, key: Tensor, value: Tensor, axis: int) -> Tensor:
    """Attention among the points of one axis, apart for each head and each line along the axis.

    Args:
        query, key, value: (B, x..., head, channel).
        axis: index of the axis in that shape.

    Returns:
        (B, x..., head, channel).
    """
    lines = [t.movedim(axis, -2) for t in (query, key, value)]  # (B, other axes, head, point, channel)
    q, k, v = (t.flatten(0, -4) for t in lines)  # four axes, so that the fused kernels take them
    result = functional.scaled_dot_product_attention(q, k, v)
    return result.reshape(lines[0].shape).movedim(-2, axis)


class AxialBlock(nn.Module):
    """x + gamma * (attention along each axis, summed, + feed-forward), both from one normalization of x.

    Queries and keys are normalized per head. gamma starts near 0, the block near x.
    With `published_attention`, in 2D, the second attention runs among the heads of a point instead of along the
    first axis: that is what the published code computes, so that its weights need it. (B, x..., C) -> the same.
    """

    def __init__(self, width: int, heads: int, dims: int, drop: float, layer_scale: float, published: bool) -> None:
        super().__init__()
        self.heads = heads
        self.axes = tuple(range(dims, 0, -1))
        if published and dims == 2:
            self.axes = (2, 3)  # axis 3 of (B, x, y, head, channel): the heads
        self.gamma = nn.Parameter(torch.full((width,), layer_scale))
        self.drop_path = DropPath(drop)
        self.norm = nn.LayerNorm(width, bias=False)
        self.fused_projection = nn.Linear(width, 7 * width)
        self.qnorm = nn.LayerNorm(width // heads, bias=False)
        self.knorm = nn.LayerNorm(width // heads, bias=False)
        self.output_head = nn.Linear(width, width)
        self.mlp_remaining = nn.Sequential(nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        width = x.shape[-1]
        *projected, hidden = self.fused_projection(self.norm(x)).split([width, width, width, 4 * width], dim=-1)
        query, key, value = (t.unflatten(-1, (self.heads, -1)) for t in projected)
        query, key = self.qnorm(query), self.knorm(key)
        mixed = torch.zeros_like(value)
        for axis in self.axes:
            if axis == x.ndim - 1:  # the heads
                mixed = mixed + functional.scaled_dot_product_attention(query, key, value)
            else:
                mixed = mixed + attend(query, key, value, axis)
        y = self.output_head(mixed.flatten(-2)) + self.mlp_remaining(hidden)
        return x + self.drop_path(self.gamma * y)  # type: ignore[no-any-return]


class AViT(nn.Module):
    """Axial vision transformer: (B, dim_in, x...) -> (B, dim_out, x...), on the one grid it was built for.

    The defaults are the benchmark's configuration.

    Args:
        dim_in, dim_out: channels in and out.
        n_spatial_dims: 1, 2 or 3.
        spatial_resolution: grid points per axis, divisible by 16; the learned table of positions has this size.
        hidden_dim: width of the vectors; a multiple of 48 (12 groups of a quarter of it) and of `num_heads`.
        num_heads: heads of attention.
        processor_blocks: number of blocks.
        drop_path: probability that training leaves the last block out for a sample; rises linearly to it from 0.
        layer_scale: where each block's gamma starts.
        published_attention: in 2D, attend as the published code does (see `AxialBlock`).
        gradient_checkpointing: recompute blocks in the backward pass: less memory, about a third more time.
    """

    def __init__(
        self,
        dim_in: int,
        dim_out: int,
        n_spatial_dims: int,
        spatial_resolution: Sequence[int],
        hidden_dim: int = 384,
        num_heads: int = 6,
        processor_blocks: int = 8,
        drop_path: float = 0.0,
        layer_scale: float = 1e-6,
        published_attention: bool = False,
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        size = check_dimensions("avit", n_spatial_dims, spatial_resolution)
        if min(hidden_dim, num_heads, processor_blocks, dim_in, dim_out) < 1 or not 0.0 <= drop_path < 1.0:
            raise ArgumentError(
                f"avit: hidden_dim={hidden_dim}, num_heads={num_heads}, processor_blocks={processor_blocks}, "
                f"channels {dim_in} -> {dim_out}, drop_path={drop_path}; all of them must be at least 1, and "
                "drop_path from 0 up to, but not, 1"
            )
        if hidden_dim % (4 * _GROUPS) or hidden_dim % num_heads:
            raise ArgumentError(
                f"avit: hidden_dim={hidden_dim} must be a multiple of {4 * _GROUPS} and of num_heads={num_heads}"
            )
        check_divisible("avit", size, PATCH, "the patch size", "crop or resize the fields, or try the fno")
        self.spatial_resolution = size
        self.recompute = gradient_checkpointing
        self.absolute_pe = nn.Parameter(0.02 * torch.randn(*(points // PATCH for points in size), hidden_dim))
        self.embed = Embedding(dim_in, hidden_dim, n_spatial_dims)
        self.blocks = nn.ModuleList(
            AxialBlock(
                hidden_dim,
                num_heads,
                n_spatial_dims,
                drop_path * number / max(processor_blocks - 1, 1),
                layer_scale,
                published_attention,
            )
            for number in range(processor_blocks)
        )
        self.debed = Debedding(hidden_dim, dim_out, n_spatial_dims)

    def forward(self, x: Tensor) -> Tensor:
        if tuple(x.shape[2:]) != self.spatial_resolution:
            raise ArgumentError(
                f"avit: fields of {'x'.join(map(str, x.shape[2:]))} points for a model of "
                f"{'x'.join(map(str, self.spatial_resolution))}; its table of positions fixes the grid"
            )
        x = self.embed(x).movedim(1, -1) + self.absolute_pe
        for block in self.blocks:
            x = apply(block, x, recompute=self.recompute)
        return self.debed(x.movedim(-1, 1))  # type: ignore[no-any-return]
