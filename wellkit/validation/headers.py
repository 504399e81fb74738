"""Whether one shard is laid out as its format says, and whether its small arrays make sense."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from wellkit.errors import FormatError, WellkitError
from wellkit.formats.well import AxisLayout, WellLayout
from wellkit.index.model import MISSING, ArrayIndex, ShardIndex
from wellkit.readers.protocol import ShardReader
from wellkit.schemas.validation import Finding
from wellkit.validation.codes import Where, finding

EVEN = 1e-3  # of a step, by which steps may differ
_ROUNDING = 8 * np.finfo(np.float32).eps  # of the largest coordinate: what float32 leaves of a difference
_WASTE = (1.25, 32 << 20)  # times the arrays, and bytes more: pages of repacked files are 8 MiB
_FIELD_GROUPS = ("t0_fields", "t1_fields", "t2_fields")


def check_arrays(index: ShardIndex, split: str, shard: str) -> Iterator[Finding]:
    """What the index alone tells: unlisted arrays, unusual elements, chunks that were never written, wasted space."""
    root = index.root()
    for group in (*_FIELD_GROUPS, "scalars"):
        members = [name for name in index.arrays if name.startswith(f"{group}/")]
        listed = _listed(index.attributes.get(group, {}).get("field_names", ()))
        for name in members:
            if name.removeprefix(f"{group}/") not in listed:
                told = f"/{group} holds it, but its field_names are {', '.join(sorted(listed)) or 'empty'}"
                yield finding("unlisted-array", told, split=split, shard=shard, field=name.partition("/")[2])
    for name, array in index.arrays.items():
        yield from _check_array(name, array, split, shard)
    stored = sum(array.stored_nbytes + len(array.inline or b"") for array in index.arrays.values())
    if index.size > _WASTE[0] * stored + _WASTE[1] and len(root):
        told = f"{index.size / 1e6:.1f} MB, of which arrays take {stored / 1e6:.1f} MB"
        yield finding("wasted-space", told, split=split, shard=shard)


def _listed(names: Any) -> set[str]:
    return {names} if isinstance(names, str) else {str(name) for name in np.asarray(names, object).reshape(-1)}


def _check_array(name: str, array: ArrayIndex, split: str, shard: str) -> Iterator[Finding]:
    is_field = name.startswith(_FIELD_GROUPS)
    place: Where = {"split": split, "shard": shard, "field": name.rpartition("/")[2] if is_field else name}
    if is_field and np.dtype(array.dtype) != np.float32:
        yield finding("element-type", f"elements are {np.dtype(array.dtype)}, float32 was expected", place)
    if array.layout == "missing":
        yield finding("unwritten", "nothing of the array was ever written", place)
    elif array.layout == "chunked" and (array.offsets == MISSING).any():
        told = f"{int((array.offsets == MISSING).sum())} of {array.n_chunks} chunks were never written"
        yield finding("unwritten", told, place)
    elif array.layout == "fallback" and is_field:
        yield finding("opaque-storage", f"its place cannot be told: {array.reason}", place)


def check_text(layout: WellLayout) -> None:
    """Raise FormatError where a name is not text: reports could not be written."""
    names = [layout.dataset_name, layout.grid_type]
    names += [part.name for part in layout.fields]
    names += [part.name for part in (*layout.scalars, *layout.axes)]
    names += [part.name for part in layout.boundaries]
    for name in names:
        try:
            name.encode("utf-8")
        except UnicodeEncodeError as error:
            raise FormatError(f"{layout.location}: the name {name!a} is not text") from error


def check_values(reader: ShardReader, layout: WellLayout, split: str, shard: str) -> Iterator[Finding]:
    """Coordinates, times, scalars, parameters and boundary masks: everything that is small."""
    for axis in layout.axes:
        yield from _check_axis(reader, axis, split, shard)
    yield from _check_time(reader, layout, split, shard)
    yield from _check_scalars(reader, layout, split, shard)
    for boundary in layout.boundaries:
        place: Where = {"split": split, "shard": shard, "field": boundary.path}
        mask = np.asarray(reader.read(f"{boundary.path}/mask"))
        sizes = dict(zip((axis.name for axis in layout.axes), layout.resolution, strict=True))
        wanted = tuple(sizes[dim] for dim in boundary.dims)
        lead = (layout.n_trajectories,) if boundary.sample_varying else ()
        if mask.shape != (*lead, *wanted):
            yield finding("boundary-mask", f"its mask has shape {mask.shape}, the axes give {(*lead, *wanted)}", place)
        elif not mask.any():
            yield finding("boundary-mask", f"its mask is false everywhere: {boundary.type.name} holds nowhere", place)


def _rows(values: np.ndarray) -> np.ndarray:
    return values.reshape(-1, values.shape[-1]).astype(np.float64)


def steps_of(values: np.ndarray) -> np.ndarray:
    """Differences of coordinates along the last axis, as float64 of axes (row, step)."""
    return np.diff(_rows(values), axis=-1)


def unevenness(values: np.ndarray) -> float:
    """By how much steps differ from their mean, in steps, beyond what rounding to float32 does; 0 if they do not."""
    rows, steps = _rows(values), steps_of(values)
    if steps.shape[-1] < 2:
        return 0.0
    mean = steps.mean(axis=-1, keepdims=True)
    off = np.abs(steps - mean) - _ROUNDING * np.abs(rows).max(axis=-1, keepdims=True)
    return float(np.max(off / np.maximum(np.abs(mean), np.finfo(np.float64).tiny), initial=0.0))


def _check_axis(reader: ShardReader, axis: AxisLayout, split: str, shard: str) -> Iterator[Finding]:
    place: Where = {"split": split, "shard": shard, "field": axis.path}
    values = np.asarray(reader.read(axis.path))
    steps = steps_of(values) if np.isfinite(values).all() else np.empty((0, 0))
    if not np.isfinite(values).all():
        told = f"{int((~np.isfinite(values)).sum())} of {values.size} coordinates are not finite"
        yield finding("bad-axis", told, place)
    elif steps.size and not ((steps > 0).all(axis=-1) | (steps < 0).all(axis=-1)).all():
        wrong = int(np.argmax((np.sign(steps) != np.sign(steps[:, :1])).any(axis=0)))
        yield finding("bad-axis", f"coordinates turn back, or stand still, behind point {wrong}", place)


def _check_time(reader: ShardReader, layout: WellLayout, split: str, shard: str) -> Iterator[Finding]:
    place: Where = {"split": split, "shard": shard, "field": layout.time.path}
    values = np.asarray(reader.read(layout.time.path))
    if not np.isfinite(values).all():
        yield finding("bad-time", f"{int((~np.isfinite(values)).sum())} of {values.size} are not finite", place)
        return
    for number, steps in enumerate(steps_of(values)):
        trajectory = number if layout.time.sample_varying else None
        if steps.size and (steps <= 0).any():
            frame = int(np.argmax(steps <= 0)) + 1
            row = _rows(values)[number]
            told = f"{row[frame]:.6g} follows {row[frame - 1]:.6g}"
            frames = (frame, frame + 1)
            yield finding("bad-time", told, place, trajectory=trajectory, frames=frames)


def _check_scalars(reader: ShardReader, layout: WellLayout, split: str, shard: str) -> Iterator[Finding]:
    place: Where = {"split": split, "shard": shard}
    attributes = layout.attributes
    raw = attributes.get("simulation_parameters", [])
    parameters = [raw] if isinstance(raw, str) else [str(name) for name in raw]
    for name in parameters:
        if name not in attributes:
            told = f"simulation_parameters names {name!r}, for which the root has no attribute"
            yield finding("missing-parameter", told, place)
        elif not _is_finite(attributes[name]):
            yield finding("bad-scalar", f"parameter {name!r} is {attributes[name]!r}", place)
    for scalar in layout.scalars:
        values = np.asarray(reader.read(scalar.path), dtype=np.float64)
        if not np.isfinite(values).all():
            told = f"{int((~np.isfinite(values)).sum())} of {values.size} values are not finite"
            yield finding("bad-scalar", told, place, field=scalar.path)
        given = attributes.get(scalar.name) if scalar.name in parameters else None
        if isinstance(given, int | float) and not scalar.time_varying and not scalar.sample_varying:
            found = float(values.reshape(-1)[0])
            if not np.isclose(found, given, rtol=1e-5, atol=0):
                told = f"the scalar is {found:.9g}, the root's attribute {float(given):.9g}"
                yield finding("parameter-mismatch", told, place, field=scalar.path)


def _is_finite(value: Any) -> bool:
    try:
        return bool(np.isfinite(np.asarray(value, dtype=np.float64)).all())
    except (TypeError, ValueError):
        return True  # a word


def check_evenness(
    reader: ShardReader, layout: WellLayout, split: str, shard: str, *, even_axes: bool, even_time: bool
) -> Iterator[Finding]:
    """Where no card says how axes and times are spaced, they had better be even."""
    for axis, wanted, code in [
        *((axis, even_axes, "uneven-axis") for axis in layout.axes),
        (layout.time, even_time, "uneven-time"),
    ]:
        values = np.asarray(reader.read(axis.path))
        if wanted and np.isfinite(values).all() and (off := unevenness(values)) > EVEN:
            steps = np.abs(steps_of(values))
            told = f"steps from {steps.min():.6g} to {steps.max():.6g}: off by {off:.1%} of a step"
            yield finding(code, told, split=split, shard=shard, field=axis.path)


def reason_of(error: WellkitError, location: str) -> str:
    """An error's message without the location that the finding names anyway."""
    return str(error).removeprefix(f"{location}: ").removeprefix(location).strip()
