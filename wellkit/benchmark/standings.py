"""Who stands where: results of one data identity and protocol side by side, ranked as far as they can be told apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from wellkit.schemas.protocol import Protocol
from wellkit.schemas.result import Result

RowKind = Literal["recomputed", "self-reported", "baseline", "reference"]


@dataclass(frozen=True)
class Interval:
    """A 95 % interval of a mean difference.

    Attributes:
        low, high: its ends; None where there are fewer than 10 independent trajectories ("no interval").
        trajectories: how many were paired.
        strata: how many groups of equal parameters they were drawn within.
    """

    low: float | None
    high: float | None
    trajectories: int
    strata: int


@dataclass(frozen=True)
class Comparison:
    """A row against persistence, trajectory by trajectory.

    Attributes:
        mean_difference: of the trajectories' one-step scores, row minus persistence: negative is better.
        ratio: mean over trajectories of persistence's score over the row's.
        better: on how many trajectories the row is better.
        interval: of the mean difference.
        behind_from: first rollout step at which the row's score exceeds persistence's; None if it never does.
    """

    mean_difference: float
    ratio: float
    better: int
    interval: Interval
    behind_from: int | None


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
