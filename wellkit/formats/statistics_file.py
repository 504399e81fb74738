"""`stats.yaml`: normalization statistics beside a dataset, and the hash results carry."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from wellkit.errors import StatisticsError
from wellkit.fetch.disk import write_atomically
from wellkit.fetch.listing import read_file
from wellkit.schemas.statistics import Statistics
from wellkit.storage import without_secrets

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_Dumper: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


def load_statistics(
    location: str | os.PathLike[str], *, storage_options: Mapping[str, Any] | None = None
) -> Statistics:
    """Read a statistics file, local or remote.

    Raises:
        DataNotFoundError: there is no such file.
        StatisticsError: it is not YAML, or does not hold statistics; names the file, the key and the field.
    """
    place = without_secrets(os.fspath(location))
    content = read_file(os.fspath(location), storage_options)
    try:
        parsed = yaml.load(content, Loader=_Loader)  # noqa: S506 - a safe loader
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise StatisticsError(f"{place}: is not YAML ({' '.join(str(error).split())})") from error
    return Statistics.parse(parsed, source=place)


def write_statistics(statistics: Statistics, path: str | os.PathLike[str]) -> None:
    """Write a statistics file, replacing one that is there; it takes its name only when it is whole.

    Raises:
        StorageError: it cannot be written (unwritable, full disk, ...); nothing is left behind.
    """
    text = yaml.dump(statistics.to_mapping(), Dumper=_Dumper, sort_keys=False)
    write_atomically(Path(path), text.encode())


def statistics_hash(statistics: Statistics) -> str:
    """SHA-256, hexadecimal, of the values: the same whatever the order of keys or the layout of the file."""
    return statistics.sha256()
