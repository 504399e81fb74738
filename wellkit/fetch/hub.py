"""The Hugging Face Hub as a source: a revision made a commit, its files listed, their contents streamed.

huggingface_hub brings addresses, session, token and its errors. Listing and streaming are done here over its session
because its own ways have no timeout for a listing, follow any address that a `Link` header names with the token
attached, and write where they choose.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote, urljoin, urlsplit, urlunsplit

from huggingface_hub import constants, get_session, get_token, hf_hub_download, hf_hub_url, hf_raise_for_status
from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

from wellkit import __version__
from wellkit.errors import ArgumentError, DataNotFoundError, HubError, WellkitError
from wellkit.fetch.disk import Digests
from wellkit.fetch.plan import FileHash, HashKind, RemoteFile, belongs_to_dataset, check_paths
from wellkit.fetch.redirects import Trail
from wellkit.fetch.requests import LISTING_ATTEMPTS, ask, longest_stall, open_stream, range_headers, stream_from
from wellkit.fetch.retries import patiently
from wellkit.fetch.secrecy import keep_secrets
from wellkit.settings import hub_endpoint, hub_offline
from wellkit.storage import explain, host_of

_SHA256 = re.compile(r"[0-9a-f]{64}")
_SHA1 = re.compile(r"[0-9a-f]{40}")
keep_secrets()


@dataclass(frozen=True)
class Snapshot:
    """The files of one commit that belong to a dataset's tree."""

    repository: str
    commit: str
    files: tuple[RemoteFile, ...]


@dataclass(frozen=True)
class Tree:
    """All files and folders of one commit, by path."""

    files: tuple[RemoteFile, ...]
    folders: frozenset[str]


@dataclass(frozen=True)
class SmallFile:
    """A file that was read whole; `content` is None where it was at hand already."""

    hash: FileHash
    size: int
    content: bytes | None


def _promise(headers: Any, what: str) -> tuple[FileHash, int]:
    """Hash and size of a file from the Hub's answer to a request for it."""
    etag = (headers.get("X-Linked-ETag") or headers.get("ETag") or "").removeprefix("W/").strip('"')
    size = headers.get("X-Linked-Size") or headers.get("Content-Length") or ""
    kind = HashKind.sha256 if _SHA256.fullmatch(etag) else HashKind.git_blob if _SHA1.fullmatch(etag) else None
    if kind is None or not size.isdecimal():
        raise HubError(f"{what}: the Hub tells no usable size and hash; check HF_ENDPOINT")
    return FileHash(kind, etag), int(size)


@contextmanager
def telling(place: str, repository: str, revision: str, *, kind: str) -> Iterator[None]:
    """Turn the client's errors into ours.

    Args:
        place: what is asked for, and where, for messages.
        repository: OWNER/NAME.
        revision: what was asked for.
        kind: "dataset" or "model".
    """
    try:
        yield
    except WellkitError:
        raise
    except OfflineModeIsEnabled as error:
        raise HubError(f"{place}: HF_HUB_OFFLINE is set; unset it to download") from error
    except GatedRepoError as error:
        raise HubError(
            f"{place}: access is granted on request only; ask for it on its page, then log in with "
            "`hf auth login` or set HF_TOKEN"
        ) from error
    except RepositoryNotFoundError as error:
        hint = "" if get_token() else "; if it is private, log in with `hf auth login` or set HF_TOKEN"
        raise DataNotFoundError(f"{place}: the Hub knows no such {kind} repository{hint}") from error
    except RevisionNotFoundError as error:
        raise DataNotFoundError(
            f"{place}: has no revision {revision!r}; give a branch, a tag or a commit (default: main)"
        ) from error
    except HFValidationError as error:
        raise ArgumentError(f"{repository!r} is no repository name; write OWNER/NAME") from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:  # huggingface_hub reading what is no JSON
        raise HubError(
            f"{place}: the answer is not the Hub's; check HF_ENDPOINT, and that no proxy or login page is between"
        ) from error
    except Exception as error:
        told = explain(error, place)
        if told is None:
            raise
        raise told from error


class HubSource:
    """One dataset repository on the Hub. Thread-safe.

    Args:
        repository: OWNER/NAME.
        endpoint: the Hub's address; by default `$HF_ENDPOINT`, or the public one.
        token: instead of the one that the user is logged in with; sent to the endpoint only.
    """

    def __init__(self, repository: str, *, endpoint: str | None = None, token: str | None = None) -> None:
        self.repository = repository
        self.endpoint = (endpoint or hub_endpoint()).rstrip("/")
        self.token = token
        self._commit: str | None = None

    def __str__(self) -> str:
        return f"{host_of(self.endpoint)}/datasets/{self.repository}"

    def commit(self, revision: str) -> str:
        """The commit (40 hexadecimal digits) that `revision` names now.

        Raises:
            HubError: the Hub cannot be reached, is switched off by `$HF_HUB_OFFLINE`, or refuses access.
            DataNotFoundError: there is no such repository or revision.
        """
        if hub_offline():
            raise HubError(f"{self}: HF_HUB_OFFLINE is set; unset it to reach the Hub")
        with self._telling(revision):
            validate_repo_id(self.repository)
            # Not by HfApi: it may ask the Hub for other things first.
            address = f"{self.endpoint}/api/datasets/{self.repository}/revision/{quote(revision, safe='')}"
            found = patiently(partial(self._get, address), attempts=LISTING_ATTEMPTS).json()["sha"]
            if not isinstance(found, str) or not _SHA1.fullmatch(found):
                raise HubError(f"{self}: the Hub names no commit for revision {revision!r}; check HF_ENDPOINT")
        return found

    def snapshot(self, revision: str) -> Snapshot:
        """Resolve `revision` to a commit and list it.

        Raises:
            HubError: the Hub cannot be reached, is switched off by `$HF_HUB_OFFLINE`, or refuses access.
            DataNotFoundError: there is no such repository or revision.
            IntegrityError: the listing holds an unsafe path.
        """
        commit = self.commit(revision)
        entries = self._list(commit)
        self._commit = commit
        files = [
            self._file(entry) for entry in entries if entry.get("type") == "file" and belongs_to_dataset(entry["path"])
        ]
        return Snapshot(self.repository, commit, tuple(sorted(files, key=lambda file: file.path)))

    def tree(self, commit: str) -> Tree:
        """All that a commit holds, from one listing. Raises as `snapshot`."""
        entries = self._list(commit)
        files = [self._file(entry) for entry in entries if entry.get("type") == "file"]
        folders = frozenset(str(entry["path"]) for entry in entries if entry.get("type") == "directory")
        return Tree(tuple(sorted(files, key=lambda file: file.path)), folders)

    def _list(self, commit: str) -> list[dict[str, Any]]:
        """Entries of the whole tree, their paths known to be safe."""
        with self._telling(commit):
            entries = list(self._entries(commit))
        check_paths((str(entry.get("path", "")) for entry in entries), source=str(self))
        return entries

    def _entries(self, commit: str) -> Iterator[dict[str, Any]]:
        """Entries of the whole tree, page by page."""
        following: str | None = f"{self.endpoint}/api/datasets/{self.repository}/tree/{commit}?recursive=true"
        while following is not None:
            response = patiently(partial(self._get, following), attempts=LISTING_ATTEMPTS)
            try:
                page = response.json()
            except ValueError as error:
                raise HubError(
                    f"{self}: the listing is no JSON; check HF_ENDPOINT, and that no proxy or login page is between"
                ) from error
            if not isinstance(page, list) or not all(isinstance(entry, dict) for entry in page):
                raise HubError(f"{self}: the listing is not laid out as the Hub's; check HF_ENDPOINT")
            yield from page
            link = response.links.get("next", {}).get("url")
            following = None if link is None else self._own_address(link)

    def _get(self, address: str) -> Any:
        response = get_session().get(address, headers=self.headers(address), timeout=longest_stall())
        hf_raise_for_status(response)
        return response

    def _own_address(self, address: str) -> str:
        """`address` on the endpoint: mirrors hand on the Hub's own links, which are not meant to be followed."""
        parts, own = urlsplit(urljoin(self.endpoint, address)), urlsplit(self.endpoint)
        return urlunsplit((own.scheme, own.netloc, parts.path, parts.query, ""))

    def is_own(self, address: str) -> bool:
        """Whether an address is the endpoint's: the only one that gets the token."""
        return urlsplit(address)[:2] == urlsplit(self.endpoint)[:2]

    def headers(self, address: str) -> dict[str, str]:
        """Headers for a request. The token is for the endpoint alone, whatever a redirect or link names."""
        headers = {"User-Agent": f"wellkit/{__version__}", "Accept-Encoding": "identity"}
        token = self.token
        if token is None and not constants.HF_HUB_DISABLE_IMPLICIT_TOKEN:
            token = get_token()
        if self.is_own(address) and token:
            headers["Authorization"] = f"Bearer {token}"
        return headers

    def _open(self, address: str, headers: Mapping[str, str] | None = None) -> Any:
        """The answer to one request, its body not yet read."""
        return open_stream(address, {**self.headers(address), **(headers or {})})

    def _file(self, entry: dict[str, Any]) -> RemoteFile:
        path, size, lfs = entry["path"], entry.get("size"), entry.get("lfs")
        if isinstance(lfs, dict):
            size, kind, value, form = lfs.get("size"), HashKind.sha256, lfs.get("oid"), _SHA256
        else:
            kind, value, form = HashKind.git_blob, entry.get("oid"), _SHA1
        if not isinstance(size, int) or size < 0 or not isinstance(value, str) or not form.fullmatch(value):
            raise HubError(f"{self}: the listing gives no usable size and hash for {path}; check HF_ENDPOINT")
        return RemoteFile(path, size, FileHash(kind, value))

    @contextmanager
    def stream(
        self, file: RemoteFile, *, start: int = 0, etag: str = "", sleep: Callable[[float], None] | None = None
    ) -> Iterator[Any]:
        """The response to a request for `file` at the listed commit from byte `start`, redirects followed.

        Each hop is asked again by itself while its failures are transient, so that a busy store does not send the
        client back to the Hub each time. What breaks once the content flows is the caller's.

        Raises:
            HubError: a hop failed for good.
            DataNotFoundError: the commit has no such file.
            XetOnlyError: it is offered through Xet only.
        """
        address = hf_hub_url(
            self.repository, file.path, repo_type="dataset", revision=self._commit, endpoint=self.endpoint
        )
        what = f"{file.path} from {self}"
        with stream_from(self._open, address, what, range_headers(start, etag), is_hub=True, sleep=sleep) as response:
            yield response

    def by_client(self, file: RemoteFile, folder: Path) -> Path:
        """Fetch a file with huggingface_hub's own client, which knows Xet, into `folder`; nothing of it is checked.

        Raises:
            HubError: it cannot be had this way either.
        """
        with self._telling(self._commit or "main"):
            found = hf_hub_download(
                self.repository,
                file.path,
                repo_type="dataset",
                revision=self._commit,
                endpoint=self.endpoint,
                token=self.token,
                local_dir=folder,
            )
        return Path(found)

    def at(self, commit: str) -> HubSource:
        """The same repository at a commit."""
        source = HubSource(self.repository, endpoint=self.endpoint, token=self.token)
        source._commit = commit
        return source

    def read(self, path: str, revision: str, known: Callable[[FileHash, int], bool] = lambda *_: False) -> SmallFile:
        """A small file at once: two requests if it is kept with LFS, else one.

        Args:
            path: in the repository.
            revision: a branch, tag or commit.
            known: whether the content with this hash and size is at hand; then it is not fetched.

        Raises:
            HubError: it cannot be had, or what came is not what was promised.
            DataNotFoundError: there is no such repository, revision or file.
        """
        if hub_offline():
            raise HubError(f"{self}: HF_HUB_OFFLINE is set; unset it to reach the Hub")
        address = hf_hub_url(self.repository, path, repo_type="dataset", revision=revision, endpoint=self.endpoint)
        what = f"{path} from {self}"
        return ask(partial(self._read, address, what, known), what)

    def _read(self, address: str, what: str, known: Callable[[FileHash, int], bool]) -> SmallFile:
        promised: tuple[FileHash, int] | None = None
        trail = Trail(address, what)
        while True:
            response = self._open(trail.address)
            try:
                if promised is None:
                    promised = _promise(response.headers, what)
                    if known(*promised):
                        return SmallFile(*promised, None)
                if not response.has_redirect_location:
                    content = response.read()
                    break
                trail.follow(response.headers["Location"])
            finally:
                response.close()
        assert promised is not None
        hasher = Digests(RemoteFile("", promised[1], promised[0]))
        hasher.update(content)
        if len(content) != promised[1] or hasher.found != promised[0]:
            raise HubError(f"{what}: {len(content)} bytes came that are not what the Hub promised; try again later")
        return SmallFile(*promised, content)

    def _telling(self, revision: str) -> AbstractContextManager[None]:
        return telling(str(self), self.repository, revision, kind="dataset")
