"""`cache=`: what was streamed once is read from disk, by the local reader, with the same values."""

from __future__ import annotations

import pickle
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import wellkit
from tests.hub.server import LoopbackHub
from tests.trees import make_tree
from wellkit.datasets.batches import BatchSamples
from wellkit.readers import remote as remote_module
from wellkit.readers.local import LocalReader

REPOSITORY = "somebody/made_up"
STORED: dict[str, dict[str, Any]] = {"contiguous": {}, "gzip": {"chunks": True, "compression": "gzip"}}


@pytest.fixture(scope="module", params=STORED)
def tree(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    return make_tree(folder, resolution=(48, 40), splits=("train",), **STORED[request.param])


def opened(path: Any, **options: Any) -> wellkit.WellDataset:
    options = {"well_split_name": "train", "framework": "numpy", "use_normalization": True, **options}
    return wellkit.WellDataset(path=path, **options)


def epoch(dataset: wellkit.WellDataset, seed: int = 0) -> list[Any]:
    return list(wellkit.DataLoader(dataset, 4, seed=seed))


def assert_equal(found: list[Any], expected: list[Any]) -> None:
    assert len(found) == len(expected) > 2
    for ours, theirs in zip(found, expected, strict=True):
        assert list(ours) == list(theirs)
        for key, value in theirs.items():
            np.testing.assert_array_equal(np.asarray(ours[key]), np.asarray(value))


def contents(hub: LoopbackHub) -> int:
    """Bytes of shards that were sent; the record is cleared."""
    sent = sum(request.sent for request in hub.requests if request.server == "store")
    hub.requests.clear()
    return sent


@pytest.mark.parametrize("options", [{}, {"crop": [(5, 40), (3, 30)]}, {"random_crop": 16}], ids=str)
def test_the_second_epoch_asks_for_nothing(
    tree: Path, hub: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    hub.add(REPOSITORY, tree)
    streamed = opened(f"hf://datasets/{REPOSITORY}", cache=tmp_path / "kept", **options)
    expected = epoch(opened(tree, **options))
    assert_equal(epoch(streamed), expected)
    assert contents(hub) > 0
    local: list[str] = []
    real = LocalReader.read_all

    def read_all(self: LocalReader, batches: Any) -> None:
        local.extend(request.path for batch in batches for request in batch.requests)
        real(self, batches)

    monkeypatch.setattr(LocalReader, "read_all", read_all)
    streamed.set_epoch(0)
    assert_equal(epoch(streamed), expected)
    assert contents(hub) == 0
    assert len(local) >= len(streamed)
    assert all(path.startswith(str(tmp_path / "kept")) for path in local)
    # another process's dataset finds it too
    again = pickle.loads(pickle.dumps(streamed))  # noqa: S301 - our own bytes
    again.set_epoch(0)
    assert_equal(epoch(again), expected)
    assert contents(hub) == 0


def test_workers_share_it(tree: Path, hub: LoopbackHub, tmp_path: Path) -> None:
    hub.add(REPOSITORY, tree)
    streamed = opened(f"hf://datasets/{REPOSITORY}", cache=tmp_path, framework="torch")
    local = opened(tree, framework="torch")
    expected = [local.__getitems__(range(first, first + 4)) for first in range(0, len(local), 4)]
    for turn in range(2):
        source: Any = streamed
        loader: Any = torch.utils.data.DataLoader(source, 4, num_workers=2, multiprocessing_context="fork")
        for batch, one in zip(loader, expected, strict=True):
            assert isinstance(one, BatchSamples)
            for key, value in one.batch.items():
                np.testing.assert_array_equal(np.asarray(batch[key]), np.asarray(value))
        sent = contents(hub)
        assert (sent > 0) if turn == 0 else (sent == 0)


def test_a_copy_that_is_removed_is_fetched_again(
    tree: Path, hub: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add(REPOSITORY, tree)
    streamed = opened(f"hf://datasets/{REPOSITORY}", cache=tmp_path)
    expected = epoch(opened(tree))
    epoch(streamed)

    class Gone(LocalReader):
        def read_all(self, batches: Any) -> None:
            for file in (tmp_path / "shards").rglob("*"):
                with suppress(FileNotFoundError):  # another thread does the same
                    if file.stat().st_size > 1 << 16 and file.is_file():
                        file.unlink()
            super().read_all(batches)

    monkeypatch.setattr(remote_module, "local_windows", Gone)
    streamed.set_epoch(0)
    assert_equal(epoch(streamed), expected)


def test_a_slow_local_tree_is_copied_too(tree: Path, tmp_path: Path) -> None:
    cached = opened(tree, cache=tmp_path)
    expected = epoch(opened(tree))
    assert_equal(epoch(cached), expected)
    kept = sum(file.stat().st_blocks for file in (tmp_path / "shards").rglob("*") if file.is_file())
    assert 512 * kept > 100_000
    cached.set_epoch(0)
    assert_equal(epoch(cached), expected)


def test_true_means_the_users_own_folder(tree: Path, hub: LoopbackHub, isolated: Path) -> None:
    hub.add(REPOSITORY, tree)
    epoch(opened(f"hf://datasets/{REPOSITORY}", cache=True))
    assert any((isolated / "cache" / "shards").rglob("*"))
    assert not opened(tree, cache=False).is_remote
