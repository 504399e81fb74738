"""`wellkit verify`: whether the files of a dataset are those that its manifest lists."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from wellkit.cli.output import OutputFormat, make_table, print_json, print_note, print_table, print_text, progress_bars

if TYPE_CHECKING:
    from wellkit.integrity.verify import VerifyReport

app = typer.Typer(add_completion=False)


@app.command(epilog="Example: wellkit verify data/turbulent_radiative_layer_2D --deep")
def verify(
    path: str = typer.Argument(help="A dataset's folder, or the name of a downloaded dataset."),
    deep: bool = typer.Option(False, "--deep", help="Read and hash every file; else sizes and headers."),
    adopt: bool = typer.Option(
        False, "--adopt", help="Hash a tree that another tool fetched against the Hub, and write its manifest."
    ),
    repository: str | None = typer.Option(
        None, "--repository", metavar="OWNER/NAME", help="With --adopt: where the tree comes from."
    ),
    revision: str = typer.Option("main", "--revision", help="With --adopt: branch, tag or commit."),
    jobs: int = typer.Option(4, "--jobs", metavar="N", help="Files hashed at the same time."),
    output: OutputFormat = typer.Option(OutputFormat.table, "--format", help="How to print the result."),
) -> None:
    """Check the files of a dataset against its manifest. Exit status 1 if one is missing or wrong."""
    from wellkit.integrity.verify import verify as run

    with progress_bars(transfer=True) as bars:
        task = bars.add_task("hashing", total=None, visible=deep or adopt)
        report = run(
            path,
            deep=deep,
            adopt=adopt,
            repository=repository,
            revision=revision,
            jobs=jobs,
            progress=lambda done, total: bars.update(task, completed=done, total=total),
        )
    if output is OutputFormat.json:
        print_json(report.to_mapping())
    else:
        _print(report)
    if not report.ok:
        if report.repository is not None:
            print_note(f"next: wellkit repair {report.directory}")
        raise typer.Exit(1)


def _print(report: VerifyReport) -> None:
    from wellkit.integrity.verify import Finding

    shown = [file for file in report.files if file.finding is not Finding.right or file.reason]
    if (shown and report.way != "adopt") or report.faults:
        table = make_table(
            str(report.directory), [("file", "left"), ("finding", "left"), ("bytes", "right"), ("reason", "left")]
        )
        for file in shown:
            table.add_row(file.path, file.finding.value, str(file.bytes), file.reason)
        print_table(table)
    counts = ", ".join(f"{report.count(finding)} {finding.value}" for finding in Finding if report.count(finding))
    how = {"fast": "by size and header", "deep": "by hash", "adopt": "by hash, against the Hub"}[report.way]
    print_text(f"{report.directory}: {len(report.files)} files of {report.source} checked {how}: {counts}")
