"""Compiled kernels against NumPy's, and when they are compiled and where they are kept."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.readers.local_shards import Stored, expected_window, same_bits, write_shard
from wellkit import compiled
from wellkit.readers import kernels, numpy_kernels
from wellkit.readers.local import LocalReader
from wellkit.readers.output import load_kernels, repeat


@given(st.binary(max_size=300), st.sampled_from([1, 2, 3, 4, 8]))
@settings(deadline=None)
def test_unshuffle(content: bytes, size: int) -> None:
    data = np.frombuffer(content, np.uint8)
    whole = len(content) // size * size
    shuffled = np.concatenate([data[:whole].reshape(-1, size).T.ravel(), data[whole:]])
    for module in (kernels, numpy_kernels):
        out = np.empty_like(data)
        module.unshuffle(shuffled, out, size)
        assert np.array_equal(out, data)


def test_unshuffle_undoes_what_libhdf5_does(tmp_path: Path) -> None:
    values = np.random.default_rng(0).standard_normal((7, 33)).astype("<f4")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        array = file.create_dataset("x", data=values, chunks=values.shape, shuffle=True)
        stored = np.frombuffer(array.id.read_direct_chunk((0, 0))[1], np.uint8)
    for module in (kernels, numpy_kernels):
        out = np.empty(values.nbytes, np.uint8)
        module.unshuffle(stored, out, 4)
        assert out.tobytes() == values.tobytes()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0",
        b"a",
        bytes(1000),
        b"\xff" * 2 * 65537,
        b"\xff\xff",
        b"\xff\xfe\x00\x01",  # sums to 65535, which is 0 modulo 65535 but not given as 0
        np.random.default_rng(1).bytes(200_001),
    ],
    ids=len,
)
def test_fletcher32_is_libhdf5s(tmp_path: Path, content: bytes) -> None:
    data = np.frombuffer(content, np.uint8)
    found = int(kernels.fletcher32(data))
    assert found == numpy_kernels.fletcher32(data)
    if content:
        with h5py.File(tmp_path / "a.h5", "w") as file:
            array = file.create_dataset("x", data=data, chunks=data.shape, fletcher32=True)
            stored = array.id.read_direct_chunk((0,))[1]
        assert found == int.from_bytes(stored[-4:], "little")


def test_fletcher32_of_an_example_by_hand() -> None:
    # Words 0x0102 and 0x0304: first = 0x0406, second = 0x0102 + 0x0406 = 0x0508.
    assert numpy_kernels.fletcher32(np.array([1, 2, 3, 4], np.uint8)) == 0x05080406


@pytest.mark.parametrize("streams", [False, True])
@pytest.mark.parametrize("counts", [(1,), (2,), (1, 1, 2), (1, 3, 3), (1, 2, 4, 4), (1,) * 9])
def test_channel_layouts(counts: tuple[int, ...], streams: bool) -> None:
    """Any number of channels, with a rest that fills no block or vector register: each lands where it belongs."""
    rng = np.random.default_rng(2)
    steps, points, total = 3, 2 * kernels.BLOCK + 75, sum(counts)
    sources = [rng.standard_normal((steps, points, count)).astype(np.float32) for count in counts]
    constants = rng.uniform(0.5, 2, (2, 2, total)).astype(np.float32)
    frames = np.array([[source[step].ctypes.data for step in range(steps)] for source in sources])
    dims = np.array([1, 1, points])
    strides = np.array([[0, 0, count, count] for count in counts])
    size = steps * points * total
    memory = np.full(size + points * total + 32, 9, np.float32)
    first = -memory.ctypes.data % kernels.LINE // 4 + (0 if streams else 1)
    out = memory[first : first + size].reshape(steps, points, total)
    n_input, split = 2, 1
    tail = out.ctypes.data + 4 * points * total
    kernels.gather_steps(
        out.ctypes.data, tail, split, frames, 0, 0, dims, strides, *constants, n_input, True, streams,
        tuple((0,) * n for n in counts),
    )  # fmt: skip
    values = np.concatenate(sources, axis=-1)
    assert same_bits(out[:2], (values[:2] - constants[0, 0]) / constants[1, 0])
    assert same_bits(out[2:3], (values[2:] - values[1:2] - constants[0, 1]) / constants[1, 1])
    assert np.all(memory[:first] == 9)
    assert np.all(memory[first + size :] == 9)


def test_divisions_are_not_replaced(tmp_path: Path) -> None:
    """(x - offset) / scale with values near the end of float32's range, where shortcuts overflow or lose digits."""
    shard = write_shard(tmp_path / "a.h5", [Stored(spatial=(True,))], space=(50,), seed=3)
    values = np.array([3e38, -3e38, 1e-45, 1e-38, np.nan, np.inf, -np.inf, 1 / 3], np.float32)
    with h5py.File(shard.path, "r+") as file:
        file["f0"][1, 2, :8] = values
    out = np.empty((1, 1, 50, 1), np.float32)
    LocalReader(compiled=True).read_windows([shard.request(1, 2, n_steps=1)], out)
    assert same_bits(out[0], expected_window(shard, shard.request(1, 2, n_steps=1)))


def _run(script: str) -> str:
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_numba_is_imported_on_the_first_read_only(tmp_path: Path) -> None:
    script = f"""
import sys
from pathlib import Path
import numpy as np
from wellkit.readers.local import LocalReader
from tests.readers.local_shards import Stored, write_shard
shard = write_shard(Path({str(tmp_path / "a.h5")!r}), [Stored()])
reader = LocalReader()
assert "numba" not in sys.modules
reader.read_windows([shard.request()], np.empty((1, 2, 8, 6, 1), np.float32))
assert "numba" in sys.modules
"""
    _run(script)


def test_without_numba_numpy_reads(tmp_path: Path) -> None:
    script = f"""
import sys
sys.modules["numba"] = None
from pathlib import Path
import numpy as np
from tests.readers.local_shards import Stored, expected_window, same_bits, write_shard
from wellkit.readers.local import LocalReader
stored = [Stored(), Stored(order=1, chunks=(1, 2, 3, 4, 1), filters=("shuffle", "gzip", "fletcher32"))]
shard = write_shard(Path({str(tmp_path / "a.h5")!r}), stored)
out = np.empty((1, 2, 8, 6, 3), np.float32)
LocalReader().read_windows([shard.request()], out)
assert same_bits(out[0], expected_window(shard, shard.request()))
try:
    LocalReader(compiled=True).read_windows([shard.request()], out)
except ImportError:
    print("refused")
"""
    assert _run(script) == "refused\n"


def test_kernels_are_kept_in_the_cache_where_the_package_cannot_be_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocked = tmp_path / "package" / "__pycache__"
    blocked.parent.mkdir()
    blocked.write_text("a file where a folder would be")
    source = tmp_path / "package" / "kernels.py"
    source.write_text("1")
    monkeypatch.setenv("WELLKIT_CACHE", str(tmp_path / "cache"))
    folder = compiled.compiled_folder([source])
    assert folder is not None
    assert folder.parent == tmp_path / "cache" / "numba"
    source.write_text("2")
    assert compiled.compiled_folder([source]) != folder  # other sources, another folder
    monkeypatch.setenv("WELLKIT_CACHE", str(blocked / "below"))
    assert compiled.compiled_folder([source]) is None


def test_which_kernels_are_taken() -> None:
    assert load_kernels(None) is kernels
    assert load_kernels(False) is numpy_kernels


@pytest.mark.parametrize("shape", [(96, 128, 2), (96, 129, 2), (7, 5), (0, 3), (150_000,)])
@pytest.mark.parametrize("offset", [0, 1, 16])
def test_copies_side_by_side(shape: tuple[int, ...], offset: int) -> None:
    size = int(np.prod(shape))
    values = np.arange(size + 1, dtype=np.float32)[1:].reshape(shape)
    memory = np.full(8 * size + 80, -1, np.float32)
    first = (-memory.ctypes.data % 64) // 4 + offset
    out = memory[first : first + 8 * size].reshape(8, *shape)
    repeat(values, out)
    np.testing.assert_array_equal(out, np.stack([values] * 8))
    assert (memory[:first] == -1).all()
    assert (memory[first + 8 * size :] == -1).all()
    other = np.empty(out.shape, np.float64)
    repeat(values, other)
    np.testing.assert_array_equal(other, out)
