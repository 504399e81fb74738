"""`wellkit.generate`: a dataset simulated here, on disk in The Well's own layout."""

from __future__ import annotations

import math
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.filesize import decimal

from wellkit import __version__
from wellkit.catalog.files import CARD_NAME, card_text, is_generated
from wellkit.errors import ArgumentError, StorageError
from wellkit.formats.hdf5_stream import storage_error
from wellkit.formats.well_writer import WellShardWriter, create_well_shard
from wellkit.generation import plan, registry
from wellkit.generation.generator import ParameterValue, Run, SimulationGenerator
from wellkit.generation.staging import staged_folder
from wellkit.generation.workers import simulate_all, usable_cores
from wellkit.integrity.describing import write_generated_manifest
from wellkit.schemas.card import Split
from wellkit.settings import data_dir
from wellkit.statistics import compute_statistics, write_statistics

Progress = Callable[[int, int], None]
_FLOAT_BYTES = 4
_SEEDS = 2**63  # every file records the seed as a 64-bit integer


@dataclass(frozen=True)
class GenerationReport:
    """What `generate` has written.

    Attributes:
        path: the dataset's folder: data/<split>/*.hdf5, stats.yaml, card.yaml.
        trajectories: how many, by split.
        files: how many, by split.
        bytes: size of the folder.
        seconds: wall-clock time.
    """

    name: str
    path: Path
    resolution: tuple[int, ...]
    steps: int
    seed: int
    jobs: int
    trajectories: dict[str, int]
    files: dict[str, int]
    bytes: int
    seconds: float

    def to_mapping(self) -> dict[str, Any]:
        """Plain JSON-compatible content."""
        return {**vars(self), "path": str(self.path), "resolution": list(self.resolution)}


def generate(
    name: str,
    to: str | os.PathLike[str] | None = None,
    *,
    resolution: Sequence[int] | None = None,
    trajectories: int | None = None,
    steps: int | None = None,
    seed: int = 0,
    jobs: int | None = None,
    parameters: Mapping[str, Sequence[ParameterValue]] | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> GenerationReport:
    """Simulate a dataset and write it as `TO/NAME/data/{train,valid,test}/*.hdf5`, with stats.yaml and card.yaml.

    Domain, fields, parameters and the time between frames are those of the published dataset unless said otherwise;
    the data are our own, and every file says so (attributes generator, generator_version, generator_seed,
    wellkit_version). The same arguments give the same values, whatever `jobs` is, on the same machine and libraries.

    Args:
        name: a dataset that can be generated (`wellkit.generation.registry.names()`).
        to: base folder; the default is `$WELLKIT_DATA`, else the user's data folder.
        resolution: points along each axis, over the same domain.
        trajectories: in all splits and parameter settings together, 3 or more; split 0.8/0.1/0.1.
        steps: stored frames of a trajectory, 2 or more.
        seed: 0 to 2**63 - 1.
        jobs: processes; the default is one for each core.
        parameters: values to simulate, e.g. {"tcool": [0.1, 1.0]}.
        overwrite: replace a dataset that was generated before. Anything else is never replaced.
        progress: called with (trajectories done, all) as they are written.

    Raises:
        UnknownDatasetError: there is no generator of that name.
        ArgumentError: an argument makes no sense, or there is a dataset already.
        DataValueError: a solver lost its solution.
        StorageError: the target cannot be written or has no room.
    """
    started = time.monotonic()
    generator = registry.get(name)
    run = _decide(generator, resolution, trajectories, steps, seed, parameters or {})
    jobs = min(_check_jobs(jobs), run.trajectories)
    target = Path(to if to is not None else data_dir()).expanduser() / name
    with staged_folder(target, may_replace=lambda: _check_replaceable(target, overwrite)) as staging:
        _check_room(staging, target, generator, run)
        shards = list(plan.shards(run))
        _write_shards(generator, run, shards, staging / "data", jobs, progress)
        write_statistics(compute_statistics(staging), staging / "stats.yaml")
        counts = {
            split: Split(
                files=sum(shard.split == split for shard in shards),
                trajectories=sum(len(shard.trajectories) for shard in shards if shard.split == split),
            )
            for split in plan.SPLITS
        }
        _write_card(generator, run, counts, staging / CARD_NAME)
        _write_manifest(generator, run, shards, staging, name)
    return GenerationReport(
        name=name,
        path=target,
        resolution=run.resolution,
        steps=run.steps,
        seed=seed,
        jobs=jobs,
        trajectories={split: count.trajectories or 0 for split, count in counts.items()},
        files={split: count.files or 0 for split, count in counts.items()},
        bytes=sum(path.stat().st_size for path in target.rglob("*") if path.is_file()),
        seconds=time.monotonic() - started,
    )


def _decide(
    generator: SimulationGenerator,
    resolution: Sequence[int] | None,
    trajectories: int | None,
    steps: int | None,
    seed: int,
    parameters: Mapping[str, Sequence[ParameterValue]],
) -> Run:
    """Fill in defaults and check."""
    shape = tuple(resolution) if resolution is not None else generator.resolution
    axes = generator.axis_names
    if len(shape) != len(axes) or min(shape) < generator.smallest_resolution:
        raise ArgumentError(
            f"resolution {'x'.join(map(str, shape))} does not fit {generator.name}: it needs {len(axes)} numbers "
            f"({', '.join(axes)}), each {generator.smallest_resolution} or more; the original has "
            f"{'x'.join(map(str, generator.resolution))}"
        )
    count = generator.trajectories if trajectories is None else trajectories
    if count < plan.FEWEST:
        raise ArgumentError(f"trajectories={count}: {plan.FEWEST} or more are needed, one for each split")
    frames = generator.steps if steps is None else steps
    if frames < 2:
        raise ArgumentError(f"steps={frames}: a trajectory needs 2 or more frames")
    if not 0 <= seed < _SEEDS:
        raise ArgumentError(f"seed={seed}; give a whole number from 0 to 2**63 - 1")
    return Run(generator.settings(parameters), shape, count, frames, seed)


def _check_jobs(jobs: int | None) -> int:
    if jobs is None:
        return usable_cores()
    if jobs < 1:
        raise ArgumentError(f"jobs={jobs}: at least one process is needed")
    return jobs


def _check_replaceable(target: Path, overwrite: bool) -> None:
    """Raise ArgumentError unless `target` is a dataset that was generated here and may be replaced."""
    if not target.is_dir():
        raise StorageError(f"cannot write {target}: a file of that name is there; choose another target")
    if not is_generated(target):
        raise ArgumentError(
            f"{target} holds data that were not generated by wellkit, which are never replaced; choose another target"
        )
    if not overwrite:
        raise ArgumentError(
            f"{target} holds a generated dataset already; choose another target, or replace it with --overwrite "
            "(overwrite=True)"
        )


def _check_room(staging: Path, target: Path, generator: SimulationGenerator, run: Run) -> None:
    """Raise StorageError before the first trajectory where the last will not fit."""
    components = sum(len(run.resolution) ** field.order for field in generator.fields)
    needed = run.trajectories * run.steps * math.prod(run.resolution) * components * _FLOAT_BYTES
    free = shutil.disk_usage(staging).free
    if needed > free:
        raise StorageError(
            f"cannot write {target}: {decimal(needed)} are needed and {decimal(free)} are free; "
            "choose fewer trajectories, fewer steps, a lower resolution or another target"
        )


def _write_shards(
    generator: SimulationGenerator,
    run: Run,
    shards: Sequence[plan.Shard],
    folder: Path,
    jobs: int,
    progress: Progress | None,
) -> None:
    """Simulate all trajectories and write each into its place."""
    places: dict[plan.Trajectory, tuple[WellShardWriter, int]] = {}
    with ExitStack() as stack:
        for shard in shards:
            setting = run.settings[shard.setting]
            layout = generator.shard(run, shard.setting, [item.index for item in shard.trajectories])
            writer = stack.enter_context(create_well_shard(folder / shard.split / setting.file_name, layout))
            for place, trajectory in enumerate(shard.trajectories):
                places[trajectory] = (writer, place)
        order = sorted(places, key=lambda trajectory: (trajectory.setting, trajectory.index))
        if progress is not None:
            progress(0, len(order))
        results = simulate_all(generator, run, order, jobs)
        stack.callback(results.close)  # a full disk stops the workers too
        for done, (trajectory, fields) in enumerate(results, start=1):
            writer, place = places[trajectory]
            writer.write_trajectory(place, fields)
            if progress is not None:
                progress(done, len(order))


def _write_card(generator: SimulationGenerator, run: Run, splits: Mapping[str, Split], path: Path) -> None:
    text = card_text(generator.card(run, splits))
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise storage_error(path, error) from error


def _write_manifest(
    generator: SimulationGenerator, run: Run, shards: Sequence[plan.Shard], folder: Path, name: str
) -> None:
    counts = {
        f"data/{shard.split}/{run.settings[shard.setting].file_name}": (len(shard.trajectories), run.steps)
        for shard in shards
    }
    made_by = generator.card(run, {}).generator
    source = f"{made_by.name} {made_by.version}, seed {run.seed}" if made_by is not None else f"wellkit {__version__}"
    write_generated_manifest(folder, dataset=name, source=source, counts=counts)
