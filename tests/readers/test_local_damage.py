"""Files that are not what was indexed end in a ShardError that names them; nothing crashes."""

from __future__ import annotations

import os
import subprocess
import sys
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from tests.readers.local_shards import Shard, Stored, expected_window, same_bits, write_shard
from wellkit.errors import ShardError
from wellkit.index.hdf5 import index_shard
from wellkit.readers.local import LocalReader
from wellkit.readers.plan import FieldPlan

FILTERS = ("shuffle", "gzip", "fletcher32")
OUT = (1, 2, 8, 6, 1)


def read(shard: Shard, **options: Any) -> np.ndarray:
    out = np.empty(OUT, np.float32)
    LocalReader(**options).read_windows([shard.request(1, 4)], out)
    return out


def moved(shard: Shard, number: int, offset: int, size: int) -> Shard:
    """The shard with an index that says otherwise of one chunk."""
    array = shard.fields[0].array
    offsets, sizes = array.offsets.copy(), array.sizes.copy()
    offsets[number], sizes[number] = offset, size
    plan = replace(shard.fields[0], array=replace(array, offsets=offsets, sizes=sizes))
    return replace(shard, fields=(plan,))


@pytest.mark.parametrize("options", [{"source": "mmap"}, {"source": "pread"}, {"compiled": False}])
@pytest.mark.parametrize("chunks", [None, (1, 1, 8, 6), (1, 1, 4, 6)])
def test_a_file_truncated_after_indexing(
    tmp_path: Path, options: dict[str, Any], chunks: tuple[int, ...] | None
) -> None:
    stored = Stored(chunks=chunks, filters=FILTERS if chunks else ())
    shard = write_shard(tmp_path / "cut.h5", [stored])
    assert same_bits(read(shard, **options)[0], expected_window(shard, shard.request(1, 4)))
    array = shard.fields[0].array
    end = array.offset + array.nbytes if chunks is None else int((array.offsets + array.sizes).max())
    os.truncate(shard.path, end - 1)  # the handle stays open: the size has to be asked for each time
    with pytest.raises(ShardError, match=r"cut\.h5"):
        read(shard, **options)


def test_a_large_file_truncated_to_nothing_is_no_crash(tmp_path: Path) -> None:
    """In a process of its own: what is tested for is a SIGBUS."""
    script = """
import os, sys
import numpy as np
from pathlib import Path
from tests.readers.local_shards import Stored, write_shard
from wellkit.errors import ShardError
from wellkit.readers.local import LocalReader
shard = write_shard(Path(sys.argv[1]), [Stored()], space=(256, 256), steps=8)
out = np.empty((1, 4, 256, 256, 1), np.float32)
reader = LocalReader(source="mmap")
reader.read_windows([shard.request(1, 0, n_steps=4)], out)
for size in (1 << 20, 4096, 0):
    os.truncate(sys.argv[1], size)
    try:
        reader.read_windows([shard.request(1, 0, n_steps=4)], out)
    except ShardError:
        continue
    sys.exit("no error")
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "a.h5")], capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("filters", [FILTERS, ("gzip",), ("gzip", "shuffle"), ("fletcher32",)])
@pytest.mark.parametrize("compiled", [True, False])
def test_every_flipped_bit_of_a_chunk_is_noticed(tmp_path: Path, filters: tuple[str, ...], compiled: bool) -> None:
    """Adler-32 or Fletcher-32 guard every chunk with a filter that has one."""
    shard = write_shard(tmp_path / "bad.h5", [Stored(chunks=(1, 1, 8, 6), filters=filters)])
    array = shard.fields[0].array
    number = array.chunk_number((1, 5, 0, 0))
    place, size = int(array.offsets[number]), int(array.sizes[number])
    content = Path(shard.path).read_bytes()
    good = read(shard, compiled=compiled)
    for at in np.linspace(0, size - 1, 12).astype(int):
        damaged = bytearray(content)
        damaged[place + at] ^= 0x10
        Path(shard.path).write_bytes(damaged)
        if "gzip" in filters and at < 2 and "fletcher32" not in filters:
            continue  # not every flag of zlib's header matters
        with pytest.raises(ShardError, match=rf"bad\.h5: chunk {number} of array 'f0'"):
            read(shard, compiled=compiled)
    Path(shard.path).write_bytes(content)
    assert same_bits(read(shard, compiled=compiled), good)


def test_a_chunk_that_inflates_without_end_does_not_fill_the_memory(tmp_path: Path) -> None:
    shard = write_shard(tmp_path / "bomb.h5", [Stored(chunks=(1, 1, 8, 6), filters=("gzip",))])
    array = shard.fields[0].array
    bomb = zlib.compress(bytes(50_000_000))
    place = os.path.getsize(shard.path)
    with open(shard.path, "ab") as file:
        file.write(bomb)
    number = array.chunk_number((1, 4, 0, 0))
    with pytest.raises(ShardError, match="holds more than 192 bytes"):
        read(moved(shard, number, place, len(bomb)))


def test_a_chunk_of_the_wrong_length(tmp_path: Path) -> None:
    shard = write_shard(tmp_path / "short.h5", [Stored(chunks=(1, 1, 8, 6), filters=("shuffle",))])
    array = shard.fields[0].array
    number = array.chunk_number((1, 4, 0, 0))
    with pytest.raises(ShardError, match=r"188 bytes, not 192"):
        read(moved(shard, number, int(array.offsets[number]), int(array.sizes[number]) - 4), threads=3)


def test_a_filter_left_out_for_some_chunks(tmp_path: Path) -> None:
    path = tmp_path / "mask.h5"
    values = np.arange(48, dtype="<f4").reshape(1, 1, 8, 6)
    write_shard(path, [Stored(chunks=(1, 1, 8, 6), filters=("shuffle", "gzip"))])
    with h5py.File(path, "r+") as file:
        file["f0"].id.write_direct_chunk((1, 4, 0, 0), values.tobytes(), filter_mask=0b11)
    one, zero = np.ones(1, np.float32), np.zeros(1, np.float32)
    plan = FieldPlan(index_shard(path, inline_limit=0).arrays["f0"], 0, 1, zero, one, True, True, (True, True))
    shard = Shard(str(path), (plan,), (Stored(),), 2, 6, (8, 6))
    found = read(shard)
    assert same_bits(found[0], expected_window(shard, shard.request(1, 4)))
    assert np.array_equal(found[0, 0, ..., 0], values[0, 0])
