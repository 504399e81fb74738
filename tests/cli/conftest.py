"""What the tests of commands that train and score share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.commands import Command
from tests.train.advection import make_advection


@pytest.fixture
def wellkit(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(monkeypatch, capsys)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_advection(tmp_path_factory.mktemp("advection"), trajectories=(2, 1, 2))
