"""`wellkit index`: where every chunk of a dataset's shards lies, written beside them or to be published."""

from __future__ import annotations

from collections.abc import Sequence
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
    from pathlib import Path

    from wellkit.index.tree import ShardReport

app = typer.Typer(add_completion=False)


@app.command(epilog="Example: wellkit index data/turbulent_radiative_layer_2D")
def index(
    dataset: str = typer.Argument(
        help="A dataset's folder, a folder of shards, or the name of a downloaded dataset; with --publish-to also an "
        "address."
    ),
    jobs: int = typer.Option(2, "--jobs", metavar="N", min=1, help="Shards parsed at the same time."),
    check: bool = typer.Option(False, "--check", help="Compare with the index that is there; write nothing."),
    keep_going: bool = typer.Option(
        False, "--keep-going", help="Write the index of the other shards where some cannot be indexed."
    ),
    publish_to: str | None = typer.Option(
        None,
        "--publish-to",
        metavar="DIR",
        help="Write the index into DIR instead, laid out to be uploaded to a repository of your own.",
    ),
    name: str | None = typer.Option(
        None, "--name", help="With --publish-to: the dataset's name, where its folder has another."
    ),
    timeout: float = typer.Option(60.0, "--timeout", metavar="SECONDS", min=0.1, help="Time limit for one shard."),
    output_format: OutputFormat = typer.Option(OutputFormat.table, "--format", help="How to print the result."),
) -> None:
    """Index every shard below a folder, so that opening the dataset opens none of them.

    Shards are parsed in child processes with a time limit: a damaged one ends in a line that names it. Of a remote
    dataset (hf://datasets/OWNER/NAME, https://..., s3://...) only the shards' headers are fetched.
    """
    from wellkit.index.tree import check_tree, index_tree

    if publish_to is None and name is not None:
        raise typer.BadParameter("goes with --publish-to", param_hint="--name")
    if publish_to is not None and check:
        raise typer.BadParameter("cannot be combined with --publish-to", param_hint="--check")
    folder = _folder_of(dataset)
    written: tuple[Path, ...]
    with progress_bars() as bars:
        task = bars.add_task("checking" if check else "indexing", total=None)

        def progress(done: int, total: int) -> None:
            bars.update(task, completed=done, total=total)

        if publish_to is not None:
            from wellkit.index.publish import publish_index

            published = publish_index(
                folder, publish_to, name=name, jobs=jobs, timeout=timeout, progress=progress, keep_going=keep_going
            )
            shards, written = published.shards, published.written
        else:
            if check:
                report = check_tree(folder, jobs=jobs, timeout=timeout, progress=progress)
            else:
                report = index_tree(folder, jobs=jobs, timeout=timeout, progress=progress, keep_going=keep_going)
            shards, written = report.shards, () if report.written is None else (report.written,)
    if output_format is OutputFormat.json:
        _print_json(folder, shards, written, publish_to is not None)
    else:
        _print_tables(folder, shards)
    failed = [shard.error for shard in shards if shard.error is not None]
    for error in failed:
        print_error(error)
    for path in written:
        print_note(f"note: written to {path} ({path.stat().st_size} bytes)")
    if failed and not written and not check:
        print_note("note: no index was written; repair or remove these shards, or index the others with --keep-going")
    if failed:
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


def _print_json(folder: str, shards: Sequence[ShardReport], written: Sequence[Path], is_published: bool) -> None:
    from dataclasses import asdict

    paths = [str(path) for path in written]
    print_json(
        {
            "folder": folder,
            "written": paths if is_published else next(iter(paths), None),
            "shards": [asdict(shard) for shard in shards],
        }
    )


def _print_tables(folder_name: str, shards: Sequence[ShardReport]) -> None:
    from rich.filesize import decimal

    heads = ("shards", "arrays", "inline", "chunks", "size", "fallbacks", "failed")
    table = make_table(folder_name, [("folder", "left"), *((head, "right") for head in heads)])
    folders: dict[str, list[int]] = {}
    reasons: dict[tuple[str, str], int] = {}
    for shard in shards:
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
