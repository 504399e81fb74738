"""Batches of compressed chunks that one kernel reads: which they are, in what order and memory, and what goes wrong."""

from __future__ import annotations

import multiprocessing
import os
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.readers.local_shards import Shard, Stored, expected_window, same_bits, write_shard
from wellkit.errors import ShardError
from wellkit.index.hdf5 import index_shard
from wellkit.index.model import Codec
from wellkit.readers import chunk_kernels, chunked, decoding, local
from wellkit.readers.chunked import ChunkedWindow
from wellkit.readers.inflate import libdeflate
from wellkit.readers.local import LocalReader
from wellkit.readers.plan import FieldPlan, WindowRequest

ALL = ("shuffle", "gzip", "fletcher32")
SPACE = (40, 30)


def fields(*chunks: int, filters: tuple[str, ...] = ALL) -> tuple[Stored, Stored]:
    """A scalar and a vector field in chunks of these sizes along trajectory, time and space."""
    return Stored(chunks=chunks, filters=filters), Stored(order=1, chunks=(*chunks, 2), filters=filters)


class Watch:
    """What the kernel was given, and the windows that it left to others."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.pieces: list[np.ndarray] = []
        self.plans: list[Any] = []
        self.left = 0
        plan, slow = decoding._plan, chunked.read_chunked

        def watch_plan(*arguments: Any) -> Any:
            self.plans.append(plan(*arguments))
            self.pieces.append(self.plans[-1].pieces)
            return self.plans[-1]

        def watch_slow(windows: Any, *rest: Any) -> None:
            self.left += len(windows)
            slow(windows, *rest)

        monkeypatch.setattr(decoding, "_plan", watch_plan)
        monkeypatch.setattr(local, "read_chunked", watch_slow)


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Watch:
    return Watch(monkeypatch)


def read(shard: Shard, requests: list[WindowRequest], shape: tuple[int, ...], **options: Any) -> np.ndarray:
    """Windows read into the middle of larger memory, of which nothing else may change."""
    memory = np.full((len(requests), shape[0] + 2, *shape[1:]), 7.25, np.float32)
    LocalReader(**options).read_windows(requests, memory[:, 1:-1])
    assert np.all(memory[:, 0] == 7.25)
    assert np.all(memory[:, -1] == 7.25)
    return memory[:, 1:-1]


def check(shard: Shard, requests: list[WindowRequest], **options: Any) -> None:
    expected = np.stack([expected_window(shard, request) for request in requests])
    assert same_bits(read(shard, requests, expected.shape[1:], **options), expected)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("delta", [False, True])
@pytest.mark.parametrize(
    "stored",
    [
        *(
            fields(1, 1, *SPACE, filters=filters)
            for filters in (ALL, ("gzip",), ("shuffle",), ("fletcher32",), ("shuffle", "gzip"), ("gzip", "fletcher32"))
        ),
        fields(1, 3, *SPACE),
        fields(2, 2, *SPACE),
        fields(1, 2, 64, 64),
        (Stored(), *fields(1, 1, *SPACE)),  # one of them as it is
        (Stored(chunks=(1, 4, *SPACE), filters=ALL), fields(1, 1, *SPACE)[1]),  # one changes less often
        (Stored(1, "<f4", True, False, chunks=(1, *SPACE, 2), filters=ALL), fields(1, 1, *SPACE)[0]),  # or never
        (Stored(chunks=(1, 1, *SPACE), filters=ALL, written=0.4),),  # chunks that are missing
    ],
    ids=lambda stored: " ".join(f"{field.chunks}{'+'.join(field.filters)}" for field in stored),
)
def test_the_kernel_reads_what_libhdf5_reads(
    tmp_path: Path, watch: Watch, stored: tuple[Stored, ...], delta: bool, threads: int
) -> None:
    shard = write_shard(tmp_path / "a.h5", stored, space=SPACE, trajectories=3, steps=9, delta=delta)
    whole = (slice(None), slice(None))
    windows = [(0, 0), (2, 1), (0, 2), (1, 2), (0, 0), (2, 4)]
    for crop in (whole, (slice(3, 37), slice(5, 26)), (slice(1, 40, 3), slice(0, 29, 2))):
        for stride in (1, 2):
            requests = [
                shard.request(trajectory, start, n_steps=3, stride=stride, n_input=2, crop=crop)
                for trajectory, start in windows
            ]
            check(shard, requests, threads=threads)
    assert watch.left == 0 or threads > 1  # for few groups of chunks there are better ways to share the work
    assert watch.plans


def test_other_layouts_go_another_way(tmp_path: Path, watch: Watch) -> None:
    spread = fields(1, 1, 20, 30)
    double = (Stored(dtype="<f8", chunks=(1, 1, *SPACE), filters=ALL),)
    for stored in (spread, double):
        shard = write_shard(tmp_path / "a.h5", stored, space=SPACE)
        check(shard, [shard.request(0, 1, n_steps=3), shard.request(1, 2, n_steps=3)])
    assert watch.left == 4
    assert not watch.plans


def test_unusual_codecs_go_another_way() -> None:
    shuffle, deflate, checksum = Codec("shuffle", 4), Codec("deflate", 0), Codec("fletcher32", 0)
    assert decoding._bits((shuffle, deflate, checksum)) == (1, 2, 4)
    assert decoding._bits((deflate, shuffle)) is None
    assert decoding._bits((checksum, deflate)) is None
    assert decoding._bits((deflate, deflate)) is None
    assert decoding._bits((Codec("shuffle", 8), deflate)) is None
    assert (chunk_kernels.SHUFFLED, chunk_kernels.DEFLATED, chunk_kernels.SUMMED) == (1, 2, 4)


def test_where_libdeflate_does_not_show_its_functions(
    tmp_path: Path, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard = write_shard(tmp_path / "a.h5", fields(1, 1, *SPACE), space=SPACE)
    monkeypatch.setattr(decoding, "libdeflate", lambda: None)
    check(shard, [shard.request(0, 1, n_steps=3)])
    assert watch.left == 1
    assert not watch.plans


def test_each_chunk_is_decoded_once_a_batch(tmp_path: Path, watch: Watch) -> None:
    # Frames 1..3, 2..4, 1..3 again and 5..7: frames 1 to 7, in chunks of two frames 0, 1, 2 and 3.
    for per_chunk, chunks in ((1, slice(1, 8)), (2, slice(0, 4))):
        shard = write_shard(tmp_path / "a.h5", fields(1, per_chunk, *SPACE), space=SPACE, steps=9)
        check(shard, [shard.request(0, start, n_steps=3) for start in (1, 2, 1, 5)], threads=1)
        places = watch.pieces[-1][:, chunk_kernels.OFFSET].tolist()
        needed = [place for plan in shard.fields for place in plan.array.offsets[chunks].tolist()]
        assert sorted(places) == sorted(needed)
    assert watch.left == 0


def test_memory_does_not_grow_with_the_length_of_windows(tmp_path: Path, watch: Watch) -> None:
    frame = 4 * 40 * 30
    for delta, frames in ((False, 1), (True, 2)):
        shard = write_shard(tmp_path / "a.h5", fields(1, 1, *SPACE), space=SPACE, trajectories=1, steps=60, delta=delta)
        requests = [shard.request(0, start, n_steps=30, n_input=10) for start in (30, 0, 15)]
        check(shard, requests, threads=1)
        assert watch.plans[-1].slots == frames * 3 * frame


@st.composite
def places(draw: st.DrawFn) -> tuple[Any, int, list[int]]:
    """Pieces of windows: each field keeps a piece for some frames, or some trajectories."""
    windows, steps = draw(st.integers(1, 5)), draw(st.integers(1, 6))
    kept = draw(st.lists(st.tuples(st.integers(1, 5), st.integers(1, 3)), min_size=1, max_size=3))
    starts = np.array([[draw(st.integers(0, 6))] for _ in range(windows)])
    trajectories = np.array([[draw(st.integers(0, 3))] for _ in range(windows)])
    files = np.array([[draw(st.integers(0, 1))] for _ in range(windows)])
    frames = starts + np.arange(steps) * draw(st.integers(1, 2))
    columns: dict[str, list[np.ndarray]] = {name: [] for name in decoding._Places._fields}
    sizes = []
    for field, (per_frames, per_trajectories) in enumerate(kept):
        number = trajectories // per_trajectories * 100 + frames // per_frames
        inner = 4 * (frames % per_frames) + 4 * per_frames * (trajectories % per_trajectories)
        sizes.append(draw(st.sampled_from([64, 128, 192])))
        values = {"source": 10 * files + field, "place": number, "file": files, "inner": inner}
        values |= {"offset": 1000 * field + number, "stored": 10 + field, "decoded": sizes[-1]}
        for name, column in columns.items():
            column.append(np.broadcast_to(values.get(name, 0), frames.shape))
    found = decoding._Places(*(np.stack(column, axis=-1).astype(np.int64) for column in columns.values()))
    return found, draw(st.integers(1, steps)), sizes


@settings(deadline=None, max_examples=300)
@given(places())
def test_plans_followed_step_by_step(case: tuple[decoding._Places, int, list[int]]) -> None:
    """Whatever thread takes which task: all that a step needs lies where it looks, and nothing is read twice."""
    where, n_input, sizes = case
    n_windows, n_steps, n_fields = where.place.shape
    plan = decoding._plan(where, n_input)
    done: set[tuple[int, int]] = set()
    read = 0
    assert plan.tasks[0] == 0
    assert plan.tasks[-1] == n_windows * n_steps
    for task in range(len(plan.tasks) - 1):
        memory: dict[int, tuple[int, ...]] = {}  # by slot: what lies there
        for unit in range(plan.tasks[task], plan.tasks[task + 1]):
            for number in range(plan.units[unit, 2], plan.units[unit + 1, 2]):
                piece = plan.pieces[number]
                slot, size = int(piece[chunk_kernels.SLOT]), int(piece[chunk_kernels.DECODED])
                assert 0 <= slot <= plan.slots - size
                for other, (_, _, length) in list(memory.items()):
                    if other < slot + size and slot < other + length:
                        del memory[other]
                memory[slot] = (int(piece[chunk_kernels.FILE]), int(piece[chunk_kernels.OFFSET]), size)
                read += 1
            window, step = int(plan.units[unit, 0]), int(plan.units[unit, 1])
            done.add((window, step))
            for field in range(n_fields):
                for column, at in ((1, step), (0, step - (step >= n_input))):
                    entry = (window, at, field)
                    slot = int(plan.frames[unit, field, column] - where.inner[entry])
                    assert memory[slot] == (where.file[entry], where.offset[entry], sizes[field])
    assert len(done) == n_windows * n_steps
    assert read == len(plan.pieces) == len({*zip(where.source.flat, where.place.flat, strict=True)})


def test_tasks_are_as_many_as_can_be() -> None:
    """Frames that share nothing can be read by different threads; differences tie a step to the one before."""
    zeros = np.zeros((1, 5, 1), np.int64)
    frames = np.arange(5).reshape(1, 5, 1)
    where = decoding._Places(zeros, frames, zeros, frames, zeros, zeros + 64, zeros, zeros, zeros)
    assert decoding._plan(where, 5).tasks.tolist() == [0, 1, 2, 3, 4, 5]
    assert decoding._plan(where, 3).tasks.tolist() == [0, 1, 2, 5]
    assert decoding._plan(where._replace(place=frames // 2), 5).tasks.tolist() == [0, 2, 4, 5]


def damaged(shard: Shard, number: int, offset: int, size: int) -> Shard:
    """The shard with an index that says otherwise of one chunk of its first field."""
    array = shard.fields[0].array
    offsets, sizes = array.offsets.copy(), array.sizes.copy()
    offsets[number], sizes[number] = offset, size
    plan = replace(shard.fields[0], array=replace(array, offsets=offsets, sizes=sizes))
    return replace(shard, fields=(plan, *shard.fields[1:]))


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_one_bad_chunk_of_many(tmp_path: Path, threads: int) -> None:
    shard = write_shard(tmp_path / "bad.h5", fields(1, 1, *SPACE), space=SPACE, trajectories=2, steps=20)
    array = shard.fields[1].array
    number = array.chunk_number((1, 13, 0, 0, 0))
    place, size = int(array.offsets[number]), int(array.sizes[number])
    content = bytearray(Path(shard.path).read_bytes())
    requests = [shard.request(trajectory, start, n_steps=5) for trajectory in (0, 1) for start in (0, 5, 11)]
    for at in np.linspace(0, size - 1, 20).astype(int):
        content[place + at] ^= 0x20
        Path(shard.path).write_bytes(content)
        with pytest.raises(ShardError, match=rf"bad\.h5: chunk {number} of array 'f1' at byte {place} cannot be deco"):
            read(shard, requests, (5, *SPACE, 3), threads=threads)
        content[place + at] ^= 0x20
    Path(shard.path).write_bytes(content)
    check(shard, requests, threads=threads)


@pytest.mark.parametrize(
    "stream",
    [
        zlib.compress(bytes(4 * 1200 + 1)),  # one byte too many
        zlib.compress(bytes(4 * 1200 - 1)),
        zlib.compress(bytes(50_000_000)),
        zlib.compress(bytes(4 * 1200))[:-1],
        zlib.compress(np.random.default_rng(0).bytes(4 * 1200))[:1000],
        b"\x78",
        b"\x78\x9c",
    ],
    ids=["longer", "shorter", "bomb", "no end", "cut", "one byte", "a header"],
)
def test_streams_that_are_no_chunk(tmp_path: Path, stream: bytes) -> None:
    shard = write_shard(tmp_path / "odd.h5", fields(1, 1, *SPACE, filters=("shuffle", "gzip")), space=SPACE)
    place = os.path.getsize(shard.path)
    with open(shard.path, "ab") as file:
        file.write(stream + bytes(16))
    number = shard.fields[0].array.chunk_number((1, 4, 0, 0))
    bad = damaged(shard, number, place, len(stream))
    with pytest.raises(ShardError, match=rf"odd\.h5: chunk {number} of array 'f0'"):
        read(bad, [bad.request(0, 2, n_steps=3), bad.request(1, 2, n_steps=3)], (3, *SPACE, 3))


@pytest.mark.parametrize(("offset", "size"), [(1 << 40, 100), (100, 1 << 50), (-7, 100), (100, -5), (1 << 62, 1 << 62)])
def test_an_index_that_points_nowhere(tmp_path: Path, watch: Watch, offset: int, size: int) -> None:
    """The kernel is not called, and takes no memory for what cannot be there."""
    shard = write_shard(tmp_path / "a.h5", fields(1, 1, *SPACE), space=SPACE)
    bad = damaged(shard, 3, offset, size)
    batch = decoding._Batch([_window(bad, bad.request(0, 2, n_steps=3))], [bad.path], [local._FILES.hold(bad.path)])
    local._FILES.let_go(bad.path, batch._files[0])
    assert not batch.read(1)
    assert not watch.plans


def _window(shard: Shard, request: WindowRequest) -> Any:
    out = np.empty((request.n_steps, *SPACE, 3), np.float32)
    geometry = LocalReader()._geometries.find(request, request.n_steps, SPACE, 3)
    return ChunkedWindow(request, geometry, out, out[:0])


def test_a_filter_left_out_for_some_chunks(tmp_path: Path, watch: Watch) -> None:
    path = tmp_path / "mask.h5"
    write_shard(path, [Stored(chunks=(1, 1, *SPACE), filters=("shuffle", "gzip"))], space=SPACE)
    values = np.arange(1200, dtype="<f4").reshape(1, 1, *SPACE)
    planes = values.view(np.uint8).reshape(-1, 4).T.tobytes()
    with h5py.File(path, "r+") as file:
        chunks = file["f0"].id
        chunks.write_direct_chunk((0, 1, 0, 0), values.tobytes(), filter_mask=0b11)
        chunks.write_direct_chunk((0, 2, 0, 0), zlib.compress(values.tobytes()), filter_mask=0b01)
        chunks.write_direct_chunk((0, 3, 0, 0), planes, filter_mask=0b10)
    one, zero = np.ones(1, np.float32), np.zeros(1, np.float32)
    plan = FieldPlan(index_shard(path, inline_limit=0).arrays["f0"], 0, 1, zero, one, True, True, (True, True))
    shard = Shard(str(path), (plan,), (Stored(),), 2, 6, SPACE)
    found = read(shard, [shard.request(0, 0, n_steps=5)], (5, *SPACE, 1), threads=1)
    assert np.array_equal(found[0, 1:4, ..., 0], np.repeat(values[0], 3, axis=0))
    assert same_bits(found[0], expected_window(shard, shard.request(0, 0, n_steps=5)))
    assert watch.left == 0


def test_more_files_than_are_held_open_at_once(tmp_path: Path, watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "_FILES_AT_ONCE", 2)
    shards = [write_shard(tmp_path / f"{n}.h5", fields(1, 1, *SPACE), space=SPACE, seed=n) for n in range(5)]
    first = shards[0].fields  # one normalization for all: what differs in it is read apart
    for number, shard in enumerate(shards):
        plans = [replace(own, array=plan.array) for own, plan in zip(first, shard.fields, strict=True)]
        shards[number] = replace(shard, fields=tuple(plans))
    chosen = [3, 0, 4, 0, 1, 2, 3]
    requests = [shards[n].request(n % 2, number % 3, n_steps=3) for number, n in enumerate(chosen)]
    out = np.empty((len(chosen), 3, *SPACE, 3), np.float32)
    LocalReader(threads=1).read_windows(requests, out)
    for n, request, window in zip(chosen, requests, out, strict=True):
        assert same_bits(window, expected_window(shards[n], request))
    assert len(watch.plans) == 3
    assert watch.left == 0


def test_memory_that_a_thread_keeps() -> None:
    memory = decoding._Memory()
    first = memory.take(1000)
    assert first.ctypes.data % 64 == 0
    assert first.size >= 1000
    assert memory.take(900).ctypes.data == first.ctypes.data
    large = memory.take(decoding._KEPT)
    assert large.ctypes.data % 64 == 0
    assert memory.take(900).ctypes.data == first.ctypes.data  # what is large is not kept
    assert memory.decompressor() == memory.decompressor() != 0


def test_libdeflate_shows_its_functions() -> None:
    """On the systems that the wheels of `deflate` are for, but Windows."""
    assert libdeflate() is not None


def _read_in_child(shard: Shard, requests: list[WindowRequest], ends: Any) -> None:
    out = np.empty((len(requests), 3, *SPACE, 3), np.float32)
    LocalReader(threads=2).read_windows(requests, out)
    ends.send_bytes(out.tobytes())


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_in_a_child_process(tmp_path: Path, method: str) -> None:
    """After the parent has read: decompressors and memory of its threads are no concern of a forked child's."""
    shard = write_shard(tmp_path / "a.h5", fields(1, 1, *SPACE), space=SPACE)
    requests = [shard.request(0, 1, n_steps=3), shard.request(1, 2, n_steps=3)]
    check(shard, requests, threads=2)
    context: Any = multiprocessing.get_context(method)
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_read_in_child, args=(shard, requests, sender))
    child.start()
    assert receiver.poll(120)
    found = np.frombuffer(receiver.recv_bytes(), np.float32).reshape(2, 3, *SPACE, 3)
    child.join(30)
    assert child.exitcode == 0
    assert same_bits(found, np.stack([expected_window(shard, request) for request in requests]))
