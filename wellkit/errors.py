"""The whole family of errors that wellkit raises on purpose.

Each class also derives from the builtin exception that a caller would already catch. A message says what was
asked, what was found, where, and what to do next, on one line: the command line prints it as it is and exits
with status 1. Anything that is not a `WellkitError` is a bug of ours and keeps its traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class WellkitError(Exception):
    """Root of the family: a failure we understand and can explain in one line.

    Attributes:
        told_elsewhere: another process of the same work met it, and tells of it.
    """

    told_elsewhere = False

    def __str__(self) -> str:
        # KeyError prints the repr of its argument; every member of the family prints its message instead.
        return " ".join(str(argument) for argument in self.args)


class UnknownDatasetError(WellkitError, KeyError):
    """No card of that name is in the catalog."""


class DocumentError(WellkitError, ValueError):
    """A YAML or JSON document of ours (card, manifest, result, ...) cannot be used as it is."""


class DocumentVersionError(DocumentError):
    """A document names a `schema:` that this version of wellkit does not know."""


class DataNotFoundError(WellkitError, FileNotFoundError):
    """A dataset, split, file or folder that was asked for is not there."""


class ShardError(WellkitError, OSError):
    """A shard cannot be read: truncated, not HDF5, damaged."""


class FormatError(WellkitError, ValueError):
    """A shard can be read, but it is not laid out as its format says."""


class StatisticsError(WellkitError, ValueError):
    """Statistics are missing, incomplete, or do not fit the fields they are for."""


class WindowError(WellkitError, ValueError):
    """A window that was asked for cannot be cut from the trajectories there are."""


class DataValueError(WellkitError, ValueError):
    """Data hold values (NaN, infinity) where their card or their use allows none."""


class ArgumentError(WellkitError, ValueError):
    """An argument, or a combination of arguments, makes no sense."""


class ConfigError(WellkitError, ValueError):
    """A configuration key is unknown or its value cannot be used."""


class StorageError(WellkitError, OSError):
    """A target cannot be written: unwritable, full, over a quota."""


class HubError(WellkitError, ConnectionError):
    """The Hub (or a mirror) cannot be reached or refuses to answer."""


class DownloadError(WellkitError, OSError):
    """A file could not be fetched."""


class IntegrityError(DownloadError):
    """Bytes are not the bytes that were promised."""


class ScoreError(WellkitError, ValueError):
    """A score cannot be computed or a result cannot be accepted."""


class PredictionsError(WellkitError, ValueError):
    """Stored predictions cannot be read, are not complete, or are not of what they are to be scored on."""


class TrainingError(WellkitError, RuntimeError):
    """Training cannot start or go on (diverged, no data, checkpoint unusable)."""


class GenerationError(WellkitError, RuntimeError):
    """A simulation could not be carried to its end (a worker process died)."""


class MissingDependencyError(WellkitError, ImportError):
    """An optional library is needed for what was asked."""


class WellkitWarning(UserWarning):
    """Something the user should know; the work goes on."""


def near_matches(name: str, known: Iterable[str], *, limit: int = 3) -> list[str]:
    """Names in `known` that a typing slip could have turned into `name`, best first, at most `limit`."""
    by_folded = {candidate.casefold(): candidate for candidate in known}
    folded = name.casefold()
    close = difflib.get_close_matches(folded, by_folded, n=limit, cutoff=0.6)
    contained = [key for key in by_folded if folded and folded in key and key not in close]
    return [by_folded[key] for key in (close + sorted(contained))[:limit]]


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """` Did you mean a, b?` for an error message, or an empty string where nothing is near."""
    matches = near_matches(name, known)
    return f" Did you mean {' or '.join(matches)}?" if matches else ""
