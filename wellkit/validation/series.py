"""What the frames of one field of one trajectory tell, from the numbers that a pass took of each.

Simulations may begin at rest, and may come to rest: frames that repeat each other, or hold one value everywhere, are
wrong only where what goes before does not lead there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from wellkit.scanning.columns import CHANGED, INFINITE, NAN, NEW_NAN, ZERO
from wellkit.scanning.frames import FrameSeries

_CALM = 0.05  # of the usual change, below which a trajectory is coming to rest
_ROUNDING = 1e-6  # of the values, below which change is that of the last bits
_FAR = 10.0  # times what the frames around show
_FAR_AT_THE_END = 30.0  # the last frame has one neighbour only
_FAR_AT_THE_START = 1e4  # explosions begin with what they never reach again
_SUDDEN_ZEROS = 0.01  # of the points
_MANY_ZEROS = 0.25
_FILLS = tuple(
    float(np.float32(value)) for value in (9.969209968386869e36, 1e20, 1e30, 3.4028234663852886e38, -9999.0, -999.0)
)


class Oddity(NamedTuple):
    """A finding about frames: first, and one past the last."""

    code: str
    frames: tuple[int, int]
    message: str


class Judgement(NamedTuple):
    """What one field of one trajectory was found to be.

    Attributes:
        is_frozen: whether no frame differs from the first, in more than one frame.
        quiet: bool, axis (frame): frames that others may well be equal to: of one value, or like the frame before.
    """

    oddities: list[Oddity]
    is_frozen: bool
    quiet: np.ndarray


def judge(series: FrameSeries, *, nan_allowed: bool) -> Judgement:
    """Judge a field that varies in time; for one that does not, only values that are not finite are odd."""
    found = list(_not_finite(series, nan_allowed=nan_allowed))
    found += _fills(series)
    uniform: np.ndarray = np.all(_is_flat(series), axis=1)
    same = series.counts[:, CHANGED] == 0
    same[0] = False
    n = series.n_frames
    if n < 2:
        return Judgement(found, False, uniform)
    if same[1:].all():
        return Judgement(found, True, np.ones(n, bool))
    activity = _activity(series)
    found += _frozen(series, same, activity)
    found += _constant(series, uniform, same)
    found += _repeated(series, uniform, same)
    odd = uniform | same | (series.counts[:, [NAN, INFINITE]].any(axis=1) & (not nan_allowed))
    found += _outliers(series, odd)
    found += _zeroed(series, uniform)
    told = {frame for one in found for frame in range(*one.frames)}
    found += [jump for jump in _jumps(series, odd) if jump.frames[0] not in told]  # what is odd is a jump, too
    return Judgement(found, False, uniform | same)


def _is_flat(series: FrameSeries) -> np.ndarray:
    """Where a component has one value everywhere; axes (frame, component)."""
    flat: np.ndarray = series.lowest == series.highest
    return flat


def runs(flags: np.ndarray) -> list[tuple[int, int]]:
    """Where `flags` are set: (first, one past the last) of each run."""
    edges = np.flatnonzero(np.diff(np.concatenate(([0], flags.astype(np.int8), [0]))))
    return [(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def _of(count: int, total: int) -> str:
    return f"{count} of {total} values"


def _not_finite(series: FrameSeries, *, nan_allowed: bool) -> Iterator[Oddity]:
    counts = series.counts
    if not nan_allowed:
        for run in runs(counts[:, NAN] > 0):
            worst = int(counts[slice(*run), NAN].max())
            yield Oddity("nan", run, f"NaN in up to {_of(worst, series.n_values)} of a frame")
    else:
        for run in runs(counts[:, NAN] == series.n_values):
            yield Oddity("nan", run, "nothing but NaN: a mask that leaves nothing")
        moved = counts[:, NEW_NAN] > 0
        moved[0] = False
        for run in runs(moved & (counts[:, NAN] < series.n_values)):
            worst = int(counts[slice(*run), NEW_NAN].max())
            told = f"up to {_of(worst, series.n_values)} become NaN that were none in the frame before"
            yield Oddity("nan-mask-moves", run, told)
    for run in runs(counts[:, INFINITE] > 0):
        worst = int(counts[slice(*run), INFINITE].max())
        yield Oddity("infinity", run, f"infinity in up to {_of(worst, series.n_values)} of a frame")


def _usual_spread(series: FrameSeries) -> np.ndarray:
    """The median over frames of each component's standard deviation in space, where there is any."""
    spread = np.where(_is_flat(series), 0.0, series.states.std)
    typical = [np.median(column[column > 0]) if (column > 0).any() else 0.0 for column in spread.T]
    return np.array(typical)


def _fills(series: FrameSeries) -> Iterator[Oddity]:
    middle, spread = np.median(series.states.mean, axis=0), _usual_spread(series)
    for fill in _FILLS:
        far = np.abs(fill - middle) > 3 * spread
        with np.errstate(invalid="ignore"):
            there: np.ndarray = np.any(((series.lowest == fill) | (series.highest == fill)) & far, axis=1)
        uniform = (series.lowest == series.highest).all()
        for run in runs(there) if not uniform else ():
            yield Oddity("fill-value", run, f"{fill:.6g}, which often stands for missing data")


def _activity(series: FrameSeries) -> np.ndarray:
    """How much each frame differs from the one before, the largest over components, 1 being usual; axis (frame)."""
    change = series.deltas.rms
    usual = np.array([np.median(column[column > 0]) if (column > 0).any() else 1.0 for column in change.T])
    activity: np.ndarray = (change / usual).max(axis=1)
    scale = np.maximum(series.states.rms.max(axis=0), np.finfo(np.float32).tiny)
    activity[(change <= _ROUNDING * scale).all(axis=1)] = 0.0
    return activity


def _frozen(series: FrameSeries, same: np.ndarray, activity: np.ndarray) -> Iterator[Oddity]:
    n = series.n_frames
    for first, last in runs(same):
        run = (first - 1, last)
        count = last - first
        if first == 1:
            calm = activity[last] < 1 / _CALM and series.counts[0, ZERO] > 0.5 * series.n_values
            calm = calm or activity[last] <= _CALM * 10 or _is_flat(series)[0].all()
            if not calm:
                told = f"the first {count + 1} frames are the same, bit by bit, and then the field changes as usual"
                yield Oddity("frozen-frames", run, told)
        elif activity[first - 1] > _CALM and (last == n or activity[last] > _CALM):
            told = f"{count} {'frame repeats' if count == 1 else 'frames repeat'} the one before, bit by bit"
            yield Oddity("frozen-frames", (first, last), f"{told}, though the field was changing as usual")
        elif last == n and count > 1:
            yield Oddity("settled", run, f"the last {count + 1} frames are the same, bit by bit")


def _constant(series: FrameSeries, uniform: np.ndarray, same: np.ndarray) -> Iterator[Oddity]:
    spread = np.where(_is_flat(series), 0.0, series.states.std)
    if uniform.all():
        yield Oddity("constant-field", (0, series.n_frames), "every frame holds one value everywhere")
        return
    usual = _usual_spread(series)
    flat = _is_flat(series) & ~_is_flat(series).all(axis=0)
    scale = np.maximum(np.abs(series.states.mean).max(axis=0), np.finfo(np.float32).tiny)
    for first, last in runs(np.asarray(flat.any(axis=1))):
        if first == 0:
            continue  # it begins at rest
        before = spread[first - 1]
        led_there = (before <= _CALM * usual) | (before <= _ROUNDING * scale) | ~flat[first]
        if not led_there.all():
            yield Oddity(
                "constant-frames", (first, last), "one value everywhere, which the frame before does not lead to"
            )


def _repeated(series: FrameSeries, uniform: np.ndarray, same: np.ndarray) -> Iterator[Oddity]:
    """Frames that were there before, with others in between."""
    seen: dict[int, int] = {}
    source = np.full(series.n_frames, -1)
    for frame, number in enumerate(series.hashes.tolist()):
        if uniform[frame] or same[frame]:
            continue
        source[frame] = seen.setdefault(number, frame)
    again = (source >= 0) & (source < np.arange(series.n_frames))
    for first, last in runs(again):
        told = f"the same, bit by bit, as frame {source[first]}"
        if last - first > 1:
            told = f"the same, bit by bit, as frames {source[first]} to {source[last - 1]}"
        yield Oddity("duplicated-frames", (first, last), told)


def _isolated(values: np.ndarray, factors: Sequence[float], floor: np.ndarray) -> np.ndarray:
    """Frames at which a component stands out from both neighbours: bool, axis (frame).

    Args:
        values: axes (frame, component).
        factors: at the first, an inner and the last frame, by how much.
        floor: axis (component): and at least so large.
    """
    start, inner, end = factors
    n = len(values)
    around = np.empty_like(values)
    around[1:-1] = np.maximum(values[:-2], values[2:]) * inner
    around[0] = values[1] * start
    around[n - 1] = values[n - 2] * end
    found: np.ndarray = np.any((values > around) & (values > floor), axis=1)
    return found


def _outliers(series: FrameSeries, odd: np.ndarray) -> Iterator[Oddity]:
    middle, spread = np.median(series.states.mean, axis=0), _usual_spread(series)
    with np.errstate(invalid="ignore"):
        reach = np.maximum(np.abs(series.highest - middle), np.abs(series.lowest - middle))
    reach = np.where(series.states.count > 0, reach, 0.0)
    away = _isolated(reach, (_FAR_AT_THE_START, _FAR, _FAR_AT_THE_END), _FAR * spread)
    for run in runs(away & ~odd):
        frame = run[0] + int(np.argmax(reach[slice(*run)].max(axis=1)))
        component = int(np.argmax(reach[frame] / np.maximum(spread, np.finfo(np.float32).tiny)))
        low, high = series.lowest[frame, component], series.highest[frame, component]
        worst = high if high - middle[component] > middle[component] - low else low
        told = f"{worst:.6g}, where values lie around {middle[component]:.4g} with a spread of {spread[component]:.3g}"
        yield Oddity("outlier-frames", run, told)


def _zeroed(series: FrameSeries, uniform: np.ndarray) -> Iterator[Oddity]:
    zeros = series.counts[:, ZERO].astype(np.float64)
    n, size = series.n_frames, series.n_values
    step = max(16.0, _SUDDEN_ZEROS * size)
    found = np.zeros(n, bool)
    for frame in range(1, n):
        rise = zeros[frame] - zeros[frame - 1]
        falls_back = frame < n - 1 and zeros[frame + 1] < zeros[frame] - step / 2
        if uniform[frame] or uniform[frame - 1]:
            continue
        lasts = rise > _MANY_ZEROS * size and zeros[frame - 1] < _SUDDEN_ZEROS * size
        found[frame] = (rise > step and falls_back) or (rise > max(16.0, _MANY_ZEROS * size) and lasts)
    for run in runs(found):
        before, here = int(zeros[run[0] - 1]), int(zeros[run[0]])
        yield Oddity("zeroed-region", run, f"{_of(here, size)} are zero, {before} in the frame before")


def _jumps(series: FrameSeries, odd: np.ndarray) -> Iterator[Oddity]:
    """A step, or one frame on its own, that changes the field ten times as much as the steps around it."""
    change, n = series.deltas.rms, series.n_frames
    floor = 0.5 * _usual_spread(series)
    if n < 6:
        return
    for frame in range(2, n - 1):
        if odd[max(0, frame - 2) : frame + 3].any():
            continue
        here = change[frame]
        around = np.maximum(change[frame - 1], change[frame + 1])
        if ((here > _FAR * around) & (here > floor)).any():
            yield Oddity("discontinuity", (frame, frame + 1), _jump(here, around, "the step to it changes"))
        elif frame + 2 < n:
            around = np.maximum(change[frame - 1], change[frame + 2])
            lower = np.minimum(here, change[frame + 1])
            if ((lower > _FAR * around) & (lower > floor)).any():
                yield Oddity(
                    "discontinuity", (frame, frame + 1), _jump(lower, around, "the steps to and from it change")
                )


def _jump(here: np.ndarray, around: np.ndarray, what: str) -> str:
    component = int(np.argmax(here / np.maximum(around, np.finfo(np.float32).tiny)))
    return f"{what} values by {here[component]:.3g} (rms), those around it by {around[component]:.3g}"
