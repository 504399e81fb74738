"""A location string -> (fsspec filesystem, path): local folders, `hf://`, `https://`, `s3://`, `gs://`, `memory://`.

Everything that reads data goes through `locate`, and through `reading` where the network can fail, so that
each storage fails with the same few errors and no message ever holds a token or a signed address.
"""

from __future__ import annotations

import os
import re
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import fsspec
from fsspec.registry import get_filesystem_class, known_implementations

from wellkit.errors import (
    ArgumentError,
    DataNotFoundError,
    HubError,
    MissingDependencyError,
    ShardError,
    WellkitError,
    did_you_mean,
)
from wellkit.settings import hub_endpoint, hub_offline

PROTOCOLS = ("file", "hf", "https", "s3", "gs", "memory")
_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs"}
_LOCAL = frozenset({"file", "local"})
_NETWORK_LIBRARIES = frozenset(
    {
        "httpx",
        "httpx2",
        "httpcore",
        "httpcore2",
        "requests",
        "urllib3",
        "aiohttp",
        "botocore",
        "aiobotocore",
        "gcsfs",
    }
)
_SCHEME = re.compile(r"^(?P<protocol>[A-Za-z][A-Za-z0-9+.-]*)://")
_ADDRESS = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]*://)(?:[^\s/@'\"]*@)?(?P<rest>[^\s?#'\"]*)[^\s'\"]*", re.IGNORECASE)


@dataclass(frozen=True)
class Location:
    """Where something is: a filesystem and the path it knows it by. `str()` gives it without secrets."""

    fs: Any = field(repr=False)
    path: str
    protocol: str

    @property
    def is_local(self) -> bool:
        """Whether `path` is a path of this machine's own file system."""
        return self.protocol == "file"

    @property
    def address(self) -> str:
        """What `locate` makes this location of again. May hold a signed address: not for messages."""
        return self.path if self.is_local else str(self.fs.unstrip_protocol(self.path))

    def __str__(self) -> str:
        return without_secrets(self.address)

    def join(self, *parts: str) -> Location:
        """The location of `parts` below this one. A query string stays at the end."""
        takes_query = self.protocol in {"http", "https"}
        base, mark, query = self.path.partition("?") if takes_query else (self.path, "", "")
        joined = "/".join([base.rstrip("/"), *(part.strip("/") for part in parts)])
        return Location(self.fs, joined + mark + query, self.protocol)

    def exists(self) -> bool:
        """Whether there is a file or folder here.

        Raises:
            HubError: the storage cannot be reached, so that nobody knows.
        """
        if self.is_local:
            return Path(self.path).exists()
        with reading(str(self)):
            try:
                self.fs.info(self.path)
            except FileNotFoundError:
                return False
        return True

    def glob(self, pattern: str) -> list[Location]:
        """Locations below this one that match a glob pattern, sorted."""
        with reading(str(self)):
            found = self.fs.glob(self.join(pattern).path)
        return [Location(self.fs, path, self.protocol) for path in sorted(found)]

    def open(self, mode: str = "rb", **options: Any) -> Any:
        """A file object; `options` are fsspec's (`block_size`, `cache_type`, ...)."""
        with reading(str(self)):
            return self.fs.open(self.path, mode, **options)


def without_secrets(text: str) -> str:
    """`text` with credentials and query strings cut out of every address in it."""
    return _ADDRESS.sub(lambda match: match["scheme"] + match["rest"], text)


def locate(location: str | os.PathLike[str], storage_options: Mapping[str, Any] | None = None) -> Location:
    """Find the filesystem of a location. Nothing is opened or asked.

    Args:
        location: a path, or an address such as `hf://datasets/owner/name/data/train`, `https://...`, `s3://...`,
            `gs://...`, `memory://...` or `file://...`.
        storage_options: options of the fsspec filesystem (`endpoint_url`, `anon`, `headers`, ...).

    Raises:
        ArgumentError: an empty location, or a protocol that fsspec does not know.
        MissingDependencyError: the protocol's library is not installed; names the extra.
        HubError: `hf://` while `$HF_HUB_OFFLINE` is set.
    """
    text = os.fspath(location)
    if not text:
        raise ArgumentError("the location is empty; give a folder or an address such as hf://datasets/owner/name")
    match = _SCHEME.match(text)
    protocol = match["protocol"].lower() if match else "file"
    options = dict(storage_options or {})
    if protocol == "hf":
        if hub_offline():
            raise HubError(f"{without_secrets(text)}: HF_HUB_OFFLINE is set; unset it to read from the Hub")
        options.setdefault("endpoint", hub_endpoint())
    if protocol in _LOCAL:
        # The options are the remote storage's: a local folder needs none, whatever else is passed on for it.
        return Location(fsspec.filesystem("file"), _local_path(text), "file")
    fs_class = _filesystem_class(protocol, text)
    fs = fsspec.filesystem(protocol, **options)
    _FILESYSTEMS[id(fs)] = fs
    return Location(fs, str(fs_class._strip_protocol(text)), protocol)


_FILESYSTEMS: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()
_OF_THE_PARENT: list[Any] = []


def _keep_what_is_the_parents() -> None:
    """In a forked child: hold on to the parent's filesystems.

    fsspec forgets them there, which closes their connections, and takes the sockets out of the epoll set that parent
    and child share: the parent would wait for its next answer for ever.
    """
    _OF_THE_PARENT.extend(_FILESYSTEMS.values())


os.register_at_fork(after_in_child=_keep_what_is_the_parents)


def _local_path(text: str) -> str:
    match = _SCHEME.match(text)
    path = text[match.end() :] if match else text
    return os.path.expanduser(path)


def _filesystem_class(protocol: str, text: str) -> Any:
    try:
        return get_filesystem_class(protocol)
    except ImportError as error:
        extra = _EXTRAS.get(protocol)
        needed = (
            f"pip install 'wellkit[{extra}]'"
            if extra
            else str(
                known_implementations.get(protocol, {}).get("err", f"install the library that reads {protocol}://")
            )
        )
        raise MissingDependencyError(
            f"{without_secrets(text)}: {protocol}:// needs a library that is not installed; {needed}"
        ) from error
    except ValueError as error:
        raise ArgumentError(
            f"{without_secrets(text)}: unknown protocol {protocol!r}; "
            f"known are {', '.join(PROTOCOLS)} and plain paths.{did_you_mean(protocol, PROTOCOLS)}"
        ) from error


def list_files(
    location: str | os.PathLike[str] | Location,
    suffixes: Sequence[str] = (".hdf5", ".h5"),
    *,
    folder_suffixes: Sequence[str] = (),
    storage_options: Mapping[str, Any] | None = None,
) -> list[str]:
    """Addresses of the files directly in a folder whose names end in one of `suffixes`, sorted.

    Folders whose names end in one of `folder_suffixes` are listed among them. Each is something `locate` accepts:
    a path where the storage is local, with its protocol elsewhere.

    Raises:
        DataNotFoundError: there is no such folder, or it is a file.
        HubError: the storage cannot be reached.
    """
    place, entries = _entries(location, storage_options)
    endings = {"file": tuple(suffixes), "directory": tuple(folder_suffixes)}
    if place.is_local:  # there may be thousands
        return sorted(path for path, kind in entries if path.endswith(endings[kind]))
    return sorted(
        Location(place.fs, path, place.protocol).address
        for path, kind in entries
        if path.partition("?")[0].endswith(endings["directory" if kind == "directory" else "file"])
    )


def list_folders(
    location: str | os.PathLike[str] | Location, *, storage_options: Mapping[str, Any] | None = None
) -> list[str]:
    """Names of the folders directly in a folder, sorted. Raises as `list_files`."""
    _, entries = _entries(location, storage_options)
    return sorted(path.rstrip("/").rsplit("/", 1)[-1] for path, kind in entries if kind == "directory")


def _entries(
    location: str | os.PathLike[str] | Location, storage_options: Mapping[str, Any] | None
) -> tuple[Location, list[tuple[str, str]]]:
    """The place and its entries as (path as the filesystem knows it, "file" or "directory")."""
    place = location if isinstance(location, Location) else locate(location, storage_options)
    if place.is_local:
        try:
            with os.scandir(place.path) as entries:
                return place, [(entry.path, "directory" if entry.is_dir() else "file") for entry in entries]
        except NotADirectoryError as error:
            raise DataNotFoundError(f"{place}: is a file; give the folder it lies in") from error
        except FileNotFoundError as error:
            raise DataNotFoundError(f"{place}: no such folder") from error
        except OSError as error:
            raise ShardError(f"{place}: cannot be listed ({error.strerror or error})") from error
    with reading(str(place)):
        found = place.fs.ls(place.path, detail=True)
    own = place.path.rstrip("/")
    pairs = [(str(entry["name"]).rstrip("/"), str(entry["type"])) for entry in found]
    if pairs == [(own, "file")]:
        raise DataNotFoundError(f"{place}: is a file; give the folder it lies in")
    return place, [(path, kind) for path, kind in pairs if path != own]


@contextmanager
def reading(what: str) -> Iterator[None]:
    """Turn whatever a storage raises into one line of ours about `what`.

    Raises:
        HubError: the network or the server failed, or refuses access.
        DataNotFoundError: the server, or the disk, has no such thing.
        ShardError: any other input/output error.
    """
    try:
        yield
    except WellkitError:
        raise
    except Exception as error:
        told = explain(error, what)
        if told is None:
            raise
        raise told from error


def explain(error: BaseException, what: str, *, attempts: int = 1) -> WellkitError | None:
    """The error of ours that says what `error` means for `what`; None where it is no input/output error.

    Args:
        error: what a storage or its network library raised.
        what: what was to be read, and from where.
        attempts: how often it was tried, told where it was more than once.
    """
    root = network_error(error)
    what = without_secrets(what)
    if root is None:
        if isinstance(error, FileNotFoundError):
            return DataNotFoundError(f"{what}: not found")
        if isinstance(error, ValueError | NotImplementedError) and what.startswith("hf://"):
            # huggingface_hub's word for an address that names no repository
            return DataNotFoundError(f"{what}: names no repository; write hf://datasets/OWNER/NAME[/FOLDER]")
        return ShardError(f"{what}: cannot be read ({_one_line(error)})") if isinstance(error, OSError) else None
    tried = f" {attempts} times" if attempts > 1 else ""
    status = http_status(root)
    if status in {404, 410}:
        return DataNotFoundError(f"{what}: not found (HTTP {status})")
    if status in {401, 403}:
        return HubError(
            f"{what}: access refused (HTTP {status}); check the name; if it is private or gated, log in with "
            "`hf auth login` or set HF_TOKEN"
        )
    if status is not None:
        return HubError(f"{what}: the server answered HTTP {status}{tried}; try again later")
    return HubError(
        f"{what}: cannot be reached ({_one_line(root)}){tried}; check the network, proxy settings and HF_ENDPOINT"
    )


def network_error(error: BaseException) -> BaseException | None:
    """The error itself, or what caused it, if it came from a network library."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        if isinstance(current, ConnectionError | TimeoutError) or any(
            base.__module__.partition(".")[0] in _NETWORK_LIBRARIES for base in type(current).__mro__
        ):
            return current
        current = current.__cause__ or current.__context__
    return None


def http_status(error: BaseException) -> int | None:
    """The HTTP status an error of requests, httpx, huggingface_hub or aiohttp stands for, if any."""
    response = getattr(error, "response", None)
    found = getattr(response, "status_code", None) or getattr(error, "status", None)
    return found if isinstance(found, int) else None


def _one_line(error: BaseException) -> str:
    if isinstance(error, TimeoutError) or "timeout" in type(error).__name__.lower():
        return "timed out"
    text = without_secrets(" ".join(str(error).split()))
    return text[:200] if text else type(error).__name__


def host_of(address: str) -> str:
    """Host (and port) of an address, for messages."""
    return urlsplit(address).netloc.rpartition("@")[2]


__all__ = [
    "PROTOCOLS",
    "Location",
    "explain",
    "host_of",
    "http_status",
    "list_files",
    "list_folders",
    "locate",
    "network_error",
    "reading",
    "without_secrets",
]
