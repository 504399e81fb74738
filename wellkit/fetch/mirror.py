"""A mirror as a source: a web folder with a dataset's tree in it, as publishers of large data keep beside the Hub."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from huggingface_hub import get_session, hf_raise_for_status

from wellkit import __version__
from wellkit.errors import DataNotFoundError, DocumentError, DownloadError, HubError
from wellkit.fetch.disk import FOLDER
from wellkit.fetch.manifest import FILE_NAME, published_hash
from wellkit.fetch.plan import SPLITS, STATISTICS_FILE, FileHash, HashKind, RemoteFile, belongs_to_dataset, check_paths
from wellkit.fetch.requests import ask, longest_stall, open_stream, range_headers, stream_from
from wellkit.schemas.manifest import Manifest
from wellkit.settings import hub_offline
from wellkit.storage import list_files, without_secrets

_LOOKS = 8  # at a time


class MirrorSource:
    """A web folder that holds `data/` and `stats.yaml`. Thread-safe. No token is ever sent to it.

    Args:
        address: of the folder.
    """

    def __init__(self, address: str) -> None:
        self.address = address.rstrip("/")

    def __str__(self) -> str:
        return without_secrets(self.address)

    def files(self) -> tuple[str | None, tuple[RemoteFile, ...]]:
        """(commit it is a copy of, its files by path).

        From the manifest beside the data where there is one. Else from the server's own listing, without hashes:
        then nothing is known of a file but its size and what the server calls its version.

        Raises:
            HubError: it cannot be reached.
            DataNotFoundError: there is no such folder.
            IntegrityError: an unsafe path is listed.
        """
        if hub_offline():
            raise HubError(f"{self}: HF_HUB_OFFLINE is set; unset it to reach mirrors")
        manifest = self._manifest()
        if manifest is not None:
            check_paths(manifest.files, source=str(self))
            files = [
                RemoteFile(path, file.bytes, published_hash(file))
                for path, file in manifest.files.items()
                if belongs_to_dataset(path)
            ]
            commits = {file.commit for file in manifest.files.values()}
            return (commits.pop() if len(commits) == 1 else None), tuple(sorted(files, key=lambda file: file.path))
        paths = sorted([*self._listed(), STATISTICS_FILE])
        check_paths(paths, source=str(self))
        with ThreadPoolExecutor(max_workers=_LOOKS) as pool:
            found = pool.map(self._look_at, [path for path in paths if belongs_to_dataset(path)])
            return None, tuple(file for file in found if file is not None)

    def _manifest(self) -> Manifest | None:
        """The manifest that lies beside the data; None where there is none that can be used."""
        address = f"{self.address}/{FOLDER}/{FILE_NAME}"
        try:
            content = self._ask("GET", address, f"{FILE_NAME} of {self}").content
        except DataNotFoundError:
            return None
        try:
            return Manifest.parse(json.loads(content), source=without_secrets(address))
        except (ValueError, DocumentError):
            return None

    def _listed(self) -> Iterator[str]:
        """Paths of the shards, from the pages that web servers make of folders."""
        for split in SPLITS:
            folder = f"{self.address}/data/{split}"
            try:
                found = list_files(f"{folder}/")
            except DataNotFoundError:
                continue
            yield from (f"data/{split}/{unquote(urlsplit(address).path.rsplit('/', 1)[-1])}" for address in found)

    def _look_at(self, path: str) -> RemoteFile | None:
        """Size and version of a file; None where there is none."""
        try:
            headers = self._ask("HEAD", f"{self.address}/{quote(path)}", f"{path} from {self}").headers
        except DataNotFoundError:
            if path == STATISTICS_FILE:
                return None
            raise
        size = headers.get("Content-Length", "")
        if not size.isdigit():
            raise HubError(f"{path} from {self}: the server does not tell its size; choose another source")
        version = headers.get("ETag") or headers.get("Last-Modified") or ""
        digest = hashlib.sha256(f"{size} {version}".encode()).hexdigest()
        return RemoteFile(path, int(size), FileHash(HashKind.unpublished, digest))

    def _ask(self, method: str, address: str, what: str) -> Any:
        def asked() -> Any:
            response = get_session().request(
                method, address, headers=_HEADERS, timeout=longest_stall(), follow_redirects=True
            )
            hf_raise_for_status(response)
            return response

        return ask(asked, what)

    @contextmanager
    def stream(
        self, file: RemoteFile, *, start: int = 0, etag: str = "", sleep: Callable[[float], None] | None = None
    ) -> Iterator[Any]:
        """As `HubSource.stream`."""
        address, what = f"{self.address}/{quote(file.path)}", f"{file.path} from {self}"
        with stream_from(_open, address, what, range_headers(start, etag), is_hub=False, sleep=sleep) as response:
            yield response

    def by_client(self, file: RemoteFile, folder: Path) -> Path:
        """Never: a mirror has plain addresses.

        Raises:
            DownloadError: always.
        """
        raise DownloadError(f"{file.path} from {self}: a mirror has no client of its own")


def _open(address: str, headers: Mapping[str, str]) -> Any:
    return open_stream(address, {**_HEADERS, **headers})


_HEADERS = {"User-Agent": f"wellkit/{__version__}", "Accept-Encoding": "identity"}
