"""What a dataset's tree on disk consists of: every file with size and hash, where it came from, how much is in it."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field as Key

from wellkit.schemas.document import Document, Model

__all__ = ["Manifest", "ManifestFile"]


class ManifestFile(Model):
    """One file of the tree, as it was when its content was last read and found right."""

    bytes: int = Key(ge=0)
    sha256: str = Key(pattern=r"^[0-9a-f]{64}$", description="of the content")
    git_blob_sha1: str | None = Key(
        default=None, pattern=r"^[0-9a-f]{40}$", description="of git's header and the content: what the Hub publishes"
    )
    published: bool = Key(
        default=False,
        description="whether the source promised the hash; where not, the content is unverified: as it was first seen",
    )
    version: str | None = Key(default=None, description="tells versions at the source apart where no hash is published")
    commit: str | None = Key(default=None, description="of the source; None where it has none")
    modified_ns: int = Key(description="time of modification on disk: while it is the same, the hash is taken as known")
    trajectories: int | None = Key(default=None, ge=0)
    steps: int | None = Key(default=None, ge=0, description="stored frames of each trajectory")


class Manifest(Document):
    """The manifest of one dataset's folder."""

    KIND: ClassVar[str] = "manifest"

    dataset: str = Key(min_length=1, description="name of the folder")
    repository: str | None = Key(default=None, description="on the Hub; None for data that were generated here")
    source: str = Key(description="address the files came from, or what generated them")
    written_by: str
    statistics_sha256: str | None = Key(
        default=None, description="of the values in stats.yaml, as every result carries it; None where there are none"
    )
    files: dict[str, ManifestFile] = Key(default_factory=dict, description="by path in the folder")
