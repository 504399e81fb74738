from __future__ import annotations

import json
from pathlib import Path

from wellkit.schemas.card import SimulationCard
from wellkit.schemas.export import DOCUMENTS, FOLDER, export, json_schema, schema_text


def test_committed_schemas_are_current() -> None:
    for document in DOCUMENTS:
        committed = (FOLDER / f"{document.KIND}.schema.json").read_text(encoding="utf-8")
        assert committed == schema_text(document), "run: python -m wellkit.schemas.export"


def test_export_writes_one_file_a_document(tmp_path: Path) -> None:
    written = export(tmp_path / "new")
    assert [path.name for path in written] == sorted(f"{document.KIND}.schema.json" for document in DOCUMENTS)
    assert json.loads(written[0].read_text(encoding="utf-8"))["$schema"].startswith("https://json-schema.org/")


def test_the_schema_fixes_the_version_and_allows_no_other_keys() -> None:
    schema = json_schema(SimulationCard)
    assert schema["properties"]["schema"]["const"] == "wellkit/simulation-card/1"
    assert schema["additionalProperties"] is False
    assert "schema" in schema["required"]
