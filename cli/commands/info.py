"""`wellkit info`: the whole card of a dataset."""

from __future__ import annotations

import typer

from wellkit.cli.output import OutputFormat, print_json, stdout_console

app = typer.Typer(add_completion=False)


@app.command(epilog="Example: wellkit info turbulent_radiative_layer_2D")
def info(
    name: str = typer.Argument(help="Name of a dataset, as `wellkit list` prints it; NAME@VERSION for a later one."),
    output_format: OutputFormat = typer.Option(OutputFormat.table, "--format", help="How to print the result."),
) -> None:
    """Print everything that is known about a dataset, including what is known to be wrong with it."""
    from wellkit import catalog

    card = catalog.get(name)
    if output_format is OutputFormat.json:
        print_json(card.to_mapping())
        return
    from wellkit.cli.describe import card_view

    stdout_console().print(card_view(card))
