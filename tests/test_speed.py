"""measure_speed: what it reports is what happened."""

from __future__ import annotations

import json
import mmap
import time
from pathlib import Path
from typing import Any

import pytest

from tests.trees import make_tree
from tests.trees_zarr import zarr_twin
from wellkit import WellDataset
from wellkit.errors import ArgumentError, DataNotFoundError, WellkitError, WindowError
from wellkit.speed import ROUNDS, SpeedReport, _disjoint, anonymous_memory, measure_speed


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tree(
        tmp_path_factory.mktemp("speed"), files=3, steps=(12, 9), splits=("train",), plain=True, resolution=(32, 32)
    )


def measure(tree: Path, **options: Any) -> SpeedReport:
    return measure_speed(tree, **{"batch_size": 2, "workers": (0,), "seconds": 0.05, **options})


def test_a_row_for_each_way_and_number_of_workers(tree: Path) -> None:
    told: list[tuple[int, int]] = []
    report = measure(tree, workers=(0, 2), cold=True, progress=lambda done, total: told.append((done, total)))
    ways = [("one by one", 0), ("wellkit.DataLoader", 0), ("wellkit.DataLoader", 2)]
    assert [(row.way, row.workers, row.cache) for row in report.rows] == [
        (*way, cache) for way in ways for cache in ("warm", "cold")
    ]
    assert told == [(n, 6 * ROUNDS) for n in range(1, 6 * ROUNDS + 1)]
    # windows of 5 frames: 8 of 12 frames, 5 of 9; two trajectories each
    assert (report.shards, report.windows, report.pool_warm) == (3, 2 * (8 + 5 + 8), 42)
    assert report.pool_cold == 2 * (2 + 1 + 2)  # that share no frame
    assert report.normalized
    assert report.sample_bytes == report.stored_bytes == 5 * 32 * 32 * 3 * 4
    for row in report.rows:
        assert row.roofline_share is not None
        assert row.samples_per_second > 0
        assert row.samples >= ROUNDS * 2
        assert row.megabytes_per_second == pytest.approx(row.samples_per_second * report.sample_bytes / 1e6)
        assert row.peak_memory is not None
        assert row.worker_memory is None
        assert row.bytes_read_per_needed is not None
        assert row.cache == "cold" or row.bytes_read_per_needed >= 1
    assert json.loads(json.dumps(report.to_mapping()))["rows"][0]["way"] == "one by one"


def test_speed_and_share_are_those_of_the_clock(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = WellDataset.__getitem__

    def slowly(self: WellDataset, index: int) -> dict[str, Any]:
        time.sleep(0.01)
        return read(self, index)

    monkeypatch.setattr(WellDataset, "__getitem__", slowly)
    report = measure(tree, seconds=0.3)
    row = report.rows[0]
    assert row.samples_per_second < 100
    assert row.roofline_share is not None
    assert row.roofline_share < 100 / report.roofline["warm"] * 10  # the machine's speed varies between turns


def test_what_a_way_reads_too_much_is_seen(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waste = tree.parent / "waste"
    waste.write_bytes(bytes(1_000_000))
    read = WellDataset.__getitem__

    def wastefully(self: WellDataset, index: int) -> dict[str, Any]:
        waste.read_bytes()
        return read(self, index)

    plain = measure(tree).rows[0].bytes_read_per_needed
    monkeypatch.setattr(WellDataset, "__getitem__", wastefully)
    found = measure(tree).rows[0].bytes_read_per_needed
    assert plain is not None
    assert found is not None
    assert found - plain > 1_000_000 / (5 * 32 * 32 * 3 * 4) * 0.9


def test_torch_loader_and_its_workers_memory(tree: Path) -> None:
    report = measure(tree, workers=(0, 1), torch=True)
    rows = {(row.way, row.workers): row for row in report.rows}
    assert rows["torch DataLoader", 0].worker_memory is None
    worker = rows["torch DataLoader", 1]
    assert worker.worker_memory is not None
    assert worker.worker_memory > 1_000_000
    assert worker.bytes_read_per_needed is not None


def test_disjoint_windows_share_no_frame(tree: Path) -> None:
    dataset = WellDataset(path=tree, well_split_name="train", n_steps_input=2, n_steps_output=1, framework="numpy")
    frames = set()
    for index in _disjoint(dataset).tolist():
        window, metadata = dataset._place(index)
        for frame in range(window.start, window.start + 3):
            place = (metadata.file_idx, window.trajectory, frame)
            assert place not in frames
            frames.add(place)
    assert len(frames) == 2 * (12 + 9 + 12)  # all of them: 12 and 9 are multiples of 3


def test_without_statistics_or_places_of_bytes_it_says_so(tree: Path, tmp_path: Path) -> None:
    bare = measure(tree / "data" / "train", batch_size=3)
    assert (bare.split, bare.normalized) == ("train", True)
    copy = zarr_twin(tree, tmp_path / "twin")
    (copy / "stats.yaml").unlink(missing_ok=True)
    report = measure(copy)
    assert not report.normalized
    assert (report.roofline, report.stored_bytes) == ({}, None)
    assert report.rows[0].roofline_share is None
    assert report.rows[0].bytes_read_per_needed is None
    assert report.rows[0].samples_per_second > 0
    assert "were not normalized" in report.notes[0]
    assert "no roofline" in report.notes[1]


@pytest.mark.parametrize(
    ("options", "error", "complaint"),
    [
        ({"batch_size": 0}, ArgumentError, "batch_size=0; give a whole number from 1 up"),
        ({"batch_size": 43}, ArgumentError, "batch_size=43: .* hold 42 windows"),
        ({"seconds": 0.0}, ArgumentError, "seconds=0.0; give a time above 0"),
        ({"seconds": float("nan")}, ArgumentError, "seconds=nan"),
        ({"workers": ()}, ArgumentError, r"workers=\[\]; give numbers"),
        ({"workers": (2, -1)}, ArgumentError, r"workers=\[2, -1\]"),
        ({"n_steps_input": 30}, WindowError, "too short"),
        ({"split": "validation"}, ArgumentError, "split='validation' is unknown"),
        ({"split": "valid"}, DataNotFoundError, "no such folder"),
    ],
)
def test_refusals(tree: Path, options: dict[str, Any], error: type[WellkitError], complaint: str) -> None:
    with pytest.raises(error, match=complaint):
        measure(tree, **options)


def test_cold_reads_of_what_is_not_local(tree: Path) -> None:
    import fsspec

    memory = fsspec.filesystem("memory")
    memory.put(str(tree), "/speed_tree", recursive=True)
    try:
        with pytest.raises(ArgumentError, match="cold reads can be measured of local shards only"):
            measure_speed("memory://speed_tree", batch_size=2, cold=True)
        report = measure_speed("memory://speed_tree", batch_size=2, workers=(0,), seconds=0.05)
        assert report.rows[0].samples_per_second > 0
        assert report.rows[0].roofline_share is None
    finally:
        memory.rm("/speed_tree", recursive=True)


def test_anonymous_memory_sees_what_is_held() -> None:
    # Straight from the system: an allocator may hand out memory that has counted for long.
    size = 50_000_000
    with mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as held:
        before = anonymous_memory()
        held[:: mmap.PAGESIZE] = b"x" * -(-size // mmap.PAGESIZE)
        after = anonymous_memory()
    assert before is not None
    assert after is not None
    assert after - before > 0.9 * size
