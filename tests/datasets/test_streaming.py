"""Datasets read straight from a Hub: by name alone, pinned to a commit, and what happens when it is gone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import wellkit
from tests.hub.server import LoopbackHub
from tests.trees import make_tree
from wellkit.errors import DataNotFoundError, HubError, WellkitWarning

NAME = "turbulent_radiative_layer_2D"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return make_tree(tmp_path / "published", name=NAME, plain=True)


def test_a_name_alone_streams_the_hub_and_says_so(tree: Path, hub: LoopbackHub) -> None:
    repository = hub.add(f"polymathic-ai/{NAME}", tree)
    with pytest.warns(WellkitWarning, match=f"streaming it from the Hub.*wellkit download {NAME}"):
        streamed = wellkit.WellDataset(
            well_dataset_name=NAME, well_split_name="train", use_normalization=True, framework="numpy"
        )
    local = wellkit.WellDataset(path=tree, well_split_name="train", use_normalization=True, framework="numpy")
    assert len(streamed) == len(local)
    for index in (0, len(local) - 1):
        for key, value in local[index].items():
            np.testing.assert_array_equal(streamed[index][key], value)
    assert streamed.commit == repository.resolve("main")
    assert all(f"@{streamed.commit}/" in path for path in streamed.files_paths)


def test_a_moving_branch_does_not_change_an_open_dataset(tree: Path, tmp_path: Path, hub: LoopbackHub) -> None:
    repository = hub.add(f"polymathic-ai/{NAME}", tree)
    streamed = wellkit.WellDataset(
        well_base_path="hf://datasets/polymathic-ai/",
        well_dataset_name=NAME,
        well_split_name="valid",
        framework="numpy",
    )
    before = streamed[0]["input_fields"]
    repository.commit(make_tree(tmp_path / "newer", name=NAME, plain=True, steps=(9,)))
    streamed.close()
    np.testing.assert_array_equal(streamed[0]["input_fields"], before)
    newer = wellkit.WellDataset(path=f"hf://datasets/polymathic-ai/{NAME}", well_split_name="valid", framework="numpy")
    assert newer.commit != streamed.commit
    assert newer.metadata.n_steps_per_trajectory == [9, 9]


def test_what_was_downloaded_is_read_from_disk(tree: Path, hub: LoopbackHub) -> None:
    hub.add(f"polymathic-ai/{NAME}", tree)
    with pytest.warns(WellkitWarning, match="not as the card"):  # far smaller than the published data
        wellkit.download(NAME, splits=["test"])
    dataset = wellkit.WellDataset(well_dataset_name=NAME, well_split_name="test", framework="numpy")
    assert dataset.commit is None
    assert "://" not in dataset.data_path
    assert len(dataset) > 0


def test_unknown_repositories_and_lost_networks_are_one_line(
    tree: Path, hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DataNotFoundError, match="polymathic-ai/nothing"):
        wellkit.WellDataset(path="hf://datasets/polymathic-ai/nothing", well_split_name="train")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(HubError, match="HF_HUB_OFFLINE"):
        wellkit.WellDataset(path=f"hf://datasets/polymathic-ai/{NAME}", well_split_name="train")
