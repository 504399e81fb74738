"""Where a dataset's shards and statistics are: from the caller's arguments to locations."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from wellkit import catalog
from wellkit.errors import ArgumentError, DataNotFoundError, UnknownDatasetError, WellkitWarning, did_you_mean
from wellkit.fetch.listing import Listing, expect_file, hub_place, list_remote, pinned
from wellkit.readers.output import warm_kernels
from wellkit.settings import data_dir
from wellkit.storage import list_files, list_folders, locate, without_secrets

SPLITS = ("train", "valid", "test")
SHARD_SUFFIXES = (".hdf5", ".h5")
SHARD_FOLDER_SUFFIXES = (".zarr",)
STATISTICS_FILE = "stats.yaml"


@dataclass(frozen=True)
class DatasetSource:
    """Resolved locations. `statistics` lists candidates, the first that exists counts."""

    root: str
    data: str
    statistics: tuple[str, ...]
    given_statistics: bool
    commit: str | None = None  # of the Hub repository the root lies in
    name: str | None = None  # the dataset's, where it was given
    storage_options: Mapping[str, Any] | None = field(default=None, repr=False)

    @cached_property
    def listing(self) -> Listing | None:
        """What the storage lists, asked once: of the whole repository on the Hub, else of the split's folder.

        None where the shards are local files. Raises DataNotFoundError or HubError.
        """
        if "://" not in self.data or self.data.startswith(("file://", "local://")):
            return None
        return list_remote(self.data, self.storage_options)

    @property
    def published_index(self) -> str | None:
        """Where the dataset's card says that an index of its shards is; None without a card."""
        name = self.name or self.root.rstrip("/").rsplit("/", 1)[-1].partition("@")[0]
        try:
            return catalog.get(name).sources.index
        except UnknownDatasetError:
            return None

    def expect_statistics(self) -> None:
        """Begin to fetch the statistics, which will be asked for."""
        if self.listing is not None:
            expect_file(self.present_statistics()[0], self.storage_options)

    def present_statistics(self) -> tuple[str, ...]:
        """The candidates without those that the listing shows not to be there; at least the first."""
        listing = self.listing
        if listing is None:
            return self.statistics
        kept = [place for place in self.statistics if not listing.covers(place) or listing.file(place) is not None]
        return tuple(kept) or self.statistics[:1]


def join(base: str, *parts: str) -> str:
    """Locations joined with "/", whatever the storage."""
    return "/".join([base.rstrip("/"), *parts]) if base != "/" else "/" + "/".join(parts)


def resolve_source(
    *,
    path: str | os.PathLike[str] | None,
    base_path: str | os.PathLike[str] | None,
    name: str | None,
    split: str | None,
    normalization_path: str | os.PathLike[str] | None,
    storage_options: Mapping[str, Any] | None,
) -> DatasetSource:
    """Locations of one split.

    `path` wins: the folder of shards itself, or the dataset's folder when `split` is given. Else
    `base_path/name/data/split`. Without a base path: what was downloaded, else the Hub.

    Raises:
        ArgumentError: neither a path nor a name was given, or a name without a split.
        UnknownDatasetError: a name without a base path that has no card.
    """
    if split is not None and split not in SPLITS:
        raise ArgumentError(f"well_split_name={split!r} is unknown; choose one of {', '.join(SPLITS)}")
    if path is not None:
        root = os.fspath(path).rstrip("/") or "/"
        data = join(root, "data", split) if split else root
        # A bare folder of shards is often <dataset>/data/<split>: its statistics lie two levels up.
        folders = (root,) if split else (root, _parent(root), _parent(_parent(root)))
        default = tuple(join(folder, STATISTICS_FILE) for folder in folders)
    elif name is not None:
        if split is None:
            raise ArgumentError(f"well_dataset_name={name!r} needs well_split_name: one of {', '.join(SPLITS)}")
        name = _folder_name(name, base_path)
        base = os.fspath(base_path) if base_path is not None else _find_base(name, split, storage_options)
        root = join(base, name)
        data = join(root, "data", split)
        default = (join(root, STATISTICS_FILE),)
    else:
        raise ArgumentError("give path=, or well_dataset_name= (with well_base_path= where it is not downloaded)")
    if normalization_path is not None:
        given = os.fspath(normalization_path)
        if not (os.path.isabs(given) or "://" in given or given.startswith(root)):
            # the_well drops leading dots and slashes: code written for it says ../stats.yaml and means root/stats.yaml
            default = (join(root, given), join(root, given.lstrip("./")))
        else:
            default = (given,)
    if "://" in root:
        warm_kernels()
    commit = None
    if (place := hub_place(root)) is not None:
        # A branch can move while an epoch runs: everything is read from the commit it names now.
        at_commit = pinned(place, storage_options)
        commit, head = at_commit.revision, place.root
        root, data, *candidates = (
            at_commit.root + location[len(head) :] if location == head or location.startswith(f"{head}/") else location
            for location in (root, data, *default)
        )
        default = tuple(candidates)
    return DatasetSource(
        root,
        data,
        default,
        given_statistics=normalization_path is not None,
        commit=commit,
        name=name,
        storage_options=storage_options,
    )


def _parent(location: str) -> str:
    return location.rsplit("/", 1)[0] or "/" if "/" in location else "."


def _folder_name(name: str, base_path: str | os.PathLike[str] | None) -> str:
    """What a dataset's folder is called: `NAME@VERSION` has one of its own.

    A folder that bears the whole name, and a Hub address, where `@` leads a revision, win over a version.

    Raises:
        UnknownDatasetError: the dataset has no such version.
    """
    if "@" not in name:
        return name
    base = None if base_path is None else os.fspath(base_path)
    if base is not None and "://" not in base and Path(base, name).is_dir():
        return name
    try:
        return catalog.get(name).name
    except UnknownDatasetError:
        if base is not None and ("://" in base or name.partition("@")[0] not in catalog.names()):
            return name
        raise


def _find_base(name: str, split: str, storage_options: Mapping[str, Any] | None) -> str:
    """The base folder of a dataset given by name alone: downloaded, or the Hub's."""
    downloaded = data_dir()
    if (downloaded / name / "data" / split).is_dir() and list_files(
        str(downloaded / name / "data" / split), suffixes=SHARD_SUFFIXES, folder_suffixes=SHARD_FOLDER_SUFFIXES
    ):
        return str(downloaded)
    card = catalog.get(name)
    hub = card.sources.hub
    repository = hub.repo_id if hub is not None and hub.hosted else None
    if repository is None:
        raise DataNotFoundError(
            f"{name}: no downloaded copy in {downloaded} and the card names no Hub repository to stream from; "
            "give well_base_path= or path="
        )
    owner, _, repository_name = repository.partition("/")
    if repository_name != name:
        raise DataNotFoundError(f"{name}: stream it with path='hf://datasets/{repository}'")
    warnings.warn(
        f"{name} ({split}) is not in {downloaded}: streaming it from the Hub repository {repository}; "
        f"run `wellkit download {name}` to read it from disk",
        WellkitWarning,
        stacklevel=4,
    )
    return f"hf://datasets/{owner}"


def find_shards(
    source: DatasetSource,
    *,
    include: Sequence[str],
    exclude: Sequence[str],
    storage_options: Mapping[str, Any] | None,
) -> list[str]:
    """Locations of the split's shards whose file names pass the filters, sorted.

    A file is taken if its name (not its path) contains any of `include` (or `include` is empty) and none of
    `exclude`; one that two filters match is taken once.

    Raises:
        DataNotFoundError: the folder is missing or holds no shard, or the filters leave none; names what is there.
        ArgumentError: a shard is there both as HDF5 and as Zarr.
    """
    place = without_secrets(source.data)
    try:
        files, folders = _look_into(source)
    except FileNotFoundError as error:
        raise DataNotFoundError(_missing(source, storage_options)) from error
    if not files:
        advice = _level(source.data, folders()) or "is it the folder of a split's shards?"
        raise DataNotFoundError(f"{place}: holds no .hdf5 or .h5 file and no .zarr folder; {advice}")
    kept = [
        file
        for file in files
        if (not include or any(part in file.rsplit("/", 1)[-1] for part in include))
        and not any(part in file.rsplit("/", 1)[-1] for part in exclude)
    ]
    if not kept:
        example = files[0].rsplit("/", 1)[-1]
        raise DataNotFoundError(
            f"{place}: none of its {len(files)} files passes include_filters={list(include)}, "
            f"exclude_filters={list(exclude)}; filters are parts of file names such as {example!r}"
        )
    _check_no_twins(place, kept)
    return kept


def _look_into(source: DatasetSource) -> tuple[list[str], Callable[[], list[str]]]:
    """Shards of the split's folder, sorted, and what gives the names of the folders in it.

    Raises:
        DataNotFoundError: there is no such folder.
    """
    listing = source.listing
    if listing is None:
        files = list_files(source.data, suffixes=SHARD_SUFFIXES, folder_suffixes=SHARD_FOLDER_SUFFIXES)
        return files, partial(list_folders, source.data)
    if listing.is_whole and not listing.has_folder(source.data):
        raise DataNotFoundError(f"{source.data}: no such folder")
    found = [file for file in listing.files_in(source.data) if file.partition("?")[0].endswith(SHARD_SUFFIXES)]
    below = listing.folders_in(source.data)
    found += [place for place in below if place.endswith(SHARD_FOLDER_SUFFIXES)]
    return sorted(found), lambda: [place.rsplit("/", 1)[-1] for place in below]


def _folders_in(source: DatasetSource, folder: str, storage_options: Mapping[str, Any] | None) -> list[str]:
    """Names of the folders in `folder`. Raises DataNotFoundError where there is no such folder."""
    listing = source.__dict__.get("listing")
    if listing is None or not listing.is_whole or not folder.startswith(listing.root):
        return list_folders(folder, storage_options=storage_options)
    if not listing.has_folder(folder):
        raise DataNotFoundError(f"{folder}: no such folder")
    return [place.rsplit("/", 1)[-1] for place in listing.folders_in(folder)]


def _check_no_twins(place: str, shards: Sequence[str]) -> None:
    """Refuse a shard that lies there as HDF5 and as Zarr: every sample of it would come twice."""
    by_stem: dict[str, str] = {}
    for shard in shards:
        name = shard.partition("?")[0].rsplit("/", 1)[-1]
        other = by_stem.setdefault(name.rsplit(".", 1)[0], name)
        if other.endswith(SHARD_FOLDER_SUFFIXES) != name.endswith(SHARD_FOLDER_SUFFIXES):
            raise ArgumentError(
                f"{place}: holds {other} and {name}, the same shard in two formats; keep one with "
                "include_filters=['.hdf5'] or include_filters=['.zarr']"
            )


def _missing(source: DatasetSource, storage_options: Mapping[str, Any] | None) -> str:
    """What to say of a split's folder that is not there: the nearest folder above that is, and what it holds."""
    folder = source.data
    for _ in range(4):
        place = locate(folder, storage_options)
        if place.is_local and Path(place.path).is_file():
            return f"{source.data}: no such folder; {folder} is a file, give the folder of a dataset"
        wanted, folder = folder.rsplit("/", 1)[-1], _parent(folder)
        try:
            present = _folders_in(source, folder, storage_options)
        except FileNotFoundError:
            continue
        held = f"holds {', '.join(present[:8])}" if present else "holds no folders"
        advice = did_you_mean(wanted, present) or (
            f" {hint[0].upper()}{hint[1:]}" if (hint := _level(folder, present, wanted=wanted)) else ""
        )
        return f"{source.data}: no such folder; {folder} {held}, not {wanted!r}.{advice}".rstrip(".")
    return f"{source.data}: no such folder"


def _level(folder: str, present: Sequence[str], *, wanted: str | None = None) -> str:
    """Advice for a folder one level too high or too low: the base, the dataset's own or its data/; else empty."""
    if set(present) & set(SPLITS):
        return f"it holds the splits of a dataset: give the folder above, {_parent(folder)}"
    if "://" in folder:
        return ""
    local = locate(folder)
    if local.is_local and any((Path(local.path) / "data" / split).is_dir() for split in SPLITS):
        if wanted is None:
            return "it is a dataset's folder: name the split too"
        return f"it is a dataset's own folder: give the one above, {_parent(folder)}, as the base"
    datasets = [name for name in present if local.is_local and (Path(local.path) / name / "data").is_dir()]
    return f"it holds datasets: give one of them, e.g. {join(folder, datasets[0])}" if datasets else ""


__all__ = ["SPLITS", "DatasetSource", "UnknownDatasetError", "find_shards", "join", "resolve_source"]
