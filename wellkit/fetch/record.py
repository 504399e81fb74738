"""The record of what was downloaded and verified: `<dataset>/.wellkit/downloads.json`.

With it a rerun need not hash hundreds of gigabytes again. A file counts as verified only while its size and its
time of modification are those that the record holds; any other is hashed.
"""

from __future__ import annotations

import json
import threading
import warnings
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from wellkit.errors import DocumentError, DocumentVersionError, StorageError, WellkitWarning
from wellkit.fetch.disk import FOLDER, telling, write_atomically
from wellkit.fetch.plan import FileHash, HashKind, LocalFile, RemoteFile
from wellkit.schemas.document import Document, Model

FILE_NAME = "downloads.json"


class VerifiedFile(Model):
    """A file whose content was checked against the hash its source promises."""

    size: int
    hash_kind: HashKind
    hash: str
    commit: str
    modified_ns: int


class DownloadsDocument(Document):
    """The record as it is on disk."""

    KIND: ClassVar[str] = "downloads"

    repository: str
    files: dict[str, VerifiedFile] = Field(default_factory=dict)


def verified_files(directory: Path) -> tuple[str | None, dict[str, VerifiedFile]]:
    """The repository a dataset's folder was downloaded from, and its files that are as they were verified, by path.

    (None, {}) where there is no record that can be read.
    """
    try:
        document = DownloadsDocument.parse(json.loads((directory / FOLDER / FILE_NAME).read_bytes()), source=FILE_NAME)
    except (OSError, ValueError):
        return None, {}
    found = {}
    for path, known in document.files.items():
        with suppress(OSError):
            status = (directory / path).stat()
            if (status.st_size, status.st_mtime_ns) == (known.size, known.modified_ns):
                found[path] = known
    return document.repository, found


class Record:
    """The record of one dataset's folder. Thread-safe."""

    def __init__(self, directory: Path, repository: str) -> None:
        """Read the record of `directory`, if there is one.

        Raises:
            DocumentVersionError: a newer wellkit wrote it.
            StorageError: the folder holds another repository's files.
        """
        self.directory = directory
        self.path = directory / FOLDER / FILE_NAME
        self._lock = threading.Lock()
        self._repository = repository
        self._files: dict[str, VerifiedFile] = {}
        document = self._load()
        if document is None:
            return
        if document.repository != repository:
            raise StorageError(
                f"{directory} holds files of {document.repository}, not of {repository}; choose another target"
            )
        self._files = dict(document.files)

    def _load(self) -> DownloadsDocument | None:
        try:
            text = self.path.read_text(encoding="utf-8")
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, UnicodeDecodeError) as error:
            self._damaged(str(error))
            return None
        try:
            return DownloadsDocument.parse(json.loads(text), source=str(self.path))
        except DocumentVersionError:
            raise
        except (ValueError, DocumentError) as error:
            self._damaged(str(error))
            return None

    def _damaged(self, reason: str) -> None:
        warnings.warn(
            f"{self.path} cannot be used ({reason}): files already there are checked again",
            WellkitWarning,
            stacklevel=2,
        )

    def local(self, path: str) -> LocalFile | None:
        """What lies at `path` of the dataset's folder, and what is known of it; None where there is nothing.

        Raises:
            StorageError: something is there that is no file.
        """
        place = self.directory / path
        try:
            found = place.stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise StorageError(f"cannot look at {place}: {error.strerror or error}") from error
        if not place.is_file():
            raise StorageError(f"{place} is in the way: it is a folder, and a file is to be there; move it away")
        known = self._files.get(path)
        if known is None or known.size != found.st_size or known.modified_ns != found.st_mtime_ns:
            return LocalFile(found.st_size)
        return LocalFile(found.st_size, FileHash(known.hash_kind, known.hash))

    def add(self, file: RemoteFile, commit: str) -> None:
        """Note that the file on disk has the hash that is promised for `file`. Written at once.

        Raises:
            StorageError: the record cannot be written.
        """
        place = self.directory / file.path
        with telling(place), self._lock:
            self._files[file.path] = VerifiedFile(
                size=file.size,
                hash_kind=file.hash.kind,
                hash=file.hash.value,
                commit=commit,
                modified_ns=place.stat().st_mtime_ns,
            )
            document = DownloadsDocument(
                schema_=DownloadsDocument.schema_name(),
                repository=self._repository,
                files=dict(sorted(self._files.items())),
            )
            write_atomically(self.path, (json.dumps(document.to_mapping(), indent=1) + "\n").encode())
