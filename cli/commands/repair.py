"""`wellkit repair`: fetch again what is missing or wrong in a dataset, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from wellkit.cli.output import OutputFormat, make_table, print_json, print_table, print_text, progress_bars

if TYPE_CHECKING:
    from wellkit.integrity.repair import RepairReport

app = typer.Typer(add_completion=False)


@app.command(epilog="Example: wellkit repair data/turbulent_radiative_layer_2D --dry-run")
def repair(
    path: str = typer.Argument(help="A dataset's folder, or the name of a downloaded dataset."),
    fast: bool = typer.Option(False, "--fast", help="Find out by sizes and headers instead of hashes."),
    jobs: int = typer.Option(4, "--jobs", metavar="N", help="Files read, and transferred, at the same time."),
    yes: bool = typer.Option(False, "--yes", help="Transfer more than 100 GB."),
    dry_run: bool = typer.Option(False, "--dry-run", help="Show what would be fetched; write nothing."),
    output: OutputFormat = typer.Option(OutputFormat.table, "--format", help="How to print the result."),
) -> None:
    """Fetch what is missing or wrong again, in the version that the manifest lists.

    A wrong file stays until its replacement is verified. Exit status 1 if something is still wrong.
    """
    from wellkit.cli.transfer_bars import TransferBars
    from wellkit.integrity.repair import repair as run

    with progress_bars(transfer=True) as bars:
        task = bars.add_task("hashing", total=None, visible=not fast)
        report = run(
            path,
            deep=not fast,
            jobs=jobs,
            dry_run=dry_run,
            confirmed=yes,
            verifying=lambda done, total: bars.update(task, completed=done, total=total),
            progress=TransferBars(bars),
        )
    if output is OutputFormat.json:
        print_json(report.to_mapping())
    else:
        _print(report)


def _print(report: RepairReport) -> None:
    from rich.filesize import decimal

    if not report.actions:
        print_text(f"{report.found.directory}: {len(report.found.files)} files checked, nothing to repair")
        return
    table = make_table(
        str(report.found.directory), [("file", "left"), ("action", "left"), ("bytes", "right"), ("reason", "left")]
    )
    for action in report.actions:
        table.add_row(action.file.path, action.kind.value, str(action.file.size), action.reason)
    print_table(table)
    done = "to be fetched; nothing was written" if report.dry_run else "fetched, each file checked"
    print_text(f"{len(report.actions)} files, {decimal(report.bytes)} {done}")
