"""A cache of ranges that was damaged: every flipped byte is noticed, and none is served."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.fetch.cached import LOCATION, SIZE, Source, content_of, fetch, files, opened, spans
from wellkit.errors import WellkitWarning
from wellkit.fetch.cached_shard import PAGE

CONTENT = content_of()


def damage(path: Path, at: int, change: int = 0x01) -> None:
    with path.open("r+b") as file:
        byte = os.pread(file.fileno(), 1, at)[0]
        os.pwrite(file.fileno(), bytes([byte ^ change]), at)


def serve_all(folder: Path, there: Sequence[tuple[int, int]]) -> int:
    """Read all from a damaged cache as a fresh process would; returns how many bytes had to be fetched again."""
    source = Source()
    ranges = opened(folder, source)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", WellkitWarning)
        for start, stop in there:
            path = ranges.local_path(LOCATION, spans((start, stop)))
            if path is not None:
                with open(path, "rb") as file:
                    assert os.pread(file.fileno(), stop - start, start) == CONTENT[start:stop]
            assert fetch(ranges, (start, stop)) == [CONTENT[start:stop]]
    return source.nbytes


THERE = [(1000, 41_000), (300_000, 900_000), (SIZE - 5000, SIZE)]
ALL = sum(stop - start for start, stop in THERE)


@pytest.fixture
def filled(tmp_path: Path) -> Path:
    fetch(opened(tmp_path, Source()), *THERE)
    assert serve_all(tmp_path, THERE) == 0
    return tmp_path


@pytest.mark.parametrize("at", [1000, 20_000, 40_999, 524_288, 899_999, SIZE - 1])
def test_a_flipped_byte_of_the_copy_is_noticed_and_mended(filled: Path, at: int) -> None:
    (data,) = files(filled, ".data")
    damage(data, at, 1 << at % 8)
    assert 1 <= serve_all(filled, THERE) <= 1 << 18
    assert serve_all(filled, THERE) == 0  # what was fetched again is in its place


def test_any_flipped_byte_of_the_log_is_noticed(filled: Path) -> None:
    (log,) = files(filled, ".blocks")
    (data,) = files(filled, ".data")
    log_before, data_before = log.read_bytes(), data.read_bytes()
    places = [*range(0, 400, 3), *range(PAGE - 12, len(log_before))]
    for at in places:
        damage(log, at, 1 << at % 8)
        again = serve_all(filled, THERE)
        if at >= PAGE:
            assert 1 <= again <= 1 << 18, at  # one record less
        else:
            assert again == ALL, at  # a header that cannot be trusted
            assert not data.exists()
        for path in [*files(filled, ".blocks"), *files(filled, ".data")]:
            path.unlink()
        log.write_bytes(log_before)
        data.write_bytes(data_before)
    assert serve_all(filled, THERE) == 0


@pytest.mark.parametrize("length", [0, 100, PAGE - 1, PAGE, PAGE + 1, PAGE + 31, PAGE + 32, PAGE + 70])
def test_a_log_cut_short_is_noticed(filled: Path, length: int) -> None:
    (log,) = files(filled, ".blocks")
    assert length < log.stat().st_size
    os.truncate(log, length)
    assert 0 < serve_all(filled, THERE) <= ALL
    assert serve_all(filled, THERE) == 0


@pytest.mark.parametrize("length", [0, 20_000, SIZE - 1, SIZE + 1])
def test_a_copy_of_another_length_is_begun_anew_under_another_name(filled: Path, length: int) -> None:
    (data,) = files(filled, ".data")
    running = opened(filled, Source())
    assert running.local_path(LOCATION, spans(*THERE)) == str(data)
    os.truncate(data, length)
    assert running.local_path(LOCATION, spans(*THERE)) is None  # nobody is sent to map it
    assert serve_all(filled, THERE) == ALL
    assert [path.name for path in files(filled, ".data")] != [data.name]
    assert running.local_path(LOCATION, spans(*THERE)) not in (None, str(data))


def test_damage_is_told_once(filled: Path) -> None:
    (data,) = files(filled, ".data")
    damage(data, 20_000)
    damage(data, 400_000)
    ranges = opened(filled, Source())
    with pytest.warns(WellkitWarning, match="holds damaged bytes, which are fetched again"):
        fetch(ranges, *THERE)
    damage(data, 800_000)
    assert ranges.local_path(LOCATION, spans(*THERE)) is not None  # no second warning, which would be an error here
    fetch(ranges, *THERE)


def test_zeros_of_a_lost_write_are_not_served(filled: Path) -> None:
    # After a power cut the log may be there and the data not: the file then holds zeros.
    (data,) = files(filled, ".data")
    with data.open("r+b") as file:
        os.pwrite(file.fileno(), bytes(600_000), 300_000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", WellkitWarning)
        assert serve_all(filled, THERE) == 600_000


def test_a_link_in_the_place_of_a_copy_is_not_followed(filled: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    (data,) = files(filled, ".data")
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "precious"
    data.rename(elsewhere)
    data.symlink_to(elsewhere)
    before = elsewhere.read_bytes()
    assert serve_all(filled, THERE) == ALL
    assert elsewhere.read_bytes() == before


def test_a_link_in_the_place_of_a_log_is_not_followed(filled: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    (log,) = files(filled, ".blocks")
    elsewhere = tmp_path_factory.mktemp("elsewhere") / log.name
    log.rename(elsewhere)
    log.symlink_to(elsewhere)
    before = elsewhere.read_bytes()
    ranges = opened(filled, Source())
    assert ranges.local_path(LOCATION, spans(*THERE)) is None
    with pytest.warns(WellkitWarning, match="the cache failed"):
        assert fetch(ranges, (0, 2000)) == [CONTENT[:2000]]
    assert elsewhere.read_bytes() == before
