"""A download that has to fail."""

from __future__ import annotations

from pathlib import Path

import pytest

import wellkit
from tests.hub.dataset import REPOSITORY, tree_of
from wellkit.errors import IntegrityError, WellkitError


def fail(to: Path, error: type[WellkitError], match: str, **options: object) -> WellkitError:
    """Download and expect one line of an error, nothing lost, and of what was wrong nothing kept."""
    before = tree_of(to)
    with pytest.raises(error, match=match) as caught:
        wellkit.download(REPOSITORY, to, jobs=1, **options)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    after = tree_of(to)
    if error is IntegrityError:
        assert [path for path in after if ".partial" in path] == []
    assert {path: content for path, content in after.items() if path in before} == before
    return caught.value
