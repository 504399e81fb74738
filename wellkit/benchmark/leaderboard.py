"""A board of results: a file of JSON lines, one entry a line, that can be kept in git and merged by hand.

What stands on it is what its keeper let in: every result is checked (`wellkit.benchmark.checking`), and where there are
predictions and the data, its scores are computed again. Only then an entry is `recomputed`, whatever its sender says.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from wellkit.benchmark.checking import check_result
from wellkit.benchmark.predictions import open_predictions
from wellkit.benchmark.results import read_result_file
from wellkit.errors import DataNotFoundError, DocumentError, DocumentVersionError, ScoreError
from wellkit.fetch.disk import locked_folder, write_atomically
from wellkit.schemas.board import BoardEntry, Verification
from wellkit.schemas.result import Result

# Figures of the same code from the same predictions are the same bits; another machine's square root may differ in one.
SAME = 1e-12


@dataclass(frozen=True)
class Added:
    """What `add` did: ids of results by what became of them, and how many entries the board has now.

    Attributes:
        new: were not there.
        replaced: took the place of an older one.
        kept: are there already as recomputed, with the same numbers.
        recomputed: of all these, the ones whose scores were computed again now.
    """

    new: tuple[str, ...]
    replaced: tuple[str, ...]
    kept: tuple[str, ...]
    recomputed: tuple[str, ...]
    total: int


def add(
    results: Iterable[Result | str | os.PathLike[str]],
    board: str | os.PathLike[str],
    *,
    predictions: str | os.PathLike[str] | None = None,
    data: str | os.PathLike[str] | None = None,
) -> Added:
    """Check results (or result files) and put them on a board; one with the id of an older one replaces it.

    All or nothing: the board is written anew and renamed into place, and held against other writers meanwhile. An entry
    of a board is taken as the result in it, without its status.

    Args:
        predictions: what the one result was scored from: it is scored again, and must come out the same.
        data: folder that holds `<dataset>/data/...`, to score against; None: what was downloaded. Where predictions or
            data are given, persistence and mean are scored again themselves: they need no predictions.

    Raises:
        DataNotFoundError, DocumentError: a file cannot be used.
        ScoreError: there is nothing to add; a result is not what it says; or it would replace a recomputed one by other
            numbers that nobody has computed again.
        StorageError: the board cannot be written.
    """
    loaded = [_load(item) for item in results]
    if not loaded:
        raise ScoreError("no results to add to the leaderboard")
    for result, source in loaded:
        check_result(result, source=source)
    if predictions is not None and len(loaded) > 1:
        raise ScoreError(
            f"{predictions} are the predictions of one result, and {len(loaded)} were given; add one by one"
        )
    entries = [_enter(result, source, predictions=predictions, data=data) for result, source in loaded]
    path = Path(board)
    with locked_folder(path.absolute().parent, told_as=path):
        held = {entry.result.id: entry for entry in (read(path) if os.path.lexists(path) else ())}
        new: list[str] = []
        replaced: list[str] = []
        kept: list[str] = []
        for entry, (_, source) in zip(entries, loaded, strict=True):
            known = held.get(entry.result.id)
            _check_same_data(entry, held.values(), source)
            if known is not None and known.verification is not None and entry.verification is None:
                _refuse_other_numbers(known.result, entry.result, source, path)
                kept.append(entry.result.id)
                continue
            (new if known is None else replaced).append(entry.result.id)
            held[entry.result.id] = entry
        text = "".join(json.dumps(entry.to_mapping(), allow_nan=False) + "\n" for entry in held.values())
        write_atomically(path, text.encode())
    again = [entry.result.id for entry in entries if entry.verification is not None]
    return Added(_once(new), _once(replaced), _once(kept), _once(again), len(held))


def _once(ids: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(ids))


def read(board: str | os.PathLike[str]) -> list[BoardEntry]:
    """All entries of a board, in the order of the file.

    Raises:
        DataNotFoundError: no such file.
        DocumentVersionError, DocumentError: a line is no entry; names the line.
    """
    path = Path(board)
    try:
        lines = path.read_text(encoding="utf-8").split("\n")  # a name may hold other ends of lines
    except FileNotFoundError as error:
        raise DataNotFoundError(
            f"{path}: no such leaderboard; start it with: wellkit leaderboard add RESULT.json --board {path}"
        ) from error
    except OSError as error:
        raise DocumentError(f"{path}: cannot be read ({error.strerror}); give a file of JSON lines") from error
    except UnicodeDecodeError as error:
        raise DocumentError(f"{path}: cannot be read as text ({error})") from error
    entries = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            content = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DocumentError(f"{path}, line {number}: not JSON ({error})") from error
        entry = _parse_entry(content, f"{path}, line {number}")
        check_result(entry.result, source=f"{path}, line {number}")
        entries.append(entry)
    return entries


def _parse_entry(content: Any, source: str) -> BoardEntry:
    declared = content.get("schema") if isinstance(content, dict) else None
    if str(declared).startswith(f"wellkit/{Result.KIND}/"):
        raise DocumentVersionError(
            f"{source}: schema {declared!r} is a bare result, as boards of earlier versions held them; score its model "
            "again with wellkit evaluate and start a new board"
        )
    entry = BoardEntry.parse(content, source=source)
    if entry.result.schema_ != Result.schema_name():  # of a document within another nobody else looks at it
        Result.parse({"schema": entry.result.schema_}, source=source)
    if entry.verification is not None and entry.verification.content_sha256 != entry.result.data.content_sha256:
        raise DocumentError(f"{source}: the verification is of other data than the result; the line was changed")
    return entry


def first_difference(claimed: Result, found: Result) -> str | None:
    """The first figure of two results that differs, as text; None where all are equal (to 1e-12).

    Figures are everything in `one_step`, `rollout` and `trajectories`, and the data they were scored against.
    """
    for part in ("one_step", "rollout", "trajectories"):
        one, other = (result.model_dump(include={part})[part] for result in (claimed, found))
        different = _difference(one, other, part)
        if different is not None:
            return different
    return None


def _difference(claimed: Any, found: Any, name: str) -> str | None:
    if isinstance(claimed, dict) and isinstance(found, dict) and claimed.keys() == found.keys():
        pairs: Iterable[Any] = ((key, claimed[key], found[key]) for key in claimed)
    elif isinstance(claimed, tuple | list) and isinstance(found, tuple | list) and len(claimed) == len(found):
        pairs = ((number, one, other) for number, (one, other) in enumerate(zip(claimed, found, strict=True)))
    else:
        same = claimed == found or (claimed != claimed and found != found)
        if isinstance(claimed, float) and isinstance(found, float) and not same:
            same = math.isclose(claimed, found, rel_tol=SAME, abs_tol=0.0)
        return None if same else f"{name} is {_shown(claimed)}, computed again it is {_shown(found)}"
    for key, one, other in pairs:
        different = _difference(one, other, f"{name}.{key}")
        if different is not None:
            return different
    return None


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) < 60 else f"{text[:57]}..."


def _load(item: Result | str | os.PathLike[str]) -> tuple[Result, str]:
    """A result, or the one in a file, which may also be an entry of a board."""
    if isinstance(item, Result):
        return item, f"result of {item.model.name!r}"
    source = str(item)
    content = read_result_file(item)
    if isinstance(content, dict) and str(content.get("schema")).startswith(f"wellkit/{BoardEntry.KIND}/"):
        return _parse_entry(content, source).result, source
    return Result.parse(content, source=source), source


def _enter(
    result: Result,
    source: str,
    *,
    predictions: str | os.PathLike[str] | None,
    data: str | os.PathLike[str] | None,
) -> BoardEntry:
    """The entry of a checked result, its scores computed again where that can be done."""
    verification = None
    if predictions is not None and result.model.kind != "baseline":
        # Under a path that names neither a baseline nor code, and only if there are predictions: no network is run.
        predictions = open_predictions(Path(predictions).absolute()).path
    if predictions is not None or (data is not None and result.model.kind == "baseline"):
        found = _score_again(result, source, predictions, data)
        verification = Verification(
            predictions_sha256=found.model.predictions_sha256 or f"{result.model.name} itself",
            content_sha256=found.data.content_sha256,
            code_version=found.run.code_version,
            hardware=found.run.hardware,
            created=found.run.created,
        )
        if found.example is not None and result.example is not None and found.example != result.example:
            # Pictures are not compared, but none are shown that were not made here.
            result = result.model_copy(update={"example": found.example}).sealed()
    return BoardEntry(schema_=BoardEntry.schema_name(), result=result, verification=verification, added=_now())


def _score_again(
    result: Result, source: str, predictions: str | os.PathLike[str] | None, data: str | os.PathLike[str] | None
) -> Result:
    """The result of the predictions (of a baseline: its own), which is equal in every figure."""
    from wellkit.benchmark.evaluate import evaluate  # needs torch, which a board does not

    model = result.model
    baseline = model.kind == "baseline"
    found = evaluate(
        model.name if baseline else Path(str(predictions)),
        data=None if data is None else str(data),
        dataset=result.dataset.name,
        split=result.dataset.split,
        protocol=result.protocol.name,
        n_steps_input=model.n_steps_input,
        rollout_steps=result.rollout_limit,
    )
    if not baseline and model.predictions_sha256 not in (None, found.model.predictions_sha256):
        raise ScoreError(
            f"{source}: was scored from the predictions {str(model.predictions_sha256)[:12]}, and {predictions} are "
            f"{str(found.model.predictions_sha256)[:12]}; give the ones it was scored from"
        )
    if baseline and model.statistics_sha256 != found.model.statistics_sha256:
        raise ScoreError(f"{source}: {model.name} was scored with other statistics than those beside the data")
    if found.data.content_sha256 != result.data.content_sha256:
        raise ScoreError(
            f"{source}: was scored on other data (content {result.data.content_sha256[:12]}, here "
            f"{found.data.content_sha256[:12]}); give the folder of the same version of {result.dataset.name} as --data"
        )
    if found.comparable_id != result.comparable_id:
        raise ScoreError(
            f"{source}: the frames are the same, and what is said about them is not (version, generator, split, "
            f"resolution, fields or input steps); here they are {_identity(found)}, there {_identity(result)}"
        )
    different = first_difference(result, found)
    if different is not None:
        what = model.name if baseline else str(predictions)
        raise ScoreError(f"{source}: {different}; the result is refused: it is not what {what} scores")
    return found


def _identity(result: Result) -> str:
    data = result.dataset
    made = data.generator or "not generated"
    return (
        f"{result.data.dataset_version or 'no version'}, {made}, {data.split}, {data.resolution}, "
        f"{len(data.fields)} fields, {result.model.n_steps_input} steps"
    )


def _refuse_other_numbers(held: Result, result: Result, source: str, board: Path) -> None:
    different = first_difference(result, held)
    if different is not None:
        raise ScoreError(
            f"{source}: {board} holds this result as recomputed, with other numbers ({different}); give "
            "--predictions (of a baseline --data) to have it scored again"
        )


def _check_same_data(entry: BoardEntry, held: Iterable[BoardEntry], source: str) -> None:
    """What results say about the data alone must be what recomputed ones found in the same data."""
    result = entry.result
    known = next(
        (e.result for e in held if e.verification is not None and e.result.comparable_id == result.comparable_id), None
    )
    if known is None or entry.verification is not None:
        return
    of_data = {
        "file",
        "trajectory",
        "frames",
        "parameters",
        "content_sha256",
        "one_step_variance",
        "flat",
        "rollout_flat",
    }
    claimed, found = ([t.model_dump(include=of_data) for t in r.trajectories] for r in (result, known))
    different = _difference(claimed, found, "trajectories")
    if different is not None:
        raise ScoreError(f"{source}: {different} (for {known.model.name}, on the same data); the result is refused")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
