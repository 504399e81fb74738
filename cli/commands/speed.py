"""`wellkit speed`: how fast a dataset loads on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from wellkit.cli.output import OutputFormat, make_table, print_json, print_note, print_table, print_text, progress_bars

if TYPE_CHECKING:
    from wellkit.speed import SpeedReport

app = typer.Typer(add_completion=False)


@app.command(epilog="Example: wellkit speed data/turbulent_radiative_layer_2D --batch-size 8 --workers 0,2")
def speed(
    dataset: str = typer.Argument(
        help="A dataset's folder, a folder of shards, a URL, or the name of a downloaded dataset."
    ),
    split: str = typer.Option("train", help="train, valid or test."),
    batch_size: int = typer.Option(8, "--batch-size", metavar="N", min=1, help="Samples in a batch."),
    steps_input: int = typer.Option(4, "--steps-input", metavar="N", min=1, help="Input steps of a window."),
    steps_output: int = typer.Option(1, "--steps-output", metavar="N", min=1, help="Output steps of a window."),
    workers: str = typer.Option("0,1,2,4", metavar="N,N,...", help="Threads (with --torch: and processes) to try."),
    seconds: float = typer.Option(2.0, metavar="SECONDS", min=0.01, help="How long each row is timed."),
    cold: bool = typer.Option(False, "--cold", help="Also with the page cache emptied of the shards before each turn."),
    torch: bool = typer.Option(False, "--torch", help="Also torch's DataLoader over the dataset."),
    seed: int = typer.Option(0, min=0, help="Of the choice of windows."),
    output_format: OutputFormat = typer.Option(OutputFormat.table, "--format", help="How to print the result."),
) -> None:
    """Time random windows, z-scored, beside preadv of the same bytes: what the machine itself can hand over."""
    from wellkit.datasets.sources import resolve_source
    from wellkit.speed import measure_speed

    counts = _counts(workers)
    location = dataset
    if not _is_place(dataset):
        location = resolve_source(
            path=None, base_path=None, name=dataset, split=split, normalization_path=None, storage_options=None
        ).root
    with progress_bars() as progress:
        task = progress.add_task("timing", total=None)
        report = measure_speed(
            location,
            split,
            batch_size=batch_size,
            n_steps_input=steps_input,
            n_steps_output=steps_output,
            workers=counts,
            seconds=seconds,
            cold=cold,
            torch=torch,
            seed=seed,
            progress=lambda done, total: progress.update(task, completed=done, total=total),
        )
    if output_format is OutputFormat.json:
        print_json(report.to_mapping())
    else:
        _print_report(report)
    for note in report.notes:
        print_note(f"note: {note}")


def _is_place(dataset: str) -> bool:
    from pathlib import Path

    return "://" in dataset or "/" in dataset or Path(dataset).expanduser().exists()


def _counts(workers: str) -> list[int]:
    parts = [part.strip() for part in workers.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise typer.BadParameter(f"{workers!r} is no list of whole numbers such as 0,1,2,4", param_hint="--workers")
    return list(dict.fromkeys(map(int, parts)))


def _print_report(report: SpeedReport) -> None:
    from rich.filesize import decimal

    heads = ("samples/s", "MB/s", "of preadv", "read/needed", "memory", "workers' memory")
    table = make_table(
        report.location,
        [("way", "left"), ("workers", "right"), ("cache", "left"), *((head, "right") for head in heads)],
    )
    for cache, samples in report.roofline.items():
        megabytes = samples * (report.stored_bytes or 0) / 1e6
        read = _ratio(report.roofline_read_per_needed.get(cache))
        table.add_row("preadv, one thread", "0", cache, _rate(samples), _rate(megabytes), "1.00", read, "-", "-")
    for row in report.rows:
        table.add_row(
            row.way,
            str(row.workers),
            row.cache,
            _rate(row.samples_per_second),
            _rate(row.megabytes_per_second),
            _ratio(row.roofline_share),
            _ratio(row.bytes_read_per_needed),
            "-" if row.peak_memory is None else decimal(row.peak_memory),
            "-" if row.worker_memory is None else decimal(row.worker_memory),
        )
    print_table(table)
    steps = f"{report.n_steps_input}+{report.n_steps_output} steps"
    cold = f"; cold: {report.pool_cold} that share no frame, the page cache emptied of all shards before each turn"
    shards = "1 shard" if report.shards == 1 else f"{report.shards} shards"
    print_text(
        f"windows of {steps}, {decimal(report.sample_bytes)} as delivered, in batches of {report.batch_size}; "
        f"{report.pool_warm} of {report.windows} windows of {shards}, read before{cold if report.pool_cold else ''}; "
        f"{report.cores} cores"
    )
    print_text(
        "of preadv: samples/s over those of preadv of the same stored bytes, in turns (medians); read/needed: bytes "
        "read over stored bytes needed, of which warm ones that are mapped count as needed, and cold ones are what "
        "came from storage; memory: largest anonymous resident memory"
    )


def _rate(number: float) -> str:
    return f"{number:.0f}" if number >= 100 else f"{number:.1f}"


def _ratio(number: float | None) -> str:
    return "-" if number is None else f"{number:.2f}"
