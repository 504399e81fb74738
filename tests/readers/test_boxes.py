"""Boxes of one size at different places, as random crops are: read together, by every reader, for bounded memory."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.readers.local_shards import Stored, write_shard
from tests.readers.test_local import SCALAR_AND_VECTOR, chunked, fields
from tests.readers.test_local import check as check_local
from tests.readers.test_remote import check as check_remote
from wellkit.errors import ArgumentError
from wellkit.readers import output
from wellkit.readers.output import Geometries


@st.composite
def batches(draw: st.DrawFn) -> dict[str, Any]:
    n_dims = draw(st.integers(1, 3))
    space = tuple(draw(st.lists(st.integers(1, 9), min_size=n_dims, max_size=n_dims)))
    sizes = [draw(st.integers(1, size)) for size in space]
    plain = draw(st.booleans())
    steps, stride = draw(st.integers(3, 6)), draw(st.integers(1, 2))
    n_steps = draw(st.integers(1, (steps - 1) // stride + 1))
    windows = []
    for _ in range(draw(st.integers(1, 5))):
        firsts = [draw(st.integers(0, whole - size)) for whole, size in zip(space, sizes, strict=True)]
        crop = tuple(slice(first, first + size) for first, size in zip(firsts, sizes, strict=True))
        windows.append((draw(st.integers(0, 1)), draw(st.integers(0, steps - 1 - (n_steps - 1) * stride)), crop))
    return {
        "stored": [draw(fields(order, n_dims, plain)) for order in (0, 1)],
        "shard": {
            "steps": steps,
            "space": space,
            "delta": draw(st.booleans()),
            "seed": draw(st.integers(0, 99)),
            "inline_limit": draw(st.sampled_from([0, 0, 1 << 16])),
        },
        "windows": windows,
        "request": {"n_steps": n_steps, "stride": stride, "n_input": draw(st.integers(1, n_steps))},
        "dtype": draw(st.sampled_from([np.float32, np.float32, np.float64])),
    }


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(batches())
def test_any_boxes_of_one_size_read_together(case: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        shard = write_shard(Path(folder) / "a.h5", case["stored"], **case["shard"])
        requests = [shard.request(row, start, crop=crop, **case["request"]) for row, start, crop in case["windows"]]
        check_local(shard, requests, case["dtype"])
        check_remote(shard, requests, case["dtype"])


@pytest.mark.parametrize("stored", [SCALAR_AND_VECTOR, chunked(1, 1, 40, 30), chunked(1, 2, 7, 11)])
def test_boxes_larger_than_vector_registers(tmp_path: Path, stored: tuple[Stored, ...]) -> None:
    shard = write_shard(tmp_path / "a.h5", stored, space=(40, 30))
    corners = [(0, 0), (1, 0), (0, 9), (3, 5), (7, 9), (3, 5)]
    requests = [
        shard.request(number % 2, number % 3, crop=(slice(row, row + 33), slice(column, column + 21)))
        for number, (row, column) in enumerate(corners)
    ]
    check_local(shard, requests)
    check_remote(shard, requests)


def test_boxes_of_contiguous_arrays_share_one_geometry(tmp_path: Path) -> None:
    shard = write_shard(tmp_path / "a.h5", SCALAR_AND_VECTOR, space=(40, 30))
    known = Geometries()
    for row in range(10):
        box = (slice(row, row + 8), slice(2 * row, 2 * row + 8))
        known.find(shard.request(crop=box), 2, (8, 8), 3)
    assert len(known._known) == 1
    with pytest.raises(ArgumentError):
        known.find(shard.request(crop=(slice(33, 41), slice(0, 8))), 2, (8, 8), 3)


def test_geometries_of_boxes_in_chunks_do_not_pile_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "_KEPT_WEIGHT", 200)
    shard = write_shard(tmp_path / "a.h5", chunked(1, 2, 7, 11), space=(40, 30))
    known = Geometries()
    whole = shard.request()
    first = known.find(whole, 2, (40, 30), 3)
    most = 0
    for row in range(32):
        for column in range(22):
            box = (slice(row, row + 8), slice(column, column + 8))
            known.find(shard.request(crop=box), 2, (8, 8), 3)
            most = max(most, len(known._known) + len(known._before))
            assert known.find(whole, 2, (40, 30), 3) is first  # what is used again and again stays
    assert most < 100
