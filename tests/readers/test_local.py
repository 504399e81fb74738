"""Every way of reading a window gives what h5py and NumPy give, to the last bit."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.readers.local_shards import Shard, Stored, expected_window, same_bits, write_shard
from wellkit.errors import ArgumentError, DataNotFoundError
from wellkit.index.model import ArrayIndex
from wellkit.readers import inflate, pieces
from wellkit.readers.local import LocalReader
from wellkit.readers.plan import FieldPlan, WindowRequest

READERS = {
    "mmap": {"source": "mmap"},
    "pread": {"source": "pread"},
    "auto": {"source": "auto", "threads": 3},
    "numpy": {"compiled": False, "threads": 2},
}


def read(reader: LocalReader, requests: list[WindowRequest], shape: tuple[int, ...], dtype: Any = np.float32) -> Any:
    """The windows, read into the middle of a larger buffer, of which nothing else may change."""
    buffer = np.full((len(requests), shape[0] + 2, *shape[1:]), 7.25, dtype)
    reader.read_windows(requests, buffer[:, 1:-1])
    assert np.all(buffer[:, 0] == 7.25)
    assert np.all(buffer[:, -1] == 7.25)
    return buffer[:, 1:-1]


def check(shard: Shard, requests: list[WindowRequest], dtype: Any = np.float32) -> None:
    """All readers against the reference."""
    expected = np.stack([expected_window(shard, request, dtype) for request in requests])
    for name, options in READERS.items():
        found = read(LocalReader(**options), requests, expected.shape[1:], dtype)  # type: ignore[arg-type]
        assert same_bits(found, expected), name


@st.composite
def fields(draw: st.DrawFn, order: int, n_dims: int, plain: bool) -> Stored:
    field = Stored(
        order=order,
        dtype="<f4" if plain else draw(st.sampled_from(["<f4", "<f4", "<f8", "<f2", "<i4", "<i2", "|u1"])),
        has_sample_axis=draw(st.booleans()),
        has_time_axis=plain or draw(st.booleans()),
        spatial=tuple(draw(st.lists(st.booleans(), min_size=n_dims, max_size=n_dims))),
        keeps_ones=draw(st.booleans()),
        written=draw(st.sampled_from([1.0, 1.0, 0.5, 0.0])),
    )
    if draw(st.booleans()):
        return field
    rank = len(field.shape(1, 1, (2,) * n_dims))
    chunks = tuple(draw(st.lists(st.integers(1, 6), min_size=rank, max_size=rank)))
    filters = tuple(draw(st.lists(st.sampled_from(["shuffle", "gzip", "fletcher32"]), unique=True)))
    return Stored(**{**field.__dict__, "chunks": chunks or None, "filters": filters if chunks else ()})


@st.composite
def cases(draw: st.DrawFn) -> dict[str, Any]:
    n_dims = draw(st.integers(1, 3))
    space = tuple(draw(st.lists(st.integers(1, 7), min_size=n_dims, max_size=n_dims)))
    plain = draw(st.booleans())
    steps, stride = draw(st.integers(3, 9)), draw(st.integers(1, 3))
    n_steps = draw(st.integers(1, (steps - 1) // stride + 1))
    trajectories = draw(st.integers(1, 3))
    windows = draw(
        st.lists(
            st.tuples(st.integers(0, trajectories - 1), st.integers(0, steps - 1 - (n_steps - 1) * stride)),
            min_size=1,
            max_size=4,
        )
    )
    crop = []
    for size in space:
        first = draw(st.integers(0, size - 1))
        crop.append(slice(first, draw(st.integers(first + 1, size)), draw(st.sampled_from([None, 1, 2, 3]))))
    whole = draw(st.booleans())
    return {
        "stored": [draw(fields(order, n_dims, plain)) for order in (0, 1)],
        "shard": {
            "trajectories": trajectories,
            "steps": steps,
            "space": space,
            "delta": draw(st.booleans()),
            "seed": draw(st.integers(0, 99)),
            "inline_limit": draw(st.sampled_from([0, 0, 1 << 16])),
        },
        "windows": windows,
        "request": {
            "n_steps": n_steps,
            "stride": stride,
            "n_input": draw(st.integers(1, n_steps)),
            "crop": (slice(None),) * n_dims if whole else tuple(crop),
        },
        "dtype": draw(st.sampled_from([np.float32, np.float32, np.float64])),
    }


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(cases())
def test_any_window_of_any_shard(case: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        shard = write_shard(Path(folder) / "a.h5", case["stored"], **case["shard"])
        requests = [shard.request(trajectory, start, **case["request"]) for trajectory, start in case["windows"]]
        check(shard, requests, case["dtype"])


SCALAR_AND_VECTOR = (Stored(), Stored(order=1))
FILTERS = ("shuffle", "gzip", "fletcher32")


def chunked(*chunks: int, filters: tuple[str, ...] = FILTERS) -> tuple[Stored, ...]:
    """A scalar and a vector field in chunks of these sizes along trajectory, time and space."""
    return (
        Stored(chunks=chunks, filters=filters),
        Stored(order=1, chunks=(*chunks, len(chunks) - 2), filters=filters),
    )


@pytest.mark.parametrize(
    "stored",
    [
        SCALAR_AND_VECTOR,
        chunked(1, 1, 40, 30),
        chunked(1, 1, 40, 30, filters=()),
        chunked(2, 3, 40, 30),
        chunked(1, 6, 16, 30),
        chunked(1, 2, 7, 11),
        chunked(1, 1, 64, 64, filters=("gzip",)),
    ],
    ids=lambda stored: f"{stored[0].chunks} {'+'.join(stored[0].filters)}",
)
@pytest.mark.parametrize("delta", [False, True])
def test_windows_larger_than_vector_registers_and_pages(
    tmp_path: Path, stored: tuple[Stored, ...], delta: bool
) -> None:
    shard = write_shard(tmp_path / "a.h5", stored, space=(40, 30), trajectories=3, steps=7, delta=delta)
    crops = [
        (slice(None), slice(None)),
        (slice(3, 37), slice(None)),
        (slice(None), slice(5, 26)),
        (slice(1, 40, 3), slice(0, 29, 2)),
    ]
    for crop in crops:
        for stride in (1, 2):
            requests = [
                shard.request(trajectory, start, n_steps=3, stride=stride, n_input=2, crop=crop)
                for trajectory, start in [(0, 0), (2, 1), (0, 2), (1, 2)]
            ]
            check(shard, requests)


def test_points_and_axes_of_one_point(tmp_path: Path) -> None:
    """A frame of one point still lies beside the next; (1, 2, 1, 3) is (x, y, z, component), not (y, z, 1, 3)."""
    point = (Stored(spatial=(False,)), Stored(order=1, spatial=(False,)))
    shard = write_shard(tmp_path / "a.h5", point, space=(1,))
    check(shard, [shard.request(n_steps=4)])
    thin = (
        Stored(spatial=(False,) * 3),
        Stored(1, "<f4", False, False, spatial=(False, True, True), keeps_ones=True),
    )
    shard = write_shard(tmp_path / "b.h5", thin, space=(1, 2, 1))
    check(shard, [shard.request()])


def test_a_window_read_in_many_tiles(tmp_path: Path) -> None:
    """Frames of 1.2 MB: rows, and parts of rows, do not fit into a tile together."""
    for space in ((320, 320), (2, 51200)):
        shard = write_shard(tmp_path / "a.h5", SCALAR_AND_VECTOR, space=space, trajectories=1, steps=3, delta=True)
        whole = (slice(None), slice(None))
        part = (slice(1, None), slice(7, -9))
        sparse = (slice(None), slice(0, 20))
        for crop in (whole, part, sparse):
            for n_input in (1, 3):
                check(shard, [shard.request(0, 0, n_steps=3, n_input=n_input, crop=crop)])


def test_windows_of_several_shards_and_tensors(tmp_path: Path) -> None:
    stored = (Stored(), Stored(order=2), Stored(order=1, spatial=(False, True)))
    shards = [write_shard(tmp_path / f"{n}.h5", stored, seed=n, steps=5 + n) for n in range(3)]
    requests = [shards[n].request(n % 2, n, n_steps=3) for n in (2, 0, 1)]
    out = np.empty((3, 3, 8, 6, 7), np.float32)
    LocalReader().read_windows(requests, out)
    for n, window in zip((2, 0, 1), out, strict=True):
        assert same_bits(window, expected_window(shards[n], shards[n].request(n % 2, n, n_steps=3)))


def test_constant_fields(tmp_path: Path) -> None:
    stored = (
        Stored(has_sample_axis=False, has_time_axis=False),
        Stored(order=1, has_time_axis=False, spatial=(True, False)),
    )
    shard = write_shard(tmp_path / "a.h5", stored)
    out = np.empty((8, 6, 3), np.float32)
    LocalReader().read_constant(shard.path, shard.fields, 1, (slice(None), slice(None)), out)
    assert same_bits(out, expected_window(shard, shard.request(1, 0, n_steps=1))[0])


def test_an_array_at_an_odd_offset(tmp_path: Path) -> None:
    values = np.arange(2 * 3 * 40, dtype="<f4").reshape(2, 3, 40)
    path = tmp_path / "odd.bin"
    path.write_bytes(b"abc" + values.tobytes())
    array = ArrayIndex("x", values.shape, "<f4", "contiguous", values.shape, offset=3)
    one = np.ones(1, np.float32)
    plan = FieldPlan(array, 0, 1, one, one, True, True, (True,))
    for options in READERS.values():
        out = np.empty((1, 3, 40, 1), np.float32)
        request = WindowRequest(str(path), (plan,), 1, 0, 3, 1, 3, (slice(None),))
        LocalReader(**options).read_windows([request], out)  # type: ignore[arg-type]
        assert np.array_equal(out[0, ..., 0], values[1] - 1)


def test_each_chunk_is_decoded_once_a_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shard = write_shard(tmp_path / "a.h5", chunked(1, 2, 8, 3), trajectories=2, steps=8)
    decoded: list[tuple[str, int]] = []
    real = inflate.decode_chunk

    def decode(file: Any, array: ArrayIndex, number: int, *rest: Any) -> Any:
        decoded.append((array.name, number))
        return real(file, array, number, *rest)

    monkeypatch.setattr(pieces, "decode_chunk", decode)
    # Frames 1..3, 2..4, 1..3 again and 3..5 of one trajectory: frames 1 to 5, in time chunks 0, 1 and 2.
    requests = [shard.request(0, start, n_steps=3) for start in (1, 2, 1, 3)]
    for threads in (1, 4):
        decoded.clear()
        out = np.empty((4, 3, 8, 6, 3), np.float32)
        LocalReader(threads=threads).read_windows(requests, out)
        per_frame = 2  # chunks of 3 of 6 columns
        assert sorted(decoded) == sorted({*decoded})
        assert len(decoded) == 3 * per_frame * 2
        assert same_bits(out, np.stack([expected_window(shard, request) for request in requests]))


def test_memory_of_chunks_is_let_go_as_the_batch_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shard = write_shard(tmp_path / "a.h5", chunked(1, 1, 8, 6, filters=("gzip", "shuffle")), trajectories=1, steps=60)
    held = peak = 0
    real_finish, real_release = pieces.Pieces._finish, pieces.Pieces.release

    def finish(self: Any, piece: Any, buffer: Any) -> None:
        nonlocal held, peak
        held += 1
        peak = max(peak, held)
        real_finish(self, piece, buffer)

    def release(self: Any, used: Any) -> None:
        nonlocal held
        held -= sum(piece.users == 1 for piece in used)
        real_release(self, used)

    monkeypatch.setattr(pieces.Pieces, "_finish", finish)
    monkeypatch.setattr(pieces.Pieces, "release", release)
    requests = [shard.request(0, start, n_steps=30) for start in (30, 0, 15)]
    LocalReader(threads=1).read_windows(requests, np.empty((3, 30, 8, 6, 3), np.float32))
    assert held == 0
    assert peak <= 4  # a frame's two chunks, whatever the length of the windows


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"trajectory": 2}, "no trajectory 2 with"),
        ({"trajectory": -1}, "no trajectory -1 with"),
        ({"start": 5}, "frames 5 to 6"),
        ({"start": -1}, "frames -1 to 0"),
        ({"n_steps": 3}, "3 steps"),
        ({"stride": 0}, "stride 0"),
        ({"crop": (slice(0, 4), slice(None))}, r"fill an output of \(8, 6\)"),
        ({"crop": (slice(None, None, -1), slice(None))}, r"fill an output of \(8, 6\)"),
    ],
)
def test_requests_that_do_not_fit(tmp_path: Path, changes: dict[str, Any], told: str) -> None:
    shard = write_shard(tmp_path / "a.h5", SCALAR_AND_VECTOR)
    with pytest.raises(ArgumentError, match=told):
        LocalReader().read_windows([shard.request(**changes)], np.empty((1, 2, 8, 6, 3), np.float32))


@pytest.mark.parametrize(
    "out",
    [
        np.empty((2, 2, 8, 6, 3), np.float32),
        np.empty((1, 2, 8, 6, 4), np.float32),
        np.empty((1, 2, 8, 6, 3), np.int32),
        np.empty((1, 2, 8, 6, 6), np.float32)[..., ::2],
        np.empty((1, 2, 48, 3), np.float32),
        np.broadcast_to(np.float32(0), (1, 2, 8, 6, 3)),
    ],
    ids=["windows", "channels", "integers", "strided", "axes", "read-only"],
)
def test_outputs_that_do_not_fit(tmp_path: Path, out: np.ndarray) -> None:
    shard = write_shard(tmp_path / "a.h5", SCALAR_AND_VECTOR)
    with pytest.raises(ArgumentError):
        LocalReader().read_windows([shard.request()], out)


def test_arrays_that_only_libhdf5_reads_are_refused(tmp_path: Path) -> None:
    array = ArrayIndex("x", (2, 3, 4), ">f4", "fallback", (2, 3, 4), reason="big-endian")
    one = np.ones(1, np.float32)
    plan = FieldPlan(array, 0, 1, one, one, True, True, (True,))
    request = WindowRequest(str(tmp_path / "x"), (plan,), 0, 0, 2, 1, 2, (slice(None),))
    with pytest.raises(ArgumentError, match="libhdf5 only"):
        LocalReader().read_windows([request], np.empty((1, 2, 4, 1), np.float32))


def test_bad_options_and_missing_files(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="source='map'"):
        LocalReader(source="map")  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="threads=0"):
        LocalReader(threads=0)
    shard = write_shard(tmp_path / "a.h5", SCALAR_AND_VECTOR)
    Path(shard.path).unlink()
    with pytest.raises(DataNotFoundError, match=r"a\.h5"):
        LocalReader().read_windows([shard.request()], np.empty((1, 2, 8, 6, 3), np.float32))
