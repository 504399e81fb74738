"""What the pictures of a rollout are put together from: choices, scales, panels, files."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from wellkit.benchmark.examples import RolloutExample
from wellkit.errors import ArgumentError, StorageError, did_you_mean
from wellkit.fetch.disk import check_writable
from wellkit.frameworks import require

PANEL = 2.7  # inches, width of a panel
TALLEST = 20.0  # inches; beyond this panels get smaller
_STEEPEST = 3.2  # a panel's height over its width, or the reverse, beyond which it is squeezed
_MAX_FIELDS = 4
_LOG_RATIO = 30.0  # positive fields that span more than this are drawn on a logarithmic scale
_PERCENTILES = (0.2, 99.8)


def choose_fields(names: Sequence[str], fields: Sequence[str] | None) -> list[int]:
    """Numbers of the components to draw, of those there are (`names`); ArgumentError for an unknown one."""
    for name in fields or ():
        if name not in names:
            raise ArgumentError(
                f"there is no field {name!r} to draw; there are {', '.join(names)}.{did_you_mean(name, names)}"
            )
    if fields is not None:
        return [names.index(name) for name in fields]
    return list(range(len(names)))[:_MAX_FIELDS]


def choose_steps(example: RolloutExample, steps: Sequence[int] | None) -> list[int]:
    """Indices (from 0) of the steps to draw; ArgumentError for one beyond the rollout."""
    last = len(example.steps)
    for step in steps or ():
        if not 1 <= step <= last:
            raise ArgumentError(f"there is no step {step} to draw; the rollout has steps 1 to {last}")
    chosen = steps if steps else np.linspace(1, last, min(4, last)).round().astype(int)
    return sorted({int(step) - 1 for step in chosen})


def label(example: RolloutExample, field: int) -> str:
    """A component's name and unit."""
    unit = example.units[field]
    name = example.names[field].replace("_", " ")
    return f"{name} [{unit}]" if unit else name


def moment(example: RolloutExample, step: int) -> str:
    """Number and time of a step (an index)."""
    return f"step {example.steps[step]},  t = {example.times[step]:.4g}"


class Scale:
    """Colours of one field: of values from the truth at the shown steps, of errors symmetric around zero."""

    def __init__(self, truth: np.ndarray, prediction: np.ndarray) -> None:
        colors = require("matplotlib.colors", extra="train", purpose="drawing pictures")
        finite = truth[np.isfinite(truth)]
        low, high = (float(v) for v in np.percentile(finite, _PERCENTILES)) if finite.size else (0.0, 1.0)
        self.signed = low < 0 < high and min(-low, high) > 0.1 * max(-low, high)
        self.map = "RdBu_r" if self.signed else "viridis"
        if self.signed:
            bound = max(-low, high)
            self.norm = colors.Normalize(-bound, bound)
        elif low > 0 and high / low > _LOG_RATIO:
            self.norm = colors.LogNorm(low, high)
        else:
            margin = 0.0 if high > low else max(abs(high), 1.0) * 1e-6
            self.norm = colors.Normalize(low - margin, high + margin)
        error = np.abs(prediction - truth)
        error = error[np.isfinite(error)]
        bound = float(np.percentile(error, _PERCENTILES[1])) if error.size else 0.0
        bound = max(bound, 1e-6 * max(abs(low), abs(high), 1e-30))
        self.error_norm = colors.Normalize(-bound, bound)


def map_layout(example: RolloutExample) -> tuple[bool, tuple[float, float, float, float], float]:
    """(whether the first axis is drawn upwards, extent, height over width): the longer side lies flat."""
    spans = []
    for points in example.coordinates:
        spacing = float(points[-1] - points[0]) / max(len(points) - 1, 1)
        spans.append((float(points[0]) - spacing / 2, float(points[-1]) + spacing / 2))
    lengths = [abs(b - a) for a, b in spans]
    if not all(lengths):
        spans = [(0.0, float(len(points))) for points in example.coordinates]
        lengths = [b for _, b in spans]
    upright = lengths[1] > 1.3 * lengths[0]
    flat, tall = (1, 0) if upright else (0, 1)
    ratio = min(max(lengths[tall] / lengths[flat], 1 / _STEEPEST), _STEEPEST)
    return upright, (*spans[flat], *spans[tall]), ratio


def show_map(axis: Any, values: np.ndarray, example: RolloutExample, norm: Any, colours: str) -> Any:
    """Draw (x, y) values as a map without ticks; returns the image."""
    upright, extent, _ = map_layout(example)
    matplotlib = require("matplotlib", extra="train", purpose="drawing pictures")
    shown = axis.imshow(
        drawable(values if upright else values.T, norm),
        origin="lower",
        extent=extent,
        aspect="auto",
        norm=norm,
        cmap=matplotlib.colormaps[colours].with_extremes(bad="0.6"),
        interpolation="nearest",
    )
    axis.set_xticks([])
    axis.set_yticks([])
    axis.tick_params(labelsize=7)
    return shown


def drawable(values: np.ndarray, norm: Any) -> np.ma.MaskedArray[Any, Any]:
    """Values with what is not finite masked; below a logarithmic scale zero and negative ones count as its end."""
    masked = np.ma.masked_invalid(values)
    return np.ma.maximum(masked, norm.vmin) if type(norm).__name__ == "LogNorm" else masked


def gif_palette(image: Any) -> Any:
    """A palette image of the colours the pictures are made of, so that no frame and no error looks off."""
    maps = require("matplotlib", extra="train", purpose="drawing pictures").colormaps
    greys = np.repeat(np.linspace(0, 1, 46)[:, None], 3, axis=1)
    lines = np.array([[0.835, 0.369, 0.0], [0.0, 0.447, 0.698]])
    ramps = [maps[name](np.linspace(0, 1, 104))[:, :3] for name in ("viridis", "RdBu_r")]
    colours = np.round(255 * np.concatenate([greys, lines, *ramps])).astype(np.uint8)
    palette = image.new("P", (1, 1))
    palette.putpalette(colours.tobytes())
    return palette


def name_axes(axis: Any, example: RolloutExample) -> None:
    """Ticks for all maps that share an axis with this one, and the name of the axis that lies flat."""
    upright, _, _ = map_layout(example)
    axis.set_xlabel(example.axes[1 if upright else 0], fontsize=8)
    axis.xaxis.set_major_locator(_ticks())
    axis.yaxis.set_major_locator(_ticks())


def _ticks() -> Any:
    return require("matplotlib.ticker", extra="train", purpose="drawing pictures").MaxNLocator(3)


def colour_bar(figure: Any, shown: Any, axes: Any, name: str, *drawn: np.ndarray) -> None:
    """A colour bar whose ends are pointed where values of `drawn` lie beyond it."""
    finite = np.concatenate([values[np.isfinite(values)] for values in drawn])
    below = finite.size > 0 and float(finite.min()) < shown.norm.vmin
    above = finite.size > 0 and float(finite.max()) > shown.norm.vmax
    extend = {(True, True): "both", (True, False): "min", (False, True): "max"}.get((below, above), "neither")
    bar = figure.colorbar(shown, ax=list(axes.flat), extend=extend, fraction=0.08, pad=0.01, aspect=14 * len(axes))
    bar.set_label(name, fontsize=9)
    bar.ax.tick_params(labelsize=8)


def new_figure(width: float, height: float, *, dpi: int = 130) -> Any:
    """A figure on the Agg canvas, outside pyplot: no display and no setting of the caller's is touched."""
    figures = require("matplotlib.figure", extra="train", purpose="drawing pictures")
    canvas = require("matplotlib.backends.backend_agg", extra="train", purpose="drawing pictures")
    figure = figures.Figure(figsize=(width, height), dpi=dpi, layout="constrained")
    canvas.FigureCanvasAgg(figure)
    return figure


def check_target(path: str | os.PathLike[str], suffix: str) -> Path:
    """The path.

    Raises:
        ArgumentError: it does not end in `suffix`.
        StorageError: no file can be written there.
    """
    target = Path(path)
    if target.suffix.lower() != suffix:
        raise ArgumentError(f"{target}: the file's name must end in {suffix}")
    check_writable(target)
    return target


def save_whole(target: Path, write: Callable[[Any], object]) -> Path:
    """Let `write` fill a file that gets its name when it is whole."""
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            write(file)
        partial.replace(target)
    except OSError as error:
        raise StorageError(f"cannot write {target}: {error.strerror or error}; choose another target") from error
    finally:
        with suppress(OSError):
            partial.unlink()
    return target
