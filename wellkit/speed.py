"""How fast a dataset loads on this machine, beside what the machine itself can hand over.

Every way of loading takes turns with `preadv` on the same random windows (`wellkit.readers.roofline`), so that shares
hold on a machine that others use too; figures are medians of the turns.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from wellkit.datasets.well import WellDataset
from wellkit.errors import ArgumentError
from wellkit.frameworks import require
from wellkit.loaders.ways import Items, ThreadLoader, TorchLoader, Way
from wellkit.readers.roofline import Roofline, StoredWindow, drop_from_cache, stored_window
from wellkit.readers.workers import usable_cores
from wellkit.statistics import find_split
from wellkit.storage import locate

Cache = Literal["warm", "cold"]
Progress = Callable[[int, int], None]
"""Called with (done, total), in turns."""

ROUNDS = 5
POOL_BYTES = 1 << 30  # stored bytes of the windows that are read again and again: far more than processors cache
_POOL_WINDOWS = 4096
_WATCH_SECONDS = 0.05


@dataclass(frozen=True)
class SpeedRow:
    """One way of loading.

    Attributes:
        way: "one by one" (dataset[i] in this process), "wellkit.DataLoader" or "torch DataLoader".
        workers: threads of wellkit's loader, processes of torch's; 0 loads in the caller.
        cache: "warm": the windows were read before; "cold": the page cache was emptied of the shards before each
            turn, and no frame is read twice in it.
        samples_per_second: median of the turns.
        megabytes_per_second: that, times the bytes of a sample's input and output fields as delivered, in 10^6.
        roofline_share: samples/s over those of preadv, median of the turns; None where the bytes' places are unknown.
        bytes_read_per_needed: warm: bytes that system calls read (`rchar`) over stored bytes needed, at least 1, since
            mapped bytes are seen by no counter and count as needed. Cold: bytes fetched from storage, mapped or not
            and read-ahead included (`read_bytes`), over stored bytes needed. None where it cannot be known.
        peak_memory: anonymous resident memory (RssAnon) of this process, bytes, the largest seen; what earlier ways
            left behind is part of it.
        worker_memory: the same of all worker processes together; None without any.
        samples: how many were read.
    """

    way: str
    workers: int
    cache: Cache
    samples_per_second: float
    megabytes_per_second: float
    roofline_share: float | None
    bytes_read_per_needed: float | None
    peak_memory: int | None
    worker_memory: int | None
    samples: int


@dataclass(frozen=True)
class SpeedReport:
    """What `measure_speed` found.

    Attributes:
        location, split: what was read; split is None for a bare folder of shards.
        shards, windows: how many there are.
        batch_size, n_steps_input, n_steps_output: how it was read.
        normalized: whether fields were z-scored; without a stats.yaml they were not.
        sample_bytes: of a sample's input and output fields.
        stored_bytes: bytes needed of a window as stored, as a mean; None where unknown.
        pool_warm, pool_cold: how many different windows were read; 0: none.
        cores: processor cores this process may use.
        roofline: samples/s of preadv by cache; empty where the bytes' places are unknown.
        roofline_read_per_needed: what preadv read, counted as in `SpeedRow.bytes_read_per_needed`.
        rows: one a way and cache.
        notes: what to know when reading the figures.
    """

    location: str
    split: str | None
    shards: int
    windows: int
    batch_size: int
    n_steps_input: int
    n_steps_output: int
    normalized: bool
    sample_bytes: int
    stored_bytes: float | None
    pool_warm: int
    pool_cold: int
    cores: int
    roofline: dict[Cache, float]
    roofline_read_per_needed: dict[Cache, float]
    rows: tuple[SpeedRow, ...]
    notes: tuple[str, ...]

    def to_mapping(self) -> dict[str, Any]:
        """Plain numbers, strings, lists and dicts."""
        return asdict(self)


def measure_speed(
    location: str | os.PathLike[str],
    split: str = "train",
    *,
    batch_size: int = 8,
    n_steps_input: int = 4,
    n_steps_output: int = 1,
    workers: Sequence[int] = (0, 1, 2, 4),
    seconds: float = 2.0,
    cold: bool = False,
    torch: bool = False,
    seed: int = 0,
    progress: Progress | None = None,
) -> SpeedReport:
    """Time random windows of one split, z-scored where the dataset has statistics.

    Args:
        location: the dataset's folder, or a folder of shards; local or a URL.
        split: train, valid or test; a bare folder of shards is taken as it is.
        batch_size: samples in a batch of the loaders.
        n_steps_input, n_steps_output: steps of a window.
        workers: threads, and worker processes, to try.
        seconds: how long each way is timed, all turns together; warming up comes on top.
        cold: also measure with the page cache emptied of the shards.
        torch: also measure torch's DataLoader over the dataset; samples are then torch tensors throughout.
        seed: of the choice of windows.

    Raises:
        ArgumentError: a number makes no sense, or `cold` with shards that are not local.
        MissingDependencyError: `torch` without torch.
        WellkitError: as `WellDataset`.
    """
    if batch_size < 1:
        raise ArgumentError(f"batch_size={batch_size}; give a whole number from 1 up")
    if not seconds > 0:
        raise ArgumentError(f"seconds={seconds}; give a time above 0")
    if not workers or min(workers) < 0:
        raise ArgumentError(f"workers={list(workers)}; give numbers of workers from 0 up, such as 0,1,2,4")
    if torch:
        require("torch", extra="torch", purpose="measuring torch's DataLoader")
    place = find_split(location, split)
    normalized = locate(place.statistics).exists()
    dataset = WellDataset(
        path=place.statistics.rpartition("/")[0] or "/",
        well_split_name=place.split,
        normalization_path=place.statistics,
        use_normalization=normalized,
        n_steps_input=n_steps_input,
        n_steps_output=n_steps_output,
        framework="torch" if torch else "numpy",
        errata="keep",
    )
    if batch_size > len(dataset):
        raise ArgumentError(f"batch_size={batch_size}: {place.shards[0]} and others hold {len(dataset)} windows in all")
    if cold and any("://" in path for path in dataset.files_paths):
        raise ArgumentError(f"{location}: cold reads can be measured of local shards only")
    notes = [] if normalized else [f"there is no {place.statistics}: fields were not normalized"]
    session = _Session(dataset, batch_size, seconds, np.random.default_rng([seed, len(dataset)]))
    if not session.knows_bytes:
        notes.append(
            "there is no roofline to compare with: the index cannot place every byte (shards are remote, Zarr, or "
            "hold arrays that only libhdf5 reads), or windows lie in the index itself"
        )
    kinds: list[tuple[type[Items] | type[ThreadLoader] | type[TorchLoader], int]] = [(Items, 0)]
    kinds += [(ThreadLoader, count) for count in workers]
    kinds += [(TorchLoader, count) for count in workers if torch]
    caches: list[Cache] = ["warm", "cold"] if cold else ["warm"]
    rows: list[SpeedRow] = []
    total = len(kinds) * len(caches) * ROUNDS

    def tell(turns: int) -> None:
        if progress is not None:
            progress(len(rows) * ROUNDS + turns, total)

    for kind, count in kinds:
        way = kind(dataset, count)
        try:
            for cache in caches:
                rows.append(session.measure(way, cache, tell))
        finally:
            way.close()
    if any(row.cache == "cold" and row.bytes_read_per_needed == 0 for row in rows):
        notes.append("cold: nothing came from storage: this file system keeps its pages in memory")
    dataset.close()
    return SpeedReport(
        location=os.fspath(location),
        split=place.split,
        shards=len(dataset.files_paths),
        windows=len(dataset),
        batch_size=batch_size,
        n_steps_input=n_steps_input,
        n_steps_output=n_steps_output,
        normalized=normalized,
        sample_bytes=session.sample_bytes,
        stored_bytes=session.stored_bytes,
        pool_warm=len(session.pools["warm"]),
        pool_cold=len(session.pools["cold"]) if cold else 0,
        cores=usable_cores(),
        roofline={cache: statistics.median(found) for cache, found in session.roofline.items() if found},
        roofline_read_per_needed={cache: statistics.median(r) for cache, r in session.roofline_read.items() if r},
        rows=tuple(rows),
        notes=tuple(notes),
    )


class _Session:
    """The windows of one report, and how ways are timed on them."""

    def __init__(self, dataset: WellDataset, batch_size: int, seconds: float, rng: np.random.Generator) -> None:
        self._dataset = dataset
        self._batch_size = batch_size
        self._turn_seconds = seconds / ROUNDS
        first = dataset[0]
        self.sample_bytes = sum(int(first[key].nbytes) for key in ("input_fields", "output_fields") if key in first)
        size = min(_POOL_WINDOWS, max(batch_size, POOL_BYTES // max(1, self.sample_bytes)))
        self.pools: dict[Cache, np.ndarray] = {
            "warm": rng.permutation(len(dataset))[:size],
            "cold": rng.permutation(_disjoint(dataset))[:size],
        }
        self._stored: dict[int, StoredWindow] = {}
        found = {index: self._find(index) for pool in self.pools.values() for index in pool.tolist()}
        # A window without bytes of its own lies in the index (tiny arrays), or was never written.
        self._stored = {index: window for index, window in found.items() if window is not None and window.needed}
        self.knows_bytes = len(self._stored) == len(found)
        self.stored_bytes: float | None = None
        self.roofline: dict[Cache, list[float]] = {"warm": [], "cold": []}
        self.roofline_read: dict[Cache, list[float]] = {"warm": [], "cold": []}
        self._preadv = Roofline(self._stored.values())
        if self.knows_bytes:
            self.stored_bytes = float(np.mean([window.needed for window in self._stored.values()]))
            self._preadv.read([self._stored[index] for index in self.pools["warm"].tolist()])

    def _find(self, index: int) -> StoredWindow | None:
        window, metadata = self._dataset._place(index)
        request = self._dataset._assembler(metadata.file_idx).request(window)
        if request is None or "://" in request.path:  # the machine's own limit is that of its disks and memory
            return None
        if any(plan.array.files is not None for plan in request.fields):  # bytes that lie in many files
            return None
        return stored_window(request, self._dataset.metadata.spatial_resolution)

    def _batches(self, cache: Cache, count: int, turn: int) -> list[list[int]]:
        """`count` batches of the pool, every turn from another place on."""
        size = self._batch_size
        pool = self.pools[cache]
        numbers = (np.arange(count * size) + turn * len(pool) // ROUNDS) % len(pool)
        indices = pool[numbers if cache == "warm" else numbers[: len(pool)]].tolist()
        return [indices[first : first + size] for first in range(0, len(indices), size)]

    def _forget(self, cache: Cache) -> None:
        if cache == "cold":
            drop_from_cache(self._dataset.files_paths)

    def measure(self, way: Way, cache: Cache, progress: Callable[[int], None]) -> SpeedRow:
        """Warm up, then turns of the way and of preadv."""
        least = 2 * max(1, way.workers)
        count = least
        for _ in range(2):  # the first pass starts workers, compiles and opens files; the second says how fast it is
            self._forget(cache)
            began = time.perf_counter()
            way.read(self._batches(cache, least, 0), lambda: None)
            count = max(least, int(least * self._turn_seconds / (time.perf_counter() - began)))
        memory = _MemoryWatch(way)
        speeds, shares, amounts, needed, samples = [], [], 0, 0.0, 0
        counts_bytes = self.knows_bytes
        for turn in range(ROUNDS):
            batches = self._batches(cache, count, turn)
            indices = [index for batch in batches for index in batch]
            preadv = self._time_preadv(cache, indices) if self.knows_bytes else None
            self._forget(cache)
            before = _bytes_read(cache, way.processes())
            began = time.perf_counter()
            way.read(batches, memory.look)
            speeds.append(len(indices) / (time.perf_counter() - began))
            after = _bytes_read(cache, way.processes())
            memory.look(now=True)
            samples += len(indices)
            if preadv is not None:
                self.roofline[cache].append(preadv)
                shares.append(speeds[-1] / preadv)
                needed += sum(self._stored[index].needed for index in indices)
            if before is None or after is None:
                counts_bytes = False
            else:
                amounts += after - before
            progress(turn + 1)
        ratio = amounts / needed if counts_bytes and needed else None
        speed = statistics.median(speeds)
        return SpeedRow(
            way=way.name,
            workers=way.workers,
            cache=cache,
            samples_per_second=speed,
            megabytes_per_second=speed * self.sample_bytes / 1e6,
            roofline_share=statistics.median(shares) if shares else None,
            bytes_read_per_needed=ratio if ratio is None or cache == "cold" else max(1.0, ratio),
            peak_memory=memory.own,
            worker_memory=memory.of_workers,
            samples=samples,
        )

    def _time_preadv(self, cache: Cache, indices: Sequence[int]) -> float:
        """Samples/s, on as many of the windows as a quarter of the way's time allows, at least 16."""
        known = self.roofline[cache]
        enough = int(statistics.median(known) * self._turn_seconds / 4) if known else 16
        windows = [self._stored[index] for index in indices[: max(16, enough)]]
        self._forget(cache)
        before = _bytes_read(cache)
        began = time.perf_counter()
        self._preadv.read(windows)
        elapsed = time.perf_counter() - began
        after = _bytes_read(cache)
        if before is not None and after is not None:
            self.roofline_read[cache].append((after - before) / sum(window.needed for window in windows))
        return len(windows) / elapsed


def _disjoint(dataset: WellDataset) -> np.ndarray:
    """Windows that share no frame, in order."""
    found, first = [], 0
    n_steps = dataset.n_steps_input + dataset.n_steps_output
    of_files = zip(dataset.metadata.n_trajectories_per_file, dataset.n_windows_per_trajectory, strict=True)
    for trajectories, windows in of_files:
        starts = first + windows * np.arange(trajectories)[:, None] + np.arange(0, windows, n_steps)
        found.append(starts.reshape(-1))
        first += trajectories * windows
    return np.concatenate(found)


class _MemoryWatch:
    """The largest anonymous memory seen of this process, and of all workers together."""

    def __init__(self, way: Way) -> None:
        self._way = way
        self._last = 0.0
        self.own: int | None = None
        self.of_workers: int | None = None

    def look(self, *, now: bool = False) -> None:
        """Look, if it was not done just before."""
        moment = time.perf_counter()
        if not now and moment - self._last < _WATCH_SECONDS:
            return
        self._last = moment
        self.own = _larger(self.own, anonymous_memory())
        found = [anonymous_memory(process) for process in self._way.processes()]
        if found and None not in found:
            self.of_workers = _larger(self.of_workers, sum(part for part in found if part is not None))


def _larger(before: int | None, now: int | None) -> int | None:
    return before if now is None else max(now, before or 0)


def anonymous_memory(process: int | None = None) -> int | None:
    """RssAnon, bytes, of a process, this one by default; None where the system does not tell."""
    found = _proc_numbers(process, "status").get("RssAnon")
    return None if found is None else found * 1024


def _bytes_read(cache: Cache, workers: Sequence[int] = ()) -> int | None:
    """Bytes read so far by this process and `workers`; cold: fetched from storage."""
    key = "rchar" if cache == "warm" else "read_bytes"
    found = [_proc_numbers(process, "io").get(key) for process in (None, *workers)]
    return None if None in found else sum(part for part in found if part is not None)


def _proc_numbers(process: int | None, name: str) -> dict[str, int]:
    """The numbers in /proc/PROCESS/NAME by key; none where there is no such file."""
    try:
        with open(f"/proc/{process or 'self'}/{name}", encoding="utf-8") as file:
            lines = [line.split() for line in file]
    except OSError:
        return {}
    return {words[0].rstrip(":"): int(words[1]) for words in lines if len(words) > 1 and words[1].isdigit()}


__all__ = ["SpeedReport", "SpeedRow", "anonymous_memory", "measure_speed"]
