"""The state of a run as tensors and counts, so that a run that goes on from it is the run that was never stopped."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from wellkit.errors import TrainingError
from wellkit.train.processes import Processes
from wellkit.train.run_folder import STATE, RunFolder, Standing
from wellkit.train.steps import Learner


def seed_generators(seed: int, processes: Processes) -> None:
    """Seed torch's generators, for what models draw while training; every process has numbers of its own."""
    mixed = torch.Generator().manual_seed((seed + 7919 * processes.number) % 2**63)
    torch.manual_seed(int(torch.randint(2**62, (1,), generator=mixed)))


def save_state(run: RunFolder, learner: Learner, standing: Standing, processes: Processes) -> None:
    """Write the state to resume from: every process has to come here at once; process 0 writes.

    Raises:
        StorageError: it cannot be written; the one before it is still whole.
    """
    tensors = learner.tensors()
    for number, generators in enumerate(processes.gather(_generators(processes.device))):
        tensors |= {f"random.{number}.{kind}": state for kind, state in generators.items()}
    standing.scaler = processes.scaler.state_dict() if processes.scaler is not None else {}
    processes.together(run.save_state, standing, tensors, first_only=True)


def load_state(run: RunFolder, learner: Learner, processes: Processes, data: dict[str, Any]) -> Standing:
    """Put everything back as it was, in every process.

    A process that was not there when the state was saved has fresh random numbers.

    Raises:
        TrainingError: the state is damaged, or was that of another model or of other data.
    """
    standing, tensors = run.load_state()
    if standing.data != data:
        raise TrainingError(
            f"{run.path / STATE}: the data are not those the run began with ({data}, then {standing.data}); "
            "put those back, or start the run again with --overwrite"
        )
    try:
        learner.restore(tensors)
    except (KeyError, RuntimeError) as error:
        raise TrainingError(
            f"{run.path / STATE}: does not fit the model ({' '.join(str(error).split())[:120]}); "
            "start the run again with --overwrite"
        ) from error
    mine = f"random.{processes.number}."
    if mine + "cpu" in tensors:
        torch.set_rng_state(tensors[mine + "cpu"])
    if processes.device.type == "cuda" and mine + "cuda" in tensors:
        torch.cuda.set_rng_state(tensors[mine + "cuda"], processes.device)
    if processes.scaler is not None and standing.scaler:
        processes.scaler.load_state_dict(standing.scaler)
    return standing


def _generators(device: torch.device) -> dict[str, Tensor]:
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states
