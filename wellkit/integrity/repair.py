"""`wellkit repair`: fetch again what is missing or wrong, and nothing else."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from wellkit.errors import ArgumentError, HubError, StorageError, WellkitError
from wellkit.fetch.hub import HubSource
from wellkit.fetch.manifest import Record, published_hash, read_manifest
from wellkit.fetch.mirror import MirrorSource
from wellkit.fetch.origin import resolve
from wellkit.fetch.partial import bytes_at_hand
from wellkit.fetch.plan import STATISTICS_FILE, Action, ActionKind, RemoteFile
from wellkit.fetch.refusals import find_refusal
from wellkit.fetch.run import Run, Silent
from wellkit.fetch.transfer import Progress as TransferProgress
from wellkit.fetch.transfer import Source
from wellkit.integrity.describing import describe
from wellkit.integrity.verify import FileReport, Finding, Progress, VerifyReport, verify
from wellkit.schemas.manifest import Manifest
from wellkit.settings import hub_offline


@dataclass(frozen=True)
class RepairReport:
    """What `repair` did, or in a dry run would do.

    Attributes:
        found: the verification before.
        actions: one for every file that was missing or wrong.
    """

    found: VerifyReport
    actions: tuple[Action, ...]
    dry_run: bool = False
    seconds: float = 0.0

    @property
    def bytes(self) -> int:
        """Transferred, or to be."""
        return sum(action.remaining for action in self.actions)

    def to_mapping(self) -> dict[str, Any]:
        """JSON-compatible content."""
        return {
            "directory": str(self.found.directory),
            "repository": self.found.repository,
            "way": self.found.way,
            "dry_run": self.dry_run,
            "seconds": round(self.seconds, 3),
            "bytes": self.bytes,
            "files": [
                {
                    "path": action.file.path,
                    "action": action.kind.value,
                    "bytes": action.file.size,
                    "reason": action.reason,
                }
                for action in self.actions
            ],
        }


def repair(
    path: str | os.PathLike[str],
    *,
    deep: bool = True,
    jobs: int = 4,
    dry_run: bool = False,
    confirmed: bool = False,
    verifying: Progress | None = None,
    progress: TransferProgress | None = None,
) -> RepairReport:
    """Fetch the files that are missing or wrong again, in the version that the manifest lists.

    A wrong file stays in its place until its replacement is verified: where the source has that version no longer,
    nothing changes.

    Args:
        path: the folder, or the name of a downloaded dataset.
        deep: find out by the hashes of all files; else by sizes and headers.
        jobs: files read, and transferred, at the same time.
        dry_run: only find out, and write nothing.
        confirmed: transfer more than 100 GB.
        verifying: called with (bytes read, of all) while files are checked.
        progress: told about each file's bytes as they arrive.

    Raises:
        DataNotFoundError: there is no such folder, it has no manifest, or its source has that version no longer.
        StorageError: files are wrong that were not downloaded, so that they cannot be fetched again.
        HubError: the source cannot be reached.
        IntegrityError: the source has other content under that name now.
    """
    found = verify(path, deep=deep, jobs=jobs, progress=verifying)
    manifest = read_manifest(found.directory)
    assert manifest is not None  # verify has read it
    if found.ok:
        return RepairReport(found, (), dry_run)
    if found.repository is None:
        raise StorageError(
            f"{found.directory}: {len(found.faults)} files are missing or wrong, such as {found.faults[0].path} "
            f"({found.faults[0].reason}), and they were not downloaded ({found.source}); generate them again into "
            "another folder, or copy them from elsewhere"
        )
    actions = tuple(_action(found.directory, fault, manifest) for fault in found.faults)
    refusal = find_refusal(actions, found.directory, command=None, confirmed=confirmed)
    if refusal is not None and not dry_run:
        raise refusal
    report = RepairReport(found, actions, dry_run)
    if dry_run:
        return report
    if hub_offline():
        raise HubError(f"{found.directory}: HF_HUB_OFFLINE is set; unset it to repair")
    started = time.monotonic()
    done: list[Action] = []
    for commit in sorted({manifest.files[action.file.path].commit or "" for action in actions}):
        group = [action for action in actions if (manifest.files[action.file.path].commit or "") == commit]
        record = Record(found.directory, found.repository, manifest.source)
        done += Run(_sources(found.repository, manifest, commit), record, commit or None, progress or Silent()).run(
            group, jobs
        )
    describe(found.directory)
    return replace(report, actions=tuple(done), seconds=time.monotonic() - started)


def _action(directory: Path, fault: FileReport, manifest: Manifest) -> Action:
    known = manifest.files[fault.path]
    if fault.path == STATISTICS_FILE and not known.published:
        raise StorageError(
            f"{directory / fault.path}: {fault.reason}, and it was computed here; compute it again with "
            f"`wellkit stats {directory} --write --overwrite`"
        )
    file = RemoteFile(fault.path, known.bytes, published_hash(known))
    at_hand = bytes_at_hand(directory / fault.path, file)
    kind = ActionKind.replace if fault.finding is Finding.wrong else ActionKind.fetch
    if (directory / fault.path).is_dir():
        return Action(ActionKind.refuse, file, f"{directory / fault.path} is in the way: it is a folder")
    if kind is ActionKind.fetch and at_hand:
        kind = ActionKind.resume
    return Action(kind, file, fault.reason, at_hand)


def _sources(repository: str, manifest: Manifest, commit: str) -> Sequence[Source]:
    """The Hub at the commit, where it is known, and mirrors."""
    mirrors: list[Source] = []
    try:
        mirrors = [MirrorSource(address) for address in resolve(repository).mirrors]
    except WellkitError:
        mirrors = []
    if manifest.source.startswith(("http://", "https://")):
        mirrors.insert(0, MirrorSource(manifest.source))
    hub: list[Source] = [HubSource(repository).at(commit)] if commit else []
    if not hub and not mirrors:
        raise ArgumentError(f"{repository}: the manifest names no commit to fetch from; download the dataset again")
    return [*hub, *mirrors]
