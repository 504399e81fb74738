"""`wellkit stats`: normalization statistics of a dataset, computed from its shards."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Any

import typer

from wellkit.cli.output import OutputFormat, make_table, print_json, print_note, print_table, progress_bars

if TYPE_CHECKING:
    from wellkit.schemas.statistics import Statistics
    from wellkit.statistics import Difference

app = typer.Typer(add_completion=False)


class Nan(StrEnum):
    """Values of `--nan`."""

    fail = "raise"
    omit = "omit"


@app.command(epilog="Example: wellkit stats data/turbulent_radiative_layer_2D --write")
def stats(
    dataset: str = typer.Argument(
        help="A dataset's folder, a folder of shards, a URL, or the name of a downloaded dataset."
    ),
    split: str = typer.Option("train", help="train, valid or test; normalization uses those of train."),
    write: bool = typer.Option(False, "--write", help="Write them to the dataset's stats.yaml."),
    overwrite: bool = typer.Option(False, "--overwrite", help="With --write: replace a stats.yaml that is there."),
    compare: bool = typer.Option(
        False, "--compare", help="Print where the present stats.yaml differs; exit status 1 beyond the tolerance."
    ),
    tolerance: float = typer.Option(
        1e-3, min=0.0, help="With --compare: largest relative difference (of means: to the spread) that passes."
    ),
    nan: Nan = typer.Option(Nan.fail, help="omit: leave NaN out, for fields that mark masked points with it."),
    jobs: int | None = typer.Option(None, min=1, help="Threads [default: one for each core]."),
    output_format: OutputFormat = typer.Option(OutputFormat.table, "--format", help="How to print the result."),
) -> None:
    """Compute mean, standard deviation and root mean square of every field, and of its change from frame to frame."""
    from wellkit.errors import StatisticsError
    from wellkit.statistics import (
        compare_statistics,
        compute_statistics,
        find_split,
        load_statistics,
        statistics_hash,
        write_statistics,
    )

    location = _location_of(dataset, split)
    place = find_split(location, split)
    if write:
        _check_target(place.statistics, place.split, overwrite=overwrite)
    recorded = load_statistics(place.statistics) if compare else None
    with progress_bars() as progress:
        task = progress.add_task("reading", total=None)
        found = compute_statistics(
            location,
            split,
            nan="omit" if nan is Nan.omit else "raise",
            jobs=jobs,
            progress=lambda done, total: progress.update(task, completed=done, total=total),
        )
    differences = compare_statistics(recorded, found) if recorded is not None else None
    if output_format is OutputFormat.json:
        content: dict[str, Any] = {"location": location, "split": place.split}
        content |= {"sha256": statistics_hash(found), "statistics": found.to_mapping()}
        if differences is not None:
            content["differences"] = [vars(difference) for difference in differences]
        print_json(content)
    elif differences is not None:
        _print_differences(differences, place.statistics)
    else:
        _print_statistics(found, location)
    if write:
        from pathlib import Path

        from wellkit.integrity.describing import record_statistics
        from wellkit.storage import locate

        write_statistics(found, place.statistics)
        record_statistics(Path(locate(place.statistics).path).parent)
        print_note(f"written: {place.statistics}")
    beyond = [difference for difference in differences or () if difference.relative > tolerance]
    if beyond and not write:
        worst = beyond[0]
        raise StatisticsError(
            f"{place.statistics}: {len(beyond)} values differ from those of the data by more than {tolerance:g}, most "
            f"of all '{worst.statistic}' of {worst.component}; replace them with --write --overwrite"
        )


def _location_of(dataset: str, split: str) -> str:
    """A path or URL as it is; else the place of the dataset of that name."""
    from pathlib import Path

    from wellkit.datasets.sources import resolve_source

    if "://" in dataset or "/" in dataset or Path(dataset).expanduser().exists():
        return dataset
    return resolve_source(
        path=None, base_path=None, name=dataset, split=split, normalization_path=None, storage_options=None
    ).root


def _check_target(path: str, split: str | None, *, overwrite: bool) -> None:
    """Refuse what cannot be written before hours of reading."""
    from wellkit.errors import ArgumentError, StorageError
    from wellkit.storage import locate

    place = locate(path)
    if not place.is_local:
        raise ArgumentError(f"{place}: --write needs a local dataset; print them with --format json instead")
    if split not in (None, "train"):
        raise ArgumentError(f"--write with --split {split}: stats.yaml holds those of the training split")
    if place.exists() and not overwrite:
        raise StorageError(f"{place}: exists already; see how it differs with --compare, replace it with --overwrite")


def _print_statistics(found: Statistics, location: str) -> None:
    from wellkit.schemas.statistics import STATISTICS
    from wellkit.statistics import component_values

    table = make_table(location, [("component", "left"), *((statistic, "right") for statistic in STATISTICS)])
    for component, values in component_values(found).items():
        table.add_row(component, *(_number(values.get(statistic)) for statistic in STATISTICS))
    print_table(table)


def _print_differences(differences: list[Difference], path: str) -> None:
    columns = [("component", "left"), ("statistic", "left"), ("stats.yaml", "right"), ("data", "right")]
    table = make_table(path, [*columns, ("relative", "right")])
    for difference in differences:
        numbers = (difference.recorded, difference.computed)
        table.add_row(
            difference.component,
            difference.statistic,
            *(_number(number, digits=9) for number in numbers),
            f"{difference.relative:.1e}",
        )
    if differences:
        print_table(table)
    else:
        print_note(f"{path}: every value is that of the data")


def _number(value: float | None, *, digits: int = 6) -> str:
    return "-" if value is None else f"{value:.{digits}g}"
