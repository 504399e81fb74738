"""What to read: fields of a shard as index entries with their normalization, and windows of them. Plain data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from wellkit.index.model import ArrayIndex

Affine = tuple[np.ndarray, np.ndarray]  # (offset, scale), float32, axis (component): (x - offset) / scale


@dataclass(frozen=True, eq=False)
class FieldPlan:
    """One field of a shard and where its components go. Compared by identity: make it once a shard and keep it.

    Attributes:
        array: where the bytes lie.
        first: the channel of its first component.
        components: how many there are; they lie side by side in the array's last axes.
        offset, scale: float32, axis (component); what is delivered is (x - offset) / scale.
        has_sample_axis, has_time_axis: whether the array begins with them, in this order.
        spatial: for each spatial axis, whether the array varies along it. Other axes are absent in the array, or
            stored with size 1, and are repeated.
        delta: (offset, scale) for steps delivered as differences to the frame before; None: there are none.
    """

    array: ArrayIndex
    first: int
    components: int
    offset: np.ndarray
    scale: np.ndarray
    has_sample_axis: bool
    has_time_axis: bool
    spatial: tuple[bool, ...]
    delta: Affine | None = None


@dataclass(frozen=True, eq=False)
class WindowRequest:
    """Some frames of one trajectory.

    Attributes:
        path: the shard: a local path, or for the remote reader an address.
        fields: what to read; the same tuple object for every window of a shard is fastest.
        trajectory: which one.
        start, n_steps, stride: frames start, start + stride, ... (n_steps of them).
        n_input: steps from this one on are differences, where fields have `delta`.
        crop: a slice (positive step) for each spatial axis.
    """

    path: str
    fields: tuple[FieldPlan, ...]
    trajectory: int
    start: int
    n_steps: int
    stride: int
    n_input: int
    crop: tuple[slice, ...]


class WindowBatch(NamedTuple):
    """Windows of one shape and where they go, see `WindowReader.read_windows`."""

    requests: Sequence[WindowRequest]
    out: np.ndarray
    tail: np.ndarray | None = None


def n_channels(fields: Sequence[FieldPlan]) -> int:
    """Channels that `fields` fill."""
    return max((field.first + field.components for field in fields), default=0)
