"""`wellkit doctor`: everything that is looked at, in order."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.filesize import decimal

from wellkit import catalog, settings
from wellkit.doctor.environment import examine_environment
from wellkit.doctor.finding import STATUSES, Finding
from wellkit.doctor.hub import examine_hub
from wellkit.doctor.trees import TreeHealth, examine_tree, find_trees
from wellkit.errors import ArgumentError, DataNotFoundError, WellkitError
from wellkit.fetch.cache_contents import cache_contents
from wellkit.fetch.disk import check_writable

SECONDS = 5.0
_LITTLE = 1_000_000_000  # bytes of disk below which there is a warning


@dataclass(frozen=True)
class Health:
    """What was found: `findings` in the order of looking, datasets on disk in `trees`."""

    findings: tuple[Finding, ...]
    trees: tuple[TreeHealth, ...]

    @property
    def is_broken(self) -> bool:
        """Whether something has to be mended."""
        return any(finding.status == "broken" for finding in self.findings)

    @property
    def next_steps(self) -> list[str]:
        """What to do, the most pressing first, each once."""
        pressing = [
            finding.advice
            for status in STATUSES
            for finding in self.findings
            if finding.status == status and finding.advice is not None
        ]
        if not self.trees:
            pressing.append(
                "wellkit quickstart (two minutes, nothing to download), or wellkit list and wellkit download"
            )
        return list(dict.fromkeys(pressing))

    def to_mapping(self) -> dict[str, Any]:
        """JSON-compatible content."""
        return {
            "broken": self.is_broken,
            "findings": [vars(finding) for finding in self.findings],
            "trees": [
                {
                    "name": tree.name,
                    "path": str(tree.path),
                    "shards": tree.shards,
                    "bytes": tree.bytes,
                    "status": worst(tree.findings),
                }
                for tree in self.trees
            ],
            "next": self.next_steps,
        }


def worst(findings: Sequence[Finding]) -> str:
    """The worst status of some findings; "ok" where there are none."""
    return next((status for status in STATUSES if any(finding.status == status for finding in findings)), "ok")


def examine(data: str | os.PathLike[str] | None = None, *, network: bool = True, seconds: float = SECONDS) -> Health:
    """Look at this machine and at the datasets on it. Changes nothing, and takes seconds.

    Args:
        data: folder of datasets; default: `$WELLKIT_DATA`, else the user's data directory.
        network: whether to ask the Hub.
        seconds: how long to wait for the Hub.

    Raises:
        ArgumentError: `seconds` is not above zero.
    """
    if not 0 < seconds < float("inf"):
        raise ArgumentError(f"seconds={seconds}; give a number above 0")
    base = settings.data_dir() if data is None else Path(data).expanduser()
    findings = list(examine_environment())
    findings += examine_hub(seconds) if network else [Finding("Hub", "reachable", "note", "not asked")]
    findings += _disk("data", base)
    findings += _disk("cache", settings.cache_dir())
    findings += _caches(settings.cache_dir())
    findings += _catalog()
    trees = tuple(examine_tree(folder) for folder in find_trees(base))
    for tree in trees:
        held = ", ".join(f"{count} {split}" for split, count in tree.shards.items()) or "no"
        value = f"{held} shards, {decimal(tree.bytes)} in {tree.path}"
        findings += tree.findings or (Finding("trees", tree.name, "ok", value),)
    if not trees:
        findings.append(Finding("trees", "datasets", "note", f"none in {base}"))
    return Health(tuple(findings), trees)


def _disk(name: str, folder: Path) -> Iterator[Finding]:
    try:
        check_writable(folder / ".wellkit-doctor")
        existing = next(place for place in (folder, *folder.absolute().parents) if place.is_dir())
        usage = shutil.disk_usage(existing)
    except (WellkitError, OSError) as error:
        variable = settings.DATA_VARIABLE if name == "data" else settings.CACHE_VARIABLE
        yield Finding(
            "disk", name, "broken", str(error), f"name a folder that can be written to: export {variable}=DIR"
        )
        return
    there = "" if folder.is_dir() else " (not made yet)"
    value = f"{folder}{there}: {decimal(usage.free)} of {decimal(usage.total)} free"
    if usage.free < _LITTLE:
        yield Finding("disk", name, "warning", value, f"free space on the disk of {folder}")
    else:
        yield Finding("disk", name, "ok", value)


def _caches(folder: Path) -> Iterator[Finding]:
    try:
        limit = settings.cache_limit()
        items = cache_contents(folder) if folder.is_dir() else []
    except DataNotFoundError as error:
        yield Finding("cache", "contents", "warning", str(error), f"name another: export {settings.CACHE_VARIABLE}=DIR")
        return
    except WellkitError as error:
        yield Finding("cache", "contents", "broken", str(error), str(error).rpartition("; ")[2])
        return
    bound = "what the disk has but 5 %" if limit is None else decimal(limit)
    yield Finding("cache", "limit", "ok", f"copies of streamed shards may take {bound}")
    for item in items:
        kept = f", {item.present / item.size:.0%} of {decimal(item.size)}" if item.size else ""
        yield Finding("cache", item.name, "ok", f"{item.kind}: {item.n_files} files, {decimal(item.allocated)}{kept}")
    if not items:
        yield Finding("cache", "contents", "ok", "empty")


def _catalog() -> Iterator[Finding]:
    try:
        known = len(catalog.names())
        paths = settings.catalog_paths()
    except WellkitError as error:
        advice = f"mend the card, or leave it out of {settings.CATALOG_VARIABLE}"
        yield Finding("catalog", "cards", "broken", str(error), advice)
        return
    own = f", with those of {os.pathsep.join(map(str, paths))}" if paths else ""
    yield Finding("catalog", "cards", "ok", f"{known} datasets{own}")


__all__ = ["Health", "examine", "worst"]
