"""A dataset that was streamed with a cache, opened and read again without a network, in another process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import wellkit
from tests.hub.server import LoopbackHub
from tests.trees import make_tree

REPOSITORY = "somebody/made_up"
READ = """
import sys, numpy as np, wellkit
from wellkit.errors import HubError
dataset = wellkit.WellDataset(
    path="hf://datasets/somebody/made_up", well_split_name="train", framework="numpy", use_normalization=True,
    cache=sys.argv[1],
)
np.save(sys.argv[2], np.stack([dataset[index]["input_fields"] for index in range(len(dataset) // 2)]))
try:
    dataset[len(dataset) - 1]
except HubError as error:
    print(error)
"""


def test_offline_what_was_read_is_served_and_what_was_not_is_named(
    hub: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add(REPOSITORY, make_tree(tmp_path / "tree", resolution=(32, 24), splits=("train",)))
    options: dict[str, Any] = {
        "well_split_name": "train",
        "framework": "numpy",
        "use_normalization": True,
        "cache": tmp_path / "kept",
    }
    dataset = wellkit.WellDataset(path=f"hf://datasets/{REPOSITORY}", **options)
    expected = np.stack([dataset[index]["input_fields"] for index in range(len(dataset) // 2)])
    hub.requests.clear()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    found = tmp_path / "found.npy"
    command = [sys.executable, "-c", READ, str(tmp_path / "kept"), str(found)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(np.load(found), expected)
    assert "HF_HUB_OFFLINE is set, and bytes " in done.stdout
    assert "/data/train/made_up_part_1.hdf5: HF_HUB_OFFLINE" in done.stdout
    assert f"are not in the cache {tmp_path / 'kept'}" in done.stdout
    assert hub.requests == []
