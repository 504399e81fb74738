"""How many windows each shard of a dataset gives, and how long they are."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from wellkit.errors import WindowError
from wellkit.formats.well import WellLayout
from wellkit.windows import WindowTable, count_windows, rollout_outputs


@dataclass(frozen=True)
class WindowPlan:
    """Per shard: frames in use, windows of a trajectory, output steps of a window; and all of them as a table."""

    steps: list[int]
    windows: list[int]
    outputs: list[int]
    table: WindowTable


def plan_windows(
    layouts: Sequence[WellLayout],
    *,
    n_steps_input: int,
    n_steps_output: int,
    stride: int,
    full_trajectory: bool,
    first_output: int,
    max_outputs: int | None,
    shortest: bool,
) -> WindowPlan:
    """Count windows.

    Args:
        stride: the smallest one.
        full_trajectory: one window a trajectory, all frames after the inputs as output.
        first_output: the frame outputs of full trajectories start at; -1 for right after the inputs.
        max_outputs: at most this many output steps.
        shortest: cut full trajectories to the shortest shard's.

    Raises:
        WindowError: the trajectories of a shard are too short; names it.
    """
    own = [layout.n_steps for layout in layouts]
    steps = [min(own)] * len(own) if full_trajectory and shortest else own
    windows, outputs = [], []
    for layout, available in zip(layouts, steps, strict=True):
        if full_trajectory:
            wanted = rollout_outputs(available, n_steps_input, stride, first_output)
            count = int(wanted > 0)
        else:
            wanted = n_steps_output
            count = count_windows(available, n_steps_input + n_steps_output, stride)
        if count < 1:
            what = "at least 1 output step" if full_trajectory else f"{n_steps_output} output steps"
            place = f" and outputs from frame {first_output}" if first_output >= 0 else ""
            raise WindowError(
                f"{layout.location}: trajectories of {available} steps are too short for {n_steps_input} input steps "
                f"and {what} with stride {stride}{place}; ask for fewer steps, a smaller stride, or leave the file out "
                "with exclude_filters"
            )
        windows.append(count)
        outputs.append(wanted if max_outputs is None else min(wanted, max_outputs))
    return WindowPlan(steps, windows, outputs, WindowTable([layout.n_trajectories for layout in layouts], windows))


def fingerprint_of(
    layouts: Sequence[WellLayout], table: WindowTable, restriction: np.ndarray | None, windows: Any
) -> str:
    """SHA-256, hexadecimal, of a dataset's files (names, trajectories, steps), windows and restriction."""
    digest = hashlib.sha256()
    for layout in layouts:
        name = layout.location.rsplit("/", 1)[-1]
        digest.update(f"{name}|{layout.n_trajectories}|{layout.n_steps}|{layout.resolution};".encode())
    digest.update(f"{len(table)}|{windows}".encode())
    if restriction is not None:
        digest.update(np.ascontiguousarray(restriction, dtype=np.int64).tobytes())
    return digest.hexdigest()
