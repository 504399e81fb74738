"""The quickstart, smaller and with shorter training: what it leaves, and that it can be run again over itself."""

from __future__ import annotations

from pathlib import Path

from wellkit.benchmark import leaderboard
from wellkit.benchmark.standings import standings
from wellkit.quickstart import DATASET, ModelPlan, QuickstartPlan, quickstart
from wellkit.train import Progress

PLAN = QuickstartPlan(
    resolution=(16, 48),
    cooling_times=(0.1,),
    trajectories=3,
    steps=8,
    rollout_steps=4,
    models=(
        ModelPlan("fno", {"modes1": 4, "modes2": 4, "hidden_channels": 4}, epochs=1, learning_rate=1e-3),
        ModelPlan("unet_convnext", {"init_features": 4, "stages": 2}, epochs=1, learning_rate=1e-3),
    ),
)


class Notes:
    """A watcher that remembers the stages."""

    def __init__(self) -> None:
        self.stages: list[str] = []

    def stage(self, title: str) -> None:
        self.stages.append(title)

    def simulated(self, done: int, total: int) -> None:
        assert done <= total == 3

    def training(self, progress: Progress) -> None:
        assert progress.phase in ("train", "valid", "epoch")

    def scoring(self, progress: Progress) -> None:
        assert progress.phase in ("one-step", "rollout")


def test_the_quickstart_leaves_what_it_promises_and_can_be_run_again(tmp_path: Path) -> None:
    notes = Notes()
    first = quickstart(tmp_path, notes, plan=PLAN)
    again = quickstart(tmp_path, Notes(), plan=PLAN)
    assert [result.model.name for result in first.results] == ["persistence", "mean", "fno", "unet_convnext"]
    assert [result.one_step.mean for result in again.results] == [result.one_step.mean for result in first.results]
    assert notes.stages[0] == f"simulating 3 trajectories of {DATASET} at 16 x 48 points"
    for name in (
        "data",
        "runs/fno/best",
        "predictions/unet_convnext",
        "results/mean.json",
        "rollout.png",
        "rollout.gif",
    ):
        assert (tmp_path / name).exists()
    [table] = standings(leaderboard.read(again.board))
    assert sorted((row.name, row.kind) for row in table.rows) == [
        ("fno", "recomputed"),
        ("mean", "baseline"),
        ("persistence", "baseline"),
        ("unet_convnext", "recomputed"),
    ]
