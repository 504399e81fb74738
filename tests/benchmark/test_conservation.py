"""Which channels are conserved, and what each point of a grid counts."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from wellkit import catalog
from wellkit.benchmark.conservation import conserved_components
from wellkit.errors import FormatError
from wellkit.metrics import conservation_drift
from wellkit.schemas.card import SimulationCard


def sphere(n_theta: int = 64, n_phi: int = 8, **changes: Any) -> SimulationCard:
    content = {
        "schema": "wellkit/simulation-card/1",
        "name": "globe",
        "title": "a globe",
        "description": "A layer of water on a sphere.",
        "collection": "mine",
        "grid": {
            "type": "equiangular",
            "axes": [
                {"name": "theta", "kind": "equiangular", "extent": [0.0, math.pi], "points": n_theta, "unit": "rad"},
                {"name": "phi", "kind": "equiangular", "extent": [0.0, 6.28], "points": n_phi, "unit": "rad"},
            ],
        },
        "time": {"steps": [5]},
        "fields": [{"name": "height"}, {"name": "velocity", "order": 1}],
        "conserved": [{"quantity": "mass", "field": "height", "weights": "sphere"}],
        **changes,
    }
    return SimulationCard.parse(content, source="globe.yaml")


def test_channels_are_found_by_name_in_any_order() -> None:
    card = catalog.get("euler_multi_quadrants_periodicBC")
    found = conserved_components(card, card.components())
    assert card.components() == ("energy", "density", "pressure", "momentum_x", "momentum_y")
    assert [(entry.quantity, entry.component) for entry in found] == [
        ("energy", 0),
        ("mass", 1),
        ("momentum x", 3),
        ("momentum y", 4),
    ]
    assert all(entry.weights is None for entry in found)
    some = conserved_components(card, ["momentum_y", "pressure", "density"])
    assert [(entry.quantity, entry.component) for entry in some] == [("mass", 2), ("momentum y", 0)]


def test_one_component_of_a_vector() -> None:
    conserved = [{"quantity": "spin", "field": "velocity", "components": ["phi"], "weights": "sphere"}]
    card = sphere(conserved=conserved)
    (entry,) = conserved_components(card, card.components())
    assert (entry.quantity, card.components()[entry.component]) == ("spin", "velocity_phi")


def test_nothing_is_conserved_where_no_card_says_so() -> None:
    card = catalog.get("turbulent_radiative_layer_2D")
    assert conserved_components(card, card.components()) == []


def test_area_on_a_sphere() -> None:
    card = sphere()
    (entry,) = conserved_components(card, card.components())
    assert entry.weights is not None
    assert entry.weights.shape == card.resolution
    theta = np.linspace(0, math.pi, 64)[:, None]
    share = entry.weights / entry.weights.sum()
    # Means over the sphere: of cos^2 1/3, of sin^2 2/3.
    assert float((share * np.cos(theta) ** 2).sum()) == pytest.approx(1 / 3, abs=1e-3)
    assert float((share * np.sin(theta) ** 2).sum()) == pytest.approx(2 / 3, abs=1e-3)


def test_coordinates_of_the_data_come_before_those_of_the_card() -> None:
    theta, phi = (np.arange(16) + 0.5) * math.pi / 16, np.arange(4.0)
    grid = np.stack(np.meshgrid(theta, phi, indexing="ij"), axis=-1)
    (entry,) = conserved_components(sphere(), ["velocity_theta", "velocity_phi", "height"], grid)
    assert entry.component == 2
    assert entry.weights is not None
    np.testing.assert_allclose(entry.weights, np.repeat(np.sin(theta)[:, None], 4, axis=1))
    with pytest.raises(FormatError, match=r"axes \(space..., axis\)"):
        conserved_components(sphere(), ["height"], grid[..., 0])


def test_what_is_moved_on_a_sphere_is_conserved_by_area_only() -> None:
    """Water goes from a ring near the pole to one at the equator, of larger area, and so becomes shallower there."""
    card = sphere()
    (entry,) = conserved_components(card, card.components())
    assert entry.weights is not None
    before, after = np.ones((64, 8, 1)), np.ones((1, 64, 8, 1))
    after[0, 4] -= 0.5
    after[0, 32] += 0.5 * entry.weights[4, 0] / entry.weights[32, 0]
    drift = conservation_drift(after, before, n_spatial_dims=2, weights=entry.weights)
    assert drift[0, 0] == pytest.approx(0, abs=1e-12)
    assert conservation_drift(after, before, n_spatial_dims=2)[0, 0] < -1e-3
