"""`wellkit.download`: a dataset from the Hub to disk. Plan, transfer, check."""

from __future__ import annotations

import os
import re
import threading
import time
import warnings
from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.filesize import decimal

from wellkit import catalog
from wellkit.catalog.files import is_generated
from wellkit.errors import ArgumentError, DataNotFoundError, StorageError, UnknownDatasetError, WellkitWarning
from wellkit.fetch.disk import check_space, hash_file, remove_partials, sole_use
from wellkit.fetch.hub import HubSource, Snapshot
from wellkit.fetch.plan import STATISTICS_FILE, Action, ActionKind, Selection, plan, select
from wellkit.fetch.record import Record
from wellkit.fetch.transfer import Interrupted, Progress, fetch
from wellkit.schemas.card import SimulationCard
from wellkit.settings import data_dir

_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/(?P<name>[A-Za-z0-9][\w.-]*)")
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

    def count(self, *kinds: ActionKind | str) -> int:
        """Files with one of these actions (all files where none is given)."""
        return len(self._of(kinds))

    def size(self, *kinds: ActionKind | str) -> int:
        """Bytes of the files with one of these actions (of all files where none is given)."""
        return sum(action.file.size for action in self._of(kinds))

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
                    "reason": action.reason,
                }
                for action in self.actions
            ],
        }


class _Silent:
    """Progress that nobody follows."""

    def planned(self, n_files: int, n_bytes: int) -> None: ...

    def started(self, file: object) -> None: ...

    def advanced(self, file: object, n_bytes: int) -> None: ...

    def finished(self, file: object) -> None: ...


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
    progress: Progress | None = None,
) -> DownloadReport:
    """Download a dataset, or the part of it that is asked for, into `to/<name>/`.

    Files that are there and right are kept; a file gets its final name only once its size and hash are those
    that the Hub lists. `stats.yaml` is always part of the download.

    Args:
        name: a name of the catalog, or OWNER/NAME of any dataset repository in The Well's layout.
        to: base folder; default: `$WELLKIT_DATA`, else the user's data directory.
        splits: some of "train", "valid", "test"; default: all.
        include: glob patterns on file names (`*Ma_2*`) or on split and name (`train/*_0.hdf5`); default: all.
        exclude: likewise, for files to leave out; wins over `include`.
        where: filter by physical parameter; not available yet.
        max_files: at most so many shards of each split, the first by name.
        max_bytes: take shards, one of each split in turn, as long as they sum up to no more than this.
        revision: branch, tag or commit; made a commit at the start, and recorded.
        source: "auto" or "hub"; mirrors are not available yet.
        jobs: files transferred at the same time.
        dry_run: only decide, and write nothing.
        progress: told about each file's bytes as they arrive.

    Raises:
        UnknownDatasetError: the catalog has no such name; the message names near matches.
        ArgumentError: an argument makes no sense, or asks for what is not available yet.
        DataNotFoundError: no such repository, revision or split, or no file passes the filters.
        HubError: the Hub cannot be reached or refuses.
        IntegrityError: an unsafe listing, or content that is not what the listing promises.
        StorageError: the target is full or cannot be written, or holds generated data.
    """
    if where is not None:
        raise ArgumentError(
            f"where={where!r}: filtering by physical parameter is not available yet; use include= and exclude= on "
            "file names, which hold the parameters"
        )
    if source not in {"auto", "hub"}:
        raise ArgumentError(f"source={source!r} is not available yet; leave it at 'auto' (the Hub)")
    if jobs < 1:
        raise ArgumentError(f"jobs={jobs}: at least one file has to be transferred at a time")
    wanted = Selection(
        splits=None if splits is None else _strings(splits) or None,
        include=_strings(include),
        exclude=_strings(exclude),
        max_files=max_files,
        max_bytes=max_bytes,
    )
    folder_name, repository, card = _resolve(name)
    hub = HubSource(repository)
    snapshot = hub.snapshot(revision)
    files = select(snapshot.files, wanted, source=str(hub))
    directory = (data_dir() if to is None else Path(to).expanduser()) / folder_name
    if is_generated(directory):
        raise StorageError(
            f"{directory} holds data that wellkit generated, under the names of the published files; the two must not "
            "mix: choose another target, or move that folder away"
        )
    record = Record(directory, repository)
    on_disk = {file.path: local for file in files if (local := record.local(file.path)) is not None}
    notes = _notes(card, snapshot, directory)
    if notes:
        warnings.warn("; ".join(notes), WellkitWarning, stacklevel=2)
    report = DownloadReport(
        name=folder_name,
        repository=repository,
        revision=revision,
        commit=snapshot.commit,
        directory=directory,
        actions=plan(files, on_disk),
        in_catalog=card is not None,
        notes=notes,
        dry_run=dry_run,
    )
    if dry_run:
        return report
    started = time.monotonic()
    check_space(directory, report.size(ActionKind.fetch, ActionKind.replace))
    with sole_use(directory):
        remove_partials(directory)
        actions = _Run(hub, record, snapshot.commit, progress or _Silent()).run(report.actions, jobs)
    elapsed = time.monotonic() - started
    return DownloadReport(**{**vars(report), "actions": actions, "seconds": elapsed})


def _strings(values: Sequence[str] | str) -> tuple[str, ...]:
    return (values,) if isinstance(values, str) else tuple(values)


def _resolve(name: str) -> tuple[str, str, SimulationCard | None]:
    """Folder name, Hub repository and card (if any) of what the user called `name`."""
    if "/" in name:
        match = _REPOSITORY.fullmatch(name)
        if match is None or ".." in name:
            raise ArgumentError(f"{name!r} is neither a name of the catalog nor a repository; write NAME or OWNER/NAME")
        try:
            card = _card(match["name"])
        except UnknownDatasetError:
            card = None
        hub = card.sources.hub if card is not None else None
        return match["name"], name, card if hub is not None and hub.repo_id == name else None
    card = _card(name)
    if card is None or card.sources.hub is None:
        raise DataNotFoundError(f"{name}: its card names no Hub repository to download from")
    return card.name, card.sources.hub.repo_id, card


def _card(name: str) -> SimulationCard | None:
    card: object = catalog.get(name)
    return card if isinstance(card, SimulationCard) else None


def _notes(card: SimulationCard | None, snapshot: Snapshot, directory: Path) -> tuple[str, ...]:
    """What differs between the card, the repository and the folder. Told, and never a reason to refuse."""
    shards = [file for file in snapshot.files if file.split is not None]
    notes = []
    differences = []
    if card is not None:
        for split, described in card.splits.items():
            found = sum(file.split == split for file in shards)
            if described.files is not None and described.files != found:
                differences.append(f"{found} {split} files instead of {described.files}")
        seen = card.sources.hub.revision_seen if card.sources.hub is not None else None
        if seen is not None and not snapshot.commit.startswith(seen):
            differences.append(f"commit {snapshot.commit[:8]} instead of {seen[:8]}")
        total, published = sum(file.size for file in shards), card.sizes.published_bytes
        if published is not None and abs(total - published) > _SIZE_TOLERANCE * published:
            differences.append(f"{decimal(total)} instead of {decimal(published)}")
    if differences and card is not None:
        notes.append(f"{snapshot.repository} is not as the card of {card.name} says: {', '.join(differences)}")
    if not any(file.path == STATISTICS_FILE for file in snapshot.files):
        notes.append(f"{snapshot.repository} has no {STATISTICS_FILE}; `wellkit stats` computes it")
    listed = {file.path for file in shards}
    strangers = sorted(
        path.relative_to(directory).as_posix()
        for pattern in ("data/*/*.hdf5", "data/*/*.h5")
        for path in directory.glob(pattern)
        if path.relative_to(directory).as_posix() not in listed
    )
    if strangers:
        notes.append(
            f"{directory} holds {len(strangers)} shards that are not in {snapshot.repository} (such as "
            f"{strangers[0]}); they are left alone, and will be read with the others"
        )
    return tuple(notes)


class _Run:
    """The actions of one download, on several threads; the first failure stops the others."""

    def __init__(self, source: HubSource, record: Record, commit: str, progress: Progress) -> None:
        self._source = source
        self._record = record
        self._commit = commit
        self._progress = progress
        self._stop = threading.Event()

    def run(self, actions: Sequence[Action], jobs: int) -> tuple[Action, ...]:
        """Carry out `actions`; returns them as they turned out."""
        done: dict[str, Action] = {action.file.path: action for action in actions}
        waiting = [action for action in actions if action.kind is not ActionKind.keep]
        certain = [action.file.size for action in waiting if action.kind is not ActionKind.check]
        self._progress.planned(len(certain), sum(certain))
        pool = ThreadPoolExecutor(max_workers=min(jobs, max(1, len(waiting))), thread_name_prefix="wellkit-fetch")
        futures: list[Future[Action]] = [pool.submit(self._carry_out, action) for action in waiting]
        try:
            wait(futures, return_when=FIRST_EXCEPTION)
        finally:
            # Also on Ctrl-C: running transfers see the event, remove what they have written, and end.
            self._stop.set()
            pool.shutdown(wait=True, cancel_futures=True)
        failures = [error for future in futures if not future.cancelled() and (error := future.exception())]
        # Transfers that were only given up because another failed are not what the user has to hear about.
        for error in sorted(failures, key=lambda error: isinstance(error, Interrupted)):
            raise error
        for future in futures:
            action = future.result()
            done[action.file.path] = action
        return tuple(done.values())

    def _carry_out(self, action: Action) -> Action:
        try:
            return self._carry_out_unguarded(action)
        except BaseException:
            self._stop.set()  # here, so that this thread does not take up the next file before anybody noticed
            raise

    def _carry_out_unguarded(self, action: Action) -> Action:
        file, target = action.file, self._record.directory / action.file.path
        if action.kind is ActionKind.check:
            found = hash_file(target, file, stopped=self._stop.is_set)
            self._stop_if_asked(action)
            if found == file.hash:
                self._record.add(file, self._commit)
                return action.become(ActionKind.keep, "checked: its hash is right")
            action = action.become(ActionKind.replace, "checked: its hash is wrong")
            self._progress.planned(1, file.size)
        self._stop_if_asked(action)
        fetch(
            self._source,
            file,
            target,
            progress=self._progress,
            stopped=self._stop.is_set,
            sleep=lambda seconds: self._pause(action, seconds),
        )
        self._record.add(file, self._commit)
        return action

    def _stop_if_asked(self, action: Action) -> None:
        if self._stop.is_set():
            raise Interrupted(f"{action.file.path}: download interrupted")

    def _pause(self, action: Action, seconds: float) -> None:
        """Wait before another attempt, unless the download is given up meanwhile."""
        self._stop.wait(seconds)
        self._stop_if_asked(action)


__all__ = ["DownloadReport", "download"]
