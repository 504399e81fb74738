"""One trajectory scored: every window of it, its rollout, the bytes they were scored against. Streamed."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from wellkit import metrics
from wellkit.benchmark.conservation import ConservedComponent, conserved_components
from wellkit.benchmark.contenders import Contender
from wellkit.benchmark.describing import card_of
from wellkit.benchmark.predictions import PredictionsWriter
from wellkit.benchmark.rollout import RolloutPiece, RolloutPlan, plan_rollouts, roll_out
from wellkit.benchmark.tables import TrajectoryTable
from wellkit.errors import ArgumentError, PredictionsError, ScoreError
from wellkit.metrics import BANDS, ScoreTable
from wellkit.schemas.protocol import Protocol
from wellkit.train.data import Batch, Batches, check_finite, components, open_split
from wellkit.windows import WindowTable

OnPiece = Callable[[RolloutPiece], None]
Advance = Callable[[str, int], None]
"""Told "one-step" or "rollout" and how many windows or steps are done."""


@dataclass
class Scorer:
    """A contender under a protocol, trajectory by trajectory.

    Args:
        rollout_steps: longest rollout; None for whole trajectories.
        batch_size: windows at once; rollouts go one by one, whatever it is.
        workers: processes that read ahead.
        writer: gets every prediction, too.
    """

    contender: Contender
    protocol: Protocol
    rollout_steps: int | None = None
    batch_size: int = 16
    workers: int = 0
    writer: PredictionsWriter | None = None
    waited: float = 0.0
    plan: RolloutPlan = field(init=False)

    def __post_init__(self) -> None:
        contender, wanted = self.contender, self.protocol.n_steps_input
        steps = contender.n_steps_input
        if wanted is not None and steps != wanted:
            raise ArgumentError(
                f"protocol {self.protocol.name} gives models {wanted} input steps; {contender.described.name} takes "
                f"{steps}; score it under another protocol (wellkit-1)"
            )
        first = self.protocol.first_frame(steps)
        if first < steps:
            raise ArgumentError(
                f"protocol {self.protocol.name} begins rollouts at frame {first}; {contender.described.name} needs "
                f"{steps} true frames before it"
            )
        self.plan = plan_rollouts(
            contender.name,
            contender.data,
            contender.split,
            n_steps_input=steps,
            first_frame=first,
            max_steps=self.rollout_steps,
        )
        metadata = contender.windows.metadata
        self.names = components(contender.windows)
        self.table = WindowTable(metadata.n_trajectories_per_file, contender.windows.n_windows_per_trajectory)
        self.dims = metadata.n_spatial_dims
        self._batches = Batches(
            contender.windows, batch_size=self.batch_size, workers=self.workers, device=contender.device
        )
        self._pieces = Batches(self.plan.dataset, batch_size=1, workers=self.workers, device=contender.device)
        self._conserved = self._conserved_quantities() if self.protocol.conservation else ()

    @property
    def n_trajectories(self) -> int:
        """Of the split."""
        return self.table.n_trajectories

    @property
    def totals(self) -> dict[str, int]:
        """Windows and rollout steps of the split."""
        return {"one-step": len(self.table), "rollout": sum(self.plan.lengths)}

    def windows_of(self, trajectory: int) -> np.ndarray:
        """Indices of a trajectory's windows, in order of time."""
        return self.table.of_trajectories(np.array([trajectory]))

    def score(
        self, trajectory: int, *, on_piece: OnPiece | None = None, advance: Advance | None = None
    ) -> TrajectoryTable:
        """Everything one trajectory's predictions come to; memory: a batch of windows or a piece of its rollout.

        Raises:
            DataValueError: NaN in the data where the card allows none, or infinity.
        """
        windows = self.windows_of(trajectory)
        place = self.table.locate(int(windows[0]))
        files, metadata = self.contender.windows.files_paths, self.contender.windows.metadata
        scores = self._score_table()
        digest = hashlib.sha256()
        spectral: list[np.ndarray] | None = [] if self.protocol.spectral and self._has_bands() else None
        for start, batch in self._in_batches(windows):
            check_finite(batch, self.contender.windows, self.contender.allowed, split=self.contender.split)
            _hash_frames(digest, batch, first=start == 0)
            predicted = self.contender.forecasts.one_step(trajectory, start, batch)
            target = batch.outputs[:, 0].cpu().numpy()
            self._check_there("window", trajectory, start, predicted, target)
            scores.add(range(start, start + len(batch)), predicted, target)
            if spectral is not None:
                spectral.append(_band_energies(predicted, target, self.dims))
            if self.writer is not None:
                self.writer.one_step(trajectory, start, _storable(predicted))
            if advance is not None:
                advance("one-step", len(batch))
        self.waited += self._batches.waited
        rollout, drifts = self._roll_out(trajectory, on_piece, advance)
        self.waited += self._pieces.waited
        return TrajectoryTable(
            file=str(files[place.file]).rsplit("/", 1)[-1],
            trajectory=place.trajectory,
            frames=metadata.n_steps_per_trajectory[place.file],
            parameters=self._parameters(int(windows[0])),
            content_sha256=digest.hexdigest(),
            one_step=scores.entries(range(len(windows))),
            rollout=rollout,
            spectral=None if spectral is None else np.concatenate(spectral, axis=1),
            drift=drifts,
        )

    def _in_batches(self, windows: np.ndarray) -> Iterator[tuple[int, Batch]]:
        size = self.batch_size
        groups = [windows[start : start + size].tolist() for start in range(0, len(windows), size)]
        for number, batch in enumerate(self._batches.of_groups(groups)):
            yield number * size, batch

    def _score_table(self) -> ScoreTable:
        return ScoreTable(n_spatial_dims=self.dims, outside=any(self.contender.allowed))

    def _roll_out(
        self, trajectory: int, on_piece: OnPiece | None, advance: Advance | None
    ) -> tuple[np.ndarray, dict[str, tuple[str, np.ndarray, np.ndarray]]]:
        scores = self._score_table()
        drifts: list[list[tuple[np.ndarray, np.ndarray]]] = [[] for _ in self._conserved]
        initial = None
        pieces = roll_out(
            self.contender.forecasts,
            self.plan,
            self._pieces,
            trajectory,
            split=self.contender.split,
            allowed=self.contender.allowed,
        )
        for piece in pieces:
            first, count = piece.first_step - 1, len(piece.prediction)
            self._check_there("step", trajectory, first, piece.prediction, piece.target)
            scores.add(range(first, first + count), piece.prediction, piece.target)
            initial = piece.initial if initial is None else initial
            assert initial is not None
            for conserved, found in zip(self._conserved, drifts, strict=True):
                model, data = (_drift(part, initial, conserved, self.dims) for part in (piece.prediction, piece.target))
                found.append((model, data))
            if self.writer is not None:
                self.writer.rollout(trajectory, first, _storable(piece.prediction))
            if on_piece is not None:
                on_piece(piece)
            if advance is not None:
                advance("rollout", count)
        of_model = {
            conserved.quantity: (
                self.names[conserved.component],
                np.concatenate([model for model, _ in found]),
                np.concatenate([data for _, data in found]),
            )
            for conserved, found in zip(self._conserved, drifts, strict=True)
        }
        return scores.entries(range(self.plan.lengths[trajectory])), of_model

    def _check_there(self, what: str, trajectory: int, first: int, predicted: np.ndarray, target: np.ndarray) -> None:
        """Refuse NaN at points that are scored where it can only be a mistake."""
        if not self.contender.forecasts.nan_is_a_mistake or not np.isnan(predicted).any():
            return
        missing = np.argwhere(np.isnan(predicted) & ~np.isnan(target))
        if len(missing):
            at, name = int(missing[0][0]), self.names[int(missing[0][-1])]
            part = "one_step" if what == "window" else "rollout"
            raise PredictionsError(
                f"{self.contender.described.name}: {part} of trajectory {trajectory} holds NaN in {name!r}, {what} "
                f"{first + at} (from 0), point {tuple(missing[0][1:-1].tolist())}; predict every point, and write "
                "infinity where a model diverged"
            )

    def _parameters(self, window: int) -> dict[str, float]:
        """Scalars of the trajectory that do not vary in time: what its simulation was set to."""
        names = self.contender.windows.metadata.constant_scalar_names
        if not names:
            return {}
        values = np.asarray(self.contender.windows[window]["constant_scalars"], dtype=np.float32)
        # float32 on disk: the shortest decimal that means the same number is what was written.
        found = {name: float(np.format_float_positional(value)) for name, value in zip(names, values, strict=True)}
        return {name: value for name, value in found.items() if math.isfinite(value)}

    def _conserved_quantities(self) -> tuple[ConservedComponent, ...]:
        contender = self.contender
        card = card_of(contender.windows.metadata.dataset_name)
        if card is None or not card.conserved:
            return ()
        grid = None
        if any(conserved.weights == "sphere" for conserved in card.conserved):
            located = open_split(
                contender.name, contender.data, contender.split, n_steps_input=1, warn=False, grid=True
            )
            grid = np.asarray(located[0]["space_grid"])
        return tuple(conserved_components(card, self.names, grid))

    def _has_bands(self) -> bool:
        shape = (*self.contender.windows.metadata.spatial_resolution, 1)
        try:
            metrics.binned_spectral_mse(np.zeros(shape), np.zeros(shape), n_spatial_dims=self.dims)
        except ScoreError:
            return False
        return True


def _storable(predicted: np.ndarray) -> np.ndarray:
    """NaN as infinity, which scores the same: on disk NaN means that something is missing."""
    return np.where(np.isnan(predicted), np.float32(np.inf), predicted)


def _hash_frames(digest: hashlib._Hash, batch: Batch, *, first: bool) -> None:
    """Constant fields, then every frame, each once: little-endian float32, channels last.

    So neither compression nor the cut into windows matters.
    """
    if first:
        if batch.constants is not None:
            digest.update(_bytes(batch.constants[0].cpu().numpy()))
        digest.update(_bytes(batch.inputs[0].cpu().numpy()))
    digest.update(_bytes(batch.outputs[:, 0].cpu().numpy()))


def _bytes(values: np.ndarray) -> memoryview:
    return np.ascontiguousarray(values, dtype="<f4").data


def _band_energies(prediction: np.ndarray, target: np.ndarray, dims: int) -> np.ndarray:
    """(mean squared error | energy of the target's fluctuations, window, band, component), float64.

    Energy without the mean of the field, which would hide what the lowest band gets wrong. Infinite where a
    prediction is not finite; NaN where a target has points outside the domain.
    """
    space = tuple(range(1, 1 + dims))
    zero = np.zeros_like(target, dtype=np.float64)
    centred = target - target.mean(axis=space, keepdims=True, dtype=np.float64)
    error = metrics.binned_spectral_mse(prediction, target, n_spatial_dims=dims)
    energy = metrics.binned_spectral_mse(centred, zero, n_spatial_dims=dims)
    bad = ~np.isfinite(prediction).all(axis=space)[:, None] & np.isfinite(target).all(axis=space)[:, None]
    error = np.where(np.broadcast_to(bad, error.shape), np.inf, error)
    assert error.shape[1] == len(BANDS)
    return np.stack([error, energy])


def _drift(fields: np.ndarray, initial: np.ndarray, conserved: ConservedComponent, dims: int) -> np.ndarray:
    chosen = slice(conserved.component, conserved.component + 1)
    values = metrics.conservation_drift(
        fields[..., chosen], initial[..., chosen], n_spatial_dims=dims, weights=conserved.weights
    )
    return np.asarray(values)[:, 0]


def shares(count: int, jobs: int) -> Sequence[range]:
    """Trajectories for each of `jobs` processes: every jobs-th one, so that long files are divided evenly."""
    return [range(first, count, jobs) for first in range(min(jobs, count))]
