"""The pass over frames: compiled and in NumPy alike, and both as whole-array NumPy has it."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from tests.trees import make_shard
from wellkit.formats.well import parse_layout
from wellkit.formats.well_writer import write_well_shard
from wellkit.index.hdf5 import index_shard
from wellkit.readers.hdf5 import Hdf5Reader
from wellkit.readers.indexed import IndexedReader
from wellkit.scanning import blocks
from wellkit.scanning.blocks import FieldWork, field_work
from wellkit.scanning.columns import CHANGED, INFINITE, NAN, NEW_NAN, ZERO
from wellkit.scanning.frames import FrameScan, FrameSeries

COMPONENTS = (1, 2, 3, 4, 9)


def draw(components: int, points: int, frames: int = 7) -> np.ndarray:
    """Frames with a large offset, zeros, a repetition, NaN and infinity; axes (frame, value), float32."""
    random = np.random.default_rng([components, points])
    values = random.normal(1e4, 2.0, (frames, points * components)).astype(np.float32)
    values[1, ::3] = 0.0
    values[1, 1] = -0.0
    values[3] = values[2]
    values[5, points // 2] = np.nan
    values[5, -1] = -np.inf
    values[6, points // 2] = np.nan
    values[6, 0] = np.nan
    return values


def scan(values: np.ndarray, components: int, *, compiled: bool, split: int = 0, run: int = 3) -> FrameSeries:
    """In blocks of `run` frames, each frame in two parts where `split` points go to the first."""
    frames, size = values.shape
    found = FrameScan(frames, size, components, compiled=compiled)
    edges = [0, split * components, size] if split else [0, size]
    for start, stop in pairwise(edges):
        for first in range(0, frames, run):
            found.add(first, np.ascontiguousarray(values[first : first + run, start:stop]), start)
    return found.series


@pytest.mark.parametrize("compiled", [True, False], ids=["numba", "NumPy"])
@pytest.mark.parametrize("components", COMPONENTS)
@pytest.mark.parametrize("points", [5, 700, 40_000])
def test_a_pass_agrees_with_whole_arrays(components: int, points: int, compiled: bool) -> None:
    values = draw(components, points)
    series = scan(values, components, compiled=compiled, split=points // 3)
    x = values.reshape(len(values), points, components).astype(np.float64)
    with np.errstate(invalid="ignore"):
        d = np.diff(x, axis=0)
    x, d = np.where(np.isfinite(x), x, np.nan), np.where(np.isfinite(d), d, np.nan)
    np.testing.assert_allclose(series.states.mean, np.nanmean(x, axis=1), rtol=1e-10, atol=1e-9)
    np.testing.assert_allclose(series.states.std, np.nanstd(x, axis=1), rtol=1e-9, atol=1e-9)
    np.testing.assert_array_equal(series.states.count, np.isfinite(x).sum(axis=1))
    np.testing.assert_allclose(series.deltas.mean[1:], np.nanmean(d, axis=1), rtol=1e-10, atol=1e-9)
    np.testing.assert_allclose(series.deltas.std[1:], np.nanstd(d, axis=1), rtol=1e-9, atol=1e-9)
    np.testing.assert_array_equal(series.deltas.count[1:], np.isfinite(d).sum(axis=1))
    assert not series.deltas.count[0].any()
    np.testing.assert_array_equal(series.lowest, np.nanmin(x, axis=1))
    np.testing.assert_array_equal(series.highest, np.nanmax(x, axis=1))
    flat = values.astype(np.float64)
    np.testing.assert_array_equal(series.counts[:, NAN], np.isnan(flat).sum(axis=1))
    np.testing.assert_array_equal(series.counts[:, INFINITE], np.isinf(flat).sum(axis=1))
    np.testing.assert_array_equal(series.counts[:, ZERO], (flat == 0).sum(axis=1))
    new = np.isnan(flat[1:]) & ~np.isnan(flat[:-1])
    np.testing.assert_array_equal(series.counts[1:, NEW_NAN], new.sum(axis=1))
    bits = values.view(np.uint32)
    np.testing.assert_array_equal(series.counts[1:, CHANGED], (bits[1:] != bits[:-1]).sum(axis=1))
    whole = series.states.over_frames()
    np.testing.assert_allclose(whole.mean, np.nanmean(x, axis=(0, 1)), rtol=1e-10, atol=1e-9)
    np.testing.assert_allclose(whole.std, np.nanstd(x, axis=(0, 1)), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("components", COMPONENTS)
def test_hashes_are_those_of_content_and_place_however_it_is_cut(components: int) -> None:
    values = draw(components, 3001)
    hashes = scan(values, components, compiled=True).hashes
    for compiled, split, run in [(True, 7, 2), (False, 0, 3), (False, 1234, 1)]:
        np.testing.assert_array_equal(scan(values, components, compiled=compiled, split=split, run=run).hashes, hashes)
    assert hashes[2] == hashes[3]
    assert len(set(hashes.tolist())) == len(hashes) - 1


def test_a_hash_tells_any_one_value_any_exchange_and_any_sign() -> None:
    plain = np.arange(5000, dtype=np.float32)
    others = [plain.copy() for _ in range(4)]
    others[0][4999] = np.nextafter(np.float32(4999), np.float32(0))
    others[1][[10, 1034]] = others[1][[1034, 10]]  # the same key, in two blocks of keys
    others[2][0] = -0.0
    others[3][:] = plain[::-1]
    hashes = scan(np.stack([plain, *others]), 1, compiled=True).hashes.tolist()
    assert len(set(hashes)) == 5
    many = np.zeros((2000, 64), np.float32)
    many[np.arange(2000), np.arange(2000) % 64] = 1.0 + np.arange(2000) // 64  # round numbers: few bits differ
    assert len(set(scan(many, 1, compiled=True).hashes.tolist())) == 2000


@pytest.mark.parametrize("dtype", ["f8", "i2", "u1", "?", "i8"])
def test_other_elements_than_floats_of_32_bits(dtype: str) -> None:
    random = np.random.default_rng(8)
    values = random.integers(0, 2 if dtype == "?" else 100, (4, 300)).astype(dtype)
    series = scan(values, 3, compiled=True, split=41)
    np.testing.assert_allclose(series.states.mean, values.reshape(4, 100, 3).astype("f8").mean(axis=1))
    np.testing.assert_array_equal(series.hashes, scan(values, 3, compiled=True).hashes)
    np.testing.assert_array_equal(series.counts[1:, CHANGED], (values[1:] != values[:-1]).sum(axis=1))


STORAGE: dict[str, dict[str, Any]] = {
    "contiguous": {},
    "gzip": {"chunks": True, "compression": "gzip"},
    "a chunk a frame": {"chunks": "frame"},
    "chunks of several trajectories": {"chunks": (2, 3), "compression": "gzip"},
    "chunks that end beyond the array": {"chunks": (1, 4, 3, 4), "compression": "gzip"},
    "lzf": {"chunks": (1, 2), "compression": "lzf"},
}


@pytest.mark.parametrize("storage", STORAGE)
@pytest.mark.parametrize("block", [1 << 18, 30], ids=["one block", "many blocks"])
def test_however_a_field_is_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, storage: str, block: int) -> None:
    monkeypatch.setattr(blocks, "BLOCK_VALUES", block)
    path = tmp_path / "a.hdf5"
    write_well_shard(path, make_shard(trajectories=3), **_for_every_field(STORAGE[storage]))
    reader = IndexedReader(str(path), index_shard(path, inline_limit=0))
    layout = parse_layout(reader)
    seen: dict[str, list[FrameSeries]] = {}
    for work in field_work(reader, layout):
        seen.setdefault(work.field.name, []).extend(work.scan(budget=2000))
    with h5py.File(path) as file:
        for part in layout.fields:
            stored = file[part.path][()]
            whole = stored if part.sample_varying else stored[None]
            assert len(seen[part.name]) == len(whole)
            for series, values in zip(seen[part.name], whole, strict=True):
                flat = values.reshape(series.n_frames, -1)
                expected = FrameScan(flat.shape[0], flat.shape[1], part.n_components(2))
                expected.add(0, flat)
                np.testing.assert_array_equal(series.hashes, expected.series.hashes)
                np.testing.assert_allclose(series.states.mean, expected.series.states.mean, rtol=1e-12)
                np.testing.assert_allclose(series.deltas.std, expected.series.deltas.std, rtol=1e-9, atol=1e-12)
                np.testing.assert_array_equal(series.counts[:, ZERO], (flat == 0).sum(axis=1))


def _for_every_field(storage: dict[str, Any]) -> dict[str, Any]:
    """Chunks that fit each field's own number of axes."""
    chunks = storage.get("chunks")
    if not isinstance(chunks, tuple):
        return storage
    axes = {
        "profile": 3,
        "mask": 2,
        "material": 3,
        "gravity": 3,
        "density": 4,
        "pressure": 4,
        "velocity": 5,
        "stress": 6,
    }
    lengths = {"mask": (), "gravity": (), "material": chunks[:1]}
    return storage | {"chunks": {name: lengths.get(name, chunks)[: axes[name]] for name in axes}}


def test_any_reader_will_do(tmp_path: Path) -> None:
    path = tmp_path / "a.hdf5"
    write_well_shard(path, make_shard(singleton_axes=True))
    slow, fast = Hdf5Reader(str(path)), IndexedReader(str(path))
    for one, other in zip(field_work(slow, parse_layout(slow)), field_work(fast, parse_layout(fast)), strict=True):
        for a, b in zip(one.scan(), other.scan(), strict=True):
            np.testing.assert_array_equal(a.hashes, b.hashes)
    slow.close()


def test_work_says_how_much_it_is(tmp_path: Path) -> None:
    path = tmp_path / "a.hdf5"
    write_well_shard(path, make_shard(trajectories=3, plain=True))
    reader = IndexedReader(str(path))
    work: list[FieldWork] = field_work(reader, parse_layout(reader))
    assert [item.nbytes for item in work] == [7 * 48 * 4] * 3 + [7 * 48 * 8] * 3
