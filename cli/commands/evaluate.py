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
    model: str = typer.Argument(
        help="Folder of a run or checkpoint; predictions (a folder of .npy or Zarr); a published checkpoint "
        "(OWNER/NAME); a Python function (module:function); or a baseline: persistence, mean."
    ),
    data: Path | None = typer.Option(
        None, help="Folder that holds DATASET/data/...; by default the one trained on, or what was downloaded."
    ),
    dataset: str | None = typer.Option(
        None, help="Its name; by default the one trained on or predicted. Baselines and functions need it."
    ),
    split: str = typer.Option("test", help="train, valid or test."),
    protocol: str = typer.Option("wellkit-1", help="well-2024, walrus-style-1 or wellkit-1 (docs/protocol.md)."),
    steps_input: int | None = typer.Option(None, help="Input steps of a baseline or function (default: 4)."),
    rollout_steps: int | None = typer.Option(None, help="Longest rollout (default: whole trajectories)."),
    name: str | None = typer.Option(None, help="Of a function, in the result."),
    batch_size: int = typer.Option(16, help="Windows at once; does not change the score."),
    jobs: int = typer.Option(1, help="Processes that score, each its trajectories."),
    workers: int = typer.Option(0, help="Processes that read ahead."),
    device: str = typer.Option("auto", help="auto, cpu, cuda, ..."),
    out: Path | None = typer.Option(None, help="Write the result as JSON here, for `wellkit leaderboard add`."),
    save_predictions: Path | None = typer.Option(
        None, help="Write all predictions here, for others to score again: a folder, or NAME.zarr."
    ),
    picture: Path | None = typer.Option(None, help="Write a PNG of truth, prediction and error of a rollout here."),
    gif: Path | None = typer.Option(None, help="Write the rollout as an animated GIF here."),
    trajectory: int = typer.Option(0, help="The trajectory of the picture and the GIF."),
    fields: list[str] = typer.Option([], "--field", help="A component to draw; may be repeated."),
    output_format: OutputFormat = typer.Option(OutputFormat.table, "--format", help="How to print the result."),
) -> None:
    """Score one step ahead over every window, and rollouts over every trajectory, in physical units (VRMSE).

    What is counted, and how, a protocol says: see docs/protocol.md.
    """
    import wellkit.train  # noqa: F401 - first of all, it says what to install where torch is missing
    from wellkit.benchmark.contenders import prepare
    from wellkit.benchmark.evaluate import How, evaluate_contender, save_result
    from wellkit.benchmark.examples import rollout_example
    from wellkit.benchmark.pictures import animate_rollout, check_pictures, check_subject, draw_rollout
    from wellkit.fetch.disk import check_writable
    from wellkit.train.data import choose_device

    if out is not None:
        check_writable(out)
    check_pictures(png=picture, gif=gif)
    how = How(protocol, rollout_steps, batch_size, workers, jobs)
    how.check()
    contender = prepare(
        model,
        data=data,
        dataset=dataset,
        split=split,
        n_steps_input=steps_input,
        name=name,
        device=choose_device(device),
    )
    if picture is not None or gif is not None:
        check_subject(contender, trajectory=trajectory, fields=fields)
    with progress_bars() as bars:
        result = evaluate_contender(
            contender, how, model=model, save_predictions=save_predictions, progress=EvaluationBars(bars)
        )
    if out is not None:
        save_result(result, out)
        print_note(f"wrote {out}")
    if picture is not None or gif is not None:
        example = rollout_example(contender, trajectory=trajectory, max_steps=rollout_steps)
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
    from rich.markup import escape

    one_step, rollout = result.one_step, result.rollout
    steps = sorted({1, len(rollout.per_step) // 2 or 1, len(rollout.per_step)})
    table = make_table(
        f"{result.model.name} on {result.dataset.name} ({result.dataset.split}), {result.protocol.name}: VRMSE",
        [
            ("field", "left"),
            *((head, "right") for head in ("one step", "median", "pooled", "rollout")),
            *((f"step {s}", "right") for s in steps),
        ],
    )
    for name in rollout.per_field_and_step:
        curve = rollout.per_field_and_step[name]
        per_field = [one_step.per_field, one_step.per_field_median, one_step.per_field_pooled, rollout.per_field]
        table.add_row(
            escape(name), *(_number(kind.get(name)) for kind in per_field), *(_number(curve[s - 1]) for s in steps)
        )
    table.add_section()
    means = [one_step.mean, one_step.median, one_step.pooled, rollout.mean, *(rollout.per_step[s - 1] for s in steps)]
    table.add_row("all", *map(_number, means))
    return table


def _number(value: float | None) -> str:
    return "-" if value is None or value != value else f"{value:.4g}"


def result_notes(result: Any) -> list[str]:
    """What the numbers are of, in words."""
    one_step, rollout, protocol = result.one_step, result.rollout, result.protocol
    made = f", generated by {result.dataset.generator}" if result.dataset.generator else ""
    notes = [
        f"{protocol.name}: {one_step.windows} windows, {rollout.trajectories} rollouts of up to "
        f"{len(rollout.per_step)} steps from frame {rollout.first_frame}; data {result.data.content_sha256[:12]}"
        f"{made}; {result.run.seconds:.1f} s",
        f"it ranks by {_number(result.headline)}, the {protocol.headline} one step ahead",
    ]
    notes += [f"rollout steps {window}: {_number(score)}" for window, score in rollout.windows.items()]
    notes += [f"rollout steps {window}: no figure, {why}" for window, why in rollout.left_out.items()]
    if one_step.spectral is not None:
        bands = ", ".join(f"{band} {_number(value)}" for band, value in one_step.spectral.items())
        notes.append(f"spectral error by wavenumber: {bands}")
    if rollout.valid_length is not None:
        valid = rollout.valid_length
        notes.append(
            f"valid for {valid.mean:.1f} steps (mean; VRMSE up to {valid.threshold:g}), "
            f"{valid.never_failed} of {rollout.trajectories} to their end"
        )
    notes += [
        f"drift of {drift.quantity}: up to {_number(drift.mean)} of it (in the data {_number(drift.target)})"
        for drift in rollout.drift
    ]
    if one_step.flat or rollout.flat:
        what = "left out of means and medians" if protocol.flat == "left out" else "scored like all others"
        notes.append(
            f"flat targets (variance under {protocol.flat_below:g} eps), {what}: {one_step.flat_share:.1%} one step "
            f"ahead, {rollout.flat_share:.1%} of rollouts"
        )
    if one_step.nonfinite or rollout.nonfinite:
        notes.append(
            f"not finite: {one_step.nonfinite} one-step and {rollout.nonfinite} rollout predictions "
            "of a component; each scores infinity"
        )
    notes += [f"open point of {protocol.name}: {point}" for point in protocol.open_points]
    return notes
