"""Shards of random shape and layout, the plans to read them, and what h5py and NumPy make of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from wellkit.index.hdf5 import index_shard
from wellkit.readers.plan import FieldPlan, WindowRequest


@dataclass(frozen=True)
class Stored:
    """One field as it is to be stored. `chunks` are sizes along all stored axes, or None for a contiguous array."""

    order: int = 0
    dtype: str = "<f4"
    has_sample_axis: bool = True
    has_time_axis: bool = True
    spatial: tuple[bool, ...] = (True, True)
    keeps_ones: bool = False
    chunks: tuple[int, ...] | None = None
    filters: tuple[str, ...] = ()  # of "shuffle", "gzip", "fletcher32"
    written: float = 1.0  # share of the first axis that is written; the rest reads as the fill value

    def shape(self, trajectories: int, steps: int, space: Sequence[int]) -> tuple[int, ...]:
        """Of the stored array."""
        lead = (trajectories,) * self.has_sample_axis + (steps,) * self.has_time_axis
        middle = [
            n if varies else 1 for n, varies in zip(space, self.spatial, strict=True) if varies or self.keeps_ones
        ]
        return (*lead, *middle, *(len(space),) * self.order)


@dataclass(frozen=True)
class Shard:
    """A shard on disk and how to read it."""

    path: str
    fields: tuple[FieldPlan, ...]
    stored: tuple[Stored, ...]
    trajectories: int
    steps: int
    space: tuple[int, ...]

    def request(self, trajectory: int = 0, start: int = 0, n_steps: int = 2, **changes: Any) -> WindowRequest:
        """A window; everything in space, consecutive frames, no differences unless said otherwise."""
        whole = (slice(None),) * len(self.space)
        request = WindowRequest(self.path, self.fields, trajectory, start, n_steps, 1, n_steps, whole)
        return replace(request, **changes)


def draw_values(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """Values that use the range of their type, with a few that are hard to get right."""
    kind = np.dtype(dtype)
    if kind.kind == "f":
        values = (rng.standard_normal(shape) * 10.0 ** rng.integers(-3, 4, shape)).astype(kind)
        if values.size:
            special = np.array([0.0, -0.0, np.inf, 1e-40 if kind.itemsize > 2 else 6e-8], dtype=kind)
            values.flat[rng.integers(values.size, size=4)] = special
        return values
    info = np.iinfo(kind)
    return rng.integers(info.min, info.max, shape, dtype=kind, endpoint=True)


def write_shard(
    path: Path,
    stored: Sequence[Stored],
    *,
    trajectories: int = 2,
    steps: int = 6,
    space: tuple[int, ...] = (8, 6),
    delta: bool = False,
    seed: int = 0,
    inline_limit: int = 0,
) -> Shard:
    """Write and index a shard of the given fields."""
    rng = np.random.default_rng(seed)
    with h5py.File(path, "w") as file:
        for number, field in enumerate(stored):
            shape = field.shape(trajectories, steps, space)
            chunks = None
            if field.chunks is not None:
                chunks = tuple(min(size, n) for size, n in zip(field.chunks, shape, strict=False))
            array = file.create_dataset(
                f"f{number}",
                shape,
                field.dtype,
                chunks=chunks or None,
                shuffle="shuffle" in field.filters or None,
                compression="gzip" if "gzip" in field.filters else None,
                fletcher32="fletcher32" in field.filters or None,
                fillvalue=3,
            )
            values = draw_values(rng, shape, field.dtype)
            if not shape:
                array[()] = values
            elif (count := round(field.written * shape[0])) > 0:
                array[:count] = values[:count]
    index = index_shard(path, inline_limit=inline_limit)
    plans, first = [], 0
    for number, field in enumerate(stored):
        count = len(space) ** field.order
        pair = (rng.normal(size=count).astype(np.float32), rng.uniform(0.5, 3, count).astype(np.float32))
        other = (rng.normal(size=count).astype(np.float32), rng.uniform(0.5, 3, count).astype(np.float32))
        plans.append(
            FieldPlan(
                array=index.arrays[f"f{number}"],
                first=first,
                components=count,
                offset=pair[0],
                scale=pair[1],
                has_sample_axis=field.has_sample_axis,
                has_time_axis=field.has_time_axis,
                spatial=field.spatial,
                delta=other if delta else None,
            )
        )
        first += count
    return Shard(str(path), tuple(plans), tuple(stored), trajectories, steps, space)


def expected_window(shard: Shard, request: WindowRequest, dtype: Any = np.float32) -> np.ndarray:
    """What h5py reads and NumPy computes: (x - offset) / scale; axes (step, space..., channel)."""
    sizes = tuple(len(range(n)[cut]) for n, cut in zip(shard.space, request.crop, strict=True))
    n_channels = sum(plan.components for plan in request.fields)
    out = np.empty((request.n_steps, *sizes, n_channels), dtype)
    with h5py.File(shard.path) as file:
        for number, (plan, field) in enumerate(zip(request.fields, shard.stored, strict=True)):
            frames = slice(request.start, request.start + (request.n_steps - 1) * request.stride + 1, request.stride)
            selection: list[Any] = [request.trajectory] * field.has_sample_axis + [frames] * field.has_time_axis
            for varies, cut in zip(field.spatial, request.crop, strict=True):
                if varies:
                    selection.append(slice(cut.start, cut.stop, cut.step))
                elif field.keeps_ones:
                    selection.append(slice(None))
            values = file[f"f{number}"][...][tuple(selection)]
            shape = [n if varies else 1 for n, varies in zip(sizes, field.spatial, strict=True)]
            values = values.reshape(request.n_steps if field.has_time_axis else 1, *shape, plan.components)
            values = np.broadcast_to(values, (request.n_steps, *sizes, plan.components))
            target = out[..., plan.first : plan.first + plan.components]
            inputs = request.n_input if plan.delta is not None else request.n_steps
            _store(values[:inputs], plan.offset, plan.scale, target[:inputs])
            if plan.delta is not None and inputs < request.n_steps:
                later, before = values[inputs:], values[inputs - 1 : -1]
                if values.dtype.kind == "u":
                    wide = np.result_type(values.dtype, np.float32)
                    later, before = later.astype(wide), before.astype(wide)
                with np.errstate(all="ignore"):
                    _store(later - before, *plan.delta, target[inputs:])
    return out


def _store(values: np.ndarray, offset: np.ndarray, scale: np.ndarray, target: np.ndarray) -> None:
    with np.errstate(all="ignore"):
        np.subtract(values, offset, out=target, casting="same_kind")
        np.divide(target, scale, out=target)


def same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two arrays hold the same values, signs of zero and places of NaN included."""
    return a.dtype == b.dtype and bool(
        np.array_equal(a, b, equal_nan=True)
        and np.array_equal(np.signbit(a) & ~np.isnan(a), np.signbit(b) & ~np.isnan(b))
    )
