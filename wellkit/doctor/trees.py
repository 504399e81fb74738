"""Datasets on disk, by what names, sizes and the first bytes of their files tell."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

from wellkit import catalog
from wellkit.catalog.files import is_generated
from wellkit.doctor.finding import Finding, Status
from wellkit.errors import DataNotFoundError, WellkitError
from wellkit.fetch.plan import STATISTICS_FILE
from wellkit.formats.statistics_file import load_statistics
from wellkit.index.file import index_path, open_tree_index
from wellkit.integrity.header import header_problem
from wellkit.integrity.verify import Finding as FileFinding
from wellkit.integrity.verify import verify

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
    problems, listed = _manifest(folder)
    present: dict[str, int] = {}
    for split in SPLITS:
        for path in sorted((folder / "data" / split).glob("*")):
            relative = path.relative_to(folder).as_posix()
            if path.suffix == ".zarr" and path.is_dir():
                counts[split] = counts.get(split, 0) + 1
            elif path.suffix in _SUFFIXES:
                counts[split] = counts.get(split, 0) + 1
                present[relative], fault = _look(path)
                size += present[relative]
                if relative not in listed and fault is not None:
                    problems.append(_problem(folder, "broken", f"{path}: {fault}", f"wellkit download {folder.name}"))
            elif path.suffix == ".partial":
                advice = f"wellkit download {folder.name}"
                problems.append(_problem(folder, "note", f"{path}: left by a download that was interrupted", advice))
    if not counts:
        problems.append(_problem(folder, "warning", f"{folder}: holds no shards", f"wellkit download {folder.name}"))
    if STATISTICS_FILE not in listed:
        problems += _statistics(folder)
    problems += _index(folder, present)
    problems += _card(folder, counts)
    return TreeHealth(folder.name, folder, counts, size, tuple(problems))


def _look(path: Path) -> tuple[int, str | None]:
    """(size of a shard, what is wrong with its beginning)."""
    try:
        size = path.stat().st_size
        return size, header_problem(path, size)
    except OSError as error:  # ours is one, too
        return 0, " ".join(str(error).split())


def _problem(folder: Path, status: Status, value: str, advice: str) -> Finding:
    return Finding(SECTION, folder.name, status, value, advice)


def _manifest(folder: Path) -> tuple[list[Finding], set[str]]:
    """What differs from the manifest, by sizes and headers, and the files that it lists."""
    try:
        report = verify(folder)
    except DataNotFoundError:  # no manifest: nothing tells what the files should be
        return [], set()
    except WellkitError as error:
        return [_problem(folder, "broken", str(error), f"wellkit verify {folder} --adopt")], set()
    adopt = " --adopt" if report.repository else ""
    mended = f"wellkit {'repair' if report.repository else 'verify'} {folder}"
    found = [
        _problem(folder, "broken", f"{folder / file.path}: {file.reason}", mended)
        for file in report.faults
        if file.path != STATISTICS_FILE or file.finding is not FileFinding.wrong
    ]
    found += [
        _problem(
            folder,
            "broken",
            f"{folder / file.path}: {file.reason}",
            f"{mended}, or wellkit stats {folder} --write --overwrite",
        )
        for file in report.faults
        if file.path == STATISTICS_FILE and file.finding is FileFinding.wrong
    ]
    found += [
        _problem(folder, "note", f"{folder / file.path}: {file.reason}", f"wellkit verify {folder}{adopt}")
        for file in report.files
        if file.finding is FileFinding.unknown
    ]
    return found, {file.path for file in report.files if file.finding is not FileFinding.unknown}


def _statistics(folder: Path) -> list[Finding]:
    place = folder / STATISTICS_FILE
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
