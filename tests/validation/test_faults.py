"""Every fault of the catalogue, planted into a clean tree, is found where it is."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.validation import data_faults, header_faults
from tests.validation.faults import FAULTS, Fault
from tests.validation.trees import make_tree
from wellkit.validation.codes import CODES
from wellkit.validation.validate import validate

pytestmark = pytest.mark.usefixtures("lasting_parsers")


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    return make_tree(tmp_path_factory.mktemp("clean"))  # type: ignore[return-value]


def test_the_tree_that_faults_are_planted_into_is_clean(clean: Path) -> None:
    report = validate(clean, jobs=1)
    assert report.findings == ()
    assert report.verdict == "pass"


@pytest.mark.parametrize("fault", FAULTS, ids=[fault.name for fault in FAULTS])
def test_a_planted_fault_is_found(clean: Path, tmp_path: Path, fault: Fault) -> None:
    tree = tmp_path / "waves"
    shutil.copytree(clean, tree)
    if not fault.card:
        (tree / "card.yaml").unlink()
    fault.plant(tree)
    report = validate(tree, jobs=1)
    alike = [found for found in report.findings if found.code == fault.code]
    assert alike, [(found.code, found.place, found.message) for found in report.findings]
    hits = [found for found in alike if all(getattr(found, key) == value for key, value in fault.where.items())]
    assert hits, alike
    assert all("\n" not in found.message and found.advice for found in report.findings)
    assert (report.verdict == "fail") == any(found.severity == "error" for found in report.findings)
    if CODES[fault.code].severity == "error":
        assert report.verdict == "fail"


def test_the_catalogue_covers_every_code() -> None:
    planted = {fault.code for fault in FAULTS}
    information = {
        "shared-file-names",
        "opaque-storage",
        "no-card",
        "settled",
        "shared-start",
        "statistics-not-compared",
    }
    assert planted == set(CODES) - information
    assert len(planted) >= 25
    assert {fault.plant.__module__ for fault in FAULTS} == {data_faults.__name__, header_faults.__name__}
    assert len({fault.name for fault in FAULTS}) == len(FAULTS) >= 75
