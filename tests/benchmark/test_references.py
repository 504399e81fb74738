"""Published scores: as printed, each with its taints, and only beside the data they are of."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from wellkit import catalog
from wellkit.benchmark.references import ReferenceRow, reference_rows, reference_tables, references_for
from wellkit.errors import DocumentError
from wellkit.schemas.card import Generator, SimulationCard
from wellkit.schemas.reference import ReferenceTable
from wellkit.schemas.training import DatasetIdentity

DOCS = Path(__file__).resolve().parents[2] / "docs"
MODELS = ("FNO", "TFNO", "UNetClassic", "UNetConvNext")


def row_of(dataset: str, model: str, split: str, quantity: str) -> ReferenceRow:
    (found,) = (
        row for row in reference_rows(dataset) if (row.model, row.split, row.quantity) == (model, split, quantity)
    )
    return found


@pytest.mark.parametrize(
    ("dataset", "model", "split", "quantity", "shown"),
    [
        ("acoustic_scattering_maze", "UNetConvNext", "test", "one_step", "0.0153"),
        ("active_matter", "FNO", "test", "one_step", "0.3691"),
        ("helmholtz_staircase", "FNO", "test", "one_step", "0.00046"),
        ("post_neutron_star_merger", "TFNO", "test", "one_step", "0.3793"),
        ("rayleigh_taylor_instability", "UNetConvNext", "test", "one_step", ">10"),
        ("shear_flow", "UNetClassic", "test", "one_step", "3.447"),
        ("turbulent_radiative_layer_2D", "UNetConvNext", "test", "one_step", "0.1956"),
        ("turbulent_radiative_layer_2D", "FNO", "valid", "one_step", "0.4906"),
        ("gray_scott_reaction_diffusion", "UNetClassic", "valid", "one_step", "0.587"),
        ("helmholtz_staircase", "TFNO", "valid", "one_step", "0.00031"),
        ("planetswe", "UNetConvNext", "valid", "one_step", "0.3268"),
        ("active_matter", "FNO", "test", "rollout 6:12", ">10"),
        ("MHD_64", "UNetClassic", "test", "rollout 6:12", "1.65"),
        ("turbulence_gravity_cooling", "UNetClassic", "test", "rollout 6:12", "7.14"),
        ("viscoelastic_instability", "FNO", "test", "rollout 6:12", "4.11"),
        ("convective_envelope_rsg", "UNetClassic", "test", "rollout 13:30", "2.16"),
        ("euler_multi_quadrants_periodicBC", "UNetConvNext", "test", "rollout 13:30", ">10"),
        ("rayleigh_taylor_instability", "UNetClassic", "test", "rollout 13:30", "2.84"),
        ("supernova_explosion_64", "UNetClassic", "test", "rollout 13:30", "1.69"),
        ("turbulent_radiative_layer_3D", "UNetConvNext", "test", "rollout 13:30", "0.86"),
    ],
)
def test_figures_are_those_printed(dataset: str, model: str, split: str, quantity: str, shown: str) -> None:
    row = row_of(dataset, model, split, quantity)
    assert row.shown == shown
    assert row.is_bound is shown.startswith(">")
    assert row.value == float(shown.removeprefix(">"))


def test_there_is_a_figure_for_all_that_was_printed() -> None:
    (table,) = reference_tables()
    assert len(table.scores) == 17
    assert set(table.scores) <= set(catalog.names(collection="the_well"))
    rows = [row for dataset in table.scores for row in reference_rows(dataset)]
    # 17 datasets with 4 models, but for the U-Nets on one of them; and no late rollouts of another.
    assert Counter((row.split, row.quantity) for row in rows) == {
        ("valid", "one_step"): 66,
        ("test", "one_step"): 66,
        ("test", "rollout 6:12"): 66,
        ("test", "rollout 13:30"): 62,
    }
    assert {row.model for row in rows} == set(MODELS)
    assert not [row for row in reference_rows("post_neutron_star_merger") if row.model.startswith("UNet")]
    assert not [row for row in reference_rows("viscoelastic_instability") if row.quantity == "rollout 13:30"]
    # Counted by hand in the printed tables.
    assert Counter(row.quantity for row in rows if row.is_bound) == {
        "one_step": 4,
        "rollout 6:12": 12,
        "rollout 13:30": 19,
    }
    assert all(row.url == "https://arxiv.org/abs/2412.00568" for row in rows)


def test_every_figure_carries_its_own_taints() -> None:
    (table,) = reference_tables()
    general = {"batches-dropped", "nan-as-zero", "data-version-unknown"}
    for dataset in table.scores:
        for row in reference_rows(dataset):
            expected = general | {"random-validation-batches" if row.split == "valid" else "last-weights"}
            if row.model in ("FNO", "TFNO"):
                expected.add("fourier-blocks-unused")
            if row.quantity != "one_step":
                expected.add("windows-not-computed")
            if dataset == "rayleigh_taylor_instability":
                expected.add("one-atwood-number")
            if dataset in ("shear_flow", "viscoelastic_instability"):
                expected.add("data-replaced")
            special = {"few-epochs", "test-far-from-validation", "checkpoints-disagree", "misprint"}
            assert set(row.taints) - special == expected
            assert row.reasons == tuple(table.taints[name].text for name in row.taints)
    assert set(row_of("MHD_64", "TFNO", "test", "one_step").taints) - general == {
        "last-weights",
        "fourier-blocks-unused",
        "misprint",
    }
    assert "misprint" not in row_of("MHD_64", "FNO", "test", "one_step").taints
    assert "checkpoints-disagree" in row_of("viscoelastic_instability", "UNetClassic", "test", "one_step").taints
    assert "checkpoints-disagree" not in row_of("viscoelastic_instability", "FNO", "test", "one_step").taints
    assert "few-epochs" in row_of("convective_envelope_rsg", "UNetClassic", "test", "rollout 6:12").taints
    assert "test-far-from-validation" in row_of("shear_flow", "UNetConvNext", "test", "one_step").taints


def identity(card: SimulationCard, **changes: Any) -> DatasetIdentity:
    content = {
        "name": card.name,
        "split": "test",
        "location": "data",
        "files": ("a.hdf5",),
        "trajectories": (2,),
        "steps": (101,),
        "resolution": card.resolution,
        "fields": card.components(),
        **changes,
    }
    return DatasetIdentity(**content)


def test_they_stand_beside_the_original_data_only() -> None:
    card = catalog.get("turbulent_radiative_layer_2D")
    rows = references_for(identity(card), card)
    assert len(rows) == 12
    assert {row.split for row in rows} == {"test"}
    assert {row.quantity for row in references_for(identity(card, split="valid"), card)} == {"one_step"}
    for other in (
        {"generator": "wellkit 0.1.0"},
        {"resolution": (64, 192)},
        {"split": "train"},
        {"name": "turbulent_radiative_layer_2D_v2"},
        {"fields": card.components()[:2]},
    ):
        assert references_for(identity(card, **other), card) == ()
    made = card.model_copy(update={"generator": Generator(name="wellkit", version="1")})
    assert references_for(identity(card), made) == ()


def test_a_later_version_of_a_dataset_has_no_published_scores() -> None:
    card = catalog.get("viscoelastic_instability@2")
    assert card.name != "viscoelastic_instability"
    assert references_for(identity(card), card) == ()
    assert reference_rows("no_such_dataset") == ()


def content(**changes: Any) -> dict[str, Any]:
    return {
        "schema": "wellkit/reference-table/1",
        "name": "mine",
        "source": {"title": "t", "authors": "a", "year": 2024, "arxiv": "1", "tables": "1"},
        "metric": "VRMSE",
        "protocol": "as ever",
        "taints": {},
        "columns": [{"split": "test", "quantity": "one_step"}],
        "scores": {"blob": {"FNO": [0.5]}},
        **changes,
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"taints": {"x": {"text": "no", "models": ["AFNO"]}}}, "taint 'x' is about 'AFNO'"),
        ({"taints": {"x": {"text": "no", "datasets": ["drop"]}}}, "taint 'x' is about 'drop'"),
        ({"scores": {"blob": {"FNO": [0.5, 0.6]}}}, "blob, FNO: 2 figures for 1 columns"),
        ({"scores": {"blob": {"FNO": ["<10"]}}}, "scores.blob.FNO"),
        ({"scores": {"blob": {"FNO": [float("nan")]}}}, "scores.blob.FNO"),
        ({"columns": [{"split": "test", "quantity": "rollout 1:20"}]}, "columns.0.quantity"),
    ],
)
def test_a_table_that_cannot_be_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DocumentError, match=message):
        ReferenceTable.parse(content(**changes), source="mine.yaml")


def test_they_are_read_when_they_are_asked_for() -> None:
    program = (
        "import wellkit.benchmark.references as r; assert r.reference_tables.cache_info().currsize == 0; "
        "r.reference_rows('MHD_64'); assert r.reference_tables.cache_info().currsize == 1; "
        "import sys; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_the_page_tells_every_taint() -> None:
    (table,) = reference_tables()
    text = (DOCS / "published-scores.md").read_text(encoding="utf-8")
    assert dict(re.findall(r"^\| `([a-z-]+)` \| (.*) \|$", text, re.MULTILINE)) == {
        name: taint.text.strip() for name, taint in table.taints.items()
    }
