"""`wellkit benchmark`: every dataset with every model and seed, trained, scored, put on a board. Resumable.

A cell whose result is there, whole and of the weights of its run, is not scored again; a run that was stopped goes on
from its last state. Every result on the board is recomputed from predictions, which are written for that, and kept
where a submission is asked for. What lies where: `wellkit.benchmark.cells`.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch

from wellkit.benchmark import leaderboard
from wellkit.benchmark.cells import BOARD, GRID, Cell, cells_of
from wellkit.benchmark.checking import check_result
from wellkit.benchmark.evaluate import evaluate
from wellkit.benchmark.results import load_result, save_result
from wellkit.benchmark.submission import check_target, write_submission
from wellkit.errors import (
    ConfigError,
    DataNotFoundError,
    DocumentError,
    ScoreError,
    StorageError,
    TrainingError,
    WellkitError,
)
from wellkit.fetch.disk import write_atomically
from wellkit.schemas.benchmark import BenchmarkConfig
from wellkit.schemas.result import Result
from wellkit.schemas.training import TrainConfig
from wellkit.train.checkpoint import find_checkpoint, load_record
from wellkit.train.loop import train
from wellkit.train.progress import Progress
from wellkit.train.run_folder import REPORT, RunFolder


@dataclass(frozen=True)
class Failure:
    """A cell that could not be trained or scored, and why."""

    cell: Cell
    reason: str


@dataclass(frozen=True)
class BenchmarkReport:
    """What a grid came to.

    Attributes:
        results: one for each cell and protocol, baselines first.
        failures: cells without one.
        board: the leaderboard's file.
        submission: the folder to send; None where none was asked for.
    """

    results: tuple[Result, ...]
    failures: tuple[Failure, ...]
    board: Path
    submission: Path | None


class Watcher(Protocol):
    """Is told how far a grid is."""

    def cell(self, number: int, total: int, label: str, what: str) -> None:
        """A piece of work begins: "training", "scoring" or "kept" (nothing is left to do)."""

    def working(self, progress: Progress) -> None:
        """A batch is done."""

    def failed(self, label: str, reason: str) -> None:
        """A cell could not be finished; the others go on."""


def run_benchmark(
    config: BenchmarkConfig,
    to: str | Path,
    watcher: Watcher,
    *,
    processes: int | None = None,
    submit: str | Path | None = None,
) -> BenchmarkReport:
    """Train and score a grid; call it again to go on where it was stopped.

    Args:
        config: the grid. Another one than that of an earlier call in this folder is refused, unless it only adds
            datasets, models, seeds or protocols.
        to: its folder.
        processes: that train one model together, through torchrun; None for one on each GPU, or one.
        submit: write the folder one would send: results, predictions, configurations and logs of the runs, hashes.

    Raises:
        ConfigError, ArgumentError: the grid makes no sense.
        DocumentError: the board of an earlier call is damaged.
        StorageError: a folder cannot be written.
        ScoreError: nothing could be scored.
    """
    cells = cells_of(config)
    folder = Path(to)
    if submit is not None:
        check_target(Path(submit))
    _take_up(config, folder)
    count = processes if processes is not None else max(1, torch.cuda.device_count())
    if count < 1:
        raise ConfigError(f"processes={count}; give a whole number from 1 up")
    board = folder / BOARD
    _recomputed(board)  # a damaged board is told now, not by every cell after its training
    results, failures = [], []
    for number, cell in enumerate(cells, start=1):
        try:
            results += _do(cell, config, folder, board, number, len(cells), watcher, count, keep=submit is not None)
        except StorageError:
            raise  # the next cell would meet the same disk
        except WellkitError as error:
            failures.append(Failure(cell, str(error)))
            watcher.failed(cell.label, str(error))
    if not results:
        raise ScoreError(f"{folder}: nothing could be scored; {failures[0].cell.label}: {failures[0].reason}")
    submission = None
    if submit is not None:
        submission = write_submission(folder, cells, config, Path(submit))
    return BenchmarkReport(tuple(results), tuple(failures), board, submission)


def _do(
    cell: Cell,
    config: BenchmarkConfig,
    folder: Path,
    board: Path,
    number: int,
    total: int,
    watcher: Watcher,
    processes: int,
    *,
    keep: bool,
) -> list[Result]:
    if cell.config is not None and not (cell.run(folder) / REPORT).is_file():
        watcher.cell(number, total, cell.label, "training")
        _train(cell.config, cell.run(folder), watcher.working, processes)
    results = []
    on_board = _recomputed(board)
    for protocol in config.protocols:
        target, predictions = cell.result(folder, protocol), cell.predictions(folder, protocol)
        known = _known(cell, target, folder, on_board)
        if known is not None and (not keep or predictions.is_dir() or cell.config is None):
            watcher.cell(number, total, f"{cell.label} {protocol}", "kept")
            results.append(known)
            continue
        watcher.cell(number, total, f"{cell.label} {protocol}", "scoring")
        with _room_for(predictions, keep=keep and cell.config is not None) as place:
            result = evaluate(
                cell.name if cell.config is None else cell.run(folder),
                data=config.data,
                dataset=cell.dataset,
                split=config.split,
                protocol=protocol,
                rollout_steps=config.rollout_steps,
                n_steps_input=_steps_of(config) if cell.config is None else None,
                save_predictions=place,
                progress=watcher.working,
            )
            save_result(result, target)
            leaderboard.add([result], board, predictions=place, data=config.data)
        results.append(result)
    return results


def _train(config: TrainConfig, run: Path, progress: Callable[[Progress], None], processes: int) -> None:
    if processes == 1:
        train(config, run, progress=progress, resume=True)
        return
    RunFolder(run).open(config, overwrite=False, resume=True)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    done = subprocess.run([*command, "-m", "wellkit.cli", "train", "--resume", str(run)], check=False)
    if done.returncode:
        raise TrainingError(f"{run}: {processes} processes ended with status {done.returncode}; see above")


def _recomputed(board: Path) -> dict[str, Result]:
    """The results on a board whose scores were computed again, by id."""
    if not board.exists():
        return {}
    return {entry.result.id: entry.result for entry in leaderboard.read(board) if entry.status == "recomputed"}


def _known(cell: Cell, path: Path, folder: Path, on_board: dict[str, Result]) -> Result | None:
    """The result that is there already, if it is whole, of the weights of the cell's run, and on the board."""
    try:
        result = load_result(path)
        check_result(result, source=str(path))
    except DataNotFoundError:
        return None
    except (DocumentError, ScoreError):
        return None  # damaged, or written by another version: made anew
    shown = on_board.get(result.id)
    if shown is None or leaderboard.first_difference(result, shown) is not None:
        return None
    if cell.config is None:
        return result
    record = load_record(find_checkpoint(cell.run(folder)))
    return result if result.model.weights_sha256 == record.weights_sha256 else None


@contextmanager
def _room_for(predictions: Path, *, keep: bool) -> Iterator[Path]:
    """A place for predictions, which is there no longer afterwards unless they are to be kept."""
    place = predictions if keep else predictions.with_name(f"{predictions.name}.once")
    shutil.rmtree(place, ignore_errors=True)
    try:
        yield place
    except BaseException:
        shutil.rmtree(place, ignore_errors=True)
        raise
    finally:
        if not keep:
            shutil.rmtree(place, ignore_errors=True)


def _steps_of(config: BenchmarkConfig) -> int:
    """Input steps of the baselines: those of the grid's models, so that they meet the same windows."""
    return int(config.training.get("n_steps_input", 4))


def _take_up(config: BenchmarkConfig, folder: Path) -> None:
    """Write the grid down; refuse one that says otherwise what an earlier one in this folder said."""
    path = folder / GRID
    if path.exists():
        try:
            before = BenchmarkConfig.parse(json.loads(path.read_text(encoding="utf-8")), source=str(path))
        except (OSError, ValueError, RecursionError) as error:
            raise DocumentError(f"{path}: damaged ({error}); choose another folder with --to") from error
        later = {model.name: model for model in config.models}
        changed = [key for key in ("data", "split", "rollout_steps", "training") if _differs(before, config, key)]
        changed += [f"model {m.name}" for m in before.models if m.name in later and later[m.name] != m]
        if changed:
            raise ConfigError(
                f"{path}: holds another grid: {changed[0]} is not what it was; choose another folder with --to, "
                "or give a changed model a label of its own"
            )
    text = json.dumps(config.to_mapping(), indent=1) + "\n"
    write_atomically(path, text.encode())


def _differs(before: BenchmarkConfig, now: BenchmarkConfig, key: str) -> bool:
    return bool(getattr(before, key) != getattr(now, key))
