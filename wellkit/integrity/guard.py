"""Statistics that changed under one name are found out before anything is normalized with them."""

from __future__ import annotations

from pathlib import Path

from wellkit.errors import StatisticsError
from wellkit.fetch.manifest import manifest_path, read_manifest
from wellkit.formats.statistics_file import statistics_hash
from wellkit.schemas.statistics import Statistics
from wellkit.storage import locate


def check_against_manifest(location: str, statistics: Statistics) -> bool:
    """Compare statistics with what the manifest beside their file says of them, if there is one and it is local.

    Args:
        location: of the file.
        statistics: its content.

    Returns:
        Whether there is a manifest that lists them.

    Raises:
        StatisticsError: the values are others than when the manifest was written.
        DocumentError: the manifest is damaged, or of a newer wellkit.
    """
    if "://" in location and not location.startswith(("file://", "local://")):
        return False  # what is read from the Hub is read at one commit, and a mirror vouches for itself
    directory = Path(locate(location).path).parent
    manifest = read_manifest(directory)
    if manifest is None or manifest.statistics_sha256 is None:
        return False
    found = statistics_hash(statistics)
    if found != manifest.statistics_sha256:
        origin = manifest.repository or manifest.source
        again = f"`wellkit repair {directory}` brings the right ones, " if manifest.repository else ""
        raise StatisticsError(
            f"{location}: its values (hash {found[:12]}) are not those of {origin} that the manifest "
            f"{manifest_path(directory)} tells of ({manifest.statistics_sha256[:12]}); {again}"
            f"`wellkit stats {directory} --write --overwrite` computes and records new ones, and normalization_path= "
            "takes any file as it is"
        )
    return True
