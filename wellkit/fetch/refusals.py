"""Downloads that are not begun: too large for the disk or to be a mistake, or with something in the way."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.filesize import decimal

from wellkit.errors import ArgumentError, StorageError, WellkitError
from wellkit.fetch.disk import free_space
from wellkit.fetch.plan import Action, ActionKind

LARGE = 100 * 10**9  # bytes; more has to be confirmed
SPACE_MARGIN = 0.01
_SUGGESTED = 20 * 10**9
_SMALLEST = 10**9


def find_refusal(
    actions: Sequence[Action], directory: Path, *, command: str | None, confirmed: bool
) -> WellkitError | None:
    """Why a download is not to begin; None where it may.

    Args:
        actions: what is to be done. Files to be replaced count in full: both versions exist for a moment.
        directory: the target, which need not exist.
        command: the download that the user asked for, to tell how to take a part of it; None where that is no way out.
        confirmed: whether more than 100 GB are wanted.
    """
    for action in actions:
        if action.kind is ActionKind.refuse:
            return StorageError(f"{action.reason}; move it away")
    needed = sum(action.remaining for action in actions)
    free = free_space(directory)
    at_hand = sum(action.file.size for action in actions) - needed
    if needed * (1 + SPACE_MARGIN) > free:
        told = (
            f"{directory}: {decimal(needed)} are to be downloaded and {decimal(free)} are free on its disk; free space"
        )
        if command is None:
            return StorageError(f"{told} there")
        fits = int(free * 0.9) + at_hand
        instead = f"{command} --max-bytes {fits // 10**9}GB" if fits >= _SMALLEST else f"{command} --to OTHER_FOLDER"
        return StorageError(
            f"{told}, choose another target folder, or fetch less (--split, --include, --max-files), for example: "
            f"{instead}"
        )
    if needed > LARGE and not confirmed:
        told = f"{directory}: {decimal(needed)} are to be downloaded, more than {decimal(LARGE)}; confirm with --yes"
        smaller = (
            f", or take a part of it, for example: {command} --max-bytes {_SUGGESTED // 10**9}GB" if command else ""
        )
        return ArgumentError(f"{told} (confirmed=True){smaller}")
    return None
