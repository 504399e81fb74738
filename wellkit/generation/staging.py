"""A folder that appears under its name only when it is complete."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from wellkit.errors import ArgumentError
from wellkit.formats.hdf5_stream import storage_error

_LOCK = ".lock"


@contextmanager
def staged_folder(target: Path, *, may_replace: Callable[[], None]) -> Iterator[Path]:
    """Give a hidden folder beside `target` to fill; it becomes `target` when the block ends without an error.

    What a failed or killed run leaves (a hidden `.NAME.generating`) is removed, at the latest by the next run.

    Args:
        target: the final folder.
        may_replace: called when `target` is there and not empty, before anything is written and again before it is
            replaced; raises to refuse.

    Raises:
        ArgumentError: another process is filling the same folder.
        StorageError: the folder cannot be written.
    """
    staging = target.with_name(f".{target.name}.generating")
    old = target.with_name(f".{target.name}.replaced")
    if _has_content(target):
        may_replace()
    made = [folder for folder in target.parents if not folder.exists()]
    try:
        staging.mkdir(parents=True, exist_ok=True)
        lock = open(staging / _LOCK, "w")  # noqa: SIM115 - kept open as long as the lock is held
    except OSError as error:
        raise storage_error(target, error) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ArgumentError(f"another process is generating {target} now; wait for it to end") from error
        try:
            _clear(staging)  # left by a run that was killed
            yield staging
            if _has_content(target):
                may_replace()
            try:
                (staging / _LOCK).unlink()
                shutil.rmtree(old, ignore_errors=True)
                if target.exists():
                    os.rename(target, old)
                os.rename(staging, target)
            except OSError as error:
                if old.exists() and not target.exists():
                    os.rename(old, target)
                raise storage_error(target, error) from error
            shutil.rmtree(old, ignore_errors=True)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
            _remove_empty(made)


def _has_content(path: Path) -> bool:
    """Whether something is there that is not an empty folder."""
    return path.exists() and (not path.is_dir() or any(path.iterdir()))


def _remove_empty(folders: Iterable[Path]) -> None:
    """Take away folders, innermost first, up to the first that holds something."""
    with suppress(OSError):
        for folder in folders:
            folder.rmdir()


def _clear(folder: Path) -> None:
    for entry in folder.iterdir():
        if entry.name != _LOCK:
            if entry.is_dir():
                shutil.rmtree(entry)
            else:
                entry.unlink()
