"""Fourier neural operator (Li et al., arXiv 2010.08895) in one, two or three dimensions.

Lifting, four blocks of spectral convolution beside a pointwise skip, projection. Layout, parameter names and
shapes are those of neuraloperator 0.3.0, which the published benchmark checkpoints were made with, so that
their weights fit in here; the code is our own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from wellkit.errors import ArgumentError
from wellkit.train.models.layers import CONVOLUTIONS, apply, check_dimensions

_AXES = "xyz"


class PointwiseMLP(nn.Module):
    """Two 1 x 1 convolutions with a GELU between them: (B, C_in, x...) -> (B, C_out, x...)."""

    def __init__(self, dim_in: int, dim_hidden: int, dim_out: int, n_spatial_dims: int) -> None:
        super().__init__()
        convolution = CONVOLUTIONS[n_spatial_dims]
        self.fcs = nn.ModuleList([convolution(dim_in, dim_hidden, 1), convolution(dim_hidden, dim_out, 1)])

    def forward(self, x: Tensor) -> Tensor:
        return self.fcs[1](functional.gelu(self.fcs[0](x)))  # type: ignore[no-any-return]


class SpectralWeight(nn.Module):
    """The complex weight of one spectral convolution, (C_in, C_out, modes...), kept as pairs of real numbers.

    Index j of an axis other than the last stands for frequency j - m // 2, index j of the last for frequency
    j (the other half follows from the fields being real).
    """

    def __init__(self, channels: int, modes: Sequence[int], std: float) -> None:
        super().__init__()

    def full(self) -> Tensor:
        """The weight as one complex tensor."""
        raise NotImplementedError


class DenseWeight(SpectralWeight):
    """Every number a parameter."""

    def __init__(self, channels: int, modes: Sequence[int], std: float) -> None:
        super().__init__(channels, modes, std)
        self.tensor = nn.Parameter(std * torch.randn(channels, channels, *modes, 2))

    def full(self) -> Tensor:
        """The weight; it shares memory with the parameter."""
        return torch.view_as_complex(self.tensor)


class SpectralConvolutions(nn.Module):
    """The spectral convolutions of all layers: a linear map of the low Fourier modes, and a bias, per layer.

    Always in float32: FFTs of half-precision numbers lose the small modes.
    """

    def __init__(
        self, channels: int, n_modes: Sequence[int], n_layers: int, weight: type[SpectralWeight] = DenseWeight
    ) -> None:
        super().__init__()
        self.modes = (*n_modes[:-1], n_modes[-1] // 2 + 1)
        std = math.sqrt(2.0 / (channels + channels))
        self.weight = nn.ModuleList(weight(channels, self.modes, std) for _ in range(n_layers))
        self.bias = nn.Parameter(std * torch.randn(n_layers, channels, *(1 for _ in n_modes)))
        axes = _AXES[: len(n_modes)]
        self._product = f"bi{axes},io{axes}->bo{axes}"

    def full_weight(self, layer: int) -> Tensor:
        """The complex weight of a layer, (C_in, C_out, modes...)."""
        weight = self.weight[layer]
        assert isinstance(weight, SpectralWeight)
        return weight.full()

    def forward(self, x: Tensor, layer: int) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return self._convolve(x.float(), layer)

    def _convolve(self, x: Tensor, layer: int) -> Tensor:
        size = tuple(x.shape[2:])
        axes = tuple(range(2, x.ndim))
        spectrum = torch.fft.rfftn(x, dim=axes, norm="forward")
        kept = [min(m, n) for m, n in zip(self.modes, spectrum.shape[2:], strict=True)]
        weight = self.full_weight(layer)
        low = spectrum
        for axis, (mode, stored) in enumerate(zip(kept, self.modes, strict=True), start=2):
            if axis < x.ndim - 1:
                weight = weight.narrow(axis, stored // 2 - mode // 2, mode)
                low = _gather_centred(low, axis, mode)
            else:
                weight, low = weight.narrow(axis, 0, mode), low.narrow(axis, 0, mode)
        mixed = torch.einsum(self._product, low, weight)
        for axis in axes[:-1]:
            mixed = _scatter_centred(mixed, axis, size[axis - 2])
        # irfftn pads the last axis with zeros by itself
        y: Tensor = torch.fft.irfftn(mixed, s=size, dim=axes, norm="forward")
        return y + self.bias[layer]


def _gather_centred(spectrum: Tensor, axis: int, modes: int) -> Tensor:
    """Frequencies -m//2 ... (m-1)//2 of a full FFT axis, in that order."""
    below, above = modes // 2, modes - modes // 2
    size = spectrum.shape[axis]
    return torch.cat([spectrum.narrow(axis, size - below, below), spectrum.narrow(axis, 0, above)], dim=axis)


def _scatter_centred(modes: Tensor, axis: int, size: int) -> Tensor:
    """Undo `_gather_centred`, with zeros for the frequencies that were left out."""
    kept = modes.shape[axis]
    below, above = kept // 2, kept - kept // 2
    shape = list(modes.shape)
    shape[axis] = size - kept
    middle = modes.new_zeros(shape)
    return torch.cat([modes.narrow(axis, below, above), middle, modes.narrow(axis, 0, below)], dim=axis)


class FNOBlocks(nn.Module):
    """Block l: spectral convolution + pointwise skip, then GELU except after the last block."""

    def __init__(self, channels: int, n_modes: Sequence[int], n_layers: int, weight: type[SpectralWeight]) -> None:
        super().__init__()
        convolution = CONVOLUTIONS[len(n_modes)]
        self.n_layers = n_layers
        self.convs = SpectralConvolutions(channels, n_modes, n_layers, weight)
        self.fno_skips = nn.ModuleList(convolution(channels, channels, 1, bias=False) for _ in range(n_layers))

    def forward(self, x: Tensor, layer: int) -> Tensor:
        y = self.convs(x, layer) + self.fno_skips[layer](x)
        return functional.gelu(y) if layer < self.n_layers - 1 else y


class FNOCore(nn.Module):
    """Lifting -> blocks -> projection, in the published module tree."""

    def __init__(
        self,
        dim_in: int,
        dim_out: int,
        n_modes: Sequence[int],
        *,
        channels: int,
        lifting: int,
        projection: int,
        n_layers: int,
        weight: type[SpectralWeight],
        recompute: bool,
        skip_blocks: bool,
    ) -> None:
        super().__init__()
        dims = len(n_modes)
        self.recompute = recompute
        self.skip_blocks = skip_blocks
        self.fno_blocks = FNOBlocks(channels, n_modes, n_layers, weight)
        self.lifting = PointwiseMLP(dim_in, lifting, channels, dims)
        self.projection = PointwiseMLP(channels, projection, dim_out, dims)

    def forward(self, x: Tensor) -> Tensor:
        x = self.lifting(x)
        for layer in range(0 if self.skip_blocks else self.fno_blocks.n_layers):
            x = apply(self.fno_blocks, x, layer, recompute=self.recompute)
        return self.projection(x)  # type: ignore[no-any-return]


class FNO(nn.Module):
    """Fourier neural operator: (B, dim_in, x...) -> (B, dim_out, x...), float32, any grid size.

    Modes beyond what a small grid has are left unused. The defaults are the benchmark's configuration.

    Args:
        dim_in, dim_out: channels in and out.
        n_spatial_dims: 1, 2 or 3.
        spatial_resolution: grid points per axis; kept as a record, the operator works on any resolution.
        modes1, modes2, modes3: Fourier modes kept per axis, counting both signs (the last axis keeps m // 2 +
            1).
        hidden_channels: width of the blocks.
        lifting_channels, projection_channels: width between the two pointwise layers before and after the
            blocks; they work on every grid point, so that on a CPU a narrow model spends most of its time
            there.
        gradient_checkpointing: recompute blocks in the backward pass: less memory, about a third more time.
        legacy_skip_blocks: go from lifting to projection without the blocks, as the published checkpoints did in
            training: their spectral weights are still the random ones they began with.
    """

    name = "fno"
    weight: type[SpectralWeight] = DenseWeight

    def __init__(
        self,
        dim_in: int,
        dim_out: int,
        n_spatial_dims: int,
        spatial_resolution: Sequence[int],
        modes1: int = 16,
        modes2: int = 16,
        modes3: int = 16,
        hidden_channels: int = 128,
        lifting_channels: int = 256,
        projection_channels: int = 256,
        gradient_checkpointing: bool = False,
        legacy_skip_blocks: bool = False,
    ) -> None:
        super().__init__()
        self.spatial_resolution = check_dimensions(self.name, n_spatial_dims, spatial_resolution)
        n_modes = (modes1, modes2, modes3)[:n_spatial_dims]
        if min(*n_modes, hidden_channels, lifting_channels, projection_channels, dim_in, dim_out) < 1:
            raise ArgumentError(
                f"{self.name}: modes {n_modes}, hidden_channels={hidden_channels}, "
                f"lifting_channels={lifting_channels}, projection_channels={projection_channels}, "
                f"channels {dim_in} -> {dim_out}; all of them must be at least 1"
            )
        self.model = FNOCore(
            dim_in,
            dim_out,
            n_modes,
            channels=hidden_channels,
            lifting=lifting_channels,
            projection=projection_channels,
            n_layers=4,
            weight=self.weight,
            recompute=gradient_checkpointing,
            skip_blocks=legacy_skip_blocks,
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)  # type: ignore[no-any-return]
