"""The same report from the workers of a Dask cluster, each a process of its own."""

from __future__ import annotations

import importlib
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from tests.validation.trees import make_tree
from wellkit.errors import ArgumentError
from wellkit.schemas.validation import ValidationReport
from wellkit.validation.validate import validate

distributed: Any = importlib.import_module("distributed")  # without types of its own


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    cluster_of: Any = distributed.LocalCluster  # untyped
    with cluster_of(
        n_workers=2, threads_per_worker=1, processes=True, host="127.0.0.1", dashboard_address=":0"
    ) as cluster:
        yield str(cluster.scheduler_address)


def content(report: ValidationReport) -> dict[str, object]:
    """All but what differs from run to run."""
    found = report.to_mapping()
    return {key: value for key, value in found.items() if key not in ("seconds", "created")}


def test_a_cluster_finds_what_threads_find(tmp_path: Path, address: str) -> None:
    tree = make_tree(tmp_path)
    told: list[tuple[int, int]] = []
    clean = validate(tree, scheduler=address, progress=lambda done, total: told.append((done, total)))
    assert clean.verdict == "pass"
    assert content(clean) == content(validate(tree))
    assert told[-1][0] == told[-1][1] == sum(path.stat().st_size for path in tree.rglob("*.hdf5"))
    with h5py.File(tree / "data/train/train_1.hdf5", "r+") as file:
        file["t0_fields/density"][1, 3, 2, 7] = np.nan
    (tree / "data/valid/valid_0.hdf5").write_text("<html>")
    spoilt = validate(tree, scheduler=address)
    assert {found.code for found in spoilt.findings} >= {"nan", "unreadable"}
    assert content(spoilt) == content(validate(tree))


def test_an_address_that_nothing_listens_at(tmp_path: Path) -> None:
    tree = make_tree(tmp_path)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(ArgumentError, match="no Dask scheduler answers at tcp://127"):
        validate(tree, scheduler=address, timeout=1)
    with pytest.raises(ArgumentError, match="no Dask scheduler answers at nonsense://"):
        validate(tree, scheduler="nonsense://here")
