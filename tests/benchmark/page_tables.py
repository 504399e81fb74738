"""Tables for the leaderboard's page: random, but such as a real board could hold."""

from __future__ import annotations

import base64
import dataclasses
import functools
import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from wellkit.benchmark.protocols import WELL_2024, WELLKIT_1
from wellkit.benchmark.standings import Comparison, Interval, Row, RowKind, Table
from wellkit.schemas.protocol import Protocol
from wellkit.schemas.result import Result

FIELDS = ("density", "pressure", "velocity_x", "velocity_y")
QUALITY = {
    "unet_convnext": 0.09,
    "fno": 0.14,
    "tfno": 0.145,
    "avit": 0.12,
    "unet_classic": 0.2,
    "persistence": 0.24,
    "mean": 1.0,
}


def digest(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def scores(values: np.ndarray, **more: Any) -> dict[str, Any]:
    """Of (trajectory, component) means."""
    per_field = {name: float(values[:, n].mean()) for n, name in enumerate(FIELDS)}
    return {
        "mean": float(values.mean()),
        "median": float(np.median(values)),
        "pooled": float(np.sqrt((values**2).mean())),
        "of_trajectories": float(np.median(values.mean(axis=1))),
        "per_field": per_field,
        "per_field_median": per_field,
        "per_field_pooled": per_field,
        "entries": values.size * 97,
        "flat": 12,
        "nonfinite": int(np.isinf(values).sum()),
        **more,
    }


def pictures(quality: float, shape: tuple[int, int]) -> dict[str, Any]:
    """A wavy layer, and the same a little wrong."""
    x, y = np.meshgrid(np.linspace(0, 2 * np.pi, shape[0]), np.linspace(-1, 1, shape[1]), indexing="ij")
    made, spectra = [], []
    wavenumber = np.linspace(0.05, 3.1, 30)
    for step in (1, 10, 40):
        truth = np.tanh(6 * (y + 0.3 * np.sin(x + step / 9) + 0.1 * np.sin(5 * x - step / 4)))
        wrong = truth + quality * np.sqrt(step) * np.sin(7 * x + 9 * y + step) * np.exp(-3 * y**2)
        truth_bytes, wrong_bytes = (
            base64.b64encode(np.clip(127.5 * (1 + v / 1.2), 0, 255).astype(np.uint8).tobytes()).decode()
            for v in (truth, wrong)
        )
        made.append({"step": step, "truth": truth_bytes, "prediction": wrong_bytes})
        power = 100 * (1 + (wavenumber / 0.2) ** 2) ** -2.5
        blurred = power * np.exp(-quality * np.sqrt(step) * wavenumber)
        spectra.append(
            {"step": step, "wavenumber": wavenumber.tolist(), "truth": power.tolist(), "prediction": blurred.tolist()}
        )
    return {
        "trajectory": 3, "component": "density", "shape": shape, "axes": ("x", "y"), "extent": (1.0, 3.0),
        "low": 0.93, "high": 11.2, "pictures": made, "spectra": spectra,
    }  # fmt: skip


def trained(name: str, seed: int | None) -> dict[str, Any]:
    return {
        "arguments": {"width": 32, "modes": 16},
        "parameters": 17_312_004 + len(name),
        "seed": seed,
        "epochs": 40,
        "training_seconds": 5213.4 + 100 * (seed or 0),
        "samples_seen": 61_440,
        "weights_sha256": digest("weights", name, seed),
        "training_hardware": "1 x H200",
    }


@functools.cache
def make_result(
    name: str,
    *,
    seed: int | None = 0,
    trajectories: int = 12,
    protocol: Protocol = WELLKIT_1,
    dataset: str = "turbulent_radiative_layer_2D",
    diverges: bool = False,
    shape: tuple[int, int] = (32, 96),
    code_version: str = "0.1.0",
) -> Result:
    """A sealed result with an example."""
    rng = np.random.default_rng([len(name), seed or 0, trajectories])
    quality = QUALITY.get(name, 0.3)
    network = name not in ("persistence", "mean")
    values = quality * rng.uniform(0.8, 1.2, (trajectories, len(FIELDS)))
    steps = 97
    curves = np.minimum(quality * (1 + np.arange(steps)) ** 0.55, 1.4) * rng.uniform(0.8, 1.2, (trajectories, 1))
    if diverges:
        values[0, 0] = np.inf
        curves[0, 20:] = np.inf
    windows = {f"{a}:{b}": float(curves[:, a - 1 : b].mean()) for a, b in protocol.windows}
    valid = [int(np.argmax(c > 1)) if (c > 1).any() else steps for c in curves]
    spectral = {"low": quality * 0.4, "middle": quality, "high": quality * 3}
    tcool = [0.03, 0.06, 0.1, 0.18, 0.32, 0.56, 1.0, 1.78, 3.16]
    content = {
        "schema": Result.schema_name(),
        "model": {
            "name": name,
            "kind": "network" if network else "baseline",
            "n_steps_input": 4,
            **(trained(name, seed) if network else {}),
        },
        "dataset": {
            "name": dataset, "generator": "wellkit 0.1.0", "split": "test", "location": "/home/someone/data",
            "files": ["a.hdf5", "b.hdf5"], "trajectories": [trajectories // 2, trajectories - trajectories // 2],
            "steps": [101, 101], "resolution": [128, 384], "fields": FIELDS,
        },
        "data": {"content_sha256": digest("content"), "manifest_sha256": digest("manifest"), "dataset_version": "2"},
        "protocol": protocol.model_dump(),
        "one_step": scores(values, windows=97 * trajectories, **({"spectral": spectral,
            "spectral_per_field": dict.fromkeys(FIELDS, spectral)} if protocol.spectral else {})),
        "rollout": scores(
            curves.mean(axis=1, keepdims=True) * np.ones((1, 4)),
            first_frame=4,
            per_step=curves.mean(axis=0).tolist(),
            per_step_median=np.median(curves, axis=0).tolist(),
            per_field_and_step={f: curves.mean(axis=0).tolist() for f in FIELDS},
            windows=windows,
            trajectories=trajectories,
            trajectories_per_step=[trajectories] * steps,
            valid_length=None if protocol.valid_length_threshold is None else {
                "threshold": 1.0, "mean": float(np.mean(valid)), "median": float(np.median(valid)),
                "never_failed": valid.count(steps),
            },
            drift=[{"quantity": "mass", "component": "density", "mean": 0.012, "target": 1e-6,
                    "per_step": [0.01] * steps}],
        ),
        "trajectories": [
            {
                "file": "ab"[n >= trajectories // 2] + ".hdf5", "trajectory": n, "frames": 101,
                "parameters": {"tcool": tcool[n % 9], "mach": 0.5}, "windows": 97,
                "content_sha256": digest("trajectory", n),
                "one_step": dict(zip(FIELDS, values[n].tolist(), strict=True)), "counted": dict.fromkeys(FIELDS, 97),
                "one_step_error": dict.fromkeys(FIELDS, 0.1), "one_step_variance": dict.fromkeys(FIELDS, 1.0),
                "flat": 1, "nonfinite": int(np.isinf(values[n]).sum()), "rollout": curves[n].tolist(),
                "rollout_per_field": dict.fromkeys(FIELDS, float(curves[n].mean())),
                "rollout_counted": dict.fromkeys(FIELDS, 97),
                "rollout_flat": 0, "rollout_nonfinite": 0, "valid_length": valid[n], "drift": {"mass": 0.01},
            }
            for n in range(trajectories)
        ],
        "example": pictures(quality * (1 + 0.02 * (seed or 0)), shape),
        "run": {
            "code_version": code_version, "hardware": "2 CPU cores", "seconds": 81.3, "stall_share": 0.013,
            "created": "2026-11-20T10:11:12+00:00",
        },
    }  # fmt: skip
    return Result.parse(content, source="test").sealed()


def make_row(
    name: str, kind: RowKind, rank: int | None, *, seeds: Sequence[int | None] = (0,), tied: bool = False, **more: Any
) -> Row:
    results = tuple(make_result(name, seed=seed, **more) for seed in seeds)
    values = tuple(result.headline for result in results)
    trajectories = len(results[0].trajectories)
    against = None
    if name != "persistence":
        ratio = QUALITY["persistence"] / QUALITY.get(name, 0.3)
        there = trajectories >= 10
        interval = Interval(-0.12 if there else None, -0.08 if there else None, trajectories, 9)
        against = Comparison(-0.1, ratio, trajectories - 1, interval, None if ratio > 1.3 else 17)
    windows: dict[str, float | str] = {
        window: float(np.mean([r.rollout.windows[window] for r in results])) for window in results[0].rollout.windows
    }
    return Row(name, kind, rank, tied, results, float(np.mean(values)), values, windows, against)


def make_table(*, rows: Sequence[Row] = (), **more: Any) -> Table:
    """A table of generated data with every kind of row; `rows` come last."""
    made = (
        make_row("unet_convnext", "recomputed", 1, seeds=(0, 1, 2), **more),
        make_row("avit", "recomputed", 2, seeds=(0, 1, 2), tied=True, **more),
        make_row("fno", "recomputed", 2, seeds=(0, 1), tied=True, **more),
        make_row("tfno", "self-reported", None, **more),
        make_row("unet_classic", "recomputed", 4, diverges=True, **more),
        make_row("persistence", "baseline", None, seeds=(None,), **more),
        make_row("mean", "baseline", None, seeds=(None,), **more),
        *rows,
    )
    first = made[0].results[0]
    data, protocol = first.dataset, first.protocol
    title = f"{data.name}, version 2, generated by wellkit 0.1.0: test, 128x384, {sum(data.trajectories)} trajectories"
    return Table(first.comparable_id, title, protocol, made, ("1.2 % of the entries are flat.",))


REFERENCES = (
    Row("FNO (Ohana et al. 2024)", "reference", None, False, (), 0.5001, (), {"6:12": 0.67, "13:30": ">10"}, None,
        ("made with a wrapper that discarded the Fourier blocks' output",), "arXiv 2412.00568, table 2"),
    Row("UNetConvNext (Ohana et al. 2024)", "reference", None, False, (), 0.1956, (), {"6:12": 0.41, "13:30": 0.83},
        None, ("windows 6:12 and 13:30: the released code does not produce these edges",), "arXiv 2412.00568, table 2"),
)  # fmt: skip


def make_board() -> list[Table]:
    """Two datasets, two protocols."""
    return [
        make_table(),
        make_table(protocol=WELL_2024, rows=REFERENCES),
        make_table(dataset="gray_scott_reaction_diffusion", trajectories=5, shape=(64, 64)),
    ]


HOSTILE = (
    "<img src=x onerror=\"window.hit='img'\">",
    "</script><script>window.hit='script'</script>",
    "<!--<script>",
    "a\u2028window.hit='line'\u2029b",
    "\" onmouseover=\"window.hit='quote'\" x='",
    "javascript:window.hit='address'",
    "__proto__",
)


def spoil(text: str) -> Table:
    """A table that holds `text` wherever somebody else can put text."""
    row = make_row("fno", "self-reported", None, code_version=text, dataset=text)
    result = row.results[0]
    model = {"name": text, "arguments": {text: text}, "url": text, "checkpoint": text, "training_hardware": text}
    assert result.example is not None
    result = result.model_copy(
        update={
            "model": result.model.model_copy(update=model),
            "example": result.example.model_copy(update={"component": text, "axes": (text, text)}),
            "trajectories": tuple(
                one.model_copy(update={"file": text, "parameters": {text: 1.0}}) for one in result.trajectories
            ),
            "one_step": result.one_step.model_copy(update={"per_field_pooled": {text: 1.0}, "per_field": {text: 1.0}}),
        }
    )
    mine = dataclasses.replace(row, name=text, results=(result,))
    reference = dataclasses.replace(REFERENCES[0], name=text, taints=(text,), source=text)
    table = make_table(rows=(mine, reference))
    return dataclasses.replace(table, title=text, notes=(text,), comparable_id=text)
