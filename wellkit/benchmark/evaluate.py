"""One model, one split, one result: VRMSE one step ahead over every window, and over rollouts, with provenance.

The protocol `wellkit-vrmse/1`:

1. Fields in physical units as stored, float32; VRMSE (see `wellkit.metrics.vrmse`) per frame and component in
   float64, with the eps the result names.
2. One step: every window of `n_steps_input` + 1 consecutive frames of the split, none left out, whatever the
   batch size; mean over windows, then over components.
3. Rollout: from the first frame of every trajectory, `n_steps_input` true frames, then the model's own output
   to the end of the trajectory (or the limit asked for). Step 1 is the first prediction. Means over
   trajectories and steps, then over components; steps 6 to 12 and 13 to 30 by themselves where every
   trajectory is that long.
4. A prediction with a NaN or an infinity scores infinity in its frame and component, is counted, and so makes
   every mean it is part of infinite. Nothing is clipped or dropped.
5. Points whose target is NaN, where the dataset's card says that NaN means outside the domain, are left out
   of the sums; any other NaN or infinity in the data is an error.
"""

from __future__ import annotations

import hashlib
import math
import time
from pathlib import Path

import numpy as np

from wellkit.benchmark.contenders import Contender, prepare
from wellkit.benchmark.results import load_result, save_result
from wellkit.benchmark.rollout import RolloutScores, plan_rollouts, score_rollouts
from wellkit.datasets.well import WellDataset
from wellkit.errors import ArgumentError
from wellkit.metrics import DEFAULT_EPS
from wellkit.schemas.result import OneStep, Protocol, Result, Rollout
from wellkit.train.data import Batch, Batches, choose_device, components, hash_of_statistics, identify
from wellkit.train.progress import ProgressCallback, silent
from wellkit.train.provenance import code_version, hardware, now
from wellkit.train.scoring import WindowScores, score_windows
from wellkit.windows import WindowTable

__all__ = ["ROLLOUT_WINDOWS", "evaluate", "evaluate_contender", "load_result", "save_result"]

# Steps of a rollout, both ends counted, that The Well's paper reports (arXiv 2412.00568).
ROLLOUT_WINDOWS = ((6, 12), (13, 30))


def evaluate(
    model: str | Path,
    *,
    data: str | Path | None = None,
    dataset: str | None = None,
    split: str = "test",
    eps: float = DEFAULT_EPS,
    n_steps_input: int | None = None,
    rollout_steps: int | None = None,
    batch_size: int = 16,
    workers: int = 0,
    device: str = "auto",
    progress: ProgressCallback | None = None,
) -> Result:
    """Score a model by the protocol above.

    Memory: one batch of windows or a piece of a rollout of at most half a GiB of fields, plus 8 bytes per
    frame and component that is scored.

    Args:
        model: "persistence", "mean" (the train statistics' mean of each component), or the folder of a run or
            checkpoint.
        data: folder that holds `<dataset>/data/...`; None for the one a checkpoint was trained on, or for
            what was downloaded.
        dataset: its name; None for the one a checkpoint was trained on. A baseline needs one.
        split: train, valid or test.
        eps: of the VRMSE, in the square of the fields' units.
        n_steps_input: of a baseline; 4 by default.
        rollout_steps: longest rollout; None for whole trajectories.
        batch_size: windows (or trajectories) at once; changes speed and memory, not the score.
        workers: processes that read ahead.
        device: auto, cpu, cuda, ...
        progress: called after every batch.

    Raises:
        ArgumentError: arguments make no sense.
        TrainingError, DocumentError: the checkpoint cannot be used.
        DataValueError: NaN in the data where the card allows none.
        WellkitError: as `WellDataset` does where the data cannot be used.
    """
    chosen = choose_device(device)
    contender = prepare(model, data=data, dataset=dataset, split=split, n_steps_input=n_steps_input, device=chosen)
    return evaluate_contender(
        contender,
        eps=eps,
        rollout_steps=rollout_steps,
        batch_size=batch_size,
        workers=workers,
        progress=progress,
    )


def evaluate_contender(
    contender: Contender,
    *,
    eps: float = DEFAULT_EPS,
    rollout_steps: int | None = None,
    batch_size: int = 16,
    workers: int = 0,
    progress: ProgressCallback | None = None,
) -> Result:
    """As `evaluate`, for any predictor that was set before a split."""
    if not 0 <= eps < math.inf:
        raise ArgumentError(f"eps={eps}; give a number from 0 up, e.g. {DEFAULT_EPS:g}")
    for name, value, least in (
        ("batch_size", batch_size, 1),
        ("rollout_steps", rollout_steps, 1),
        ("workers", workers, 0),
    ):
        if value is not None and value < least:
            raise ArgumentError(f"{name}={value}; give a whole number from {least} up")
    report = progress or silent
    began = time.perf_counter()
    content = _ContentHash(contender.windows)
    batches = Batches(contender.windows, batch_size=batch_size, workers=workers, device=contender.device)
    windows = score_windows(
        contender.predictor,
        batches,
        eps=eps,
        split=contender.split,
        allowed=contender.allowed,
        phase="one-step",
        on_batch=content.update,
        progress=report,
    )
    plan = plan_rollouts(
        contender.name,
        contender.data,
        contender.split,
        n_steps_input=contender.n_steps_input,
        batch_size=batch_size,
        max_steps=rollout_steps,
    )
    rollouts = score_rollouts(
        contender.predictor,
        plan,
        device=contender.device,
        eps=eps,
        split=contender.split,
        allowed=contender.allowed,
        workers=workers,
        progress=report,
    )
    names = components(contender.windows)
    return Result(
        schema_=Result.schema_name(),
        model=contender.described,
        dataset=identify(contender.windows, contender.split),
        content_sha256=content.digest(),
        statistics_sha256=hash_of_statistics(contender.windows),
        protocol=Protocol(eps=eps, n_steps_input=contender.n_steps_input, rollout_steps=rollout_steps),
        one_step=_one_step(windows, names),
        rollout=_rollout(rollouts, names),
        code_version=code_version(),
        hardware=hardware(contender.device),
        seconds=time.perf_counter() - began,
        created=now(),
    )


def _one_step(scores: WindowScores, names: tuple[str, ...]) -> OneStep:
    per_field = scores.vrmse.mean(axis=0)
    return OneStep(
        mean=float(per_field.mean()),
        median=float(np.median(scores.vrmse)),
        per_field=dict(zip(names, per_field.tolist(), strict=True)),
        windows=len(scores.vrmse),
        nonfinite=scores.nonfinite,
    )


def _rollout(scores: RolloutScores, names: tuple[str, ...]) -> Rollout:
    n_steps = scores.vrmse.shape[1]
    there = np.arange(n_steps) < scores.lengths[:, None]  # (trajectory, step)
    entries = scores.vrmse[there]  # (entry, component)
    per_field = entries.mean(axis=0)
    stepwise = np.stack([scores.vrmse[there[:, step], step].mean(axis=0) for step in range(n_steps)])
    shortest = int(scores.lengths.min())
    return Rollout(
        mean=float(per_field.mean()),
        median=float(np.median(entries)),
        per_field=dict(zip(names, per_field.tolist(), strict=True)),
        per_step=tuple(stepwise.mean(axis=1).tolist()),
        per_field_and_step={name: tuple(stepwise[:, i].tolist()) for i, name in enumerate(names)},
        windows={
            f"{first}:{last}": float(scores.vrmse[:, first - 1 : last].mean())
            for first, last in ROLLOUT_WINDOWS
            if last <= shortest
        },
        trajectories=len(scores.lengths),
        trajectories_per_step=tuple(int(n) for n in there.sum(axis=0)),
        nonfinite=scores.nonfinite,
    )


class _ContentHash:
    """SHA-256 of a split's frames, from its windows in order: per trajectory the constant fields, then every frame.

    Bytes are little-endian float32, channels last, so neither compression nor the cut into windows matters.
    """

    def __init__(self, dataset: WellDataset) -> None:
        metadata = dataset.metadata
        self._table = WindowTable(metadata.n_trajectories_per_file, dataset.n_windows_per_trajectory)
        self._hash = hashlib.sha256()

    def update(self, batch: Batch) -> None:
        for place, index in enumerate(batch.indices):
            parts = [batch.outputs[place]]
            if self._table.locate(index).start == 0:
                parts.insert(0, batch.inputs[place])
                if batch.constants is not None:
                    parts.insert(0, batch.constants[place])
            for part in parts:
                self._hash.update(np.ascontiguousarray(part.cpu().numpy(), dtype="<f4").data)

    def digest(self) -> str:
        return self._hash.hexdigest()
