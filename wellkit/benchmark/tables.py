"""From the entries of all trajectories to the figures of a result, as a protocol defines them. NumPy only.

Means are rounded once (`wellkit.metrics.exact_mean`), so that no figure knows how the work was divided.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from wellkit.metrics import BANDS, exact_mean, vrmse_of
from wellkit.schemas.protocol import Protocol
from wellkit.schemas.result import Drift, OneStep, Rollout, TrajectoryScores, ValidLength

ERROR, VARIANCE = 0, 1


@dataclass(frozen=True)
class TrajectoryTable:
    """Everything that one trajectory's predictions come to.

    Attributes:
        file, trajectory: name of its shard, and its number in it.
        frames: stored ones.
        parameters: of the simulation.
        content_sha256: of its frames.
        one_step: (mean squared error | variance of the target, window, component), float64.
        rollout: (the same, step, component).
        spectral: (mean squared error | energy of the target's fluctuations, window, band, component); None where the
            protocol has none, or the grid is too small for bands.
        drift: quantity -> (component, drift of the prediction (step), drift of the data (step)).
    """

    file: str
    trajectory: int
    frames: int
    parameters: Mapping[str, float]
    content_sha256: str
    one_step: np.ndarray
    rollout: np.ndarray
    spectral: np.ndarray | None = None
    drift: Mapping[str, tuple[str, np.ndarray, np.ndarray]] = field(default_factory=dict)


@dataclass(frozen=True)
class _Entries:
    """One trajectory's entries under a protocol; axes (window or step, component)."""

    score: np.ndarray
    counts: np.ndarray  # whether an entry is in means and medians
    flat: np.ndarray
    infinite: np.ndarray

    @classmethod
    def of(cls, table: np.ndarray, eps: np.ndarray, protocol: Protocol) -> _Entries:
        error, variance = table
        flat = (variance < protocol.flat_below * eps) | (variance == 0)
        infinite = np.isinf(error)
        # A prediction that is not finite is never excused by a target that hardly varies.
        counts = ~flat | infinite if protocol.flat == "left out" else np.ones_like(flat)
        return cls(vrmse_of(error, variance, eps), counts, flat, infinite)

    def per_component(self) -> np.ndarray:
        """Mean of the entries that count, by component; NaN where none does."""
        return np.array([_mean(self.score[c, i]) for i, c in enumerate(self.counts.T)])

    def per_row(self) -> np.ndarray:
        """Mean over components of the entries that count, by window or step; NaN where none does."""
        return np.array([_mean(row[c]) for row, c in zip(self.score, self.counts, strict=True)])


def _mean(values: np.ndarray) -> float:
    return exact_mean(values) if len(values) else math.nan


def _mean_of_known(values: np.ndarray) -> float:
    return _mean(values[~np.isnan(values)])


def _median_of_known(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return _median(known) if len(known) else math.nan


def _median(values: np.ndarray) -> float:
    """Median, infinite where the middle is: NumPy's would make NaN of two infinities' mean."""
    ordered = np.sort(values)
    low, high = ordered[(len(ordered) - 1) // 2], ordered[len(ordered) // 2]
    return float(high) if np.isinf(high) or low == high else float((low + high) / 2)


def eps_of(protocol: Protocol, tables: Sequence[TrajectoryTable]) -> np.ndarray:
    """eps of each component, in the square of its unit, from the one-step targets of all trajectories."""
    variances = np.concatenate([table.one_step[VARIANCE] for table in tables])
    if protocol.eps_of == "unit":
        return np.full(variances.shape[-1], protocol.eps)
    return protocol.eps * np.array([exact_mean(column) for column in variances.T])


def summarize(
    protocol: Protocol, tables: Sequence[TrajectoryTable], names: Sequence[str], *, first_frame: int
) -> tuple[OneStep, Rollout, tuple[TrajectoryScores, ...]]:
    """The figures of a result.

    Args:
        tables: of every trajectory of the split, in its order.
        names: of the components.
        first_frame: number of the first frame that rollouts predict.
    """
    eps = eps_of(protocol, tables)
    single = [_Entries.of(table.one_step, eps, protocol) for table in tables]
    rolled = [_Entries.of(table.rollout, eps, protocol) for table in tables]
    trajectories = tuple(_trajectory(protocol, *parts, names) for parts in zip(tables, single, rolled, strict=True))
    one_step = OneStep(
        **_scores(single, [table.one_step for table in tables], eps, names),
        windows=sum(len(entries.score) for entries in single),
        **_spectral(protocol, tables, eps, names),
    )
    return one_step, _rollout(protocol, tables, rolled, trajectories, eps, names, first_frame), trajectories


def _scores(
    parts: Sequence[_Entries], tables: Sequence[np.ndarray], eps: np.ndarray, names: Sequence[str]
) -> dict[str, object]:
    score, counts = (np.concatenate([getattr(part, key) for part in parts]) for key in ("score", "counts"))
    per_field, medians = {}, {}
    for i, name in enumerate(names):
        chosen = score[counts[:, i], i]
        if len(chosen):
            per_field[name], medians[name] = exact_mean(chosen), _median(chosen)
    together = np.concatenate(tables, axis=1)
    means = [np.array([exact_mean(together[kind][:, i]) for i in range(len(names))]) for kind in (ERROR, VARIANCE)]
    pooled = vrmse_of(means[ERROR], means[VARIANCE], eps)
    of_trajectories = np.array([_mean_of_known(part.per_component()) for part in parts])
    return {
        "mean": _mean(np.array(list(per_field.values()))),
        "median": _median(score[counts]) if counts.any() else math.nan,
        "pooled": exact_mean(pooled),
        "of_trajectories": _median_of_known(of_trajectories),
        "per_field": per_field,
        "per_field_median": medians,
        "per_field_pooled": dict(zip(names, pooled.tolist(), strict=True)),
        "entries": score.size,
        "flat": sum(int(part.flat.sum()) for part in parts),
        "nonfinite": sum(int(part.infinite.sum()) for part in parts),
    }


def _spectral(
    protocol: Protocol, tables: Sequence[TrajectoryTable], eps: np.ndarray, names: Sequence[str]
) -> dict[str, object]:
    parts = [table.spectral for table in tables if table.spectral is not None]
    if not protocol.spectral or not parts:
        return {}
    together = np.concatenate(parts, axis=1)  # (kind, window, band, component)
    by_band: dict[str, dict[str, float]] = {}
    for i, name in enumerate(names):
        error, energy = (
            np.array([exact_mean(together[kind][:, band, i]) for band in range(len(BANDS))]) for kind in (0, 1)
        )
        if not np.isnan(energy).any():  # targets with points outside the domain have no spectrum
            by_band[name] = dict(zip(BANDS, vrmse_of(error, energy, float(eps[i])).tolist(), strict=True))
    if not by_band:
        return {}
    mean = {band: exact_mean([bands[band] for bands in by_band.values()]) for band in BANDS}
    return {"spectral": mean, "spectral_per_field": by_band}


def _trajectory(
    protocol: Protocol, table: TrajectoryTable, single: _Entries, rolled: _Entries, names: Sequence[str]
) -> TrajectoryScores:
    error, variance = ([exact_mean(column) for column in table.one_step[kind].T] for kind in (ERROR, VARIANCE))
    curve = rolled.per_row()
    return TrajectoryScores(
        file=table.file,
        trajectory=table.trajectory,
        frames=table.frames,
        parameters=dict(table.parameters),
        content_sha256=table.content_sha256,
        windows=len(single.score),
        one_step=_named(names, single.per_component()),
        counted=_counted(names, single),
        one_step_error=_named(names, error),
        one_step_variance=_named(names, variance),
        flat=int(single.flat.sum()),
        nonfinite=int(single.infinite.sum()),
        rollout=tuple(curve.tolist()),
        rollout_per_field=_named(names, rolled.per_component()),
        rollout_counted=_counted(names, rolled),
        rollout_flat=int(rolled.flat.sum()),
        rollout_nonfinite=int(rolled.infinite.sum()),
        valid_length=valid_length(curve, protocol.valid_length_threshold),
        drift={quantity: _largest(values) for quantity, (_, values, _) in table.drift.items()},
    )


def _named(names: Sequence[str], values: Sequence[float] | np.ndarray) -> dict[str, float]:
    return {name: float(value) for name, value in zip(names, values, strict=True)}


def _counted(names: Sequence[str], entries: _Entries) -> dict[str, int]:
    return {name: int(count) for name, count in zip(names, entries.counts.sum(axis=0), strict=True)}


def _largest(drift: np.ndarray) -> float:
    """Largest |drift|; infinite where it is not a number, which is what a prediction that is not finite drifts."""
    sizes = np.abs(drift)
    return math.inf if np.isnan(sizes).any() else float(sizes.max())


def valid_length(curve: np.ndarray, threshold: float | None) -> int | None:
    """Steps from the first on whose score is at most `threshold`; a step without a score (NaN) does not end it."""
    if threshold is None:
        return None
    failed = np.flatnonzero(curve > threshold)
    return int(failed[0]) if len(failed) else len(curve)


def _rollout(
    protocol: Protocol,
    tables: Sequence[TrajectoryTable],
    rolled: Sequence[_Entries],
    trajectories: Sequence[TrajectoryScores],
    eps: np.ndarray,
    names: Sequence[str],
    first_frame: int,
) -> Rollout:
    longest = max(len(part.score) for part in rolled)
    curves = [np.array(each.rollout) for each in trajectories]
    there = [[curve[step] for curve in curves if step < len(curve)] for step in range(longest)]
    per_field = {
        name: tuple(
            _mean(np.array([p.score[step, i] for p in rolled if step < len(p.score) and p.counts[step, i]]))
            for step in range(longest)
        )
        for i, name in enumerate(names)
    }
    windows, left_out = rollout_windows(protocol, curves)
    return Rollout(
        **_scores(rolled, [table.rollout for table in tables], eps, names),
        first_frame=first_frame,
        per_step=tuple(_mean_of_known(np.array(values)) for values in there),
        per_step_median=tuple(_median_of_known(np.array(values)) for values in there),
        per_field_and_step=per_field,
        windows=windows,
        left_out=left_out,
        trajectories=len(rolled),
        trajectories_per_step=tuple(len(values) for values in there),
        valid_length=_valid(protocol, trajectories),
        drift=_drifts(tables),
    )


def rollout_windows(protocol: Protocol, curves: Sequence[np.ndarray]) -> tuple[dict[str, float], dict[str, str]]:
    """The protocol's windows of steps, and why others have no figure.

    A trajectory's figure is the mean over the window's steps; the headline's kind of mean is taken over trajectories.
    """
    windows, left_out = {}, {}
    shortest = min(len(curve) for curve in curves)
    for first, last in protocol.windows:
        if last > shortest:
            left_out[f"{first}:{last}"] = f"the shortest rollout has {shortest} steps"
            continue
        values = np.array([_mean_of_known(curve[first - 1 : last]) for curve in curves])
        take = _mean_of_known if protocol.headline == "mean" else _median_of_known
        windows[f"{first}:{last}"] = take(values)
    return windows, left_out


def _valid(protocol: Protocol, trajectories: Sequence[TrajectoryScores]) -> ValidLength | None:
    if protocol.valid_length_threshold is None:
        return None
    lengths = [each.valid_length or 0 for each in trajectories]
    return ValidLength(
        threshold=protocol.valid_length_threshold,
        mean=exact_mean([float(length) for length in lengths]),
        median=float(np.median(lengths)),
        never_failed=sum(length == len(each.rollout) for length, each in zip(lengths, trajectories, strict=True)),
    )


def _drifts(tables: Sequence[TrajectoryTable]) -> tuple[Drift, ...]:
    found = []
    for quantity, (component, _, _) in tables[0].drift.items():
        of_model = [table.drift[quantity][1] for table in tables]
        of_data = [table.drift[quantity][2] for table in tables]
        longest = max(map(len, of_model))
        sizes = [np.where(np.isnan(values), np.inf, np.abs(values)) for values in of_model]
        found.append(
            Drift(
                quantity=quantity,
                component=component,
                mean=exact_mean([_largest(values) for values in of_model]),
                target=exact_mean([_largest(values) for values in of_data]),
                per_step=tuple(exact_mean([v[step] for v in sizes if step < len(v)]) for step in range(longest)),
            )
        )
    return tuple(found)
