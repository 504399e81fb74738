"""Results made from random entries by the definitions of their figures, in plain NumPy: an oracle for the real ones."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from wellkit.benchmark.protocols import get_protocol
from wellkit.schemas.protocol import Protocol
from wellkit.schemas.result import Result, content_hash

BASELINES = ("persistence", "mean")


def median(values: Sequence[float] | np.ndarray) -> float:
    """The middle one, or the mean of the middle two; infinite where either is."""
    ordered = sorted(values)
    if not ordered:
        return math.nan
    low, high = ordered[(len(ordered) - 1) // 2], ordered[len(ordered) // 2]
    return float((low + high) / 2)


def mean(values: Sequence[float] | np.ndarray) -> float:
    """NaN of nothing."""
    return math.fsum(values) / len(values) if len(values) else math.nan


def known(values: Sequence[float] | np.ndarray) -> list[float]:
    return [float(value) for value in values if not math.isnan(value)]


class Entries:
    """Entries of all trajectories: lists of (step, component) arrays."""

    def __init__(self, protocol: Protocol, error: list[np.ndarray], variance: list[np.ndarray], eps: np.ndarray):
        self.error, self.variance, self.eps = error, variance, eps
        with np.errstate(divide="ignore", invalid="ignore"):
            self.score = [np.sqrt(e / (v + eps)) for e, v in zip(error, variance, strict=True)]
        self.flat = [(v < 100 * eps) | (v == 0) for v in variance]
        self.bad = [np.isinf(e) for e in error]
        left_out = protocol.flat == "left out"
        self.counts = [~f | b if left_out else f | True for f, b in zip(self.flat, self.bad, strict=True)]

    def of_trajectory(self, n: int) -> list[float]:
        """Mean by component."""
        return [mean(self.score[n][self.counts[n][:, c], c]) for c in range(len(self.eps))]

    def scores(self, fields: Sequence[str]) -> dict[str, Any]:
        by_field = [
            [v for s, k in zip(self.score, self.counts, strict=True) for v in s[k[:, c], c]] for c in range(len(fields))
        ]
        pooled = [
            math.sqrt(mean(np.concatenate([e[:, c] for e in self.error])) / (self._variance(c) + self.eps[c]))
            for c in range(len(fields))
        ]
        return {
            "mean": mean([mean(values) for values in by_field if values]),
            "median": median([v for values in by_field for v in values]),
            "pooled": mean(pooled),
            "of_trajectories": median(known([mean(known(self.of_trajectory(n))) for n in range(len(self.score))])),
            "per_field": {f: mean(v) for f, v in zip(fields, by_field, strict=True) if v},
            "per_field_median": {f: median(v) for f, v in zip(fields, by_field, strict=True) if v},
            "per_field_pooled": dict(zip(fields, pooled, strict=True)),
            "entries": sum(s.size for s in self.score),
            "flat": int(sum(f.sum() for f in self.flat)),
            "nonfinite": int(sum(b.sum() for b in self.bad)),
        }

    def _variance(self, component: int) -> float:
        return mean(np.concatenate([v[:, component] for v in self.variance]))


def make_result(
    name: str = "fno",
    *,
    protocol: str = "wellkit-1",
    quality: float = 0.3,
    seed: int | None = None,
    draw: int = 0,
    data: int = 0,
    trajectories: Sequence[int] = (2, 1),
    frames: Sequence[int] = (20, 37),
    fields: Sequence[str] = ("u", "v"),
    parameters: Sequence[Mapping[str, float]] | None = None,
    n_steps_input: int = 4,
    limit: int | None = None,
    flat: float = 0.0,
    nonfinite: Sequence[int] = (),
    drift: bool = False,
    kind: str | None = None,
    dataset: str = "box",
    resolution: Sequence[int] = (8, 16),
    generator: str | None = "made up 1",
    version: str | None = None,
    model: Mapping[str, Any] | None = None,
    growth: float = 0.1,
) -> Result:
    """A sealed result.

    Args:
        quality: about the one-step score.
        draw: seed of the model's errors; `data` of what it is scored against.
        trajectories, frames: by file.
        parameters: by file.
        flat: share of entries whose target hardly varies.
        nonfinite: numbers of the trajectories whose prediction breaks, at the last step of the second half.
        drift: whether a conserved quantity is measured.
        growth: of the rollout's error, a step.
    """
    rules = get_protocol(protocol)
    there = np.random.default_rng([data, 1])
    made = np.random.default_rng([draw, seed or 0, 2, int(hashlib.sha256(name.encode()).hexdigest()[:8], 16)])
    first = rules.first_frame(n_steps_input)
    places = [(file, number) for file, count in enumerate(trajectories) for number in range(count)]
    shapes = [frames[file] for file, _ in places]

    def variances(steps: int) -> np.ndarray:
        values = there.uniform(0.5, 2.0, (steps, len(fields)))
        return np.where(there.random(values.shape) < flat, 1e-12, values)

    def errors(variance: np.ndarray, grows: float) -> np.ndarray:
        scale = quality * (1 + grows * np.arange(len(variance)))[:, None] * made.uniform(0.7, 1.3, variance.shape)
        return np.asarray(scale**2 * np.maximum(variance, 1e-12))

    one_variance = [variances(n - n_steps_input) for n in shapes]
    lengths = [min(n - first, limit or n) for n in shapes]
    roll_variance = [variances(n) for n in lengths]
    one_error, roll_error = ([errors(v, g) for v in vs] for vs, g in ((one_variance, 0.0), (roll_variance, growth)))
    for number in nonfinite:
        one_error[number][-1, 0] = roll_error[number][len(roll_error[number]) // 2 :, 0] = math.inf
    eps = np.full(len(fields), rules.eps)
    if rules.eps_of == "variance":
        eps = eps * np.concatenate(one_variance).mean(axis=0)
    one = Entries(rules, one_error, one_variance, eps)
    rolled = Entries(rules, roll_error, roll_variance, eps)

    curves = [
        [mean(row[k]) for row, k in zip(s, c, strict=True)] for s, c in zip(rolled.score, rolled.counts, strict=True)
    ]
    threshold = rules.valid_length_threshold
    valid = [next((i for i, v in enumerate(c) if v > threshold), len(c)) if threshold else None for c in curves]
    drifts = [made.uniform(0.0, 0.1, n) for n in lengths]
    steps = range(max(lengths))
    at = [[c[s] for c in curves if s < len(c)] for s in steps]
    windows, left_out = {}, {}
    for a, b in rules.windows:
        if b > min(lengths):
            left_out[f"{a}:{b}"] = f"the shortest rollout has {min(lengths)} steps"
            continue
        of_each = known([mean(known(c[a - 1 : b])) for c in curves])
        windows[f"{a}:{b}"] = mean(of_each) if rules.headline == "mean" else median(of_each)
    digests = [hashlib.sha256(f"{data} {place}".encode()).hexdigest() for place in places]
    content: dict[str, Any] = {
        "schema": "wellkit/result/2",
        "model": {
            "name": name,
            "kind": kind or ("baseline" if name in BASELINES else "predictions"),
            "n_steps_input": n_steps_input,
            "seed": seed,
            **({} if name in BASELINES else {"predictions_sha256": f"{name} {seed} {draw} {quality}"}),
            **(model or {}),
        },
        "dataset": {
            "name": dataset,
            "generator": generator,
            "split": "test",
            "location": "somewhere",
            "files": [f"{dataset}_{i}.hdf5" for i in range(len(trajectories))],
            "trajectories": list(trajectories),
            "steps": list(frames),
            "resolution": list(resolution),
            "fields": list(fields),
        },
        "data": {"content_sha256": content_hash(digests), "dataset_version": generator or version},
        "protocol": rules.model_dump(),
        "rollout_limit": limit,
        "one_step": {
            **one.scores(fields),
            "windows": sum(len(s) for s in one.score),
            **({"spectral": {"low": 0.1, "middle": 0.2, "high": 0.3}} if rules.spectral else {}),
            **(
                {"spectral_per_field": {f: {"low": 0.1, "middle": 0.2, "high": 0.3} for f in fields}}
                if rules.spectral
                else {}
            ),
        },
        "rollout": {
            **rolled.scores(fields),
            "first_frame": first,
            "per_step": [mean(known(values)) for values in at],
            "per_step_median": [median(known(values)) for values in at],
            "per_field_and_step": {
                f: [
                    mean([v[s, c] for v, k in zip(rolled.score, rolled.counts, strict=True) if s < len(v) and k[s, c]])
                    for s in steps
                ]
                for c, f in enumerate(fields)
            },
            "windows": windows,
            "left_out": left_out,
            "trajectories": len(places),
            "trajectories_per_step": [len(values) for values in at],
            "valid_length": None
            if threshold is None
            else {
                "threshold": threshold,
                "mean": mean([v or 0 for v in valid]),
                "median": median([v or 0 for v in valid]),
                "never_failed": sum(v == n for v, n in zip(valid, lengths, strict=True)),
            },
            "drift": [
                {
                    "quantity": "mass",
                    "component": fields[0],
                    "mean": mean([d.max() for d in drifts]),
                    "target": 1e-6,
                    "per_step": [mean([d[s] for d in drifts if s < len(d)]) for s in steps],
                }
            ]
            if drift
            else [],
        },
        "trajectories": [
            {
                "file": f"{dataset}_{file}.hdf5",
                "trajectory": number,
                "frames": frames[file],
                "parameters": dict(parameters[file]) if parameters is not None else {"tcool": float(file)},
                "content_sha256": digests[n],
                "windows": len(one.score[n]),
                "one_step": dict(zip(fields, one.of_trajectory(n), strict=True)),
                "counted": dict(zip(fields, one.counts[n].sum(axis=0).tolist(), strict=True)),
                "one_step_error": {f: mean(one_error[n][:, c]) for c, f in enumerate(fields)},
                "one_step_variance": {f: mean(one_variance[n][:, c]) for c, f in enumerate(fields)},
                "flat": int(one.flat[n].sum()),
                "nonfinite": int(one.bad[n].sum()),
                "rollout": curves[n],
                "rollout_per_field": dict(zip(fields, rolled.of_trajectory(n), strict=True)),
                "rollout_counted": dict(zip(fields, rolled.counts[n].sum(axis=0).tolist(), strict=True)),
                "rollout_flat": int(rolled.flat[n].sum()),
                "rollout_nonfinite": int(rolled.bad[n].sum()),
                "valid_length": valid[n],
                "drift": {"mass": float(drifts[n].max())} if drift else {},
            }
            for n, (file, number) in enumerate(places)
        ],
        "run": {
            "code_version": "0",
            "hardware": "none",
            "seconds": 1.0,
            "stall_share": 0.0,
            "created": "2026-01-01T00:00:00+00:00",
        },
    }
    return Result.parse(content, source="test").sealed()
