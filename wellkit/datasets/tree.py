"""The shards of one split taken together: what they share, and whether they fit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from wellkit.datasets.assembly import component_names
from wellkit.datasets.opening import open_shards
from wellkit.datasets.samples import WellMetadata
from wellkit.datasets.sources import DatasetSource
from wellkit.errors import ArgumentError, FormatError, did_you_mean
from wellkit.fetch.range_cache import RangeCache
from wellkit.formats.well import FieldLayout, WellLayout
from wellkit.readers.protocol import ShardReader


@dataclass(frozen=True)
class ShardTree:
    """Readers and layouts of a split's shards, in order, and the fields to deliver by core name."""

    readers: tuple[ShardReader, ...]
    layouts: tuple[WellLayout, ...]
    variable: tuple[str, ...]
    constant: tuple[str, ...]

    def fields_of(self, shard: int, names: Sequence[str]) -> list[FieldLayout]:
        """Fields of one shard in the order of `names`: shards may list them differently."""
        by_name = {field.name: field for field in self.layouts[shard].fields}
        return [by_name[name] for name in names]


def open_tree(
    locations: Sequence[str],
    *,
    storage_options: Mapping[str, Any] | None,
    fields: Sequence[str] | None,
    source: DatasetSource | None = None,
    cache: RangeCache | None = None,
) -> ShardTree:
    """Read every shard's layout and check that they belong together.

    Args:
        source: where remote shards were found, so that nothing is asked for again.
        fields: core field names to deliver; None for all.
        cache: where what is read of the shards is kept.

    Raises:
        FormatError: shards differ in dataset name, dimensions, resolution, fields or scalars; names both files.
        ArgumentError: a name in `fields` is no field of the dataset.
    """
    readers, layouts = open_shards(
        locations,
        storage_options,
        listing=None if source is None else source.listing,
        published=None if source is None else source.published_index,
        cache=cache,
    )
    first = layouts[0]
    for layout in layouts[1:]:
        _check_alike(first, layout)
    known = [field.name for field in first.fields]
    duplicates = {name for name in known if known.count(name) > 1}
    if duplicates:
        raise FormatError(f"{first.location}: field {sorted(duplicates)[0]!r} stands in two tensor orders")
    for name in fields or ():
        if name not in known:
            raise ArgumentError(
                f"fields={list(fields or ())}: {first.dataset_name} has no field {name!r}; "
                f"its fields are {', '.join(known)}.{did_you_mean(name, known)}"
            )
    wanted = set(known if fields is None else fields)
    variable = tuple(f.name for f in first.fields if f.time_varying and f.name in wanted)
    constant = tuple(f.name for f in first.fields if not f.time_varying and f.name in wanted)
    return ShardTree(tuple(readers), tuple(layouts), variable, constant)


# What all shards of a split have to share: (what, how to read it off a layout).
SHARED: tuple[tuple[str, Callable[[WellLayout], Any]], ...] = (
    ("dataset name", lambda layout: layout.dataset_name),
    ("number of spatial dimensions", lambda layout: layout.n_spatial_dims),
    ("resolution", lambda layout: layout.resolution),
    ("grid type", lambda layout: layout.grid_type),
    ("fields", lambda layout: sorted((f.name, f.order, f.time_varying) for f in layout.fields)),
    ("scalars", lambda layout: sorted((s.name, s.time_varying) for s in layout.scalars)),
    ("origin (generator)", lambda layout: layout.generator),
)


def _check_alike(first: WellLayout, other: WellLayout) -> None:
    if first.fields is other.fields and first.generator == other.generator:
        return  # one layout under two names
    for what, of in SHARED:
        if of(first) != of(other):
            raise FormatError(
                f"shards of one split differ in {what}: {first.location} has {of(first)}, {other.location} has "
                f"{of(other)}; keep one kind with include_filters or exclude_filters"
            )


def build_metadata(tree: ShardTree, *, resolution: tuple[int, ...], steps: Sequence[int]) -> WellMetadata:
    """The description the_well calls `metadata`."""
    first = tree.layouts[0]
    axes = [axis.name for axis in first.axes]
    by_order: dict[bool, dict[int, list[str]]] = {True: {0: [], 1: [], 2: []}, False: {0: [], 1: [], 2: []}}
    for field in first.fields:
        if field.name in tree.variable or field.name in tree.constant:
            by_order[field.time_varying][field.order].extend(component_names(field, axes))
    distinct = {id(layout.boundaries): layout.boundaries for layout in tree.layouts}
    kinds = {boundary.type.name for boundaries in distinct.values() for boundary in boundaries}
    return WellMetadata(
        dataset_name=first.dataset_name,
        n_spatial_dims=first.n_spatial_dims,
        spatial_resolution=resolution,
        scalar_names=[s.name for s in first.scalars if s.time_varying],
        constant_scalar_names=[s.name for s in first.scalars if not s.time_varying],
        field_names=by_order[True],
        constant_field_names=by_order[False],
        boundary_condition_types=sorted(kinds),
        n_files=len(tree.layouts),
        n_trajectories_per_file=[layout.n_trajectories for layout in tree.layouts],
        n_steps_per_trajectory=list(steps),
        grid_type=first.grid_type,
    )
