"""What every shard reader has to do, as tests. A reader takes part by an entry in `test_conformance.CASES`.

A case writes the source shard its own way, puts it on a storage and opens it; the source itself, read by h5py, says
what each answer has to be.
"""

from __future__ import annotations

import multiprocessing
import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from tests.trees import make_shard
from wellkit.errors import DataNotFoundError, FormatError
from wellkit.formats.well import parse_layout
from wellkit.formats.well_writer import write_well_shard
from wellkit.readers.hdf5 import Hdf5Reader
from wellkit.readers.protocol import ShardReader

Selection = tuple[int | slice, ...]

FIELD = "t0_fields/density"  # (trajectory, time, x, y)
NUMBERS = ("float16", "float32", "float64", "int8", "int32", "int64", "uint8", "uint16", "bool", "complex64")


@dataclass(frozen=True)
class Case:
    """A reader over one way to store a shard.

    Attributes:
        name: for the test's name.
        write: writes the shard (an HDF5 file of the contract's own) into a folder and returns its name there.
        open: makes the reader of a location.
        storages: of "local", "memory", "http": those that `open` can read.
    """

    name: str
    write: Callable[[Path, Path], str]
    open: Callable[[str], ShardReader]
    storages: tuple[str, ...] = ("local", "memory", "http")


def write_source(path: Path) -> Path:
    """The shard that every case stores: a Well shard, and arrays of all kinds of numbers and orders beside it."""
    write_well_shard(path, make_shard(resolution=(6, 5), steps=5))
    rng = np.random.default_rng([3, 1])
    with h5py.File(path, "a") as file:
        for kind in NUMBERS:
            file[f"numbers/{kind}"] = rng.integers(0, 2 if kind == "bool" else 100, (4, 7)).astype(kind)
        file["numbers/big_endian"] = rng.normal(size=(4, 7)).astype(">f4")
        file["numbers/alone"] = np.float64(2.5)
        file["numbers/long"] = rng.normal(size=103)
    return path


def selections(shape: tuple[int, ...]) -> list[Selection]:
    """Whole, parts, steps, single indices (from the end, too), leading axes only, nothing."""
    rng = np.random.default_rng([len(shape), *shape])
    found: list[Selection] = [(), (slice(None),) * len(shape)]
    if not shape:
        return found
    found += [
        (0,),
        (np.int64(shape[0] - 1),),  # type: ignore[list-item]  # what index arithmetic in NumPy yields
        (-1,),
        tuple(size - 1 for size in shape),
        (slice(1, 1),),
        (slice(None, None, 2),) * len(shape),
        (slice(None, None, 50),) * len(shape),
        (*(slice(None),) * (len(shape) - 1), slice(1, None, 3)),
    ]
    for _ in range(6):
        drawn: list[int | slice] = []
        for size in shape:
            first, stop = sorted(int(number) for number in rng.integers(0, size + 1, 2))
            drawn.append(min(first, size - 1) if rng.random() < 0.4 else slice(first, stop, int(rng.integers(1, 4))))
        found.append(tuple(drawn))
    return found


def _digest(job: tuple[bytes, Selection]) -> bytes:
    """What a child process reads with a reader it was sent."""
    reader: ShardReader = pickle.loads(job[0])  # noqa: S301 - our own bytes
    return reader.read(FIELD, job[1]).tobytes()


def _opens(job: bytes) -> str:
    return parse_layout(pickle.loads(job)).dataset_name  # noqa: S301 - our own bytes


class ReaderContract:
    """The tests. A subclass's module provides the fixtures.

    Fixtures:
        reader: the reader under test.
        source: the HDF5 file its shard was made from.
        missing: a reader of the same kind for a shard that is not there.
    """

    @staticmethod
    def expected(source: Path, name: str, selection: Selection = ()) -> np.ndarray:
        with h5py.File(source, "r") as file:
            whole = np.asarray(file[name][()])
        return np.array(whole.astype(whole.dtype.newbyteorder("="))[selection])

    @pytest.mark.parametrize("name", [FIELD, "t1_fields/velocity", "dimensions/time", "numbers/long", "numbers/alone"])
    def test_any_selection_gives_the_source_values(self, reader: ShardReader, source: Path, name: str) -> None:
        for selection in selections(self.expected(source, name).shape):
            expected = self.expected(source, name, selection)
            found = reader.read(name, selection)
            assert isinstance(found, np.ndarray), selection
            assert (found.shape, found.dtype) == (expected.shape, expected.dtype), selection
            np.testing.assert_array_equal(found, expected, err_msg=str(selection))

    def test_every_kind_of_number_comes_in_its_type_and_native_order(self, reader: ShardReader, source: Path) -> None:
        for kind in (*NUMBERS, "big_endian"):
            found, expected = reader.read(f"numbers/{kind}"), self.expected(source, f"numbers/{kind}")
            assert found.dtype == expected.dtype
            assert found.dtype.isnative
            np.testing.assert_array_equal(found, expected)

    def test_what_is_read_is_the_callers_own(self, reader: ShardReader, source: Path) -> None:
        for name, selection in ((FIELD, ()), (FIELD, (0, 1)), ("dimensions/time", ()), ("numbers/alone", ())):
            first = reader.read(name, selection)
            assert first.flags.writeable
            assert first.flags.c_contiguous
            first[...] = -1
            np.testing.assert_array_equal(reader.read(name, selection), self.expected(source, name, selection))

    def test_the_layout_is_the_sources(self, reader: ShardReader, source: Path) -> None:
        expected = parse_layout(Hdf5Reader(str(source)))
        assert replace(parse_layout(reader), location=expected.location) == expected

    def test_the_root_group_lists_its_members(self, reader: ShardReader, source: Path) -> None:
        with h5py.File(source, "r") as file, reader.root() as root:
            assert set(root.keys()) == set(file.keys())
            assert set(root["boundary_conditions"].keys()) == set(file["boundary_conditions"].keys())
            assert root["numbers"]["long"].shape == (103,)
            assert np.dtype(root["numbers"]["long"].dtype) == np.float64
            with pytest.raises(KeyError):
                root["nothing"]

    def test_an_array_that_is_not_there_is_named(self, reader: ShardReader) -> None:
        for name in ("t0_fields/nothing", "nothing/at_all"):
            with pytest.raises(FormatError, match=rf"has no array '{name}'"):
                reader.read(name)
        assert reader.read(FIELD).shape == (2, 5, 6, 5)

    def test_an_index_past_the_end_is_an_index_error(self, reader: ShardReader) -> None:
        with pytest.raises(IndexError):
            reader.read(FIELD, (2,))

    def test_a_shard_that_is_not_there(self, missing: ShardReader) -> None:
        with pytest.raises(DataNotFoundError, match="absent"):
            missing.read(FIELD)
        with pytest.raises(DataNotFoundError, match="absent"):
            parse_layout(missing)

    def test_a_closed_reader_opens_again(self, reader: ShardReader, source: Path) -> None:
        for _ in range(2):
            reader.close()
            reader.close()
            np.testing.assert_array_equal(reader.read(FIELD, (1,)), self.expected(source, FIELD, (1,)))

    def test_a_pickled_reader_is_the_same_reader(self, reader: ShardReader, source: Path) -> None:
        reader.read(FIELD)
        pickled = pickle.dumps(reader)
        assert len(pickled) < 2000  # where the shard is, not what is open
        twin: ShardReader = pickle.loads(pickled)  # noqa: S301 - our own bytes
        assert twin.location == reader.location
        np.testing.assert_array_equal(twin.read(FIELD), self.expected(source, FIELD))

    def test_threads_share_a_reader(self, reader: ShardReader, source: Path) -> None:
        whole = self.expected(source, FIELD)
        reader.close()  # the first reads race to open it
        with ThreadPoolExecutor(4) as threads:
            frames = list(threads.map(lambda i: reader.read(FIELD, (i % 2, i % 5)), range(24)))
        for i, frame in enumerate(frames):
            np.testing.assert_array_equal(frame, whole[i % 2, i % 5])

    def test_forked_children_read_and_leave_the_parent_reading(self, reader: ShardReader, source: Path) -> None:
        whole = self.expected(source, FIELD)
        parse_layout(reader)
        jobs: list[tuple[bytes, Any]] = [(pickle.dumps(reader), (i % 2, slice(i, None))) for i in range(4)]
        with multiprocessing.get_context("fork").Pool(2) as pool:
            found = pool.map_async(_digest, jobs).get(timeout=60)
            assert pool.map_async(_opens, [jobs[0][0]]).get(timeout=60) == ["made_up"]
        assert found == [whole[job[1]].tobytes() for job in jobs]
        np.testing.assert_array_equal(reader.read(FIELD), whole)
        reader.close()  # nothing kept: what the children did must not have cut the parent's connections
        np.testing.assert_array_equal(reader.read(FIELD), whole)
