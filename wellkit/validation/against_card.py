"""What a card says, against what shards hold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from wellkit.formats.well import WellLayout
from wellkit.readers.protocol import ShardReader
from wellkit.schemas.card import SimulationCard
from wellkit.schemas.field import Field
from wellkit.schemas.validation import Finding
from wellkit.validation.codes import finding
from wellkit.validation.headers import EVEN, steps_of, unevenness

_VALUES = 2e-3  # relative: cards round parameters, and file names even more


def check_shard(reader: ShardReader, layout: WellLayout, card: SimulationCard, split: str, shard: str) -> list[Finding]:
    """One shard against the card of its dataset, where that `applies`."""
    found: list[Finding] = []

    def add(code: str, message: str, field: str | None = None) -> None:
        found.append(finding(code, message, split=split, shard=shard, field=field))

    names = (card.name, *card.names_in_files)
    if layout.dataset_name not in names:
        add("card-name", f"dataset_name is {layout.dataset_name!r}, the card is of {' or '.join(map(repr, names))}")
    if layout.grid_type != card.grid.type:
        add("card-grid", f"grid_type is {layout.grid_type!r}, the card says {card.grid.type!r}")
    axes = tuple(axis.name for axis in layout.axes)
    if axes != card.grid.axis_names:
        add("card-grid", f"axes are {', '.join(axes)}, the card says {', '.join(card.grid.axis_names)}")
    elif layout.resolution != card.resolution:
        add("card-resolution", f"{_by(layout.resolution)} points, the card says {_by(card.resolution)}")
    else:
        for place, message in _axes(reader, layout, card):
            add("card-grid", message, place)
    if layout.n_steps not in card.time.steps:
        add("card-steps", f"{layout.n_steps} frames, the card says {' or '.join(map(str, card.time.steps))}")
    for message in _time(reader, layout, card):
        add("card-time", message, layout.time.path)
    for name, message in _fields(layout, card):
        add("card-fields", message, name)
    for name, message in _scalars(layout, card):
        add("card-scalars", message, name)
    for message in _parameters(reader, layout, card):
        add("card-parameters", message)
    for message in _boundaries(layout, card):
        add("card-boundaries", message)
    return found


def applies(card: SimulationCard, layout: WellLayout) -> bool:
    """Whether the card is of these data: a card of published data says nothing about sizes of generated ones."""
    return (card.generator is None) == (layout.generator is None)


def _by(sizes: tuple[int, ...]) -> str:
    return "x".join(map(str, sizes))


def _axes(reader: ShardReader, layout: WellLayout, card: SimulationCard) -> Iterator[tuple[str, str]]:
    for axis, wanted in zip(layout.axes, card.grid.axes, strict=True):
        values = np.asarray(reader.read(axis.path), dtype=np.float64)
        if not np.isfinite(values).all():
            continue
        if wanted.kind == "uniform" and (off := unevenness(values)) > EVEN:
            yield axis.path, f"steps are off by {off:.1%} of a step, the card says that they are even"
        if wanted.extent is None:
            continue
        low, high = wanted.extent
        room = 1.01 * (high - low) / max(1, wanted.points - 1)  # cell centres, or an end left out
        if wanted.kind != "uniform":
            room = max(room, 1.01 * float(np.abs(steps_of(values)).max(initial=0.0)))
        first, last = float(values.min()), float(values.max())
        if not (low - room <= first <= low + room and high - room <= last <= high + room):
            yield axis.path, f"from {first:.6g} to {last:.6g}, the card says {low:g} to {high:g}"


def _time(reader: ShardReader, layout: WellLayout, card: SimulationCard) -> Iterator[str]:
    values = np.asarray(reader.read(layout.time.path), dtype=np.float64)
    if not np.isfinite(values).all():
        return
    for row, steps in zip(values.reshape(-1, values.shape[-1]), steps_of(values), strict=True):
        if not steps.size or (steps <= 0).any():
            return
        rounding = np.finfo(np.float32).eps * 8 * np.abs(row).max()
        spacing, horizon = card.time.spacing, card.time.horizon
        if spacing is not None:
            off = np.abs(steps - spacing)
            if (off > EVEN * spacing + rounding).any():
                worst = float(steps[int(np.argmax(off))])
                yield f"frames are {worst:.6g} apart, the card says {spacing:g}"
                return
        if horizon is not None and not card.time.variable and len(card.time.steps) == 1:
            last = float(row[-1] - row[0])
            if abs(last - horizon) > 1e-2 * horizon + rounding:
                yield f"the last frame lies {last:.6g} behind the first, the card says {horizon:g}"
                return


def _fields(layout: WellLayout, card: SimulationCard) -> Iterator[tuple[str, str]]:
    present = {part.name: part for part in layout.fields}
    for wanted in card.fields:
        part = present.get(wanted.name)
        if part is None:
            yield wanted.name, f"is missing; there are {', '.join(present)}"
            continue
        along = tuple(axis for axis, varies in zip(card.grid.axis_names, part.dim_varying, strict=False) if varies)
        for what, here, there in _differences(wanted, part, along, card):
            yield wanted.name, f"{what} is {here}, the card says {there}"
    known = {wanted.name for wanted in card.fields}
    for name in present:
        if name not in known:
            yield name, f"the card has no such field; it has {', '.join(sorted(known))}"
    for order in range(3):
        here = [part.name for part in layout.fields if part.order == order and part.name in known]
        there = [wanted.name for wanted in card.fields if wanted.order == order and wanted.name in present]
        if sorted(here) == sorted(there) and here != there:
            yield f"t{order}_fields", f"channels are in the order {', '.join(here)}, the card says {', '.join(there)}"


def _differences(
    wanted: Field, part: Any, along: tuple[str, ...], card: SimulationCard
) -> Iterator[tuple[str, object, object]]:
    axes = card.grid.axis_names if wanted.axes is None else wanted.axes
    for what, here, there in (
        ("tensor order", part.order, wanted.order),
        ("time_varying", part.time_varying, wanted.varying),
        ("sample_varying", part.sample_varying, wanted.sample_varying),
        ("dim_varying", ", ".join(along), ", ".join(axis for axis in card.grid.axis_names if axis in axes)),
    ):
        if here != there:
            yield what, here, there


def _scalars(layout: WellLayout, card: SimulationCard) -> Iterator[tuple[str, str]]:
    present = {scalar.name: scalar for scalar in layout.scalars}
    for wanted in card.scalars:
        scalar = present.get(wanted.name)
        if scalar is None:
            yield f"scalars/{wanted.name}", f"is missing; there are {', '.join(present) or 'none'}"
        elif scalar.time_varying != wanted.varying:
            yield scalar.path, f"time_varying is {scalar.time_varying}, the card says {wanted.varying}"


def _parameters(reader: ShardReader, layout: WellLayout, card: SimulationCard) -> Iterator[str]:
    scalars = {scalar.name: scalar for scalar in layout.scalars if not scalar.time_varying}
    for parameter in card.parameters:
        if parameter.values is None:
            continue
        listed = np.array([value for value in parameter.values if not isinstance(value, str)], dtype=np.float64)
        given: list[float] = []
        for name in (parameter.scalar, parameter.name):
            if name in scalars:
                given += np.asarray(reader.read(scalars[name].path), dtype=np.float64).reshape(-1).tolist()
        attribute = layout.attributes.get(parameter.name)
        if isinstance(attribute, int | float):
            given.append(float(attribute))
        for value in dict.fromkeys(given):
            if listed.size and np.isfinite(value) and not np.isclose(listed, value, rtol=_VALUES, atol=0).any():
                nearest = listed[np.argmin(np.abs(listed - value))]
                yield f"{parameter.name} is {value:.6g}, which the card does not list; the nearest is {nearest:g}"


def _boundaries(layout: WellLayout, card: SimulationCard) -> Iterator[str]:
    def described(conditions: Mapping[str, set[str]]) -> str:
        return "; ".join(f"{kind} {', '.join(sorted(axes))}".strip() for kind, axes in sorted(conditions.items()))

    here: dict[str, set[str]] = {}
    for boundary in layout.boundaries:
        here.setdefault(boundary.type.name, set()).update(boundary.dims)
    there: dict[str, set[str]] = {}
    inside = {boundary.type for boundary in card.boundary_conditions if not boundary.axes}
    for wanted in card.boundary_conditions:
        there.setdefault(wanted.type, set()).update(wanted.axes)
    missing = set(there) ^ set(here)
    moved = {kind for kind in set(there) & set(here) if there[kind] != here[kind] and kind not in inside}
    if missing or moved:
        yield f"boundary conditions are {described(here) or 'none'}; the card says {described(there) or 'none'}"


def check_counts(card: SimulationCard, split: str, files: int, trajectories: int) -> tuple[list[Finding], bool]:
    """(what is wrong with a split's counts, whether it is known to be complete)."""
    wanted = card.splits.get(split)
    if wanted is None:
        return [], False
    found, complete = [], True
    for what, here, there in (("files", files, wanted.files), ("trajectories", trajectories, wanted.trajectories)):
        if there is None:
            complete = complete and what == "files"
        elif here != there:
            code = "card-counts" if here > there else "incomplete"
            found.append(finding(code, f"{here} {what}, the card says {there}", split=split))
            complete = False
    return found, complete


def check_size(card: SimulationCard, nbytes: int) -> list[Finding]:
    """The decoded bytes of a complete tree against what the card's shapes and counts make."""
    expected = card.sizes.nominal_bytes or card.expected_bytes()
    if expected is None or abs(nbytes - expected) <= 1e-3 * expected:
        return []
    return [finding("card-size", f"fields hold {nbytes:,} bytes, the card's shapes and counts make {expected:,}")]
