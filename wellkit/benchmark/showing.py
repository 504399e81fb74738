"""What of one rollout is kept in a result for people to look at: a few frames of one component, small, and spectra."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence

import numpy as np

from wellkit.benchmark.rollout import RolloutPiece
from wellkit.errors import ScoreError
from wellkit.metrics import power_spectrum
from wellkit.schemas.result import Example, Picture, Spectrum

LARGEST_SIDE = 96  # points of a picture; finer grids are thinned out
_STEPS = 4
_SHELLS = 40  # of wavenumbers, at most


class ExampleMaker:
    """Collects an example while a rollout passes by.

    Args:
        trajectory: its number in the split.
        length: steps of its rollout.
        names: of the components.
        axes: names of the space axes.
        lengths: of the domain along them, 0 where unknown.
    """

    def __init__(
        self, trajectory: int, length: int, names: Sequence[str], axes: Sequence[str], lengths: Sequence[float]
    ) -> None:
        self._trajectory, self._names, self._axes, self._lengths = trajectory, names, axes, lengths
        self._steps = sorted({int(step) for step in np.geomspace(1, length, _STEPS).round()})
        self._frames: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        self._spectra: list[Spectrum] = []

    def see(self, piece: RolloutPiece) -> None:
        """Keep what is wanted of a piece."""
        for step in self._steps:
            at = step - piece.first_step
            if 0 <= at < len(piece.prediction):
                truth, prediction = piece.target[at, ..., 0], piece.prediction[at, ..., 0]
                self._frames[step] = (_small(truth), _small(prediction))
                self._spectra += _spectrum(step, truth, prediction)

    def made(self) -> Example | None:
        """The example; None where the truth has no finite value to scale by."""
        truths = np.concatenate([truth.ravel() for truth, _ in self._frames.values()])
        truths = truths[np.isfinite(truths)]
        if not truths.size:
            return None
        low, high = (float(value) for value in np.percentile(truths, (0.5, 99.5)))
        high = high if high > low else low + max(abs(low), 1.0) * 1e-6
        shape = next(iter(self._frames.values()))[0].shape
        axes, lengths = (*self._axes, "")[:2], (*self._lengths, 0.0)[:2]
        return Example(
            trajectory=self._trajectory,
            component=self._names[0],
            shape=(shape[0], shape[1]),
            axes=(axes[0], axes[1]),
            extent=(float(lengths[0]), float(lengths[1])),
            low=low,
            high=high,
            pictures=tuple(
                Picture(step=step, truth=_bytes(truth, low, high), prediction=_bytes(prediction, low, high))
                for step, (truth, prediction) in self._frames.items()
            ),
            spectra=tuple(self._spectra),
        )


def _small(frame: np.ndarray) -> np.ndarray:
    """(x, y) at most `LARGEST_SIDE` points long, by leaving points out; the middle of a third axis; (1, x) in 1D."""
    if frame.ndim == 3:
        frame = frame[:, :, frame.shape[2] // 2]
    frame = np.atleast_2d(frame)
    thin = [-(-size // LARGEST_SIDE) for size in frame.shape]
    return np.array(frame[:: thin[0], :: thin[1]])


def _bytes(values: np.ndarray, low: float, high: float) -> str:
    scaled = np.clip((values.astype(np.float64) - low) / (high - low), 0, 1) * 255
    return base64.b64encode(np.nan_to_num(scaled).round().astype(np.uint8).tobytes()).decode("ascii")


def _spectrum(step: int, truth: np.ndarray, prediction: np.ndarray) -> list[Spectrum]:
    corner = np.pi * math.sqrt(truth.ndim)
    bins = np.linspace(0, corner, min(_SHELLS, max(truth.shape) // 2) + 1)
    try:
        of_truth, of_prediction = (
            power_spectrum(field[..., None], n_spatial_dims=field.ndim, bins=bins) for field in (truth, prediction)
        )
    except ScoreError:  # a grid too small for shells
        return []
    middles = (of_truth.edges[1:] + of_truth.edges[:-1]) / 2
    power = np.stack([np.asarray(of_truth.mean)[:, 0], np.asarray(of_prediction.mean)[:, 0]])
    kept = [i for i in range(len(middles)) if math.isfinite(power[0, i])]
    if not kept:
        return []
    return [
        Spectrum(
            step=step,
            wavenumber=tuple(middles[kept].tolist()),
            truth=tuple(power[0, kept].tolist()),
            prediction=tuple(power[1, kept].tolist()),
        )
    ]
