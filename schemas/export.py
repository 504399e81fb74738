"""JSON Schemas of our documents, so that editors complete and check YAML cards.

python -m wellkit.schemas.export           writes schemas/json/*.schema.json beside this file
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from wellkit.schemas.card import SimulationCard
from wellkit.schemas.document import Document
from wellkit.schemas.manifest import Manifest
from wellkit.schemas.predictions import PredictionsDescription

DOCUMENTS: tuple[type[Document], ...] = (SimulationCard, Manifest, PredictionsDescription)
FOLDER = Path(__file__).parent / "json"


def json_schema(document: type[Document]) -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a document; its `schema` key takes one value only."""
    content = document.model_json_schema(by_alias=True)
    content["properties"]["schema"]["const"] = document.schema_name()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **content}


def schema_text(document: type[Document]) -> str:
    """The JSON Schema as it is written to a file."""
    return json.dumps(json_schema(document), indent=2, sort_keys=True) + "\n"


def export(folder: Path = FOLDER) -> list[Path]:
    """Write `<kind>.schema.json` for every document; returns the files, sorted."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for document in DOCUMENTS:
        path = folder / f"{document.KIND}.schema.json"
        path.write_text(schema_text(document), encoding="utf-8")
        written.append(path)
    return sorted(written)


if __name__ == "__main__":
    export()
