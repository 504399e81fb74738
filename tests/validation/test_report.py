"""The report in its three forms, and the command as a user runs it."""

from __future__ import annotations

import base64
import html.parser
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import matplotlib.image
import numpy as np
import pytest

from tests.validation.trees import make_tree
from wellkit.errors import ArgumentError, DataNotFoundError, DocumentError, StorageError, UnknownDatasetError
from wellkit.schemas.validation import ValidationReport
from wellkit.validation.html import write_html
from wellkit.validation.thumbnails import Picture, draw_findings
from wellkit.validation.validate import LISTED, validate

SHARD = "data/train/train_1.hdf5"
HOSTILE = '<script>alert("x")</script>&amp;'


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from wellkit.cli.app import main; main()", "validate", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return make_tree(tmp_path)


@pytest.fixture
def spoilt(tree: Path) -> Path:
    with h5py.File(tree / SHARD, "r+") as file:
        file["t0_fields/density"][1, 3:5, 2, 7] = np.nan
        file["t0_fields/pressure"][0, 6, :5] = 0.0
    return tree


class Page(html.parser.HTMLParser):
    """Elements and text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_a_clean_tree_passes_with_exit_status_0(tree: Path) -> None:
    result = run(tree)
    assert result.returncode == 0
    assert "pass" in result.stdout
    assert "0 errors, 0 warnings" in result.stdout
    assert result.stderr == ""


def test_a_table_says_what_where_and_what_to_do(spoilt: Path) -> None:
    result = run(spoilt)
    assert result.returncode == 1
    row = next(line for line in result.stdout.splitlines() if " nan " in line)
    assert f"{SHARD}, trajectory 1, frames 3 to 4, density" in row
    assert "NaN in up to 1 of 192 values of a frame" in row
    assert "nan: leave the trajectory out" in result.stderr
    assert "Traceback" not in result.stderr


def test_warnings_alone_fail_only_when_asked(tree: Path) -> None:
    (tree / "stats.yaml").unlink()
    assert run(tree).returncode == 0
    assert run(tree, "--strict").returncode == 1


def test_json_is_a_document_that_is_read_back(spoilt: Path) -> None:
    result = run(spoilt, "--format", "json")
    content = json.loads(result.stdout)
    assert next(iter(content)) == "schema"
    report = ValidationReport.parse(content, source="stdout")
    assert report.verdict == "fail"
    assert report.counts["error"] >= 1
    found = next(one for one in report.findings if one.code == "nan")
    assert (found.shard, found.trajectory, found.frames, found.field) == (SHARD, 1, (3, 5), "density")
    assert report.splits["train"].frames == 48
    assert [found.severity for found in report.findings] == sorted(
        (found.severity for found in report.findings), key=["error", "warning", "info"].index
    )


def test_a_page_shows_what_is_wrong_and_needs_nothing_else(spoilt: Path, tmp_path: Path) -> None:
    target = tmp_path / "report.html"
    result = run(spoilt, "--html", target)
    assert result.returncode == 1
    page = Page(target.read_text())
    pictures = [attributes["src"] or "" for tag, attributes in page.tags if tag == "img"]
    assert len(pictures) >= 3
    for source in pictures:
        kind, _, content = source.partition(",")
        assert kind == "data:image/png;base64"
        shown = matplotlib.image.imread(io.BytesIO(base64.b64decode(content)), format="png")
        assert max(shown.shape[:2]) >= 100
    assert not [tag for tag, _ in page.tags if tag in ("script", "link", "iframe")]
    assert "NaN in up to 1 of 192 values" in page.text
    assert "train_1.hdf5" in page.text
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("report")] == ["report.html"]


def test_pictures_show_nan_in_magenta(spoilt: Path) -> None:
    report = validate(spoilt, jobs=1)
    number = next(n for n, found in enumerate(report.findings) if found.code == "nan")
    before, wrong, after = draw_findings(report.location, report.findings, timeout=10)[number]
    assert [one.caption for one in (before, wrong, after)] == [f"density, frame {n}" for n in (2, 3, 5)]

    def magenta(picture: Picture) -> int:
        shown = matplotlib.image.imread(io.BytesIO(base64.b64decode(picture.source.partition(",")[2])), format="png")
        return int((shown[..., :3] == [1.0, 0.0, 1.0]).all(axis=-1).sum())

    assert magenta(wrong) == 15 * 15  # one of 16 points along a side of 240
    assert magenta(before) == magenta(after) == 0


def test_names_from_files_are_text_and_nothing_else(tree: Path, tmp_path: Path) -> None:
    (tree / "card.yaml").unlink()
    with h5py.File(tree / SHARD, "r+") as file:
        file.attrs["dataset_name"] = HOSTILE
        file["t0_fields"].attrs["field_names"] = [HOSTILE.replace("/", "-"), "pressure", "mask"]
        file["t0_fields"].move("density", HOSTILE.replace("/", "-"))
        file["t0_fields"][HOSTILE.replace("/", "-")][0, 4] = np.nan
    report = validate(tree / "data" / "train")
    write_html(tmp_path / "a.html", report, {0: [Picture("data:image/png;base64,", HOSTILE)]})
    page = Page((tmp_path / "a.html").read_text())
    assert "script" not in {tag for tag, _ in page.tags}
    assert HOSTILE.replace("/", "-") in page.text
    assert "[/]" not in run(tree / "data" / "train").stderr
    with pytest.raises(StorageError, match="cannot write"):
        write_html(tmp_path / "a.html" / "b.html", report, {})


def test_markup_in_names_stays_in_the_table(tree: Path) -> None:
    shutil.copyfile(tree / SHARD, tree / "data/train/[red]x[-red].hdf5")
    result = run(tree)
    assert "[red]x[-red].hdf5" in result.stdout


def test_a_name_that_is_not_text(tree: Path) -> None:
    name = os.fsdecode(b"train_\xff.hdf5")
    (tree / SHARD).rename(tree / "data" / "train" / name)
    report = validate(tree)
    assert report.verdict == "pass"
    (tree / "data" / "train" / name).write_bytes(b"")
    report = validate(tree)
    assert r"data/train/train_\udcff.hdf5" in {found.shard for found in report.findings}
    json.dumps(report.to_mapping()).encode()


def test_headers_only_reads_no_values(spoilt: Path) -> None:
    report = validate(spoilt, data=False)
    assert report.verdict == "pass"
    assert not report.data_checked
    assert report.bytes_read == 0
    with h5py.File(spoilt / SHARD, "r+") as file:
        file["dimensions/time"][3] = 0.0
    assert validate(spoilt, data=False).verdict == "fail"


def test_many_findings_of_a_kind_are_counted(tree: Path) -> None:
    with h5py.File(tree / SHARD, "r+") as file:
        for group in ("t0_fields",):
            for number in range(LISTED + 20):
                file[group].create_dataset(f"spare_{number}", data=np.ones(2, np.float32))
    report = validate(tree, data=False)
    assert sum(found.code == "unlisted-array" for found in report.findings) == LISTED
    assert report.unlisted == {"unlisted-array": 20}
    assert report.counts["warning"] == LISTED + 20
    assert "108 more of this kind" in run(tree, "--headers-only").stdout


def test_progress_ends_at_the_total(tree: Path) -> None:
    told: list[tuple[int, int]] = []
    validate(tree, progress=lambda done, total: told.append((done, total)))
    size = sum(path.stat().st_size for path in tree.rglob("*.hdf5"))
    assert told[-1] == (size, size)
    assert [done for done, _ in told] == sorted(done for done, _ in told)


@pytest.mark.parametrize("given", ["tree", "split", "bare", "shard", "zarr-free name"])
def test_what_can_be_given(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    shutil.copyfile(tree / SHARD, bare / "a.hdf5")
    monkeypatch.setenv("WELLKIT_DATA", str(tmp_path))
    location: str | Path = {"tree": tree, "split": tree / "data/train", "bare": bare, "shard": tree / SHARD}.get(
        given, "waves"
    )
    report = validate(location)
    assert report.verdict == "pass"
    shards = {"tree": 4, "split": 2, "bare": 1, "shard": 1}.get(given, 4)
    assert sum(split.shards for split in report.splits.values()) == shards
    if given == "bare":
        assert [found.code for found in report.findings] == ["no-card"]


def test_bad_requests(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for location, error, words in [
        (tmp_path / "none", DataNotFoundError, "no such folder"),
        (tmp_path / "empty", DataNotFoundError, "holds neither shards"),
    ]:
        with pytest.raises(error, match=words):
            validate(location)
    with pytest.raises(DataNotFoundError, match="has no split 'dev'; there is train, valid, test"):
        validate(tree, splits=["dev"])
    with pytest.raises(UnknownDatasetError):
        validate(tree, card="no_such_dataset")
    (tmp_path / "card.yaml").write_text("- 1")
    with pytest.raises(DocumentError):
        validate(tree, card=tmp_path / "card.yaml")
    with pytest.raises(ArgumentError, match="above zero"):
        validate(tree, jobs=0)
    result = run(tmp_path / "none")
    assert result.returncode == 1
    assert result.stderr.startswith("error: ")
    assert len(result.stderr.splitlines()) == 1
