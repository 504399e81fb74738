"""The cells of a grid, and where in its folder each of them has its run, its results and its predictions.

TO/benchmark.json                             the grid, as it was resolved
TO/runs/DATASET/MODEL/seedN/                  a training run
TO/results/DATASET/MODEL-seedN.PROTOCOL.json  and the baselines' results beside them
TO/predictions/DATASET/MODEL-seedN.PROTOCOL/  where they are kept, for a submission
TO/leaderboard.jsonl
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from wellkit.benchmark.protocols import get_protocol
from wellkit.schemas.benchmark import BenchmarkConfig, BenchmarkModel
from wellkit.schemas.training import TrainConfig
from wellkit.train.config import load_config
from wellkit.train.models import check_model_arguments
from wellkit.train.predictors import BASELINES

GRID = "benchmark.json"
BOARD = "leaderboard.jsonl"


@dataclass(frozen=True)
class Cell:
    """One dataset, model and seed; a baseline has no model to train.

    Attributes:
        name: of the model in folders.
        config: of its training; None for a baseline.
    """

    dataset: str
    name: str
    seed: int | None
    config: TrainConfig | None

    @property
    def label(self) -> str:
        """DATASET/MODEL-seedN."""
        return f"{self.dataset}/{self.name}" + ("" if self.seed is None else f"-seed{self.seed}")

    def run(self, to: Path) -> Path:
        """The folder of its training run."""
        return to / "runs" / self.dataset / self.name / f"seed{self.seed}"

    def result(self, to: Path, protocol: str) -> Path:
        """The file of its result."""
        return to / "results" / f"{self.label}.{protocol}.json"

    def predictions(self, to: Path, protocol: str) -> Path:
        """Where its predictions are kept for a submission."""
        return to / "predictions" / f"{self.label}.{protocol}"


def cells_of(config: BenchmarkConfig) -> tuple[Cell, ...]:
    """All cells: for every dataset the baselines, then every model with every seed.

    Raises:
        ConfigError, ArgumentError: a training key, model, argument or protocol that there is not; before anything runs.
    """
    for protocol in config.protocols:
        get_protocol(protocol)
    found = []
    for dataset in config.datasets:
        found += [Cell(dataset, name, None, None) for name in BASELINES]
        for model in config.models:
            found += [Cell(dataset, model.name, seed, _training(config, model, dataset, seed)) for seed in config.seeds]
    return tuple(found)


def _training(config: BenchmarkConfig, model: BenchmarkModel, dataset: str, seed: int) -> TrainConfig:
    own = {"dataset": dataset, "data": config.data, "model": model.model, "seed": seed}
    made = load_config(values={**config.training, **model.training, **own})
    check_model_arguments(made.model, made.model_arguments)
    return made
