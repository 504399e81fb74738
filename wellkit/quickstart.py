"""The main road in one go: generate a small dataset, train two models, score them beside baselines, picture it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from wellkit.benchmark import leaderboard
from wellkit.benchmark.contenders import prepare
from wellkit.benchmark.evaluate import How, evaluate_contender, save_result
from wellkit.benchmark.examples import rollout_example
from wellkit.benchmark.pictures import animate_rollout, draw_rollout
from wellkit.generation.generate import generate
from wellkit.schemas.result import Result
from wellkit.schemas.training import ModelArgument, TrainConfig, TrainReport
from wellkit.train.data import choose_device
from wellkit.train.loop import train
from wellkit.train.progress import Progress

DATASET = "turbulent_radiative_layer_2D"
BASELINES = ("persistence", "mean")


@dataclass(frozen=True)
class ModelPlan:
    """One model of the quickstart: its arguments and its training budget."""

    model: str
    arguments: Mapping[str, ModelArgument]
    epochs: int
    learning_rate: float


@dataclass(frozen=True)
class QuickstartPlan:
    """How much the quickstart does.

    The defaults are small enough for two cores and a few minutes. Frames keep the original's spacing and domain, so
    that the task is the original's at a lower resolution.
    """

    resolution: tuple[int, int] = (32, 96)
    cooling_times: tuple[float, ...] = (0.06, 0.32, 1.78)
    trajectories: int = 12
    steps: int | None = None
    batch_size: int = 8
    rollout_steps: int = 30
    models: tuple[ModelPlan, ...] = field(
        default=(
            ModelPlan(
                "fno",
                {
                    "hidden_channels": 24,
                    "lifting_channels": 48,
                    "projection_channels": 48,
                    "modes1": 16,
                    "modes2": 24,
                },
                epochs=3,
                learning_rate=5e-3,
            ),
            ModelPlan("unet_convnext", {"init_features": 10, "layer_scale": 0.1}, epochs=3, learning_rate=1e-2),
        )
    )


@dataclass(frozen=True)
class QuickstartReport:
    """What the quickstart left on disk, and the scores it measured."""

    dataset: Path
    trained: tuple[TrainReport, ...]
    results: tuple[Result, ...]
    board: Path
    picture: Path
    animation: Path


class Watcher(Protocol):
    """Is told how far the quickstart is."""

    def stage(self, title: str) -> None:
        """A new piece of work begins."""

    def simulated(self, done: int, total: int) -> None:
        """So many trajectories are simulated."""

    def training(self, progress: Progress) -> None:
        """A batch was learned from, or validated."""

    def scoring(self, progress: Progress) -> None:
        """A batch was scored."""


def quickstart(
    to: str | os.PathLike[str], watcher: Watcher, *, seed: int = 0, plan: QuickstartPlan | None = None
) -> QuickstartReport:
    """Generate, train, score and picture, below the folder `to`. What is there from an earlier quickstart is replaced.

    Leaves `data/` (the dataset), `runs/MODEL/` (checkpoints and logs), `predictions/MODEL/`, `results/MODEL.json`,
    `leaderboard.jsonl`, and `rollout.png` and `rollout.gif` of the model with the best one-step score.

    Args:
        seed: of the simulations and of the training.

    Raises:
        StorageError: `to` cannot be written.
        TrainingError: a training run diverged.
    """
    chosen = plan or QuickstartPlan()
    base = Path(to)
    data = base / "data"
    watcher.stage(f"simulating {chosen.trajectories} trajectories of {DATASET} at {_by(chosen.resolution)} points")
    generated = generate(
        DATASET,
        data,
        resolution=chosen.resolution,
        trajectories=chosen.trajectories,
        steps=chosen.steps,
        seed=seed,
        parameters={"tcool": chosen.cooling_times},
        overwrite=True,
        progress=watcher.simulated,
    )
    trained = []
    for model in chosen.models:
        watcher.stage(f"training {model.model} for {model.epochs} epochs")
        config = TrainConfig.create(
            DATASET,
            data=str(data),
            model=model.model,
            model_arguments=dict(model.arguments),
            epochs=model.epochs,
            batch_size=chosen.batch_size,
            learning_rate=model.learning_rate,
            # What learns most in so few steps, also of trajectories in which little changes.
            targets="delta",
            loss="vrmse",
            clip_norm=1.0,
            seed=seed,
        )
        trained.append(train(config, base / "runs" / model.model, progress=watcher.training, overwrite=True))
    device = choose_device("auto")
    results = {}
    board = base / "leaderboard.jsonl"
    board.unlink(missing_ok=True)
    shutil.rmtree(base / "predictions", ignore_errors=True)
    for name in (*BASELINES, *(model.model for model in chosen.models)):
        watcher.stage(f"scoring {name}")
        contender = prepare(
            name if name in BASELINES else base / "runs" / name,
            data=data,
            dataset=DATASET,
            split="test",
            n_steps_input=4 if name in BASELINES else None,
            device=device,
        )
        predictions = None if name in BASELINES else base / "predictions" / name
        result = evaluate_contender(
            contender,
            How(rollout_steps=chosen.rollout_steps),
            save_predictions=predictions,
            progress=watcher.scoring,
        )
        save_result(result, base / "results" / f"{name}.json")
        leaderboard.add([result], board, predictions=predictions, data=data)
        results[name] = (result, contender)
    best = min((model.model for model in chosen.models), key=lambda name: results[name][0].one_step.mean)
    watcher.stage(f"drawing a rollout of {best}")
    example = rollout_example(results[best][1], max_steps=chosen.rollout_steps)
    return QuickstartReport(
        dataset=generated.path,
        trained=tuple(trained),
        results=tuple(result for result, _ in results.values()),
        board=board,
        picture=draw_rollout(example, base / "rollout.png", fields=("density", "velocity_y")),
        animation=animate_rollout(example, base / "rollout.gif", fields=("density",)),
    )


def _by(resolution: tuple[int, ...]) -> str:
    return " x ".join(map(str, resolution))
