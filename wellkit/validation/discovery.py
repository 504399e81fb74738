"""What lies at the place that is to be validated: splits, shards, statistics, a card, and what does not belong."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from wellkit import catalog
from wellkit.catalog.files import CARD_NAME, read_card
from wellkit.datasets.sources import SHARD_FOLDER_SUFFIXES, SHARD_SUFFIXES, SPLITS, STATISTICS_FILE, join
from wellkit.errors import DataNotFoundError, UnknownDatasetError
from wellkit.schemas.card import SimulationCard
from wellkit.schemas.validation import Finding
from wellkit.settings import data_dir
from wellkit.storage import list_files, list_folders, locate, without_secrets
from wellkit.validation.codes import finding

# What tools leave in folders of data, and what documents them: no reason for a finding.
_HARMLESS = (".md", ".txt", ".json", ".yaml", ".yml", ".lock", ".metadata", ".gitattributes", ".gitignore")


@dataclass(frozen=True)
class Place:
    """What is to be validated.

    Attributes:
        root: the dataset's folder, or that of the shards.
        name: what its card would be called.
        shards: locations by split; the split is "" where shards lie in a bare folder.
        statistics: where stats.yaml belongs, whether or not it is there.
    """

    root: str
    name: str
    shards: dict[str, list[str]]
    statistics: str

    def relative(self, location: str) -> str:
        """A shard's path below the root."""
        for root in (self.root, locate(self.root).address):  # listings write addresses their own way
            if location.startswith(root):
                return without_secrets(location.removeprefix(root).lstrip("/"))
        return without_secrets(location)


def find_place(location: str | os.PathLike[str]) -> Place:
    """The shards of a dataset's folder, of one split of it, of a bare folder, or one shard; or of a name.

    Raises:
        DataNotFoundError: there is nothing there, or no shard.
    """
    given = os.fspath(location).rstrip("/") or "/"
    if "://" not in given:
        given = os.path.expanduser(given)
        if not os.path.exists(given) and "/" not in given and (data_dir() / given).is_dir():
            given = str(data_dir() / given)
        if os.path.isfile(given):
            folder = _above(given, 1)
            root, split = _split_of(folder)
            return Place(root, _name(root), {split: [given]}, join(root, STATISTICS_FILE))
    elif given.partition("?")[0].endswith((*SHARD_SUFFIXES, *SHARD_FOLDER_SUFFIXES)):
        root, split = _split_of(_above(given, 1))
        return Place(root, _name(root), {split: [given]}, join(root, STATISTICS_FILE))
    if not locate(given).join("data").exists():
        root, split = _split_of(given)
        found = {split: _shards(given)}
        if not found[split]:
            raise DataNotFoundError(
                f"{given}: holds neither shards (.hdf5, .h5, .zarr) nor data/<split>; give a dataset's folder, the "
                "folder of a split, or one shard"
            )
        return Place(root, _name(root), found, join(root, STATISTICS_FILE))
    names = list_folders(join(given, "data"))
    ordered = [name for name in SPLITS if name in names] + [name for name in names if name not in SPLITS]
    if not ordered:
        raise DataNotFoundError(f"{given}/data: holds no splits; expected {', '.join(SPLITS)}")
    return Place(
        given,
        _name(given),
        {name: _shards(join(given, "data", name)) for name in ordered},
        join(given, STATISTICS_FILE),
    )


def _above(path: str, levels: int) -> str:
    for _ in range(levels):
        path = path.rpartition("/")[0] or ("/" if path.startswith("/") else ".")
    return path


def _split_of(folder: str) -> tuple[str, str]:
    """(the dataset's folder, the split) of a folder of shards; the folder itself and "" where it is a bare one."""
    above, _, last = folder.rpartition("/")
    return (_above(folder, 2), last) if last in SPLITS and above.rpartition("/")[2] == "data" else (folder, "")


def _name(root: str) -> str:
    name = os.path.basename(os.path.abspath(root)) if "://" not in root else root.rpartition("/")[2]
    return name.partition("@")[0]


def _shards(folder: str) -> list[str]:
    return list_files(folder, suffixes=SHARD_SUFFIXES, folder_suffixes=SHARD_FOLDER_SUFFIXES)


def find_strays(place: Place) -> Iterator[Finding]:
    """Splits without shards, and files that do not belong among the shards of a local tree."""
    for split, shards in place.shards.items():
        if not shards:
            yield finding("empty-split", "the folder is there, but holds no .hdf5, .h5 or .zarr", split=split)
        folder = join(place.root, "data", split) if split else place.root
        if not locate(folder).is_local or not os.path.isdir(folder):
            continue
        for entry in sorted(os.listdir(folder)):
            path = f"{folder}/{entry}"
            if entry.endswith((*SHARD_SUFFIXES, *SHARD_FOLDER_SUFFIXES)) and not entry.startswith("."):
                continue
            leftover = entry.endswith((".partial", ".incomplete", ".tmp", ".part", ".aria2", ".crdownload"))
            harmless = entry.startswith(".") or entry.endswith(_HARMLESS) or os.path.isdir(path) or not split
            if leftover or not harmless:
                told = f"{entry} is {'left over from a download or writer' if leftover else 'no shard'}"
                yield finding("stray-file", told, split=split, shard=place.relative(path))


def find_card(place: Place, given: str | os.PathLike[str] | None) -> tuple[SimulationCard | None, str | None]:
    """(the card to hold the tree against, what it is called in the report).

    The one that was given (a file, or a name in the catalog); else card.yaml beside the data; else the catalog's.

    Raises:
        DocumentError: the card beside the data, or the one given, cannot be used.
        UnknownDatasetError, DataNotFoundError: there is no such card.
        ArgumentError: it is not a card of simulations.
    """
    if given is not None:
        path = Path(given).expanduser()
        if path.is_file() or path.suffix in (".yaml", ".yml"):
            return read_card(path), str(path)
        return catalog.get(os.fspath(given)), f"catalog: {os.fspath(given)}"
    beside = Path(place.root) / CARD_NAME
    if "://" not in place.root and beside.is_file():
        return read_card(beside), str(beside)
    try:
        return catalog.get(place.name), f"catalog: {place.name}"
    except UnknownDatasetError:
        return None, None
