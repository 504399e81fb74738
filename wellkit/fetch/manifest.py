"""The manifest of a dataset's folder, `<dataset>/.wellkit/manifest.json`: read, kept up while files arrive, and used.

With it a rerun need not hash hundreds of gigabytes again. A file counts as verified only while its size and its
time of modification are those that the manifest holds; any other is hashed.
"""

from __future__ import annotations

import json
import os
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from wellkit import __version__
from wellkit.errors import DocumentError, DocumentVersionError, StorageError, WellkitWarning
from wellkit.fetch.disk import FOLDER, Digests, locked_folder, telling, write_atomically
from wellkit.fetch.plan import STATISTICS_FILE, FileHash, HashKind, LocalFile, RemoteFile
from wellkit.schemas.manifest import Manifest, ManifestFile

FILE_NAME = "manifest.json"
SAVE_EVERY = 1.0  # seconds; what a kill loses of it is only hashed again


def manifest_path(directory: Path) -> Path:
    """Where the manifest of a dataset's folder lies."""
    return directory / FOLDER / FILE_NAME


def read_manifest(directory: Path) -> Manifest | None:
    """The manifest of a dataset's folder; None where there is none.

    Raises:
        DocumentError: it is damaged, or (DocumentVersionError) of a newer wellkit.
    """
    path = manifest_path(directory)
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise DocumentError(f"{path}: cannot be read ({error})") from error
    try:
        return Manifest.parse(json.loads(text), source=str(path))
    except DocumentError:
        raise
    except ValueError as error:
        raise DocumentError(f"{path}: is no JSON ({error})") from error


def write_manifest(directory: Path, manifest: Manifest) -> None:
    """Write the manifest of a dataset's folder, whole or not at all.

    Raises:
        StorageError: it cannot be written.
    """
    ordered = manifest.model_copy(update={"files": dict(sorted(manifest.files.items()))})
    write_atomically(manifest_path(directory), (json.dumps(ordered.to_mapping(), indent=1) + "\n").encode())


@contextmanager
def changing(directory: Path) -> Iterator[None]:
    """Hold the manifest while it is read, changed and written: several processes may fill one folder.

    Raises:
        StorageError: the folder cannot be written.
    """
    with locked_folder(directory / FOLDER, told_as=directory):
        yield


def new_manifest(directory: Path, *, repository: str | None, source: str) -> Manifest:
    """A manifest that lists nothing yet."""
    return Manifest(
        schema_=Manifest.schema_name(),
        dataset=directory.resolve().name or "dataset",
        repository=repository,
        source=source,
        written_by=f"wellkit {__version__}",
    )


def published_hash(file: ManifestFile) -> FileHash:
    """The hash by which the source knows a file: git's where the manifest has one."""
    if file.git_blob_sha1 is not None:
        return FileHash(HashKind.git_blob, file.git_blob_sha1)
    return FileHash(HashKind.sha256, file.sha256)


def is_untouched(file: ManifestFile, status: os.stat_result) -> bool:
    """Whether what lies on disk has the size and time of modification that the manifest holds."""
    return (status.st_size, status.st_mtime_ns) == (file.bytes, file.modified_ns)


def verified_files(directory: Path) -> tuple[str | None, dict[str, ManifestFile]]:
    """The repository a dataset's folder was downloaded from, and its files that are as they were verified, by path.

    (None, {}) where there is no manifest that can be read, or the data were not downloaded.
    """
    try:
        manifest = read_manifest(directory)
    except DocumentError:
        return None, {}
    if manifest is None or manifest.repository is None:
        return None, {}
    found = {}
    for path, known in manifest.files.items():
        with suppress(OSError):
            if known.published and is_untouched(known, (directory / path).stat()):
                found[path] = known
    return manifest.repository, found


class Record:
    """The manifest of one dataset's folder while files arrive. Thread-safe; other processes may add to it as well."""

    def __init__(self, directory: Path, repository: str, source: str) -> None:
        """Read the manifest of `directory`, if there is one.

        Raises:
            DocumentVersionError: a newer wellkit wrote it.
            StorageError: the folder holds another repository's files.
        """
        self.directory = directory
        self._lock = threading.Lock()
        self._empty = new_manifest(directory, repository=repository, source=source)
        self._new: dict[str, ManifestFile] = {}
        self._saved = time.monotonic()
        manifest = self._load()
        if manifest is not None and manifest.repository != repository:
            raise StorageError(
                f"{directory} holds files of {manifest.repository or manifest.source}, not of {repository}; choose "
                "another target"
            )
        self._files = dict(manifest.files) if manifest is not None else {}

    def _load(self) -> Manifest | None:
        try:
            return read_manifest(self.directory)
        except DocumentVersionError:
            raise
        except DocumentError as error:
            warnings.warn(
                f"{error}: it cannot be used, files already there are checked again", WellkitWarning, stacklevel=4
            )
            return None

    def local(self, file: RemoteFile) -> LocalFile | None:
        """What lies at the place of `file`, and what is known of it; None where there is nothing.

        Raises:
            StorageError: it cannot be looked at.
        """
        place = self.directory / file.path
        try:
            found = place.stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise StorageError(f"cannot look at {place}: {error.strerror or error}") from error
        if not place.is_file():
            return LocalFile(0, obstacle=f"{place} is in the way: it is a folder, and a file is to be there")
        known = self._files.get(file.path)
        if known is None or not is_untouched(known, found):
            return LocalFile(found.st_size)
        return LocalFile(found.st_size, _as_known(known, file))

    def add(self, file: RemoteFile, digests: Digests, commit: str | None) -> None:
        """Note that the file on disk is `file`, with these hashes. Written soon, and by `save`.

        Raises:
            StorageError: the manifest cannot be written.
        """
        place = self.directory / file.path
        before = self._files.get(file.path)
        same = before is not None and before.sha256 == digests.sha256
        with telling(place):
            modified = place.stat().st_mtime_ns
        entry = ManifestFile(
            bytes=file.size,
            sha256=digests.sha256,
            git_blob_sha1=file.hash.value if file.hash.kind is HashKind.git_blob else None,
            published=file.hash.is_published or bool(same and before and before.published),
            version=None if file.hash.is_published else file.hash.value,
            commit=commit or (before.commit if same and before else None),
            modified_ns=modified,
            trajectories=before.trajectories if same and before else None,
            steps=before.steps if same and before else None,
        )
        with self._lock:
            self._files[file.path] = self._new[file.path] = entry
            if time.monotonic() - self._saved >= SAVE_EVERY:
                self._save()

    def save(self) -> None:
        """Write what was added.

        Raises:
            StorageError: the manifest cannot be written.
        """
        with self._lock:
            folder = manifest_path(self.directory).parent
            if self._new or sorted(path.name for path in folder.glob("*")) != [FILE_NAME]:
                self._save()

    def _save(self) -> None:
        with changing(self.directory):
            for left in manifest_path(self.directory).parent.glob(f"{FILE_NAME}.*.new"):
                left.unlink(missing_ok=True)  # of a writer that was killed: the others wait
            try:
                current = read_manifest(self.directory) or self._empty
            except DocumentError:
                current = self._empty
            update: dict[str, object] = {"files": {**current.files, **self._new}}
            new, old = self._new.get(STATISTICS_FILE), current.files.get(STATISTICS_FILE)
            if new is not None and (old is None or new.sha256 != old.sha256):
                update["statistics_sha256"] = None  # of another file
            write_manifest(self.directory, current.model_copy(update=update))
        self._new = {}
        self._saved = time.monotonic()


def _as_known(known: ManifestFile, file: RemoteFile) -> FileHash | None:
    """The hash of a file as the source of `file` would tell it; None where that is not known."""
    if file.hash.kind is HashKind.sha256:
        return FileHash(HashKind.sha256, known.sha256)
    if file.hash.kind is HashKind.git_blob:
        return FileHash(HashKind.git_blob, known.git_blob_sha1) if known.git_blob_sha1 else None
    # A source without hashes cannot know better than one that published them.
    return file.hash if known.published or known.version == file.hash.value else FileHash(file.hash.kind, "")
