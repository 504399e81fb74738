"""A run's folder: its configuration, its log, its report, and the state that it is resumed from.

    config.json  log.jsonl  report.json  best/  last/  resume.safetensors

Whatever is replaced is written whole under another name, flushed, and then renamed, so that at any moment there is
either the old one or the new one.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from wellkit.errors import ConfigError, StorageError, TrainingError
from wellkit.schemas.training import CheckpointRecord, TrainConfig
from wellkit.train.checkpoint import save_checkpoint

LOG = "log.jsonl"
CONFIG = "config.json"
REPORT = "report.json"
STATE = "resume.safetensors"
_STATE_VERSION = "wellkit/resume/1"

# What a resumed run may do otherwise: where and how fast it computes, how often it saves, whom it tells.
_FREE = {"device", "workers", "checkpoint_every", "trackers"}
_BUDGET = {"epochs", "hours"}


@dataclass
class Standing:
    """Where a run stands: everything the loop counts.

    Attributes:
        epoch, batch: the epoch it is in, from 1, and the steps taken in it; (n + 1, 0) when n epochs are finished.
        step, samples: steps taken and windows trained on, since training began.
        seen, loss_sum, spent, waited: of this epoch: windows, sum of their losses, seconds in training steps, and
            those of them that were spent waiting for data.
        spent_before, waited_before: the same of the epochs before it.
        seconds: wall-clock time since training began, over all its processes.
        joules: energy over the same time; None where it is not known.
        rate: learning rate of the last step.
        best, best_epoch: lowest validation score, None before the first, and its epoch.
        last: what the log says of the last epoch that was validated.
        scaler: state of the loss scaler of fp16.
        data: which data these are: the number of windows and the hash of the statistics.
    """

    epoch: int = 1
    batch: int = 0
    step: int = 0
    samples: int = 0
    seen: int = 0
    loss_sum: float = 0.0
    spent: float = 0.0
    waited: float = 0.0
    spent_before: float = 0.0
    waited_before: float = 0.0
    seconds: float = 0.0
    joules: float | None = None
    rate: float = 0.0
    best: float | None = None
    best_epoch: int = 0
    last: dict[str, Any] = field(default_factory=dict)
    scaler: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)

    def next_epoch(self) -> None:
        """Go on to the first batch of the next epoch."""
        self.epoch, self.batch = self.epoch + 1, 0
        self.spent_before, self.waited_before = self.spent_before + self.spent, self.waited_before + self.waited
        self.seen, self.loss_sum, self.spent, self.waited = 0, 0.0, 0.0, 0.0

    @property
    def stall_share(self) -> float:
        """Share of the time of training steps spent waiting for data, since training began."""
        spent = self.spent_before + self.spent
        return (self.waited_before + self.waited) / spent if spent > 0 else 0.0


class RunFolder:
    """The folder of one run. Made by process 0 alone; the others only read the state."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def open(self, config: TrainConfig, *, overwrite: bool, resume: bool) -> bool:
        """Make it for a new run, or take up the run that is there.

        Returns:
            Whether there is a state to go on from. A run that was stopped before its first, which is written before
            the first step, is begun anew.

        Raises:
            ConfigError: the run to resume was configured otherwise; names the key.
            TrainingError: it holds a run that is not to be resumed, or whose state is gone, or other files.
            DocumentError: the configuration of the run to resume is damaged or of another version.
            StorageError: it cannot be written.
        """
        if resume and (self.path / CONFIG).exists():
            _check_same(read_config(self.path), config, self.path)
            there = (self.path / STATE).exists()
            if not there and any((self.path / name).exists() for name in ("best", "last")):
                raise TrainingError(
                    f"{self.path}: the state to resume from ({STATE}) is gone; "
                    "train in another folder, or start this run again with --overwrite"
                )
            self.write_json(CONFIG, config.to_mapping())
            return there
        self._begin(config, overwrite)
        return False

    def _begin(self, config: TrainConfig, overwrite: bool) -> None:
        run = self.path
        try:
            occupied = [name for name in ("best", "last", LOG, CONFIG) if (run / name).exists()]
            if occupied and not overwrite:
                raise TrainingError(
                    f"{run}: holds a run already ({', '.join(occupied)}); choose another folder with --to, "
                    "go on with it with --resume, or pass --overwrite"
                )
            if not occupied and run.is_dir() and any(not _is_partial(path) for path in run.iterdir()):
                raise TrainingError(f"{run}: holds files that are no run's; choose another folder with --to")
            run.mkdir(parents=True, exist_ok=True)
            for name in ("best", "last"):
                shutil.rmtree(run / name, ignore_errors=True)
            for name in (LOG, REPORT, STATE):
                (run / name).unlink(missing_ok=True)
        except OSError as error:
            raise StorageError(f"cannot make run folder {run}: {error.strerror}; choose another with --to") from error
        self.write_json(CONFIG, config.to_mapping())

    def cut_log(self, epoch: int) -> None:
        """Keep the log's lines of epochs before `epoch`: the others are about to be written again."""
        path = self.path / LOG
        if not path.exists():
            return
        kept = []
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                if json.loads(line)["epoch"] < epoch:
                    kept.append(line + "\n")
            except (ValueError, KeyError, TypeError):
                continue  # the line that was being written when the process died
        _replace(path, "".join(kept))

    def save_epoch(
        self, model: nn.Module, record: CheckpointRecord, names: Sequence[str], line: Mapping[str, Any]
    ) -> None:
        """Save an epoch's model under every name (`best`, `last`) and add its line to the log.

        Raises:
            StorageError: one of them cannot be written.
        """
        for name in names:
            save_checkpoint(self.path / name, model, record)
        self.log(line)

    def log(self, content: Mapping[str, Any]) -> None:
        """Add a line to the log.

        Raises:
            StorageError: it cannot be written.
        """
        path = self.path / LOG
        try:
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(content) + "\n")
        except OSError as error:
            raise _unwritable(path, error) from error

    def write_json(self, name: str, content: Mapping[str, Any]) -> None:
        """Replace a JSON file.

        Raises:
            StorageError: it cannot be written.
        """
        _replace(self.path / name, json.dumps(content, indent=1) + "\n")

    def save_state(self, standing: Standing, tensors: Mapping[str, Tensor]) -> None:
        """Replace the state to resume from: tensors as safetensors, the rest as JSON in its header.

        Raises:
            StorageError: it cannot be written; the one before it is still whole.
        """
        path = self.path / STATE
        partial = path.with_name(f".{STATE}.partial")
        try:
            save_file(dict(tensors), partial, {"schema": _STATE_VERSION, "standing": json.dumps(asdict(standing))})
            _flush(partial)
            partial.replace(path)
            _flush(self.path)
        except (OSError, SafetensorError) as error:
            partial.unlink(missing_ok=True)
            raise _unwritable(path, error) from error

    def load_state(self) -> tuple[Standing, dict[str, Tensor]]:
        """The state to resume from.

        Raises:
            TrainingError: it is damaged or of another version.
        """
        path = self.path / STATE
        try:
            with safe_open(path, "pt") as file:
                header = file.metadata() or {}
                # Copies: the file may be mapped into memory, and is replaced while they are in use.
                tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 - no mapping
        except (OSError, SafetensorError) as error:
            raise TrainingError(f"{path}: damaged ({error}); start the run again with --overwrite") from error
        if header.get("schema") != _STATE_VERSION:
            raise TrainingError(
                f"{path}: schema {header.get('schema')!r} is not {_STATE_VERSION!r}; resume with the wellkit that "
                "wrote it, or start the run again with --overwrite"
            )
        content = json.loads(header["standing"])
        return Standing(**{f.name: content[f.name] for f in fields(Standing)}), tensors


def _is_partial(path: Path) -> bool:
    """Whether a file is what a run that was killed before it had written anything whole has left."""
    return path.name.startswith(".") and path.name.endswith(".partial")


def read_config(run: Path) -> TrainConfig:
    """The configuration of the run in a folder.

    Raises:
        TrainingError: there is none, or it is damaged.
        DocumentError: it is of another version, or holds what no configuration does.
    """
    path = run / CONFIG
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise TrainingError(f"{run}: no run to resume here ({CONFIG} is missing); wellkit train writes one") from error
    except (OSError, ValueError, RecursionError) as error:
        raise TrainingError(f"{path}: damaged ({error}); start the run again with --overwrite") from error
    return TrainConfig.parse(content, source=str(path))


def _check_same(before: TrainConfig, now: TrainConfig, run: Path) -> None:
    for key in TrainConfig.model_fields:
        old, new = getattr(before, key), getattr(now, key)
        if key in _FREE or old == new:
            continue
        if key in _BUDGET and (new is None or (old is not None and new > old)):
            continue
        what = "is smaller than" if key in _BUDGET and old is not None else "is not that of"
        raise ConfigError(
            f"{run}: {key}={new!r} {what} the run to resume ({key}={old!r}); only epochs and hours may be raised, and "
            f"{', '.join(sorted(_FREE))} changed; train with other settings in a folder of their own (--to)"
        )


def _replace(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_text(text, encoding="utf-8")
        _flush(partial)
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise _unwritable(path, error) from error


def _unwritable(path: Path, error: Exception) -> StorageError:
    reason = " ".join(str(getattr(error, "strerror", None) or error).split())
    return StorageError(f"cannot write {path}: {reason}; free space, then go on with --resume, or choose another --to")


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
