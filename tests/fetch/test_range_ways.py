"""The ways that byte ranges take to a server: encrypted, through a proxy, through a client of the user's own."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub.utils import _http

from tests.fetch.ranged import Published, expected, publish, read, stays
from tests.hub.faults import Answer, html_page, in_turn, shortened, truncated, unannounced, unavailable
from tests.hub.server import CERTIFICATE, LoopbackHub
from tests.hub.signing import SECRET
from wellkit.errors import HubError
from wellkit.fetch import sockets
from wellkit.fetch.ranges import RangeReader
from wellkit.fetch.session import needs_session


@pytest.fixture(autouse=True)
def _clients_of_this_test() -> Iterator[None]:
    """huggingface_hub's client keeps what it was made with; so do our certificates."""
    huggingface_hub.close_session()
    sockets.CONNECTIONS._context = None
    yield
    huggingface_hub.set_client_factory(_http.default_client_factory)
    sockets.CONNECTIONS._context = None


# encrypted


@pytest.fixture
def encrypted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Published]:
    """The same over TLS."""
    with LoopbackHub(encrypted=True) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        yield publish(hub, tmp_path)


def test_encrypted(encrypted: Published, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))
    reader = RangeReader(connections=4)
    ranges = encrypted.ranges(30)
    for _ in range(2):
        assert read(reader, ranges) == expected(encrypted, ranges)
    requests = encrypted.asked("store")
    assert {request.status for request in requests} == {206}
    assert len({request.connection for request in requests}) == 4  # they are used again
    encrypted.hub.fault(in_turn(unavailable(503, 0), truncated(1000, reset=True), truncated(1000)), every=4)
    assert read(reader, ranges) == expected(encrypted, ranges)


def test_an_unknown_certificate_is_told_of_at_once(encrypted: Published) -> None:
    began = time.monotonic()
    with pytest.raises(HubError, match=r"waves\.hdf5: .*certificate"):
        read(RangeReader(), encrypted.ranges(1))
    assert time.monotonic() - began < 2
    assert encrypted.hub.requests == []


def test_an_interrupt_while_encrypted(encrypted: Published, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))
    encrypted.hub.rate = 20_000
    ranges = encrypted.ranges(20)
    buffers = [bytearray(50_000) for _ in ranges]
    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        RangeReader().read(ranges, [memoryview(buffer) for buffer in buffers])
    assert time.monotonic() - began < 1.5
    assert stays(buffers)
    encrypted.hub.rate = None
    assert read(RangeReader(), ranges) == expected(encrypted, ranges)


# through huggingface_hub's client


def test_plain_connections_are_used_where_nothing_is_between(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not needs_session("https://huggingface.co/a")
    assert needs_session("https://name:word@huggingface.co/a")
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    assert needs_session("https://huggingface.co/a")
    assert not needs_session("http://huggingface.co/a")
    monkeypatch.setenv("NO_PROXY", ".co")
    assert not needs_session("https://huggingface.co/a")


def own_client(seen: list[Any]) -> None:
    """Have huggingface_hub use a client that notes what it sends."""

    def make() -> Any:
        client = _http.default_client_factory()
        client.event_hooks["request"].append(seen.append)
        return client

    huggingface_hub.set_client_factory(make)


def test_a_client_of_the_users_own_is_used(large: Published, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    seen: list[Any] = []
    own_client(seen)
    changes = in_turn(unavailable(503, 0), truncated(99, reset=True), shortened(1), unannounced(b"a" * 99_000))
    large.hub.fault(changes, server="store", every=4)
    reader = RangeReader(connections=4)
    ranges = large.ranges(24)
    assert read(reader, ranges) == expected(large, ranges)
    assert len(seen) == len(large.asked("store")) + 1 == reader.n_requests
    assert "/objects/" in caplog.text  # the client writes down where it went
    assert SECRET not in caplog.text
    large.hub.faults.clear()
    large.hub.fault(html_page, server="store")
    with pytest.raises(HubError, match="came as a web page"):
        read(reader, ranges)


def test_a_proxy_is_used(large: Published, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store is known to the proxy alone, whose part the store itself plays."""
    monkeypatch.setenv("HTTP_PROXY", large.hub.store_url)

    def hidden(answer: Answer) -> None:
        answer.headers["Location"] = answer.headers["Location"].replace(large.hub.store_url, "http://store.invalid")

    large.hub.fault(hidden, server="hub", method="HEAD")
    ranges = large.ranges(10)
    assert read(RangeReader(), ranges) == expected(large, ranges)
    assert {request.headers["host"] for request in large.asked("store")} == {"store.invalid"}
