"""Damaged shards: parsed in a child, they end in an error that names them or in an index that tells the truth."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
import zlib
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from tests.index import h5py_process
from tests.index.reference import create, read
from tests.trees import make_shard
from wellkit.errors import DataNotFoundError, ShardError
from wellkit.formats.well_writer import write_well_shard
from wellkit.index.hdf5 import index_shard
from wellkit.index.model import ShardIndex
from wellkit.index.safely import Indexer, index_shard_safely, index_shards_safely

KINDS: tuple[dict[str, Any], ...] = (
    {},
    {"libver": "latest"},
    {"userblock_size": 512},
    {"fs_strategy": "page", "fs_page_size": 4096},
)


def write_victim(path: Path, kind: int) -> None:
    """A small file of every storage: much of it is metadata."""
    rng = np.random.default_rng([kind, 5])
    values = rng.integers(0, 50, (6, 20, 10)).astype("f4")
    with h5py.File(path, "w", **KINDS[kind % len(KINDS)]) as file:
        file.attrs["name"] = "victim"
        file["contiguous"] = values
        group = file.create_group("group")
        group.attrs["names"] = ["a", "b", "c"]
        for name, filters in {
            "plain": (),
            "gzip": ("shuffle", "deflate"),
            "checked": ("fletcher32",),
            "all": ("shuffle", "deflate", "fletcher32"),
        }.items():
            stored = create(group, name, values.shape, "<f4", chunks=(1, 20, 4), filters=filters, fill=3)
            stored[:5] = values[:5]
        file["small"] = np.arange(4)


def metadata_of(path: Path) -> np.ndarray:
    """Positions of the bytes that are not values, nor zero."""
    content = np.frombuffer(path.read_bytes(), dtype=np.uint8)
    wanted = content != 0
    for array in index_shard(path, inline_limit=0).arrays.values():
        if array.layout == "contiguous":
            wanted[array.offset : array.offset + array.nbytes] = False
        for offset, size in zip(array.offsets.tolist(), array.sizes.tolist(), strict=True):
            wanted[max(offset, 0) : max(offset, 0) + size] = False
    return np.flatnonzero(wanted)


def mutate(whole: bytes, metadata: np.ndarray, rng: np.random.Generator) -> bytes:
    """A few flipped bytes, half the time of metadata; or the end cut off."""
    kind = rng.random()
    if kind < 0.1:
        return whole[: int(rng.integers(len(whole)))]
    damaged = bytearray(whole)
    for _ in range(int(rng.integers(1, 4))):
        position = rng.choice(metadata) if kind < 0.6 else rng.integers(len(damaged))
        damaged[int(position)] ^= int(rng.integers(1, 256))
    return bytes(damaged)


class Oracle:
    """h5py in a process that is started again when it dies."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def digests(self, path: Path) -> dict[str, str] | None:
        """See `h5py_process.digests`; None where it crashed or hung."""
        if self._process is None:
            command = [sys.executable, h5py_process.__file__]
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
            )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{path}\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if line:
            found: dict[str, str] = json.loads(line)
            return found
        self.close()
        return None

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


def campaign(folder: Path, count: int, seed: int) -> dict[str, int]:
    """Damage, index, compare; how often each thing happened."""
    outcomes = {"refused": 0, "crashed or hung": 0, "read alike": 0, "array refused": 0, "fallback": 0}
    wholes = []
    for kind in range(len(KINDS)):
        write_victim(folder / "whole.hdf5", kind)
        wholes.append(((folder / "whole.hdf5").read_bytes(), metadata_of(folder / "whole.hdf5")))
    told: list[tuple[str, str]] = []
    oracle = Oracle()
    with Indexer(timeout=5, inline_limit=64) as indexer:
        for number in range(count):
            rng = np.random.default_rng([seed, number])
            path = folder / f"victim_{number}.hdf5"
            path.write_bytes(mutate(*wholes[number % len(wholes)], rng))
            try:
                index = indexer.index(path)
            except ShardError as error:
                told.append((path.name, str(error)))
            else:
                compare(index, path, oracle.digests(path), outcomes)
            path.unlink()
    oracle.close()
    for name, message in told:
        assert name in message
        assert "\n" not in message
        crashed = "crashed" in message or "did not end" in message
        outcomes["crashed or hung" if crashed else "refused"] += 1
    return outcomes


def compare(index: ShardIndex, path: Path, expected: dict[str, str] | None, outcomes: dict[str, int]) -> None:
    for name, array in index.arrays.items():
        if array.layout == "fallback":
            outcomes["fallback"] += 1
            continue
        try:
            values = read(array, path)
        except (ValueError, zlib.error):
            outcomes["array refused"] += 1
            continue
        assert expected is not None, f"{path}: h5py does not survive it, but it was indexed"
        found = hashlib.sha1(values.tobytes(), usedforsecurity=False).hexdigest()
        assert expected.get(name) == found, f"{path}: {name} ({array})"
        outcomes["read alike"] += 1


def test_damage_ends_in_an_error_or_in_the_truth(tmp_path: Path) -> None:
    outcomes = campaign(tmp_path, 40, seed=1)
    assert outcomes["refused"] > 2
    assert outcomes["read alike"] > 40


@pytest.mark.torture
@pytest.mark.timeout(1800)
def test_five_hundred_damaged_shards(tmp_path: Path) -> None:
    outcomes = campaign(tmp_path, 500, seed=2)
    assert outcomes["refused"] > 50
    assert outcomes["read alike"] > 500


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    path = tmp_path / "shard.hdf5"
    write_well_shard(path, make_shard())
    return path


def child_of(indexer: Indexer) -> int:
    assert indexer._child is not None
    return indexer._child.pid


def test_a_parser_that_hangs_is_ended_and_started_again(shard: Path) -> None:
    with Indexer(timeout=60) as indexer:
        expected = indexer.index(shard)
        os.kill(child_of(indexer), signal.SIGSTOP)
        indexer._timeout = 0.3
        with pytest.raises(ShardError, match=r"shard\.hdf5: parsing it did not end within 0\.3 s"):
            indexer.index(shard)
        indexer._timeout = 60
        assert indexer.index(shard).fingerprint == expected.fingerprint


def test_a_parser_that_crashes_is_started_again(shard: Path) -> None:
    with Indexer() as indexer:
        indexer.index(shard)
        child = child_of(indexer)
        os.kill(child, signal.SIGSTOP)
        timer = threading.Timer(0.3, os.kill, (child, signal.SIGSEGV))
        again = threading.Timer(0.4, os.kill, (child, signal.SIGCONT))
        timer.start()
        again.start()
        with pytest.raises(ShardError, match=r"shard\.hdf5: parsing it crashed \(SIGSEGV\)"):
            indexer.index(shard)
        timer.join()
        again.join()
        assert indexer.index(shard).arrays
        os.kill(child_of(indexer), signal.SIGKILL)  # while idle: no file is to blame
        deadline = time.monotonic() + 10
        while indexer._child is not None and indexer._child.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        assert indexer.index(shard).arrays


def test_a_child_ends_with_its_requests(shard: Path) -> None:
    indexer = Indexer()
    indexer.index(shard)
    child = indexer._child
    assert child is not None
    indexer.close()
    assert child.returncode == 0


def test_many_files_in_order_each_with_its_own_outcome(shard: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.hdf5"
    page.write_text("<html>")
    pipe = tmp_path / "pipe.hdf5"
    os.mkfifo(pipe)
    paths = [str(shard), str(page), str(tmp_path / "none.hdf5"), str(pipe), str(tmp_path), str(shard)]
    found = list(index_shards_safely(paths, jobs=2))
    assert [path for path, _ in found] == paths
    outcomes = [outcome for _, outcome in found]
    assert isinstance(outcomes[0], ShardIndex)
    assert isinstance(outcomes[5], ShardIndex)
    assert isinstance(outcomes[2], DataNotFoundError)
    for number, what in [(1, "not an HDF5 file"), (3, "not a regular file"), (4, "is a folder")]:
        assert isinstance(outcomes[number], ShardError)
        assert what in str(outcomes[number])
    assert list(index_shards_safely([])) == []


def test_a_chunk_that_is_listed_but_not_found_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "keys.hdf5"
    with h5py.File(path, "w") as file:
        file.create_dataset("a", data=np.arange(64.0), chunks=(8,))
    whole = path.read_bytes()
    # Keys of the leaf that are out of order are listed like others, but a search among them goes astray.
    leaf = whole.index(b"TREE\x01\x00\x08\x00")
    keys = [leaf + 24 + 32 * number + 8 for number in (1, 6)]  # of size, mask, place, 0, and then the offset
    assert [int.from_bytes(whole[key : key + 8], "little") for key in keys] == [8, 48]
    damaged = bytearray(whole)
    damaged[keys[0] : keys[0] + 8], damaged[keys[1] : keys[1] + 8] = (48).to_bytes(8, "little"), bytes([8, *[0] * 7])
    path.write_bytes(damaged)
    assert index_shard(path, inline_limit=0).arrays["a"].n_chunks == 8
    with h5py.File(path) as file:
        assert np.count_nonzero(file["a"][()] == 0) > 8  # no error: the fill value
    with pytest.raises(ShardError, match=r"keys\.hdf5: a: the chunk at \(\d+,\) is listed, but not found"):
        index_shard(path, inline_limit=0, verify=True)


def test_one_shard_safely(shard: Path) -> None:
    found, plain = index_shard_safely(shard), index_shard(shard)
    assert list(found.arrays) == list(plain.arrays)
    assert found.arrays["t0_fields/density"].inline == plain.arrays["t0_fields/density"].inline
