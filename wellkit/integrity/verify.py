"""`wellkit verify`: whether the files of a tree are those that its manifest lists."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from wellkit.errors import ArgumentError, DataNotFoundError, IntegrityError, StorageError
from wellkit.fetch.disk import Digests, digest_file
from wellkit.fetch.hub import HubSource
from wellkit.fetch.manifest import changing, is_untouched, new_manifest, read_manifest, write_manifest
from wellkit.fetch.origin import resolve
from wellkit.fetch.plan import STATISTICS_FILE, FileHash, HashKind, RemoteFile
from wellkit.integrity.describing import dataset_files, describe, statistics_hash_of
from wellkit.integrity.header import header_problem
from wellkit.schemas.manifest import Manifest, ManifestFile
from wellkit.settings import data_dir

Progress = Callable[[int, int], None]  # bytes read, of all


class Finding(StrEnum):
    """What was found of a file."""

    right = "right"
    missing = "missing"
    wrong = "wrong"
    unverified = "unverified"  # it is as it was first seen, which nobody published a hash of
    unknown = "unknown"  # the manifest, or the Hub, does not list it


_FAULTS = frozenset({Finding.missing, Finding.wrong})


@dataclass(frozen=True)
class FileReport:
    """One file."""

    path: str
    finding: Finding
    bytes: int
    reason: str = ""


@dataclass(frozen=True)
class VerifyReport:
    """What `verify` found.

    Attributes:
        directory: the dataset's folder.
        source: where the manifest says that the data came from.
        way: "fast", "deep" or "adopt".
        files: all that are listed, and all that are there.
        statistics_sha256: of stats.yaml as it is now.
    """

    directory: Path
    source: str
    repository: str | None
    way: str
    files: tuple[FileReport, ...]
    statistics_sha256: str | None = None

    def count(self, finding: Finding | str) -> int:
        """How many files were found so."""
        return sum(file.finding is Finding(finding) for file in self.files)

    @property
    def faults(self) -> tuple[FileReport, ...]:
        """The files that are missing or wrong."""
        return tuple(file for file in self.files if file.finding in _FAULTS)

    @property
    def ok(self) -> bool:
        """Whether nothing is missing or wrong."""
        return not self.faults

    def to_mapping(self) -> dict[str, Any]:
        """JSON-compatible content."""
        return {
            "directory": str(self.directory),
            "source": self.source,
            "repository": self.repository,
            "way": self.way,
            "ok": self.ok,
            "statistics_sha256": self.statistics_sha256,
            "totals": {finding.value: self.count(finding) for finding in Finding},
            "files": [{**vars(file), "finding": file.finding.value} for file in self.files],
        }


def find_directory(path: str | os.PathLike[str]) -> Path:
    """The folder of a dataset that is given by its path or, where there is no such path, by its name.

    Raises:
        DataNotFoundError: there is no such folder.
    """
    text = os.fspath(path)
    for place in (Path(text).expanduser(), data_dir() / text):
        if place.is_dir():
            return place
    raise DataNotFoundError(
        f"{text}: there is no such folder, and no dataset of that name in {data_dir()}; give the one that holds data/"
    )


def verify(
    path: str | os.PathLike[str],
    *,
    deep: bool = False,
    adopt: bool = False,
    repository: str | None = None,
    revision: str = "main",
    jobs: int = 4,
    progress: Progress | None = None,
) -> VerifyReport:
    """Compare the files of a dataset's folder with its manifest.

    Args:
        path: the folder, or the name of a downloaded dataset.
        deep: read every file and compare its hash; else sizes, and the headers of HDF5 files.
        adopt: hash a tree that another tool has fetched, compare it with the Hub, and write its manifest. Only files
            that are right get into it.
        repository: with `adopt`: OWNER/NAME; by default that of the folder's name in the catalog.
        revision: with `adopt`: branch, tag or commit.
        jobs: files hashed at the same time.
        progress: called with (bytes read, of all); several threads call.

    Raises:
        DataNotFoundError: there is no such folder, or it has no manifest.
        DocumentError: its manifest is damaged.
        HubError: with `adopt`: the Hub cannot be reached.
        StorageError: a file cannot be read, or the manifest not written.
    """
    if jobs < 1:
        raise ArgumentError(f"jobs={jobs}: at least one file has to be read at a time")
    directory = find_directory(path)
    if adopt:
        return _adopt(directory, repository, revision, jobs, progress)
    if repository is not None or revision != "main":
        raise ArgumentError("repository= and revision= are for adopt=True; else the manifest tells them")
    manifest = read_manifest(directory)
    if manifest is None:
        raise DataNotFoundError(
            f"{directory}: has no manifest, so that nothing tells what its files should be; if it comes from the Hub, "
            f"`wellkit verify {directory} --adopt` compares it with the Hub and writes one"
        )
    found = _compare(directory, manifest, deep=deep, jobs=jobs, progress=progress)
    return VerifyReport(
        directory=directory,
        source=manifest.source,
        repository=manifest.repository,
        way="deep" if deep else "fast",
        files=found,
        statistics_sha256=statistics_hash_of(directory),
    )


def _compare(
    directory: Path, manifest: Manifest, *, deep: bool, jobs: int, progress: Progress | None
) -> tuple[FileReport, ...]:
    reports = {path: _look(directory, path, file, manifest) for path, file in manifest.files.items()}
    if deep:
        readable = [path for path, report in reports.items() if report.finding not in _FAULTS]
        wanted = [
            RemoteFile(path, manifest.files[path].bytes, FileHash(HashKind.sha256, manifest.files[path].sha256))
            for path in readable
        ]
        digests = _digest_all(directory, wanted, jobs, progress)
        for file in wanted:
            if not digests[file.path].fit(file):
                reason = f"sha256 is {digests[file.path].sha256}, not {file.hash.value}"
                reports[file.path] = replace(reports[file.path], finding=Finding.wrong, reason=reason)
    strangers = [path for path in dataset_files(directory) if path not in manifest.files]
    for path in strangers:
        size = (directory / path).stat().st_size
        reports[path] = FileReport(path, Finding.unknown, size, "not in the manifest; it is read with the others")
    return tuple(reports[path] for path in sorted(reports))


def _look(directory: Path, path: str, file: ManifestFile, manifest: Manifest) -> FileReport:
    """What the size and the header of a file tell."""
    place = directory / path
    try:
        status = place.stat()
    except (FileNotFoundError, NotADirectoryError):
        return FileReport(path, Finding.missing, file.bytes, "not on disk")
    except OSError as error:
        raise StorageError(f"cannot look at {place}: {error.strerror or error}") from error
    if not place.is_file():
        return FileReport(path, Finding.wrong, file.bytes, "a folder is in its place")
    if status.st_size != file.bytes:
        return FileReport(path, Finding.wrong, file.bytes, f"has {status.st_size} bytes, not {file.bytes}")
    if path == STATISTICS_FILE:
        now = statistics_hash_of(directory)
        if manifest.statistics_sha256 is not None and now != manifest.statistics_sha256:
            return FileReport(path, Finding.wrong, file.bytes, "other values than when the manifest was written")
    elif (problem := header_problem(place, file.bytes)) is not None:
        return FileReport(path, Finding.wrong, file.bytes, problem)
    touched = "" if is_untouched(file, status) else "written to after it was verified: deep=True (--deep) hashes it"
    return FileReport(
        path,
        Finding.right if file.published or manifest.repository is None else Finding.unverified,
        file.bytes,
        touched,
    )


def _digest_all(
    directory: Path, files: Sequence[RemoteFile], jobs: int, progress: Progress | None
) -> dict[str, Digests]:
    """The hashes of files on disk by path, several at a time.

    Raises:
        StorageError: one cannot be read.
    """
    total = sum(file.size for file in files)
    lock, stop = threading.Lock(), threading.Event()
    done = 0

    def advanced(n_bytes: int) -> None:
        nonlocal done
        with lock:
            done += n_bytes
            if progress is not None:
                progress(done, total)

    def work(file: RemoteFile) -> Digests:
        return digest_file(directory / file.path, file, stopped=stop.is_set, advanced=advanced)

    with ThreadPoolExecutor(max_workers=jobs, thread_name_prefix="wellkit-hash") as pool:
        try:
            return dict(zip((file.path for file in files), pool.map(work, files), strict=True))
        finally:
            stop.set()


def _adopt(
    directory: Path, repository: str | None, revision: str, jobs: int, progress: Progress | None
) -> VerifyReport:
    known = read_manifest(directory)
    if known is not None and known.repository is None:
        raise ArgumentError(
            f"{directory} was not downloaded ({known.source}): there is nothing on the Hub to adopt it by"
        )
    name = repository or (known.repository if known is not None else None) or directory.resolve().name
    hub = HubSource(resolve(name).repository)
    snapshot = hub.snapshot(revision)
    listed = {file.path: file for file in snapshot.files}
    there = [path for path in dataset_files(directory) if path in listed]
    if not there:
        raise DataNotFoundError(
            f"{directory}: holds none of the {len(listed)} files of {hub}; give the folder that holds data/, or the "
            "repository with --repository"
        )
    whole = [listed[path] for path in there if (directory / path).stat().st_size == listed[path].size]
    statuses = {file.path: (directory / file.path).stat() for file in whole}
    digests = _digest_all(directory, whole, jobs, progress)
    reports, entries = {}, {}
    for file in snapshot.files:
        if file.path in digests and digests[file.path].fit(file):
            reports[file.path] = FileReport(file.path, Finding.right, file.size, "its hash is that of the Hub")
            entries[file.path] = ManifestFile(
                bytes=file.size,
                sha256=digests[file.path].sha256,
                git_blob_sha1=file.hash.value if file.hash.kind is HashKind.git_blob else None,
                published=True,
                commit=snapshot.commit,
                modified_ns=statuses[file.path].st_mtime_ns,
            )
        elif file.path in there:
            reason = f"is not the file of {snapshot.commit[:12]}; of another revision, or damaged"
            reports[file.path] = FileReport(file.path, Finding.wrong, file.size, reason)
    for path in dataset_files(directory):
        if path not in listed:
            size = (directory / path).stat().st_size
            reports[path] = FileReport(path, Finding.unknown, size, f"not in {hub}")
    if not entries:
        raise IntegrityError(
            f"{directory}: none of its {len(there)} files is that of {hub} at {snapshot.commit[:12]}; nothing was "
            "written. Give the revision they are of with --revision"
        )
    with changing(directory):
        source = f"hf://datasets/{hub.repository}"
        manifest = new_manifest(directory, repository=hub.repository, source=source)
        write_manifest(directory, manifest.model_copy(update={"files": entries}))
    described = describe(directory)
    files = tuple(reports[path] for path in sorted(reports))
    sha256 = described.statistics_sha256 if described is not None else None
    return VerifyReport(directory, source, hub.repository, "adopt", files, sha256)
