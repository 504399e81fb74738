"""Layouts of many shards for the price of a few: shards that a written index calls alike are parsed once."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from wellkit.fetch.listing import ListedFile, Listing, list_remote
from wellkit.fetch.range_cache import RangeCache, local_file
from wellkit.fetch.ranges import RangeReader
from wellkit.formats.well import WellLayout, parse_layout
from wellkit.index.file import ShardTable, TreeIndex
from wellkit.index.lookup import INDEX_LEVELS, tree_index
from wellkit.index.remote import CONNECTIONS, find_indexes, with_sizes
from wellkit.readers.hdf5 import Hdf5Reader
from wellkit.readers.indexed import IndexedReader
from wellkit.readers.protocol import ShardReader, WindowReader
from wellkit.readers.ranged import RangedReader, Ranges
from wellkit.readers.remote import RemoteReader
from wellkit.readers.zarr import ZarrReader
from wellkit.storage import locate

# Root attributes that a layout is made of: where alike shards differ in one of these, each is parsed.
_STRUCTURAL = frozenset({"dataset_name", "grid_type", "n_spatial_dims", "n_trajectories"})


def open_shards(
    locations: Sequence[str],
    storage_options: Mapping[str, Any] | None,
    *,
    listing: Listing | None = None,
    published: str | None = None,
    cache: RangeCache | None = None,
) -> tuple[list[ShardReader], list[WellLayout]]:
    """A reader and the layout of each shard, in order. Raises as `parse_layout` and `find_indexes` do.

    Args:
        listing: of the folder that remote shards lie in; None to ask for it if there are any.
        published: where the dataset's card says that an index of remote shards is.
        cache: where the bytes of windows are kept, of remote shards and of local ones; None: nowhere.
    """
    remote = _open_remote(
        [location for location in locations if _is_remote_hdf5(location)], storage_options, listing, published, cache
    )
    slow = None
    if cache is not None:
        here = [local_file(path) for path in locations if "://" not in path and not _is_zarr(path)]
        slow = RemoteReader(cache.reading(RangeReader(), here))
    folders: dict[str, _Folder] = {}
    readers: list[ShardReader] = []
    layouts: list[WellLayout] = []
    for location in locations:
        reader: ShardReader
        layout = None
        if location in remote:
            reader, layout = remote[location]
        elif "://" not in location and not location.endswith(".zarr"):
            name = os.path.basename(location)
            folder_name = location[: len(location) - len(name)]
            folder = folders.get(folder_name)
            if folder is None:
                folder = folders[folder_name] = _Folder(folder_name, slow)
            reader, layout = folder.open(location, name)
        elif _is_zarr(location):
            reader = ZarrReader(location, storage_options)
        else:
            reader = IndexedReader(locate(location).path, windows=slow)
        readers.append(reader)
        layouts.append(layout or parse_layout(reader))
    return readers, layouts


def open_cache(cache: str | os.PathLike[str] | bool | None) -> RangeCache | None:
    """The cache that an argument names: True is the user's own, a path a folder, None and False none.

    Raises:
        StorageError: the folder cannot be made.
    """
    if cache is None or cache is False:
        return None
    return RangeCache(None if cache is True else cache)


def _is_zarr(location: str) -> bool:
    return location.partition("?")[0].rstrip("/").endswith(".zarr")


def _is_remote_hdf5(location: str) -> bool:
    return "://" in location and not location.startswith(("file://", "local://")) and not _is_zarr(location)


def _open_remote(
    locations: Sequence[str],
    storage_options: Mapping[str, Any] | None,
    listing: Listing | None,
    published: str | None,
    cache: RangeCache | None,
) -> dict[str, tuple[ShardReader, WellLayout]]:
    """Readers and layouts of remote shards: from indexes that stand elsewhere, or from all headers at once."""
    if not locations:
        return {}
    if listing is None:
        listing = list_remote(locations[0].partition("?")[0].rpartition("/")[0], storage_options)
    ranges = RangeReader(storage_options, connections=CONNECTIONS)
    kept: Ranges = ranges
    if cache is not None:
        files = [listing.file(location) or ListedFile(location, None) for location in locations]
        kept = cache.reading(ranges, with_sizes(files, storage_options))
    windows = RemoteReader(kept, connections=CONNECTIONS)
    opened: dict[str, tuple[ShardReader, WellLayout]] = {}
    alike = _Alike()
    found = find_indexes(listing, locations, storage_options, published=published, reader=ranges)
    for location, (table, path) in zip(locations, found, strict=True):
        if table is None:
            slow = Hdf5Reader(location, storage_options)
            slow.close()  # a file replaced since this process last looked would go on being read as it was
            opened[location] = slow, parse_layout(slow)
            continue
        listed = listing.file(location)
        is_checked = listed is not None and listed.size is not None
        reader = RangedReader(location, table, path, kept, storage_options, is_checked=is_checked, windows=windows)
        opened[location] = reader, alike.layout(reader, table, path)
    return opened


class _Alike:
    """Layouts, parsed once for all shards that an index calls alike."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, int], WellLayout | None] = {}  # None: each shard of the skeleton has its own

    def layout(self, reader: ShardReader, table: ShardTable, path: str) -> WellLayout:
        """The layout of the shard that `reader` reads and `table` indexes under `path`."""
        skeleton = table.skeleton_of(path)
        key = (id(table), skeleton)
        shared = self._known.get(key)
        if shared is not None:
            return shared.at(reader.location, table.own_attributes(path))
        layout = parse_layout(reader)
        if key not in self._known:
            self._known[key] = None if table.varying(skeleton) & _STRUCTURAL else layout
        return layout


class _Folder:
    """A local folder of shards, with the index written for it, if there is one."""

    def __init__(self, name: str, windows: WindowReader | None) -> None:
        self._name = name
        self._windows = windows
        self._sizes: dict[str, int] = {}
        self._alike = _Alike()
        self._index, self._prefix = self._find_index()

    def _find_index(self) -> tuple[TreeIndex | None, str]:
        """The nearest written index at or above the folder, and the folder's path below it, with a slash."""
        above = os.path.abspath(self._name or ".")
        prefix = ""
        for _ in range(INDEX_LEVELS):
            found = tree_index(above)
            if found is not None:
                with os.scandir(self._name or ".") as entries:
                    self._sizes = {entry.name: entry.stat().st_size for entry in entries if entry.is_file()}
                return found, prefix
            above, last = os.path.split(above)
            prefix = f"{last}/{prefix}"
        return None, ""

    def open(self, location: str, name: str) -> tuple[ShardReader, WellLayout]:
        """One shard of the folder."""
        path = self._prefix + name
        index = self._index.find(path, self._sizes.get(name, -1)) if self._index is not None else None
        if self._index is None or index is None:
            reader = IndexedReader(location, windows=self._windows)
            return reader, parse_layout(reader)
        reader = IndexedReader(location, index, windows=self._windows)
        return reader, self._alike.layout(reader, self._index, path)
