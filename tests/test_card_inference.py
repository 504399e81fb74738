"""Cards written from files: what the files say, and a dataset that opens by name."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import yaml

import wellkit
from tests.trees import make_tree
from wellkit.card_inference import infer_card
from wellkit.catalog import registry
from wellkit.catalog.files import card_text, parse_card
from wellkit.errors import ArgumentError, DataNotFoundError, FormatError, ShardError, StatisticsError
from wellkit.statistics import compute_statistics, write_statistics


@pytest.fixture(autouse=True)
def own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_registered", {})


def write(to: Path, axes: dict[str, Any], times: np.ndarray, **arguments: Any) -> Path:
    shape = (3, times.shape[-1], *(len(values) for values in axes.values()))
    fields = {"u": np.random.default_rng(1).normal(size=shape)}
    wellkit.write_dataset(to, fields, axes=axes, time=times, **arguments)
    return to


def test_a_card_says_what_the_files_say(tmp_path: Path) -> None:
    card = infer_card(make_tree(tmp_path, steps=(7, 5)))
    assert (card.name, card.collection, card.names_in_files) == ("made_up", "mine", ())
    assert [(axis.name, axis.points, axis.kind, axis.extent) for axis in card.grid.axes] == [
        ("x", 8, "uniform", (0.0, 1.0)),
        ("y", 6, "uniform", (0.0, 1.0)),
    ]
    assert (card.time.steps, card.time.counts, card.time.variable) == ((5, 7), (6, 6), True)
    fields = {field.name: field for field in card.fields}
    assert [field.order for field in card.fields] == sorted(field.order for field in card.fields)
    assert fields["profile"].axes == ("x",)
    assert (fields["mask"].varying, fields["mask"].sample_varying) == (False, False)
    assert (fields["material"].varying, fields["material"].sample_varying) == (False, True)
    assert fields["stress"].order == 2
    assert [(scalar.name, scalar.varying) for scalar in card.scalars][:2] == [("viscosity", False), ("drive", True)]
    assert {p.name: p.values for p in card.parameters}["viscosity"] == (0.25, 1.25, 10.25, 11.25, 20.25, 21.25)
    assert [(boundary.type, boundary.axes) for boundary in card.boundary_conditions] == [
        ("PERIODIC", ("x",)),
        ("WALL", ("y",)),
    ]
    assert {name: (split.files, split.trajectories) for name, split in card.splits.items()} == dict.fromkeys(
        ("train", "valid", "test"), (2, 4)
    )
    assert card.trajectories == 12
    assert card.statistics is not None
    # the same by the card's own arithmetic: the profile lacks an axis, mask and gravity are one for each file
    assert card.sizes.nominal_bytes == card.expected_bytes()


def test_channels_and_shapes_are_those_of_the_dataset(tmp_path: Path) -> None:
    tree = make_tree(tmp_path, resolution=(4, 3, 5))
    card = infer_card(tree)
    data = wellkit.WellDataset(path=tree, well_split_name="train", framework="numpy")
    assert card.resolution == data.metadata.spatial_resolution
    assert list(card.components()) == [name for names in data.metadata.field_names.values() for name in names]
    assert card.n_constant_channels == data.metadata.n_constant_fields


def test_the_dataset_opens_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = write(tmp_path / "mine", {"x": np.linspace(0, 1, 5)}, np.linspace(0, 1, 6), scalars={"k": [1.0, 2.0, 3.0]})
    write_statistics(compute_statistics(tree), tree / "stats.yaml")
    (tmp_path / "card.yaml").write_text(card_text(infer_card(tree)))
    monkeypatch.setenv("WELLKIT_DATA", str(tmp_path))
    card = wellkit.catalog.register(tmp_path / "card.yaml")
    assert wellkit.catalog.get("mine") == card
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nor are its own statistics another's
        data = wellkit.WellDataset(
            well_dataset_name="mine", well_split_name="train", framework="numpy", use_normalization=True
        )
    assert data.metadata.n_fields == card.n_channels == 1
    assert [parameter.values for parameter in card.parameters] == [(1.0, 2.0, 3.0)]


@pytest.mark.parametrize(
    ("values", "kind", "note"),
    [
        (np.linspace(0.1, 7, 33), "uniform", None),
        (np.geomspace(0.01, 100, 20), "log", None),
        (1 + 2 * np.cos(np.pi * np.arange(24) / 23), "chebyshev", None),  # extrema, from the upper end down
        (-np.cos(np.pi * (np.arange(24) + 0.5) / 24), "chebyshev", None),  # roots
        (np.linspace(0, 1, 20) ** 3, "uniform", "unevenly spaced"),
        (np.array([2.0]), "uniform", None),
    ],
)
def test_the_spacing_of_axes_is_seen(tmp_path: Path, values: np.ndarray, kind: str, note: str | None) -> None:
    axis = infer_card(write(tmp_path / "mine", {"x": values}, np.arange(3.0))).grid.axes[0]
    assert (axis.kind, axis.note) == (kind, note)
    if len(values) > 1:
        assert axis.extent == pytest.approx((values.min(), values.max()), rel=1e-6)
    else:
        assert axis.extent is None


@pytest.mark.parametrize(
    ("times", "spacing", "horizon", "variable"),
    [
        (np.linspace(0, 10, 101), 0.1, 10.0, False),
        (np.linspace(3, 4, 7), 0.16667, 1.0, False),
        (np.array([0.0, 1.0, 3.0]), None, 3.0, True),
        (np.stack([np.arange(5.0), 2 + np.arange(5.0), 7 + np.arange(5.0)]), 1.0, 4.0, False),
        (np.stack([np.arange(5.0), 2 * np.arange(5.0), np.arange(5.0)]), None, None, True),
    ],
)
def test_times(tmp_path: Path, times: np.ndarray, spacing: float, horizon: float, variable: bool) -> None:
    found = infer_card(write(tmp_path / "mine", {"x": np.arange(4)}, times)).time
    assert (found.spacing, found.horizon, found.variable) == (spacing, horizon, variable)


def test_coordinates_that_differ_have_no_extent(tmp_path: Path) -> None:
    card = infer_card(make_tree(tmp_path, grid_per_trajectory=True))
    assert all(axis.extent is None and "differ" in (axis.note or "") for axis in card.grid.axes)


def test_the_files_name_and_the_folders_are_both_kept(tmp_path: Path) -> None:
    tree = make_tree(tmp_path).rename(tmp_path / "my copy")
    with pytest.raises(ArgumentError, match="'my copy' cannot be a dataset's name"):
        infer_card(tree)
    assert infer_card(tree, name="my_copy").names_in_files == ("made_up",)


def test_many_values_are_a_range(tmp_path: Path) -> None:
    tree = write(tmp_path / "mine", {"x": np.arange(4)}, np.arange(3.0), scalars={"k": [1.0, 2.0, 3.0]})
    for number in range(70):
        path = next((tree / "data" / "train").glob("*.hdf5"))
        copy = path.with_name(f"more_{number}.hdf5")
        copy.write_bytes(path.read_bytes())
        with h5py.File(copy, "r+") as file:
            file["scalars/k"][...] = 100 + 2 * number + np.arange(len(file["scalars/k"]))
    parameter = infer_card(tree).parameters[0]
    assert parameter.values is None
    assert parameter.description is not None
    assert parameter.description.endswith("values from 1 to 238")


def test_a_card_survives_its_file(tmp_path: Path) -> None:
    card = infer_card(make_tree(tmp_path, steps=(7, 5)))
    assert parse_card(card_text(card), source="test") == card


def test_what_cannot_be_described_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataNotFoundError, match="no such folder"):
        infer_card(tmp_path / "nothing")
    tree = make_tree(tmp_path, files=1, splits=("train",))
    assert list(infer_card(tree).splits) == ["train"]
    content = yaml.safe_load((tree / "stats.yaml").read_text())
    del content["mean"]["density"]
    (tree / "stats.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(StatisticsError, match=r"no field 'density'.*wellkit stats"):
        infer_card(tree)
    (tree / "stats.yaml").unlink()
    assert infer_card(tree).statistics is None
    shard = next((tree / "data" / "train").iterdir())
    with h5py.File(shard, "r+") as file:
        file.attrs["grid_type"] = "hexagonal"
    with pytest.raises(FormatError, match="grid_type is 'hexagonal'; a card knows cartesian"):
        infer_card(tree)
    shard.write_bytes(b"<html>503</html>")
    with pytest.raises(ShardError):
        infer_card(tree)
