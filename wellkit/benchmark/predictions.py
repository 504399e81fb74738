"""Predictions of any framework, kept on disk and scored from there: opened, checked, read piece by piece, hashed.

The layout is told in docs/predictions.md. Needs NumPy only (zarr where they are a Zarr group).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from wellkit.benchmark.prediction_files import (
    PARTS,
    Container,
    Part,
    StoredArray,
    frames_of,
    name_of,
    open_container,
)
from wellkit.benchmark.prediction_writer import PredictionsWriter
from wellkit.errors import PredictionsError, WindowError
from wellkit.schemas.predictions import PredictedTrajectory, PredictingModel, PredictionsDescription
from wellkit.windows import count_windows

__all__ = [
    "PredictedTrajectory",
    "PredictingModel",
    "Predictions",
    "PredictionsDescription",
    "PredictionsWriter",
    "expected_trajectories",
    "open_predictions",
]

_AT_ONCE = 1 << 26  # bytes of float32 that are held while a hash is taken

FramesProgress = Callable[[int, int], None]  # frames done, frames there are


def open_predictions(path: str | os.PathLike[str]) -> Predictions:
    """Open predictions and check, from headers alone, that all that is promised is there.

    Raises:
        DataNotFoundError: nothing is there.
        DocumentVersionError, DocumentError: the description is of another kind or version, or says nonsense.
        PredictionsError: these are no predictions; an array is missing, too many, cut short, unreadable, of another
            shape than promised, or not of floating point numbers.
        MissingDependencyError: they are a Zarr group, and zarr is not installed.
    """
    container = open_container(path)
    where = os.fspath(path)
    description = PredictionsDescription.parse(container.description(), source=f"{where}: description")
    count = len(description.trajectories)
    for part in PARTS:
        numbers = container.numbers(part)
        if numbers and numbers[-1] >= count:
            raise PredictionsError(
                f"{container.place(part, numbers[-1])}: is of trajectory {numbers[-1]}, counted from 0, but the "
                f"description lists {count} trajectories; remove it or describe it"
            )
        missing = sorted({n for n in range(count) if description.shape(part, n)[0] > 0} - set(numbers))
        if missing:
            more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
            raise PredictionsError(
                f"{container.place(part, missing[0])}: is missing{more}; the description promises it"
            )
    arrays = {}
    for part, trajectory, frames in frames_of(description):
        if frames == 0:
            continue
        found = container.array(part, trajectory)
        promised = description.shape(part, trajectory)
        if found.shape != promised:
            raise PredictionsError(
                f"{container.place(part, trajectory)}: has shape {found.shape}, the description promises {promised} "
                f"({'window' if part == 'one_step' else 'step'}, space..., component)"
            )
        arrays[part, trajectory] = found
    return Predictions(where, description, container, arrays)


@dataclass(frozen=True)
class Predictions:
    """Predictions of one model on one split. Picklable; keeps no file open, so that any process may read any piece.

    Attributes:
        path: where they are.
        description: what they say of themselves.
    """

    path: str
    description: PredictionsDescription
    _container: Container
    _arrays: dict[tuple[Part, int], StoredArray]

    def one_step(self, trajectory: int, start: int, stop: int) -> np.ndarray:
        """One-step predictions of windows `start` to `stop` (not included) of a trajectory.

        Returns:
            float32, axes (window, space..., component), physical units, a new array; entry w is a prediction of frame
            start + w + n_steps_input. NaN and infinities are as stored; what float32 cannot hold becomes infinite.

        Raises:
            WindowError: there is no such trajectory or window.
            PredictionsError: they cannot be read any more.
        """
        return self._read("one_step", trajectory, start, stop)

    def rollout(self, trajectory: int, start: int, stop: int) -> np.ndarray:
        """Steps `start` to `stop` (not included, from 0) of a trajectory's rollout, as `one_step`.

        Returns:
            float32, axes (step, space..., component); entry s is a prediction of frame first_frame + start + s.
        """
        return self._read("rollout", trajectory, start, stop)

    def check(
        self,
        *,
        dataset_name: str,
        split: str,
        fields: Sequence[str],
        resolution: Sequence[int],
        frames_per_trajectory: Sequence[int],
        n_steps_input: int,
        first_frame: int | None = None,
        rollout_limit: int | None = None,
    ) -> None:
        """Refuse predictions that are not of what they are to be scored on, before anything is read.

        Args:
            dataset_name, split: what they are to be scored on.
            fields: names of the components, in order.
            resolution: grid points along each axis.
            frames_per_trajectory: stored frames of every trajectory of the split, in order.
            n_steps_input: true frames a prediction is made from.
            first_frame: number of the first frame that rollouts predict; None: n_steps_input.
            rollout_limit: steps that are scored of a rollout at most; None for all. Longer rollouts are accepted.

        Raises:
            PredictionsError: names what differs.
        """
        found, first = self.description, n_steps_input if first_frame is None else first_frame
        for what, has, asked in (
            ("dataset", found.dataset, dataset_name),
            ("split", found.split, split),
            ("components", list(found.fields), list(fields)),
            ("resolution", list(found.resolution), list(resolution)),
            ("n_steps_input", found.n_steps_input, n_steps_input),
            ("first_frame", found.first_frame, first),
            ("number of trajectories", len(found.trajectories), len(frames_per_trajectory)),
        ):
            if has != asked:
                order = (
                    isinstance(has, list)
                    and isinstance(asked, list)
                    and sorted(map(str, has)) == sorted(map(str, asked))
                )
                hint = " (the same ones in another order)" if order else ""
                raise PredictionsError(f"{self.path}: {what}: these predictions have {has}, asked is {asked}{hint}")
        longest = expected_trajectories(frames_per_trajectory, n_steps_input, first_frame=first)
        scored = expected_trajectories(frames_per_trajectory, n_steps_input, first_frame=first, limit=rollout_limit)
        for number, has_it in enumerate(found.trajectories):
            told = f"{self.path}: trajectory {number} has {frames_per_trajectory[number]} frames: "
            if has_it.windows != scored[number].windows:
                raise PredictionsError(f"{told}{scored[number].windows} windows, predicted are {has_it.windows}")
            if not scored[number].rollout_steps <= has_it.rollout_steps <= longest[number].rollout_steps:
                raise PredictionsError(
                    f"{told}a rollout of {scored[number].rollout_steps} steps is asked for, predicted are "
                    f"{has_it.rollout_steps}"
                )

    def sha256(self, progress: FramesProgress | None = None) -> str:
        """Hash of what is predicted, whatever container and number format hold it: equal hashes score equally.

        Over the dataset, split, fields, resolution, n_steps_input, first_frame and a digest of every array: its values
        as little-endian float32, any NaN as one NaN and -0 as 0. The model's name and notes are no part of it.
        Streamed: 64 MiB at a time, or one chunk of a Zarr array.

        Raises:
            PredictionsError: an array cannot be read any more.
        """
        found = self.description
        arrays: dict[str, list[str]] = {part: [] for part in PARTS}
        done, total = 0, sum(frames for _, _, frames in frames_of(found))
        for part, trajectory, frames in frames_of(found):
            digest = hashlib.sha256()
            piece = self._piece(part, trajectory)
            for start in range(0, frames, piece):
                stop = min(start + piece, frames)
                digest.update(_canonical(self._read(part, trajectory, start, stop)))
                done += stop - start
                if progress is not None:
                    progress(done, total)
            arrays[part].append(f"{frames} {digest.hexdigest()}")
        content = {
            "dataset": found.dataset,
            "split": found.split,
            "fields": found.fields,
            "resolution": found.resolution,
            "n_steps_input": found.n_steps_input,
            "first_frame": found.first_frame,
            **arrays,
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def _piece(self, part: Part, trajectory: int) -> int:
        """Frames to read at once: whole chunks, as many as fit."""
        array = self._arrays.get((part, trajectory))
        together = 1 if array is None else array.frames_at_once
        fitting = max(1, _AT_ONCE // (4 * int(np.prod(self.description.frame_shape))))
        return fitting // together * together or min(together, fitting)

    def _read(self, part: Part, trajectory: int, start: int, stop: int) -> np.ndarray:
        count = len(self.description.trajectories)
        if not 0 <= trajectory < count:
            raise WindowError(f"{self.path}: no trajectory {trajectory}; there are {count}, counted from 0")
        shape = self.description.shape(part, trajectory)
        if not 0 <= start <= stop <= shape[0]:
            raise WindowError(
                f"{self.path}: {part}/{name_of(trajectory)} has entries 0 to {shape[0]}, asked were {start} to {stop}"
            )
        if start == stop:
            return np.empty((0, *shape[1:]), np.float32)
        values = self._container.read(part, trajectory, start, stop)
        if values.shape != (stop - start, *shape[1:]):
            raise PredictionsError(f"{self._container.place(part, trajectory)}: has changed since it was opened")
        with np.errstate(over="ignore", invalid="ignore"):  # too large for float32: infinite, and scored as such
            return np.ascontiguousarray(values, np.float32)


def expected_trajectories(
    frames_per_trajectory: Sequence[int],
    n_steps_input: int,
    *,
    first_frame: int | None = None,
    limit: int | None = None,
) -> tuple[PredictedTrajectory, ...]:
    """What has to be predicted of trajectories of so many frames: every window, and rollouts to the end or `limit`.

    Args:
        first_frame: number of the first frame that rollouts predict; None: n_steps_input.
        limit: steps of the longest rollout; None for all.
    """
    first = n_steps_input if first_frame is None else first_frame
    return tuple(
        PredictedTrajectory(
            windows=count_windows(frames, n_steps_input + 1, 1),
            rollout_steps=max(0, frames - first if limit is None else min(frames - first, limit)),
        )
        for frames in frames_per_trajectory
    )


def _canonical(values: np.ndarray) -> bytes:
    """Bytes that are equal where values are: little-endian, one NaN, no -0."""
    plain = np.where(np.isnan(values), np.float32(np.nan), values + np.float32(0))
    return np.ascontiguousarray(plain, "<f4").tobytes()
