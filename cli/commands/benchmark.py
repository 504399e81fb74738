"""`wellkit benchmark`: a grid of datasets, models and seeds, to results and a leaderboard."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from wellkit.cli.output import OutputFormat, print_json, print_note, print_table, progress_bars

app = typer.Typer(add_completion=False)


@app.command(
    epilog="Example: wellkit benchmark turbulent_radiative_layer_2D --data data --model fno --model unet_convnext "
    "--seeds 0,1,2 --epochs 5 --to bench  |  wellkit benchmark --config grid.toml --to bench --submit submission"
)
def benchmark(
    datasets: list[str] = typer.Argument(None, help="Names of datasets; may be left out where --config names them."),
    to: Path = typer.Option(Path("benchmark"), help="The grid's folder; give it again to go on where it stopped."),
    config: Path | None = typer.Option(None, help="TOML file that begins with schema = 'wellkit/benchmark-config/1'."),
    data: Path | None = typer.Option(
        None, help="Folder that holds NAME/data/...; by default what was downloaded, else the Hub."
    ),
    models: list[str] = typer.Option([], "--model", help="fno, tfno, unet_classic, unet_convnext, avit; repeatable."),
    seeds: str | None = typer.Option(None, help="Seeds of the trainings, e.g. 0,1,2 (default: 0)."),
    protocols: list[str] = typer.Option([], "--protocol", help="Of the results; repeatable (default: wellkit-1)."),
    split: str | None = typer.Option(None, help="The split that is scored (default: test)."),
    rollout_steps: int | None = typer.Option(None, help="Longest rollout (default: whole trajectories)."),
    epochs: int | None = typer.Option(None, help="Passes over the training split, for every model."),
    hours: float | None = typer.Option(None, help="Wall-clock budget of each training."),
    overrides: list[str] = typer.Option(
        [], "--set", help="key=value of the training configuration of every model, e.g. batch_size=8."
    ),
    processes: int | None = typer.Option(
        None, help="Processes that train one model together, through torchrun (default: one on each GPU, or one)."
    ),
    submit: Path | None = typer.Option(None, help="Write the folder one would send: results, predictions, records."),
    output_format: OutputFormat = typer.Option(OutputFormat.table, "--format", help="How to print the board."),
) -> None:
    """Train every model on every dataset with every seed, score them beside the baselines, and show the board.

    Stopped at any moment, the same command goes on. One result per dataset, model, seed and protocol.
    """
    import wellkit.train  # noqa: F401 - first of all, it says what to install where torch is missing
    from wellkit.benchmark import leaderboard
    from wellkit.benchmark.grid import run_benchmark
    from wellkit.benchmark.grid_config import load_grid
    from wellkit.benchmark.standings import standings
    from wellkit.cli.standings import as_tables

    if not datasets and config is None:
        raise typer.BadParameter("name a dataset, or a --config that does", param_hint="datasets")
    grid = load_grid(
        config,
        values={
            "datasets": tuple(datasets or ()) or None,
            "data": None if data is None else str(data),
            "models": [{"model": model} for model in models] or None,
            "seeds": _numbers(seeds),
            "protocols": tuple(protocols) or None,
            "split": split,
            "rollout_steps": rollout_steps,
        },
        training={"epochs": epochs, "hours": hours},
        overrides=overrides,
    )
    with progress_bars() as bars:
        report = run_benchmark(grid, to, GridBars(bars), processes=processes, submit=submit)
    entries = leaderboard.read(report.board)
    if output_format is OutputFormat.json:
        print_json(
            {
                "board": str(report.board),
                "submission": None if report.submission is None else str(report.submission),
                "results": [result.to_mapping() for result in report.results],
                "failures": [{"cell": failure.cell.label, "reason": failure.reason} for failure in report.failures],
            }
        )
    else:
        for table in standings(entries):
            for shown in as_tables(table):
                print_table(shown)
            for note in table.notes:
                print_note(f"note: {note}")
    print_note(f"leaderboard  {report.board}")
    if report.submission is not None:
        print_note(f"submission   {report.submission}")
    if report.failures:
        from wellkit.errors import ScoreError

        first = report.failures[0]
        raise ScoreError(
            f"{len(report.failures)} of the grid's cells could not be finished; {first.cell.label}: {first.reason}"
        )


def _numbers(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise typer.BadParameter(f"{text!r}; give whole numbers, e.g. 0,1,2", param_hint="--seeds") from error


class GridBars:
    """A line for every piece of work, and bars for the one that is on."""

    def __init__(self, bars: Any) -> None:
        self._bars = bars
        self._whole = bars.add_task("benchmark", total=None)
        self._part: Any = None

    def _say(self, line: str) -> None:
        # On a terminal the bars own the screen: the line is put above them.
        if self._bars.disable:
            print_note(line)
        else:
            self._bars.console.print(line, markup=False)

    def cell(self, number: int, total: int, label: str, what: str) -> None:
        if self._part is not None:
            self._bars.remove_task(self._part)
            self._part = None
        self._bars.update(self._whole, completed=number - 1, total=total)
        self._say(f"[{number} of {total}] {label}: " + ("there already" if what == "kept" else what))

    def working(self, progress: Any) -> None:
        if progress.phase == "epoch":
            self._say(
                f"    epoch {progress.epoch}: training loss {progress.loss:.4g}, "
                f"validation VRMSE {progress.valid_vrmse:.4g}"
            )
            return
        what = {"train": "learning", "valid": "validating"}.get(progress.phase, progress.phase)
        loss = "" if progress.loss is None else f", loss {progress.loss:.3g}"
        text = f"    {what}{loss}, {progress.samples_per_second:.0f} windows/s"
        if self._part is None:
            self._part = self._bars.add_task(text, total=progress.total)
        self._bars.update(self._part, description=text, completed=progress.done, total=progress.total)

    def failed(self, label: str, reason: str) -> None:
        self._say(f"    {label} failed: {reason}")
