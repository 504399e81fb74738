"""The folder one sends to whoever keeps a leaderboard: results, predictions, and how the weights were made."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from wellkit.benchmark.cells import GRID, Cell
from wellkit.errors import ArgumentError
from wellkit.fetch.disk import check_writable, telling
from wellkit.generation.staging import staged_folder
from wellkit.schemas.benchmark import BenchmarkConfig
from wellkit.schemas.submission import Submission, SubmittedResult
from wellkit.train.provenance import code_version, now

LIST = "submission.json"
README = "README.md"
_OF_RUN = ("config.json", "log.jsonl", "report.json", "best/checkpoint.json")


def check_target(to: Path) -> None:
    """Find out before long work that no submission could be written there.

    Raises:
        ArgumentError: something is there already.
        StorageError: it cannot be written.
    """
    check_writable(to / LIST)
    if to.is_dir() and any(to.iterdir()):
        raise ArgumentError(f"{to}: is there already; choose another folder with --submit")


def write_submission(folder: Path, cells: Sequence[Cell], config: BenchmarkConfig, to: Path) -> Path:
    """Gather what a grid left in `folder`; cells without a result are not in it.

    Files are linked where that is possible (predictions are large), else copied. An existing folder is refused.

    Raises:
        ArgumentError: `to` is there already.
        StorageError: it cannot be written.
    """

    listed = []
    with telling(to), staged_folder(to, may_replace=lambda: check_target(to)) as staged:
        _take(folder / GRID, staged / GRID)
        for cell in cells:
            for protocol in config.protocols:
                result = cell.result(folder, protocol)
                if not result.is_file():
                    continue
                name = f"results/{cell.label}.{protocol}.json"
                _take(result, staged / name)
                predicted = None
                if cell.config is not None:
                    predicted = f"predictions/{cell.label}.{protocol}"
                    _take(cell.predictions(folder, protocol), staged / predicted)
                listed.append(SubmittedResult(result=name, predictions=predicted))
            if cell.config is not None:
                for part in _OF_RUN:
                    if (cell.run(folder) / part).is_file():
                        _take(cell.run(folder) / part, staged / "runs" / cell.label / part)
        (staged / README).write_text(_readme(listed, config), encoding="utf-8")
        files = {
            path.relative_to(staged).as_posix(): _sha256(path)
            for path in sorted(staged.rglob("*"))
            if path.is_file() and not path.name.startswith(".")
        }
        submission = Submission(
            schema_=Submission.schema_name(),
            grid=config,
            results=tuple(listed),
            files=files,
            code_version=code_version(),
            created=now(),
        )
        (staged / LIST).write_text(json.dumps(submission.to_mapping(), indent=1) + "\n", encoding="utf-8")
    return to


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _take(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, copy_function=_link)
    else:
        _link(source, target)


def _link(source: str | Path, target: str | Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _readme(listed: Sequence[SubmittedResult], config: BenchmarkConfig) -> str:
    commands = []
    for item in listed:
        predictions = f" --predictions {item.predictions}" if item.predictions else ""
        commands.append(f"wellkit leaderboard add {item.result} --board board.jsonl{predictions} --data DATA")
    return (
        f"# Submission: {', '.join(config.datasets)}\n\n"
        f"Results under {', '.join(config.protocols)}, the predictions they were scored from, and the configurations, "
        f"logs and records of the training runs. `{LIST}` lists every file with its SHA-256.\n\n"
        "To score them again and put them on a board, in this folder, with DATA the folder that holds the datasets:\n\n"
        "```\n" + "\n".join(commands) + "\n```\n"
    )
