"""What `run_under_torchrun` has every process do: the jobs in a file, one after the other."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.train.training import outcome_of
from wellkit.schemas.training import TrainConfig
from wellkit.settings import process_number


def main(log: Path) -> None:
    """Do the jobs; process 0 writes a line for each."""
    torch.set_num_threads(1)
    for content, to in json.loads(log.with_suffix(".jobs").read_text()):
        outcome = outcome_of(TrainConfig.parse(content, source="test"), Path(to))
        mine = log.with_name(f"{log.name}.{process_number()}")
        with mine.open("a") as file:
            file.write(json.dumps(outcome) + "\n")
        if process_number() == 0:
            with log.open("a") as file:
                file.write(json.dumps(outcome) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
