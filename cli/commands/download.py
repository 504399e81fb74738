"""`wellkit download`: a dataset, or a part of it, from the Hub to disk."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from wellkit.cli.output import OutputFormat, make_table, print_json, print_note, print_table, print_text, progress_bars

if TYPE_CHECKING:
    from wellkit.fetch.download import DownloadReport

app = typer.Typer(add_completion=False)


@app.command()
def download(
    name: str = typer.Argument(help="A name of the catalog (`wellkit list`), or OWNER/NAME on the Hub."),
    to: Path | None = typer.Option(None, "--to", metavar="DIR", help="Base folder; files go to DIR/NAME/."),
    split: list[str] = typer.Option([], "--split", help="train, valid or test; repeatable. Default: all."),
    include: list[str] = typer.Option([], "--include", metavar="GLOB", help="Only files that match; repeatable."),
    exclude: list[str] = typer.Option([], "--exclude", metavar="GLOB", help="No files that match; repeatable."),
    max_files: int | None = typer.Option(None, "--max-files", metavar="N", help="At most N shards of each split."),
    max_bytes: str | None = typer.Option(
        None, "--max-bytes", metavar="SIZE", help="At most so much, e.g. 20GB; one shard of each split in turn."
    ),
    where: str | None = typer.Option(
        None, "--where", metavar="CONDITION", help="Parameters in file names: tcool=0.1 or 'Re>=1e4,Sc=0.5'."
    ),
    source: str = typer.Option("auto", "--source", help="auto (the Hub, else mirrors), hub, mirror, or a URL."),
    revision: str = typer.Option("main", "--revision", help="Branch, tag or commit."),
    jobs: int = typer.Option(8, "--jobs", metavar="N", help="Files transferred at the same time."),
    yes: bool = typer.Option(False, "--yes", help="Transfer more than 100 GB."),
    dry_run: bool = typer.Option(False, "--dry-run", help="Show what would be done; write nothing."),
    output: OutputFormat = typer.Option(OutputFormat.table, "--format", help="How to print the result."),
) -> None:
    """Download a dataset. Complete files are kept, so the same command again goes on where it stopped.

    Every file is checked against the hash the Hub lists before it gets its name.

    Example: wellkit download turbulent_radiative_layer_2D --split valid --max-files 1 --dry-run
    """
    import warnings

    from wellkit.cli.transfer_bars import TransferBars
    from wellkit.errors import WellkitWarning
    from wellkit.integrity.download import download as run

    with warnings.catch_warnings(), progress_bars(transfer=True) as bars:
        warnings.simplefilter("ignore", WellkitWarning)  # the report holds the same notes
        report = run(
            name,
            to,
            splits=split or None,
            include=include,
            exclude=exclude,
            max_files=max_files,
            max_bytes=_bytes(max_bytes),
            where=where,
            source=source,
            revision=revision,
            jobs=jobs,
            dry_run=dry_run,
            confirmed=yes,
            progress=TransferBars(bars),
        )
    for note in report.notes:
        print_note(f"note: {note}")
    if output is OutputFormat.json:
        print_json(report.to_mapping())
    elif dry_run:
        _print_plan(report)
    else:
        _print_summary(report)


def _bytes(text: str | None) -> int | None:
    """A number of bytes as people write it: 500MB, 20 GB, 1GiB, 123456."""
    import re

    from wellkit.errors import ArgumentError

    if text is None:
        return None
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgtp]?)(i?)b?\s*", text, re.IGNORECASE)
    if match is None or (match[3] and not match[2]):
        raise ArgumentError(f"--max-bytes {text!r} is no size; write for example 500MB, 20GB or 1GiB")
    base = 1024 if match[3] else 1000
    return int(float(match[1]) * base ** " kmgtp".index(match[2].lower() or " "))


def _print_plan(report: DownloadReport) -> None:
    from rich.filesize import decimal

    from wellkit.fetch.plan import ActionKind

    table = make_table(
        f"{report.repository} at {report.commit[:12]} to {report.directory}",
        [("file", "left"), ("action", "left"), ("size", "right"), ("bytes", "right"), ("reason", "left")],
    )
    for action in report.actions:
        file = action.file
        table.add_row(file.path, action.kind.value, decimal(file.size), str(file.size), action.reason)
    print_table(table)
    totals = [
        f"{report.count(kind)} to {kind.value} ({decimal(report.size(kind))})"
        for kind in ActionKind
        if report.count(kind)
    ]
    print_text(
        f"{report.count()} files, {decimal(report.size())}: {', '.join(totals)}; {decimal(report.remaining)} to "
        "transfer. Nothing was written."
    )
    if report.refusal:
        print_note(f"would be refused: {report.refusal}")


def _print_summary(report: DownloadReport) -> None:
    import shlex

    from rich.filesize import decimal

    from wellkit.settings import data_dir

    kinds = ("fetch", "resume", "replace")
    fetched, kept = report.remaining, report.count("keep")
    unverified = sum(not action.file.hash.is_published for action in report.actions)
    checked = f"{unverified} files unverified, first seen" if unverified else "every file checked"
    at = f" at {report.commit[:12]}" if report.commit else ""
    rate = f" at {decimal(int(fetched / report.seconds))}/s" if fetched and report.seconds else ""
    print_text(
        f"{report.directory}: {report.count(*kinds)} files fetched ({decimal(fetched)}{rate}), "
        f"{kept} kept; {report.repository}{at}, {checked}"
    )
    if not report.in_catalog:
        print_note(f'next: wellkit.WellDataset(path="{report.directory}", well_split_name="train")')
        return
    base = "" if report.directory.parent == data_dir() else f"WELLKIT_DATA={shlex.quote(str(report.directory.parent))} "
    print_note(f"next: {base}wellkit train {report.name} --model fno")
