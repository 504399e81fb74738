"""What every test runs in: its own folders, no token, and no network but this machine's own."""

from __future__ import annotations

import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.hub.server import LoopbackHub

# Nothing listens there: a test that forgets to name its own Hub fails at once instead of asking the real one.
NO_HUB = "http://127.0.0.1:9"
_FORGOTTEN = (
    "WELLKIT_CATALOG",
    "HF_TOKEN",
    "HUGGING_FACE_HUB_TOKEN",
    "HF_HUB_OFFLINE",
    "HF_HUB_DOWNLOAD_TIMEOUT",
    "HF_TOKEN_PATH",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "http_proxy",
    "https_proxy",
    "all_proxy",
)


def _isolate(patch: pytest.MonkeyPatch, folder: Path) -> None:
    for name in _FORGOTTEN:
        patch.delenv(name, raising=False)
    patch.setenv("WELLKIT_DATA", str(folder / "data"))
    patch.setenv("WELLKIT_CACHE", str(folder / "cache"))
    patch.setenv("HF_HOME", str(folder / "huggingface"))
    patch.setenv("HF_ENDPOINT", NO_HUB)
    patch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
    patch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    patch.setenv("NO_PROXY", "127.0.0.1,localhost")


def pytest_configure(config: pytest.Config) -> None:
    """huggingface_hub reads its environment when it is first imported: before any test's own is set."""
    folder = tempfile.TemporaryDirectory(prefix="wellkit-tests-")
    patch = pytest.MonkeyPatch()
    _isolate(patch, Path(folder.name))
    config.add_cleanup(folder.cleanup)
    config.add_cleanup(patch.undo)


@pytest.fixture(autouse=True)
def isolated(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The test's own base folder; `data`, `cache` and `huggingface` below it are where the settings point."""
    folder = tmp_path_factory.mktemp("home")
    _isolate(monkeypatch, folder)
    real = socket.socket.connect

    def connect(self: socket.socket, address: Any) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in (
            "127.0.0.1",
            "::1",
            "localhost",
        ):
            raise OSError(f"tests do not use the network: {address[0]}")
        real(self, address)

    monkeypatch.setattr(socket.socket, "connect", connect)
    return folder


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    """A Hub of the test's own on loopback, with `$HF_ENDPOINT` pointing at it (for subprocesses too)."""
    with LoopbackHub() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server
