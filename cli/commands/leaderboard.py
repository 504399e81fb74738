"""`wellkit leaderboard`: results side by side, baselines among them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from wellkit.cli.output import OutputFormat, print_json, print_note, print_table, print_text

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    help="Keep results on a board, check them, and compare them.",
    epilog="Example: wellkit leaderboard show --board board.jsonl",
)

_BOARD: Path = typer.Option(..., help="The board, a file of JSON lines.")
_DATASET: str | None = typer.Option(None, help="Tables of this dataset only.")
_PROTOCOL: str | None = typer.Option(None, help="Tables of this protocol only.")
_MODEL: str | None = typer.Option(None, help="This model only, beside the baselines; ranks stay those among all.")


@app.command(
    epilog="Example: wellkit leaderboard add fno.json --board board.jsonl --predictions predictions/fno --data data"
)
def add(
    results: list[Path] = typer.Argument(help="Result files, as `wellkit evaluate --out` writes them."),
    board: Path = typer.Option(..., help="The board, a file of JSON lines; made where it is missing."),
    predictions: Path | None = typer.Option(
        None, help="What the one result was scored from: it is scored again, and ranked if it comes out the same."
    ),
    data: Path | None = typer.Option(
        None, help="Folder that holds DATASET/data/..., to score against (default: what was downloaded)."
    ),
    output_format: OutputFormat = typer.Option(OutputFormat.table, "--format", help="How to print what was done."),
) -> None:
    """Check results and put them on a board; a repetition of the same evaluation replaces the older one.

    Without --predictions an entry is self-reported: it is shown, and has no rank. persistence and mean need no
    predictions: with --data they are scored again.
    """
    from wellkit.benchmark import leaderboard

    done = leaderboard.add(results, board, predictions=predictions, data=data)
    if output_format is OutputFormat.json:
        told = {"new": done.new, "replaced": done.replaced, "kept": done.kept, "recomputed": done.recomputed}
        print_json({"board": str(board), **told, "total": done.total})
        return
    kept = f", {len(done.kept)} kept as recomputed" if done.kept else ""
    print_note(f"{board}: {len(done.new)} new, {len(done.replaced)} replaced{kept}, {done.total} in all")
    others = len(set(done.new) | set(done.replaced)) - len(done.recomputed)
    if done.recomputed:
        print_note(f"{len(done.recomputed)} scored again, with the same figures: recomputed")
    if others:
        print_note(f"{others} self-reported: shown without rank; add --predictions DIR --data DIR to have it ranked")


@app.command(epilog="Example: wellkit leaderboard show --board board.jsonl")
def show(
    board: Path = _BOARD,
    dataset: str | None = _DATASET,
    protocol: str | None = _PROTOCOL,
    model: str | None = _MODEL,
    output_format: OutputFormat = typer.Option(OutputFormat.table, "--format", help="How to print the board."),
) -> None:
    """Show a board: a table for each data identity and protocol, recomputed rows ranked."""
    tables = _tables(board, dataset, protocol, model)
    if output_format is OutputFormat.json:
        from wellkit.cli.standings import as_mapping

        print_json([as_mapping(table) for table in tables])
        return
    for table in tables:
        for part in board_tables(table):
            print_table(part)


@app.command(epilog="Example: wellkit leaderboard markdown --board board.jsonl --out RESULTS.md")
def markdown(
    board: Path = _BOARD,
    out: Path | None = typer.Option(None, help="Write it here instead of printing it."),
    dataset: str | None = _DATASET,
    protocol: str | None = _PROTOCOL,
    model: str | None = _MODEL,
    output_format: OutputFormat = typer.Option(
        OutputFormat.table, "--format", help="table: Markdown itself; json: where it went, and the text."
    ),
) -> None:
    """A board as Markdown tables, for a README."""
    from wellkit.cli.standings import as_markdown

    text = "\n".join(as_markdown(table) for table in _tables(board, dataset, protocol, model))
    if out is not None:
        from wellkit.fetch.disk import write_atomically

        write_atomically(out, text.encode())
        print_note(f"wrote {out}")
    if output_format is OutputFormat.json:
        print_json({"out": None if out is None else str(out), "markdown": text})
    elif out is None:
        print_text(text.rstrip("\n"))


@app.command(epilog="Example: wellkit leaderboard html --board board.jsonl --out board.html")
def html(
    board: Path = _BOARD,
    out: Path = typer.Option(..., help="The page: one file, which needs no server and no network."),
    dataset: str | None = _DATASET,
    protocol: str | None = _PROTOCOL,
    model: str | None = _MODEL,
    output_format: OutputFormat = typer.Option(OutputFormat.table, "--format", help="How to print where it went."),
) -> None:
    """A board as a page of its own: sortable tables, rollout curves, spectra, pictures, provenance of every number."""
    from datetime import UTC, datetime

    from wellkit import __version__
    from wellkit.benchmark.page import write_page

    tables = _tables(board, dataset, protocol, model)
    write_page(tables, out, made=f"wellkit {__version__}, {datetime.now(UTC).date().isoformat()}")
    if output_format is OutputFormat.json:
        print_json({"out": str(out), "tables": len(tables), "rows": sum(len(table.rows) for table in tables)})
    else:
        print_note(f"wrote {out}: {len(tables)} table{'s' * (len(tables) != 1)}; open it in a browser")


def _tables(board: Path, dataset: str | None, protocol: str | None, model: str | None) -> Any:
    from wellkit.benchmark import leaderboard
    from wellkit.benchmark.standings import narrowed, standings

    entries = leaderboard.read(board)
    tables = narrowed(standings(entries), dataset=dataset, protocol=protocol, model=model)
    if not entries:
        print_note(f"{board} holds no results; add some with: wellkit leaderboard add RESULT.json --board {board}")
    elif not tables:
        models = sorted({entry.result.model.name for entry in entries})
        datasets = sorted({entry.result.dataset.name for entry in entries})
        print_note(f"nothing on {board} fits; it holds {', '.join(models)} on {', '.join(datasets)}")
    return tables


def board_tables(table: Any) -> list[Any]:
    """What is printed of one `wellkit.benchmark.standings.Table`: the table, published figures, notes."""
    from wellkit.cli.standings import as_tables

    return as_tables(table)
