"""Files of model repositories on the Hub, by huggingface_hub's client: its cache, its retries, its resuming.

What is cached there is shared with every other program that uses the client.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from huggingface_hub import HfApi, get_hf_file_metadata, hf_hub_download, hf_hub_url
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

from wellkit import __version__
from wellkit.errors import DataNotFoundError, HubError, IntegrityError
from wellkit.fetch.disk import hash_file
from wellkit.fetch.hub import telling
from wellkit.fetch.plan import FileHash, HashKind, RemoteFile
from wellkit.settings import hub_cache_dir, hub_endpoint, hub_offline
from wellkit.storage import explain, host_of, network_error

_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class ModelFile:
    """A file in the client's cache and the commit it belongs to."""

    path: Path
    commit: str


class ModelRepository:
    """One model repository on the Hub, at `$HF_ENDPOINT`.

    Args:
        repository: OWNER/NAME.
    """

    def __init__(self, repository: str) -> None:
        self.repository = repository
        self.endpoint = hub_endpoint()

    def __str__(self) -> str:
        return f"{host_of(self.endpoint)}/{self.repository}"

    def fetch(self, name: str, revision: str) -> ModelFile:
        """A file, from the cache or the Hub; one kept with LFS is checked against its published hash.

        Raises:
            DataNotFoundError: there is no such repository, revision or file.
            HubError: the Hub cannot be reached or refuses access, and the file is not in the cache.
            IntegrityError: the content is not what was published.
            ArgumentError: the repository's name is none.
        """
        with telling(f"{name} from {self}", self.repository, revision, kind="model"):
            try:
                path = Path(
                    hf_hub_download(
                        self.repository,
                        name,
                        revision=revision,
                        endpoint=self.endpoint,
                        cache_dir=hub_cache_dir(),
                        local_files_only=hub_offline(),
                        library_name="wellkit",
                        library_version=__version__,
                    )
                )
            except LocalEntryNotFoundError as error:
                if hub_offline():
                    raise HubError(
                        f"{name} from {self}: HF_HUB_OFFLINE is set, and it is not in the cache; unset it to fetch it"
                    ) from error
                cause = network_error(error.__cause__ or error) or error
                told = explain(cause, f"{name} from {self}")
                raise HubError(f"{name} from {self}: cannot be had ({error})") if told is None else told from error
            except EntryNotFoundError as error:
                raise DataNotFoundError(f"{self}: revision {revision!r} holds no {name}") from error
        self._check(path)
        return ModelFile(path, path.parent.name)

    def has(self, name: str, revision: str) -> bool:
        """Whether a revision holds a file. Raises as `fetch`."""
        with telling(f"{name} from {self}", self.repository, revision, kind="model"):
            address = hf_hub_url(self.repository, name, revision=revision, endpoint=self.endpoint)
            try:
                get_hf_file_metadata(address, endpoint=self.endpoint)
            except EntryNotFoundError:
                return False
        return True

    def changed(self, name: str, revision: str) -> datetime | None:
        """When the file was last changed; None where the Hub cannot be asked."""
        try:
            with telling(f"{name} from {self}", self.repository, revision, kind="model"):
                api = HfApi(endpoint=self.endpoint, library_name="wellkit", library_version=__version__)
                for entry in api.get_paths_info(self.repository, [name], expand=True, revision=revision):
                    if entry.last_commit is not None:
                        return entry.last_commit.date
        except (HubError, DataNotFoundError):
            return None
        return None

    def _check(self, path: Path) -> None:
        """The client's cache names a file by its published hash but does not compute it."""
        blob = path.resolve()
        if not _SHA256.fullmatch(blob.name):
            return
        promised = FileHash(HashKind.sha256, blob.name)
        if hash_file(blob, RemoteFile(path.name, blob.stat().st_size, promised)) != promised:
            path.unlink()
            blob.unlink()
            raise IntegrityError(
                f"{path.name} from {self}: its SHA-256 is not the published one; removed from the cache, try again"
            )
