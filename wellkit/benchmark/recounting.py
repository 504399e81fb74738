"""The parts of `wellkit.benchmark.checking` that compute a result's figures again from its trajectories."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NoReturn

from wellkit.errors import ScoreError
from wellkit.metrics import BANDS
from wellkit.schemas.result import OneStep, Result, Scores

TOLERANCE = 1e-9


class Check:
    """Refuses, in one line."""

    def __init__(self, source: str) -> None:
        self.source = source

    def refuse(self, why: str) -> NoReturn:
        raise ScoreError(f"{self.source}: {why}; the result is refused: score the model again with wellkit evaluate")

    def same(self, name: str, claimed: object, found: object, says: str = "its trajectories give") -> None:
        """Numbers to 1e-9 of the larger; infinities, NaN and all else exactly."""
        if not is_equal(claimed, found):
            self.refuse(f"{name} is {shown(claimed)}, {says} {shown(found)}")

    def within(self, name: str, value: float, low: float, high: float) -> None:
        """A number between two others, none of them NaN; both ends with the same tolerance."""
        if not low * (1 - TOLERANCE) <= value <= high * (1 + TOLERANCE):
            self.refuse(f"{name} is {shown(value)}, which must be from {shown(low)} to {shown(high)}")

    def keys(self, name: str, claimed: Iterable[str], found: Iterable[str]) -> None:
        ours, theirs = set(found), set(claimed)
        if ours != theirs:
            self.refuse(f"{name} is of {', '.join(sorted(theirs)) or 'nothing'}, not of {', '.join(sorted(ours))}")


def is_equal(claimed: object, found: object) -> bool:
    if isinstance(claimed, float | int) and isinstance(found, float | int):
        both_nan = claimed != claimed and found != found
        return both_nan or claimed == found or math.isclose(claimed, found, rel_tol=TOLERANCE, abs_tol=0.0)
    return claimed == found


def shown(value: object) -> str:
    return f"{value:.10g}" if isinstance(value, float) else str(value)


def check_score(check: Check, name: str, value: float, *, missing: bool = False) -> None:
    """A score is from 0 to infinity; NaN where there is none to give, and nowhere else."""
    if missing and value == value:
        check.refuse(f"{name} is {shown(value)}, and no entry of it counts")
    if not missing and not value >= 0:
        check.refuse(f"{name} is {shown(value)}, which is no score")


def _check_scores(check: Check, result: Result, scores: Scores, name: str) -> None:
    """What one-step scores and rollouts have in common."""
    rolled = name == "rollout"
    fields, trajectories = result.dataset.fields, result.trajectories
    values = [each.rollout_per_field if rolled else each.one_step for each in trajectories]
    counts = [each.rollout_counted if rolled else each.counted for each in trajectories]
    totals = {field: sum(count[field] for count in counts) for field in fields}
    scored = [field for field in fields if totals[field]]
    if not scored:
        check.refuse(f"{name} has no score: every target is flat")
    check.keys(f"{name}.per_field", scores.per_field, scored)
    check.keys(f"{name}.per_field_median", scores.per_field_median, scored)
    check.keys(f"{name}.per_field_pooled", scores.per_field_pooled, fields)
    for field in scored:
        sums = [value[field] * count[field] for value, count in zip(values, counts, strict=True) if count[field]]
        check.same(f"{name}.per_field.{field}", scores.per_field[field], math.fsum(sums) / totals[field])
        _check_median(check, f"{name}.per_field_median.{field}", scores.per_field_median[field],
                      scores.per_field[field], totals[field])  # fmt: skip
    check.same(f"{name}.mean", scores.mean, mean([scores.per_field[field] for field in scored]))
    everything = math.fsum(scores.per_field[field] * totals[field] for field in scored) / sum(totals.values())
    _check_median(check, f"{name}.median", scores.median, everything, sum(totals.values()))
    for field in fields:
        check_score(check, f"{name}.per_field_pooled.{field}", scores.per_field_pooled[field])
    check.same(f"{name}.pooled", scores.pooled, mean(list(scores.per_field_pooled.values())), "its components give")
    middle = median(known(mean(known(value.values())) for value in values))
    check.same(f"{name}.of_trajectories", scores.of_trajectories, middle)
    rows = sum(len(each.rollout) if rolled else each.windows for each in trajectories)
    check.same(f"{name}.entries", scores.entries, rows * len(fields))
    flat = sum(each.rollout_flat if rolled else each.flat for each in trajectories)
    check.same(f"{name}.flat", scores.flat, flat)
    bad = sum(each.rollout_nonfinite if rolled else each.nonfinite for each in trajectories)
    check.same(f"{name}.nonfinite", scores.nonfinite, bad)
    if bad:
        check.same(f"{name}.pooled", scores.pooled, math.inf, "with predictions that are not finite it is")


def _check_median(check: Check, name: str, median: float, mean: float, count: int) -> None:
    """Half of the entries are at least the median, so it is at most twice the mean; of one or two it is the mean."""
    check_score(check, name, median)
    if count <= 2:
        check.same(name, median, mean, "the mean of so few entries gives")
    check.within(name, median, 0.0, 2 * mean)


def check_one_step(check: Check, result: Result) -> None:
    scores, trajectories, protocol = result.one_step, result.trajectories, result.protocol
    check.same("one_step.windows", scores.windows, sum(each.windows for each in trajectories))
    _check_scores(check, result, scores, "one_step")
    for field in result.dataset.fields:
        error, variance = (
            math.fsum(getattr(each, kind)[field] * each.windows for each in trajectories) / scores.windows
            for kind in ("one_step_error", "one_step_variance")
        )
        eps = protocol.eps * (variance if protocol.eps_of == "variance" else 1.0)
        check.same(f"one_step.per_field_pooled.{field}", scores.per_field_pooled[field], _vrmse(error, variance + eps))
    _check_spectral(check, result, scores)


def _vrmse(error: float, divisor: float) -> float:
    if error == 0:
        return 0.0
    return math.sqrt(error / divisor) if divisor else math.inf


def _check_spectral(check: Check, result: Result, scores: OneStep) -> None:
    spectral, by_field = scores.spectral, scores.spectral_per_field
    if (spectral is None) != (by_field is None):
        check.refuse("one_step.spectral is there without the other of spectral and spectral_per_field")
    if spectral is None or by_field is None:  # the grid may be too small for bands
        return
    if not result.protocol.spectral:
        check.refuse(f"one_step.spectral is there, and protocol {result.protocol.name} has none")
    check.keys("one_step.spectral", spectral, BANDS)
    if not by_field or not set(by_field) <= set(result.dataset.fields):
        check.refuse(f"one_step.spectral_per_field is of {', '.join(by_field) or 'nothing'}")
    for field, bands in by_field.items():
        check.keys(f"one_step.spectral_per_field.{field}", bands, BANDS)
        for band, value in bands.items():
            check_score(check, f"one_step.spectral_per_field.{field}.{band}", value)
    for band in BANDS:
        found = mean([bands[band] for bands in by_field.values()])
        check.same(f"one_step.spectral.{band}", spectral[band], found, "its components give")


def check_rollout(check: Check, result: Result) -> None:
    rollout, trajectories, protocol = result.rollout, result.trajectories, result.protocol
    first = protocol.first_frame(result.model.n_steps_input)
    check.same("rollout.first_frame", rollout.first_frame, first, "the protocol gives")
    check.same("rollout.trajectories", rollout.trajectories, len(trajectories), "the list of trajectories gives")
    _check_scores(check, result, rollout, "rollout")
    curves = [each.rollout for each in trajectories]
    longest, shortest = max(map(len, curves)), min(map(len, curves))
    there = [[curve[step] for curve in curves if step < len(curve)] for step in range(longest)]
    for name, values in (
        ("per_step", [mean(known(each)) for each in there]),
        ("per_step_median", [median(known(each)) for each in there]),
        ("trajectories_per_step", [len(each) for each in there]),
    ):
        claimed: Sequence[float] = getattr(rollout, name)
        check.same(f"the number of steps in rollout.{name}", len(claimed), longest)
        for step, (one, other) in enumerate(zip(claimed, values, strict=True)):
            check.same(f"rollout.{name}.{step}", one, other)
    windows = {f"{a}:{b}": (a, b) for a, b in protocol.windows if b <= shortest}
    check.keys("rollout.windows", rollout.windows, windows)
    check.keys("rollout.left_out", rollout.left_out, {f"{a}:{b}" for a, b in protocol.windows} - set(windows))
    for name, (a, b) in windows.items():
        of_each = known(mean(known(curve[a - 1 : b])) for curve in curves)
        found = mean(of_each) if protocol.headline == "mean" else median(of_each)
        check.same(f"rollout.windows.{name}", rollout.windows[name], found)


def check_curves(check: Check, result: Result) -> None:
    """Curves of components, by what ties them to the means over components and over steps."""
    rollout, trajectories, fields = result.rollout, result.trajectories, result.dataset.fields
    check.keys("rollout.per_field_and_step", rollout.per_field_and_step, fields)
    counts = rollout.trajectories_per_step
    complete = {
        field: all(each.rollout_counted[field] == len(each.rollout) for each in trajectories) for field in fields
    }
    for field, curve in rollout.per_field_and_step.items():
        name = f"rollout.per_field_and_step.{field}"
        check.same(f"the number of steps in {name}", len(curve), len(counts))
        for step, value in enumerate(curve):
            check_score(check, f"{name}.{step}", value, missing=value != value and not complete[field])
        entries = sum(each.rollout_counted[field] for each in trajectories)
        if entries:
            total = rollout.per_field[field] * entries
            weighted = math.fsum(v * n for v, n in zip(curve, counts, strict=True) if v == v)
            if complete[field]:
                check.same(
                    f"the mean of {name}", weighted / entries, rollout.per_field[field], "rollout.per_field gives"
                )
            else:  # of each step that counts there are from one to all trajectories in the mean
                check.within(f"rollout.per_field.{field} times its entries", total, math.fsum(known(curve)), weighted)
    if all(complete.values()):
        for step, claimed in enumerate(rollout.per_step):
            found = mean([rollout.per_field_and_step[field][step] for field in fields])
            check.same(f"rollout.per_step.{step}", claimed, found, "rollout.per_field_and_step gives")


def check_valid_length(check: Check, result: Result) -> None:
    threshold, claimed, trajectories = (
        result.protocol.valid_length_threshold, result.rollout.valid_length, result.trajectories,
    )  # fmt: skip
    if threshold is None or claimed is None:
        if (threshold is None) != (claimed is None) or any(each.valid_length is not None for each in trajectories):
            check.refuse(f"valid rollout lengths must be there exactly where protocol {result.protocol.name} has them")
        return
    check.same("rollout.valid_length.threshold", claimed.threshold, threshold, "the protocol gives")
    lengths = []
    for number, each in enumerate(trajectories):
        length = next((step for step, v in enumerate(each.rollout) if v > threshold), len(each.rollout))
        check.same(f"trajectories.{number}.valid_length", each.valid_length, length, "its rollout gives")
        lengths.append(float(length))
    check.same("rollout.valid_length.mean", claimed.mean, mean(lengths))
    check.same("rollout.valid_length.median", claimed.median, median(lengths))
    never = sum(length == len(each.rollout) for length, each in zip(lengths, trajectories, strict=True))
    check.same("rollout.valid_length.never_failed", claimed.never_failed, never)


def check_drift(check: Check, result: Result) -> None:
    rollout, trajectories = result.rollout, result.trajectories
    if rollout.drift and not result.protocol.conservation:
        check.refuse(f"rollout.drift is there, and protocol {result.protocol.name} has none")
    for number, each in enumerate(trajectories):
        check.keys(f"trajectories.{number}.drift", each.drift, [drift.quantity for drift in rollout.drift])
    counts = rollout.trajectories_per_step
    for drift in rollout.drift:
        name = f"rollout.drift of {drift.quantity}"
        if drift.component not in result.dataset.fields:
            check.refuse(f"{name} names the component {drift.component!r}, which there is not")
        largest = [each.drift[drift.quantity] for each in trajectories]
        for number, value in enumerate(largest):
            check_score(check, f"trajectories.{number}.drift.{drift.quantity}", value)
        check.same(f"{name}: mean", drift.mean, mean(largest))
        check_score(check, f"{name}: target", drift.target)
        check.same(f"the number of steps in {name}", len(drift.per_step), len(counts))
        for step, value in enumerate(drift.per_step):
            check_score(check, f"{name}: per_step.{step}", value)
            having = [v for v, each in zip(largest, trajectories, strict=True) if step < len(each.rollout)]
            check.within(f"{name}: per_step.{step}", value, 0.0, mean(having))
        # A trajectory's largest drift is at one of its steps.
        weighted = math.fsum(v * n for v, n in zip(drift.per_step, counts, strict=True))
        check.within(f"{name}: sum of the largest", math.fsum(largest), 0.0, weighted)


def known(values: Iterable[float]) -> list[float]:
    return [value for value in values if value == value]


def mean(values: Sequence[float]) -> float:
    """Mean; NaN of nothing."""
    return math.fsum(values) / len(values) if values else math.nan


def median(values: Sequence[float]) -> float:
    """Median, infinite where one of the middle two is; NaN of nothing."""
    ordered = sorted(values)
    return (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2 if ordered else math.nan
