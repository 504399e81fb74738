"""The loopback Hub is as far away, as thin and as fussy as it says."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from huggingface_hub import HfApi, hf_hub_download

from tests.hub.faults import stalled
from tests.hub.server import LoopbackHub
from tests.hub.signing import Signer

ROOT = Path(__file__).parents[2]


def fetch(url: str, **headers: str) -> bytes:
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=10) as response:
        found: bytes = response.read()
    return found


@pytest.fixture
def shard(hub: LoopbackHub, tmp_path: Path) -> tuple[str, bytes]:
    """Address and content of one."""
    content = os.urandom(400_000)
    (tmp_path / "a.hdf5").write_bytes(content)
    hub.add("somebody/one", tmp_path)
    return f"{hub.url}/datasets/somebody/one/resolve/main/a.hdf5", content


def test_ranges_are_slices_of_the_file(hub: LoopbackHub, shard: tuple[str, bytes]) -> None:
    address, content = shard
    assert fetch(address) == content
    assert fetch(address, Range="bytes=5-104") == content[5:105]
    assert fetch(address, Range="bytes=-7") == content[-7:]
    assert [request.server for request in hub.requests] == ["hub", "store"] * 3


def test_one_connection_serves_many_requests(hub: LoopbackHub, shard: tuple[str, bytes]) -> None:
    connection = http.client.HTTPConnection(urlsplit(hub.url).netloc, timeout=10)
    for _ in range(5):
        connection.request("HEAD", urlsplit(shard[0]).path)
        assert connection.getresponse().read() == b""
    connection.close()
    assert len({request.connection for request in hub.requests}) == 1


def test_latency_and_rate(hub: LoopbackHub, shard: tuple[str, bytes]) -> None:
    address, content = shard
    hub.latency, hub.rate = 0.1, 1e6
    began = time.monotonic()
    assert fetch(address) == content
    assert 0.55 <= time.monotonic() - began < 1.2  # two requests, and 0.4 s for all but the last of the bytes


def test_links_end(hub: LoopbackHub, shard: tuple[str, bytes]) -> None:
    hub.links.life = 1
    blob = hub.repositories["somebody/one"].commits[hub.repositories["somebody/one"].refs["main"]]["a.hdf5"]
    for style in ("s3", "cdn"):
        hub.links.style = style
        link = hub._object_link(blob)
        assert fetch(link) == shard[1]
        time.sleep(1.1)
        with pytest.raises(urllib.error.HTTPError, match="403") as caught:
            fetch(link)
        assert b"Request has expired" in caught.value.read()


def test_links_cannot_be_made_up() -> None:
    signer = Signer()
    query = dict(pair.split("=") for pair in signer.sign("/objects/a").partition("?")[2].split("&"))
    assert signer.refusal("/objects/a", query) is None
    assert signer.refusal("/objects/b", query) == "SignatureDoesNotMatch"
    assert signer.refusal("/objects/a", {**query, "X-Amz-Expires": "9999"}) == "SignatureDoesNotMatch"
    assert signer.refusal("/objects/a", {}) == "Access Denied"
    signer.revoke()
    assert signer.refusal("/objects/a", query) == "SignatureDoesNotMatch"


def test_a_stalled_answer(hub: LoopbackHub, shard: tuple[str, bytes]) -> None:
    hub.fault(stalled(1000, 5.0), server="store")
    began = time.monotonic()
    with (
        urllib.request.urlopen(shard[0], timeout=0.5) as response,
        pytest.raises(TimeoutError),
    ):
        response.read()
    assert 0.4 < time.monotonic() - began < 3


def test_a_process_of_its_own(tmp_path: Path) -> None:
    content = os.urandom(50_000)
    for name in ("first", "second"):
        (tmp_path / name / "data" / "train").mkdir(parents=True)
        (tmp_path / name / "data" / "train" / "a.hdf5").write_bytes(content)
    command = [sys.executable, "-m", "tests.hub", str(tmp_path), "--latency", "0.05", "--rate", "50e6"]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    url = process.stdout.readline().strip()
    api = HfApi(endpoint=url)
    assert api.list_repo_files("polymathic-ai/second", repo_type="dataset") == ["data/train/a.hdf5"]
    fetch(f"{url}/-/traffic")
    address = f"{url}/datasets/polymathic-ai/first/resolve/main/data/train/a.hdf5"
    assert fetch(address, Range="bytes=100-199") == content[100:200]
    assert json.loads(fetch(f"{url}/-/traffic")) == {"requests": 2, "bytes": 100}
    path = hf_hub_download(
        "polymathic-ai/first", "data/train/a.hdf5", repo_type="dataset", endpoint=url, local_dir=tmp_path / "here"
    )
    assert Path(path).read_bytes() == content
    process.stdin.close()
    assert process.wait(timeout=10) == 0
    process.stdout.close()
