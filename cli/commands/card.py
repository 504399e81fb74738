"""`wellkit card`: cards of one's own datasets."""

from __future__ import annotations

from pathlib import Path

import typer

from wellkit.cli.output import OutputFormat, print_json, print_note, print_text

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    help="Write cards for datasets of your own.",
    epilog="Example: wellkit card infer data/turbulent_radiative_layer_2D",
)


@app.callback()
def _group() -> None:
    """Write cards for datasets of your own."""


@app.command(epilog="Example: wellkit card infer data/turbulent_radiative_layer_2D")
def infer(
    path: str = typer.Argument(help="The dataset's folder, with data/<split> below it, or its URL."),
    to: Path | None = typer.Option(
        None, "--to", metavar="FILE", help="Write the card to this file instead of stdout; card.yaml in a folder."
    ),
    name: str | None = typer.Option(None, "--name", help="The dataset's name. Default: that of its folder."),
    collection: str = typer.Option("mine", "--collection", help="The collection it belongs to."),
    overwrite: bool = typer.Option(False, "--overwrite", help="With --to: replace a file that is there."),
    output_format: OutputFormat = typer.Option(OutputFormat.table, "--format", help="table: the card as YAML."),
) -> None:
    """Write a card from what the files of a dataset say: names, fields, resolution, lengths, parameters, boundaries.

    Complete it by hand with what files do not say (units, equations, known faults), and register it:
    WELLKIT_CATALOG=FILE, or wellkit.catalog.register.
    """
    from wellkit.card_inference import infer_card
    from wellkit.catalog.files import card_text
    from wellkit.errors import StorageError
    from wellkit.fetch.disk import check_writable, write_atomically

    target = to / "card.yaml" if to is not None and to.is_dir() else to
    if target is not None:
        check_writable(target)
        if target.exists() and not overwrite:
            raise StorageError(f"{target} is there already; replace it with --overwrite, or choose another file")
    card = infer_card(path, name=name, collection=collection)
    if target is not None:
        write_atomically(target, card_text(card).encode())
        print_note(f"written: {target}")
    if output_format is OutputFormat.json:
        print_json(card.to_mapping())
    elif target is None:
        print_text(card_text(card).rstrip("\n"))
