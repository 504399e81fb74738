"""Repositories of the loopback Hub: commits are snapshots of folders, hashed as git and LFS do."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

LFS_SUFFIXES = (".hdf5", ".h5", ".safetensors")


def git_blob_id(content: bytes) -> str:
    """The object id git gives a file: SHA-1 over a header and the content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@dataclass(frozen=True)
class Blob:
    """One file of one commit."""

    path: str
    source: Path
    size: int
    blob_id: str
    sha256: str | None  # only where the file is stored with LFS
    pointer_size: int = 0

    @classmethod
    def of(cls, source: Path, path: str, *, lfs: bool) -> Blob:
        if not lfs:
            content = source.read_bytes()
            return cls(path, source, len(content), git_blob_id(content), None)
        with source.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        size = source.stat().st_size
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()
        return cls(path, source, size, git_blob_id(pointer), sha256, len(pointer))

    @property
    def etag(self) -> str:
        return self.sha256 or self.blob_id

    def entry(self) -> dict[str, Any]:
        """As the Hub's tree and paths-info answers describe a file."""
        described: dict[str, Any] = {
            "type": "file",
            "oid": self.blob_id,
            "size": self.size,
            "path": self.path,
        }
        if self.sha256 is not None:
            described["lfs"] = {"oid": self.sha256, "size": self.size, "pointerSize": self.pointer_size}
        return described


@dataclass
class Repository:
    """A repository. `main` follows the latest commit; every commit stays available under its id."""

    repo_id: str
    kind: str = "datasets"  # or "models"
    changed: str = "2025-03-28T12:00:00.000Z"  # when its files last were, for those who ask
    token: str | None = None  # where set, only requests that carry it see the repository
    commits: dict[str, dict[str, Blob]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    extra_entries: list[dict[str, Any]] = field(default_factory=list)  # hostile listings

    def commit(self, folder: Path, *, lfs_suffixes: Iterable[str] = LFS_SUFFIXES, ref: str = "main") -> str:
        """Take a snapshot of `folder` as the new head of `ref`; returns the commit's id.

        Contents are served from `folder` itself: leave its files alone afterwards, or change them on purpose
        to serve other bytes than were listed.
        """
        suffixes = tuple(lfs_suffixes)
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        blobs = [Blob.of(path, path.relative_to(folder).as_posix(), lfs=path.name.endswith(suffixes)) for path in files]
        digest = hashlib.sha1(repr([(blob.path, blob.blob_id) for blob in blobs]).encode())
        digest.update(f"{self.repo_id} {len(self.commits)}".encode())
        commit = digest.hexdigest()
        self.commits[commit] = {blob.path: blob for blob in blobs}
        self.refs[ref] = commit
        return commit

    def replace(self, path: str, source: Path, *, ref: str = "main") -> None:
        """Serve another file under a path of a commit that has been published: what must never happen."""
        files = self.commits[self.refs[ref]]
        files[path] = Blob.of(source, path, lfs=files[path].sha256 is not None)

    def resolve(self, revision: str) -> str | None:
        """The commit a branch, tag or commit id stands for."""
        return self.refs.get(revision) or (revision if revision in self.commits else None)

    def tree(self, commit: str, folder: str, *, recursive: bool) -> list[dict[str, Any]] | None:
        """Entries below `folder` ("" is the root); None where there is no such folder."""
        prefix = f"{folder}/" if folder else ""
        entries: dict[str, dict[str, Any]] = {}
        for path, blob in self.commits[commit].items():
            if not path.startswith(prefix):
                continue
            parts = path[len(prefix) :].split("/")
            for depth in range(1, len(parts)):
                name = prefix + "/".join(parts[:depth])
                if recursive or depth == 1:
                    oid = hashlib.sha1(name.encode()).hexdigest()
                    entries.setdefault(name, {"type": "directory", "oid": oid, "size": 0, "path": name})
            if recursive or len(parts) == 1:
                entries[path] = blob.entry()
        if not entries and folder:
            return None
        return [*entries.values(), *(self.extra_entries if not folder else [])]
