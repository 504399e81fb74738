"""`wellkit` as a user meets it: arguments in, two streams and an exit status out."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import Any

import pytest

from wellkit.cli.app import main


@dataclass(frozen=True)
class Done:
    """What a command left: exit status and both streams."""

    returncode: int
    stdout: str
    stderr: str


class Command:
    """Runs `wellkit` in this process: importing torch anew for every command would take most of the time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch = monkeypatch
        self._capsys = capsys

    def __call__(self, *arguments: object) -> Done:
        self._monkeypatch.setattr(sys, "argv", ["wellkit", *map(str, arguments)])
        self._capsys.readouterr()
        status: Any = 0
        try:
            main()
        except SystemExit as exit:
            status = exit.code or 0
        out, err = self._capsys.readouterr()
        return Done(status, out, err)

    def told(self, *arguments: object) -> Any:
        """What the command prints as JSON."""
        done = self(*arguments, "--format", "json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def refused(self, *arguments: object) -> str:
        """The one line of a known failure."""
        done = self(*arguments)
        assert (done.returncode, done.stdout) == (1, ""), done.stderr
        assert done.stderr.startswith("error: ")
        assert done.stderr.count("\n") == 1
        return done.stderr
