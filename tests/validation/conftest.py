"""Parsers that live as long as the tests: starting one takes longer than most of what they test."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from wellkit.index.safely import Indexer
from wellkit.validation import running, shard
from wellkit.validation.shard import Options, new_indexer


class Lasting:
    """An `Indexer` that goes back to the others when it is closed."""

    def __init__(self, inner: Indexer, idle: list[Indexer]) -> None:
        self._inner, self._idle = inner, idle

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def __enter__(self) -> Lasting:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        self._idle.append(self._inner)


@pytest.fixture(scope="session")
def idle_parsers() -> Iterator[list[Indexer]]:
    idle: list[Indexer] = []
    yield idle
    for indexer in idle:
        indexer.close()


@pytest.fixture
def lasting_parsers(idle_parsers: list[Indexer], monkeypatch: pytest.MonkeyPatch) -> None:
    """Have validation take parsers that are there already, with the default time limit."""

    def take(options: Options) -> Lasting:
        assert options.timeout == Options().timeout
        return Lasting(idle_parsers.pop() if idle_parsers else new_indexer(options), idle_parsers)

    monkeypatch.setattr(running, "new_indexer", take)
    monkeypatch.setattr(shard, "new_indexer", take)
