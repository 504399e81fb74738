"""`wellkit validate`: everything that can be wrong with a tree of shards."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from wellkit.cli.output import OutputFormat, make_table, print_json, print_note, print_table, progress_bars

if TYPE_CHECKING:
    from wellkit.schemas.validation import ValidationReport

app = typer.Typer(add_completion=False)
_STYLES = {"error": "bold red", "warning": "yellow", "info": "blue"}
_MIB = 1 << 20
_ROWS = 12  # findings of one code that the table lists


@app.command(epilog="Example: wellkit validate data/turbulent_radiative_layer_2D --html report.html")
def validate(
    path: str = typer.Argument(
        help="A dataset's folder, the folder of a split, a folder of shards, one shard, a URL, or the name of a "
        "downloaded dataset."
    ),
    split: list[str] = typer.Option([], help="Only this split; may be repeated."),
    card: str | None = typer.Option(
        None,
        help="A card file or the name of a dataset, to hold the shards against [default: card.yaml beside them, "
        "else the catalog's].",
    ),
    headers_only: bool = typer.Option(False, "--headers-only", help="Do not read the values of fields."),
    nan_field: list[str] = typer.Option([], help="A field in which NaN mark points outside the domain; repeatable."),
    html: Path | None = typer.Option(None, help="Write the report as a page with pictures of what is wrong."),
    strict: bool = typer.Option(False, "--strict", help="Warnings too make the exit status 1."),
    jobs: int | None = typer.Option(None, min=1, help="Threads [default: one for each core]."),
    scheduler: str | None = typer.Option(None, help="Address of a Dask scheduler whose workers see the same files."),
    timeout: float = typer.Option(60.0, min=0.1, help="Seconds that parsing one header may take."),
    frame_budget: int = typer.Option(64, min=1, help="MiB of frames that a thread holds where chunks are large."),
    output_format: OutputFormat = typer.Option(OutputFormat.table, "--format", help="How to print the result."),
) -> None:
    """Check shards against the format and the card, and look for wrong data; exit status 1 if there are errors."""
    from wellkit.errors import MissingDependencyError
    from wellkit.validation.validate import validate as look

    with progress_bars(transfer=True) as progress:
        task = progress.add_task("validating", total=None)
        report = look(
            path,
            splits=split or None,
            card=card,
            data=not headers_only,
            nan_fields=nan_field,
            jobs=jobs,
            scheduler=scheduler,
            timeout=timeout,
            frame_budget=frame_budget * _MIB,
            progress=lambda done, total: progress.update(task, completed=done, total=total),
        )
    if html is not None:
        from wellkit.validation.html import write_html
        from wellkit.validation.thumbnails import draw_findings

        try:
            pictures = draw_findings(report.location, report.findings, timeout=timeout)
        except MissingDependencyError as error:
            print_note(f"warning: {error}; the report goes without pictures")
            pictures = {}
        write_html(html, report, pictures)
        print_note(f"written: {html}")
    if output_format is OutputFormat.json:
        print_json(report.to_mapping())
    else:
        _print_report(report)
    if report.verdict == "fail" or (strict and report.counts["warning"]):
        raise typer.Exit(1)


def _print_report(report: ValidationReport) -> None:
    from rich.markup import escape

    columns = [("severity", "left"), ("code", "left"), ("where", "left"), ("what", "left")]
    table = make_table(f"{report.location} ({report.dataset or 'unknown dataset'})", columns)
    advice: dict[str, str] = {}
    rows, left = Counter[str](), Counter[str](report.unlisted)
    for found in report.findings:
        rows[found.code] += 1
        if rows[found.code] > _ROWS:
            left[found.code] += 1
            continue
        style = _STYLES[found.severity]
        table.add_row(f"[{style}]{found.severity}[/]", found.code, escape(found.place), escape(found.message))
        advice.setdefault(found.code, found.advice)
    for code, count in left.items():
        table.add_row("", code, "", f"and {count} more of this kind; --format json and --html list them")
    if report.findings:
        print_table(table)
    for code, told in advice.items():
        print_note(f"{code}: {told}")
    totals = list(report.splits.values())
    numbers = ("shards", "trajectories", "frames", "GB read", "seconds")
    summary = make_table("", [("verdict", "left"), ("findings", "left"), *((name, "right") for name in numbers)])
    summary.title = None
    summary.add_row(
        f"[bold {'red' if report.verdict == 'fail' else 'green'}]{report.verdict}[/]",
        report.tally,
        str(sum(one.shards for one in totals)),
        str(sum(one.trajectories for one in totals)),
        str(sum(one.frames for one in totals)),
        f"{report.bytes_read / 1e9:.2f}" if report.data_checked else "headers only",
        f"{report.seconds:.1f}",
    )
    print_table(summary)
