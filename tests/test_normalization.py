"""Normalization against the formulas, for NumPy and torch."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest
import torch

from wellkit.errors import StatisticsError
from wellkit.normalization import Normalization, RMSNormalization, ZScoreNormalization
from wellkit.schemas.statistics import Statistics

STATS: dict[str, dict[str, Any]] = {
    "mean": {"density": 2.0, "velocity": [1.0, -1.0], "stress": [[0.0, 1.0], [1.0, 4.0]], "mask": 0.5},
    "std": {"density": 4.0, "velocity": [0.5, 2.0], "stress": [[1.0, 2.0], [2.0, 8.0]], "mask": 0.25},
    "rms": {"density": 8.0, "velocity": [0.25, 4.0], "stress": [[2.0, 4.0], [4.0, 16.0]], "mask": 0.125},
    "mean_delta": {"density": 0.25, "velocity": [0.0, 0.5], "stress": [[0.0, 0.0], [0.0, 0.0]]},
    "std_delta": {"density": 0.5, "velocity": [0.125, 1e-9], "stress": [[1.0, 1.0], [1.0, 1.0]]},
    "rms_delta": {"density": 2.0, "velocity": [0.5, 0.0], "stress": [[1.0, 2.0], [4.0, 8.0]]},
}
VARIABLE, CONSTANT = ["density", "velocity", "stress"], ["mask"]
SHAPES: dict[str, tuple[int, ...]] = {"density": (), "velocity": (2,), "stress": (2, 2), "mask": ()}
MEAN = [2, 1, -1, 0, 1, 1, 4]
STD = [4, 0.5, 2, 1, 2, 2, 8]


def f32(values: Any) -> np.ndarray:
    return np.asarray(values, dtype=np.float32)


def make(kind: type[Normalization], stats: Any = STATS, **arguments: Any) -> Any:
    return kind(stats, VARIABLE, CONSTANT, **arguments)


def test_z_score_by_hand() -> None:
    norm = make(ZScoreNormalization)
    np.testing.assert_array_equal(norm.normalize(f32([[2.0, 10.0]]), "density"), [[0.0, 2.0]])
    # (1.5 - 1) / 0.5 = 1, (5 + 1) / 2 = 3
    np.testing.assert_array_equal(norm.normalize(f32([[1.5, 5.0]]), "velocity"), [[1.0, 3.0]])
    np.testing.assert_array_equal(norm.normalize(np.full((3, 2, 2), 4.0), "stress")[1], [[4.0, 1.5], [1.5, 0.0]])
    np.testing.assert_array_equal(norm.normalize(f32([1.0]), "mask"), [2.0])
    # (1.25 - 0.25) / 0.5 = 2; the second component's divisor is the least one
    np.testing.assert_array_equal(norm.delta_normalize(f32([1.25]), "density"), [2.0])
    np.testing.assert_allclose(norm.delta_normalize(f32([[0.25, 0.6]]), "velocity"), f32([[2.0, 1000.0]]), rtol=1e-5)


def test_rms_by_hand() -> None:
    norm = make(RMSNormalization)
    np.testing.assert_array_equal(norm.normalize(f32([[2.0, 16.0]]), "density"), [[0.25, 2.0]])
    np.testing.assert_array_equal(norm.normalize(f32([[1.0, 4.0]]), "velocity"), [[4.0, 1.0]])
    np.testing.assert_array_equal(norm.delta_normalize(f32([6.0]), "density"), [3.0])
    np.testing.assert_allclose(norm.delta_normalize(f32([[1.0, 1.0]]), "velocity"), f32([[2.0, 1e4]]), rtol=1e-6)


def test_the_wells_attributes() -> None:
    zscore, rms = make(ZScoreNormalization), make(RMSNormalization)
    for attribute, key in (("means", "mean"), ("stds", "std")):
        for name, value in getattr(zscore, attribute).items():
            assert value.dtype == np.float32
            np.testing.assert_array_equal(value, STATS[key][name])
    assert set(zscore.means) == {*VARIABLE, *CONSTANT}
    assert set(zscore.means_delta) == set(zscore.stds_delta) == set(rms.rmss_delta) == set(VARIABLE)
    np.testing.assert_array_equal(zscore.means_delta["velocity"], [0.0, 0.5])
    np.testing.assert_allclose(zscore.stds_delta["velocity"], [0.125, 1e-4])
    np.testing.assert_array_equal(rms.rmss["stress"], STATS["rms"]["stress"])
    np.testing.assert_array_equal(zscore.flattened_means["variable"], MEAN)
    np.testing.assert_array_equal(zscore.flattened_stds["variable"], STD)
    np.testing.assert_array_equal(zscore.flattened_means["constant"], [0.5])
    np.testing.assert_array_equal(zscore.flattened_means_delta["variable"], [0.25, 0, 0.5, 0, 0, 0, 0])
    np.testing.assert_allclose(zscore.flattened_stds_delta["variable"], [0.5, 0.125, 1e-4, 1, 1, 1, 1])
    np.testing.assert_array_equal(rms.flattened_rmss["variable"], [8, 0.25, 4, 2, 4, 4, 16])
    np.testing.assert_allclose(rms.flattened_rmss_delta["variable"], [2, 0.5, 1e-4, 1, 2, 4, 8])


@pytest.mark.parametrize("kind", [ZScoreNormalization, RMSNormalization])
@pytest.mark.parametrize("framework", ["numpy", "torch"])
def test_every_method_is_undone_by_its_inverse(kind: type[Normalization], framework: str) -> None:
    norm = make(kind)
    rng = np.random.default_rng(0)

    def draw(*shape: int) -> Any:
        values = rng.normal(size=(3, 4, *shape)).astype(np.float32)
        return torch.from_numpy(values) if framework == "torch" else values

    for name, shape in SHAPES.items():
        x = draw(*shape)
        assert type(norm.normalize(x, name)) is type(x)
        np.testing.assert_allclose(norm.denormalize(norm.normalize(x, name), name), x, rtol=1e-5, atol=1e-6)
        if name in VARIABLE:
            there = norm.delta_normalize(x, name)
            np.testing.assert_allclose(norm.delta_denormalize(there, name), x, rtol=1e-5, atol=1e-6)
    x = draw(7)
    for prefix in ("", "delta_"):
        there = getattr(norm, f"{prefix}normalize_flattened")(x, "variable")
        back = getattr(norm, f"{prefix}denormalize_flattened")(there, "variable")
        assert type(there) is type(back) is type(x)
        assert there.dtype == back.dtype == x.dtype
        np.testing.assert_allclose(back, x, rtol=1e-5, atol=1e-6)
    x = draw(1)
    np.testing.assert_allclose(
        norm.denormalize_flattened(norm.normalize_flattened(x, "constant"), "constant"), x, rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("kind", [ZScoreNormalization, RMSNormalization])
def test_flattened_fields_and_affine_say_the_same(kind: type[Normalization]) -> None:
    norm = make(kind)
    rng = np.random.default_rng(1)
    fields = {name: rng.normal(size=(5, *SHAPES[name])).astype(np.float32) for name in VARIABLE}
    for delta in (False, True):
        by_field = norm.delta_normalize if delta else norm.normalize
        flat = norm.delta_normalize_flattened if delta else norm.normalize_flattened
        wanted = np.concatenate([by_field(x, name).reshape(5, -1) for name, x in fields.items()], axis=-1)
        channels = np.concatenate([x.reshape(5, -1) for x in fields.values()], axis=-1)
        np.testing.assert_array_equal(flat(channels, "variable"), wanted)
        for name, x in fields.items():
            offset, scale = norm.affine(name, delta=delta)
            assert offset.shape == scale.shape == SHAPES[name]
            assert offset.dtype == scale.dtype == np.float32
            np.testing.assert_array_equal((x - offset) / scale, by_field(x, name))


def test_gradients_pass_through() -> None:
    norm = make(ZScoreNormalization)
    x = torch.zeros(2, 7, requires_grad=True)
    norm.denormalize_flattened(x, "variable").sum().backward()
    np.testing.assert_array_equal(x.grad, [STD, STD])


def test_min_denom_bounds_every_divisor() -> None:
    norm = make(ZScoreNormalization, min_denom=1.0)
    np.testing.assert_array_equal(norm.flattened_stds["variable"], [4, 1, 2, 1, 2, 2, 8])
    np.testing.assert_array_equal(make(RMSNormalization, min_denom=1.0).rmss["mask"], 1.0)


def test_statistics_and_plain_content_are_both_accepted() -> None:
    norm = make(ZScoreNormalization, Statistics.parse(STATS, source="here"))
    np.testing.assert_array_equal(norm.flattened_means["variable"], MEAN)


@pytest.mark.parametrize("kind", [ZScoreNormalization, RMSNormalization])
def test_pickled_and_copied(kind: type[Normalization]) -> None:
    norm = make(kind)
    x = np.ones((2, 7), np.float32)
    for twin in (pickle.loads(pickle.dumps(norm)), copy.deepcopy(norm)):  # noqa: S301 - our own bytes
        np.testing.assert_array_equal(twin.normalize_flattened(x, "variable"), norm.normalize_flattened(x, "variable"))


def remove(statistic: str, field: str | None = None) -> dict[str, Any]:
    content = copy.deepcopy(STATS)
    if field is None:
        del content[statistic]
    else:
        del content[statistic][field]
    return content


def replaced(statistic: str, field: str, value: Any) -> dict[str, Any]:
    content = copy.deepcopy(STATS)
    content[statistic][field] = value
    return content


@pytest.mark.parametrize(
    ("kind", "stats", "told"),
    [
        (ZScoreNormalization, remove("std"), r"no 'std' \(present: mean, rms, mean_delta, std_delta, rms_delta\)"),
        (RMSNormalization, remove("rms_delta"), "no 'rms_delta'"),
        (ZScoreNormalization, remove("mean", "mask"), "'mean' has no field 'mask'"),
        (ZScoreNormalization, remove("std_delta", "velocity"), "'std_delta' has no field 'velocity'"),
        (RMSNormalization, remove("rms_delta", "stress"), "'rms_delta' has no field 'stress'"),
        (ZScoreNormalization, replaced("std", "density", float("nan")), "'std' of 'density' is nan, not finite"),
        (ZScoreNormalization, replaced("mean", "density", float("inf")), "not finite"),
        (ZScoreNormalization, replaced("std", "density", -1.0), "'std' of 'density' is -1.0, below zero"),
        (ZScoreNormalization, {"mean": 3}, "mean"),
        (ZScoreNormalization, [1, 2], "expected a mapping"),
    ],
)
def test_unusable_statistics_raise(kind: type[Normalization], stats: Any, told: str) -> None:
    with pytest.raises(StatisticsError, match=told):
        make(kind, stats)


def test_shapes_are_checked_against_the_fields() -> None:
    make(ZScoreNormalization).check_shapes(SHAPES)
    with pytest.raises(StatisticsError, match=r"'velocity' have shape \(\), its components \(2,\)"):
        make(ZScoreNormalization, replaced("mean", "velocity", 1.0)).check_shapes(SHAPES)
    with pytest.raises(StatisticsError, match=r"delta statistics .* 'density' have shape \(2,\), its components \(\)"):
        make(RMSNormalization, replaced("rms_delta", "density", [1.0, 1.0])).check_shapes(SHAPES)


def test_wrong_uses_raise() -> None:
    norm = make(ZScoreNormalization)
    x = np.zeros((2, 3), np.float32)
    with pytest.raises(StatisticsError, match="no statistics of field 'temperature'; there are those of density"):
        norm.normalize(x, "temperature")
    with pytest.raises(StatisticsError, match="no delta statistics of field 'mask'"):
        norm.delta_normalize(x, "mask")
    with pytest.raises(StatisticsError, match="array has 3 channels, the variable fields have 7"):
        norm.normalize_flattened(x, "variable")
    with pytest.raises(StatisticsError, match="mode='constant' has no delta statistics"):
        norm.delta_normalize_flattened(x, "constant")
    with pytest.raises(StatisticsError, match="mode='all' has no statistics"):
        norm.normalize_flattened(x, "all")
