"""Indexes of remote shards, from wherever they are cheapest, without touching a shard twice.

Searched in this order, shard by shard:

1. where the dataset's card says (`sources.index`),
2. `$WELLKIT_INDEX`, a folder or address with indexes of many datasets,
3. beside the dataset: `<dataset>/.wellkit/index.bin`,
4. this machine's cache of indexes made before,
5. the shards' own headers (`wellkit.index.headers`).

The first two are laid out as `wellkit index --publish-to` writes them: `<place>/<dataset>/index.bin`. A written index
is believed where size and content hash are those that the listing tells; where they are not, the next place is asked.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from wellkit.errors import DataNotFoundError, ShardError, WellkitError, WellkitWarning
from wellkit.fetch.disk import FOLDER
from wellkit.fetch.listing import HubPlace, ListedFile, Listing, content_of, hub_place, listed_file
from wellkit.fetch.notes import recall, remember
from wellkit.fetch.plan import FileHash, HashKind
from wellkit.fetch.ranges import RangeReader
from wellkit.index import cache
from wellkit.index.columns import BadIndexError, pack, unpack
from wellkit.index.file import NAME, ShardTable, TreeIndex
from wellkit.index.headers import Reader, TooScatteredError, read_headers
from wellkit.index.model import ShardIndex
from wellkit.settings import hub_offline, index_location
from wellkit.storage import locate, reading, without_secrets

CONNECTIONS = 32  # headers are small: what costs is waiting for each
_SHARD = re.compile(r"(?P<dataset>.+)/(?P<path>data/(?:train|valid|test)/[^/]+)")
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


class FoundIndex(NamedTuple):
    """Where the index of one shard stands: `table.find(path)`. Without a table the shard is for libhdf5 alone."""

    table: ShardTable | None
    path: str


@dataclass(frozen=True)
class _Shard:
    """One shard that is looked for. `path` is relative to its dataset's folder."""

    file: ListedFile
    dataset: str
    path: str

    @property
    def name(self) -> str:
        """The dataset's name: that of its folder or repository."""
        return self.dataset.rsplit("/", 1)[-1].partition("@")[0]


def find_indexes(
    listing: Listing,
    locations: Sequence[str],
    storage_options: Mapping[str, Any] | None = None,
    *,
    published: str | None = None,
    reader: Reader | None = None,
) -> list[FoundIndex]:
    """Where the index of each shard is, made now where there is none.

    Args:
        listing: names the shards with what tells their versions.
        locations: of the shards.
        storage_options: of the storage they lie in.
        published: where the dataset's card says that its index is.
        reader: fetches ranges of shards; made when it is needed.

    Raises:
        HubError, DataNotFoundError: the storage cannot be reached, or a shard is not there.
        ShardError: a shard without a written index is no HDF5 file, or is damaged; names it.

    Warns:
        WellkitWarning: a written index cannot be used or is out of date, or shards can only be read through libhdf5.
    """
    search = _Search(listing, storage_options, reader)
    shards = [_shard_of(listing.file(location) or ListedFile(location, None)) for location in locations]
    for dataset in dict.fromkeys(shard.dataset for shard in shards):
        search.look_in_written([shard for shard in shards if shard.dataset == dataset], published)
    search.make([shard for shard in shards if shard.file.location not in search.found])
    return [search.found[location] for location in locations]


def _shard_of(file: ListedFile) -> _Shard:
    plain = file.location.partition("?")[0] if file.location.startswith(("http://", "https://")) else file.location
    match = _SHARD.fullmatch(plain)
    dataset, path = (match["dataset"], match["path"]) if match else (plain.rpartition("/")[0], plain.rpartition("/")[2])
    return _Shard(file, dataset, path)


class _Search:
    """What was found so far, by location."""

    def __init__(self, listing: Listing, storage_options: Mapping[str, Any] | None, reader: Reader | None) -> None:
        self.found: dict[str, FoundIndex] = {}
        self._listing, self._options, self._reader = listing, storage_options, reader

    # written indexes

    def look_in_written(self, shards: Sequence[_Shard], published: str | None) -> None:
        """Take what written indexes say of the shards of one dataset."""
        for place in self._places(shards[0], published):
            missing = [shard for shard in shards if shard.file.location not in self.found]
            if not missing:
                return
            table = self._open(place, shards[0].dataset)
            if table is not None:
                self._take(table, place, missing)

    def _places(self, shard: _Shard, published: str | None) -> Iterator[str]:
        """Where a written index may be."""
        for place in (published, index_location()):
            if place is not None:
                base = f"hf://datasets/{place}" if place == published and _REPOSITORY.fullmatch(place) else place
                yield "/".join([base.rstrip("/"), shard.name, NAME])
        beside = f"{shard.dataset}/{FOLDER}/{NAME}"
        known = self._listing.file(beside)
        folder = f"{shard.dataset}/{FOLDER}"
        if known is not None or not (
            self._listing.covers(beside) or (self._listing.covers(folder) and not self._listing.has_folder(folder))
        ):
            yield beside

    def _open(self, place: str, dataset: str) -> ShardTable | None:
        """The written index at `place`; None where there is none that can be used."""
        try:
            return _open_written(place, self._options_for(place, dataset), self._listing.file(place))
        except DataNotFoundError:
            return None
        except (WellkitError, BadIndexError) as error:
            why = str(error) if isinstance(error, WellkitError) else f"{without_secrets(place)}: {error}"
            warnings.warn(f"an index cannot be used and is passed over ({why})", WellkitWarning, stacklevel=2)
            return None

    def _options_for(self, place: str, dataset: str) -> Mapping[str, Any] | None:
        """Options hold keys and tokens of the dataset's storage: they are not for any other."""
        ours, theirs = urlsplit(dataset), urlsplit(place)
        same_host = theirs.scheme not in {"http", "https"} or ours.netloc == theirs.netloc
        return self._options if ours.scheme == theirs.scheme and same_host else None

    def _take(self, table: ShardTable, place: str, shards: Sequence[_Shard]) -> None:
        stale = []
        for shard in shards:
            if table.find(shard.path, shard.file.size, shard.file.content) is not None:
                self.found[shard.file.location] = FoundIndex(table, shard.path)
            elif shard.path in table:
                stale.append(shard)
        if stale:
            warnings.warn(
                f"{without_secrets(place)}: {len(stale)} of {len(shards)} shards have changed since they were indexed "
                f"(first {stale[0].path}) and are looked up elsewhere; write the index again (`wellkit index`)",
                WellkitWarning,
                stacklevel=2,
            )

    # indexes of this machine's own, and those that are made now

    def make(self, shards: Sequence[_Shard]) -> None:
        """Indexes from the cache, or from the shards' headers."""
        if not shards:
            return
        indexes: dict[str, ShardIndex] = {}
        unknown = []
        sized = with_sizes([shard.file for shard in shards], self._options)
        for shard in (replace(shard, file=file) for shard, file in zip(shards, sized, strict=True)):
            file = shard.file
            known = cache.load_remote(file.location, file.size or 0, file.content, file.version)
            if known is None:
                unknown.append(shard)
            else:
                indexes[file.location] = known
        if unknown:
            indexes |= self._read(unknown)
        if indexes:
            ordered = {file.location: indexes[file.location] for file in sized if file.location in indexes}
            table = ShardTable(unpack(pack(ordered), "indexes of remote shards"))
            self.found |= {location: FoundIndex(table, location) for location in indexes}

    def _read(self, shards: Sequence[_Shard]) -> dict[str, ShardIndex]:
        """From the shards' headers."""
        reader = self._reader or RangeReader(self._options, connections=CONNECTIONS)
        files = [shard.file for shard in shards]

        def found(number: int, index: ShardIndex) -> None:
            file = files[number]
            index = indexes[file.location] = replace(index, content=file.content)
            cache.store_remote(file.location, index.size, file.content, file.version, index)

        indexes: dict[str, ShardIndex] = {}
        scattered = []
        results = read_headers([(file.location, file.size or 0) for file in files], reader, found=found)
        for file, result in zip(files, results, strict=True):
            if isinstance(result, ShardIndex):
                continue
            if isinstance(result, TooScatteredError):
                scattered.append(f"{without_secrets(file.location)}: {result}")
                self.found[file.location] = FoundIndex(None, file.location)
            else:
                raise result
        if scattered:
            warnings.warn(
                f"{len(scattered)} shards have headers too scattered to be read over the network and are read through "
                f"libhdf5, which is slow (first {scattered[0]}); an index written with `wellkit index` avoids it",
                WellkitWarning,
                stacklevel=2,
            )
        return indexes


def with_sizes(files: Sequence[ListedFile], storage_options: Mapping[str, Any] | None) -> list[ListedFile]:
    """The files with their sizes, asked for side by side where the listing has none.

    Raises:
        DataNotFoundError, HubError: a file is not there, or its storage cannot be reached.
        ShardError: the storage does not tell a size.
    """

    def asked(file: ListedFile) -> ListedFile:
        if file.size is not None:
            return file
        place = locate(file.location, storage_options)
        with reading(str(place)):
            found = listed_file(file.location, place.fs.info(place.path))
        if found.size is None:
            raise ShardError(f"{place}: the server does not tell its size, so no ranges of it can be read")
        return found

    if all(file.size is not None for file in files):
        return list(files)
    with ThreadPoolExecutor(min(CONNECTIONS, len(files))) as pool:
        return list(pool.map(asked, files))


def _open_written(place: str, storage_options: Mapping[str, Any] | None, listed: ListedFile | None) -> ShardTable:
    """The index file at `place`, through a copy in this machine's cache where versions can be told apart.

    Raises:
        DataNotFoundError: there is none.
        WellkitError: it cannot be read.
        BadIndexError: it is damaged, or of another version.
    """
    name = without_secrets(place)
    if (hub := hub_place(place)) is not None:
        return _open_on_hub(hub, place, storage_options, listed)
    where = locate(place, storage_options)
    if where.is_local:
        try:
            return TreeIndex(where.path, where.path)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise DataNotFoundError(f"{name}: no such file") from error
        except OSError as error:
            raise ShardError(f"{name}: cannot be read ({error.strerror or error})") from error
    with reading(name):
        entry = listed_file(place, where.fs.info(where.path))
    return _copied(place, entry, lambda: _cat(where, name))


def _cat(where: Any, name: str) -> bytes:
    with reading(name):
        content: bytes = where.fs.cat_file(where.path)
    return content


def _open_on_hub(
    hub: HubPlace, place: str, storage_options: Mapping[str, Any] | None, listed: ListedFile | None
) -> ShardTable:
    source = hub.source(storage_options)
    opened: list[TreeIndex] = []

    def known(promised: FileHash, size: int) -> bool:
        copy = cache.tree_place(place, size, content_of(promised), "")
        found = None if copy is None else cache.open_copy(copy, place)
        opened.extend([found] if found is not None else [])
        return found is not None

    if listed is not None and listed.size is not None and listed.content:
        kind, _, value = listed.content.partition(":")
        if known(FileHash(HashKind(kind), value), listed.size):
            return opened[0]
    if hub_offline():
        kind, value, size = (recall("indexes", place) or b"::0").decode("ascii", "replace").split(":")
        if kind and known(FileHash(HashKind(kind), value), int(size)):
            return opened[0]
        raise DataNotFoundError(f"{place}: HF_HUB_OFFLINE is set, and this machine has no copy of it")
    file = source.read(hub.path, hub.revision or "main", known)
    remember(f"{content_of(file.hash)}:{file.size}".encode(), "indexes", place)
    if file.content is None:
        return opened[0]
    content = file.content
    return _copied(place, ListedFile(place, file.size, content_of(file.hash)), lambda: content)


def _copied(place: str, file: ListedFile, fetch: Any) -> ShardTable:
    """From the copy that is kept of this version, which is made now if there is none."""
    copy = cache.tree_place(place, file.size or 0, file.content, file.version)
    found = None if copy is None else cache.open_copy(copy, without_secrets(place))
    if found is not None:
        return found
    content = fetch()
    table = ShardTable(unpack(content, without_secrets(place)))
    if copy is not None and cache.keep_copy(copy, content):
        return cache.open_copy(copy, without_secrets(place)) or table
    return table


__all__ = ["CONNECTIONS", "FoundIndex", "find_indexes", "with_sizes"]
