"""`wellkit.download`: a dataset to disk. Plan, transfer, check."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.filesize import decimal

from wellkit.catalog.files import is_generated
from wellkit.errors import ArgumentError, StorageError, WellkitWarning
from wellkit.fetch.manifest import Record
from wellkit.fetch.origin import Origin, Resolved, find_origin, resolve
from wellkit.fetch.partial import bytes_at_hand, remove_leftovers
from wellkit.fetch.plan import STATISTICS_FILE, Action, ActionKind, Selection, plan, select
from wellkit.fetch.refusals import find_refusal
from wellkit.fetch.run import Run, Silent
from wellkit.fetch.transfer import Progress
from wellkit.fetch.where import parse_where
from wellkit.settings import data_dir

_SIZE_TOLERANCE = 0.1  # cards repeat the publishers' rounded figures


@dataclass(frozen=True)
class DownloadReport:
    """What was done, or in a dry run would be done."""

    name: str
    repository: str
    revision: str  # as asked for
    commit: str  # what it stood for
    directory: Path
    actions: tuple[Action, ...]
    in_catalog: bool = False  # whether a card describes it
    notes: tuple[str, ...] = ()
    dry_run: bool = False
    seconds: float = 0.0
    refusal: str = ""  # of a dry run: why the download itself would not begin

    def count(self, *kinds: ActionKind | str) -> int:
        """Files with one of these actions (all files where none is given)."""
        return len(self._of(kinds))

    def size(self, *kinds: ActionKind | str) -> int:
        """Bytes of the files with one of these actions (of all files where none is given)."""
        return sum(action.file.size for action in self._of(kinds))

    @property
    def remaining(self) -> int:
        """Bytes to be transferred."""
        return sum(action.remaining for action in self.actions)

    def _of(self, kinds: Sequence[ActionKind | str]) -> list[Action]:
        wanted = {ActionKind(kind) for kind in kinds}
        return [action for action in self.actions if not wanted or action.kind in wanted]

    def to_mapping(self) -> dict[str, Any]:
        """JSON-compatible content."""
        return {
            "name": self.name,
            "repository": self.repository,
            "revision": self.revision,
            "commit": self.commit,
            "directory": str(self.directory),
            "dry_run": self.dry_run,
            "refusal": self.refusal or None,
            "seconds": round(self.seconds, 3),
            "totals": {
                "all": {"files": self.count(), "bytes": self.size()},
                **{kind.value: {"files": self.count(kind), "bytes": self.size(kind)} for kind in ActionKind},
            },
            "notes": list(self.notes),
            "files": [
                {
                    "path": action.file.path,
                    "action": action.kind.value,
                    "bytes": action.file.size,
                    "hash": str(action.file.hash),
                    "bytes_at_hand": action.at_hand,
                    "verified": action.file.hash.is_published,
                    "reason": action.reason,
                }
                for action in self.actions
            ],
        }


def download(
    name: str,
    to: str | os.PathLike[str] | None = None,
    *,
    splits: Sequence[str] | str | None = None,
    include: Sequence[str] | str = (),
    exclude: Sequence[str] | str = (),
    where: str | None = None,
    max_files: int | None = None,
    max_bytes: int | None = None,
    revision: str = "main",
    source: str = "auto",
    jobs: int = 8,
    dry_run: bool = False,
    confirmed: bool = False,
    progress: Progress | None = None,
) -> DownloadReport:
    """Download a dataset, or the part of it that is asked for, into `to/<name>/`.

    Files that are there and right are kept; what an interrupted download left is gone on with; a file gets its final
    name only once its size and hash are those that the source lists. `stats.yaml` is always part of the download. The
    manifest of the folder (`.wellkit/manifest.json`) records every file that was found right.

    Args:
        name: a name of the catalog, or OWNER/NAME of any dataset repository in The Well's layout.
        to: base folder; default: `$WELLKIT_DATA`, else the user's data directory.
        splits: some of "train", "valid", "test"; default: all.
        include: glob patterns on file names (`*Ma_2*`) or on split and name (`train/*_0.hdf5`); default: all.
        exclude: likewise, for files to leave out; wins over `include`.
        where: physical parameters that file names carry, e.g. "tcool=0.1" or "Re>=1e4,Sc=0.5".
        max_files: at most so many shards of each split, the first by name.
        max_bytes: take shards, one of each split in turn, as long as they sum up to no more than this.
        revision: branch, tag or commit; made a commit at the start, and recorded.
        source: "auto": the Hub, and the mirrors that the card names where it fails; "hub" or "mirror": only those; or
            the address of a web folder that holds the dataset.
        jobs: files transferred at the same time.
        dry_run: only decide, and write nothing.
        confirmed: transfer more than 100 GB.
        progress: told about each file's bytes as they arrive.

    Raises:
        UnknownDatasetError: the catalog has no such name; the message names near matches.
        ArgumentError: an argument makes no sense, or more than 100 GB are not confirmed.
        DataNotFoundError: no such repository, revision or split, or no file passes the filters.
        HubError: no source can be reached, or it refuses.
        IntegrityError: an unsafe listing, or content that is not what the listing promises.
        StorageError: the target is full or cannot be written, or holds generated data.
    """
    if jobs < 1:
        raise ArgumentError(f"jobs={jobs}: at least one file has to be transferred at a time")
    wanted = Selection(
        splits=None if splits is None else _strings(splits) or None,
        include=_strings(include),
        exclude=_strings(exclude),
        max_files=max_files,
        max_bytes=max_bytes,
        where=parse_where(where) if where else (),
    )
    resolved = resolve(name)
    origin = find_origin(resolved, source, revision)
    files = select(origin.files, wanted, source=origin.told)
    directory = (data_dir() if to is None else Path(to).expanduser()) / resolved.folder
    if is_generated(directory):
        raise StorageError(
            f"{directory} holds data that wellkit generated, under the names of the published files; the two must not "
            "mix: choose another target, or move that folder away"
        )
    record = Record(directory, resolved.repository, origin.address)
    on_disk = {file.path: local for file in files if (local := record.local(file)) is not None}
    at_hand = {file.path: bytes_at_hand(directory / file.path, file) for file in files}
    notes = (*origin.notes, *_notes(resolved, origin, directory))
    if notes:
        warnings.warn("; ".join(notes), WellkitWarning, stacklevel=3)
    report = DownloadReport(
        name=resolved.folder,
        repository=resolved.repository,
        revision=revision,
        commit=origin.commit or "",
        directory=directory,
        actions=plan(files, on_disk, at_hand),
        in_catalog=resolved.card is not None,
        notes=notes,
        dry_run=dry_run,
    )
    refusal = find_refusal(report.actions, directory, command=f"wellkit download {name}", confirmed=confirmed)
    if dry_run:
        return replace(report, refusal=str(refusal or ""))
    if refusal is not None:
        raise refusal
    started = time.monotonic()
    remove_leftovers(directory, origin.files)
    actions = Run(origin.sources, record, origin.commit, progress or Silent()).run(report.actions, jobs)
    return replace(report, actions=actions, seconds=time.monotonic() - started)


def _strings(values: Sequence[str] | str) -> tuple[str, ...]:
    return (values,) if isinstance(values, str) else tuple(values)


def _notes(resolved: Resolved, origin: Origin, directory: Path) -> tuple[str, ...]:
    """What differs between the card, the repository and the folder. Told, and never a reason to refuse."""
    card, repository = resolved.card, resolved.repository
    shards = [file for file in origin.files if file.split is not None]
    notes = []
    differences = []
    if card is not None:
        for split, described in card.splits.items():
            found = sum(file.split == split for file in shards)
            if described.files is not None and described.files != found:
                differences.append(f"{found} {split} files instead of {described.files}")
        seen = card.sources.hub.revision_seen if card.sources.hub is not None else None
        if seen is not None and origin.commit is not None and not origin.commit.startswith(seen):
            differences.append(f"commit {origin.commit[:8]} instead of {seen[:8]}")
        total, published = sum(file.size for file in shards), card.sizes.published_bytes
        if published is not None and abs(total - published) > _SIZE_TOLERANCE * published:
            differences.append(f"{decimal(total)} instead of {decimal(published)}")
    if differences and card is not None:
        notes.append(f"{repository} is not as the card of {card.name} says: {', '.join(differences)}")
    if not any(file.path == STATISTICS_FILE for file in origin.files):
        notes.append(f"{repository} has no {STATISTICS_FILE}; `wellkit stats` computes it")
    if any(not file.hash.is_published for file in shards):
        notes.append(f"{origin.told} publishes no hashes: what comes from there is recorded as unverified, first seen")
    listed = {file.path for file in shards}
    strangers = sorted(
        path.relative_to(directory).as_posix()
        for pattern in ("data/*/*.hdf5", "data/*/*.h5")
        for path in directory.glob(pattern)
        if path.relative_to(directory).as_posix() not in listed
    )
    if strangers:
        notes.append(
            f"{directory} holds {len(strangers)} shards that are not in {repository} (such as "
            f"{strangers[0]}); they are left alone, and will be read with the others"
        )
    return tuple(notes)


__all__ = ["DownloadReport", "download"]
