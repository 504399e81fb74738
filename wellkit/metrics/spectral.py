"""Measures in wavenumber space: the power spectrum, and errors by band of wavenumbers.

Common to all of them:

Shapes: fields are (..., space..., component); results are (..., band, component). There are three bands unless
    edges are given.
Wavenumber: the length of the angular wave vector, k = 2 pi |(f_1 / d_1, ..., f_n / d_n)| with f_i the frequency
    along axis i in cycles per cell and d_i the grid spacing; without `spacing`, d_i = 1 and k is in radians per
    cell. A band holds edges[b] <= k < edges[b + 1]; the last one also holds its upper edge.
Default edges: logarithmic from 2 pi / (the longest side) to the largest k of the grid (its corner), four edges,
    the first then set to 0, so that the mean of the field is in the lowest band and no mode is left out.
Transform: `numpy.fft.rfftn` or `torch.fft.rfftn`, unnormalized, over all of space as if it were periodic: where
    the domain is not, the jump at its ends leaks into all bands. Grids are taken as evenly spaced.
Precision: NumPy works in float64, frame by frame, so that memory stays at one frame and values do not depend on
    the batch; torch keeps its dtype (half precision is raised to float32) and stays differentiable.
Not-a-number: nothing is masked. NaN or infinity anywhere in a frame's component makes all its bands NaN.
compat: "the_well" gives the numbers of `the_well` 1.2 (benchmark/metrics/spectral.py): wavenumbers in radians
    per cell, edges in float32 ending 1e-6 beyond the corner, eps fixed at 1e-7.

All raise ScoreError as the point-by-point measures do, and for edges or spacings that make no sense.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from wellkit.errors import ScoreError
from wellkit.frameworks import Array
from wellkit.metrics.rows import DEFAULT_EPS, Compat, Field, NumPyRows, Pair, check_compat, quiet

BANDS = ("low", "middle", "high")


class PowerSpectrum(NamedTuple):
    """A spectrum by shells of wavenumbers.

    Attributes:
        edges: (shell + 1), wavenumbers.
        mean, std: (..., shell, component), of |FFT|^2 over the modes of a shell; NaN in a shell without modes.
        counts: (shell), modes in each.
    """

    edges: np.ndarray
    mean: Array
    std: Array
    counts: np.ndarray


@dataclass(frozen=True)
class _Modes:
    """Which band each mode of the half spectrum belongs to, and how many modes of the whole one it stands for."""

    space: tuple[int, ...]
    edges: np.ndarray
    band: np.ndarray  # (mode), -1 for modes in none
    weight: np.ndarray  # (mode), 1 or 2

    @property
    def counts(self) -> np.ndarray:
        inside = self.band >= 0
        counted = np.bincount(self.band[inside], self.weight[inside], minlength=len(self.edges) - 1)
        return np.rint(counted).astype(np.int64)


def _modes(
    space: tuple[int, ...], edges: Any, spacing: float | Sequence[float] | None, compat: Compat, *, shells: bool = False
) -> _Modes:
    if compat == "the_well" and spacing is not None:
        raise ScoreError("compat='the_well' measures wavenumbers in cells; leave spacing out")
    steps = [float(step) for step in np.broadcast_to(1.0 if spacing is None else spacing, (len(space),))]
    if not all(0 < step < math.inf for step in steps):
        raise ScoreError(f"spacing={spacing}; give one positive number, or one for each space axis")
    # the_well bins in float32: a mode that lies on an edge has to fall to the same side.
    kind = np.float32 if compat == "the_well" else np.float64
    squares: np.ndarray = np.zeros((), dtype=kind)
    for axis, (size, step) in enumerate(zip(space, steps, strict=True)):
        cycles: Any = np.fft.fftfreq(size, 1 / size) if axis < len(space) - 1 else np.arange(size // 2 + 1)
        along: np.ndarray = (cycles.astype(kind) * kind(1 / (size * step)) * kind(2 * np.pi)) ** 2
        squares = squares + along.reshape(-1, *(1,) * (len(space) - 1 - axis))
    wavenumbers = np.sqrt(squares).ravel().astype(np.float64)
    twice = np.full(space[-1] // 2 + 1, 2.0)
    twice[0] = 1.0
    if space[-1] % 2 == 0:
        twice[-1] = 1.0
    weight = np.broadcast_to(twice, squares.shape).ravel()
    if edges is None:
        edges = _shell_edges(space, wavenumbers, compat) if shells else _band_edges(space, steps, compat)
    edges = np.asarray(edges, dtype=np.float64)
    if edges.ndim != 1 or len(edges) < 2 or not (np.isfinite(edges).all() and (np.diff(edges) > 0).all()):
        raise ScoreError(f"edges={edges.tolist()}; give at least two finite wavenumbers in rising order")
    band = np.searchsorted(edges, wavenumbers, side="right") - 1
    # The corner itself can come out a rounding above the edge that was computed for it.
    at_top = np.isclose(wavenumbers, edges[-1], rtol=1e-12, atol=0) & (compat is None)
    band = np.where(at_top, len(edges) - 2, np.where(wavenumbers < edges[-1], band, -1))
    return _Modes(space, edges, band, weight)


def _band_edges(space: tuple[int, ...], steps: Sequence[float], compat: Compat) -> np.ndarray:
    if compat == "the_well":
        first, last = 2 * math.pi / max(space), math.pi * math.sqrt(len(space)) + 1e-6
        edges = np.logspace(math.log10(first), math.log10(last), 4).astype(np.float32).astype(np.float64)
    else:
        longest = max(size * step for size, step in zip(space, steps, strict=True))
        corner = math.pi * math.sqrt(sum(1 / step**2 for step in steps))
        edges = np.geomspace(2 * math.pi / longest, corner, 4)
    if not edges[0] < edges[-1]:
        raise ScoreError(f"a grid of {'x'.join(map(str, space))} points is too small for bands of wavenumbers")
    edges[0] = 0.0
    return edges


def _shell_edges(space: tuple[int, ...], wavenumbers: np.ndarray, compat: Compat) -> np.ndarray:
    count = int(math.sqrt(min(space)))
    if count < 2:
        raise ScoreError(f"a grid of {'x'.join(map(str, space))} points has no default shells; give bins")
    if compat is None:
        return np.linspace(0, wavenumbers.max(), count)
    last = np.float32(wavenumbers.max() + 1e-6)
    step = last / np.float32(count - 1)
    from_below = np.arange(count).astype(np.float32) * step
    from_above = last - np.arange(count)[::-1].astype(np.float32) * step
    return np.where(np.arange(count) < count // 2, from_below, from_above).astype(np.float64)


def _power(rows: Array, ops: Any, modes: _Modes) -> list[Array]:
    """Per band, over the modes of the whole spectrum: sums of |FFT|^2 and of its squared deviation from their mean.

    Each is (..., component, band).
    """
    n_bands = len(modes.edges) - 1
    axes = tuple(range(-len(modes.space), 0))
    inside = modes.band >= 0
    if ops is NumPyRows:
        flat = rows.reshape(-1, rows.shape[-1])
        sums = np.empty((2, len(flat), n_bands))
        weight, band, counts = modes.weight[inside], modes.band[inside], np.maximum(modes.counts, 1)
        for number, row in enumerate(flat):
            spectrum = np.fft.rfftn(row.reshape(modes.space), axes=axes).ravel()[inside]
            power = spectrum.real**2 + spectrum.imag**2
            sums[0, number] = np.bincount(band, weight * power, minlength=n_bands)
            mean = sums[0, number] / counts
            sums[1, number] = np.bincount(band, weight * (power - mean[band]) ** 2, minlength=n_bands)
            if not np.isfinite(row).all():  # bands without modes too: the frame as a whole cannot be transformed
                sums[:, number] = np.nan
        return [part.reshape(*rows.shape[:-1], n_bands) for part in sums]
    torch = importlib.import_module("torch")
    spectrum = torch.fft.rfftn(rows.unflatten(-1, modes.space), dim=axes).flatten(-len(modes.space))
    keep = torch.as_tensor(np.flatnonzero(inside), device=rows.device)
    band = torch.as_tensor(modes.band[inside], device=rows.device)
    weight = ops.constant(modes.weight[inside], rows)
    counts = ops.constant(np.maximum(modes.counts, 1), rows)
    spectrum = spectrum.index_select(-1, keep)
    power = spectrum.real**2 + spectrum.imag**2
    nothing = power.new_zeros((*power.shape[:-1], n_bands)) + rows.sum(-1, keepdim=True) * 0
    total = nothing.index_add(-1, band, power * weight)
    deviations = (power - (total / counts).index_select(-1, band)) ** 2
    return [total, nothing.index_add(-1, band, deviations * weight)]


def _by_band(values: Array, back: Any) -> Array:
    """(..., component, band) as (..., band, component) in the caller's framework."""
    return back(np.swapaxes(values, -1, -2) if isinstance(values, np.ndarray) else values.swapaxes(-1, -2))


def power_spectrum(
    field: Array,
    *,
    n_spatial_dims: int,
    bins: Sequence[float] | np.ndarray | None = None,
    spacing: float | Sequence[float] | None = None,
    compat: Compat = None,
) -> PowerSpectrum:
    """Isotropic power spectrum: mean and standard deviation of |FFT|^2 over shells of wavenumbers.

    Unnormalized: summed over all modes, |FFT|^2 / N^2 is mean(x^2) (Plancherel), N the number of grid points.

    Args:
        field: (..., space..., component), real.
        n_spatial_dims: how many axes before the last one are space.
        bins: edges of the shells; None for int(sqrt(the shortest side)) edges, evenly from 0 to the corner. Modes
            outside all shells are left out.
        spacing: of the grid, one number or one for each axis; None for 1.
        compat: "the_well" divides by the number of modes + 1e-7, so that a shell without modes is 0, not NaN.
    """
    check_compat(compat)
    whole = Field(field, n_spatial_dims)
    modes = _modes(whole.space, bins, spacing, compat, shells=True)
    with quiet():
        total, squares = _power(whole.rows, whole.ops, modes)
        counts = whole.ops.constant(modes.counts + (1e-7 if compat == "the_well" else 0.0), whole.rows)
        mean, deviation = total / counts, whole.ops.sqrt(squares / counts)
    return PowerSpectrum(modes.edges, _by_band(mean, whole.back), _by_band(deviation, whole.back), modes.counts)


def _energies(pair: Pair, modes: _Modes, *rows: Array) -> list[Array]:
    """Per band, the part of mean(rows^2) that its modes carry."""
    return [_power(each, pair.ops, modes)[0] / pair.points**2 for each in rows]


def binned_spectral_mse(
    prediction: Array,
    target: Array,
    *,
    n_spatial_dims: int,
    bins: Sequence[float] | np.ndarray | None = None,
    spacing: float | Sequence[float] | None = None,
    compat: Compat = None,
) -> Array:
    """Mean squared error by band: sum over the band's modes of |FFT(x - y)|^2, over N^2.

    In the square of the fields' unit; with the default edges the sum over bands is MSE (Plancherel). Source: the
    code of `the_well` 1.2, benchmark/metrics/spectral.py.

    Args:
        prediction: x, (..., space..., component).
        target: y, the same shape.
        n_spatial_dims: how many axes before the last one are space.
        bins: edges of the bands, rising; None for three bands (see the module). Modes outside are left out.
        spacing: of the grid, one number or one for each axis, in any unit of length; None for 1. Makes the bands
            the same physical scales on grids whose axes are spaced unequally.
        compat: "the_well" for its edges (see the module).

    Returns:
        (..., band, component)
    """
    pair = Pair(prediction, target, n_spatial_dims, compat)
    modes = _modes(pair.space, bins, spacing, compat)
    with quiet():
        (error,) = _energies(pair, modes, pair.prediction - pair.target)
    return _by_band(error, pair.back)


def binned_spectral_nmse(
    prediction: Array,
    target: Array,
    *,
    n_spatial_dims: int,
    eps: float = DEFAULT_EPS,
    bins: Sequence[float] | np.ndarray | None = None,
    spacing: float | Sequence[float] | None = None,
    compat: Compat = None,
) -> Array:
    """Normalized mean squared error by band: MSE_b / (E_b + eps), E_b the target's energy in the band, no unit.

    E_b = sum over the band's modes of |FFT(y)|^2 / N^2. The lowest band's energy includes the mean of the field.

    Args:
        prediction, target, n_spatial_dims, bins, spacing: as for `binned_spectral_mse`.
        eps: added to E_b, in the square of the fields' unit; it decides the value of bands the target leaves
            (nearly) empty.
        compat: "the_well" for its edges, and eps at 1e-7 whatever is passed.

    Returns:
        (..., band, component)
    """
    pair = Pair(prediction, target, n_spatial_dims, compat)
    return _by_band(_relative_error(pair, _modes(pair.space, bins, spacing, compat), eps, compat), pair.back)


def _relative_error(pair: Pair, modes: _Modes, eps: float, compat: Compat) -> Array:
    with quiet():
        error, energy = _energies(pair, modes, pair.prediction - pair.target, pair.target)
        return error / (energy + (DEFAULT_EPS if compat == "the_well" else eps))


def spectral_error(
    prediction: Array,
    target: Array,
    *,
    n_spatial_dims: int,
    eps: float = DEFAULT_EPS,
    bins: Sequence[float] | np.ndarray | None = None,
    spacing: float | Sequence[float] | None = None,
    compat: Compat = None,
) -> Array:
    """Spectral error: sqrt(binned spectral NMSE), the share of each band's amplitude that is wrong, no unit.

    0 for a perfect prediction, 1 for one that leaves the band empty (up to eps), above 1 for worse than that. A
    wave of the right strength in the wrong place is an error here; `spectral_energy_error` forgives it.
    Arguments and shapes as for `binned_spectral_nmse`.
    """
    pair = Pair(prediction, target, n_spatial_dims, compat)
    values = _relative_error(pair, _modes(pair.space, bins, spacing, compat), eps, compat)
    with quiet():
        return _by_band(pair.ops.sqrt(values), pair.back)


def spectral_energy_error(
    prediction: Array,
    target: Array,
    *,
    n_spatial_dims: int,
    eps: float = DEFAULT_EPS,
    bins: Sequence[float] | np.ndarray | None = None,
    spacing: float | Sequence[float] | None = None,
    compat: Compat = None,
) -> Array:
    """Error of the spectrum, blind to phases: |E_b(x) - E_b(y)| / (E_b(y) + eps), no unit.

    1 where a prediction has smoothed a band away, 0 where it carries the right energy wherever it puts it.
    Arguments and shapes as for `binned_spectral_nmse`; `the_well` has no such measure (compat: its edges and eps).
    """
    pair = Pair(prediction, target, n_spatial_dims, compat)
    modes = _modes(pair.space, bins, spacing, compat)
    with quiet():
        predicted, true = _energies(pair, modes, pair.prediction, pair.target)
        values = abs(predicted - true) / (true + (DEFAULT_EPS if compat == "the_well" else eps))
    return _by_band(values, pair.back)
