"""The leaderboard's page as a file: what is in it, what cannot get out of it, how large it grows."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import html.parser
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest

from tests.benchmark.page_tables import HOSTILE, make_board, make_result, make_row, make_table, spoil
from wellkit.benchmark import page_pictures
from wellkit.benchmark.page import embed, page, write_page
from wellkit.benchmark.page_data import number, page_content
from wellkit.benchmark.page_pictures import Pictures
from wellkit.benchmark.page_words import definitions
from wellkit.benchmark.protocols import PROTOCOLS
from wellkit.benchmark.standings import Table
from wellkit.errors import StorageError


class Page(html.parser.HTMLParser):
    """Elements, and the content of scripts and style sheets."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.contents: dict[str, str] = {}
        self._in = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._in = "data" if dict(attrs).get("type") == "application/json" else tag

    def handle_data(self, data: str) -> None:
        self.contents[self._in] = self.contents.get(self._in, "") + data

    def handle_endtag(self, tag: str) -> None:
        self._in = ""


def test_a_page_is_one_file_that_asks_for_nothing(tmp_path: Path) -> None:
    target = write_page(make_board(), tmp_path / "new" / "board.html", title="A board", made="today")
    assert [path.name for path in target.parent.iterdir()] == ["board.html"]
    parsed = Page(target.read_text())
    addresses = {v for _, attrs in parsed.tags for k, v in attrs.items() if k in ("src", "href", "action", "data")}
    assert addresses == {"data:,"}
    assert not re.search(r"url\(|@import|fetch\(|XMLHttpRequest|innerHTML|insertAdjacent|eval\(", target.read_text())
    policy = next(
        attrs["content"] for tag, attrs in parsed.tags if attrs.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy is not None
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    for kind, content in (("script-src", "script"), ("style-src", "style")):
        digest = base64.b64encode(hashlib.sha256(parsed.contents[content].encode()).digest()).decode()
        assert rules.pop(kind) == f"'sha256-{digest}'"
    assert rules == {"default-src": "'none'", "img-src": "data:", "base-uri": "'none'", "form-action": "'none'"}


def test_the_data_of_a_page_are_those_of_the_tables_in_their_order() -> None:
    board = make_board()
    shown = json.loads(Page(page(board, title="t")).contents["data"])
    assert shown == json.loads(json.dumps(page_content(board, title="t", made="")))
    for table, there in zip(board, shown["tables"], strict=True):
        assert [row["name"] for row in there["rows"]] == [row.name for row in table.rows]
        assert there["protocol"]["sha256"] == table.protocol.definition_sha256
        for row, line in zip(table.rows, there["rows"], strict=True):
            assert line["cells"]["rank"]["v"] == row.rank
            assert (line["why"] is None) == (row.rank is not None)
            assert [result["sha256"] for result in line["results"]] == [result.sha256 for result in row.results]
    ranks = [line["cells"]["rank"]["t"] for line in shown["tables"][0]["rows"]]
    assert ranks == ["1", "2=", "2=", "–", "4", "–", "–"]
    assert "/home/someone" not in json.dumps(shown)


@pytest.mark.parametrize("text", HOSTILE)
def test_text_stays_text(text: str) -> None:
    benign = Page(page([spoil("harmless")], title="harmless", made="harmless"))
    raw = page([spoil(text)], title=text, made=text)
    hostile = Page(raw)
    assert hostile.tags == benign.tags
    shown = json.loads(hostile.contents["data"])
    table = shown["tables"][0]
    row = next(row for row in table["rows"] if row["kind"] == "self-reported" and row["name"] == text)
    assert shown["title"] == shown["made"] == text
    assert table["notes"][0] == text
    assert row["results"][0]["run"]["code_version"] == text
    assert table["rows"][-1]["taints"] == [text]
    assert hostile.contents["script"] == benign.contents["script"]
    assert not re.search("[\u2028\u2029<>&]", hostile.contents["data"])


def test_what_is_embedded_cannot_end_its_element() -> None:
    text = embed({"a": "</script><!--<script>&\u2028\u2029\x00é\udcff"})
    assert text.isascii()
    assert not set(text) & set("<>&")
    assert json.loads(text) == {"a": "</script><!--<script>&\u2028\u2029\x00é\udcff"}


def test_names_of_parts_in_the_data_are_left_alone() -> None:
    assert Page(page([], title="@@SCRIPT@@ @@DATA@@")).contents["title"] == "@@SCRIPT@@ @@DATA@@"


def test_a_page_that_cannot_be_written_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot write"):
        write_page([], tmp_path / "file" / "board.html")


def test_many_results_fit() -> None:
    rows = [
        make_row("fno", "recomputed", n + 1, seeds=(n,), trajectories=100, shape=(128, 384), code_version=str(n))
        for n in range(30)
    ]
    table = dataclasses.replace(make_table(), rows=tuple(rows))
    size = len(page([table]).encode())
    assert 200_000 < size < 5_000_000
    picture = next(iter(json.loads(Page(page([table])).contents["data"])["pictures"].values()))
    assert len(base64.b64decode(picture)) < 128 * 384


def test_numbers_are_short() -> None:
    assert number(0.123456789) == 0.123457
    assert number(1234567.8) == 1234570
    assert [number(value) for value in (math.inf, -math.inf, math.nan, None, 17_312_009)] == [
        "Infinity",
        "-Infinity",
        "NaN",
        None,
        17_312_009,
    ]


def test_numbers_that_are_not_finite_may_be_anywhere() -> None:
    row = make_row("fno", "recomputed", 1)
    result = row.results[0]
    assert result.example is not None
    run = result.run.model_copy(update={"seconds": math.nan, "stall_share": math.inf})
    model = result.model.model_copy(update={"arguments": {"width": math.inf}, "training_seconds": math.inf})
    example = result.example.model_copy(update={"low": -math.inf, "extent": (math.nan, 1.0)})
    result = result.model_copy(update={"run": run, "model": model, "example": example})
    table = dataclasses.replace(make_table(), rows=(dataclasses.replace(row, headline=math.nan, results=(result,)),))
    shown = json.loads(Page(page([table])).contents["data"])["tables"][0]["rows"][0]
    assert shown["cells"]["headline"]["v"] == "NaN"
    assert shown["cells"]["training"]["v"] == "Infinity"
    assert shown["results"][0]["run"]["seconds"] == "NaN"
    assert shown["example"]["low"] == "-Infinity"


def test_rows_share_their_truth_and_pictures_shrink_by_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    results = [make_result("fno", shape=(33, 50)), make_result("avit", shape=(33, 50))]
    pictures = Pictures([(result,) for result in results])
    first, second = (pictures.example((result,)) for result in results)
    assert first is not None
    assert second is not None
    assert first["reduced"] == 1
    assert [p["truth"] for p in first["pictures"]] == [p["truth"] for p in second["pictures"]]
    assert len(pictures.shared) == 3 + 2 * 3
    monkeypatch.setattr(page_pictures, "BUDGET", 10_000)
    small = Pictures([(result,) for result in results])
    shown = small.example((results[0],))
    assert shown is not None
    factor = shown["reduced"]
    assert factor in (2, 3)
    assert shown["shape"] == [math.ceil(33 / factor), math.ceil(50 / factor)]
    assert results[0].example is not None
    whole = np.frombuffer(base64.b64decode(results[0].example.pictures[1].prediction), np.uint8).reshape(33, 50)
    reduced = np.frombuffer(base64.b64decode(small.shared[shown["pictures"][1]["prediction"]]), np.uint8)
    reduced = reduced.reshape(shown["shape"])
    assert reduced[3, 5] == round(whole[3 * factor : 4 * factor, 5 * factor : 6 * factor].mean())
    assert reduced[-1, -1] == round(whole[factor * (len(reduced) - 1) :, factor * (reduced.shape[1] - 1) :].mean())


def test_pictures_that_are_not_what_they_say_are_left_out() -> None:
    result = make_result("fno")
    assert result.example is not None
    first, second, third = result.example.pictures
    broken = result.example.model_copy(
        update={
            "pictures": (first.model_copy(update={"truth": "AAAA"}), second.model_copy(update={"truth": "<b>"}), third)
        }
    )
    result = result.model_copy(update={"example": broken})
    shown = Pictures([(result,)]).example((result,))
    assert shown is not None
    assert [picture["step"] for picture in shown["pictures"]] == [third.step]


@pytest.mark.parametrize("name", sorted(PROTOCOLS))
def test_definitions_follow_the_protocol(name: str) -> None:
    protocol = PROTOCOLS[name]
    words = definitions(Table("id", "a table", protocol, (make_row("fno", "recomputed", 1, protocol=protocol),)))
    assert f"eps = {protocol.eps:g} " in words["headline"]
    assert ("median over trajectories" in words["headline"]) == (protocol.headline != "mean")
    assert ("left out of means" in words["headline"]) == (protocol.flat == "left out")
    for a, b in protocol.windows:
        assert f"steps {a} to {b}, both counted" in words[f"window {a}:{b}"]
