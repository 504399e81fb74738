"""Datasets on disk, by what names, sizes and the first bytes of their files tell."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

from wellkit import catalog
from wellkit.catalog.files import is_generated
from wellkit.doctor.finding import Finding, Status
from wellkit.errors import DataNotFoundError, DocumentError, ShardError, WellkitError
from wellkit.fetch.manifest import manifest_path, read_manifest
from wellkit.formats.statistics_file import load_statistics
from wellkit.index.file import index_path, open_tree_index
from wellkit.index.superblock import check_superblock

SECTION = "trees"
SPLITS = ("train", "valid", "test")
_SUFFIXES = (".hdf5", ".h5")


@dataclass(frozen=True)
class TreeHealth:
    """A dataset's folder: how much is there, and what is not as it should be."""

    name: str
    path: Path
    shards: dict[str, int]
    bytes: int
    findings: tuple[Finding, ...]


def find_trees(base: Path) -> list[Path]:
    """Folders of datasets directly below `base` (or `base` itself), by name."""
    candidates = [base]
    try:
        candidates += sorted(base.iterdir())
    except OSError:
        return []
    return [folder for folder in candidates if any((folder / "data" / split).is_dir() for split in SPLITS)]


def examine_tree(folder: Path) -> TreeHealth:
    """Look at every file's size and beginning; no array is read, and no parser is let at them."""
    counts: dict[str, int] = {}
    size = 0
    problems: list[Finding] = []
    present: dict[str, int] = {}
    for split in SPLITS:
        for path in sorted((folder / "data" / split).glob("*")):
            relative = path.relative_to(folder).as_posix()
            if path.suffix == ".zarr" and path.is_dir():
                counts[split] = counts.get(split, 0) + 1
            elif path.suffix in _SUFFIXES:
                counts[split] = counts.get(split, 0) + 1
                try:
                    present[relative] = check_superblock(path)
                except (ShardError, DataNotFoundError) as error:
                    problems.append(_problem(folder, "broken", str(error), f"wellkit download {folder.name}"))
                size += path.stat().st_size if path.exists() else 0
            elif path.suffix == ".partial":
                advice = f"wellkit download {folder.name}"
                problems.append(_problem(folder, "note", f"{path}: left by a download that was interrupted", advice))
    if not counts:
        problems.append(_problem(folder, "warning", f"{folder}: holds no shards", f"wellkit download {folder.name}"))
    problems += _record(folder, present)
    problems += _statistics(folder)
    problems += _index(folder, present)
    problems += _card(folder, counts)
    return TreeHealth(folder.name, folder, counts, size, tuple(problems))


def _problem(folder: Path, status: Status, value: str, advice: str) -> Finding:
    return Finding(SECTION, folder.name, status, value, advice)


def _record(folder: Path, present: dict[str, int]) -> list[Finding]:
    """Shards that are not as they were when the manifest was written."""
    try:
        manifest = read_manifest(folder)
    except DocumentError as error:
        reason = " ".join(str(error).split())
        value = f"{manifest_path(folder)}: cannot be used ({reason})"
        return [_problem(folder, "warning", value, f"wellkit download {folder.name}")]
    if manifest is None:
        return []
    came = "downloaded" if manifest.repository is not None else "generated"
    advice = f"wellkit repair {folder}" if manifest.repository is not None else f"wellkit verify {folder} --deep"
    found = []
    for path, known in sorted(manifest.files.items()):
        if not (folder / path).exists():
            value = f"{folder / path}: was {came}, and is not there any more"
            found.append(_problem(folder, "warning", value, advice))
        elif path in present and present[path] != known.bytes:
            value = f"{folder / path}: has {present[path]} bytes, {known.bytes} when it was verified"
            found.append(_problem(folder, "broken", value, advice))
    return found


def _statistics(folder: Path) -> list[Finding]:
    place = folder / "stats.yaml"
    try:
        load_statistics(place)
    except DataNotFoundError:
        return [_problem(folder, "warning", f"{place}: is missing", f"wellkit stats {folder} --write")]
    except WellkitError as error:
        return [_problem(folder, "broken", str(error), f"wellkit stats {folder} --write --overwrite")]
    return []


def _index(folder: Path, present: dict[str, int]) -> list[Finding]:
    """Whether a written index is that of the shards that are there."""
    if not index_path(folder).exists():
        return []
    advice = f"wellkit index {folder}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an index that cannot be used is told of here
        index = open_tree_index(folder)
    if index is None:
        return [_problem(folder, "warning", f"{index_path(folder)}: cannot be used", advice)]
    stale = [path for path, size in present.items() if path in index and index.find(path, size) is None]
    missing = [path for path in present if path not in index]
    gone = [path for path in index.paths if path not in present and not (folder / path).exists()]
    told = [
        f"{len(paths)} {what} ({paths[0]})"
        for paths, what in (
            (stale, "shards changed since"),
            (missing, "shards are not in it"),
            (gone, "shards of it are gone"),
        )
        if paths
    ]
    return [_problem(folder, "warning", f"{index_path(folder)}: {', '.join(told)}", advice)] if told else []


def _card(folder: Path, counts: dict[str, int]) -> list[Finding]:
    """Splits that hold fewer shards than the dataset's card says."""
    if is_generated(folder):
        return []
    try:
        card = catalog.get(folder.name)
    except WellkitError:
        return []
    short = [
        f"{counts.get(split, 0)} of {described.files} {split}"
        for split, described in card.splits.items()
        if described.files is not None and counts.get(split, 0) < described.files
    ]
    if not short:
        return []
    return [_problem(folder, "note", f"{folder}: holds {', '.join(short)} files", f"wellkit download {folder.name}")]
