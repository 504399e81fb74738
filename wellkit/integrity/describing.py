"""What a manifest tells of a tree beyond sizes and hashes: trajectories, steps, and the statistics' hash."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from wellkit.errors import DataNotFoundError, StatisticsError, WellkitError
from wellkit.fetch.disk import digest_file
from wellkit.fetch.manifest import changing, new_manifest, read_manifest, write_manifest
from wellkit.fetch.plan import SPLITS, STATISTICS_FILE, FileHash, HashKind, RemoteFile, belongs_to_dataset
from wellkit.formats.statistics_file import load_statistics, statistics_hash
from wellkit.index.model import IndexArray, IndexGroup, ShardIndex
from wellkit.index.safely import index_shards_safely
from wellkit.schemas.manifest import Manifest, ManifestFile

Counts = tuple[int, int]  # trajectories, steps


def dataset_files(directory: Path) -> Iterator[str]:
    """Paths of the files in a folder that belong to a dataset's tree, sorted."""
    for folder in (directory, *(directory / "data" / split for split in SPLITS)):
        if folder.is_dir():
            found = (path.relative_to(directory).as_posix() for path in folder.iterdir() if path.is_file())
            yield from sorted(path for path in found if belongs_to_dataset(path))


def statistics_hash_of(directory: Path) -> str | None:
    """The hash of the values in a tree's stats.yaml; None where there is none, or it cannot be read."""
    try:
        return statistics_hash(load_statistics(directory / STATISTICS_FILE))
    except (DataNotFoundError, StatisticsError):
        return None


def describe(directory: Path, known: Mapping[str, Counts] | None = None) -> Manifest | None:
    """Fill in what the manifest of a tree does not tell yet; returns it, or None where there is none.

    Shards are parsed in child processes; what cannot be parsed has no counts.

    Args:
        directory: the dataset's folder.
        known: trajectories and steps of shards, where they are at hand.

    Raises:
        DocumentError: the manifest is damaged.
        StorageError: it cannot be written.
    """
    before = read_manifest(directory)
    if before is None:
        return None
    unknown = [path for path, file in before.files.items() if path.startswith("data/") and file.trajectories is None]
    counts = dict(known or {}) or count(directory, unknown)
    with changing(directory):
        manifest = read_manifest(directory) or before
        files = dict(manifest.files)
        for path, (trajectories, steps) in counts.items():
            if path in files:
                files[path] = files[path].model_copy(update={"trajectories": trajectories, "steps": steps})
        statistics = manifest.statistics_sha256
        if statistics is None:
            statistics = statistics_hash_of(directory)
        described = manifest.model_copy(update={"files": files, "statistics_sha256": statistics})
        if described != manifest:
            write_manifest(directory, described)
    return described


def count(directory: Path, paths: list[str]) -> dict[str, Counts]:
    """Trajectories and steps of those shards that can be parsed."""
    full = [os.path.join(directory, path) for path in paths]
    found: dict[str, Counts] = {}
    for path, (_, index) in zip(paths, index_shards_safely(full, jobs=min(2, len(full) or 1)), strict=True):
        with suppress(WellkitError, KeyError, ValueError, TypeError, IndexError):
            if isinstance(index, ShardIndex):
                found[path] = _counts(index)
    return found


def _counts(index: ShardIndex) -> Counts:
    dimensions = index.root()["dimensions"]
    assert isinstance(dimensions, IndexGroup)
    time = dimensions["time"]
    assert isinstance(time, IndexArray)
    return int(index.root().attrs["n_trajectories"]), int(time.shape[-1])


def new_entry(directory: Path, path: str, commit: str | None = None) -> ManifestFile:
    """A file as it is on disk now, hashed; no source promises anything of it.

    Raises:
        StorageError: it cannot be read.
    """
    place = directory / path
    before = place.stat()
    digests = digest_file(place, RemoteFile(path, before.st_size, FileHash(HashKind.unpublished, "")))
    return ManifestFile(bytes=before.st_size, sha256=digests.sha256, commit=commit, modified_ns=before.st_mtime_ns)


def write_generated_manifest(directory: Path, *, dataset: str, source: str, counts: Mapping[str, Counts]) -> Manifest:
    """The manifest of a tree that was generated here.

    Args:
        directory: the dataset's folder, complete, perhaps not yet under its name.
        dataset: its name.
        source: what made it.
        counts: trajectories and steps of each shard, by path.

    Raises:
        StorageError: a file cannot be read, or the manifest not written.
    """
    manifest = new_manifest(directory, repository=None, source=source)
    files = {path: new_entry(directory, path) for path in dataset_files(directory)}
    write_manifest(directory, manifest.model_copy(update={"dataset": dataset, "files": files}))
    described = describe(directory, counts)
    assert described is not None
    return described


def record_statistics(directory: Path) -> None:
    """Note in the manifest of a tree, if it has one, that its stats.yaml was written anew on purpose.

    Raises:
        DocumentError: the manifest is damaged.
        StorageError: it cannot be written.
    """
    if read_manifest(directory) is None:
        return
    with changing(directory):
        manifest = read_manifest(directory)
        if manifest is not None:
            files = {**manifest.files, STATISTICS_FILE: new_entry(directory, STATISTICS_FILE)}
            update = {"files": files, "statistics_sha256": statistics_hash_of(directory)}
            write_manifest(directory, manifest.model_copy(update=update))


__all__ = [
    "count",
    "dataset_files",
    "describe",
    "new_entry",
    "record_statistics",
    "statistics_hash_of",
    "write_generated_manifest",
]
