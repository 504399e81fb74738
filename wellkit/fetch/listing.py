"""What a remote folder holds, asked once: names, sizes, and what tells one version of a file from another.

A Hub repository is listed whole at one commit, which never changes: once a process, whatever is opened of it. Other
storages are asked for one folder.
"""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any

from wellkit.errors import DataNotFoundError, HubError
from wellkit.fetch.hub import HubSource, Tree
from wellkit.fetch.notes import recall, remember
from wellkit.fetch.plan import FileHash, HashKind, RemoteFile
from wellkit.settings import hub_offline
from wellkit.storage import Location, locate, reading

# hf://datasets/OWNER/NAME[@REVISION][/PATH]
_HUB = re.compile(r"hf://datasets/(?P<id>[^/@]+/[^/@]+)(?:@(?P<revision>[^/]+))?(?:/(?P<path>.*))?$")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_ETAGS = ("ETag", "etag", "Content-MD5", "md5Hash", "crc32c")
_TIMES = ("mtime", "LastModified", "last_modified", "Last-Modified", "updated")
_MAX_TREES = 16
_MAX_SMALL = 64


@dataclass(frozen=True)
class HubPlace:
    """A location on the Hub, taken apart. `revision` is empty where none is given; `path` has no slash at its ends."""

    repository: str
    revision: str
    path: str

    @property
    def root(self) -> str:
        """The location of the repository's root, with the revision."""
        return f"hf://datasets/{self.repository}" + (f"@{self.revision}" if self.revision else "")

    def source(self, storage_options: Mapping[str, Any] | None) -> HubSource:
        """The repository; `endpoint` and `token` may be among the options."""
        options = storage_options or {}
        token = options.get("token")
        return HubSource(
            self.repository, endpoint=options.get("endpoint"), token=token if isinstance(token, str) else None
        )


def hub_place(location: str) -> HubPlace | None:
    """The parts of a location on the Hub; None where it is none."""
    match = _HUB.match(location)
    return match and HubPlace(match["id"], match["revision"] or "", (match["path"] or "").strip("/"))


def content_of(known: FileHash) -> str:
    """A hash as `ListedFile.content` has it."""
    return f"{known.kind}:{known.value}"


@dataclass(frozen=True)
class ListedFile:
    """One file of a listing.

    Attributes:
        location: as `locate` takes it.
        size: in bytes; None where the storage does not list sizes.
        content: hash of the content, "sha256:..." or "git-blob-sha1:...", where the storage lists it; else empty.
        version: what else tells that the file has changed (ETag, time of last change); empty where there is nothing.
    """

    location: str
    size: int | None
    content: str = ""
    version: str = ""


class Listing:
    """Files and folders at or below one folder.

    Args:
        root: the folder.
        files, folders: their locations below it.
        is_whole: whether all below the folder is listed, not only what lies directly in it.
    """

    def __init__(self, root: str, files: Iterable[ListedFile], folders: Iterable[str], *, is_whole: bool) -> None:
        self.root = root.rstrip("/")
        self.is_whole = is_whole
        self._files = {file.location: file for file in files}
        self._folders = frozenset(folders)

    def file(self, location: str) -> ListedFile | None:
        """What the listing says of a file."""
        return self._files.get(location)

    def covers(self, location: str) -> bool:
        """Whether the listing would name `location` if it existed."""
        below = location.removeprefix(self.root + "/")
        return below != location and (self.is_whole or "/" not in below)

    def has_folder(self, location: str) -> bool:
        """Whether there is such a folder."""
        return location.rstrip("/") in self._folders or location.rstrip("/") == self.root

    def files_in(self, folder: str) -> list[str]:
        """Locations of the files directly in `folder` (the root, unless all is listed), sorted."""
        return self._directly_in(folder, self._files)

    def folders_in(self, folder: str) -> list[str]:
        """Locations of the folders directly in `folder` (the root, unless all is listed), sorted."""
        return self._directly_in(folder, self._folders)

    def _directly_in(self, folder: str, locations: Iterable[str]) -> list[str]:
        if not self.is_whole:
            return sorted(locations)
        start = folder.rstrip("/") + "/"
        return sorted(place for place in locations if place.startswith(start) and "/" not in place[len(start) :])


def list_remote(location: str, storage_options: Mapping[str, Any] | None = None) -> Listing:
    """The listing of a remote folder; of the whole repository where `location` names a commit on the Hub.

    Raises:
        DataNotFoundError: there is no such folder or repository, or it is a file.
        HubError: the storage cannot be reached.
        IntegrityError: the Hub lists an unsafe path.
    """
    place = hub_place(location)
    return _hub_listing(place, storage_options) if place is not None else _folder_listing(location, storage_options)


_trees: dict[tuple[str, ...], Tree] = {}  # by endpoint, token, repository and commit


def pinned(place: HubPlace, storage_options: Mapping[str, Any] | None = None) -> HubPlace:
    """The same place at the commit that its revision names now; offline, the one it named when it was last asked.

    Raises:
        HubError: the Hub cannot be reached, or is switched off and was never asked.
        DataNotFoundError: there is no such repository or revision.
    """
    source = place.source(storage_options)
    revision = place.revision or "main"
    key = (source.endpoint, source.token or "", place.repository, revision)
    if hub_offline():
        known = revision if _COMMIT.fullmatch(revision) else (recall("commits", *key) or b"").decode("ascii", "replace")
        if not _COMMIT.fullmatch(known):
            raise HubError(
                f"{source}: HF_HUB_OFFLINE is set, and this machine never asked for revision {revision!r}; unset it to "
                "reach the Hub"
            )
        return replace(place, revision=known)
    commit = source.commit(revision)
    remember(commit.encode(), "commits", *key)
    return replace(place, revision=commit)


def _hub_listing(place: HubPlace, storage_options: Mapping[str, Any] | None) -> Listing:
    source = place.source(storage_options)
    commit = place.revision if _COMMIT.fullmatch(place.revision) else pinned(place, storage_options).revision
    # No lock, which a fork could leave locked: two threads at once ask twice.
    key = (source.endpoint, source.token or "", place.repository, commit)
    tree = _trees.get(key) or _tree_from_note(recall("listings", *key))
    if tree is None:
        if hub_offline():
            raise HubError(
                f"{source}: HF_HUB_OFFLINE is set, and this machine never listed commit {commit}; unset it to reach "
                "the Hub"
            )
        tree = source.tree(commit)
        remember(_note_of_tree(tree), "listings", *key)
    if len(_trees) >= _MAX_TREES:
        _trees.clear()
    _trees[key] = tree
    files = (ListedFile(f"{place.root}/{file.path}", file.size, content_of(file.hash)) for file in tree.files)
    return Listing(place.root, files, (f"{place.root}/{folder}" for folder in tree.folders), is_whole=True)


def _note_of_tree(tree: Tree) -> bytes:
    files = [[file.path, file.size, file.hash.kind, file.hash.value] for file in tree.files]
    return json.dumps({"files": files, "folders": sorted(tree.folders)}).encode()


def _tree_from_note(note: bytes | None) -> Tree | None:
    if note is None:
        return None
    try:
        content = json.loads(note)
        files = tuple(
            RemoteFile(str(path), int(size), FileHash(HashKind(kind), str(value)))
            for path, size, kind, value in content["files"]
        )
        return Tree(files, frozenset(content["folders"]))
    except (ValueError, KeyError, TypeError):
        return None


def _folder_listing(location: str, storage_options: Mapping[str, Any] | None) -> Listing:
    place = locate(location, storage_options)
    with reading(str(place)):
        found = place.fs.ls(place.path, detail=True)
    own = place.path.rstrip("/")
    files, folders = [], []
    for entry in found:
        path = str(entry["name"]).rstrip("/")
        address = Location(place.fs, path, place.protocol).address
        if path == own:
            if entry["type"] != "directory" and len(found) == 1:
                raise DataNotFoundError(f"{place}: is a file; give the folder it lies in")
        elif entry["type"] == "directory":
            folders.append(address)
        else:
            files.append(listed_file(address, entry))
    return Listing(place.address, files, folders, is_whole=False)


def listed_file(location: str, entry: Mapping[str, Any]) -> ListedFile:
    """A file as fsspec's `ls` or `info` describe it."""
    size = entry.get("size")
    tells = next((f"{name}={entry[name]}" for name in (*_ETAGS, *_TIMES) if entry.get(name)), "")
    return ListedFile(location, int(size) if size is not None else None, version=tells)


def read_file(location: str, storage_options: Mapping[str, Any] | None = None) -> bytes:
    """A small file whole, local or remote, in as few requests as there can be; none if a commit's was read before.

    Raises:
        DataNotFoundError: there is no such file.
        HubError: the storage cannot be reached.
        ShardError: any other input/output error.
    """
    key = _small_key(location, storage_options)
    if key is not None:
        known = _small.get(key)
        if known is None or known.pid != os.getpid():
            known = _begin(key, location, storage_options, in_background=False)
        try:
            return known.content.result()
        except BaseException:
            _small.pop(key, None)  # the next one who asks may have better luck
            raise
    hub = hub_place(location)
    if hub is not None:
        return _read_on_hub(hub, storage_options)
    place = locate(location, storage_options)
    with reading(str(place)):
        found: bytes = place.fs.cat_file(place.path)
    return found


def expect_file(location: str, storage_options: Mapping[str, Any] | None = None) -> None:
    """Begin to read a small file of a commit on the Hub that `read_file` will be asked for; does nothing elsewhere."""
    key = _small_key(location, storage_options)
    if key is not None and key not in _small:
        _begin(key, location, storage_options, in_background=True)


@dataclass(frozen=True)
class _SmallFile:
    """A file that is, or is being, read in this process."""

    pid: int
    content: Future[bytes]


_small: dict[tuple[str, ...], _SmallFile] = {}  # by endpoint, token and location


def _small_key(location: str, storage_options: Mapping[str, Any] | None) -> tuple[str, ...] | None:
    hub = hub_place(location)
    if hub is None or not _COMMIT.fullmatch(hub.revision):
        return None
    source = hub.source(storage_options)
    return source.endpoint, source.token or "", location


def _begin(
    key: tuple[str, ...], location: str, storage_options: Mapping[str, Any] | None, *, in_background: bool
) -> _SmallFile:
    hub = hub_place(location)
    assert hub is not None
    content: Future[bytes] = Future()

    def read() -> None:
        try:
            found = recall("files", *key)
            if found is None:
                found = _read_on_hub(hub, storage_options)
                remember(found, "files", *key)
            content.set_result(found)
        except BaseException as error:
            content.set_exception(error)

    if len(_small) >= _MAX_SMALL:
        _small.clear()
    found = _small[key] = _SmallFile(os.getpid(), content)
    if in_background:
        threading.Thread(target=read, daemon=True).start()
    else:
        read()
    return found


def _read_on_hub(hub: HubPlace, storage_options: Mapping[str, Any] | None) -> bytes:
    content = hub.source(storage_options).read(hub.path, hub.revision or "main").content
    assert content is not None  # nothing was said to be known
    return content
