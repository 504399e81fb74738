"""`wellkit leaderboard` as a user meets it: what is added, shown, written as Markdown and as a page."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tests.benchmark.results import make_result
from tests.benchmark.test_leaderboard import recomputed, write_board
from tests.cli.commands import Command
from tests.train.advection import NAME, make_advection
from wellkit.benchmark.results import save_result
from wellkit.benchmark.standings import standings
from wellkit.cli.standings import as_markdown, as_tables

HOSTILE = "<script>alert(1)</script> | [bold]x[/bold]"
MANY: dict[str, Any] = {"trajectories": (6, 6), "frames": (40, 40)}
ORIGINAL: dict[str, Any] = {
    "protocol": "well-2024",
    "dataset": "turbulent_radiative_layer_2D",
    "generator": None,
    "resolution": (128, 384),
    "fields": ("density", "pressure", "velocity_x", "velocity_y"),
}


@pytest.fixture
def board(tmp_path: Path) -> Path:
    runs = [
        make_result("fno", quality=0.3 + 0.02 * seed, seed=seed, kind="network", **MANY,
                    model={"parameters": 18_000_000, "training_seconds": 7200.0, "weights_sha256": f"w{seed}"})
        for seed in range(3)
    ]  # fmt: skip
    results = [*runs, make_result(HOSTILE, quality=0.2, **MANY), make_result("persistence", quality=0.5, **MANY)]
    claimed = recomputed(make_result("claims", quality=0.01, **MANY)).model_copy(update={"verification": None})
    return write_board(tmp_path / "board.jsonl", *map(recomputed, results), claimed)


def printed(board: Path, width: int) -> list[str]:
    from wellkit.benchmark import leaderboard

    console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    for table in standings(leaderboard.read(board)):
        for part in as_tables(table, width=width):
            console.print(part)
    console.file.close()
    return console.export_text().splitlines()


@pytest.mark.parametrize("width", [100, 160])
def test_shown_in_a_terminal(board: Path, width: int) -> None:
    lines = printed(board, width)
    assert all(len(line) <= width for line in lines)
    text = "\n".join(lines)
    fno = next(line for line in lines if re.match(r"\s*2\s+fno", line))
    low, high = (re.escape(f"{make_result('fno', quality=q, seed=s, kind='network', **MANY).headline:.4g}")
                 for q, s in ((0.3, 0), (0.34, 2)))  # fmt: skip
    assert re.search(rf"3: {low}-{high}", fno)
    assert "recomputed" in fno
    assert re.search(r"^ *- +claims .*self-reported", text, re.MULTILINE)
    assert re.search(r"^ *- +persistence .*baseline", text, re.MULTILINE)
    assert "<script>" in text  # as it is, and rich's own markup too
    assert "[bold]" in text
    assert "18,000,000" in text
    assert "2.0 h" in text
    assert re.search(r"1\.\d+x, -0\.\d+ \[-0\.\d+,", fno if width > 150 else text)
    assert "note: mean is missing; add it: wellkit evaluate mean" in text


def test_shown_by_the_command(board: Path, wellkit: Command) -> None:
    shown = wellkit("leaderboard", "show", "--board", board)
    assert shown.returncode == 0
    assert re.search(r"^ *1 +<script>", shown.stdout, re.MULTILINE)
    (table,) = wellkit.told("leaderboard", "show", "--board", board)
    assert [(row["model"], row["rank"]) for row in table["rows"]] == [
        (HOSTILE, 1), ("fno", 2), ("claims", None), ("persistence", None),
    ]  # fmt: skip
    fno = table["rows"][1]
    assert fno["seeds"] == [0, 1, 2]
    assert fno["against_persistence"]["trajectories"] == 12
    assert fno["against_persistence"]["high"] < 0
    (only,) = wellkit.told("leaderboard", "show", "--board", board, "--model", "fno", "--protocol", "wellkit-1")
    assert [(row["model"], row["rank"]) for row in only["rows"]] == [("fno", 2), ("persistence", None)]
    nothing = wellkit("leaderboard", "show", "--board", board, "--dataset", "sphere")
    assert (nothing.returncode, nothing.stdout) == (0, "")
    assert "nothing on" in nothing.stderr
    assert "on box" in nothing.stderr


def test_a_page(board: Path, tmp_path: Path, wellkit: Command) -> None:
    out = tmp_path / "board.html"
    told = wellkit.told("leaderboard", "html", "--board", board, "--out", out)
    assert told == {"out": str(out), "tables": 1, "rows": 4}
    page = out.read_text()
    assert "alert(1)" in page
    assert "<script>alert(1)" not in page
    done = wellkit("leaderboard", "html", "--board", board, "--out", out, "--model", "fno")
    assert (done.returncode, done.stdout) == (0, "")
    assert "alert(1)" not in out.read_text()


def test_infinity_in_json_is_a_word(tmp_path: Path, wellkit: Command) -> None:
    board = write_board(tmp_path / "board.jsonl", recomputed(make_result("fno", nonfinite=[0])))
    (table,) = wellkit.told("leaderboard", "show", "--board", board)
    assert table["rows"][0]["headline"] == "Infinity"


def test_markdown(board: Path, tmp_path: Path, wellkit: Command) -> None:
    done = wellkit("leaderboard", "markdown", "--board", board)
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    rows = [line for line in lines if line.startswith("|")]
    cells = {len(re.split(r"(?<!\\)\|", row)) for row in rows}
    assert len(cells) == 1  # a pipe in a name makes no further cell
    assert "<script>" not in done.stdout
    assert r"&lt;script&gt;alert(1)&lt;/script&gt; \| \[bold\]x\[/bold\]" in rows[2]
    assert rows[0].startswith("| rank | model | one step | seeds | 1:5 | 6:12 | 13:30 | vs persistence |")
    assert any(line.startswith("- mean is missing; add it: `wellkit evaluate mean --dataset box ") for line in lines)
    quiet = wellkit("leaderboard", "markdown", "--board", board, "--out", tmp_path / "board.md")
    assert (quiet.returncode, quiet.stdout) == (0, "")
    assert (tmp_path / "board.md").read_text().rstrip("\n") == done.stdout.rstrip("\n")
    told = wellkit.told("leaderboard", "markdown", "--board", board)
    assert told["markdown"].rstrip("\n") == done.stdout.rstrip("\n")
    (tmp_path / "file").write_text("")
    said = wellkit.refused("leaderboard", "markdown", "--board", board, "--out", tmp_path / "file" / "a.md")
    assert "cannot write" in said


def test_published_figures_stand_below_original_data_with_their_taints(tmp_path: Path, wellkit: Command) -> None:
    entries = [recomputed(make_result("fno", **ORIGINAL, **MANY))]
    board = write_board(tmp_path / "board.jsonl", *entries)
    (table,) = wellkit.told("leaderboard", "show", "--board", board)
    published = {row["model"]: row for row in table["rows"] if row["kind"] == "reference"}
    assert published["FNO"]["headline"] == 0.5001
    assert published["TFNO"]["windows"]["13:30"] == ">10"
    assert all(row["rank"] is None and row["taints"] and "arxiv.org" in row["source"] for row in published.values())
    assert [row["kind"] for row in table["rows"]] == ["recomputed"] + ["reference"] * 4
    (made,) = standings(entries)
    text = as_markdown(made)
    assert re.search(r"\| FNO \\\[a,b,[a-z,]+\\\] \| 0\.5001 \|", text)
    letters = {letter for row in made.rows for letter in re.findall(r"(?<=[\[,])[a-z](?=[\],])", row.name)} or {"a"}
    assert all(f"- \\[{letter}\\] " in text for letter in letters)
    for changed in ({"generator": "wellkit 1"}, {"protocol": "wellkit-1"}, {"resolution": (64, 192)}, {"limit": 30}):
        (other,) = standings([recomputed(make_result("fno", **{**ORIGINAL, **MANY, **changed}))])
        assert {row.kind for row in other.rows} == {"recomputed"}
    assert {row.kind for row in standings(entries, references=False)[0].rows} == {"recomputed"}


def test_added_with_predictions_it_has_a_rank(tmp_path: Path, wellkit: Command) -> None:
    base = make_advection(tmp_path / "data", trajectories=(2, 1, 2))
    (tmp_path / "model.py").write_text("")
    scored = ("--dataset", NAME, "--data", base)
    wellkit.told("evaluate", "persistence", *scored, "--out", tmp_path / "persistence.json")
    wellkit.told(
        "evaluate", "tests.benchmark.test_leaderboard:moves", *scored, "--out", tmp_path / "half.json",
        "--name", "half", "--save-predictions", tmp_path / "half",
    )  # fmt: skip
    board = tmp_path / "board.jsonl"
    add = ("leaderboard", "add", tmp_path / "half.json", "--board", board)
    done = wellkit(*add)
    assert done.returncode == 0
    assert "1 self-reported: shown without rank" in done.stderr
    done = wellkit(*add, "--predictions", tmp_path / "half", "--data", base)
    assert done.returncode == 0, done.stderr
    assert "scored again, with the same figures: recomputed" in done.stderr
    told = wellkit.told("leaderboard", "add", tmp_path / "persistence.json", "--board", board, "--data", base)
    assert told["recomputed"] == told["new"]
    (table,) = wellkit.told("leaderboard", "show", "--board", board)
    assert [(row["model"], row["rank"], row["kind"]) for row in table["rows"]] == [
        ("half", 1, "recomputed"), ("persistence", None, "baseline"),
    ]  # fmt: skip
    changed = json.loads((tmp_path / "half.json").read_text())
    changed["one_step"]["mean"] /= 2
    (tmp_path / "changed.json").write_text(json.dumps(changed))
    assert "sha256 is" in wellkit.refused("leaderboard", "add", tmp_path / "changed.json", "--board", board)


def test_tampered_and_hashed_anew(tmp_path: Path, wellkit: Command) -> None:
    result = make_result("fno")
    better = result.one_step.model_copy(update={"mean": 0.01})
    save_result(result.model_copy(update={"one_step": better}).sealed(), tmp_path / "fno.json")
    said = wellkit.refused("leaderboard", "add", tmp_path / "fno.json", "--board", tmp_path / "board.jsonl")
    assert "fno.json: one_step.mean is 0.01, its trajectories give 0.3" in said
    assert not (tmp_path / "board.jsonl").exists()


@pytest.mark.parametrize("command", ["add", "show", "markdown", "html"])
def test_help_ends_with_an_example(command: str, wellkit: Command) -> None:
    done = wellkit("leaderboard", command, "--help")
    assert f"Example: wellkit leaderboard {command} " in " ".join(done.stdout.split())
    assert "--format" in done.stdout
