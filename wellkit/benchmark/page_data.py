"""What a leaderboard's page shows, as JSON: tables in the order given, numbers to 6 significant digits.

The whole numbers are in the board; a page is for reading, and a hundred trajectories a result have to fit into it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import zip_longest
from typing import Any

from wellkit.benchmark.page_pictures import Pictures
from wellkit.benchmark.page_words import STATUS, definitions, entry, why_unranked
from wellkit.benchmark.standings import Row, Table
from wellkit.schemas.board import Verification
from wellkit.schemas.result import Result, TrajectoryScores

_BANDS = ("low", "middle", "high")

Number = float | int | str | None


def number(value: float | None) -> Number:
    """A number to 6 significant digits; JSON has no word for those that are not finite, so they are text."""
    if value is None:
        return None
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, int):
        return value
    short = float(f"{value:.6g}")
    return int(short) if short.is_integer() and abs(short) < 1e15 else short


def page_content(tables: Sequence[Table], *, title: str, made: str) -> dict[str, Any]:
    """Everything the page's script reads."""
    pictures = Pictures(row.results for table in tables for row in table.rows)
    content = {
        "title": title,
        "made": made,
        "status": STATUS,
        "tables": [_table(table, pictures) for table in tables],
        "pictures": pictures.shared,
    }
    return {key: _plain(value) for key, value in content.items()}


def _plain(value: Any) -> Any:
    """The same, with text for every number that JSON has no word for: results of others may hold one anywhere."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return number(value) if isinstance(value, float) and not math.isfinite(value) else value


def _table(table: Table, pictures: Pictures) -> dict[str, Any]:
    results = [result for row in table.rows for result in row.results]
    first = results[0] if results else None
    protocol = table.protocol
    windows = [f"{a}:{b}" for a, b in protocol.windows]
    shown = [w for w in windows if any(w in row.windows for row in table.rows)]
    bands = [b for b in _BANDS if any(b in (result.one_step.spectral or {}) for result in results)]
    left_out = {} if first is None else {w: first.rollout.left_out[w] for w in windows if w in first.rollout.left_out}
    return {
        "id": table.comparable_id,
        "title": table.title,
        "dataset": table.title if first is None else first.dataset.name,
        "protocol": {
            "name": protocol.name,
            "summary": protocol.summary,
            "entry": entry(protocol),
            "comparable_with": protocol.comparable_with,
            "open_points": list(protocol.open_points),
            "sha256": protocol.definition_sha256,
            "median": protocol.headline != "mean",
            "threshold": protocol.valid_length_threshold or 1.0,
        },
        "notes": [*table.notes, *(f"steps {window}: no figure; {reason}" for window, reason in left_out.items())],
        "columns": _columns(results, shown, bands),
        "definitions": definitions(table),
        "rows": [_row(row, shown, bands, pictures) for row in table.rows],
    }


def _columns(results: Sequence[Result], windows: Sequence[str], bands: Sequence[str]) -> list[dict[str, str]]:
    columns = [
        ("rank", "Rank", "rank"),
        ("model", "Model", "model"),
        ("headline", "VRMSE, one step", "score"),
        ("status", "Status", "status"),
        ("seeds", "Seeds, and spread", "seeds"),
        *((f"window {w}", _window_label(w), "score") for w in windows),
        ("ratio", "Times better than persistence", "ratio"),
        ("behind", "Behind persistence from step", "step"),
        *([("valid", "Valid rollout length", "score")] if any(r.rollout.valid_length for r in results) else []),
        *((f"band {b}", f"Spectral error, {b}", "score") for b in bands),
        ("parameters", "Parameters", "count"),
        ("training", "Training time", "seconds"),
    ]
    return [{"key": key, "label": label, "kind": kind} for key, label, kind in columns]


def _window_label(window: str) -> str:
    first, last = window.split(":")
    return f"Rollout, steps\u00a0{first}\u00a0to\u00a0{last}"


def _row(row: Row, windows: Sequence[str], bands: Sequence[str], pictures: Pictures) -> dict[str, Any]:
    results = row.results
    cells: dict[str, Any] = {
        "rank": {"v": row.rank, "t": "–" if row.rank is None else f"{row.rank}{'=' if row.tied else ''}"},
        "headline": _figure(row.headline),
        "seeds": {"v": _spread(row.seed_values) if len(row.seed_values) > 1 else None},
        "ratio": _ratio(row),
        "behind": _behind(row),
        "valid": _valid(results),
        "parameters": {"v": max((r.model.parameters for r in results), default=0) or None},
        "training": {"v": number(_mean(r.model.training_seconds for r in results))},
    }
    cells |= {f"window {w}": _figure(row.windows.get(w)) for w in windows}
    cells |= {f"band {b}": {"v": number(_mean((r.one_step.spectral or {}).get(b) for r in results))} for b in bands}
    curves = [r.rollout.per_step_median if r.protocol.headline != "mean" else r.rollout.per_step for r in results]
    return {
        "name": row.name,
        "kind": row.kind,
        "why": why_unranked(row) if row.rank is None else None,
        "cells": cells,
        "seed_values": [number(value) for value in row.seed_values],
        "comparison": _comparison(row),
        "taints": list(row.taints),
        "source": row.source,
        "curves": [[number(value) for value in curve] for curve in curves],
        "example": pictures.example(results),
        "results": [
            _result(result, verification, windows, bands)
            for result, verification in zip_longest(results, row.verifications[: len(results)])
        ],
    }


def _figure(value: float | str | None) -> dict[str, Any]:
    """A published ">10" sorts as 10 and is shown as it was printed."""
    if not isinstance(value, str):
        return {"v": number(value)}
    found = re.search(r"\d+(\.\d+)?([eE][-+]?\d+)?", value)
    return {"v": number(float(found[0])), "t": value} if found else {"v": None}


def _spread(values: Sequence[float]) -> Number:
    finite = all(math.isfinite(value) for value in values)
    return number(max(values) - min(values)) if finite else number(math.inf)


def _mean(values: Iterable[float | None]) -> float | None:
    there = [value for value in values if value is not None]
    return sum(there) / len(there) if there else None


def _ratio(row: Row) -> dict[str, Any]:
    compared = row.against_persistence
    return {"v": None} if compared is None else {"v": number(compared.ratio)}


def _behind(row: Row) -> dict[str, Any]:
    compared = row.against_persistence
    if compared is None:
        return {"v": None}
    steps = max((len(r.rollout.per_step) for r in row.results), default=0)
    return {"v": steps + 1, "t": "never"} if compared.behind_from is None else {"v": compared.behind_from}


def _valid(results: Sequence[Result]) -> dict[str, Any]:
    lengths = [r.rollout.valid_length for r in results if r.rollout.valid_length is not None]
    if not lengths:
        return {"v": None}
    value = _mean(length.mean for length in lengths)
    held = any(length.never_failed for length in lengths)
    return {"v": number(value), "t": f"≥ {value:.4g}" if held else f"{value:.4g}"}


def _comparison(row: Row) -> dict[str, Any] | None:
    compared = row.against_persistence
    if compared is None:
        return None
    interval = compared.interval
    there = interval.low is not None and interval.high is not None
    return {
        "difference": number(compared.mean_difference),
        "better": compared.better,
        "low": number(interval.low) if there else None,
        "high": number(interval.high) if there else None,
        "trajectories": interval.trajectories,
        "strata": interval.strata,
    }


def _result(
    result: Result, verification: Verification | None, windows: Sequence[str], bands: Sequence[str]
) -> dict[str, Any]:
    one, rollout, data = result.one_step, result.rollout, result.dataset
    valid = rollout.valid_length
    return {
        "id": result.id,
        "sha256": result.sha256,
        "limit": result.rollout_limit,
        "model": result.model.model_dump(mode="json", exclude_none=True, exclude={"trained_on"}),
        "trained_on": _identity(result.model.trained_on.model_dump(mode="json")) if result.model.trained_on else None,
        "dataset": _identity(data.model_dump(mode="json")),
        "data": result.data.model_dump(mode="json", exclude_none=True),
        "run": result.run.model_dump(mode="json"),
        "again": None if verification is None else verification.model_dump(mode="json"),
        "figures": {
            "one step": _scores(one),
            "rollout": _scores(rollout),
        },
        "windows": {w: number(rollout.windows.get(w)) for w in windows},
        "valid": None if valid is None else {k: number(v) for k, v in valid.model_dump().items()},
        "fields": _per_field(result, windows, bands),
        "drift": [[d.quantity, d.component, number(d.mean), number(d.target)] for d in rollout.drift],
        "trajectories": _trajectories(result, windows),
    }


def _identity(identity: Mapping[str, Any]) -> dict[str, Any]:
    """Without the folder it lay in, which says nothing about the data and much about somebody's machine."""
    return {
        "name": identity["name"],
        "generator": identity["generator"],
        "split": identity["split"],
        "resolution": "×".join(map(str, identity["resolution"])),
        "files": len(identity["files"]),
        "trajectories": sum(identity["trajectories"]),
        "fields": identity["fields"],
        "constant_fields": identity["constant_fields"],
    }


def _scores(scores: Any) -> dict[str, Any]:
    names = ("mean", "median", "pooled", "of_trajectories", "entries", "flat", "nonfinite")
    return {name: number(getattr(scores, name)) for name in names}


def _per_field(result: Result, windows: Sequence[str], bands: Sequence[str]) -> dict[str, Any]:
    """By key of a column: a figure for each component."""
    one, rollout = result.one_step, result.rollout
    fields: dict[str, dict[str, Number]] = {
        "headline": {name: number(value) for name, value in one.per_field.items()},
        "headline median": {name: number(value) for name, value in one.per_field_median.items()},
        "headline pooled": {name: number(value) for name, value in one.per_field_pooled.items()},
    }
    for window in windows:
        a, b = map(int, window.split(":"))
        fields[f"window {window}"] = {
            name: number(_average(steps[a - 1 : b])) for name, steps in rollout.per_field_and_step.items()
        }
    for band in bands:
        fields[f"band {band}"] = {
            name: number(values.get(band)) for name, values in (one.spectral_per_field or {}).items()
        }
    return fields


def _trajectories(result: Result, windows: Sequence[str]) -> dict[str, Any]:
    """Columns and rows: a row a trajectory."""
    parameters = list(dict.fromkeys(name for one in result.trajectories for name in one.parameters))
    files = list(dict.fromkeys(one.file for one in result.trajectories))

    def row(one: TrajectoryScores) -> list[Any]:
        return [
            files.index(one.file),
            one.trajectory,
            one.frames,
            *(number(one.parameters.get(name)) for name in parameters),
            number(_average([v for name, v in one.one_step.items() if one.counted.get(name, 1)])),
            *(number(_average(one.rollout[_start(w) : _stop(w)])) for w in windows),
            one.valid_length,
            one.flat + one.rollout_flat,
            one.nonfinite + one.rollout_nonfinite,
        ]

    return {
        "files": files,
        "parameters": parameters,
        "columns": ["headline", *(f"window {w}" for w in windows), "valid"],
        "rows": [row(one) for one in result.trajectories],
    }


def _start(window: str) -> int:
    return int(window.split(":")[0]) - 1


def _stop(window: str) -> int:
    return int(window.split(":")[1])


def _average(values: Sequence[float]) -> float | None:
    """Of those that are there: NaN marks steps without an entry that counts."""
    there = [value for value in values if not math.isnan(value)]
    return sum(there) / len(there) if there else None
