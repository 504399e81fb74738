"""`wellkit leaderboard`: results side by side, baselines among them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from wellkit.cli.output import OutputFormat, make_table, print_json, print_note, print_table

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    help="Keep results on a board and compare them.",
    epilog="Example: wellkit leaderboard show --board board.jsonl",
)


@app.command(epilog="Example: wellkit leaderboard add results/fno.json results/persistence.json --board board.jsonl")
def add(
    results: list[Path] = typer.Argument(help="Result files, as `wellkit evaluate --out` writes them."),
    board: Path = typer.Option(..., help="The board, a file of JSON lines; made where it is missing."),
    output_format: OutputFormat = typer.Option(OutputFormat.table, "--format", help="How to print what was done."),
) -> None:
    """Put results on a board; a repetition of the same evaluation replaces the older one."""
    from wellkit.benchmark import leaderboard

    done = leaderboard.add(results, board)
    if output_format is OutputFormat.json:
        print_json({"board": str(board), "new": done.new, "replaced": done.replaced, "total": done.total})
        return
    print_note(f"{board}: {len(done.new)} new, {len(done.replaced)} replaced, {done.total} in all")


@app.command(epilog="Example: wellkit leaderboard show --board board.jsonl")
def show(
    board: Path = typer.Option(..., help="The board."),
    output_format: OutputFormat = typer.Option(OutputFormat.table, "--format", help="How to print the board."),
) -> None:
    """Show a board: a table for each set of results that may be compared, best one-step VRMSE first."""
    from wellkit.benchmark import leaderboard

    groups = leaderboard.show(board)
    if output_format is OutputFormat.json:
        print_json([{"id": group.comparable_id, "title": group.title, "rows": group.rows()} for group in groups])
        return
    for group in groups:
        print_table(board_table(group))
    if not groups:
        print_note(f"{board} holds no results; add some with: wellkit leaderboard add RESULT.json --board {board}")


def board_table(group: Any) -> Any:
    """One table of comparable results; baselines are set in italics and marked."""
    columns = [("model", "left"), ("one step", "right")]
    columns += [(f"rollout 1-{n}", "right") for n in group.horizons]
    columns += [("parameters", "right"), ("epochs", "right"), ("time", "right"), ("seed", "right"), ("id", "left")]
    table = make_table(f"VRMSE: {group.title}", columns)
    for row in group.rows():
        scores = [row["one_step"], *(row[f"rollout_1_{n}"] for n in group.horizons)]
        name = f"{row['model']} (baseline)" if row["baseline"] else row["model"]
        table.add_row(
            name,
            *("-" if score is None else f"{score:.4g}" for score in scores),
            f"{row['parameters']:,}" if row["parameters"] else "-",
            _or_dash(row["epochs"]),
            "-" if row["hours"] is None else _duration(row["hours"]),
            _or_dash(row["seed"]),
            row["id"][:8],
            style="italic dim" if row["baseline"] else None,
        )
    return table


def _or_dash(value: int | None) -> str:
    return "-" if value is None else str(value)


def _duration(hours: float) -> str:
    if hours >= 1:
        return f"{hours:.1f} h"
    return f"{60 * hours:.1f} min" if hours >= 1 / 60 else f"{3600 * hours:.0f} s"
