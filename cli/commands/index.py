"""`wellkit index`: where every chunk of a dataset's shards lies, written beside them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from wellkit.cli.output import (
    OutputFormat,
    make_table,
    print_error,
    print_json,
    print_note,
    print_table,
    print_text,
    progress_bars,
)

if TYPE_CHECKING:
    from wellkit.index.tree import TreeReport

app = typer.Typer(add_completion=False)


@app.command(epilog="Example: wellkit index data/turbulent_radiative_layer_2D")
def index(
    dataset: str = typer.Argument(help="A dataset's folder, a folder of shards, or the name of a downloaded dataset."),
    jobs: int = typer.Option(2, "--jobs", metavar="N", min=1, help="Shards parsed at the same time."),
    check: bool = typer.Option(False, "--check", help="Compare with the index that is there; write nothing."),
    keep_going: bool = typer.Option(
        False, "--keep-going", help="Write the index of the other shards where some cannot be indexed."
    ),
    timeout: float = typer.Option(60.0, "--timeout", metavar="SECONDS", min=0.1, help="Time limit for one shard."),
    output_format: OutputFormat = typer.Option(OutputFormat.table, "--format", help="How to print the result."),
) -> None:
    """Index every shard below a folder, so that opening the dataset opens none of them.

    Shards are parsed in child processes with a time limit: a damaged one ends in a line that names it.
    """
    from wellkit.index.tree import check_tree, index_tree

    folder = _folder_of(dataset)
    with progress_bars() as bars:
        task = bars.add_task("checking" if check else "indexing", total=None)

        def progress(done: int, total: int) -> None:
            bars.update(task, completed=done, total=total)

        if check:
            report = check_tree(folder, jobs=jobs, timeout=timeout, progress=progress)
        else:
            report = index_tree(folder, jobs=jobs, timeout=timeout, progress=progress, keep_going=keep_going)
    if output_format is OutputFormat.json:
        _print_json(report)
    else:
        _print_tables(report)
    for shard in report.failed:
        print_error(shard.error or "")
    if report.written is not None:
        print_note(f"note: written to {report.written} ({report.written.stat().st_size} bytes)")
    elif report.failed and not check:
        print_note("note: no index was written; repair or remove these shards, or index the others with --keep-going")
    if report.failed:
        raise typer.Exit(1)


def _folder_of(dataset: str) -> str:
    """A path as it is; else the folder of the downloaded dataset of that name."""
    from pathlib import Path

    from wellkit.errors import DataNotFoundError, did_you_mean
    from wellkit.settings import data_dir

    given = Path(dataset).expanduser()
    if "://" in dataset or "/" in dataset or given.exists():
        return dataset if "://" in dataset else str(given)
    place = data_dir() / dataset
    if not place.is_dir():
        known = [folder.name for folder in data_dir().iterdir()] if data_dir().is_dir() else []
        raise DataNotFoundError(
            f"{dataset}: no such folder, and {data_dir()} holds no dataset of that name.{did_you_mean(dataset, known)}"
        )
    return str(place)


def _print_json(report: TreeReport) -> None:
    from dataclasses import asdict

    print_json(
        {
            "folder": report.folder,
            "written": None if report.written is None else str(report.written),
            "shards": [asdict(shard) for shard in report.shards],
        }
    )


def _print_tables(report: TreeReport) -> None:
    from rich.filesize import decimal

    heads = ("shards", "arrays", "inline", "chunks", "size", "fallbacks", "failed")
    table = make_table(report.folder, [("folder", "left"), *((head, "right") for head in heads)])
    folders: dict[str, list[int]] = {}
    reasons: dict[tuple[str, str], int] = {}
    for shard in report.shards:
        fallbacks = shard.fallbacks or {}
        numbers = (
            1,
            shard.arrays,
            shard.inline,
            shard.chunks,
            shard.bytes,
            len(fallbacks),
            int(shard.error is not None),
        )
        totals = folders.setdefault(shard.path.rpartition("/")[0] or ".", [0] * len(numbers))
        totals[:] = [total + number for total, number in zip(totals, numbers, strict=True)]
        for found in fallbacks.items():
            reasons[found] = reasons.get(found, 0) + 1
    for folder, totals in folders.items():
        texts = [decimal(total) if head == "size" else str(total) for head, total in zip(heads, totals, strict=True)]
        table.add_row(folder, *texts)
    print_table(table)
    for (name, reason), count in sorted(reasons.items()):
        print_text(f"read through libhdf5: {name} ({reason}) in {count} shards")
