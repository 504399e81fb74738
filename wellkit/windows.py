"""Index arithmetic of windows: which frames a sample is cut from. Pure functions and one small table.

A window of `n_steps` frames with stride `s` that starts at frame `t` reads frames t, t+s, ..., t+(n_steps-1)s.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from wellkit.errors import ArgumentError


def window_span(n_steps: int, stride: int) -> int:
    """Frames from the first to the last of a window, both counted."""
    return 1 + stride * (n_steps - 1)


def count_windows(trajectory_steps: int, n_steps: int, stride: int) -> int:
    """How many windows of `n_steps` frames a trajectory of `trajectory_steps` frames holds; 0 if it is too short."""
    return max(0, trajectory_steps - window_span(n_steps, stride) + 1)


def largest_stride(start: int, trajectory_steps: int, n_steps: int) -> int:
    """The largest stride with which `n_steps` frames from frame `start` on still fit into the trajectory."""
    if n_steps < 2:
        return max(1, trajectory_steps)  # a single frame fits with any stride
    return max(0, (trajectory_steps - start - 1) // (n_steps - 1))


def rollout_outputs(trajectory_steps: int, n_steps_input: int, stride: int, first_output: int) -> int:
    """Output frames of a full-trajectory sample: (T - max(n_steps_input * stride, first_output)) // stride.

    The floor is the_well's: with a stride above 1, a last frame that would not fill a whole stride is left out.
    """
    return (trajectory_steps - max(n_steps_input * stride, first_output)) // stride


def reads_frames(start: int, n_steps: int, stride: int, frames: tuple[int, int]) -> bool:
    """Whether a window reads one of the frames from frames[0] up to, not including, frames[1]."""
    first = max(0, -((start - frames[0]) // stride))  # the first step at or past frames[0]
    return first < n_steps and start + first * stride < frames[1]


@dataclass(frozen=True)
class Window:
    """One sample's place: file, trajectory within the file, first frame."""

    file: int
    trajectory: int
    start: int


class WindowTable:
    """Sample index <-> (file, trajectory, first frame), by arithmetic; files are runs of equal trajectories.

    Samples are ordered by file, then trajectory, then first frame.
    """

    def __init__(self, trajectories_per_file: Sequence[int], windows_per_trajectory: Sequence[int]) -> None:
        trajectories = np.asarray(trajectories_per_file, dtype=np.int64)
        self._windows = np.asarray(windows_per_trajectory, dtype=np.int64)
        if trajectories.shape != self._windows.shape:
            raise ArgumentError(f"{len(trajectories)} files but {len(self._windows)} window counts")
        self._offsets = np.concatenate([[0], np.cumsum(trajectories * self._windows)]).astype(np.int64)
        self._first_trajectory = np.concatenate([[0], np.cumsum(trajectories)]).astype(np.int64)

    def __len__(self) -> int:
        return int(self._offsets[-1])

    @property
    def n_trajectories(self) -> int:
        """Trajectories over all files."""
        return int(self._first_trajectory[-1])

    def locate(self, index: int) -> Window:
        """The window of sample `index`, 0 <= index < len(self). Raises IndexError outside."""
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} is out of range: there are {len(self)}")
        file = int(np.searchsorted(self._offsets, index, side="right") - 1)
        trajectory, start = divmod(int(index - self._offsets[file]), int(self._windows[file]))
        return Window(file, trajectory, start)

    def first_of(self, file: int) -> int:
        """The first sample of a file."""
        return int(self._offsets[file])

    def trajectories_of(self, indices: np.ndarray) -> np.ndarray:
        """The trajectory, int64, numbered over all files, of each sample; axis (sample)."""
        files = self.files_of(indices)
        found: np.ndarray = self._first_trajectory[files] + (indices - self._offsets[files]) // self._windows[files]
        return found

    def files_of(self, indices: np.ndarray) -> np.ndarray:
        """The file, int64, of each sample; axis (sample)."""
        return np.searchsorted(self._offsets, indices, side="right") - 1

    def of_trajectories(self, trajectories: Sequence[int] | np.ndarray) -> np.ndarray:
        """Sample indices, int64, of whole trajectories (numbered over all files), in ascending order."""
        chosen = np.unique(np.asarray(trajectories, dtype=np.int64))
        files = np.searchsorted(self._first_trajectory, chosen, side="right") - 1
        starts = self._offsets[files] + (chosen - self._first_trajectory[files]) * self._windows[files]
        pieces = [np.arange(s, s + self._windows[f]) for s, f in zip(starts, files, strict=True)]
        return np.concatenate(pieces) if pieces else np.empty(0, dtype=np.int64)
