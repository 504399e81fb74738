"""Checkpoints: a folder with the weights as safetensors and everything about them as JSON. Never a pickle.

A checkpoint is written whole under a temporary name and then renamed; an older one of that name is moved
aside for that moment and removed afterwards. So a folder of that name is always a whole checkpoint, whenever
the process dies.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from wellkit.errors import DocumentError, StorageError, TrainingError
from wellkit.schemas.training import CheckpointRecord
from wellkit.train.models import build_model

WEIGHTS = "model.safetensors"
RECORD = "checkpoint.json"
PICKLES = (".pt", ".pth", ".ckpt", ".bin", ".pkl", ".pickle", ".joblib")


def save_checkpoint(folder: Path, model: nn.Module, record: CheckpointRecord) -> CheckpointRecord:
    """Write weights and record; returns the record with the weights' hash filled in.

    Raises:
        StorageError: the folder cannot be written; a checkpoint that was there before is still whole.
    """
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    aside = _aside(folder)
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
        save_file(state, temporary / WEIGHTS)
        record = record.model_copy(update={"weights_sha256": _sha256(temporary / WEIGHTS)})
        text = json.dumps(record.to_mapping(), indent=1, allow_nan=False)
        (temporary / RECORD).write_text(text + "\n", encoding="utf-8")
        for name in (WEIGHTS, RECORD):
            _flush(temporary / name)
        if folder.exists():
            shutil.rmtree(aside, ignore_errors=True)
            folder.rename(aside)
        temporary.rename(folder)
        shutil.rmtree(aside, ignore_errors=True)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        reason = getattr(error, "strerror", None) or str(error)
        raise StorageError(f"cannot write checkpoint {folder}: {reason}; free space or choose another --to") from error
    return record


def find_checkpoint(path: str | os.PathLike[str]) -> Path:
    """The checkpoint folder a path means: itself, or the `best` (else `last`) of a run's folder.

    Raises:
        TrainingError: there is none, or the path is a pickle file.
    """
    given = Path(path)
    refuse_pickle(given)
    for candidate in (given, given / "best", given / "last"):
        _restore(candidate)
        if os.path.isfile(candidate / RECORD) or os.path.isfile(candidate / WEIGHTS):
            return candidate
    if os.path.isdir(given):
        pickles = sorted(p.name for p in given.iterdir() if p.suffix.lower() in PICKLES)
        held = f"; its {pickles[0]} is a pickle, which is refused" if pickles else ""
        raise TrainingError(f"{given}: no checkpoint here (no {RECORD}, no best/ or last/){held}")
    if os.path.lexists(given):
        raise TrainingError(f"{given} is a file; a run or checkpoint is a folder")
    raise TrainingError(f"{given}: no such run or checkpoint folder; wellkit train writes one (--to)")


def load_record(folder: Path) -> CheckpointRecord:
    """The record of a checkpoint folder.

    Raises:
        TrainingError: it is missing or no JSON.
        DocumentVersionError, DocumentError: another version, or damaged.
    """
    path = folder / RECORD
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise TrainingError(f"{folder}: {RECORD} is missing, so nothing is known about the weights") from error
    except (OSError, ValueError, RecursionError) as error:
        raise TrainingError(f"{path}: damaged ({error}); use another checkpoint") from error
    return CheckpointRecord.parse(content, source=str(path))


def load_model(folder: Path, device: torch.device) -> tuple[nn.Module, CheckpointRecord]:
    """The network of a checkpoint folder, ready to predict, and its record.

    Raises:
        TrainingError: weights are missing, damaged, not those of the record, or do not fit the model.
        DocumentVersionError, DocumentError: the record is of another version, or damaged.
    """
    record = load_record(folder)
    path = folder / WEIGHTS
    _, state = read_weights(path, record.weights_sha256)
    model = build_model(
        record.model,
        record.model_arguments,
        dim_in=record.dim_in,
        dim_out=record.dim_out,
        spatial_resolution=record.dataset.resolution,
        seed=record.seed,
    )
    fit_weights(model, state, f"{path}: weights do not fit model {record.model!r} of {RECORD}")
    return model.to(device).eval(), record


def read_weights(path: Path, expected: str | None = None) -> tuple[str, dict[str, Tensor]]:
    """SHA-256 and tensors, by name, of a safetensors file.

    Raises:
        TrainingError: it cannot be read, is no safetensors file, or its SHA-256 is not the expected one.
    """
    try:
        found = _sha256(path)
        if expected is not None and found != expected:
            raise TrainingError(
                f"{path}: damaged or replaced: its SHA-256 is {found[:12]}..., {RECORD} says "
                f"{expected[:12]}...; use another checkpoint"
            )
        return found, load_file(path)
    except OSError as error:
        raise TrainingError(f"{path}: cannot be read ({error.strerror}); use another checkpoint") from error
    except SafetensorError as error:
        raise TrainingError(f"{path}: not a safetensors file ({error}); use another checkpoint") from error


def fit_weights(model: nn.Module, state: Mapping[str, Tensor], complaint: str) -> None:
    """Put weights in place of those of `model`, which may be on the meta device, as they are on its own.

    Raises:
        DocumentError: names or shapes are not those of the model; begins with `complaint`.
    """
    own = model.state_dict()
    for name in own.keys() | state.keys():
        found = tuple(state[name].shape) if name in state else "nothing"
        wanted = tuple(own[name].shape) if name in own else "nothing"
        if found != wanted:
            raise DocumentError(f"{complaint}: {name} is {found}, expected {wanted}")
    # Copies: what safetensors reads may be the file itself, mapped into memory.
    copies = {name: tensor.to(own[name].dtype, copy=True) for name, tensor in state.items()}
    model.load_state_dict(copies, strict=True, assign=True)


def refuse_pickle(path: Path) -> None:
    """Raise TrainingError where the name is that of a pickle."""
    if path.suffix.lower() in PICKLES:
        raise TrainingError(
            f"{path}: pickle files are refused, since loading one runs whatever code is in it; "
            f"a checkpoint is a folder with {WEIGHTS} and {RECORD}, or {WEIGHTS} and config.json"
        )


def _aside(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.old")


def _restore(folder: Path) -> None:
    """Bring back a checkpoint that was moved aside when the process died before its successor had its name."""
    if os.path.exists(folder) or not folder.name:  # "/" has no name, "." is there
        return
    aside = _aside(folder)
    if os.path.isfile(aside / RECORD):
        aside.rename(folder)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _flush(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
