"""`wellkit generate`: simulate a dataset instead of downloading it."""

from __future__ import annotations

from pathlib import Path

import typer

from wellkit.cli.output import OutputFormat, make_table, print_json, print_note, print_table, progress_bars

app = typer.Typer(add_completion=False)

_EXAMPLE = (
    "Example: wellkit generate turbulent_radiative_layer_2D --to data --resolution 32x96 --trajectories 12 "
    "--parameter tcool=0.1,1.0"
)


@app.command(epilog=_EXAMPLE)
def generate(
    name: str = typer.Argument(help="turbulent_radiative_layer_2D or gray_scott_reaction_diffusion."),
    to: Path = typer.Option(None, help="Base folder; the dataset goes to TO/NAME. Default: $WELLKIT_DATA."),
    resolution: str = typer.Option(None, help="Points along each axis, e.g. 64x192. Default: the original's."),
    trajectories: int = typer.Option(None, help="In all splits together (0.8/0.1/0.1). Default: the original's."),
    steps: int = typer.Option(None, help="Frames of a trajectory. Default: the original's."),
    seed: int = typer.Option(0, help="The same seed gives the same data."),
    jobs: int = typer.Option(None, help="Processes. Default: one for each core. Does not change the data."),
    parameter: list[str] = typer.Option([], help="Values to simulate: NAME=VALUE[,VALUE...]. Repeatable."),
    overwrite: bool = typer.Option(False, "--overwrite", help="Replace a dataset generated before."),
    output_format: OutputFormat = typer.Option(OutputFormat.table, "--format", help="How to print the result."),
) -> None:
    """Simulate a dataset: the published one's fields, domain and cadence from a solver of our own.

    Writes TO/NAME/data/{train,valid,test}/*.hdf5 with stats.yaml and card.yaml, marked as generated.
    """
    from wellkit.generation.arguments import parse_parameters, parse_resolution
    from wellkit.generation.generate import generate as generate_dataset

    with progress_bars() as bars:
        task = bars.add_task(f"simulating {name}", total=None)
        report = generate_dataset(
            name,
            to,
            resolution=parse_resolution(resolution) if resolution is not None else None,
            trajectories=trajectories,
            steps=steps,
            seed=seed,
            jobs=jobs,
            parameters=parse_parameters(parameter),
            overwrite=overwrite,
            progress=lambda done, total: bars.update(task, completed=done, total=total),
        )
    if output_format is OutputFormat.json:
        print_json(report.to_mapping())
        return
    table = make_table(f"{report.name}, generated", [("split", "left"), ("trajectories", "right"), ("files", "right")])
    for split, count in report.trajectories.items():
        table.add_row(split, str(count), str(report.files[split]))
    print_table(table)
    shape = " x ".join(map(str, report.resolution))
    print_note(
        f"{shape} points, {report.steps} frames each, {report.bytes / 1e6:.1f} MB, seed {report.seed}, "
        f"{report.seconds:.1f} s on {report.jobs} processes: {report.path}"
    )
