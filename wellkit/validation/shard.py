"""One shard: its header, its small arrays, and then every frame once. Plain data in, plain data out."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from wellkit.datasets.opening import open_shards
from wellkit.errors import FormatError, ShardError, WellkitError
from wellkit.formats.well import FieldLayout, WellLayout, parse_layout
from wellkit.index.model import ShardIndex
from wellkit.index.safely import TIMEOUT, Indexer
from wellkit.readers.indexed import IndexedReader
from wellkit.readers.protocol import ShardReader
from wellkit.scanning.blocks import FRAME_BUDGET, Block, FieldWork, field_work
from wellkit.scanning.frames import FrameSeries
from wellkit.schemas.card import SimulationCard
from wellkit.schemas.validation import Finding
from wellkit.statistics import FieldTotals
from wellkit.validation import against_card, headers
from wellkit.validation.codes import Where, finding
from wellkit.validation.series import Judgement, judge, runs

_INLINE = 4 << 10  # bytes
_ASYMMETRY = 1e-4  # of the largest value of a frame


@dataclass(frozen=True)
class Options:
    """What is looked at, and how much it may take.

    Attributes:
        data: whether values of fields are read.
        nan_fields: fields in which NaN mark points outside the domain, beside those that the card declares.
        timeout: seconds that parsing a shard's header may take.
        budget: bytes of frames that a thread holds at a time, where chunks ask for more than little.
    """

    data: bool = True
    nan_fields: tuple[str, ...] = ()
    timeout: float = TIMEOUT
    budget: int = FRAME_BUDGET


@dataclass(frozen=True)
class ShardJob:
    """One shard to look at: where it is, what it is called in reports, and what it is held against."""

    location: str
    split: str
    name: str
    card: SimulationCard | None
    options: Options

    @property
    def is_local(self) -> bool:
        """Whether it is an HDF5 file of this machine's own."""
        return "://" not in self.location and not self.location.rstrip("/").endswith(".zarr")


@dataclass
class Trajectory:
    """What tells one trajectory of a field from others.

    Attributes:
        hashes: uint64, axis (frame).
        quiet: bool, axis (frame): frames that others may well be equal to.
        rms: float64, axis (component).
    """

    hashes: np.ndarray
    quiet: np.ndarray
    rms: np.ndarray


@dataclass
class ShardResult:
    """What was found of one shard. Plain data: goes from process to process.

    Attributes:
        layout: None where it could not be parsed.
        nbytes: of the file.
        nominal: decoded bytes of its fields.
        trajectories: by field that varies in time, by number.
    """

    split: str
    name: str
    findings: list[Finding] = field(default_factory=list)
    layout: WellLayout | None = None
    nbytes: int = 0
    nominal: int = 0
    totals: FieldTotals = field(default_factory=FieldTotals)
    trajectories: dict[str, dict[int, Trajectory]] = field(default_factory=dict)

    def add(self, found: Finding) -> None:
        """Note a finding."""
        self.findings.append(found)


class Parser(Protocol):
    """What parses shards elsewhere than in this process: `Indexer`, or one that several threads share."""

    def index(self, path: str) -> ShardIndex:
        """See `Indexer.index`."""
        ...

    def read(self, where: str, name: str, selection: Sequence[int | slice]) -> np.ndarray:
        """See `Indexer.read`."""
        ...


class SafeReader(IndexedReader):
    """As `IndexedReader`, with a child process where only libhdf5 can read: this one never opens the file with it."""

    def __init__(self, location: str, index: ShardIndex, indexer: Parser) -> None:
        super().__init__(location, index)
        self._indexer = indexer

    def read(self, name: str, selection: tuple[int | slice, ...] = ()) -> np.ndarray:
        """`selection` of the array at path `name`; a new array. Raises ShardError."""
        array = self.array(name)
        if array.layout == "inline":
            return np.array(array.inline_values()[selection])
        return self._indexer.read(self.location, name, selection)


class ShardCheck:
    """One shard that is being looked at.

    Args:
        indexer: parses it, and reads what only libhdf5 can.
    """

    def __init__(self, job: ShardJob, indexer: Parser) -> None:
        self.job = job
        self.result = ShardResult(job.split, job.name)
        self._place: Where = {"split": job.split, "shard": job.name}
        self._reader: ShardReader | None = None
        self._frozen: dict[int, list[tuple[FieldLayout, FrameSeries]]] = {}
        self.work: list[FieldWork] = []
        try:
            self._open(indexer)
        except WellkitError as error:
            self._fail(error)
        except MemoryError:
            self.result.add(finding("unreadable", "its header asks for more memory than there is", self._place))

    def _fail(self, error: WellkitError) -> None:
        code = "format" if isinstance(error, FormatError) else "unreadable"
        told = headers.reason_of(error, self.job.location)
        self.result.add(finding(code, told, self._place))
        self.work = []

    def _open(self, indexer: Parser) -> None:
        job, result = self.job, self.result
        if job.is_local:
            if os.path.isfile(job.location):
                result.nbytes = os.path.getsize(job.location)
            index = indexer.index(job.location)
            result.nbytes = index.size
            result.findings += headers.check_arrays(index, job.split, job.name)
            self._reader = SafeReader(job.location, index, indexer)
            layout = parse_layout(self._reader)
        else:
            (self._reader,), (layout,) = open_shards([job.location], None)
        headers.check_text(layout)
        result.layout = layout
        reader = self._reader
        split, name, card = job.split, job.name, job.card
        result.findings += headers.check_values(reader, layout, split, name)
        applies = card is not None and against_card.applies(card, layout)
        result.findings += headers.check_evenness(
            reader,
            layout,
            split,
            name,
            even_axes=not applies,
            even_time=card is None or (card.time.spacing is None and not card.time.variable),
        )
        if card is not None and applies:
            result.findings += against_card.check_shard(reader, layout, card, split, name)
        work = field_work(reader, layout)
        result.nominal = sum(item.nbytes for item in work)
        self.work = work if job.options.data else []

    def look(self, work: FieldWork) -> list[tuple[int, FrameSeries, Judgement, list[Finding]]]:
        """Read some trajectories of a field; for several threads at once.

        Raises:
            WellkitError: the shard cannot be read any more.
        """
        watch = _SymmetryWatch(work.field, work.layout.n_spatial_dims)
        found = []
        allowed = self._nan_allowed(work.field.name)
        try:
            scanned = work.scan(budget=self.job.options.budget, observe=watch.see if watch.sign else None)
        except MemoryError as error:
            what = f"{self.job.location}: field {work.field.name!r} asks for more memory than there is"
            raise ShardError(f"{what}; take a smaller --frame-budget, or fewer --jobs") from error
        for trajectory, series in zip(work.trajectories, scanned, strict=True):
            verdict = judge(series, nan_allowed=allowed)
            place = self._place.copy()
            place["field"] = work.field.name
            place["trajectory"] = trajectory if work.field.sample_varying else None
            timed = work.field.time_varying
            told = [
                finding(odd.code, odd.message, place, frames=odd.frames if timed else None) for odd in verdict.oddities
            ]
            for run, message in watch.findings(trajectory):
                told.append(finding("asymmetric-tensor", message, place, frames=run if timed else None))
            found.append((trajectory, series, verdict, told))
        return found

    def _nan_allowed(self, name: str) -> bool:
        declared = self.job.card.field(name) if self.job.card is not None else None
        return name in self.job.options.nan_fields or (declared is not None and declared.nan_mask is not None)

    def take(self, work: FieldWork, found: list[tuple[int, FrameSeries, Judgement, list[Finding]]]) -> None:
        """Note what `look` found; in the order of `work`, by one thread."""
        for trajectory, series, verdict, told in found:
            self.result.findings += told
            self.result.totals.add(work, series)
            if work.field.time_varying and work.field.sample_varying:
                one = Trajectory(series.hashes, verdict.quiet, series.states.over_frames().rms)
                self.result.trajectories.setdefault(work.field.name, {})[trajectory] = one
            if verdict.is_frozen and work.field.time_varying:
                self._frozen.setdefault(trajectory, []).append((work.field, series))

    def finish(self, error: WellkitError | None = None) -> ShardResult:
        """What was found; with what only all fields together tell."""
        if error is not None:
            self._fail(error)
        if self._reader is not None:
            self._reader.close()
        if self.result.layout is not None and error is None:
            self.result.findings += self._still()
        return self.result

    def _still(self) -> Iterator[Finding]:
        """Trajectories, or fields of them, that never change."""
        assert self.result.layout is not None
        varying = [part for part in self.result.layout.fields if part.time_varying and part.sample_varying]
        for trajectory, still in self._frozen.items():
            if len(still) == len(varying) and self.result.layout.n_steps > 1:
                told = f"all {self.result.layout.n_steps} frames of every field are the same, bit by bit"
                yield finding("frozen-trajectory", told, self._place, trajectory=trajectory)
                continue
            for part, series in still:
                uniform = bool((series.lowest == series.highest).all())
                code = "constant-field" if uniform else "frozen-field"
                told = "is one value everywhere, always" if uniform else "never changes, though other fields do"
                where = trajectory if part.sample_varying else None
                yield finding(code, told, self._place, trajectory=where, field=part.name)


def new_indexer(options: Options) -> Indexer:
    """What parses headers. Only what is small for certain is inlined: the index of the rest tells what was written."""
    return Indexer(options.timeout, _INLINE)


def check_shard(job: ShardJob) -> ShardResult:
    """One shard from beginning to end, in this thread. What runs on the workers of a cluster."""
    with new_indexer(job.options) as indexer:
        check = ShardCheck(job, indexer)
        try:
            for work in check.work:
                check.take(work, check.look(work))
        except WellkitError as error:
            return check.finish(error)
        return check.finish()


class _SymmetryWatch:
    """Looks whether tensors are as symmetric as their attributes say."""

    def __init__(self, part: FieldLayout, n_dims: int) -> None:
        self.sign = 0 if part.order != 2 or n_dims < 2 else 1 if part.symmetric else -1 if part.antisymmetric else 0
        self._n_dims = n_dims
        self._wrong: dict[int, dict[int, float]] = {}

    def see(self, block: Block) -> None:
        """Take note of a block."""
        tensors = block.block.reshape(len(block.block), -1, self._n_dims, self._n_dims)
        with np.errstate(invalid="ignore", over="ignore"):
            off = np.abs(tensors - self.sign * np.swapaxes(tensors, -1, -2)).max(axis=(1, 2, 3))
            scale = np.abs(tensors).max(axis=(1, 2, 3))
            wrong = off > _ASYMMETRY * scale
        for frame in np.flatnonzero(wrong).tolist():
            known = self._wrong.setdefault(block.trajectory, {})
            known[block.first + frame] = max(known.get(block.first + frame, 0.0), float(off[frame]))

    def findings(self, trajectory: int) -> Iterator[tuple[tuple[int, int], str]]:
        """Frames, and what is wrong with them."""
        wrong = self._wrong.get(trajectory)
        if not wrong:
            return
        flags = np.zeros(max(wrong) + 1, bool)
        flags[list(wrong)] = True
        kind = "symmetric" if self.sign > 0 else "antisymmetric"
        for run in runs(flags):
            worst = max(wrong[frame] for frame in range(*run))
            yield run, f"the tensor is said to be {kind}, but components differ by up to {worst:.3g}"
