"""An index to be uploaded to a repository of one's own, for a dataset that lies somewhere else.

    DIR/README.md                what this is, and how to use it
    DIR/<dataset>/index.bin      where every chunk of every shard lies
    DIR/<dataset>/manifest.json  of which shards (sizes, hashes) and of which commit

`DIR` may hold indexes of many datasets. It is what `$WELLKIT_INDEX` and a card's `sources.index` name, as it is or
uploaded.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.filesize import decimal

from wellkit import __version__
from wellkit.errors import ArgumentError, DataNotFoundError, DocumentError, WellkitError
from wellkit.fetch.disk import hash_file, write_atomically
from wellkit.fetch.listing import ListedFile, Listing, content_of, hub_place, list_remote, pinned
from wellkit.fetch.manifest import verified_files
from wellkit.fetch.plan import FileHash, HashKind, RemoteFile
from wellkit.fetch.ranges import RangeReader
from wellkit.index.columns import pack
from wellkit.index.file import NAME
from wellkit.index.headers import Reader, read_headers
from wellkit.index.model import ShardIndex
from wellkit.index.remote import CONNECTIONS, with_sizes
from wellkit.index.safely import TIMEOUT
from wellkit.index.tree import SUFFIXES, Progress, ShardReport, index_all, report_of, with_contents
from wellkit.schemas.index_manifest import IndexedShard, IndexManifest, PublishedFile
from wellkit.storage import locate, without_secrets

MANIFEST = "manifest.json"
README = "README.md"
_SPLITS = ("train", "valid", "test")


@dataclass(frozen=True)
class PublishReport:
    """What was indexed and written. `written` is empty where a shard could not be indexed."""

    dataset: str
    source: str
    commit: str | None
    shards: tuple[ShardReport, ...]
    written: tuple[Path, ...] = ()

    @property
    def failed(self) -> tuple[ShardReport, ...]:
        """Shards without a usable index."""
        return tuple(shard for shard in self.shards if shard.error is not None)


def publish_index(
    dataset: str,
    to: str | os.PathLike[str],
    *,
    name: str | None = None,
    jobs: int = 2,
    keep_going: bool = False,
    timeout: float = TIMEOUT,
    progress: Progress | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> PublishReport:
    """Index a dataset, local or remote, and write what one would upload.

    A local shard's hash is taken from the record of its download, or else from all its bytes. Of a remote dataset only
    headers are fetched; hashes and commit come from the Hub's listing.

    Args:
        dataset: the dataset's own folder, which holds data/<split>/, or its address.
        to: the folder to write into; other datasets' indexes there are left alone.
        name: of the dataset; by default that of its folder or repository.
        jobs: child processes that parse local shards.
        keep_going: write the index of the others where some shards cannot be indexed.
        timeout: seconds a shard.
        progress: called with shards done and shards there are.

    Raises:
        DataNotFoundError: no such folder or address, or no shard in it.
        HubError: the storage cannot be reached.
        StorageError: the files cannot be written.
    """
    text = dataset.rstrip("/")
    name = name or text.rsplit("/", 1)[-1].partition("@")[0] or os.path.basename(os.path.abspath(text))
    if not name.strip(".") or "/" in name:
        raise ArgumentError(f"{name!r} is no name of a dataset; give one with --name")
    if "://" in text and not locate(text, storage_options).is_local:
        commit, source, found = _index_remote(text, storage_options, timeout, progress)
    else:
        commit, source, found = _index_local(locate(text).path, jobs, timeout, progress)
    reports = tuple(report_of(path, index) for path, index in found.items())
    usable = {path: index for path, index in sorted(found.items()) if isinstance(index, ShardIndex)}
    report = PublishReport(name, source or text, commit, reports)
    if not usable or (report.failed and not keep_going):
        return report
    return replace(report, written=_write(Path(to), name, source, commit, usable))


def _index_local(
    root: str, jobs: int, timeout: float, progress: Progress | None
) -> tuple[str | None, str | None, dict[str, ShardIndex | WellkitError]]:
    found = index_all(root, jobs, timeout, progress)
    repository, verified = verified_files(Path(root))
    indexes = with_contents(root, {path: index for path, index in found.items() if isinstance(index, ShardIndex)})
    for path, index in indexes.items():
        if not index.content:
            promised = RemoteFile(path, index.size, FileHash(HashKind.sha256, ""))
            indexes[path] = replace(index, content=content_of(hash_file(Path(root) / path, promised)))
    commits = {verified[path].commit for path in indexes if path in verified}
    whole = bool(indexes) and all(path in verified for path in indexes) and len(commits) == 1
    source = f"hf://datasets/{repository}" if whole else None
    return (commits.pop() if whole else None), source, {**found, **indexes}


def _index_remote(
    root: str, storage_options: Mapping[str, Any] | None, timeout: float, progress: Progress | None
) -> tuple[str | None, str | None, dict[str, ShardIndex | WellkitError]]:
    commit = None
    if (hub := hub_place(root)) is not None:
        at_commit = pinned(hub, storage_options)
        commit = at_commit.revision
        root = "/".join(part for part in (at_commit.root, hub.path) if part)
    shards = with_sizes(_shards_below(root, storage_options), storage_options)
    if progress is not None:
        progress(0, len(shards))
    reader: Reader = RangeReader(storage_options, connections=CONNECTIONS)
    results = read_headers(
        [(shard.location, shard.size or 0) for shard in shards],
        reader,
        with_fingerprint=True,
        timeout=timeout,
        progress=progress,
    )
    found: dict[str, ShardIndex | WellkitError] = {}
    for shard, result in zip(shards, results, strict=True):
        path = shard.location.partition("?")[0].removeprefix(root.partition("?")[0].rstrip("/") + "/")
        if isinstance(result, ShardIndex):
            found[path] = replace(result, content=shard.content)
        elif isinstance(result, WellkitError):
            found[path] = result
        else:
            found[path] = DataNotFoundError(
                f"{without_secrets(shard.location)}: its header is too scattered to be read over the network "
                f"({result}); index a downloaded copy"
            )
    return commit, without_secrets(root.replace(f"@{commit}", "")), found


def _shards_below(root: str, storage_options: Mapping[str, Any] | None) -> list[ListedFile]:
    """Shards in the folders of the splits, or in the folder itself."""
    listings: list[tuple[Listing, str]] = []
    for folder in (*(f"{root.rstrip('/')}/data/{split}" for split in _SPLITS), root):
        try:
            listings.append((list_remote(folder, storage_options), folder))
        except DataNotFoundError:
            continue
    found = {
        location: listed
        for listing, folder in listings
        for location in listing.files_in(folder)
        if location.partition("?")[0].endswith(SUFFIXES) and (listed := listing.file(location)) is not None
    }
    if not found:
        raise DataNotFoundError(
            f"{without_secrets(root)}: holds no {' or '.join(SUFFIXES)} file, neither in data/{{{','.join(_SPLITS)}}}/ "
            "nor itself; give the address of a dataset"
        )
    return [found[location] for location in sorted(found)]


def _write(
    to: Path, name: str, source: str | None, commit: str | None, indexes: Mapping[str, ShardIndex]
) -> tuple[Path, ...]:
    content = pack(indexes)
    manifest = IndexManifest(
        schema_=IndexManifest.schema_name(),
        dataset=name,
        source=source,
        commit=commit,
        written_by=f"wellkit {__version__}",
        index=PublishedFile(name=NAME, size=len(content), sha256=hashlib.sha256(content).hexdigest()),
        shards=tuple(
            IndexedShard(path=path, size=index.size, content=index.content) for path, index in indexes.items()
        ),
    )
    text = json.dumps(manifest.to_mapping(), indent=1) + "\n"
    written = (to / name / NAME, to / name / MANIFEST, to / README)
    write_atomically(written[0], content)
    write_atomically(written[1], text.encode())
    write_atomically(written[2], _readme(to).encode())
    return written


def _readme(to: Path) -> str:
    """What the folder holds, from the manifests in it."""
    rows = []
    for path in sorted(to.glob(f"*/{MANIFEST}")):
        try:
            found = IndexManifest.parse(json.loads(path.read_bytes()), source=os.fspath(path))
        except (OSError, ValueError, DocumentError):
            continue
        size = sum(shard.size for shard in found.shards)
        rows.append(
            f"| `{found.dataset}` | {found.source or 'a local folder'} | {found.commit or ''} | {len(found.shards)} | "
            f"{decimal(size)} | {decimal(found.index.size)} |"
        )
    return "\n".join(
        [
            "# Indexes of simulation datasets",
            "",
            "Where every chunk of every shard lies, so that wellkit opens and streams these datasets without touching",
            "their shards. The data themselves are not here. Written by `wellkit index DATASET --publish-to DIR`;",
            "`manifest.json` beside each index lists the shards it is of, with sizes and hashes.",
            "",
            "| dataset | of | commit | shards | data | index |",
            "|---|---|---|---|---|---|",
            *rows,
            "",
            "Use it with `export WELLKIT_INDEX=hf://datasets/OWNER/NAME` (this repository, or any folder or address",
            "that holds these files), or name it in a dataset's card: `sources: {index: OWNER/NAME}`.",
            "",
        ]
    )
