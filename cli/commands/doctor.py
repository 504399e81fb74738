"""`wellkit doctor`: this machine, the Hub and the datasets on disk, and what to do next."""

from __future__ import annotations

from pathlib import Path

import typer

from wellkit.cli.output import OutputFormat, make_table, print_json, print_table, print_text

app = typer.Typer(add_completion=False)
_STYLES = {"broken": "bold red", "warning": "yellow", "note": "cyan", "ok": "green"}


@app.command(epilog="Example: wellkit doctor --offline")
def doctor(
    data: Path | None = typer.Option(
        None,
        "--data",
        metavar="DIR",
        help="Folder of datasets. Default: $WELLKIT_DATA, else the user's data directory.",
    ),
    offline: bool = typer.Option(False, "--offline", help="Do not ask the Hub."),
    timeout: float = typer.Option(5.0, "--timeout", metavar="SECONDS", help="How long to wait for the Hub."),
    output_format: OutputFormat = typer.Option(OutputFormat.table, "--format", help="How to print what was found."),
) -> None:
    """Look at versions, processors and GPUs, the Hub, disks, caches and the datasets on disk, and say what to do next.

    Reads sizes and the beginnings of files, no data. Exit status 1 where something is broken; what is merely missing or
    cannot be reached is not.
    """
    from wellkit.doctor.examine import examine

    health = examine(data, network=not offline, seconds=timeout)
    if output_format is OutputFormat.json:
        print_json(health.to_mapping())
    else:
        from rich.text import Text

        table = make_table("", [("", "left"), ("what", "left"), ("", "left"), ("found", "left")])
        section = None
        for finding in health.findings:
            heading = finding.section if finding.section != section else ""
            section = finding.section
            status = Text(finding.status, style=_STYLES[finding.status])
            table.add_row(Text(heading, style="bold"), Text(finding.name), status, Text(finding.value))
        print_table(table)
        for number, step in enumerate(health.next_steps):
            print_text(("next: " if number == 0 else "      ") + step)
    if health.is_broken:
        raise typer.Exit(1)
