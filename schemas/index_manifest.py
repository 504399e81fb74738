"""What lies beside a published index: which dataset, commit and shards it is of, with sizes and hashes."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field as Key

from wellkit.schemas.document import Document, Model

__all__ = ["IndexManifest", "IndexedShard", "PublishedFile"]


class PublishedFile(Model):
    """A file of the publication."""

    name: str
    size: int = Key(ge=0, description="bytes")
    sha256: str = Key(pattern=r"^[0-9a-f]{64}$")


class IndexedShard(Model):
    """One shard that the index tells of."""

    path: str = Key(description="relative to the dataset's folder")
    size: int = Key(ge=0, description="bytes")
    content: str = Key(default="", description="hash of the whole file, sha256:... or git-blob-sha1:..., where known")


class IndexManifest(Document):
    """The manifest of one dataset's index."""

    KIND: ClassVar[str] = "index-manifest"

    dataset: str = Key(min_length=1)
    source: str | None = Key(default=None, description="address of the dataset; None for one that was a local folder")
    commit: str | None = Key(default=None, description="of the Hub repository that the shards belong to, where known")
    written_by: str
    index: PublishedFile
    shards: tuple[IndexedShard, ...]
