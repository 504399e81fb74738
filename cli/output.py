"""The one sink of the command line: results on stdout, everything else on stderr, bars only on a terminal."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress
    from rich.table import Table


class OutputFormat(StrEnum):
    """Values of `--format`."""

    table = "table"
    json = "json"


def stdout_console() -> Console:
    """Console for results. Off a terminal it does not wrap lines to 80 columns."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else 200, highlight=False, soft_wrap=not sys.stdout.isatty())


def stderr_console() -> Console:
    """Console for progress, notes and errors."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)


def print_json(content: Any) -> None:
    """Write `content` as JSON to stdout. NaN and infinity become null: JSON has no word for them."""
    sys.stdout.write(json.dumps(_json_safe(content), indent=2, allow_nan=False, default=str) + "\n")


def _json_safe(content: Any) -> Any:
    if isinstance(content, dict):
        return {str(key): _json_safe(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_json_safe(value) for value in content]
    if isinstance(content, float) and content - content != 0.0:
        return None
    return content


def make_table(title: str, columns: Sequence[tuple[str, str]]) -> Table:
    """A table with `columns` as (header, "left" | "right"); the title is shown as it is (no markup)."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=escape(title), title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for header, justify in columns:
        table.add_column(header, justify="right" if justify == "right" else "left", overflow="fold")
    return table


def print_table(table: Table) -> None:
    """Write a table to stdout."""
    stdout_console().print(table)


def print_text(text: str) -> None:
    """Write a result line to stdout, as it is (no markup)."""
    sys.stdout.write(text + "\n")


def print_note(text: str) -> None:
    """Write a line for the human beside the results to stderr, as it is (no markup)."""
    sys.stderr.write(text + "\n")


def print_error(message: str) -> None:
    """Write a known failure to stderr, on one line."""
    sys.stderr.write("error: " + " ".join(message.split()) + "\n")


@contextmanager
def progress_bars(*, transfer: bool = False) -> Iterator[Progress]:
    """A rich progress display on stderr, silent where stderr is not a terminal.

    Args:
        transfer: show bytes and a rate instead of a count.
    """
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    amounts = (DownloadColumn(), TransferSpeedColumn()) if transfer else (MofNCompleteColumn(), TimeElapsedColumn())
    console = stderr_console()
    with Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        *amounts,
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
        transient=False,
    ) as progress:
        yield progress
