"""The yardstick reads the bytes of a window: those, all of them, and no others."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from tests.trees import make_shard
from wellkit.errors import DataNotFoundError, ShardError
from wellkit.formats.well_writer import write_well_shard
from wellkit.index.hdf5 import index_shard
from wellkit.readers.plan import FieldPlan, WindowRequest
from wellkit.readers.roofline import Roofline, StoredWindow, drop_from_cache, stored_window

SPACE = (32, 24)


def request(path: Path, name: str, components: int, *, start: int, stride: int = 1, steps: int = 3) -> WindowRequest:
    ones = np.ones(components, np.float32)
    array = index_shard(path, inline_limit=100).arrays[name]
    plan = FieldPlan(array, 0, components, ones, ones, has_sample_axis=True, has_time_axis=True, spatial=(True, True))
    return WindowRequest(str(path), (plan,), 1, start, steps, stride, steps, (slice(None), slice(None)))


def test_a_contiguous_window_is_one_run_of_exactly_its_bytes(tmp_path: Path) -> None:
    path = tmp_path / "a.hdf5"
    write_well_shard(path, make_shard(plain=True, steps=9, resolution=SPACE))
    with h5py.File(path) as file:
        values = file["t1_fields/velocity"][1, 2:5]
        begin = file["t1_fields/velocity"].id.get_offset()
    found = stored_window(request(path, "t1_fields/velocity", 2, start=2), SPACE)
    frame = 32 * 24 * 2 * 4
    assert found.ranges == ((begin + (9 + 2) * frame, 3 * frame),)
    assert found.needed == found.nbytes == values.nbytes
    offset, size = found.ranges[0]
    assert path.read_bytes()[offset : offset + size] == values.tobytes()


def test_frames_apart_are_runs_of_their_own(tmp_path: Path) -> None:
    path = tmp_path / "a.hdf5"
    write_well_shard(path, make_shard(plain=True, steps=9, resolution=SPACE))
    found = stored_window(request(path, "t0_fields/density", 1, start=0, stride=3), SPACE)
    frame = 32 * 24 * 4
    first = found.ranges[0][0]
    assert found.ranges == tuple((first + 3 * step * frame, frame) for step in range(3))


def test_chunks_are_read_whole_and_needed_in_part(tmp_path: Path) -> None:
    path = tmp_path / "a.hdf5"
    shard = make_shard(plain=True, steps=9, resolution=SPACE)
    write_well_shard(path, shard, chunks={"density": (1, 4, 32, 24), "velocity": (1, 1, 32, 24, 2)}, compression="gzip")
    with h5py.File(path) as file:
        array = file["t0_fields/density"].id
        chunks = [array.get_chunk_info_by_coord((1, frame, 0, 0)) for frame in (0, 4)]
    found = stored_window(request(path, "t0_fields/density", 1, start=2, steps=5), SPACE)
    # frames 2, 3 of the first chunk, 4, 5, 6 of the second
    assert found.nbytes == chunks[0].size + chunks[1].size
    assert sorted(found.ranges) == found_as_runs(chunks)
    assert found.needed == pytest.approx(chunks[0].size * 2 / 4 + chunks[1].size * 3 / 4)


def found_as_runs(chunks: list[h5py.h5d.StoreInfo]) -> list[tuple[int, int]]:
    first, second = ((chunk.byte_offset, chunk.size) for chunk in chunks)
    if sum(first) == second[0]:
        return [(first[0], first[1] + second[1])]
    return sorted([first, second])


def test_a_range_beyond_the_end_is_told(tmp_path: Path) -> None:
    path = tmp_path / "short"
    path.write_bytes(b"x" * 100)
    windows = [StoredWindow(str(path), ((10, 20), (90, 20)), 40)]
    with pytest.raises(ShardError, match="short: bytes 90 to 110 were asked for, the file ends at 100"):
        Roofline(windows).read(windows)


def test_forgetting_a_file_that_is_not_there(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.write_bytes(b"x" * 5000)
    drop_from_cache([str(kept)])
    assert kept.read_bytes() == b"x" * 5000
    with pytest.raises(DataNotFoundError, match="gone: no such file"):
        drop_from_cache([str(kept), str(tmp_path / "gone")])
