"""Opening a remote tree: how many requests it takes, which index is used, and what workers ask for."""

from __future__ import annotations

import shutil
import warnings
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from torch.utils.data import DataLoader

import wellkit
from tests.catalog.builders import card_content
from tests.hub.server import LoopbackHub
from tests.readers.serving import serve
from tests.trees import make_shard, make_tree
from wellkit.errors import HubError, ShardError, WellkitWarning
from wellkit.fetch import listing as listing_module
from wellkit.formats.well_writer import write_well_shard
from wellkit.index.publish import publish_index
from wellkit.index.tree import index_tree
from wellkit.schemas.card import SimulationCard

REPOSITORY = "somebody/made_up"


@pytest.fixture(autouse=True)
def nothing_known() -> None:
    """Another test's listings are not this one's."""
    forget()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    # Large enough for fields to stay outside the index.
    return make_tree(tmp_path / "published", files=3, splits=("train", "valid"), plain=True, resolution=(64, 48))


def forget() -> None:
    """As in another process."""
    listing_module._trees.clear()
    listing_module._small.clear()


def open_hub(repository: str = REPOSITORY, split: str = "train", **options: Any) -> wellkit.WellDataset:
    return wellkit.WellDataset(path=f"hf://datasets/{repository}", well_split_name=split, framework="numpy", **options)


def open_local(tree: Path, **options: Any) -> wellkit.WellDataset:
    return wellkit.WellDataset(path=tree, well_split_name="train", framework="numpy", **options)


def kinds(hub: LoopbackHub) -> Counter[str]:
    """Requests by what they are for; cleared."""
    found: Counter[str] = Counter()
    for request in hub.requests:
        if "/tree/" in request.path:
            found["listing"] += 1
        elif request.path.startswith("/api/"):
            found["commit"] += 1
        elif request.path.endswith("index.bin"):
            found["index"] += 1
        elif request.path.endswith("stats.yaml"):
            found["statistics"] += 1
        elif request.path.endswith(".hdf5") or request.server == "store":
            found["shard"] += 1
        else:
            found[request.path] += 1
    hub.requests.clear()
    return found


def same(one: wellkit.WellDataset, other: wellkit.WellDataset) -> None:
    assert len(one) == len(other) > 0
    for index in (0, len(one) // 2, len(one) - 1):
        sample, expected = one[index], other[index]
        assert sample.keys() == expected.keys()
        for key, value in expected.items():
            np.testing.assert_array_equal(sample[key], value)


@pytest.mark.parametrize("use_normalization", [False, True])
def test_with_an_index_opening_takes_the_same_few_requests_however_many_shards(
    tmp_path: Path, hub: LoopbackHub, use_normalization: bool
) -> None:
    counts = []
    for files in (2, 20):
        tree = make_tree(tmp_path / str(files), files=files, splits=("train",), plain=True)
        index_tree(tree)
        hub.add(f"somebody/made_up_{files}", tree)
        dataset = open_hub(f"somebody/made_up_{files}", use_normalization=use_normalization)
        assert len(dataset.files_paths) == files
        counts.append(kinds(hub))
    statistics = {"statistics": 1} if use_normalization else {}
    assert counts[0] == counts[1] == Counter({"commit": 1, "listing": 1, "index": 1, **statistics})


def test_the_listing_is_asked_for_once_and_its_pages_are_followed(tree: Path, hub: LoopbackHub) -> None:
    index_tree(tree)
    hub.add(REPOSITORY, tree)
    hub.page_size = 4
    open_hub(use_normalization=True)
    first = kinds(hub)
    assert first["listing"] > 2
    assert first["statistics"] == 1
    open_hub(split="valid", use_normalization=True)
    assert kinds(hub) == Counter({"commit": 1})  # the index is this machine's by now, all else this process's


def test_an_index_kept_with_lfs_takes_one_redirect(tree: Path, hub: LoopbackHub) -> None:
    index_tree(tree)
    repository = hub.add(REPOSITORY, tree)
    repository.commit(tree, lfs_suffixes=(".hdf5", ".bin"))
    same(open_hub(), open_local(tree))
    assert sum(request.path.endswith("index.bin") for request in hub.requests) == 1
    forget()
    hub.requests.clear()
    open_hub()
    assert [request.path.rsplit("/", 1)[-1] for request in hub.requests if "api" not in request.path] == []


def test_without_an_index_headers_are_read_once_and_kept(tree: Path, hub: LoopbackHub) -> None:
    hub.add(REPOSITORY, tree)
    streamed = open_hub()
    assert kinds(hub)["shard"] > 0
    forget()
    again = open_hub()
    assert kinds(hub) == Counter({"commit": 1})
    same(streamed, open_local(tree))
    same(again, open_local(tree))


@pytest.mark.parametrize("way", ["fork", "spawn"])
@pytest.mark.parametrize("indexed", [True, False])
def test_workers_open_nothing_again(tree: Path, hub: LoopbackHub, way: str, indexed: bool) -> None:
    if indexed:
        index_tree(tree)
    hub.add(REPOSITORY, tree)
    dataset: Any = wellkit.WellDataset(path=f"hf://datasets/{REPOSITORY}", well_split_name="train")
    local: Any = wellkit.WellDataset(path=tree, well_split_name="train")
    hub.requests.clear()
    loader: Any = DataLoader(dataset, batch_size=4, num_workers=2, multiprocessing_context=way)
    for batch, expected in zip(loader, DataLoader(local, batch_size=4), strict=True):
        for key, value in expected.items():
            np.testing.assert_array_equal(batch[key], value)
    found = kinds(hub)
    assert set(found) == {"shard"}, found


def test_the_search_follows_its_order(
    tree: Path, tmp_path: Path, hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    index_tree(tree)
    hub.add(REPOSITORY, tree)
    local = str(tmp_path / "indexes")
    publish_index(str(tree), local)
    hub.add("me/indexes", Path(local))
    monkeypatch.setenv("WELLKIT_INDEX", local)
    same(open_hub(), open_local(tree))
    assert "index" not in kinds(hub)  # found in the folder
    monkeypatch.setenv("WELLKIT_INDEX", "hf://datasets/me/indexes")
    open_hub()
    assert kinds(hub)["index"] == 1
    monkeypatch.setenv("WELLKIT_INDEX", str(tmp_path / "nowhere"))
    forget()
    shutil.rmtree(wellkit.settings.cache_dir())
    open_hub()
    assert kinds(hub) == Counter({"commit": 1, "listing": 1, "index": 1})  # beside the dataset


def test_the_card_comes_first(tree: Path, tmp_path: Path, hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add(REPOSITORY, tree)
    publish_index(str(tree), tmp_path / "indexes")
    hub.add("me/indexes", tmp_path / "indexes")
    card = SimulationCard.parse(card_content(name="made_up", sources={"index": "me/indexes"}), source="made_up.yaml")
    monkeypatch.setattr("wellkit.datasets.sources.catalog.get", {"made_up": card}.__getitem__)
    monkeypatch.setenv("WELLKIT_INDEX", str(tmp_path / "nowhere"))
    same(open_hub(), open_local(tree))
    assert [r.path for r in hub.requests if r.path.endswith(".bin")] == [
        "/datasets/me/indexes/resolve/main/made_up/index.bin"
    ]


def test_a_stale_index_is_refused_for_the_shards_that_changed(tree: Path, hub: LoopbackHub, tmp_path: Path) -> None:
    publish_index(str(tree), tmp_path / "indexes")
    shutil.copytree(tmp_path / "indexes" / "made_up", tree / ".wellkit")
    changed = tree / "data" / "train" / "made_up_part_1.hdf5"
    size = changed.stat().st_size
    write_well_shard(changed, make_shard("made_up", seed=77, plain=True, resolution=(64, 48)))
    assert changed.stat().st_size == size  # only its hash tells
    hub.add(REPOSITORY, tree)
    with pytest.warns(WellkitWarning, match=r"1 of 3 shards have changed since .*made_up_part_1\.hdf5"):
        dataset = open_hub()
    touched = {r.path.rsplit("/", 1)[-1] for r in hub.requests if r.path.endswith(".hdf5")}
    assert touched == {"made_up_part_1.hdf5"}
    shutil.rmtree(tree / ".wellkit")
    same(dataset, open_local(tree))


@pytest.mark.parametrize("content", [b"not an index", b"WKINDEX\0" + bytes(40)])
def test_a_damaged_index_is_passed_over_with_a_warning(tree: Path, hub: LoopbackHub, content: bytes) -> None:
    (tree / ".wellkit").mkdir()
    (tree / ".wellkit" / "index.bin").write_bytes(content)
    hub.add(REPOSITORY, tree)
    with pytest.warns(WellkitWarning, match=r"index cannot be used and is passed over"):
        dataset = open_hub()
    shutil.rmtree(tree / ".wellkit")
    same(dataset, open_local(tree))


def test_an_index_that_lies_about_places_is_refused(tree: Path, hub: LoopbackHub) -> None:
    from dataclasses import replace

    from wellkit.index.file import write_tree_index
    from wellkit.index.hdf5 import index_shard

    indexes = {}
    for path in sorted(tree.glob("data/*/*.hdf5")):
        index = index_shard(path, inline_limit=0)
        arrays = {name: replace(array, offset=index.size - 4) for name, array in index.arrays.items()}
        indexes[path.relative_to(tree).as_posix()] = replace(index, arrays=arrays)
    write_tree_index(tree, indexes)
    hub.add(REPOSITORY, tree)
    with pytest.raises(ShardError, match=r"places parts of .* outside the file"):
        open_hub()[0]


def test_a_shard_that_is_no_hdf5_is_named(tree: Path, hub: LoopbackHub) -> None:
    (tree / "data" / "train" / "made_up_part_2.hdf5").write_bytes(b"<html>" * 20000)
    hub.add(REPOSITORY, tree)
    with pytest.raises(ShardError, match=r"made_up_part_2\.hdf5: cannot be indexed .*not an HDF5 file"):
        open_hub()


def test_an_unsafe_path_in_the_listing_is_refused(tree: Path, hub: LoopbackHub) -> None:
    repository = hub.add(REPOSITORY, tree)
    repository.extra_entries.append({"type": "file", "path": "../../etc/passwd", "size": 1, "oid": "0" * 40})
    with pytest.raises(wellkit.errors.IntegrityError):
        open_hub()


def test_a_private_repository_is_opened_with_the_token_among_the_options(tree: Path, hub: LoopbackHub) -> None:
    index_tree(tree)
    hub.add(REPOSITORY, tree, token="hf_secret")
    with pytest.raises((HubError, wellkit.errors.DataNotFoundError)):
        open_hub()
    dataset = open_hub(storage_options={"token": "hf_secret"})
    assert len(dataset) > 0
    store = [request for request in hub.requests if request.server == "store"]
    assert not any("authorization" in request.headers for request in store)


@pytest.mark.parametrize("indexed", [True, False])
def test_plain_http(tree: Path, indexed: bool) -> None:
    if indexed:
        index_tree(tree)
    with serve(tree.parent, index_pages=True) as address, warnings.catch_warnings():
        warnings.simplefilter("error", WellkitWarning)
        url = f"{address}/made_up"
        for _ in range(2):
            same(wellkit.WellDataset(path=url, well_split_name="train", framework="numpy"), open_local(tree))


def test_a_shard_over_http_that_changed_behind_its_index_is_refused(tree: Path) -> None:
    index_tree(tree)
    shard = tree / "data" / "train" / "made_up_part_0.hdf5"
    write_well_shard(shard, make_shard("made_up", steps=8, plain=True, resolution=(64, 48)))
    with serve(tree.parent, index_pages=True) as address:
        dataset = wellkit.WellDataset(path=f"{address}/made_up", well_split_name="train", framework="numpy")
        with pytest.raises(ShardError, match=r"made_up_part_0\.hdf5: has changed since it was indexed"):
            dataset[0]


@pytest.mark.parametrize("indexed", [True, False])
def test_memory(tree: Path, indexed: bool) -> None:
    if indexed:
        index_tree(tree)
    files = fsspec.filesystem("memory")
    files.put(str(tree), "/opened/made_up", recursive=True)
    try:
        for _ in range(2):
            dataset = wellkit.WellDataset(
                path="memory://opened/made_up", well_split_name="train", framework="numpy", use_normalization=True
            )
            same(dataset, open_local(tree, use_normalization=True))
    finally:
        files.rm("/opened", recursive=True)


@pytest.mark.parametrize("indexed", ["beside", "elsewhere", "not"])
def test_what_was_opened_once_opens_without_a_network(
    tree: Path, tmp_path: Path, hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch, indexed: str
) -> None:
    if indexed == "beside":
        index_tree(tree)
    elif indexed == "elsewhere":
        publish_index(str(tree), tmp_path / "indexes")
        hub.add("me/indexes", tmp_path / "indexes")
        monkeypatch.setenv("WELLKIT_INDEX", "hf://datasets/me/indexes")
    hub.add(REPOSITORY, tree)
    online = open_hub(use_normalization=True)
    forget()
    hub.requests.clear()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    offline = open_hub(use_normalization=True)
    assert hub.requests == []
    assert offline.commit == online.commit
    assert offline.metadata == online.metadata
    assert len(offline) == len(online)
    if indexed != "not":  # else this process knows links to the shards
        with pytest.raises(HubError, match="HF_HUB_OFFLINE is set"):
            offline[0]
    with pytest.raises(HubError, match="HF_HUB_OFFLINE is set, and this machine never asked for revision 'main'"):
        open_hub("somebody/else")
    if indexed == "not":
        with pytest.raises(HubError, match="HF_HUB_OFFLINE is set"):
            open_hub(split="valid")  # its shards were never looked at


def test_damaged_notes_count_as_none(tree: Path, hub: LoopbackHub) -> None:
    hub.add(REPOSITORY, tree)
    open_hub(use_normalization=True)
    notes = [path for path in (wellkit.settings.cache_dir() / "hub").rglob("*") if path.is_file()]
    assert len(notes) == 3  # commit, listing, statistics
    for content in (b"", b"nothing", zlib.compress(b'{"files": [["a"]]}')):
        for note in notes:
            if "files" not in note.parts or not content.startswith(b"x"):  # a file's content may be anything
                note.write_bytes(content)
        forget()
        same(open_hub(use_normalization=True), open_local(tree, use_normalization=True))
