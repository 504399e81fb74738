"""A leaderboard's table as terminal tables, as Markdown and as JSON."""

from __future__ import annotations

import html
import math
import re
from string import ascii_lowercase
from typing import Any

from wellkit.benchmark.standings import Row, Table
from wellkit.cli.output import make_table, stdout_console

NO_NUMBER = "-"
_WIDE = 150
_SECOND = ("vs persistence", "parameters", "training")


def as_tables(table: Table, *, width: int | None = None) -> list[Any]:
    """Rich renderables: the rows, the published figures among them with their footnotes, the notes.

    Args:
        width: characters in a line; below 150 the rows are shown in two parts. None: those of stdout.
    """
    from rich.text import Text

    columns = _columns(table)
    marks = _marks(table)
    title = Text(f"{table.title}\n", "bold").append(_caption(table), "not bold dim")
    parts = [columns]
    if (stdout_console().width if width is None else width) < _WIDE:
        parts = [[column for column in columns if column[0] not in _SECOND]]
        parts.append([column for column in columns if column[0] in ("rank", "model", *_SECOND)])
    shown: list[Any] = []
    for number, part in enumerate(parts):
        rows = [row for row in table.rows if number == 0 or row.kind != "reference"]
        shown.append(_rich_table(title if number == 0 else None, part, rows, marks))
    lines = [*_footnotes(table, marks), *(f"note: {note}" for note in table.notes)]
    return [*shown, Text("\n".join(lines) + "\n", "dim")] if lines else shown


def _rich_table(title: Any, columns: list[tuple[str, str, Any]], rows: list[Row], marks: dict[str, str]) -> Any:
    from rich.text import Text

    shown = make_table("", [(header, justify) for header, justify, _ in columns])
    shown.title = title
    for column in shown.columns:
        column.no_wrap = column.header not in ("model", "vs persistence")
        column.max_width = 26 if column.header == "model" else None
    styles = {"baseline": "italic", "self-reported": "dim", "reference": "dim", "recomputed": ""}
    for number, row in enumerate(rows):
        if number and row.kind == "reference" and rows[number - 1].kind != "reference":
            shown.add_section()
        shown.add_row(*(Text(cell(row, marks)) for _, _, cell in columns), style=styles[row.kind])
    return shown


def as_markdown(table: Table) -> str:
    """A section with a GitHub table, footnotes and notes. Nothing in a name is markup."""
    columns = _columns(table)
    marks = _marks(table)
    lines = [f"### {_escaped(table.title)}", "", _escaped(_caption(table)), ""]
    lines.append("| " + " | ".join(header for header, _, _ in columns) + " |")
    lines.append("|" + "|".join("---:" if justify == "right" else "---" for _, justify, _ in columns) + "|")
    for row in table.rows:
        lines.append("| " + " | ".join(_escaped(cell(row, marks)) for _, _, cell in columns) + " |")
    notes = [*map(_escaped, _footnotes(table, marks)), *_markdown_notes(table)]
    lines += ["", *(f"- {note}" for note in notes)] if notes else []
    return "\n".join(lines) + "\n"


def as_mapping(table: Table) -> dict[str, Any]:
    """Plain content for JSON."""
    return {
        "id": table.comparable_id,
        "title": table.title,
        "protocol": table.protocol.name,
        "headline": table.protocol.headline,
        "rows": [_row_mapping(row) for row in table.rows],
        "notes": list(table.notes),
    }


def _row_mapping(row: Row) -> dict[str, Any]:
    compared = row.against_persistence
    return {
        "model": row.name,
        "kind": row.kind,
        "rank": row.rank,
        "tied": row.tied,
        "headline": _number_or_text(row.headline),
        "seeds": [result.model.seed for result in row.results],
        "seed_values": [_number_or_text(value) for value in row.seed_values],
        "windows": {key: _number_or_text(value) for key, value in row.windows.items()},
        "against_persistence": None
        if compared is None
        else {
            "mean_difference": _number_or_text(compared.mean_difference),
            "ratio": _number_or_text(compared.ratio),
            "better": compared.better,
            "trajectories": compared.interval.trajectories,
            "strata": compared.interval.strata,
            "low": _number_or_text(compared.interval.low),
            "high": _number_or_text(compared.interval.high),
            "behind_from": compared.behind_from,
        },
        "parameters": row.results[0].model.parameters if row.results else None,
        "training_seconds": [result.model.training_seconds for result in row.results],
        "results": [result.id for result in row.results],
        "taints": list(row.taints),
        "source": row.source,
    }


def _number_or_text(value: float | str | None) -> float | str | None:
    """JSON has no word for infinity: "Infinity", as in result files."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")
    return value


def _caption(table: Table) -> str:
    headline = "mean over entries" if table.protocol.headline == "mean" else "median over trajectories"
    text = f"protocol {table.protocol.name}; VRMSE, lower is better: one step ({headline}), then rollout steps a:b"
    if not any(row.against_persistence is not None for row in table.rows):
        return text
    return (
        f"{text}; vs persistence: how many times better, difference [95 % interval], first rollout step that is worse"
    )


def _columns(table: Table) -> list[tuple[str, str, Any]]:
    """Header, side, and what a row has there (row, marks -> text)."""
    windows = list(dict.fromkeys(key for row in table.rows for key in row.windows))
    windows.sort(key=lambda key: [int(step) for step in key.split(":")])
    several = any(len(row.results) > 1 for row in table.rows)
    columns: list[tuple[str, str, Any]] = [
        ("rank", "right", lambda row, marks: _rank(row)),
        ("model", "left", lambda row, marks: row.name + _mark(row, marks)),
        ("one step", "right", lambda row, marks: _score(row.headline)),
    ]
    if several:
        columns.append(("seeds", "left", lambda row, marks: _seeds(row)))
    columns += [(key, "right", _window(key)) for key in windows]
    if any(row.against_persistence is not None for row in table.rows):
        columns.append(("vs persistence", "left", lambda row, marks: _against(row)))
    columns += [
        ("parameters", "right", lambda row, marks: _parameters(row)),
        ("training", "right", lambda row, marks: _training(row)),
        ("status", "left", lambda row, marks: "published" if row.kind == "reference" else row.kind),
    ]
    return columns


def _window(key: str) -> Any:
    return lambda row, marks: _score(row.windows[key]) if key in row.windows else NO_NUMBER


def _rank(row: Row) -> str:
    return NO_NUMBER if row.rank is None else f"{row.rank}{'=' if row.tied else ''}"


def _score(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.4g}"


def _seeds(row: Row) -> str:
    if len(row.results) < 2:
        return str(len(row.results)) if row.kind in ("recomputed", "self-reported") else NO_NUMBER
    return f"{len(row.results)}: {min(row.seed_values):.4g}-{max(row.seed_values):.4g}"


def _against(row: Row) -> str:
    """How many times better, the interval of the difference, and from which rollout step on it is worse."""
    found = row.against_persistence
    if found is None:
        return NO_NUMBER
    text = f"{found.ratio:.3g}x"
    interval = found.interval
    if interval.low is None or interval.high is None:
        text += f", better on {found.better} of {interval.trajectories}"
    else:
        text += f", {found.mean_difference:+.3g} [{interval.low:+.3g}, {interval.high:+.3g}]"
    return text if found.behind_from is None else f"{text}, behind at {found.behind_from}"


def _parameters(row: Row) -> str:
    count = row.results[0].model.parameters if row.results else 0
    return f"{count:,}" if count else NO_NUMBER


def _training(row: Row) -> str:
    """Mean over seeds."""
    told = [r.model.training_seconds for r in row.results if r.model.training_seconds is not None]
    if not told:
        return NO_NUMBER
    seconds = sum(told) / len(told)
    if seconds >= 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 60:.1f} min" if seconds >= 60 else f"{seconds:.0f} s"


def _marks(table: Table) -> dict[str, str]:
    """A letter for each taint of a table's published figures."""
    taints = list(dict.fromkeys(taint for row in table.rows for taint in row.taints))
    return {taint: _letters(number) for number, taint in enumerate(taints)}


def _letters(number: int) -> str:
    most = len(ascii_lowercase)
    return (_letters(number // most - 1) if number >= most else "") + ascii_lowercase[number % most]


def _mark(row: Row, marks: dict[str, str]) -> str:
    return f" [{','.join(sorted(marks[taint] for taint in row.taints))}]" if row.taints else ""


def _footnotes(table: Table, marks: dict[str, str]) -> list[str]:
    sources = dict.fromkeys(row.source for row in table.rows if row.source is not None)
    return [*(f"published: {source}" for source in sources), *(f"[{mark}] {taint}" for taint, mark in marks.items())]


def _markdown_notes(table: Table) -> list[str]:
    """Notes; the commands they end with as code, in which nothing is escaped."""
    parts = [note.partition(": wellkit ") for note in table.notes]
    return [f"{_escaped(said)}: `wellkit {told}`" if told else _escaped(said) for said, _, told in parts]


def _escaped(text: str) -> str:
    """Text as GitHub's Markdown shows it as it is: no HTML, no markup, no new cell or line."""
    plain = html.escape(" ".join(text.split()), quote=False)
    return re.sub(r"([\\`*_\[\]|~])", r"\\\1", plain)
