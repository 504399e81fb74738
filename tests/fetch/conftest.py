"""A small dataset repository on the loopback Hub, and a client in a hurry."""

from __future__ import annotations

from pathlib import Path

import pytest
import tenacity

from tests.fetch.ranged import Published, publish
from tests.hub.dataset import REPOSITORY, write_tree
from tests.hub.server import LoopbackHub
from wellkit.fetch import retries


@pytest.fixture
def published(hub: LoopbackHub, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the loopback Hub serves as `REPOSITORY`."""
    folder = write_tree(tmp_path_factory.mktemp("published"))
    hub.add(REPOSITORY, folder)
    return folder


@pytest.fixture
def large(hub: LoopbackHub, tmp_path_factory: pytest.TempPathFactory) -> Published:
    """A repository with one large file."""
    return publish(hub, tmp_path_factory.mktemp("large"))


@pytest.fixture(autouse=True)
def _in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same attempts with shorter waits between them."""
    monkeypatch.setattr(retries, "BACKOFF", tenacity.wait_fixed(0.01))
