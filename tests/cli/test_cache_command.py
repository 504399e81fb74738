"""`wellkit cache` as a user runs it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.fetch.cached import LOCATION, SIZE, Source, content_of, fetch, listed
from tests.trees import make_tree
from wellkit.compiled import compile_kernel, compiled_folder
from wellkit.errors import DataNotFoundError
from wellkit.fetch import notes
from wellkit.fetch.cache_contents import cache_contents, choose, remove_item
from wellkit.fetch.range_cache import RangeCache, local_file
from wellkit.fetch.ranges import RangeReader
from wellkit.index import cache as index_cache
from wellkit.index.hdf5 import index_shard

OTHER = LOCATION.replace("c" * 40, "d" * 40)  # the same dataset at another commit


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    code = "from wellkit.cli.app import main; main()"
    command = [sys.executable, "-c", code, "cache", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def fill(folder: Path, *locations: str) -> None:
    for location in locations:
        ranges = RangeCache(folder).reading(Source(location), [listed(location)])
        assert fetch(ranges, (0, SIZE // 2), location=location) == [content_of(location)[: SIZE // 2]]


@pytest.fixture
def kept(isolated: Path) -> Path:
    folder = isolated / "cache"
    fill(folder, LOCATION, LOCATION.replace("part_0", "part_1"), OTHER)
    for path in ("index/ab/" + "c" * 30 + ".bin", "index/trees/" + "e" * 32 + ".bin", "hub/tree/" + "e" * 32 + ".z"):
        (folder / path).parent.mkdir(parents=True)
        (folder / path).write_bytes(bytes(5000))
    kernels = folder / "numba" / f"kernels-{'0' * 16}" / "readers_0abc"
    kernels.mkdir(parents=True)
    (kernels / "kernels.read_tiles-17.py311.nbi").write_bytes(bytes(100))
    return folder


def shards(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "shards").iterdir() if path.suffix in {".data", ".blocks"})


def test_list_shows_a_row_for_each_dataset_and_commit(kept: Path) -> None:
    done = run("list")
    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines() if len(line.split()) > 6]
    location = "hf://datasets/owner/made_up"
    assert rows[1][:7] == ["made_up", "c" * 12, location, "2", "3.0", "MB", "50.0%"]
    assert rows[2][:7] == ["made_up", "d" * 12, location, "1", "1.5", "MB", "50.0%"]
    assert [row[0] for row in rows[3:]] == ["index", "kernels", "hub"]
    assert re.match(r"4\.[56] MB in all", done.stderr)


def test_list_as_json(kept: Path) -> None:
    holder = RangeCache(kept).reading(Source(OTHER), [listed(OTHER)])
    assert holder.local_path(OTHER, np.array([[0, 10]])) is not None
    done = run("list", "--format", "json")
    assert done.stderr == ""
    content = json.loads(done.stdout)
    items = {(item["name"], item["commit"]): item for item in content["items"]}
    first, second = items["made_up", "c" * 40], items["made_up", "d" * 40]
    assert (first["size"], first["present"], first["in_use"]) == (2 * SIZE, SIZE // 2 * 2, False)
    assert (second["n_files"], second["in_use"]) == (1, True)
    assert [file["location"].rpartition("/")[2] for file in first["files"]] == ["part_0.hdf5", "part_1.hdf5"]
    assert items["index", None]["n_files"] == 2
    assert content["allocated"] == sum(item["allocated"] for item in content["items"])
    # what `du` counts, but for the folders and the tag
    on_disk = sum(path.lstat().st_blocks * 512 for path in kept.rglob("*") if path.is_file())
    assert 0 <= on_disk - content["allocated"] <= 3 * 4096


def test_remove_by_name_and_commit(kept: Path) -> None:
    before = shards(kept)
    dry = run("remove", "made_up", "--dry-run")
    assert dry.returncode == 0
    assert "made_up@dddddddddddd: would free 1.5 MB (1 files)" in dry.stdout
    assert "would free 4.5 MB in all" in dry.stdout
    assert shards(kept) == before
    done = run("remove", "made_up@ccc")
    assert (done.returncode, done.stdout) == (0, "made_up@cccccccccccc: freed 3.0 MB (2 files)\n")
    assert len(shards(kept)) == 2
    content = json.loads(run("remove", "hf://datasets/owner/made_up", "--format", "json").stdout)
    assert 1_500_000 < content["freed"] < 1_600_000
    assert [item["commit"] for item in content["removed"]] == ["d" * 40]
    assert shards(kept) == []
    missed = run("remove", "made_up", "inde")
    assert missed.returncode == 1
    assert "made_up: is not in the cache, which holds hub, index, kernels" in missed.stderr
    assert "Did you mean index?" in run("remove", "inde").stderr


def test_remove_all_leaves_what_is_not_ours(kept: Path, tmp_path: Path) -> None:
    precious = [
        kept / "index" / "thesis.bin",
        kept / "index" / "ab" / "notes.txt",
        kept / "shards" / "mine.data",
        kept / "numba" / "code.py",
        kept / "other" / ("f" * 32 + ".bin"),
    ]
    outside = tmp_path / "outside"
    (outside / "ab").mkdir(parents=True)
    target = outside / "ab" / ("a" * 30 + ".bin")
    for path in (*precious, target):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"precious")
    (kept / "index" / "cd").symlink_to(outside / "ab")
    (kept / "shards" / f"{'a' * 32}.blocks").symlink_to(target)
    done = run("remove", "--all")
    assert done.returncode == 0, done.stderr
    assert re.search(r"^freed 4\.[56] MB in all$", done.stdout, re.MULTILINE)
    left = sorted(path for path in kept.rglob("*") if path.is_file() and not path.is_symlink())
    assert left == sorted([*precious, kept / "shards" / "CACHEDIR.TAG"])
    assert target.read_bytes() == b"precious"


def test_a_link_to_a_folder_is_no_cache(kept: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "shards").symlink_to(kept / "shards")
    (other / "index").symlink_to(kept / "index")
    done = run("remove", "--all", "--folder", other)
    assert done.returncode == 1
    assert f"{other}: is no cache of wellkit's" in done.stderr
    assert len(shards(kept)) == 6


def test_folders_that_are_no_cache_are_refused(isolated: Path, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.hdf5").write_bytes(b"1")
    for command in ("list", "remove"):
        rest = ["--all"] if command == "remove" else []
        done = run(command, *rest, "--folder", tmp_path / "data")
        assert done.returncode == 1
        assert "is no cache of wellkit's; give the folder that was given as cache=" in done.stderr
        assert run(command, *rest, "--folder", tmp_path / "none").returncode == 1
    done = run("list")  # the default folder need not be there
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == f"{isolated / 'cache'}: holds nothing\n"
    assert run("remove").returncode == 2
    assert run("remove", "x", "--all").returncode == 2


def test_what_cannot_be_told_any_more_is_listed_and_removed(kept: Path) -> None:
    log = next((kept / "shards").glob("*.blocks"))
    log.write_bytes(b"nonsense")
    (kept / "shards" / f"{'9' * 32}-{'0' * 16}.data").write_bytes(bytes(9000))
    (unknown,) = (item for item in cache_contents(kept) if item.name == "unknown")
    assert unknown.n_files == 2
    assert remove_item(unknown) > SIZE // 2
    assert len(shards(kept)) == 4


def test_a_local_tree_goes_by_its_folder(tmp_path: Path) -> None:
    local = tmp_path / "slow@disk" / "shear_flow" / "data" / "valid" / "a.hdf5"
    local.parent.mkdir(parents=True)
    local.write_bytes(b"0123456789")
    ranges = RangeCache(tmp_path / "cache").reading(RangeReader(), [local_file(str(local))])
    assert fetch(ranges, (2, 5), location=str(local)) == [b"234"]
    (item,) = cache_contents(tmp_path / "cache")
    assert (item.name, item.commit, item.location) == ("shear_flow", "", str(tmp_path / "slow@disk" / "shear_flow"))
    assert (item.size, item.present, item.is_used) == (10, 3, True)
    assert choose([item], [item.location]) == [item]
    with pytest.raises(DataNotFoundError):
        choose([item], [""])
    assert local.read_bytes() == b"0123456789"


def test_running_programs_fetch_again_what_was_removed(kept: Path) -> None:
    source = Source(OTHER)
    ranges = RangeCache(kept).reading(source, [listed(OTHER)])
    assert fetch(ranges, (0, 1000), location=OTHER) == [content_of(OTHER)[:1000]]
    assert source.asked == []
    done = run("remove", "--all")
    assert "in use by running programs: made_up" in done.stderr
    assert os.listdir(kept / "shards") == ["CACHEDIR.TAG"] or "users" in os.listdir(kept / "shards")
    assert fetch(ranges, (0, 1000), location=OTHER) == [content_of(OTHER)[:1000]]
    assert source.nbytes == 1000
    assert ranges.local_path(OTHER, np.array([[0, 1000]])) is not None


def test_what_wellkit_really_writes_is_what_is_listed(isolated: Path, tmp_path: Path) -> None:
    folder = isolated / "cache"
    shard = str(next(make_tree(tmp_path, files=1).rglob("*.hdf5")))
    os.utime(shard, (1e9, 1e9))
    index_cache.store(shard, os.stat(shard), index_shard(shard))
    place = index_cache.tree_place("hf://datasets/a/b@c/.wellkit/index.bin", 7, "sha256:ab", "")
    assert place is not None
    assert index_cache.keep_copy(place, b"content")
    notes.remember(b"0123", "commits", "endpoint", "somebody/made_up", "main")
    source = Path(__file__)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "wellkit.compiled._can_write", lambda path: "numba" in path.parts and not path.mkdir(parents=True)
        )
        kernels = compiled_folder([source])
    assert compile_kernel(_twice, kernels)(4) == 8
    written = {path for path in folder.rglob("*") if path.is_file()}
    items = {item.name: item for item in cache_contents(folder)}
    assert {name: item.n_files for name, item in items.items()} == {"index": 2, "hub": 1, "kernels": 2}
    assert len(written) == 5
    assert run("remove", "--all").returncode == 0
    assert [path for path in folder.rglob("*") if path.is_file()] == []


def _twice(number: int) -> int:
    return 2 * number
