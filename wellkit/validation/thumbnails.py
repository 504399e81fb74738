"""Small pictures of the frames that findings are about: the frame before, the frame, the frame after."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from wellkit.errors import WellkitError
from wellkit.formats.well import FieldLayout, WellLayout, parse_layout
from wellkit.frameworks import require
from wellkit.index.safely import Indexer
from wellkit.schemas.validation import Finding
from wellkit.validation.shard import SafeReader

SHOWN = 60  # findings with a picture; each takes some 20 kB
_SIDE = 240  # pixels of the longer side of a frame, about
_LARGEST = 256 << 20  # bytes of a frame that is read for a picture


@dataclass(frozen=True)
class Picture:
    """PNG as a data URI, and what it shows."""

    source: str
    caption: str


def draw_findings(root: str, findings: Sequence[Finding], *, timeout: float) -> dict[int, list[Picture]]:
    """Pictures of the first findings that are about frames of local shards, by the finding's number.

    Args:
        root: the location that the shards' paths begin below.
        timeout: seconds that parsing a header may take.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    require("matplotlib", extra="train", purpose="pictures in a report")
    wanted = [number for number, found in enumerate(findings) if found.frames is not None and found.shard is not None]
    drawn: dict[int, list[Picture]] = {}
    opened: dict[str, tuple[SafeReader, WellLayout] | None] = {}
    with Indexer(timeout) as indexer:
        for number in wanted[:SHOWN]:
            found = findings[number]
            assert found.shard is not None
            path = f"{root}/{found.shard}" if found.shard and not found.shard.startswith("/") else found.shard
            if "://" in path or path.endswith(".zarr"):
                continue
            if path not in opened:
                opened[path] = _open(path, indexer)
            known = opened[path]
            if known is None:
                continue
            try:
                drawn[number] = _draw(*known, found)
            except (WellkitError, MemoryError):
                continue  # what is wrong with the shard is a finding already
    return drawn


def _open(path: str, indexer: Indexer) -> tuple[SafeReader, WellLayout] | None:
    try:
        reader = SafeReader(path, indexer.index(path), indexer)
        return reader, parse_layout(reader)
    except WellkitError:
        return None


def _draw(reader: SafeReader, layout: WellLayout, found: Finding) -> list[Picture]:
    part = next((part for part in layout.fields if part.name == found.field), None)
    if part is None:
        part = next((part for part in layout.fields if part.time_varying), None)
    if part is None or found.frames is None or not part.time_varying:
        return []
    first, last = found.frames
    chosen = dict.fromkeys(frame for frame in (first - 1, first, last) if 0 <= frame < layout.n_steps)
    frames = {frame: _frame(reader, layout, part, found.trajectory or 0, frame) for frame in chosen}
    return [
        Picture(_png(values, _range(frames)), f"{part.name}, frame {frame}")
        for frame, values in frames.items()
        if values.size
    ]


def _frame(reader: SafeReader, layout: WellLayout, part: FieldLayout, trajectory: int, frame: int) -> np.ndarray:
    """One component of a frame, the middle slice of a volume, thinned to what can be seen: axes (x) or (x, y)."""
    sizes = [size if varies else 1 for size, varies in zip(layout.resolution, part.dim_varying, strict=True)]
    crop = [slice(0, size) for size in layout.resolution]
    if len(sizes) == 3:
        crop[0] = slice(layout.resolution[0] // 2, layout.resolution[0] // 2 + 1)
        sizes[0] = 1
    if np.prod(sizes) * part.n_components(len(sizes)) * np.dtype(part.dtype).itemsize > _LARGEST:
        return np.empty(0)
    stored = reader.read(part.path, part.selection(trajectory, slice(frame, frame + 1), tuple(crop)))
    values = np.asarray(stored, np.float64).reshape(*sizes, -1)[..., 0]
    values = values.reshape([size for size in values.shape if size > 1] or [1])
    step = max(1, -(-max(values.shape) // _SIDE))
    return values[tuple(slice(None, None, step) for _ in values.shape)]


def _range(frames: dict[int, np.ndarray]) -> tuple[float, float]:
    """Limits that all frames share, so that what stands out does."""
    finite = [values[np.isfinite(values)] for values in frames.values()]
    finite = [values for values in finite if values.size]
    if not finite:
        return 0.0, 1.0
    low, high = min(values.min() for values in finite), max(values.max() for values in finite)
    return float(low), float(high) if high > low else float(low) + 1.0


def _png(values: np.ndarray, limits: tuple[float, float]) -> str:
    from matplotlib import colormaps
    from matplotlib.image import imsave

    low, high = limits
    if values.ndim == 1:
        values = _curve(values, low, high)
    with np.errstate(invalid="ignore", over="ignore"):
        scaled = (values - low) / (high - low)
    colours = colormaps["viridis"](np.where(np.isfinite(scaled), scaled, 0.0), bytes=True)
    colours[~np.isfinite(values)] = (255, 0, 255, 255)  # what is not a number is magenta
    if values.ndim == 2:
        repeat = max(1, round(_SIDE / max(values.shape)))
        colours = np.repeat(np.repeat(colours, repeat, axis=0), repeat, axis=1)
    file = io.BytesIO()
    imsave(file, np.ascontiguousarray(colours), format="png")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode("ascii")


def _curve(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """A line as a picture: one column a point, as high as it is wide."""
    height = max(16, min(_SIDE, values.size) // 2)
    rows = np.arange(height)[::-1, None] / (height - 1)
    with np.errstate(invalid="ignore", over="ignore"):
        level = (values - low) / (high - low)
    picture: np.ndarray = np.where(rows <= level[None, :], low + 0.75 * (high - low), low)
    picture[:, ~np.isfinite(values)] = np.nan
    return picture
