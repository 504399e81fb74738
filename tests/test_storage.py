"""Locations of every kind, and the few errors that reading them ends in."""

from __future__ import annotations

import gc
import multiprocessing
import sys
import time
from pathlib import Path

import fsspec
import pytest

from tests.hub.dataset import REPOSITORY, SHARD_SIZES, write_tree
from tests.hub.faults import truncated, unavailable
from tests.hub.server import LoopbackHub
from tests.readers.serving import serve
from wellkit.errors import ArgumentError, DataNotFoundError, HubError, MissingDependencyError, ShardError
from wellkit.storage import list_files, list_folders, locate, reading, without_secrets


@pytest.fixture
def published(hub: LoopbackHub, tmp_path: Path) -> Path:
    folder = write_tree(tmp_path / "published")
    hub.add(REPOSITORY, folder)
    return folder


def test_local_paths_in_every_spelling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for spelling in (tmp_path / "x", str(tmp_path / "x"), f"file://{tmp_path}/x", f"local://{tmp_path}/x", "~/x"):
        place = locate(spelling, {"token": "ignored: it is the remote storage's"})
        assert (place.is_local, place.protocol, place.path, str(place)) == (
            True,
            "file",
            f"{tmp_path}/x",
            f"{tmp_path}/x",
        )
    assert locate("relative/folder").path == "relative/folder"


def test_folders_are_listed_sorted_and_by_suffix(tmp_path: Path) -> None:
    folder = write_tree(tmp_path / "tree") / "data" / "train"
    (folder / "z.h5").write_bytes(b"")
    (folder / "w.hdf5.0123456789ab.partial").write_bytes(b"")
    (folder / "deeper.hdf5").mkdir()
    names = [f"waves_k_{number}.hdf5" for number in range(3)] + ["z.h5"]
    assert list_files(str(folder)) == [str(folder / name) for name in names]
    assert list_files(locate(folder), suffixes=(".txt",)) == [str(folder / "notes.txt")]
    assert list_folders(tmp_path / "tree" / "data") == ["test", "train", "valid"]
    assert locate(folder).join("z.h5").exists()
    assert not locate(folder).join("y.h5").exists()
    assert [place.path for place in locate(folder).glob("waves_k_[12].*")] == [
        str(folder / name) for name in names[1:3]
    ]


def test_folders_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "file.hdf5").write_bytes(b"x")
    with pytest.raises(DataNotFoundError, match="absent: no such folder"):
        list_files(tmp_path / "absent")
    with pytest.raises(DataNotFoundError, match="is a file; give the folder"):
        list_files(tmp_path / "file.hdf5")
    with pytest.raises(DataNotFoundError, match="not found"):
        list_files("memory://absent-from-memory")


def test_memory_is_a_storage_like_the_others() -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe("/store/data/train/a.hdf5", b"0123456789")
    memory.pipe("/store/data/valid/b.h5", b"")
    assert list_folders("memory://store/data") == ["train", "valid"]
    [address] = list_files("memory://store/data/train")
    with locate(address).open() as file:
        file.seek(3)
        assert file.read(4) == b"3456"
    with pytest.raises(DataNotFoundError, match="is a file"):
        list_files("memory://store/data/train/a.hdf5")


def test_the_hub_is_listed_and_a_range_is_read(hub: LoopbackHub, published: Path) -> None:
    base = f"hf://datasets/{REPOSITORY}"
    assert list_folders(f"{base}/data") == ["test", "train", "valid"]
    files = list_files(f"{base}/data/train")
    assert files == [f"{base}/data/train/waves_k_{number}.hdf5" for number in range(3)]
    place = locate(files[1])
    assert not place.is_local
    assert str(place) == files[1]
    content = (published / "data/train/waves_k_1.hdf5").read_bytes()
    with place.open(block_size=1 << 14, cache_type="readahead") as file:
        file.seek(100_000)
        assert file.read(1000) == content[100_000:101_000]
    deadline = time.monotonic() + 10
    while not (sent := sum(r.sent for r in hub.requests if r.server == "store")) and time.monotonic() < deadline:
        time.sleep(0.01)  # the server counts when it has sent all, which the client may have read by then
    assert 1000 <= sent <= 20_000 < SHARD_SIZES["train"][1]
    commit = hub.repositories[REPOSITORY].refs["main"]
    assert list_files(f"{base}@{commit}/data/test") == [f"{base}@{commit}/data/test/waves_k_0.hdf5"]


def test_what_the_hub_does_not_have(hub: LoopbackHub, published: Path) -> None:
    with pytest.raises(DataNotFoundError, match=r"nowhere: not found"):
        list_files(f"hf://datasets/{REPOSITORY}/data/nowhere")
    with pytest.raises(DataNotFoundError, match="not found"):
        list_files(f"hf://datasets/{REPOSITORY}@v9/data")
    with pytest.raises(HubError, match=r"access refused \(HTTP 401\); check the name"):
        list_files("hf://datasets/nobody/nothing/data")
    with pytest.raises(DataNotFoundError, match="names no repository"):
        list_files("hf://datasets")
    assert not locate(f"hf://datasets/{REPOSITORY}/data/train/absent.hdf5").exists()


def test_no_network_is_one_line(published: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    for ask in (
        lambda: list_files("hf://datasets/somebody/else/data"),
        lambda: locate("hf://datasets/somebody/else/data").exists(),
        lambda: list_files("http://127.0.0.1:9/data"),
    ):
        with pytest.raises(HubError, match=r"cannot be reached.*check the network") as caught:
            ask()
        assert "\n" not in str(caught.value)


def test_offline_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(HubError, match="HF_HUB_OFFLINE is set"):
        locate("hf://datasets/somebody/else")


def test_a_mirror_over_http(hub: LoopbackHub, published: Path) -> None:
    commit = hub.repositories[REPOSITORY].refs["main"]
    base = locate(f"{hub.url}/datasets/{REPOSITORY}/resolve/{commit}?signature=hidden")
    shard = base.join("data", "train", "waves_k_2.hdf5")
    assert shard.address.endswith("/data/train/waves_k_2.hdf5?signature=hidden")
    assert "hidden" not in str(shard)
    with reading(str(shard)), shard.open() as file:
        file.seek(50_000)
        assert file.read(10) == (published / "data/train/waves_k_2.hdf5").read_bytes()[50_000:50_010]
    with pytest.raises(DataNotFoundError):
        base.join("absent.hdf5").open()


def test_failures_while_reading_are_the_networks(hub: LoopbackHub, published: Path) -> None:
    commit = hub.repositories[REPOSITORY].refs["main"]
    place = locate(
        f"{hub.url}/datasets/{REPOSITORY}/resolve/{commit}/data/train/waves_k_0.hdf5", {"block_size": 1 << 16}
    )
    file = place.open()
    fault = hub.fault(truncated(1000), server="store")
    with pytest.raises(HubError, match="cannot be reached"), reading(str(place)):
        file.read(50_000)
    hub.faults.remove(fault)
    hub.fault(unavailable(500), server="store")
    with pytest.raises(HubError, match="the server answered HTTP 500"), reading(str(place)):
        file.read(50_000)
    file.close()


def test_reading_translates_and_lets_bugs_pass() -> None:
    with pytest.raises(DataNotFoundError, match="shard: not found"), reading("shard"):
        raise FileNotFoundError(2, "No such file")
    with pytest.raises(ShardError, match=r"shard: cannot be read .*Input/output error"), reading("shard"):
        raise OSError(5, "Input/output error")
    with pytest.raises(HubError, match="timed out"), reading("shard"):
        raise TimeoutError
    with pytest.raises(ZeroDivisionError), reading("shard"):
        _ = 1 / 0
    with pytest.raises(ArgumentError, match="ours"), reading("shard"):
        raise ArgumentError("ours")


@pytest.mark.parametrize(("address", "extra"), [("s3://bucket/x", "s3"), ("gs://bucket/x", "gcs")])
def test_a_missing_library_is_named_with_its_extra(address: str, extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)  # as if it were not installed, whether or not it is
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(MissingDependencyError, match=rf"pip install 'wellkit\[{extra}\]'"):
        locate(address)


def test_unknown_protocols_and_empty_locations() -> None:
    with pytest.raises(ArgumentError, match=r"unknown protocol 'htps'.*Did you mean https"):
        locate("htps://host/x")
    with pytest.raises(ArgumentError, match="empty"):
        locate("")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("GET https://user:pass@host/a/b?X-Amz-Signature=abc failed", "GET https://host/a/b failed"),
        ("'https://host/a?token=abc#part'", "'https://host/a'"),
        ("hf://datasets/owner/name@main/x", "hf://datasets/owner/name@main/x"),
        ("s3://key:secret@bucket/x", "s3://bucket/x"),
        ("/plain/path?really", "/plain/path?really"),
    ],
)
def test_secrets_are_cut_out_of_addresses(text: str, told: str) -> None:
    assert without_secrets(text) == told


def test_forked_children_leave_the_connections_of_their_parent(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    with serve(tmp_path) as url:
        for _ in range(3):
            assert locate(f"{url}/file").open().read() == b"content"  # over the connection kept from before
            child = multiprocessing.get_context("fork").Process(target=_read_as_a_child, args=(f"{url}/file",))
            child.start()
            child.join(60)
            assert child.exitcode == 0


def _read_as_a_child(address: str) -> None:
    assert locate(address).open().read() == b"content"
    gc.collect()  # what the child forgot of its parent is gone for good
