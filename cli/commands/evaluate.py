"""`wellkit evaluate`: an honest score for a trained model or a baseline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from wellkit.cli.output import OutputFormat, make_table, print_json, print_note, print_table, progress_bars

app = typer.Typer(add_completion=False)


@app.command(
    epilog="Example: wellkit evaluate runs/fno --data data --out results/fno.json --picture fno.png  |  "
    "wellkit evaluate persistence --dataset turbulent_radiative_layer_2D --data data"
)
def evaluate(
    model: str = typer.Argument(help="Folder of a run or checkpoint, or a baseline: persistence, mean."),
    data: Path | None = typer.Option(
        None, help="Folder that holds DATASET/data/...; by default the one trained on, or what was downloaded."
    ),
    dataset: str | None = typer.Option(None, help="Its name; by default the one trained on. Baselines need it."),
    split: str = typer.Option("test", help="train, valid or test."),
    eps: float = typer.Option(1e-7, help="Added to the spatial variance in the VRMSE."),
    steps_input: int | None = typer.Option(None, help="Input steps of a baseline (default: 4)."),
    rollout_steps: int | None = typer.Option(None, help="Longest rollout (default: whole trajectories)."),
    batch_size: int = typer.Option(16, help="Windows at once; does not change the score."),
    workers: int = typer.Option(0, help="Processes that read ahead."),
    device: str = typer.Option("auto", help="auto, cpu, cuda, ..."),
    out: Path | None = typer.Option(None, help="Write the result as JSON here, for `wellkit leaderboard add`."),
    picture: Path | None = typer.Option(None, help="Write a PNG of truth, prediction and error of a rollout here."),
    gif: Path | None = typer.Option(None, help="Write the rollout as an animated GIF here."),
    trajectory: int = typer.Option(0, help="The trajectory of the picture and the GIF."),
    fields: list[str] = typer.Option([], "--field", help="A component to draw; may be repeated."),
    output_format: OutputFormat = typer.Option(OutputFormat.table, "--format", help="How to print the result."),
) -> None:
    """Score one step ahead over every window, and rollouts over every trajectory, in physical units (VRMSE)."""
    import wellkit.train  # noqa: F401 - first of all, it says what to install where torch is missing
    from wellkit.benchmark.contenders import prepare
    from wellkit.benchmark.evaluate import evaluate_contender, save_result
    from wellkit.benchmark.examples import rollout_example
    from wellkit.benchmark.pictures import animate_rollout, check_pictures, draw_rollout
    from wellkit.fetch.disk import check_writable
    from wellkit.train.data import choose_device

    if out is not None:
        check_writable(out)
    check_pictures(png=picture, gif=gif)
    contender = prepare(
        model,
        data=data,
        dataset=dataset,
        split=split,
        n_steps_input=steps_input,
        device=choose_device(device),
    )
    with progress_bars() as bars:
        result = evaluate_contender(
            contender,
            eps=eps,
            rollout_steps=rollout_steps,
            batch_size=batch_size,
            workers=workers,
            progress=EvaluationBars(bars),
        )
    if out is not None:
        save_result(result, out)
        print_note(f"wrote {out}")
    if picture is not None or gif is not None:
        example = rollout_example(contender, trajectory=trajectory, max_steps=rollout_steps, eps=eps)
        if picture is not None:
            print_note(f"wrote {draw_rollout(example, picture, fields=fields or None)}")
        if gif is not None:
            print_note(f"wrote {animate_rollout(example, gif, fields=fields or None)}")
    if output_format is OutputFormat.json:
        print_json(result.to_mapping())
    else:
        print_table(result_table(result))
        for note in result_notes(result):
            print_note(note)


class EvaluationBars:
    """Bars of the two parts of an evaluation."""

    def __init__(self, bars: Any) -> None:
        self._bars = bars
        self._tasks: dict[str, Any] = {}

    def __call__(self, progress: Any) -> None:
        if progress.phase not in self._tasks:
            name = {"one-step": "one step, every window", "rollout": "rollouts, every step"}[progress.phase]
            self._tasks[progress.phase] = self._bars.add_task(name, total=progress.total)
        self._bars.update(self._tasks[progress.phase], completed=progress.done, total=progress.total)


def result_table(result: Any) -> Any:
    """VRMSE by component: one step, whole rollout, and the rollout at some steps."""
    steps = sorted({1, len(result.rollout.per_step) // 2 or 1, len(result.rollout.per_step)})
    table = make_table(
        f"{result.model.name} on {result.dataset.name} ({result.dataset.split}): VRMSE",
        [("field", "left"), ("one step", "right"), ("rollout", "right"), *((f"step {s}", "right") for s in steps)],
    )
    for name, score in result.one_step.per_field.items():
        per_step = result.rollout.per_field_and_step[name]
        cells = [score, result.rollout.per_field[name], *(per_step[s - 1] for s in steps)]
        table.add_row(name, *(f"{cell:.4g}" for cell in cells))
    means = [result.one_step.mean, result.rollout.mean, *(result.rollout.per_step[s - 1] for s in steps)]
    table.add_section()
    table.add_row("mean", *(f"{cell:.4g}" for cell in means))
    return table


def result_notes(result: Any) -> list[str]:
    """What the numbers are of, in words."""
    rollout = result.rollout
    notes = [
        f"one step: {result.one_step.windows} windows, median {result.one_step.median:.4g}; rollouts: "
        f"{rollout.trajectories} trajectories of up to {len(rollout.per_step)} steps, median {rollout.median:.4g}; "
        f"eps {result.protocol.eps:g}; {result.seconds:.1f} s"
    ]
    notes += [f"rollout steps {window}: {score:.4g}" for window, score in rollout.windows.items()]
    if result.one_step.nonfinite or rollout.nonfinite:
        notes.append(
            f"not finite: {result.one_step.nonfinite} one-step and {rollout.nonfinite} rollout predictions "
            "of a component; each scores infinity"
        )
    return notes
