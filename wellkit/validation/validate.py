"""Validation of a tree: its shards, each read once, then what only all of them together tell."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime

from wellkit import __version__
from wellkit.errors import ArgumentError, DataNotFoundError, DataValueError, DocumentError
from wellkit.formats.statistics_file import statistics_hash
from wellkit.formats.well import WellLayout
from wellkit.readers.workers import usable_cores
from wellkit.scanning.blocks import FRAME_BUDGET
from wellkit.schemas.card import SimulationCard
from wellkit.schemas.erratum import SEVERITIES, Severity
from wellkit.schemas.statistics import Statistics
from wellkit.schemas.validation import Finding, SplitSummary, ValidationReport
from wellkit.statistics import FieldTotals
from wellkit.validation import tree
from wellkit.validation.against_card import applies
from wellkit.validation.codes import finding, printable
from wellkit.validation.discovery import Place, find_card, find_place, find_strays
from wellkit.validation.identity import find_duplicates
from wellkit.validation.running import run_here, run_on_cluster
from wellkit.validation.shard import Options, ShardJob, ShardResult

LISTED = 100  # findings of one code that a report lists
_TRAIN = "train"

Progress = Callable[[int, int], None]
"""Called with (bytes of shards done with, of all)."""


def validate(
    location: str | os.PathLike[str],
    *,
    splits: Sequence[str] | None = None,
    card: str | os.PathLike[str] | None = None,
    data: bool = True,
    nan_fields: Sequence[str] = (),
    jobs: int | None = None,
    scheduler: str | None = None,
    timeout: float = 60.0,
    frame_budget: int = FRAME_BUDGET,
    progress: Progress | None = None,
) -> ValidationReport:
    """Look for everything that can be wrong with a tree of shards. Reads every byte of it once.

    Args:
        location: a dataset's folder, the folder of a split, a bare folder of shards, one shard, a URL of these, or the
            name of a downloaded dataset.
        splits: only these.
        card: a card file, or the name of a dataset in the catalog. By default card.yaml beside the data, else the
            catalog's card of the folder's name.
        data: False looks at headers and small arrays only.
        nan_fields: fields in which NaN mark points outside the domain, beside those that the card declares.
        jobs: threads; the default is one for each core.
        scheduler: address of a Dask scheduler, whose workers see the same files and look at a shard each.
        timeout: seconds that parsing one shard's header may take, in a process of its own.
        frame_budget: bytes of frames that a thread holds where chunks are large; plain arrays take far less.
        progress: called with (bytes done, all bytes), as files.

    Raises:
        DataNotFoundError: there is nothing at `location`.
        DocumentError, UnknownDatasetError: the card that was asked for cannot be used, or is not there.
        ArgumentError: an argument makes no sense, or nothing answers at `scheduler`.
        MissingDependencyError: `scheduler` needs dask.distributed.

    What is wrong with the data is never raised: it is in the report.
    """
    started = time.monotonic()
    threads = usable_cores() if jobs is None else jobs
    if threads < 1 or timeout <= 0 or frame_budget < 1:
        raise ArgumentError(f"jobs={jobs}, timeout={timeout:g}, frame_budget={frame_budget}: all have to be above zero")
    place = _chosen(find_place(location), splits)
    findings = list(find_strays(place))
    try:
        known, source = find_card(place, card)
    except DocumentError as error:
        if card is not None:
            raise
        known, source = None, None
        findings.append(finding("bad-card", str(error)))
    options = Options(data, tuple(nan_fields), timeout, frame_budget)
    work = [
        ShardJob(_absolute(shard), split, place.relative(shard), known, options)
        for split, shards in place.shards.items()
        for shard in shards
    ]
    report = _Told(sum(_size(job) for job in work), progress)
    if scheduler is not None:
        results = list(run_on_cluster(work, scheduler, report.add))
    else:
        results = list(run_here(work, min(threads, max(1, 4 * len(work))), report.add))
    findings += (found for result in results for found in result.findings)
    findings += _together(place, results, known, card_wanted=not any(found.code == "bad-card" for found in findings))
    computed, told = _statistics(place, results, known, data=data)
    findings += told
    return _report(place, source, findings, results, computed, data=data, seconds=time.monotonic() - started)


class _Told:
    """Adds up what is done."""

    def __init__(self, total: int, progress: Progress | None) -> None:
        self._total, self._done, self._progress = total, 0, progress

    def add(self, nbytes: int) -> None:
        self._done += nbytes
        if self._progress is not None:
            self._progress(min(self._done, self._total), self._total)


def _absolute(location: str) -> str:
    """As other processes, with working folders of their own, find it."""
    return location if "://" in location else os.path.abspath(location)


def _size(job: ShardJob) -> int:
    return os.path.getsize(job.location) if job.is_local and os.path.isfile(job.location) else 0


def _chosen(place: Place, splits: Sequence[str] | None) -> Place:
    if splits is None:
        return place
    unknown = [split for split in splits if split not in place.shards]
    if unknown:
        there = ", ".join(name or "a bare folder of shards" for name in place.shards)
        raise DataNotFoundError(f"{place.root}: has no split {unknown[0]!r}; there is {there}")
    return Place(place.root, place.name, {split: place.shards[split] for split in splits}, place.statistics)


def _together(
    place: Place, results: Sequence[ShardResult], card: SimulationCard | None, *, card_wanted: bool
) -> Iterator[Finding]:
    yield from tree.check_alike(results)
    yield from tree.check_names(results)
    yield from tree.check_scales(results)
    yield from find_duplicates(results)
    if card is None and card_wanted:
        yield finding("no-card", f"no card is called {place.name!r}, and no card.yaml lies beside the data")
    first = _first_layout(results)
    if card is not None and first is not None and applies(card, first):
        yield from tree.check_counts(card, results, [split for split in place.shards if split])[0]


def _first_layout(results: Sequence[ShardResult]) -> WellLayout | None:
    return next((result.layout for result in results if result.layout is not None), None)


def _statistics(
    place: Place, results: Sequence[ShardResult], card: SimulationCard | None, *, data: bool
) -> tuple[dict[str, Statistics], list[Finding]]:
    """(as computed, by split; what is wrong with those that are recorded)."""
    found: list[Finding] = []
    first = _first_layout(results)
    if first is None:
        return {}, found
    shapes = {part.name: (first.n_spatial_dims,) * part.order for part in first.fields}
    constant = frozenset(part.name for part in first.fields if not part.time_varying)
    steps = max(result.layout.n_steps for result in results if result.layout is not None)
    if steps < 2:
        constant = frozenset(shapes)
    recorded = tree.read_statistics(place.statistics, shapes, constant)
    if isinstance(recorded, Finding):
        if recorded.code != "no-statistics" or "" not in place.shards:
            found.append(recorded)
        recorded = None
    else:
        found += tree.check_plausible(recorded, steps, "stats.yaml")
    computed = _computed(place, results, shapes) if data else {}
    if card is None or not applies(card, first):
        card = None
    elif card.statistics is not None:
        found += tree.check_plausible(card.statistics, steps, "the card")
    split = _TRAIN if _TRAIN in place.shards else "" if "" in place.shards else None
    if split is None or split not in computed:
        return computed, found
    told, complete = tree.check_counts(card, results, [split]) if card is not None and split else ([], {})
    if any(one.code == "incomplete" for one in told):
        if recorded is not None:
            found.append(finding("statistics-not-compared", "stats.yaml is that of the whole training split"))
        return computed, found
    if recorded is not None:
        found += tree.check_recorded(recorded, computed[split])
    if card is not None and complete.get(split):
        found += tree.check_card_statistics(card, computed[split])
    return computed, found


def _computed(
    place: Place, results: Sequence[ShardResult], shapes: dict[str, tuple[int, ...]]
) -> dict[str, Statistics]:
    """Statistics of each split whose shards could all be read and have the same fields."""
    computed = {}
    for split in place.shards:
        own = [result for result in results if result.split == split]
        readable = all(result.layout is not None and set(result.totals.states) == set(shapes) for result in own)
        if not own or not readable:
            continue
        totals = FieldTotals()
        for result in own:
            totals.merge(result.totals)
        try:
            assert own[0].layout is not None
            computed[split] = totals.statistics(own[0].layout)
        except DataValueError:
            pass  # nothing but NaN, which is a finding of its own
    return computed


def _report(
    place: Place,
    source: str | None,
    findings: Sequence[Finding],
    results: Sequence[ShardResult],
    computed: dict[str, Statistics],
    *,
    data: bool,
    seconds: float,
) -> ValidationReport:
    worst_first = sorted(findings, key=lambda found: -SEVERITIES.index(found.severity))
    listed, per_code = [], Counter[str]()
    for found in worst_first:
        per_code[found.code] += 1
        if per_code[found.code] <= LISTED:
            listed.append(found)
    counts: dict[Severity, int] = dict.fromkeys(reversed(SEVERITIES), 0)
    for found in findings:
        counts[found.severity] += 1
    first = _first_layout(results)
    reference = computed.get(_TRAIN) or computed.get("")
    return ValidationReport(
        schema_=ValidationReport.schema_name(),
        location=printable(place.root),
        dataset=first.dataset_name if first is not None else None,
        card=None if source is None else printable(source),
        verdict="fail" if counts["error"] else "pass",
        counts=counts,
        findings=tuple(listed),
        unlisted={code: count - LISTED for code, count in per_code.items() if count > LISTED},
        splits={split: _summary([result for result in results if result.split == split]) for split in place.shards},
        statistics=computed,
        statistics_sha256=statistics_hash(reference) if reference is not None else None,
        data_checked=data,
        seconds=round(seconds, 3),
        bytes_read=sum(result.nominal for result in results) if data else 0,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        wellkit_version=__version__,
    )


def _summary(results: Sequence[ShardResult]) -> SplitSummary:
    layouts = [result.layout for result in results if result.layout is not None]
    return SplitSummary(
        shards=len(results),
        trajectories=sum(layout.n_trajectories for layout in layouts),
        frames=sum(layout.n_trajectories * layout.n_steps for layout in layouts),
        bytes=sum(result.nbytes for result in results),
    )
