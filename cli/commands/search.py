"""`wellkit search`: datasets by words."""

from __future__ import annotations

import typer

from wellkit.cli.output import OutputFormat, print_json, print_note, print_table, stdout_console

app = typer.Typer(add_completion=False)


@app.command(epilog="Example: wellkit search magnetic turbulence")
def search(
    words: list[str] = typer.Argument(help="Words that all have to occur in a card."),
    output_format: OutputFormat = typer.Option(OutputFormat.table, "--format", help="How to print the result."),
) -> None:
    """Find datasets by words in their names, titles, fields, parameters, descriptions and equations; best first."""
    from wellkit import catalog
    from wellkit.cli.describe import summary_json, summary_table

    found = catalog.search(" ".join(words))
    if output_format is OutputFormat.json:
        print_json([summary_json(card) for card in found])
    elif found:
        print_table(summary_table(found, stdout_console().width))
    else:
        print_note(f"no card has all of these words: {' '.join(words)}; try fewer, or: wellkit list")
