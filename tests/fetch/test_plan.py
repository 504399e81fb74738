"""The decision about each file: a pure function, so every case is a table."""

from __future__ import annotations

import pytest

from wellkit.errors import ArgumentError, DataNotFoundError, IntegrityError
from wellkit.fetch.plan import (
    ActionKind,
    FileHash,
    HashKind,
    LocalFile,
    RemoteFile,
    Selection,
    belongs_to_dataset,
    check_paths,
    plan,
    select,
)


def remote(path: str, size: int = 10, digit: str = "a") -> RemoteFile:
    return RemoteFile(path, size, FileHash(HashKind.sha256, digit * 64))


FILES = (
    remote("data/test/a_0.hdf5", 40),
    remote("data/train/a_0.hdf5", 10),
    remote("data/train/a_1.hdf5", 20),
    remote("data/train/b_0.h5", 30),
    remote("data/valid/a_0.hdf5", 15),
    remote("stats.yaml", 3),
)


def paths(selection: Selection) -> list[str]:
    return [file.path.removeprefix("data/") for file in select(FILES, selection, source="hub/x")]


RIGHT, OTHER = FileHash(HashKind.sha256, "a" * 64), FileHash(HashKind.sha256, "b" * 64)


@pytest.mark.parametrize(
    ("local", "expected"),
    [
        (None, ActionKind.fetch),
        (LocalFile(10, RIGHT), ActionKind.keep),
        (LocalFile(10), ActionKind.check),
        (LocalFile(10, FileHash(HashKind.git_blob, "a" * 40)), ActionKind.check),
        (LocalFile(10, OTHER), ActionKind.replace),
        (LocalFile(9), ActionKind.replace),
        (LocalFile(11, RIGHT), ActionKind.replace),
    ],
)
def test_what_lies_on_disk_decides(local: LocalFile | None, expected: ActionKind) -> None:
    file = remote("data/train/a.hdf5")
    [action] = plan([file], {} if local is None else {file.path: local})
    assert action.kind is expected
    assert action.reason


def test_statistics_come_with_every_selection() -> None:
    assert paths(Selection(splits=("valid",))) == ["stats.yaml", "valid/a_0.hdf5"]
    assert paths(Selection(exclude=("*.yaml", "*_1*"), splits=("train",))) == [
        "stats.yaml",
        "train/a_0.hdf5",
        "train/b_0.h5",
    ]


@pytest.mark.parametrize(
    ("include", "exclude", "expected"),
    [
        (("a_*",), (), ["test/a_0.hdf5", "train/a_0.hdf5", "train/a_1.hdf5", "valid/a_0.hdf5"]),
        (("train/a_*",), (), ["train/a_0.hdf5", "train/a_1.hdf5"]),
        (("data/train/a_1.hdf5",), (), ["train/a_1.hdf5"]),
        (("a_*", "*_0.*"), ("test/*",), ["train/a_0.hdf5", "train/a_1.hdf5", "train/b_0.h5", "valid/a_0.hdf5"]),
        ((), ("*_0.hdf5",), ["train/a_1.hdf5", "train/b_0.h5"]),
    ],
)
def test_globs_match_names_and_relative_paths(
    include: tuple[str, ...], exclude: tuple[str, ...], expected: list[str]
) -> None:
    assert paths(Selection(include=include, exclude=exclude))[1:] == expected


def test_max_files_counts_in_each_split() -> None:
    assert paths(Selection(max_files=1))[1:] == ["test/a_0.hdf5", "train/a_0.hdf5", "valid/a_0.hdf5"]


def test_max_bytes_takes_one_shard_of_each_split_in_turn() -> None:
    # in turn: train 10, valid 15, test 40, train 20, train 30; sums 10, 25, 65, 85, 115
    assert paths(Selection(max_bytes=64))[1:] == ["train/a_0.hdf5", "valid/a_0.hdf5"]
    assert paths(Selection(max_bytes=65))[1:] == ["test/a_0.hdf5", "train/a_0.hdf5", "valid/a_0.hdf5"]
    assert len(paths(Selection(max_bytes=115))) == 6
    with pytest.raises(ArgumentError, match=r"data/train/a_0\.hdf5 has 10 bytes"):
        paths(Selection(max_bytes=9))


def test_filters_that_leave_nothing_say_what_there_is() -> None:
    with pytest.raises(DataNotFoundError, match=r"none of its 5 files passes include=\['x\*'\].*'a_0\.hdf5'"):
        paths(Selection(include=("x*",)))
    with pytest.raises(DataNotFoundError, match="has no split 'valid'; it has train"):
        select(FILES[1:2], Selection(splits=("valid",)), source="hub/x")
    with pytest.raises(DataNotFoundError, match="Well's layout"):
        select((remote("stats.yaml"),), Selection(), source="hub/x")


def test_arguments_are_checked_before_anything_else() -> None:
    with pytest.raises(ArgumentError, match=r"unknown split 'trian'.*Did you mean train"):
        Selection(splits=("trian",))
    with pytest.raises(ArgumentError, match="max_files=0"):
        Selection(max_files=0)
    with pytest.raises(ArgumentError, match="max_bytes=-1"):
        Selection(max_bytes=-1)


@pytest.mark.parametrize(
    "path",
    [
        "../outside.hdf5",
        "data/train/../../../outside.hdf5",
        "/etc/passwd",
        "data/train/..",
        "data//train/a.hdf5",
        "data\\train\\a.hdf5",
        "C:/a.hdf5",
        "data/train/a\n.hdf5",
        "data/train/\x1b[2Ja.hdf5",
        "data/train/a\u202e5fdh.hdf5",  # right-to-left override
        "",
    ],
)
def test_unsafe_paths_are_refused(path: str) -> None:
    with pytest.raises(IntegrityError, match="unsafe path") as caught:
        check_paths(["stats.yaml", path], source="hub/x")
    assert "\n" not in str(caught.value)


def test_files_that_some_disks_hold_as_one_are_refused() -> None:
    with pytest.raises(IntegrityError, match="one file on some disks"):
        check_paths(["data/train/a.hdf5", "data/train/A.hdf5"], source="hub/x")
    with pytest.raises(IntegrityError, match="one file on some disks"):
        check_paths(["data/train/a.hdf5", "".join(["data/train/", "a.hdf5"])], source="hub/x")
    check_paths(["README.md", "readme.md", "data/train/a.hdf5", "data/valid/a.hdf5"], source="hub/x")


@pytest.mark.parametrize(
    ("path", "belongs"),
    [
        ("stats.yaml", True),
        ("data/train/x.hdf5", True),
        ("data/valid/x.h5", True),
        ("data/train/deeper/x.hdf5", False),
        ("data/other/x.hdf5", False),
        ("README.md", False),
        ("other/stats.yaml", False),
        ("data/train/x.hdf5.partial", False),
    ],
)
def test_what_belongs_to_a_tree(path: str, belongs: bool) -> None:
    assert belongs_to_dataset(path) is belongs
