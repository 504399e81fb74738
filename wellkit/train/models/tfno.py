"""Tucker-factorized Fourier neural operator (Kossaifi et al., arXiv 2310.00120) in one, two or three dimensions.

An FNO whose spectral weights are a core times a matrix along each axis (Tucker, 1966). Parameter names, shapes and
ranks are those of neuraloperator 0.3.0's `TFNO` at rank 1.0, which the published checkpoints were made with; the
code is our own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from wellkit.train.models.fno import FNO, SpectralWeight


def tucker_ranks(shape: Sequence[int]) -> tuple[int, ...]:
    """Ranks with which core and factors together have about as many numbers as the tensor (rank 1.0).

    All axes shrink by one fraction c, the root in [0, 1] of c^k prod(shape) + c sum(shape^2) = prod(shape); ranks are
    rounded. With the usual widths they are the shape itself, so that nothing is saved.
    """
    whole, squares = math.prod(shape), sum(size**2 for size in shape)
    low, high = 0.0, 1.0
    while low < (middle := (low + high) / 2) < high:
        if middle ** len(shape) * whole + middle * squares < whole:
            low = middle
        else:
            high = middle
    return tuple(max(round(size * low), 1) for size in shape)


class TuckerWeight(SpectralWeight):
    """A complex core of shape (ranks...) and for axis k a complex matrix `factor_k`, (size, rank).

    Drawn so that the full weight starts with standard deviation `std` in its real and imaginary parts, as a dense
    one does.
    """

    def __init__(self, channels: int, modes: Sequence[int], std: float) -> None:
        super().__init__(channels, modes, std)
        shape = (channels, channels, *modes)
        ranks = tucker_ranks(shape)
        self.core = nn.Parameter(std * torch.randn(*ranks, 2))
        self.factors = nn.ParameterDict(
            {
                f"factor_{axis}": nn.Parameter(torch.randn(size, rank, 2) / math.sqrt(2 * rank))
                for axis, (size, rank) in enumerate(zip(shape, ranks, strict=True))
            }
        )

    def full(self) -> Tensor:
        weight = torch.view_as_complex(self.core)
        for axis, factor in enumerate(self.factors.values()):
            product = torch.tensordot(torch.view_as_complex(factor), weight, dims=([1], [axis]))
            weight = product.movedim(0, axis)
        return weight


class TFNO(FNO):
    """Tucker-factorized Fourier neural operator: everything as `FNO` but for how spectral weights are kept.

    Raises:
        ArgumentError: as `FNO`.
    """

    name = "tfno"
    weight = TuckerWeight
