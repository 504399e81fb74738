"""A card written from the files of a dataset: what they say of themselves, for a person to complete.

Files know names, shapes, lengths, parameters and boundary types. They do not know units, equations, where NaN is
allowed or what is wrong: an inferred card says so in its description.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from math import prod
from typing import Any, get_args

import numpy as np

from wellkit.datasets.sources import SPLITS, STATISTICS_FILE, find_shards, join, resolve_source
from wellkit.datasets.tree import ShardTree, open_tree
from wellkit.errors import ArgumentError, DataNotFoundError, FormatError, StatisticsError
from wellkit.formats.statistics_file import load_statistics
from wellkit.formats.well import AxisLayout, FieldLayout, WellLayout
from wellkit.readers.protocol import ShardReader
from wellkit.schemas.card import SimulationCard
from wellkit.schemas.grid import AxisKind, GridType
from wellkit.schemas.statistics import STATISTICS
from wellkit.storage import locate

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_DIGITS = 7  # of statistics: float32 has no more
_MANY = 64  # distinct values of a parameter beyond which its range is told instead
_FLOAT_BYTES = 4


def infer_card(
    location: str | os.PathLike[str],
    *,
    name: str | None = None,
    collection: str = "mine",
    storage_options: Mapping[str, Any] | None = None,
) -> SimulationCard:
    """Describe a dataset by what its files say. No field is read.

    Args:
        location: the dataset's folder, with data/<split> below it; local or a URL.
        name: what to call it; by default as its folder, under which it is then found.
        collection: the collection it belongs to.

    Returns:
        A card that `wellkit.catalog.register` takes.

    Raises:
        DataNotFoundError: there is no such folder, or no split with shards in it.
        ShardError, FormatError: a shard cannot be read, differs from the others, or has a grid type that cards lack.
        ArgumentError: the name is none that a card can have.
    """
    root = os.fspath(location).rstrip("/") or "/"
    called = name or os.path.basename(os.path.abspath(root) if "://" not in root else root)
    if not _NAME.fullmatch(called):
        raise ArgumentError(f"{called!r} cannot be a dataset's name (letters, digits, '.', '_', '-'); give name=")
    splits = _splits(root, storage_options)
    tree = open_tree(
        [shard for shards in splits.values() for shard in shards], storage_options=storage_options, fields=None
    )
    try:
        return SimulationCard.parse(
            _content(root, called, collection, splits, tree, storage_options), source=f"card of {root}"
        )
    finally:
        for reader in tree.readers:
            reader.close()


def _splits(root: str, storage_options: Mapping[str, Any] | None) -> dict[str, list[str]]:
    """The shards of every split that has some."""
    found: dict[str, list[str]] = {}
    missing: DataNotFoundError | None = None
    for split in SPLITS:
        try:
            source = resolve_source(
                path=root,
                base_path=None,
                name=None,
                split=split,
                normalization_path=None,
                storage_options=storage_options,
            )
            found[split] = find_shards(source, include=(), exclude=(), storage_options=storage_options)
        except DataNotFoundError as error:
            missing = missing or error
    if not found:
        assert missing is not None
        raise missing
    return found


def _content(
    root: str,
    name: str,
    collection: str,
    splits: Mapping[str, Sequence[str]],
    tree: ShardTree,
    storage_options: Mapping[str, Any] | None,
) -> dict[str, Any]:
    layouts = tree.layouts
    first = layouts[0]
    if first.grid_type not in get_args(GridType):
        raise FormatError(
            f"{first.location}: grid_type is {first.grid_type!r}; a card knows {', '.join(get_args(GridType))}"
        )
    count = len(layouts)
    by_split = {
        split: [layout for layout in layouts if layout.location in set(shards)] for split, shards in splits.items()
    }
    nominal = sum(_FLOAT_BYTES * prod(field.shape) for layout in layouts for field in layout.fields)
    content: dict[str, Any] = {
        "schema": SimulationCard.schema_name(),
        "name": name,
        "title": name.replace("_", " "),
        "description": f"Inferred from {count} shard{'s' if count > 1 else ''}: say here what is simulated, and below "
        "units, equations and where NaN is allowed.",
        "collection": collection,
        "names_in_files": [] if first.dataset_name == name else [first.dataset_name],
        "grid": {"type": first.grid_type, "axes": [_axis(tree, number) for number in range(first.n_spatial_dims)]},
        "time": _time(tree),
        "fields": [_field(field, first) for field in sorted(first.fields, key=lambda field: field.order)],
        "scalars": [{"name": scalar.name, "varying": scalar.time_varying} for scalar in first.scalars],
        "parameters": _parameters(tree),
        "boundary_conditions": _boundaries(layouts),
        "splits": {
            split: {"files": len(held), "trajectories": sum(layout.n_trajectories for layout in held)}
            for split, held in by_split.items()
        },
        "trajectories": sum(layout.n_trajectories for layout in layouts),
        "sizes": {"nominal_bytes": nominal, "note": _bytes_note(layouts)},
        "statistics": _statistics(root, first, storage_options),
        "notes": None if first.generator is None else f"The files say that {first.generator} generated them.",
    }
    return {key: value for key, value in content.items() if value not in (None, [], {})}


def _values(reader: ShardReader, axis: AxisLayout) -> np.ndarray:
    return np.asarray(reader.read(axis.path), dtype=np.float64)


def _axis(tree: ShardTree, number: int) -> dict[str, Any]:
    """One spatial axis; where coordinates differ between or within shards, the card leaves its extent out."""
    axes = [layout.axes[number] for layout in tree.layouts]
    content: dict[str, Any] = {"name": axes[0].name, "points": axes[0].shape[-1]}
    moving = any(axis.sample_varying or axis.time_varying for axis in axes)
    coordinates = [] if moving else [_values(r, a) for r, a in zip(tree.readers, axes, strict=True)]
    if moving or any(not np.array_equal(other, coordinates[0]) for other in coordinates[1:]):
        return {**content, "note": "coordinates differ between trajectories"}
    kind = _kind(coordinates[0])
    low, high = float(coordinates[0].min()), float(coordinates[0].max())
    if kind is None:
        content["note"] = "unevenly spaced"
    elif kind != "uniform":
        content["kind"] = kind
    if low < high:  # not NaN, and more than one point
        content["extent"] = [_short(low), _short(high)]
    return content


def _kind(values: np.ndarray) -> AxisKind | None:
    """How coordinates are spaced; None for none of the ways that a card knows."""
    if len(values) < 3 or _is_even(values):
        return "uniform"
    if (values > 0).all() and _is_even(np.log(values)):
        return "log"
    low, high = values.min(), values.max()
    if high > low:
        inside = (2 * values - low - high) / (high - low)
        # Chebyshev nodes reach the ends of the box (extrema) or stop half a step before them (roots).
        for scale in (1.0, float(np.cos(np.pi / (2 * len(values))))):
            if _is_even(np.arccos(np.clip(inside * scale, -1, 1)), rounding=1e-3):
                return "chebyshev"
    return None


def _is_even(values: np.ndarray, *, rounding: float = 1e-4) -> bool:
    """Whether values are evenly spaced, but for what float32 coordinates lose."""
    steps = np.diff(values)
    mean = steps.mean()
    slack = rounding * abs(mean) + 4 * np.finfo(np.float32).eps * np.abs(values).max()
    return bool(mean != 0 and np.abs(steps - mean).max() <= slack)


def _short(value: float) -> float:
    """A float32 as the number that was meant: 0.1, not 0.10000000149."""
    return float(f"{value:.7g}")


def _time(tree: ShardTree) -> dict[str, Any]:
    layouts = tree.layouts
    counts: Counter[int] = Counter()
    for layout in layouts:
        counts[layout.n_steps] += layout.n_trajectories
    steps = sorted(counts)
    content: dict[str, Any] = {"steps": steps}
    if len(steps) > 1:
        content["counts"] = [counts[length] for length in steps]
    times = [np.atleast_2d(_values(r, layout.time)) for r, layout in zip(tree.readers, layouts, strict=True)]
    spacings = {_spacing(row) for block in times for row in block}
    if len(spacings) == 1 and None not in spacings:
        content["spacing"] = spacings.pop()
    horizons = {f"{row[-1] - row[0]:.5g}" for block in times for row in block}
    if len(horizons) == 1 and len(steps) == 1 and float(horizon := horizons.pop()) > 0:
        content["horizon"] = float(horizon)
    if "spacing" not in content or len(steps) > 1:
        content["variable"] = True
    return content


def _spacing(times: np.ndarray) -> float | None:
    if len(times) < 2 or not _is_even(times, rounding=1e-3) or not times[-1] > times[0]:
        return None
    return float(f"{(times[-1] - times[0]) / (len(times) - 1):.5g}")


def _field(field: FieldLayout, layout: WellLayout) -> dict[str, Any]:
    content: dict[str, Any] = {"name": field.name, "order": field.order}
    if field.symmetric or field.antisymmetric:
        content["symmetry"] = "symmetric" if field.symmetric else "antisymmetric"
    if not field.time_varying:
        content["varying"] = False
    if not field.sample_varying:
        content["sample_varying"] = False
    if not all(field.dim_varying):
        content["axes"] = [axis.name for axis, varies in zip(layout.axes, field.dim_varying, strict=True) if varies]
    return content


def _parameters(tree: ShardTree) -> list[dict[str, Any]]:
    """What the files list as parameters, and scalars constant in time, with the values that occur."""
    found: dict[str, set[float | str]] = {}
    for reader, layout in zip(tree.readers, tree.layouts, strict=True):
        listed = layout.attributes.get("simulation_parameters")
        constant = [scalar.name for scalar in layout.scalars if not scalar.time_varying]
        for name in dict.fromkeys([*([listed] if isinstance(listed, str) else listed or ()), *constant]):
            values = found.setdefault(str(name), set())
            if isinstance(own := layout.attributes.get(str(name)), int | float | str) and not isinstance(own, bool):
                values.add(own if isinstance(own, str) else _short(float(own)))
                continue
            scalar = next((s for s in layout.scalars if s.name == name and not s.time_varying), None)
            if scalar is not None:
                values.update(_short(float(value)) for value in np.ravel(reader.read(scalar.path)))
    return [_parameter(name, values) for name, values in found.items()]


def _parameter(name: str, values: set[float | str]) -> dict[str, Any]:
    numbers = sorted(value for value in values if isinstance(value, float))
    if not values:
        return {"name": name, "description": "listed in the files, without a value"}
    if len(values) > _MANY and len(numbers) == len(values):
        return {"name": name, "description": f"{len(values)} values from {numbers[0]:g} to {numbers[-1]:g}"}
    return {"name": name, "values": [*numbers, *sorted(value for value in values if isinstance(value, str))]}


def _boundaries(layouts: Sequence[WellLayout]) -> list[dict[str, Any]]:
    """Axes by type; a condition whose mask spans several axes lies inside the domain."""
    axes: dict[str, list[str]] = {}
    inside: list[str] = []
    for layout in layouts:
        for boundary in layout.boundaries:
            kind = boundary.type.name
            if len(boundary.dims) == 1:
                held = axes.setdefault(kind, [])
                held += [dim for dim in boundary.dims if dim not in held]
            elif kind not in inside:
                inside.append(kind)
    order = [axis.name for axis in layouts[0].axes]
    found: list[dict[str, Any]] = [
        {"type": kind, "axes": sorted(names, key=order.index)} for kind, names in axes.items()
    ]
    return found + [{"type": kind, "axes": [], "description": "where a mask says so"} for kind in inside]


def _bytes_note(layouts: Sequence[WellLayout]) -> str | None:
    """What the files take, where they lie on this machine."""
    places = [locate(layout.location) for layout in layouts if "://" not in layout.location]
    sizes = [os.path.getsize(place.path) for place in places if os.path.isfile(place.path)]
    return f"The shards take {sum(sizes)} bytes on disk." if len(sizes) == len(layouts) else None


def _statistics(root: str, layout: WellLayout, storage_options: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The dataset's stats.yaml, rounded; None where there is none, or one that does not fit."""
    place = join(root, STATISTICS_FILE)
    shapes = {field.name: (layout.n_spatial_dims,) * field.order for field in layout.fields}
    constant = frozenset(field.name for field in layout.fields if not field.time_varying)
    try:
        statistics = load_statistics(place, storage_options=storage_options)
        statistics.check(shapes, source=place, constant=constant)
    except DataNotFoundError:
        return None
    except StatisticsError as error:
        raise StatisticsError(f"{error}; compute it anew with `wellkit stats {root} --write --overwrite`") from error
    content = statistics.to_mapping()
    rounded: dict[str, Any] = {statistic: _rounded(content[statistic]) for statistic in STATISTICS}
    return {**rounded, "provenance": f"{STATISTICS_FILE} beside the files", "digits": _DIGITS}


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(part) for part in value]
    return float(f"{value:.{_DIGITS}g}")


__all__ = ["infer_card"]
