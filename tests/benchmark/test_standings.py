"""Standings: what stands in one table, in which row, with which rank, and what is said below."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest

from tests.benchmark.results import make_result
from tests.benchmark.test_leaderboard import recomputed
from wellkit.benchmark.pairing import compare
from wellkit.benchmark.standings import Table, narrowed, standings
from wellkit.schemas.board import BoardEntry
from wellkit.schemas.result import Result

MANY: dict[str, Any] = {"trajectories": (6, 6), "frames": (40, 40)}


def reported(result: Result) -> BoardEntry:
    return recomputed(result).model_copy(update={"verification": None})


def table_of(*entries: BoardEntry) -> Table:
    (table,) = standings(entries)
    return table


def order(table: Table) -> list[tuple[str, int | None, bool]]:
    return [(row.name, row.rank, row.tied) for row in table.rows]


def with_values(name: str, values: Sequence[float], **keys: Any) -> Result:
    """A result whose trajectories score these values one step ahead, all else made up."""
    made = make_result(name, trajectories=(len(values),), frames=(20,), **keys)
    changed = [
        each.model_copy(update={"one_step": {"u": value, "v": value}})
        for each, value in zip(made.trajectories, values, strict=True)
    ]
    one_step = made.one_step.model_copy(update={"mean": math.fsum(values) / len(values)})
    return made.model_copy(update={"trajectories": tuple(changed), "one_step": one_step})


def test_ranks_are_of_recomputed_rows_and_ties_are_ties() -> None:
    results = [make_result(name, quality=quality, **MANY) for name, quality in
               (("c", 0.3), ("a", 0.1), ("b", 0.301), ("persistence", 0.5), ("mean", 1.0))]  # fmt: skip
    better = make_result("cheat", quality=0.01, **MANY)
    table = table_of(*map(recomputed, results), reported(better))
    assert order(table)[0] == ("a", 1, False)
    assert sorted(order(table)[1:3]) == [("b", 2, True), ("c", 2, True)]
    assert order(table)[3:] == [("cheat", None, False), ("persistence", None, False), ("mean", None, False)]
    assert [row.kind for row in table.rows] == ["recomputed"] * 3 + ["self-reported"] + ["baseline"] * 2
    # the tied rows really cannot be told apart, the first can
    by_name = {result.model.name: result for result in results}
    tied, beaten = (compare([by_name[one]], [by_name["c"]]).interval for one in ("b", "a"))
    assert not tied.excludes_zero
    assert beaten.excludes_zero


def test_with_few_trajectories_every_single_one_must_be_better() -> None:
    a, b = with_values("a", [0.1, 0.2, 0.3]), with_values("b", [0.2, 0.3, 0.4])
    assert order(table_of(recomputed(b), recomputed(a))) == [("a", 1, False), ("b", 2, False)]
    b = with_values("b", [0.2, 0.3, 0.29])
    assert order(table_of(recomputed(b), recomputed(a))) == [("a", 1, True), ("b", 1, True)]
    one, other = with_values("a", [0.1]), with_values("b", [0.9])
    assert order(table_of(recomputed(other), recomputed(one))) == [("a", 1, True), ("b", 1, True)]


def test_better_is_not_transitive_and_ranks_say_how_many_are_better() -> None:
    # a beats c; b is told apart from neither.
    a, b, c = (with_values(n, v) for n, v in (("a", [0.1, 0.3]), ("b", [0.25, 0.2]), ("c", [0.2, 0.4])))
    assert order(table_of(*map(recomputed, (c, b, a)))) == [("a", 1, True), ("b", 1, True), ("c", 2, False)]


def test_infinity_is_last() -> None:
    results = [make_result(name, quality=0.2, nonfinite=broken, **MANY) for name, broken in
               (("a", [0]), ("b", []), ("c", [0, 1]), ("persistence", []))]  # fmt: skip
    table = table_of(*map(recomputed, results))
    assert [row[:2] for row in order(table)][:1] == [("b", 1)]
    assert {row[:2] for row in order(table)[1:3]} <= {("a", 2), ("c", 2), ("c", 3), ("a", 3)}
    for row in table.rows[1:3]:
        assert row.headline == math.inf
        assert row.against_persistence is not None
        assert not math.isnan(row.against_persistence.mean_difference)
    assert any(note.startswith("a: ") and "each scores infinity" in note for note in table.notes)


def test_seeds_make_one_row_and_are_no_trajectories() -> None:
    arguments = {"arguments": {"modes1": 16}}
    runs = [make_result("fno", quality=0.3 + 0.01 * s, seed=s, kind="network", model=arguments) for s in (2, 0, 1)]
    table = table_of(*map(recomputed, runs), recomputed(make_result("persistence", quality=0.5)))
    row = table.rows[0]
    assert [result.model.seed for result in row.results] == [0, 1, 2]
    assert row.seed_values == tuple(result.headline for result in row.results)
    assert row.headline == pytest.approx(sum(run.headline for run in runs) / 3)
    assert row.windows["1:5"] == pytest.approx(sum(run.rollout.windows["1:5"] for run in runs) / 3)
    assert row.against_persistence is not None
    assert row.against_persistence.interval.trajectories == 3


def test_what_is_no_seed_of_one_model_stands_by_itself() -> None:
    def run(draw: int, status: Any = recomputed, **keys: Any) -> BoardEntry:
        entry: BoardEntry = status(make_result("fno", draw=draw, kind="network", **keys))
        return entry

    assert len(table_of(run(0, seed=0), run(1, seed=0)).rows) == 2  # trained twice
    assert len(table_of(run(0), run(1)).rows) == 2  # seeds unknown
    assert len(table_of(run(0, seed=0), run(1, seed=1, model={"arguments": {"modes1": 8}})).rows) == 2
    table = table_of(run(0, seed=0), run(1, reported, seed=1))
    assert [row.kind for row in table.rows] == ["recomputed", "self-reported"]
    assert any(note.startswith("fno: 2 rows") for note in table.notes)


def test_what_cannot_be_compared_stands_apart() -> None:
    plain: dict[str, Any] = {"frames": (41, 41)}
    different = [
        make_result(**plain),
        make_result(data=1, **plain),
        make_result(generator="made up 2", **plain),
        make_result(protocol="well-2024", **plain),
        make_result(limit=20, **plain),
        make_result(n_steps_input=3, **plain),
    ]
    assert len(standings([recomputed(result) for result in different])) == 6
    assert len(standings([recomputed(different[0]), recomputed(make_result("unet", **plain))])) == 1


def test_one_persistence_whoever_scored_it() -> None:
    plain = make_result("persistence")
    with_predictions = make_result("persistence", model={"predictions_sha256": "p"})
    assert plain.id != with_predictions.id
    table = table_of(reported(plain), recomputed(with_predictions))
    (row,) = table.rows
    assert row.results == (with_predictions,)
    assert not any("persistence" in note for note in table.notes)


def test_notes() -> None:
    table = table_of(
        recomputed(make_result("fno", flat=0.3, limit=9)), reported(make_result("mean", flat=0.3, limit=9))
    )
    assert table.notes[0] == "no interval: 3 trajectories, 10 are needed"
    command = (
        "wellkit evaluate persistence --dataset box --data DIR --split test --protocol wellkit-1 --steps-input 4 "
        "--rollout-steps 9 --out persistence.json && wellkit leaderboard add persistence.json --board BOARD --data DIR"
    )
    assert f"persistence is missing; add it: {command}" in table.notes
    assert any(note.startswith("mean is self-reported; have it scored again: ") for note in table.notes)
    assert any("of the one-step entries are flat" in note and "left out of means" in note for note in table.notes)
    assert table.rows[0].against_persistence is None
    assert not any("interval" in note for note in table_of(recomputed(make_result(**MANY))).notes)


def test_titles() -> None:
    table = table_of(recomputed(make_result(limit=9)))
    assert table.title == (
        "box, generated by made up 1, test, 8x16, 3 trajectories, 65 windows of 4 + 1 frames, "
        "rollouts of 9 steps at most"
    )
    assert "box, data of one's own, test" in table_of(recomputed(make_result(generator=None))).title
    known = make_result(dataset="active_matter", generator=None, version="2")
    assert table_of(recomputed(known)).title.startswith("active_matter (version 2), original, test, 8x16")


def test_narrowed_tables_keep_the_ranks_of_all_rows() -> None:
    results = [make_result(name, quality=quality, **MANY) for name, quality in
               (("a", 0.1), ("b", 0.3), ("persistence", 0.5))]  # fmt: skip
    tables = standings([*map(recomputed, results), recomputed(make_result("b", dataset="other"))])
    assert len(tables) == 2
    first, _ = narrowed(tables, model="b")
    assert order(first) == [("b", 2, False), ("persistence", None, False)]
    assert [table.title.split(",")[0] for table in narrowed(tables, dataset="other")] == ["other"]
    assert narrowed(tables, model="a") == (narrowed(tables, dataset="box", model="a")[0],)
    assert narrowed(tables, protocol="well-2024") == ()
    assert narrowed(tables) == tables
