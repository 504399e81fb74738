"""Published checkpoints on the Hub: fetched once, whole, of one commit, and what is said where they are not."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.hub.faults import corrupted, truncated, unavailable
from tests.hub.server import LoopbackHub
from tests.train.published_networks import assert_computes, copy_of
from wellkit.errors import ArgumentError, DataNotFoundError, HubError, IntegrityError, TrainingError, WellkitError
from wellkit.train.pretrained import from_pretrained, load_pretrained

NAME = "polymathic-ai/UNetConvNext-active_matter"


@pytest.fixture
def published(hub: LoopbackHub, tmp_path: Path) -> Path:
    """What the Hub holds under `NAME`."""
    folder = copy_of("UNetConvNext", tmp_path / "repository")
    hub.add(NAME, folder, kind="models")
    return folder


def test_a_repository_is_fetched_once(hub: LoopbackHub, published: Path, isolated: Path) -> None:
    loaded = load_pretrained(NAME)
    assert_computes(loaded.model, "UNetConvNext")
    assert loaded.commit == hub.repositories[NAME].resolve("main")
    assert len(hub.fetches()) == 2
    assert (isolated / "huggingface" / "hub" / "models--polymathic-ai--UNetConvNext-active_matter").is_dir()
    from_pretrained(NAME)
    assert len(hub.fetches()) == 2


def test_offline_the_cache_is_enough(
    hub: LoopbackHub, published: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(HubError, match=r"config\.json from .*HF_HUB_OFFLINE is set"):
        from_pretrained(NAME)
    monkeypatch.delenv("HF_HUB_OFFLINE")
    from_pretrained(NAME)
    asked = len(hub.requests)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert_computes(from_pretrained(NAME), "UNetConvNext")
    assert len(hub.requests) == asked


def test_a_broken_transfer_is_resumed(
    hub: LoopbackHub, published: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 4096)  # what the client puts away at a time
    hub.fault(truncated(20_000), server="store", times=1)
    assert_computes(from_pretrained(NAME), "UNetConvNext")
    ranges = [request.headers.get("range") for request in hub.fetches() if request.server == "store"]
    assert ranges[0] is None
    assert len(ranges) == 2
    assert str(ranges[1]).startswith("bytes=")
    assert not str(ranges[1]).startswith("bytes=0-")
    # The client's log names the store's address, but not the signature that opens it.
    assert "/objects/" in caplog.text
    assert "X-Amz-Signature" not in caplog.text


def test_other_bytes_than_published_are_removed(hub: LoopbackHub, published: Path) -> None:
    hub.fault(corrupted(30_000), server="store", times=1)
    with pytest.raises(IntegrityError, match=r"model\.safetensors from .*SHA-256 is not the published one"):
        from_pretrained(NAME)
    assert_computes(from_pretrained(NAME), "UNetConvNext")


def test_both_files_are_of_one_commit(hub: LoopbackHub, published: Path, tmp_path: Path) -> None:
    repository = hub.repositories[NAME]
    first = repository.resolve("main")
    assert first is not None
    second = repository.commit(copy_of("UNetClassic", tmp_path / "second"))
    assert load_pretrained(NAME).name == "unet_classic"
    assert load_pretrained(NAME, revision=first).name == "unet_convnext"
    assert load_pretrained(NAME, revision=second).commit == second


@pytest.mark.parametrize(
    ("name", "revision", "kind", "words"),
    [
        ("somebody/nothing", "main", DataNotFoundError, "no such model repository"),
        (NAME, "v9", DataNotFoundError, "no revision 'v9'"),
        ("somebody/private", "main", DataNotFoundError, "no such model repository; if it is private"),
        ("somebody/data", "main", DataNotFoundError, "no such model repository"),
        ("somebody/empty", "main", DataNotFoundError, r"holds no config\.json"),
        ("some body/x", "main", ArgumentError, "is no repository name"),
        ("nonsense", "main", TrainingError, "no such folder, and no OWNER/NAME"),
        ("./runs/fno", "main", TrainingError, "no such folder, and no OWNER/NAME"),
    ],
)
def test_what_is_not_there(
    hub: LoopbackHub,
    published: Path,
    tmp_path: Path,
    name: str,
    revision: str,
    kind: type[WellkitError],
    words: str,
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "README.md").write_text("nothing")
    hub.add("somebody/empty", tmp_path / "empty", kind="models")
    hub.add("somebody/private", published, kind="models", token="secret")
    hub.add("somebody/data", published)
    with pytest.raises(kind, match=words) as raised:
        from_pretrained(name, revision=revision)
    assert "\n" not in str(raised.value)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client tries again at once, not after up to 8 seconds."""
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)


@pytest.mark.usefixtures("impatient")
def test_a_hub_that_cannot_be_reached() -> None:
    with pytest.raises(HubError, match="cannot be reached") as raised:
        from_pretrained(NAME)
    assert "\n" not in str(raised.value)


@pytest.mark.usefixtures("impatient")
def test_a_hub_that_is_out_of_order(hub: LoopbackHub, published: Path) -> None:
    for method in ("HEAD", "GET"):
        hub.fault(unavailable(503, None), method=method)
    with pytest.raises(HubError, match="HTTP 503") as raised:
        from_pretrained(NAME)
    assert "\n" not in str(raised.value)
