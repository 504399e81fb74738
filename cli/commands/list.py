"""`wellkit list`: which datasets there are."""

from __future__ import annotations

from enum import StrEnum

import typer

from wellkit.cli.output import OutputFormat, print_json, print_note, print_table, stdout_console

app = typer.Typer(add_completion=False)


class Kind(StrEnum):
    """Values of `--kind`."""

    simulation = "simulation"
    survey = "survey"


@app.command(epilog="Example: wellkit list --kind simulation")
def list_datasets(
    collection: str | None = typer.Option(None, help="Only datasets of this collection, e.g. the_well."),
    kind: Kind | None = typer.Option(None, help="Only datasets of this kind."),
    output_format: OutputFormat = typer.Option(OutputFormat.table, "--format", help="How to print the result."),
) -> None:
    """List the datasets there are: grid, number of runs, frames of a run, float32 size."""
    from wellkit import catalog
    from wellkit.cli.describe import summary_json, summary_table

    cards = catalog.cards(collection, kind)
    if output_format is OutputFormat.json:
        print_json([summary_json(card) for card in cards])
    elif cards:
        print_table(summary_table(cards, stdout_console().width))
        print_note(f"{len(cards)} datasets; read all about one with: wellkit info NAME")
    else:
        print_note("no dataset matches; `wellkit list` without options names all")
