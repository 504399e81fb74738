"""`wellkit cache`: what is kept of streamed datasets and of wellkit's own work, and how to be rid of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from wellkit.cli.output import OutputFormat, make_table, print_json, print_note, print_table, print_text

if TYPE_CHECKING:
    from wellkit.fetch.cache_contents import CachedItem

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    help="Look at what wellkit keeps on this machine, and remove it.",
    epilog="Example: wellkit cache list",
)
_FOLDER_HELP = "The folder that was given as cache=. Default: $WELLKIT_CACHE, else the user's cache directory."


@app.command(name="list", epilog="Example: wellkit cache list --format json")
def list_(
    folder: Path | None = typer.Option(None, "--folder", metavar="DIR", help=_FOLDER_HELP),
    output_format: OutputFormat = typer.Option(OutputFormat.table, "--format", help="How to print the contents."),
) -> None:
    """What is kept of each streamed dataset, and the indexes, Hub listings and compiled code of this machine.

    'present' is the share of the files' bytes that needs no network any more.
    """
    place, items = _contents(folder)
    if output_format is OutputFormat.json:
        print_json({"folder": str(place), "allocated": _allocated(items), "items": [_as_json(item) for item in items]})
        return
    if items:
        _print_table(str(place), items)
    else:
        print_note(f"{place}: holds nothing")


@app.command(epilog="Example: wellkit cache remove turbulent_radiative_layer_2D --dry-run")
def remove(
    names: list[str] | None = typer.Argument(
        None, metavar="NAME", help="What to remove, as `wellkit cache list` names it; also NAME@COMMIT."
    ),
    everything: bool = typer.Option(False, "--all", help="Remove everything in the folder that is wellkit's."),
    dry_run: bool = typer.Option(False, "--dry-run", help="Say what would be removed, and remove nothing."),
    folder: Path | None = typer.Option(None, "--folder", metavar="DIR", help=_FOLDER_HELP),
    output_format: OutputFormat = typer.Option(OutputFormat.table, "--format", help="How to print what was done."),
) -> None:
    """Remove what is kept of datasets, or other contents, and say what that freed. Asks nothing.

    Running programs lose nothing: they fetch again what they need. Downloaded datasets are no cache and stay.
    """
    from rich.filesize import decimal

    from wellkit.fetch.cache_contents import choose, remove_item

    if bool(names) == everything:
        raise typer.BadParameter("give names, or --all for everything", param_hint="NAME")
    place, items = _contents(folder)
    chosen = list(items) if everything else choose(items, names or ())
    freed = [item.allocated if dry_run else remove_item(item) for item in chosen]
    if output_format is OutputFormat.json:
        removed = [{**_as_json(item), "freed": size} for item, size in zip(chosen, freed, strict=True)]
        print_json({"folder": str(place), "dry_run": dry_run, "freed": sum(freed), "removed": removed})
        return
    verb = "would free" if dry_run else "freed"
    for item, size in zip(chosen, freed, strict=True):
        print_text(f"{_title(item)}: {verb} {decimal(size)} ({item.n_files} files)")
    if len(chosen) != 1:
        print_text(f"{verb} {decimal(sum(freed))} in all")
    used = [item.name for item in chosen if item.is_used]
    if used:
        print_note(f"note: in use by running programs: {', '.join(used)}; the space is free when they let go of it")


def _contents(folder: Path | None) -> tuple[Path, list[CachedItem]]:
    from wellkit.fetch.cache_contents import cache_contents
    from wellkit.settings import cache_dir

    if folder is None and not cache_dir().exists():
        return cache_dir(), []
    place = (folder or cache_dir()).expanduser()
    return place, cache_contents(place)


def _allocated(items: list[CachedItem]) -> int:
    return sum(item.allocated for item in items)


def _title(item: CachedItem) -> str:
    return f"{item.name}@{item.commit[:12]}" if item.commit else item.name


def _as_json(item: CachedItem) -> dict[str, Any]:
    from dataclasses import asdict

    return {
        "name": item.name,
        "kind": item.kind,
        "location": item.location,
        "commit": item.commit or None,
        "allocated": item.allocated,
        "size": item.size if item.kind == "shards" else None,
        "present": item.present if item.kind == "shards" else None,
        "last_used": _time(item.used),
        "in_use": item.is_used,
        "n_files": item.n_files,
        "files": [{**asdict(file), "used": _time(file.used)} for file in item.files],
    }


def _time(seconds: float) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def _print_table(title: str, items: list[CachedItem]) -> None:
    from datetime import datetime

    from rich.filesize import decimal
    from rich.markup import escape

    columns = [("name", "left"), ("commit", "left"), ("where", "left"), ("files", "right"), ("on disk", "right")]
    table = make_table(title, [*columns, ("present", "right"), ("last used", "left")])
    for item in items:
        used = "now" if item.is_used else f"{datetime.fromtimestamp(item.used):%Y-%m-%d %H:%M}"
        share = f"{item.present / item.size:.1%}" if item.size else "-"
        size = decimal(item.allocated)
        table.add_row(escape(item.name), item.commit[:12], escape(item.location), str(item.n_files), size, share, used)
    print_table(table)
    print_note(f"{decimal(_allocated(items))} in all; remove with: wellkit cache remove NAME")
