"""Damaged HDF5 files: whatever a byte does to them, validation ends in a report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.index.test_damaged_shards import metadata_of
from tests.validation.trees import VISCOSITIES, make_shard
from wellkit.formats.well_writer import write_well_shard
from wellkit.validation.validate import validate

BATCH = 20  # files of one report
WAYS: tuple[dict[str, Any], ...] = (
    {},
    {"chunks": True, "compression": "gzip"},
    {"page_size": 4096},
    {"chunks": "frame"},
)


def mutate(whole: bytes, places: np.ndarray, random: np.random.Generator) -> bytes:
    """One to four other bytes, mostly of metadata; a stretch of zeros; or the end cut off."""
    kind = random.random()
    if kind < 0.08:
        return whole[: int(random.integers(len(whole)))]
    damaged = bytearray(whole)
    if kind < 0.16:
        start = int(random.choice(places))
        damaged[start : start + 64] = bytes(len(damaged[start : start + 64]))
        return bytes(damaged)
    for _ in range(int(random.integers(1, 5))):
        place = int(random.choice(places)) if kind < 0.8 else int(random.integers(len(whole)))
        damaged[place] ^= int(random.integers(1, 256))
    return bytes(damaged)


def campaign(folder: Path, count: int, seed: int) -> tuple[int, int]:
    """(shards with a finding of their own, shards in all); every batch has to end in a report that can be read."""
    wholes = []
    for way in WAYS:
        write_well_shard(folder / "whole.hdf5", make_shard(1, VISCOSITIES[0], steps=6), **way)
        wholes.append(((folder / "whole.hdf5").read_bytes(), metadata_of(folder / "whole.hdf5")))
    (folder / "whole.hdf5").unlink()
    told = 0
    for first in range(0, count, BATCH):
        batch = folder / f"batch_{first}"
        batch.mkdir()
        numbers = range(first, min(first + BATCH, count))
        for number in numbers:
            random = np.random.default_rng([seed, number])
            (batch / f"shard_{number}.hdf5").write_bytes(mutate(*wholes[number % len(wholes)], random))
        report = validate(batch, jobs=2, timeout=5)
        assert json.loads(json.dumps(report.to_mapping()))["splits"][""]["shards"] == len(numbers)
        own = {
            found.shard
            for found in report.findings
            if found.code not in ("duplicated-trajectory", "shared-field", "duplicated-frames", "shared-start")
        } - {None}
        assert all("\n" not in found.message for found in report.findings)
        told += len(own)
    return told, count


def test_damaged_shards_end_in_a_report(tmp_path: Path) -> None:
    told, count = campaign(tmp_path, 20, seed=3)
    assert told > count / 4


@pytest.mark.torture
@pytest.mark.timeout(1800)
def test_five_hundred_damaged_shards_end_in_a_report(tmp_path: Path) -> None:
    told, count = campaign(tmp_path, 500, seed=4)
    assert told > count / 4
