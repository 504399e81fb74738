"""`wellkit train`: a surrogate model on a dataset."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from wellkit.cli.output import OutputFormat, make_table, print_json, print_note, print_table, progress_bars

app = typer.Typer(add_completion=False)


@app.command(
    epilog="Example: wellkit train turbulent_radiative_layer_2D --data data --model fno --epochs 5 --to runs/fno"
)
def train(
    name: str | None = typer.Argument(None, help="The dataset; may be left out where --config or --resume names it."),
    model: str | None = typer.Option(None, help="fno, tfno, unet_classic, unet_convnext or avit (default: fno)."),
    data: Path | None = typer.Option(
        None, help="Folder that holds NAME/data/...; by default what was downloaded, else the Hub."
    ),
    to: Path | None = typer.Option(None, help="The run's folder (default: runs/NAME-MODEL-seedSEED)."),
    epochs: int | None = typer.Option(None, help="Passes over the training split (default: 20)."),
    hours: float | None = typer.Option(None, help="Wall-clock budget; with --epochs, whichever ends first."),
    config: Path | None = typer.Option(None, help="TOML file that begins with schema = 'wellkit/train-config/1'."),
    overrides: list[str] = typer.Option(
        [], "--set", help="key=value over everything else, e.g. learning_rate=5e-4, model_arguments.modes1=12."
    ),
    seed: int | None = typer.Option(None, help="Of initial weights and sample order (default: 0)."),
    batch_size: int | None = typer.Option(None, help="Windows per step, over all processes (default: 16)."),
    precision: str | None = typer.Option(None, help="float32, tf32, bf16 or fp16 (default: float32)."),
    device: str | None = typer.Option(None, help="auto, cpu, cuda, ... (default: auto)."),
    workers: int | None = typer.Option(None, help="Processes that read ahead (default: 0)."),
    resume: Path | None = typer.Option(
        None, help="Go on with the run in this folder, as it was configured; --epochs and --hours may be raised."
    ),
    overwrite: bool = typer.Option(False, "--overwrite", help="Replace a run that is already in the folder."),
    output_format: OutputFormat = typer.Option(OutputFormat.table, "--format", help="How to print the report."),
) -> None:
    """Train a model; leaves a folder with the best and the last checkpoint, the log and a report.

    Started by torchrun, several processes train one model together.
    """
    from wellkit.errors import WellkitError
    from wellkit.settings import process_number
    from wellkit.train import load_config, read_config
    from wellkit.train import train as run_training

    if resume is not None and (to is not None or config is not None or overwrite):
        raise typer.BadParameter("goes on in its own folder, as it was configured: without --to, --config, --overwrite")
    if name is None and config is None and resume is None:
        raise typer.BadParameter("name a dataset, or a --config that does", param_hint="name")
    given: dict[str, Any] = {
        "dataset": name,
        "model": model,
        "data": None if data is None else str(data),
        "epochs": epochs,
        "hours": hours,
        "seed": seed,
        "batch_size": batch_size,
        "precision": precision,
        "device": device,
        "workers": workers,
    }
    if resume is not None:
        given = read_config(resume).to_mapping() | {key: value for key, value in given.items() if value is not None}
    loaded = load_config(config, values=given, overrides=overrides)
    folder = resume or to or Path("runs") / f"{loaded.dataset}-{loaded.model}-seed{loaded.seed}"
    options: dict[str, Any] = {"overwrite": overwrite, "resume": resume is not None}
    if process_number() > 0:
        try:
            run_training(loaded, folder, **options)
        except WellkitError as error:
            if error.told_elsewhere:
                raise typer.Exit(1) from error
            raise
        return
    with progress_bars() as bars:
        report = run_training(loaded, folder, progress=TrainingBars(bars), **options)
    if output_format is OutputFormat.json:
        print_json(report.to_mapping())
        return
    table = make_table(f"{report.model} on {report.dataset}", [("", "left"), ("", "left")])
    for label, value in (
        ("best validation VRMSE", f"{report.best_valid_vrmse:.4g} (epoch {report.best_epoch} of {report.epochs})"),
        ("last validation VRMSE", f"{report.last_valid_vrmse:.4g}"),
        ("last training loss", f"{report.last_train_loss:.4g}"),
        ("parameters", f"{report.parameters:,}"),
        ("steps", f"{report.steps:,}, ended by the budget of {report.stopped_by}"),
        ("time", f"{report.seconds:.1f} s, {report.samples_per_second:.1f} windows/s"),
        ("waiting for data", f"{report.stall_share:.0%} of training time"),
        ("energy", "not known" if report.energy_joules is None else f"{report.energy_joules / 3.6e6:.3g} kWh"),
        ("hardware", f"{report.hardware}, {report.processes} process{'es' * (report.processes > 1)}"),
        ("run", report.run),
    ):
        table.add_row(label, value)
    print_table(table)
    print_note(f"score it with: wellkit evaluate {report.run}")


class TrainingBars:
    """Turns what training tells into bars on a terminal, and into a line an epoch on stderr."""

    def __init__(self, bars: Any) -> None:
        self._bars = bars
        self._whole = bars.add_task("training", total=1.0)
        self._part = bars.add_task("epoch 1", total=None)

    def __call__(self, progress: Any) -> None:
        self._bars.update(self._whole, completed=progress.fraction or None)
        if progress.phase == "train":
            text = (
                f"epoch {progress.epoch}: loss {progress.loss:.3g}, {progress.samples_per_second:.0f} windows/s, "
                f"{progress.stall_share:.0%} waiting"
            )
            self._bars.update(self._part, description=text, completed=progress.done, total=progress.total)
        elif progress.phase == "valid":
            text = f"epoch {progress.epoch}: validation"
            self._bars.update(self._part, description=text, completed=progress.done, total=progress.total)
        else:
            best = " (best)" if progress.best else ""
            line = (
                f"epoch {progress.epoch}: training loss {progress.loss:.4g}, "
                f"validation VRMSE {progress.valid_vrmse:.4g}{best}"
            )
            # On a terminal the bars own the screen: the line is put above them.
            if self._bars.disable:
                print_note(line)
            else:
                self._bars.console.print(line, markup=False)
