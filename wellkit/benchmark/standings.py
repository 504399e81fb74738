"""Who stands where: results of one data identity and protocol side by side, ranked as far as they can be told apart."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Literal

from wellkit import catalog
from wellkit.benchmark.pairing import LEAST_TRAJECTORIES, Comparison, Interval, compare
from wellkit.benchmark.references import references_for
from wellkit.errors import UnknownDatasetError
from wellkit.schemas.board import BoardEntry, Verification
from wellkit.schemas.card import SimulationCard
from wellkit.schemas.protocol import Protocol
from wellkit.schemas.reference import ReferenceRow
from wellkit.schemas.result import Result

__all__ = ["Comparison", "Interval", "Row", "RowKind", "Table", "narrowed", "standings"]

RowKind = Literal["recomputed", "self-reported", "baseline", "reference"]
BASELINES = ("persistence", "mean")
REFERENCE_PROTOCOL = "well-2024"


@dataclass(frozen=True)
class Row:
    """One line of a table: a model with all its seeds, a baseline, or a published figure.

    Attributes:
        name: of the model, as whoever sent it wrote it: not to be trusted in HTML.
        kind: only "recomputed" rows have ranks.
        rank: 1 + how many recomputed rows are better beyond doubt; None for all other rows.
        tied: whether another row has the same rank.
        results: one for each seed, by seed; empty for a published figure.
        headline: mean over seeds of the figure the protocol ranks by; a text like ">10" for a published bound.
        seed_values: the headline of each seed.
        windows: mean over seeds of the rollout windows, by 'a:b'.
        against_persistence: None for persistence itself and where the board lacks it.
        verifications: of each of `results`; None where nobody has computed it again.
        taints: what is known to be wrong with a published figure.
        source: of a published figure.
    """

    name: str
    kind: RowKind
    rank: int | None
    tied: bool
    results: tuple[Result, ...]
    headline: float | str
    seed_values: tuple[float, ...]
    windows: dict[str, float | str]
    against_persistence: Comparison | None = None
    taints: tuple[str, ...] = ()
    source: str | None = None
    verifications: tuple[Verification | None, ...] = ()


@dataclass(frozen=True)
class Table:
    """Rows that may be compared: one data identity, one protocol.

    Attributes:
        comparable_id: of `Result.comparable_id`.
        title: dataset, version, generated or original, split, resolution, in words.
        notes: what a reader has to know, e.g. the share of flat entries, or that persistence is missing.
    """

    comparable_id: str
    title: str
    protocol: Protocol
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()


def standings(entries: Sequence[BoardEntry], *, references: bool = True) -> tuple[Table, ...]:
    """A board's tables, by title: recomputed rows by rank, then self-reported ones, baselines and published figures.

    A row is better than another beyond doubt where the 95 % interval of their paired differences lies below 0; with
    fewer than 10 trajectories, where it is better on every single one of at least 2; and where its score is finite and
    the other's is not.

    Args:
        references: whether published figures stand below tables of the original data.
    """
    groups: dict[str, list[BoardEntry]] = {}
    for entry in entries:
        groups.setdefault(entry.result.comparable_id, []).append(entry)
    tables = [_table(key, members, references=references) for key, members in groups.items()]
    return tuple(sorted(tables, key=lambda table: (table.title, table.protocol.name, table.comparable_id)))


def narrowed(
    tables: Sequence[Table], *, dataset: str | None = None, protocol: str | None = None, model: str | None = None
) -> tuple[Table, ...]:
    """Tables of one dataset or protocol, and of a model its rows beside the baselines. Ranks stay those of all rows."""
    kept = []
    for table in tables:
        of = next(row.results[0].dataset.name for row in table.rows if row.results)
        if dataset not in (None, of) or protocol not in (None, table.protocol.name):
            continue
        rows = tuple(row for row in table.rows if model in (None, row.name) or row.kind == "baseline")
        if model is None or any(row.name == model for row in rows):
            kept.append(replace(table, rows=rows))
    return tuple(kept)


def _table(comparable_id: str, entries: Sequence[BoardEntry], *, references: bool) -> Table:
    rows = _rows(entries)
    persistence = next((row for row in rows if row.kind == "baseline" and row.name == "persistence"), None)
    if persistence is not None:
        rows = [
            row if row is persistence else replace(row, against_persistence=compare(row.results, persistence.results))
            for row in rows
        ]
    ranked = _ranked([row for row in rows if row.kind == "recomputed"])
    others = sorted((row for row in rows if row.kind != "recomputed"), key=_by_headline)
    first = entries[0].result
    ordered = (
        *ranked,
        *(row for row in others if row.kind == "self-reported"),
        *(row for row in others if row.kind == "baseline"),
        *(_references(first) if references else ()),
    )
    return Table(comparable_id, _title(first), first.protocol, ordered, _notes(entries, ordered))


def _by_headline(row: Row) -> tuple[float, str]:
    return (row.headline if isinstance(row.headline, float) else math.inf), row.name


def _rows(entries: Sequence[BoardEntry]) -> list[Row]:
    """Rows without ranks. Runs of one model that differ by their seed alone are one; a seed that is there twice, or not
    told, leaves each run by itself."""
    groups: dict[tuple[object, ...], list[BoardEntry]] = {}
    for entry in sorted(entries, key=lambda entry: (entry.status != "recomputed", entry.added)):
        model = entry.result.model
        if model.kind == "baseline":
            # With or without stored predictions, and whoever scored it: it is one and the same.
            groups.setdefault(("baseline", model.name, model.statistics_sha256), [entry])
        else:
            key = (model.kind, *model.configuration, model.parameters, entry.status)
            groups.setdefault(key, []).append(entry)
    rows = []
    for members in groups.values():
        seeds = [entry.result.model.seed for entry in members]
        distinct = None not in seeds and len(set(seeds)) == len(seeds)
        for part in [members] if distinct else [[entry] for entry in members]:
            rows.append(_row(part))
    return rows


def _row(entries: Sequence[BoardEntry]) -> Row:
    entries = sorted(entries, key=lambda entry: entry.result.model.seed or 0)
    results = tuple(entry.result for entry in entries)
    values = tuple(float(result.headline) for result in results)
    baseline = results[0].model.kind == "baseline"
    return Row(
        name=results[0].model.name,
        kind="baseline" if baseline else entries[0].status,
        rank=None,
        tied=False,
        results=results,
        headline=_mean(values),
        seed_values=values,
        windows={key: _mean([result.rollout.windows[key] for result in results]) for key in results[0].rollout.windows},
        verifications=tuple(entry.verification for entry in entries),
    )


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _ranked(rows: Sequence[Row]) -> list[Row]:
    beaten = [0] * len(rows)
    for one, other in combinations(range(len(rows)), 2):
        order = _order(rows[one], rows[other])
        if order:
            beaten[other if order < 0 else one] += 1
    ranks = [1 + count for count in beaten]
    placed = [replace(row, rank=rank, tied=ranks.count(rank) > 1) for row, rank in zip(rows, ranks, strict=True)]
    return sorted(placed, key=lambda row: (row.rank, _by_headline(row)))


def _order(one: Row, other: Row) -> int:
    """-1 where the first row is better beyond doubt, 1 where the other is, 0 where nobody can tell."""
    finite = [math.isfinite(row.headline) for row in (one, other) if isinstance(row.headline, float)]
    if finite[0] != finite[1]:
        return -1 if finite[0] else 1
    found = compare(one.results, other.results)
    interval = found.interval
    if interval.low is not None and interval.high is not None:
        return -1 if interval.high < 0 else 1 if interval.low > 0 else 0
    if interval.trajectories < 2:
        return 0
    if found.better == interval.trajectories:
        return -1
    return 1 if compare(other.results, one.results).better == interval.trajectories else 0


def _card(result: Result) -> SimulationCard | None:
    try:
        return catalog.get(result.dataset.name)
    except UnknownDatasetError:
        return None


def _title(result: Result) -> str:
    data, version = result.dataset, result.data.dataset_version
    if data.generator is not None:
        made = f"generated by {data.generator}"
    else:
        made = "original" if _card(result) is not None else "data of one's own"
    parts = [
        data.name if version is None or data.generator is not None else f"{data.name} (version {version})",
        made,
        data.split,
        "x".join(map(str, data.resolution)),
        _trajectories(len(result.trajectories)),
        f"{result.one_step.windows} windows of {result.model.n_steps_input} + 1 frames",
    ]
    if result.rollout_limit is not None:
        parts.append(f"rollouts of {result.rollout_limit} steps at most")
    return ", ".join(parts)


def _trajectories(count: int) -> str:
    return f"{count} {'trajectory' if count == 1 else 'trajectories'}"


def _references(result: Result) -> list[Row]:
    """Published figures of the dataset, where the result is of the original data under the protocol they resemble."""
    card = _card(result)
    if result.protocol.name != REFERENCE_PROTOCOL or result.rollout_limit is not None or card is None:
        return []
    by_model: dict[tuple[str, str], list[ReferenceRow]] = {}
    for figure in references_for(result.dataset, card):
        by_model.setdefault((figure.table, figure.model), []).append(figure)
    rows = []
    for (table, model), figures in by_model.items():
        values: dict[str, float | str] = {f.quantity: f.shown if f.is_bound else f.value for f in figures}
        taints = dict.fromkeys(reason for figure in figures for reason in figure.reasons)
        windows = {key.removeprefix("rollout "): value for key, value in values.items() if key != "one_step"}
        rows.append(
            Row(
                name=model,
                kind="reference",
                rank=None,
                tied=False,
                results=(),
                headline=values.get("one_step", "-"),
                seed_values=(),
                windows=windows,
                taints=tuple(taints),
                source=f"{table}, {figures[0].url}",
            )
        )
    return sorted(rows, key=_by_headline)


def _notes(entries: Sequence[BoardEntry], rows: Sequence[Row]) -> tuple[str, ...]:
    notes = []
    first = entries[0].result
    count = len(first.trajectories)
    if count < LEAST_TRAJECTORIES:
        notes.append(f"no interval: {_trajectories(count)}, {LEAST_TRAJECTORIES} are needed")
    for name in BASELINES:
        held = [e for e in entries if e.result.model.kind == "baseline" and e.result.model.name == name]
        if not held:
            notes.append(f"{name} is missing; add it: {_command(first, name)}")
        elif not any(entry.status == "recomputed" for entry in held):
            notes.append(f"{name} is self-reported; have it scored again: {_command(first, name)}")
    for scores, what in ((first.one_step, "one-step entries"), (first.rollout, "rollout entries")):
        if scores.flat:
            counted = "scored" if first.protocol.flat == "scored" else "left out of means and medians"
            notes.append(f"{scores.flat_share:.1%} of the {what} are flat (their target hardly varies): {counted}")
    for row in rows:
        bad = sum(result.one_step.nonfinite + result.rollout.nonfinite for result in row.results)
        if bad:
            notes.append(f"{row.name}: {bad} predicted entries are NaN or infinite; each scores infinity")
    names = [row.name for row in rows if row.kind in ("recomputed", "self-reported") and len(row.results) == 1]
    for row_name in dict.fromkeys(names):
        if names.count(row_name) > 1:
            notes.append(f"{row_name}: {names.count(row_name)} rows, of different arguments, statuses or equal seeds")
    if any(row.kind == "reference" for row in rows):
        notes.append("published figures were not computed by this protocol's code: compare with care, see their marks")
    return tuple(notes)


def _command(result: Result, name: str) -> str:
    data, limit = result.dataset, result.rollout_limit
    limited = "" if limit is None else f" --rollout-steps {limit}"
    return (
        f"wellkit evaluate {name} --dataset {data.name} --data DIR --split {data.split} --protocol "
        f"{result.protocol.name} --steps-input {result.model.n_steps_input}{limited} --out {name}.json && "
        f"wellkit leaderboard add {name}.json --board BOARD --data DIR"
    )
