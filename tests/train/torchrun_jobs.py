"""What `run_under_torchrun` has every process do: the jobs in a file, one after the other."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.train.training import Job
from wellkit.settings import process_number


def main(log: Path) -> None:
    """Do the jobs; each process writes a line for each."""
    torch.set_num_threads(1)
    for content in json.loads(log.with_suffix(".jobs").read_text()):
        outcome = Job.read(content).outcome()
        with log.with_name(f"{log.name}.{process_number()}").open("a") as file:
            file.write(json.dumps(outcome) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
