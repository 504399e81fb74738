"""Transforms against their definition: fields as functions of position, evaluated on the transformed grid."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from itertools import permutations, product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import wellkit
from tests.pieces import (
    SHAPES,
    Piece,
    analytic,
    assert_same,
    axes_of,
    grid_of,
    leaves,
    metadata_of,
    piece_of,
    sample_piece,
    to_torch,
)
from tests.trees import make_tree
from wellkit.augmentation import (
    ROTATIONS,
    Augmentation,
    Compose,
    RandomAxisFlip,
    RandomAxisPermute,
    RandomAxisRoll,
    RandomRotation90,
    Resize,
)
from wellkit.errors import ArgumentError, WellkitWarning


def signed_permutations(n_dims: int) -> list[tuple[tuple[int, ...], tuple[bool, ...]]]:
    return [
        (permutation, mask)
        for permutation in permutations(range(n_dims))
        for mask in product((False, True), repeat=n_dims)
    ]


def expected_piece(n_dims: int, permutation: tuple[int, ...], mask: tuple[bool, ...]) -> Piece:
    """The same physics in the transformed box, from the definition alone.

    R permutes the coordinates, then mirrors some at the middle of their axis: x' = R x + t. In the new box a scalar is
    s'(x') = s(x), a vector v'(x') = R v(x), a tensor T'(x') = R T(x) R^T, with x = R^T (x' - t).
    """
    old = axes_of(n_dims)
    new = [old[source] for source in permutation]
    new = [(a[0] + a[-1] - a)[::-1] if flipped else a for a, flipped in zip(new, mask, strict=True)]
    signs = np.where(mask, -1.0, 1.0)
    rotation = signs[:, None] * np.eye(n_dims)[list(permutation)]
    shift = np.array([a[0] + a[-1] if flipped else 0.0 for a, flipped in zip(new, mask, strict=True)])
    scalar, vector, tensor = analytic(n_dims)

    def back(x: np.ndarray) -> np.ndarray:
        return np.asarray((x - shift) @ rotation)

    functions = (
        lambda x: scalar(back(x)),
        lambda x: np.einsum("ij,...j->...i", rotation, vector(back(x))),
        lambda x: np.einsum("ij,...jk,lk->...il", rotation, tensor(back(x)), rotation),
    )
    codes = np.arange(2.0 * n_dims).reshape(n_dims, 2)[list(permutation)]
    codes = np.stack([code[::-1] if flipped else code for code, flipped in zip(codes, mask, strict=True)])
    return piece_of(grid_of(new), codes, functions)


@pytest.mark.parametrize("n_dims", [1, 2, 3])
@pytest.mark.parametrize("framework", ["numpy", "torch"])
def test_every_symmetry_of_the_box_is_covariant(n_dims: int, framework: str) -> None:
    piece = sample_piece(n_dims)
    given_piece = to_torch(piece) if framework == "torch" else piece
    for permutation, mask in signed_permutations(n_dims):
        found = RandomRotation90.rotate90(given_piece, permutation, mask)
        assert_same(found, expected_piece(n_dims, permutation, mask))
        kinds = {type(value) for key, value in leaves(found).items() if "scalars" not in key}
        assert kinds == ({torch.Tensor} if framework == "torch" else {np.ndarray})
    assert_same(given_piece, sample_piece(n_dims), exact=True)  # left as it was


def divergence(v: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """Sum of d v_i / d x_i; exact inside for a quadratic field on any spacing (numpy.gradient, second order)."""
    total = np.zeros(v.shape[:-1])
    for axis in range(v.shape[-1]):
        index = [0] * v.shape[-1]
        line = grid[tuple(slice(None) if a == axis else i for a, i in enumerate(index))][:, axis]
        total += np.gradient(v[..., axis], line, axis=axis, edge_order=2)
    return total


@pytest.mark.parametrize("n_dims", [2, 3])
def test_divergence_is_that_of_the_original_at_the_moved_points(n_dims: int) -> None:
    piece = sample_piece(n_dims)
    before = divergence(piece["constant_fields"][1]["constant_velocity"], piece["space_grid"])
    for permutation, mask in signed_permutations(n_dims):
        found = RandomRotation90.rotate90(piece, permutation, mask)
        after = divergence(found["constant_fields"][1]["constant_velocity"], found["space_grid"])
        moved = np.flip(before.transpose(permutation), tuple(axis for axis in range(n_dims) if mask[axis]))
        np.testing.assert_allclose(after, moved, rtol=1e-8, atol=1e-8)


@given(n_dims=st.integers(1, 3), bits=st.integers(0, 7))
@settings(max_examples=20, deadline=None)
def test_flips_are_involutions(n_dims: int, bits: int) -> None:
    mask = [bool(bits >> axis & 1) for axis in range(n_dims)]
    piece = sample_piece(n_dims)
    assert_same(RandomAxisFlip.flip(RandomAxisFlip.flip(piece, mask), torch.tensor(mask)), piece)


@given(order=st.permutations([0, 1, 2]))
@settings(max_examples=6, deadline=None)
def test_permutations_are_undone_by_their_inverse(order: list[int]) -> None:
    piece = sample_piece(3)
    there = RandomAxisPermute.permute(piece, torch.tensor(order))
    assert_same(RandomAxisPermute.permute(there, np.argsort(order)), piece, exact=True)


def matrix(rotation: tuple[tuple[int, ...], tuple[bool, ...]]) -> np.ndarray:
    permutation, mask = rotation
    return np.asarray(np.where(mask, -1, 1)[:, None] * np.eye(len(permutation), dtype=int)[list(permutation)])


@pytest.mark.parametrize(("n_dims", "count"), [(1, 1), (2, 4), (3, 24)])
def test_rotations_are_the_proper_group(n_dims: int, count: int) -> None:
    matrices = [matrix(rotation) for rotation in ROTATIONS[n_dims]]
    assert len({m.tobytes() for m in matrices}) == count
    assert all(round(np.linalg.det(m)) == 1 for m in matrices)
    products = {(a @ b).tobytes() for a in matrices for b in matrices}
    assert products == {m.tobytes() for m in matrices}


@pytest.mark.parametrize("index", [1, 3])
def test_four_quarter_turns_are_none(index: int) -> None:
    piece = sample_piece(2)
    turn = RandomRotation90(hardcoded_rotation_index=index)
    turned = [piece]
    for _ in range(4):
        turned.append(turn(turned[-1], metadata_of(2)))
    assert_same(turned[4], piece)
    assert turned[1]["space_grid"].shape == (4, 5, 2)
    assert not np.allclose(
        turned[2]["constant_fields"][0]["constant_density"], piece["constant_fields"][0]["constant_density"]
    )


def test_a_quarter_turn_by_hand() -> None:
    # Index 1 is x' = y, y' = -x. The vector (1, 0) at the low-x end becomes (0, -1) at the high-y' end.
    v = np.zeros((2, 2, 2))
    v[0, 0] = [1.0, 0.0]
    piece = sample_piece(2) | {
        "constant_fields": {0: {}, 1: {"v": v}, 2: {}},
        "variable_fields": {0: {}, 1: {}, 2: {}},
        "space_grid": grid_of([np.array([0.0, 1.0]), np.array([10.0, 12.0])]),
        "boundary_conditions": np.array([[0.0, 1.0], [2.0, 2.0]]),
    }
    found = RandomRotation90(hardcoded_rotation_index=5)(piece, metadata_of(2))  # 5 modulo 4
    np.testing.assert_array_equal(found["constant_fields"][1]["v"][0, 1], [0.0, -1.0])
    np.testing.assert_array_equal(found["boundary_conditions"], [[2.0, 2.0], [1.0, 0.0]])
    np.testing.assert_array_equal(found["space_grid"][0, 1], [10.0, 1.0])


@pytest.mark.parametrize(
    ("transform", "parity"),
    [
        (lambda piece, names: RandomAxisFlip.flip(piece, [True, False], pseudo_fields=names), -1),
        (lambda piece, names: RandomAxisFlip.flip(piece, [True, True], pseudo_fields=names), 1),
        (lambda piece, names: RandomAxisPermute.permute(piece, [1, 0], pseudo_fields=names), -1),
    ],
)
def test_pseudo_fields_change_sign_under_mirror_images(transform: Callable[..., Any], parity: int) -> None:
    piece = sample_piece(2)
    polar, axial = transform(piece, ()), transform(piece, ("density", "velocity"))
    for order, name in ((0, "density"), (1, "velocity")):
        np.testing.assert_array_equal(
            axial["variable_fields"][order][name], parity * polar["variable_fields"][order][name]
        )
    np.testing.assert_array_equal(axial["variable_fields"][2]["stress"], polar["variable_fields"][2]["stress"])


def test_rolling_moves_values_and_their_coordinates() -> None:
    piece = sample_piece(2)
    rolled = RandomAxisRoll.roll(piece, {0: 2, 1: -1})
    for key, axis in (("variable_fields", 1), ("constant_fields", 0)):
        for fields in piece[key].values():
            for name, field in fields.items():
                order = next(o for o in range(3) if name in piece[key][o])
                np.testing.assert_array_equal(rolled[key][order][name], np.roll(field, (2, -1), (axis, axis + 1)))
    scalar, vector, _ = analytic(2)
    np.testing.assert_allclose(rolled["constant_fields"][0]["constant_density"], scalar(rolled["space_grid"]))
    np.testing.assert_allclose(rolled["constant_fields"][1]["constant_velocity"], vector(rolled["space_grid"]))
    np.testing.assert_array_equal(rolled["boundary_conditions"], piece["boundary_conditions"])


def test_only_periodic_axes_are_rolled() -> None:
    piece = sample_piece(2) | {"boundary_conditions": np.array([[2.0, 1.0], [2.0, 2.0]])}
    found = {
        tuple(
            np.argmin(RandomAxisRoll()(piece, metadata_of(2, seed=seed))["space_grid"].sum(-1).ravel(), keepdims=True)
        )
        for seed in range(40)
    }
    assert found == {(0,), (1,), (2,), (3,)}  # the corner stays in the first row, at any of its 4 columns


def test_roll_needs_to_know_the_boundaries() -> None:
    piece = sample_piece(2)
    del piece["boundary_conditions"]
    with pytest.raises(ArgumentError, match="boundary_return_type='padding'"):
        RandomAxisRoll()(piece, metadata_of(2))


@pytest.mark.parametrize(
    "transform",
    [RandomAxisFlip(), RandomAxisPermute(), RandomAxisRoll(), RandomRotation90()],
    ids=lambda t: type(t).__name__,
)
def test_draws_follow_from_the_samples_generator_alone(transform: Augmentation) -> None:
    piece = sample_piece(3) | {"boundary_conditions": np.full((3, 2), 2.0)}
    results = []
    for seed in range(12):
        np.random.seed(seed)  # noqa: NPY002 - the global generator must not matter
        torch.manual_seed(seed)
        one = transform(piece, metadata_of(3, seed=seed))
        np.random.seed(99)  # noqa: NPY002
        torch.manual_seed(99)
        assert_same(transform(piece, metadata_of(3, seed=seed)), one, exact=True)
        results.append(one["variable_fields"][1]["velocity"].tobytes())
    assert len(set(results)) > 3


@pytest.mark.parametrize("transform", [RandomAxisFlip(0), RandomAxisPermute(0), RandomAxisRoll(0), RandomRotation90(0)])
def test_probability_zero_changes_nothing(transform: Augmentation) -> None:
    piece = sample_piece(2) | {"boundary_conditions": np.full((2, 2), 2.0)}
    for seed in range(5):
        assert_same(transform(piece, metadata_of(2, seed=seed)), piece, exact=True)


def test_flip_probability_is_that_of_each_axis() -> None:
    rng, flipped = np.random.default_rng(1), np.zeros(2)
    piece = sample_piece(2)
    for _ in range(400):
        metadata = SimpleNamespace(dataset=metadata_of(2).dataset, rng=rng)
        codes = RandomAxisFlip(0.25)(piece, metadata)["boundary_conditions"]
        flipped += codes[:, 0] > codes[:, 1]
    assert ((flipped > 70) & (flipped < 130)).all()  # 100 expected, standard deviation 8.7


@pytest.mark.parametrize(
    "transform", [RandomAxisFlip(), RandomAxisPermute(), RandomAxisRoll(), RandomRotation90(hardcoded_rotation_index=1)]
)
def test_other_grids_are_left_alone_and_it_is_said(transform: Augmentation) -> None:
    piece = sample_piece(2)
    with pytest.warns(WellkitWarning, match="does nothing on a spherical grid"):
        assert transform(piece, metadata_of(2, grid_type="spherical")) is piece


def test_compose_applies_in_order() -> None:
    piece = sample_piece(2)
    found = Compose(RandomRotation90(hardcoded_rotation_index=1), RandomAxisFlip(1.0))(piece, metadata_of(2))
    wanted = RandomAxisFlip.flip(RandomRotation90.rotate90(piece, (1, 0), (0, 1)), [1, 1])
    assert_same(found, wanted, exact=True)


@pytest.mark.parametrize("bad", [-0.1, 1.5, float("nan")])
def test_probabilities_are_checked(bad: float) -> None:
    with pytest.raises(ArgumentError, match="no probability"):
        RandomAxisFlip(bad)


def test_a_permutation_is_checked() -> None:
    with pytest.raises(ArgumentError, match=r"permutation=\[0, 0\]"):
        RandomAxisPermute.permute(sample_piece(2), [0, 0])


@pytest.mark.parametrize("framework", ["numpy", "torch"])
@pytest.mark.parametrize(("n_dims", "mode"), [(1, "linear"), (2, "bilinear"), (3, "trilinear")])
def test_resize_is_exact_for_fields_linear_in_position(framework: str, n_dims: int, mode: str) -> None:
    # align_corners keeps the ends, so a linear field on an even grid is reproduced at every new point.
    grid = grid_of([np.linspace(axis, 2 + axis, n) for axis, n in enumerate(SHAPES[n_dims])])
    a = np.random.default_rng(0).normal(size=(n_dims, n_dims))
    functions = (lambda x: x.sum(-1), lambda x: x @ a, lambda x: x[..., None] * a)
    piece = piece_of(grid, np.zeros((n_dims, 2)), functions)
    size = (7, 9, 2)[:n_dims]
    resize = Resize(target_size=size, interpolation_mode=mode, align_corners=True)
    found = resize(to_torch(piece) if framework == "torch" else piece, metadata_of(n_dims))
    new_grid = grid_of([np.linspace(axis, 2 + axis, n) for axis, n in enumerate(size)])
    assert_same(found, piece_of(new_grid, np.zeros((n_dims, 2)), functions))


def test_resize_by_a_factor_with_nearest_repeats_points() -> None:
    piece = sample_piece(2)
    found = Resize(scale_factor=2, interpolation_mode="nearest")(piece, metadata_of(2))
    for key, axis in (("variable_fields", 1), ("constant_fields", 0)):
        for order, fields in piece[key].items():
            for name, field in fields.items():
                np.testing.assert_array_equal(found[key][order][name], field.repeat(2, axis).repeat(2, axis + 1))
    assert Resize(target_size=3, interpolation_mode="nearest")(piece, metadata_of(2))["space_grid"].shape == (3, 3, 2)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({}, "needs one of target_size and scale_factor"),
        ({"target_size": 3, "scale_factor": 2.0}, "needs one of target_size and scale_factor"),
        ({"target_size": 3, "sharpness": 1}, "no argument 'sharpness'"),
    ],
)
def test_resize_arguments_are_checked(arguments: dict[str, Any], told: str) -> None:
    with pytest.raises(ArgumentError, match=told):
        Resize(interpolation_mode="nearest", **arguments)


@pytest.mark.parametrize("arguments", [{"target_size": (3, 3, 3)}, {"target_size": (3, 3), "mode": "trilinear"}])
def test_a_mode_that_does_not_fit_the_axes_is_one_clear_line(arguments: dict[str, Any]) -> None:
    mode = arguments.pop("mode", "nearest")
    with pytest.raises(ArgumentError, match="Resize cannot interpolate an array of 2 spatial axes"):
        Resize(interpolation_mode=mode, **arguments)(sample_piece(2), metadata_of(2))


@pytest.mark.parametrize("framework", ["numpy", "torch"])
def test_in_a_dataset(tmp_path: Path, framework: Any) -> None:
    tree = make_tree(tmp_path, files=1, boundaries=("PERIODIC", "PERIODIC"))
    transform = Compose(
        RandomAxisRoll(), RandomRotation90(), RandomAxisFlip(), Resize(scale_factor=2, interpolation_mode="nearest")
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = wellkit.WellDataset(path=tree, well_split_name="train", transform=transform, framework=framework, seed=4)
        first = {key: np.asarray(value) for key, value in data[3].items()}
        again = {key: np.asarray(value) for key, value in data[3].items()}
        plain = wellkit.WellDataset(path=tree, well_split_name="train", framework=framework)[3]
    assert sorted(first["input_fields"].shape) == sorted((1, 16, 12, 9))
    assert set(first) == set(plain)
    assert {key: value.dtype for key, value in first.items()} == {k: np.asarray(v).dtype for k, v in plain.items()}
    for key, value in first.items():
        np.testing.assert_array_equal(value, again[key])
    # Rotating and mirroring keep the sum of a scalar and the length of vectors.
    np.testing.assert_allclose(
        first["input_fields"][..., 0].sum() / 4, np.asarray(plain["input_fields"])[..., 0].sum(), rtol=1e-4
    )
    data.set_epoch(1)
    assert any(
        not np.array_equal(np.asarray(data[index]["space_grid"]), first["space_grid"]) for index in range(len(data))
    )
