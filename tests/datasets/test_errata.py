"""Known faults of published data: told, or left out to the frame, or said not to go."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

import wellkit
from tests.catalog.builders import card_content
from tests.trees import make_tree
from wellkit.catalog import registry
from wellkit.datasets import errata as told
from wellkit.errors import WellkitWarning, WindowError
from wellkit.integrity.describing import write_generated_manifest
from wellkit.schemas.card import SimulationCard
from wellkit.windows import reads_frames

NAME = "made_up"
FILES, TRAJECTORIES, STEPS = 2, 2, 7


@pytest.fixture(autouse=True)
def own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_registered", {})
    monkeypatch.setattr(told, "_told", set())


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tree(tmp_path_factory.mktemp("errata"), name=NAME, files=FILES, steps=(STEPS,), plain=True)


def know(*errata: dict[str, Any]) -> None:
    content = card_content(
        name=NAME,
        fields=[{"name": "density"}, {"name": "velocity", "order": 1}],
        errata=[
            {"id": f"fault-{n}", "severity": "error", "summary": "It is wrong.", "source": "a test", **erratum}
            for n, erratum in enumerate(errata)
        ],
    )
    wellkit.catalog.register(SimulationCard.parse(content, source="test"), replace=True)


def open_it(tree: Path, *, split: str | None = "train", errata: str = "exclude", **arguments: Any) -> Any:
    defaults: dict[str, Any] = {"path": tree, "well_split_name": split, "framework": "numpy", "n_steps_input": 2}
    return wellkit.WellDataset(**(defaults | arguments), errata=errata)  # type: ignore[arg-type]


def places(data: Any) -> set[tuple[int, int, int]]:
    """(file, trajectory, first frame) of every sample."""
    found = [data._place(index)[1] for index in range(len(data))]
    return {(place.file_idx, place.sample_idx, place.time_idx) for place in found}


@pytest.mark.parametrize(
    ("scope", "gone"),
    [
        # windows of 2 + 1 frames start at 0 to 4
        ({"file": "*_part_1.hdf5", "trajectories": [1]}, {(1, 1, t) for t in range(5)}),
        ({"file": "*_part_0.hdf5"}, {(0, n, t) for n in range(2) for t in range(5)}),
        ({"file": "*_part_0.hdf5", "trajectories": [0], "frames": [3, 4]}, {(0, 0, t) for t in (1, 2, 3)}),
        ({"file": "*_part_0.hdf5", "frames": [6, 100]}, {(0, 0, 4), (0, 1, 4)}),
        ({"frames": [0, 1]}, {(f, n, 0) for f in range(2) for n in range(2)}),
        (
            {"split": "train", "file": "made_up_part_1.hdf5", "frames": [0, 2]},
            {(1, n, t) for n in (0, 1) for t in (0, 1)},
        ),
        ({"split": "valid", "file": "*"}, set()),
        ({"file": "other_*.hdf5"}, set()),
        ({"file": "*", "frames": [7, 9]}, set()),
    ],
)
def test_exactly_the_windows_go_that_read_what_is_wrong(
    tree: Path, scope: dict[str, Any], gone: set[tuple[int, int, int]]
) -> None:
    know({"scope": scope})
    whole = places(open_it(tree, errata="keep"))
    assert len(whole) == FILES * TRAJECTORIES * 5
    data = open_it(tree)
    assert places(data) == whole - gone
    assert sum(data.excluded.values()) == len(gone)
    assert len(list(data)) == len(data) == len(whole) - len(gone)


def test_samples_that_stay_are_those_of_the_whole_dataset(tree: Path) -> None:
    know({"scope": {"file": "*_part_0.hdf5", "trajectories": [1], "frames": [2, 3]}})
    whole, data = open_it(tree, errata="keep"), open_it(tree)
    assert len(data) == len(whole) - 3
    for index, kept in enumerate(data.restriction_set):
        np.testing.assert_array_equal(data[index]["input_fields"], whole[int(kept)]["input_fields"])
    batch = data.__getitems__([5, len(data) - 1])
    np.testing.assert_array_equal(batch[1]["output_fields"], whole[len(whole) - 1]["output_fields"])
    assert data.fingerprint != whole.fingerprint


def test_a_stride_that_steps_over_a_bad_frame_does_not_read_it(tree: Path) -> None:
    know({"scope": {"file": "*_part_0.hdf5", "trajectories": [0], "frames": [3, 4]}})
    data = open_it(tree, min_dt_stride=2, max_dt_stride=2)  # frames t, t+2, t+4 for t = 0, 1, 2
    assert {t for file, n, t in places(data) if (file, n) == (0, 0)} == {0, 2}


def test_no_stride_that_may_be_drawn_reads_a_bad_frame(tree: Path) -> None:
    know({"scope": {"file": "*", "frames": [4, 5]}})
    data = open_it(tree, min_dt_stride=1, max_dt_stride=3)
    assert len(data) > 0
    for epoch in range(20):
        data.set_epoch(epoch)
        for index in range(len(data)):
            window, _ = data._place(index)
            assert 4 not in range(window.start, window.start + window.n_steps * window.stride, window.stride)


@pytest.mark.parametrize(("longest", "left"), [(None, 0), (3, 4)])
def test_whole_trajectories_go_where_they_reach_the_frames(tree: Path, longest: int | None, left: int) -> None:
    know({"scope": {"file": "*", "frames": [5, 6]}})
    arguments: dict[str, Any] = {"full_trajectory_mode": True, "max_rollout_steps": longest}
    if left:
        assert len(open_it(tree, **arguments)) == left
    else:
        with pytest.raises(WindowError, match="errata='exclude' leaves no window: all 4 read what fault-0 is about"):
            open_it(tree, **arguments)


def test_outputs_that_start_later_are_counted_from_there(tree: Path) -> None:
    know({"scope": {"file": "*_part_0.hdf5", "frames": [0, 2]}})
    arguments: dict[str, Any] = {
        "full_trajectory_mode": True,
        "start_output_steps_at_t": 4,
    }  # inputs are frames 2 and 3
    assert len(open_it(tree, **arguments)) == 4
    know({"scope": {"file": "*_part_0.hdf5", "frames": [0, 3]}})
    assert len(open_it(tree, **arguments)) == 2


def test_a_fault_of_a_field_that_is_not_read_touches_nothing(tree: Path) -> None:
    know({"scope": {"file": "*_part_0.hdf5", "field": "velocity"}})
    assert len(open_it(tree, fields=["density"])) == 20
    assert len(open_it(tree, fields=["velocity"])) == 10
    assert len(open_it(tree)) == 10


def test_a_restriction_takes_from_what_is_left(tree: Path) -> None:
    know({"scope": {"file": "*_part_0.hdf5", "trajectories": [0]}}, {"scope": {"file": "*", "frames": [0, 1]}})
    data = open_it(tree, restrict_num_trajectories=3, restriction_seed=1)
    assert places(data) == {(f, n, t) for f, n in ((0, 1), (1, 0), (1, 1)) for t in range(1, 5)}
    assert data.excluded == {"fault-0": 5, "fault-1": 4}
    few = open_it(tree, restrict_num_samples=4)
    assert len(few) == 4
    assert places(few) <= places(data)
    one = open_it(tree, restrict_num_trajectories=1, restriction_seed=1)
    assert len({place[:2] for place in places(one)}) == 1


@pytest.mark.parametrize(
    ("erratum", "split"),
    [
        ({"concerns": "statistics"}, "train"),
        ({"scope": {"split": "train"}}, "train"),
        ({}, "train"),
        ({"scope": {"field": "density"}}, "train"),
        ({"scope": {"file": "*_part_0.hdf5", "trajectories": [2]}}, "train"),  # the file has two
    ],
)
def test_what_cannot_be_left_out_is_said_once(tree: Path, erratum: dict[str, Any], split: str) -> None:
    know(erratum)
    with pytest.warns(WellkitWarning, match="errata='exclude' cannot leave out fault-0: it names no part"):
        data = open_it(tree, split=split)
    assert len(data) == 20
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        open_it(tree, split=split)


def test_a_bare_folder_says_which_split_it_is(tree: Path, tmp_path: Path) -> None:
    know({"scope": {"split": "train", "file": "*_part_0.hdf5"}})
    assert len(open_it(tree / "data" / "train", split=None)) == 10
    assert len(open_it(tree / "data" / "valid", split=None)) == 20
    (tmp_path / "shards").symlink_to(tree / "data" / "train")  # which split it is cannot be told
    with pytest.warns(WellkitWarning, match="cannot leave out fault-0"):
        assert len(open_it(tmp_path / "shards", split=None)) == 20


def test_mere_notes_documentation_and_what_was_mended_leave_all_in(tree: Path) -> None:
    know(
        {"severity": "info", "scope": {"file": "*"}},
        {"concerns": "documentation", "scope": {"file": "*"}},
        {"fixed_in": "2", "scope": {"file": "*"}},
    )
    assert len(open_it(tree)) == len(open_it(tree, errata="warn")) == 20


def test_the_damaged_trajectory_of_a_published_dataset_goes(tmp_path: Path) -> None:
    name = "acoustic_scattering_inclusions"
    tree = make_tree(tmp_path, name=name, files=1, trajectories=48, resolution=(2, 2), steps=(3,), plain=True)
    shard = tree / "data" / "train" / f"{name}_part_0.hdf5"
    shard.rename(shard.with_name(f"{name}_chunk_11.hdf5"))
    data = open_it(tree, n_steps_input=1)
    assert data.excluded == {"corrupt-trajectory": 2}
    assert places(data) == {(0, n, t) for n in range(47) for t in (0, 1)}
    assert len(open_it(tree, n_steps_input=1, split="valid")) == 96


@pytest.mark.parametrize("folder", ["supernova_explosion_64", "viscoelastic_instability_v2", "elsewhere"])
def test_a_tree_is_known_by_its_folder_where_its_files_bear_another_name(tmp_path: Path, folder: str) -> None:
    files = {"supernova_explosion_64": "supernova_explosion"}.get(folder, "viscoelastic_instability")
    tree = make_tree(tmp_path, name=files, plain=True).rename(tmp_path / folder)
    for path, split in ((tree, "train"), (tree / "data" / "train", None)):
        with pytest.warns(WellkitWarning, match="known fault") as caught:
            open_it(path, split=split, errata="warn")
        name, _, rest = str(caught[0].message).partition(":")
        assert name == (folder if folder != "elsewhere" else files)
        assert ("withdrawn" in rest) is (folder == "elsewhere")  # the corrected release has not been


@given(
    start=st.integers(0, 30),
    n_steps=st.integers(1, 8),
    stride=st.integers(1, 7),
    first=st.integers(0, 40),
    count=st.integers(1, 12),
)
def test_reading_frames_is_what_listing_them_says(
    start: int, n_steps: int, stride: int, first: int, count: int
) -> None:
    listed = set(range(start, start + n_steps * stride, stride)) & set(range(first, first + count))
    assert reads_frames(start, n_steps, stride, (first, first + count)) is bool(listed)


# Statistics


def publish(tree: Path, *, digits: int = 3) -> dict[str, Any]:
    """Register a card that repeats the tree's statistics, rounded; returns them."""
    content: dict[str, Any] = yaml.safe_load((tree / "stats.yaml").read_text())
    rounded = {
        key: {
            name: np.vectorize(lambda number: float(f"{number:.{digits}g}"))(value).tolist()
            for name, value in values.items()
        }
        for key, values in content.items()
    }
    card = card_content(
        name=NAME,
        grid={"type": "cartesian", "axes": [{"name": "x", "points": 8}, {"name": "y", "points": 6}]},
        fields=[{"name": "density"}, {"name": "velocity", "order": 1}],
        statistics={**rounded, "provenance": "a test", "digits": digits},
    )
    wellkit.catalog.register(SimulationCard.parse(card, source="test"), replace=True)
    return content


def test_rounding_of_a_card_is_no_difference(tmp_path: Path) -> None:
    tree = make_tree(tmp_path, name=NAME, plain=True)
    content = yaml.safe_load((tree / "stats.yaml").read_text())
    content["mean"]["density"] = 123.456  # beside a spread of about 1, rounding alone is 0.4 spreads
    (tree / "stats.yaml").write_text(yaml.safe_dump(content))
    publish(tree)
    data = open_it(tree, errata="keep", use_normalization=True)
    assert data.statistics_hash is not None
    assert len(data.statistics_hash) == 64
    assert open_it(tree, errata="keep").statistics_hash is None


def test_statistics_that_are_not_the_published_ones_are_told_once(tmp_path: Path) -> None:
    tree = make_tree(tmp_path, name=NAME, plain=True)
    content = publish(tree)
    before = open_it(tree, errata="keep", use_normalization=True).statistics_hash
    content["std"]["velocity"][1] *= 1.02
    (tree / "stats.yaml").write_text(yaml.safe_dump(content))
    with pytest.warns(WellkitWarning, match=r"stats\.yaml: not the published .* made_up: std of velocity\[1\] is"):
        data = open_it(tree, errata="keep", use_normalization=True)
    assert data.statistics_hash != before
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        open_it(tree, errata="keep", use_normalization=True, split="valid")


def test_statistics_that_the_caller_gives_are_not_compared(tmp_path: Path) -> None:
    tree = make_tree(tmp_path, name=NAME, plain=True)
    content = publish(tree)
    content["mean"]["density"] += 5.0
    (tree / "mine.yaml").write_text(yaml.safe_dump(content))
    for given_path in ("mine.yaml", tree / "mine.yaml"):
        open_it(tree, errata="keep", use_normalization=True, normalization_path=given_path)


def test_statistics_of_another_resolution_are_their_own(tmp_path: Path) -> None:
    tree = make_tree(tmp_path, name=NAME, plain=True)
    publish(tree)
    other = make_tree(tmp_path / "other", name=NAME, plain=True, resolution=(4, 4))
    content = yaml.safe_load((other / "stats.yaml").read_text())
    content["std"]["density"] *= 3
    (other / "stats.yaml").write_text(yaml.safe_dump(content))
    open_it(other, errata="keep", use_normalization=True)


def test_statistics_that_a_manifest_lists_are_not_compared(tmp_path: Path) -> None:
    tree = make_tree(tmp_path, name=NAME, plain=True)
    content = publish(tree)
    content["std"]["density"] *= 2
    (tree / "stats.yaml").write_text(yaml.safe_dump(content))
    write_generated_manifest(tree, dataset=NAME, source="a test", counts={})
    open_it(tree, errata="keep", use_normalization=True)
    (tree / ".wellkit" / "manifest.json").unlink()
    with pytest.warns(WellkitWarning, match="not the published statistics of made_up: std of density"):
        open_it(tree, errata="keep", use_normalization=True)
