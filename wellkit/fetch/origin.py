"""Which dataset a name stands for, and where its files can be had from."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from wellkit import catalog
from wellkit.errors import ArgumentError, DataNotFoundError, HubError, UnknownDatasetError
from wellkit.fetch.hub import HubSource
from wellkit.fetch.mirror import MirrorSource
from wellkit.fetch.plan import RemoteFile
from wellkit.fetch.transfer import Source
from wellkit.schemas.card import SimulationCard

_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/(?P<name>[A-Za-z0-9][\w.-]*)")


@dataclass(frozen=True)
class Resolved:
    """What a name stands for.

    Attributes:
        folder: name of the dataset's folder.
        repository: on the Hub.
        card: where the catalog has one of this very repository.
    """

    folder: str
    repository: str
    card: SimulationCard | None

    @property
    def mirrors(self) -> tuple[str, ...]:
        """Addresses of folders with the same files."""
        return self.card.sources.mirrors if self.card is not None else ()


@dataclass(frozen=True)
class Origin:
    """A listing, and the sources its files can be had from.

    Attributes:
        files: all that belongs to the dataset's tree, by path.
        commit: that they belong to, where the source knows commits.
        sources: in the order in which they are asked.
        told: the source of the listing, for messages.
        address: likewise, for the manifest.
        notes: what the user should know.
    """

    files: tuple[RemoteFile, ...]
    commit: str | None
    sources: tuple[Source, ...]
    told: str
    address: str
    notes: tuple[str, ...] = ()


def resolve(name: str) -> Resolved:
    """Folder name, repository and card (if any) of what the user called `name`.

    Raises:
        ArgumentError: it is neither a name of the catalog nor a repository.
        UnknownDatasetError: the catalog has no such name.
        DataNotFoundError: its card names no repository.
    """
    if "/" in name:
        match = _REPOSITORY.fullmatch(name)
        if match is None or ".." in name:
            raise ArgumentError(f"{name!r} is neither a name of the catalog nor a repository; write NAME or OWNER/NAME")
        try:
            card = _card(match["name"])
        except UnknownDatasetError:
            card = None
        hub = card.sources.hub if card is not None else None
        return Resolved(match["name"], name, card if hub is not None and hub.repo_id == name else None)
    card = _card(name)
    if card is None or card.sources.hub is None:
        raise DataNotFoundError(f"{name}: its card names no Hub repository to download from")
    return Resolved(card.name, card.sources.hub.repo_id, card)


def _card(name: str) -> SimulationCard | None:
    card: object = catalog.get(name)
    return card if isinstance(card, SimulationCard) else None


def find_origin(resolved: Resolved, source: str, revision: str) -> Origin:
    """Where the files of a dataset are to be had from.

    Args:
        resolved: the dataset.
        source: "auto", "hub", "mirror" or the address of a mirror.
        revision: of the repository.

    Raises:
        ArgumentError: there is no such source, or it cannot have that revision.
        HubError: none of them can be reached.
        DataNotFoundError: there is no such repository or revision.
    """
    if source == "hub" or (source == "auto" and not resolved.mirrors):
        return _on_hub(resolved, revision, ())
    if source == "auto":
        mirrors = tuple(MirrorSource(address) for address in resolved.mirrors)
        try:
            return _on_hub(resolved, revision, mirrors)
        except HubError as error:
            if revision != "main":
                raise  # a mirror does not know revisions
            return _on_mirrors(mirrors, error)
    if source == "mirror" or source.startswith(("http://", "https://")):
        addresses = resolved.mirrors if source == "mirror" else (source,)
        if not addresses:
            raise ArgumentError(
                f"source='mirror': no mirror of {resolved.folder} is known; give its address, or leave source at 'auto'"
            )
        if revision != "main":
            raise ArgumentError(f"revision={revision!r}: mirrors do not know revisions; leave it out, or source='hub'")
        return _on_mirrors([MirrorSource(address) for address in addresses], None)
    raise ArgumentError(f"source={source!r} is unknown; choose auto, hub or mirror, or give the address of a folder")


def _on_hub(resolved: Resolved, revision: str, mirrors: Sequence[Source]) -> Origin:
    hub = HubSource(resolved.repository)
    snapshot = hub.snapshot(revision)
    return Origin(snapshot.files, snapshot.commit, (hub, *mirrors), str(hub), f"hf://datasets/{resolved.repository}")


def _on_mirrors(mirrors: Sequence[MirrorSource], hub: HubError | None) -> Origin:
    failure: HubError | DataNotFoundError | None = None
    for mirror in mirrors:
        try:
            commit, files = mirror.files()
        except (HubError, DataNotFoundError) as error:
            failure = error
            continue
        notes = (f"the Hub failed ({hub}); {mirror} is used instead",) if hub is not None else ()
        others = [other for other in mirrors if other is not mirror]
        return Origin(files, commit, (mirror, *others), str(mirror), str(mirror), notes)
    if hub is not None:
        raise HubError(f"{hub}; its mirrors failed too ({failure})") from hub
    assert failure is not None
    raise failure
