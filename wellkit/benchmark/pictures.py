"""Pictures of a rollout: truth, prediction and error at several steps as a PNG, and all of it as an animation.

Maps read well for the colour-blind and in grey: viridis for values, red and blue around white for errors and
for fields that change sign. Truth and prediction share one scale over all steps, taken from the truth; so do
errors. Points where a prediction is not finite are grey.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from wellkit.benchmark.contenders import Contender
from wellkit.benchmark.examples import RolloutExample, check_trajectory
from wellkit.benchmark.panels import (
    PANEL,
    TALLEST,
    Scale,
    check_target,
    choose_fields,
    choose_steps,
    colour_bar,
    drawable,
    gif_palette,
    label,
    map_layout,
    moment,
    name_axes,
    new_figure,
    save_whole,
    show_map,
)
from wellkit.frameworks import require
from wellkit.train.data import components


def check_pictures(*, png: str | os.PathLike[str] | None = None, gif: str | os.PathLike[str] | None = None) -> None:
    """Find out before a long evaluation that its pictures could not be written (`check_subject`: nor drawn).

    Raises:
        ArgumentError: a file name that is not `.png` or `.gif`.
        MissingDependencyError: matplotlib or pillow is not installed.
    """
    if png is not None or gif is not None:
        require("matplotlib", extra="train", purpose="drawing pictures")
        require("PIL.Image", extra="train", purpose="drawing pictures")
    if png is not None:
        check_target(png, ".png")
    if gif is not None:
        check_target(gif, ".gif")


def check_subject(contender: Contender, *, trajectory: int, fields: Sequence[str]) -> None:
    """Find out before a long evaluation that there is nothing of that kind to draw.

    Raises:
        ArgumentError: there is no such trajectory or component.
    """
    check_trajectory(contender, trajectory)
    choose_fields(components(contender.windows), fields)


def draw_rollout(
    example: RolloutExample,
    path: str | os.PathLike[str],
    *,
    fields: Sequence[str] | None = None,
    steps: Sequence[int] | None = None,
) -> Path:
    """Write a PNG: for each field a row of truth, of prediction and of error, a column a step.

    Args:
        fields: components to draw; the first four by default.
        steps: numbers of steps, from 1; by default the first, the last, and two between.

    Raises:
        ArgumentError: an unknown field, a step beyond the rollout, or a file name that is not `.png`.
        MissingDependencyError: matplotlib is not installed.
        StorageError: the file cannot be written.
    """
    target = check_target(path, ".png")
    shown = choose_fields(example.names, fields)
    columns = choose_steps(example, steps)
    if len(example.axes) == 1:
        figure = _draw_lines(example, shown, columns)
    else:
        figure = _draw_maps(example, shown, columns)
    return save_whole(target, lambda file: figure.savefig(file, format="png"))


def animate_rollout(
    example: RolloutExample,
    path: str | os.PathLike[str],
    *,
    fields: Sequence[str] | None = None,
    max_frames: int = 60,
    frame_seconds: float = 0.12,
) -> Path:
    """Write an animated GIF: a row a field with truth, prediction and error, a frame a step.

    Args:
        fields: components to draw; the first two by default.
        max_frames: longer rollouts skip steps evenly.
        frame_seconds: time a frame stays; the last one stays a second longer.

    Raises:
        ArgumentError, MissingDependencyError, StorageError: as `draw_rollout`.
    """
    target = check_target(path, ".gif")
    shown = choose_fields(example.names, fields)[: None if fields else 2]
    image = require("PIL.Image", extra="train", purpose="writing a GIF")
    count = min(max_frames, len(example.steps))
    chosen = np.unique(np.linspace(0, len(example.steps) - 1, count).round().astype(int))
    figure, update = _animated(example, shown)
    frames = []
    for step in chosen:
        update(int(step))
        figure.canvas.draw()
        frames.append(image.fromarray(np.asarray(figure.canvas.buffer_rgba())[..., :3].copy()))
    palette = gif_palette(image)
    reduced = [frame.quantize(palette=palette, dither=0) for frame in frames]
    durations = [round(1000 * frame_seconds)] * (len(reduced) - 1) + [round(1000 * (frame_seconds + 1))]
    return save_whole(
        target,
        lambda file: reduced[0].save(
            file, format="GIF", save_all=True, append_images=reduced[1:], duration=durations, loop=0
        ),
    )


def _draw_maps(example: RolloutExample, fields: Sequence[int], steps: Sequence[int]) -> Any:
    upright, _, ratio = map_layout(example)
    rows = 3 * len(fields)
    panel = min(PANEL, TALLEST / (rows * ratio))
    figure = new_figure(panel * len(steps) + 1.6, panel * ratio * rows + 0.1 * rows + 0.8)
    axes = figure.subplots(rows, len(steps), squeeze=False, sharex=True, sharey=True)
    for number, field in enumerate(fields):
        truth, prediction = (part[steps][..., field] for part in (example.truth, example.prediction))
        scale = Scale(truth, prediction)
        block = axes[3 * number : 3 * number + 3]
        for column, step in enumerate(steps):
            values = show_map(block[0, column], truth[column], example, scale.norm, scale.map)
            show_map(block[1, column], prediction[column], example, scale.norm, scale.map)
            error = prediction[column] - truth[column]
            errors = show_map(block[2, column], error, example, scale.error_norm, "RdBu_r")
            block[2, column].text(
                0.02,
                0.03,
                f"VRMSE {example.vrmse[step, field]:.3g}",
                transform=block[2, column].transAxes,
                fontsize=8,
                bbox={"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 1.5},
            )
            if number == 0:
                block[0, column].set_title(moment(example, step), fontsize=10)
        name = example.names[field].replace("_", " ")
        for row, what in enumerate(("truth", "prediction", "error")):
            block[row, 0].set_ylabel(f"{name}\n{what}" if row == 0 else what, fontsize=9)
        colour_bar(figure, values, block[:2], label(example, field), truth, prediction)
        colour_bar(figure, errors, block[2:], "error", prediction - truth)
    for axis in axes[-1]:
        name_axes(axis, example)
    flat, upwards = (1, 0) if upright else (0, 1)
    figure.suptitle(f"{example.title}\n{example.axes[flat]} to the right, {example.axes[upwards]} upwards", fontsize=10)
    return figure


def _draw_lines(example: RolloutExample, fields: Sequence[int], steps: Sequence[int]) -> Any:
    rows = 2 * len(fields)
    figure = new_figure(PANEL * len(steps) + 0.8, 1.7 * rows + 0.8)
    axes = figure.subplots(rows, len(steps), squeeze=False, sharex=True, sharey="row")
    x = example.coordinates[0]
    for number, field in enumerate(fields):
        for column, step in enumerate(steps):
            upper, lower = axes[2 * number, column], axes[2 * number + 1, column]
            upper.plot(x, example.truth[step, :, field], color="black", lw=2.2, label="truth")
            upper.plot(x, example.prediction[step, :, field], color="#d55e00", lw=1.2, label="prediction")
            lower.axhline(0.0, color="0.7", lw=0.8)
            lower.plot(x, example.prediction[step, :, field] - example.truth[step, :, field], color="#0072b2", lw=1.2)
            lower.set_title(f"VRMSE {example.vrmse[step, field]:.3g}", fontsize=8, loc="left")
            if number == 0:
                upper.set_title(moment(example, step), fontsize=10)
        axes[2 * number, 0].set_ylabel(label(example, field), fontsize=9)
        axes[2 * number + 1, 0].set_ylabel("error", fontsize=9)
    axes[0, 0].legend(fontsize=8, frameon=False)
    for axis in axes[-1]:
        axis.set_xlabel(example.axes[0], fontsize=9)
    figure.suptitle(example.title, fontsize=10)
    return figure


def _animated(example: RolloutExample, fields: Sequence[int]) -> tuple[Any, Any]:
    """A figure and the function that sets it to a step (an index)."""
    if len(example.axes) == 1:
        return _animated_lines(example, fields)
    _, _, ratio = map_layout(example)
    figure = new_figure(3 * PANEL + 1.8, (PANEL * ratio + 0.35) * len(fields) + 0.9, dpi=85)
    figure.get_layout_engine().set(h_pad=0.07)
    axes = figure.subplots(len(fields), 3, squeeze=False)
    drawn = []
    for row, field in enumerate(fields):
        truth, prediction = example.truth[..., field], example.prediction[..., field]
        scale = Scale(truth, prediction)
        parts = (
            (truth, scale.norm, scale.map),
            (prediction, scale.norm, scale.map),
            (prediction - truth, scale.error_norm, "RdBu_r"),
        )
        images = [
            show_map(axes[row, column], values[0], example, norm, colours)
            for column, (values, norm, colours) in enumerate(parts)
        ]
        colour_bar(figure, images[0], axes[row, :2], label(example, field), truth, prediction)
        colour_bar(figure, images[2], axes[row, 2:], "error", prediction - truth)
        drawn.append((field, images, [values for values, _, _ in parts], axes[row]))
    upright = map_layout(example)[0]

    def update(step: int) -> None:
        figure.suptitle(f"{example.title}\n{moment(example, step)}", fontsize=10)
        for field, images, series, row in drawn:
            for picture, values in zip(images, series, strict=True):
                frame = values[step]
                picture.set_data(drawable(frame if upright else frame.T, picture.norm))
            for axis, what in zip(
                row, ("truth", "prediction", f"error, VRMSE {example.vrmse[step, field]:.3g}"), strict=True
            ):
                axis.set_title(what, fontsize=9)

    update(0)
    figure.canvas.draw()
    figure.set_layout_engine("none")  # labels change from frame to frame; the panels must not move
    return figure, update


def _animated_lines(example: RolloutExample, fields: Sequence[int]) -> tuple[Any, Any]:
    figure = new_figure(7.0, 2.4 * len(fields) + 0.8, dpi=85)
    axes = figure.subplots(len(fields), 1, squeeze=False)
    x = example.coordinates[0]
    lines = []
    for axis, field in zip(axes[:, 0], fields, strict=True):
        truth = example.truth[..., field]
        span = float(truth.max() - truth.min()) or 1.0
        reach = example.prediction[..., field]
        reach = np.clip(reach[np.isfinite(reach)], truth.min() - span, truth.max() + span)
        both = np.concatenate([truth.ravel(), reach])
        axis.set_ylim(float(both.min()) - 0.05 * span, float(both.max()) + 0.05 * span)
        axis.set_ylabel(label(example, field), fontsize=9)
        (black,) = axis.plot(x, truth[0], color="black", lw=2.2, label="truth")
        (colour,) = axis.plot(x, example.prediction[0, :, field], color="#d55e00", lw=1.2, label="prediction")
        lines.append((field, black, colour))
    axes[0, 0].legend(fontsize=8, frameon=False, loc="upper right")
    axes[-1, 0].set_xlabel(example.axes[0], fontsize=9)

    def update(step: int) -> None:
        figure.suptitle(f"{example.title}\n{moment(example, step)}", fontsize=10)
        for field, black, colour in lines:
            black.set_ydata(example.truth[step, :, field])
            colour.set_ydata(example.prediction[step, :, field])

    update(0)
    return figure, update
