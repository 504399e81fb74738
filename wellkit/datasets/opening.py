"""Layouts of many shards for the price of a few: shards that a written index calls alike are parsed once."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from wellkit.formats.well import WellLayout, parse_layout
from wellkit.index.file import TreeIndex
from wellkit.index.lookup import INDEX_LEVELS, tree_index
from wellkit.readers.hdf5 import Hdf5Reader
from wellkit.readers.indexed import IndexedReader
from wellkit.readers.protocol import ShardReader
from wellkit.readers.zarr import ZarrReader
from wellkit.storage import locate

# Root attributes that a layout is made of: where alike shards differ in one of these, each is parsed.
_STRUCTURAL = frozenset({"dataset_name", "grid_type", "n_spatial_dims", "n_trajectories"})


def open_shards(
    locations: Sequence[str], storage_options: Mapping[str, Any] | None
) -> tuple[list[ShardReader], list[WellLayout]]:
    """A reader and the layout of each shard, in order. Raises as `parse_layout` does."""
    folders: dict[str, _Folder] = {}
    readers: list[ShardReader] = []
    layouts: list[WellLayout] = []
    for location in locations:
        reader = layout = None
        if "://" not in location and not location.endswith(".zarr"):
            name = os.path.basename(location)
            folder_name = location[: len(location) - len(name)]
            folder = folders.get(folder_name)
            if folder is None:
                folder = folders[folder_name] = _Folder(folder_name)
            reader, layout = folder.open(location, name)
        else:
            reader = _reader(location, storage_options)
        readers.append(reader)
        layouts.append(layout or parse_layout(reader))
    return readers, layouts


def _reader(location: str, storage_options: Mapping[str, Any] | None) -> ShardReader:
    if location.partition("?")[0].rstrip("/").endswith(".zarr"):
        return ZarrReader(location, storage_options)
    if "://" in location and not location.startswith("file://"):
        reader = Hdf5Reader(location, storage_options)
        reader.close()  # a file replaced since this process last looked would go on being read as it was
        return reader
    return IndexedReader(locate(location).path)


class _Folder:
    """A local folder of shards, with the index written for it, if there is one."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._sizes: dict[str, int] = {}
        self._alike: dict[int, WellLayout | None] = {}  # by skeleton: the layout to share, None: each has its own
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
            reader = IndexedReader(location)
            return reader, parse_layout(reader)
        reader = IndexedReader(location, index)
        skeleton = self._index.skeleton_of(path)
        shared = self._alike.get(skeleton)
        if shared is not None:
            return reader, shared.at(location, self._index.own_attributes(path))
        layout = parse_layout(reader)
        if skeleton not in self._alike:
            self._alike[skeleton] = None if self._index.varying(skeleton) & _STRUCTURAL else layout
        return reader, layout
