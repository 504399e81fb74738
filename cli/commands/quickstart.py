"""`wellkit quickstart`: the main road in one go, offline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from wellkit.cli.output import OutputFormat, print_json, print_note, print_table, progress_bars

app = typer.Typer(add_completion=False)


@app.command(epilog="Example: wellkit quickstart --to quickstart")
def quickstart(
    to: Path = typer.Option(Path("quickstart"), help="Folder for data, runs, results and pictures."),
    seed: int = typer.Option(0, help="Of the simulations and of the training."),
    output_format: OutputFormat = typer.Option(OutputFormat.table, "--format", help="How to print the scores."),
) -> None:
    """Simulate a small dataset, train two models on it, score them beside baselines, and draw a rollout.

    Needs no network. What was there from an earlier quickstart is replaced.
    """
    import wellkit.train  # noqa: F401 - first of all, it says what to install where torch is missing
    from wellkit.benchmark import leaderboard
    from wellkit.benchmark.standings import standings
    from wellkit.cli.standings import as_mapping, as_tables
    from wellkit.quickstart import quickstart as run

    with progress_bars() as bars:
        report = run(to, QuickstartBars(bars), seed=seed)
    tables = standings(leaderboard.read(report.board))
    if output_format is OutputFormat.json:
        print_json(
            {
                "dataset": str(report.dataset),
                "board": str(report.board),
                "picture": str(report.picture),
                "animation": str(report.animation),
                "results": [row for table in tables for row in as_mapping(table)["rows"]],
            }
        )
        return
    for table in tables:
        for part in as_tables(table):
            print_table(part)
    data = report.dataset.parent
    print_note(f"data         {report.dataset}")
    print_note(f"picture      {report.picture}, {report.animation}")
    print_note(f"leaderboard  {report.board}")
    print_note("VRMSE: 0 is perfect, 1 is as good as the true mean of each frame. What next:")
    print_note(f"  wellkit train {report.dataset.name} --data {data} --model unet_convnext --epochs 20 --to runs/unet")
    print_note(f"  wellkit download {report.dataset.name} --max-files 1     # the original, from the Hub")


class QuickstartBars:
    """A heading for each stage, and a bar for what it does."""

    def __init__(self, bars: Any) -> None:
        self._bars = bars
        self._task: Any = None

    def _say(self, line: str) -> None:
        # On a terminal the bars own the screen: the line is put above them.
        if self._bars.disable:
            print_note(line)
        else:
            self._bars.console.print(line, markup=False)

    def _update(self, description: str, done: float, total: float | None) -> None:
        if self._task is None:
            self._task = self._bars.add_task(description, total=total)
        self._bars.update(self._task, description=description, completed=done, total=total)

    def stage(self, title: str) -> None:
        if self._task is not None:
            self._bars.remove_task(self._task)
            self._task = None
        self._say(f"- {title}")

    def simulated(self, done: int, total: int) -> None:
        self._update("trajectories", done, total)

    def training(self, progress: Any) -> None:
        if progress.phase == "epoch":
            self._say(
                f"    epoch {progress.epoch}: training loss {progress.loss:.4g}, "
                f"validation VRMSE {progress.valid_vrmse:.4g}"
            )
        else:
            what = "learning" if progress.phase == "train" else "validating"
            self._update(
                f"epoch {progress.epoch}, {what}, {progress.samples_per_second:.0f} windows/s",
                progress.done,
                progress.total,
            )

    def scoring(self, progress: Any) -> None:
        self._update(progress.phase, progress.done, progress.total)
