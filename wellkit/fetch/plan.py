"""What to do with each file of a repository: a pure function of the listing, the disk and the filters.

Nothing here touches the network or the disk, so that a dry run and a real one cannot differ.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum, StrEnum
from fnmatch import fnmatchcase

from rich.filesize import decimal

from wellkit.errors import ArgumentError, DataNotFoundError, IntegrityError, did_you_mean
from wellkit.fetch.where import Condition, choose

SPLITS = ("train", "valid", "test")
STATISTICS_FILE = "stats.yaml"
_SHARD = re.compile(r"data/(?P<split>train|valid|test)/[^/]+\.(?:hdf5|h5)")


class HashKind(StrEnum):
    """How a file's hash is taken."""

    sha256 = "sha256"  # of the content: files kept with LFS
    git_blob = "git-blob-sha1"  # of git's header and the content: small files
    unpublished = "unpublished"  # none is told; the value only tells one version from another


@dataclass(frozen=True)
class FileHash:
    """A hash that a source promises."""

    kind: HashKind
    value: str  # lower-case hexadecimal

    @property
    def is_published(self) -> bool:
        """Whether content can be checked against it."""
        return self.kind is not HashKind.unpublished

    def __str__(self) -> str:
        return f"{self.kind} {self.value}" if self.is_published else "no hash (unverified, first seen)"


@dataclass(frozen=True)
class RemoteFile:
    """One file of a listing. `path` is relative to the dataset's folder, with forward slashes."""

    path: str
    size: int  # bytes
    hash: FileHash

    @property
    def split(self) -> str | None:
        """The split it belongs to; None for `stats.yaml`."""
        match = _SHARD.fullmatch(self.path)
        return match["split"] if match else None

    @property
    def name(self) -> str:
        """The file name alone."""
        return self.path.rsplit("/", 1)[-1]


@dataclass(frozen=True)
class LocalFile:
    """What lies at a file's place on disk.

    Attributes:
        size: bytes.
        verified: the hash it is known to have, from the manifest.
        obstacle: what is there instead of a file.
    """

    size: int
    verified: FileHash | None = None
    obstacle: str = ""


class ActionKind(Enum):
    """What happens to a file."""

    keep = "keep"  # it is there, and known to be right
    check = "check"  # it is there and has the right size: hash it, then keep or replace it
    fetch = "fetch"  # it is not there
    resume = "resume"  # the beginning of it is there
    replace = "replace"  # another version is there, and stays until the new one is verified
    refuse = "refuse"  # it cannot be brought to its place


TRANSFERS = frozenset({ActionKind.fetch, ActionKind.resume, ActionKind.replace})


@dataclass(frozen=True)
class Action:
    """The decision about one file."""

    kind: ActionKind
    file: RemoteFile
    reason: str
    at_hand: int = 0  # bytes that an interrupted transfer left

    @property
    def remaining(self) -> int:
        """Bytes to be transferred, as far as is known before anything is hashed."""
        return self.file.size - self.at_hand if self.kind in TRANSFERS else 0

    def become(self, kind: ActionKind, reason: str) -> Action:
        """The same file with another decision."""
        return replace(self, kind=kind, reason=reason)


@dataclass(frozen=True)
class Selection:
    """Which files are wanted. See `wellkit.download` for what each filter means."""

    splits: tuple[str, ...] | None = None
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    max_files: int | None = None
    max_bytes: int | None = None
    where: tuple[Condition, ...] = ()

    def __post_init__(self) -> None:
        for split in self.splits or ():
            if split not in SPLITS:
                raise ArgumentError(
                    f"unknown split {split!r}; choose from {', '.join(SPLITS)}.{did_you_mean(split, SPLITS)}"
                )
        for name, value in (("max_files", self.max_files), ("max_bytes", self.max_bytes)):
            if value is not None and value < 1:
                raise ArgumentError(f"{name}={value} leaves nothing to download; give a positive number")


def check_paths(paths: Iterable[str], *, source: str) -> None:
    """Refuse a listing in which a path could end up outside the dataset's folder, or on another's place.

    Raises:
        IntegrityError: a path is absolute, climbs (`..`), or holds a backslash, a drive letter or a character
            that does not print; or two files of the dataset differ at most by case.
    """
    seen: dict[str, str] = {}
    for path in paths:
        if (
            any(part in {"", ".", ".."} for part in path.split("/"))
            or "\\" in path
            or re.match(r"[A-Za-z]:", path) is not None
            or not path.isprintable()
        ):
            raise IntegrityError(
                f"{source}: its listing holds the unsafe path {path!r}; nothing was downloaded. "
                "Check that this is the repository you mean, and tell its owner"
            )
        if belongs_to_dataset(path) and seen.setdefault(path.casefold(), path) is not path:
            raise IntegrityError(
                f"{source}: its listing holds both {seen[path.casefold()]!r} and {path!r}, which are one file on "
                "some disks; nothing was downloaded"
            )


def belongs_to_dataset(path: str) -> bool:
    """Whether a path is part of a dataset's tree: a shard of a split, or the statistics."""
    return path == STATISTICS_FILE or _SHARD.fullmatch(path) is not None


def select(files: Sequence[RemoteFile], wanted: Selection, *, source: str) -> tuple[RemoteFile, ...]:
    """The files that pass the filters, statistics first, then by path.

    Raises:
        DataNotFoundError: there is no shard, or the filters leave none; names what there is.
    """
    shards = sorted((file for file in files if file.split is not None), key=lambda file: file.path)
    if not shards:
        raise DataNotFoundError(
            f"{source}: holds no data/<train|valid|test>/*.hdf5; is it a dataset in The Well's layout?"
        )
    present = [split for split in SPLITS if any(file.split == split for file in shards)]
    missing = [split for split in wanted.splits or () if split not in present]
    if missing:
        raise DataNotFoundError(f"{source}: has no split {missing[0]!r}; it has {', '.join(present)}")
    in_splits = [file for file in shards if wanted.splits is None or file.split in wanted.splits]
    kept = [
        file
        for file in in_splits
        if (not wanted.include or _matches(file, wanted.include)) and not _matches(file, wanted.exclude)
    ]
    if not kept:
        raise DataNotFoundError(
            f"{source}: none of its {len(in_splits)} files passes include={list(wanted.include)}, "
            f"exclude={list(wanted.exclude)}; patterns match file names such as {in_splits[0].name!r}, "
            f"or {in_splits[0].path.removeprefix('data/')!r}"
        )
    if wanted.where:
        names = choose([file.name for file in kept], wanted.where, source=source)
        kept = [file for file in kept if file.name in names]
    kept = _limit(kept, wanted)
    return (*(file for file in files if file.path == STATISTICS_FILE), *kept)


def _matches(file: RemoteFile, patterns: Sequence[str]) -> bool:
    forms = (file.name, file.path.removeprefix("data/"), file.path)
    return any(fnmatchcase(form, pattern) for pattern in patterns for form in forms)


def _limit(shards: Sequence[RemoteFile], wanted: Selection) -> list[RemoteFile]:
    """The first `max_files` of each split; of these, one of each split in turn up to `max_bytes` in all."""
    by_split = [
        [file for file in shards if file.split == split][: wanted.max_files]
        for split in SPLITS
        if any(file.split == split for file in shards)
    ]
    if wanted.max_bytes is None:
        return sorted((file for files in by_split for file in files), key=lambda file: file.path)
    in_turn = [
        files[position]
        for position in range(max(len(files) for files in by_split))
        for files in by_split
        if position < len(files)
    ]
    taken: list[RemoteFile] = []
    total = 0
    for file in in_turn:
        if total + file.size > wanted.max_bytes:
            break
        taken.append(file)
        total += file.size
    if not taken:
        raise ArgumentError(
            f"max_bytes={wanted.max_bytes} is less than the first file: {in_turn[0].path} has "
            f"{in_turn[0].size} bytes ({decimal(in_turn[0].size)})"
        )
    return sorted(taken, key=lambda file: file.path)


def plan(
    files: Iterable[RemoteFile], on_disk: Mapping[str, LocalFile], at_hand: Mapping[str, int] | None = None
) -> tuple[Action, ...]:
    """Decide about each file.

    Args:
        files: those that are wanted.
        on_disk: the paths that exist, and what lies there.
        at_hand: bytes of the very version that is wanted which interrupted transfers left, by path.
    """
    return tuple(_decide(file, on_disk.get(file.path), (at_hand or {}).get(file.path, 0)) for file in files)


def _decide(file: RemoteFile, local: LocalFile | None, at_hand: int) -> Action:
    if local is not None and local.obstacle:
        return Action(ActionKind.refuse, file, local.obstacle)
    begun = f"{at_hand} of {file.size} bytes are here from an interrupted download"
    if local is None:
        if at_hand:
            return Action(ActionKind.resume, file, begun, at_hand)
        return Action(ActionKind.fetch, file, "not on disk")
    if local.size != file.size:
        reason = f"on disk with {local.size} bytes, not {file.size}"
    elif local.verified is None or local.verified.kind is not file.hash.kind:
        return Action(ActionKind.check, file, "right size, not yet known to be right")
    elif local.verified == file.hash:
        known = "verified before" if file.hash.is_published else "seen before; its source publishes no hash"
        return Action(ActionKind.keep, file, known)
    else:
        reason = "another version is on disk"
    return Action(ActionKind.replace, file, f"{reason}; {begun}" if at_hand else reason, at_hand)
