"""A score and everything needed to know what it is a score of."""

from __future__ import annotations

import hashlib
import json
from typing import ClassVar, Literal

from pydantic import Field

from wellkit.schemas.document import Document, Model
from wellkit.schemas.training import DatasetIdentity, ModelArgument, Score


class ScoredModel(Model):
    """What was scored."""

    name: str = Field(description="fno, unet_convnext, persistence, mean")
    kind: Literal["network", "baseline"]
    arguments: dict[str, ModelArgument] = Field(default_factory=dict)
    parameters: int = 0
    n_steps_input: int
    seed: int | None = None
    epochs: int | None = Field(default=None, description="epochs behind the weights")
    training_seconds: float | None = None
    trained_on: DatasetIdentity | None = None
    weights_sha256: str | None = None
    statistics_sha256: str | None = Field(
        default=None, description="of the normalization (network) or of the mean (baseline), as canonical JSON"
    )
    checkpoint: str | None = Field(default=None, description="where the weights were read from")


class Protocol(Model):
    """How it was scored. Two scores are comparable where this and the data are equal."""

    name: Literal["wellkit-vrmse/1"] = "wellkit-vrmse/1"
    metric: Literal["vrmse"] = "vrmse"
    eps: float = Field(ge=0, description="added to the spatial variance of the target")
    n_steps_input: int = Field(gt=0)
    rollout_steps: int | None = Field(default=None, description="a limit that was asked for; left out: none")


class OneStep(Model):
    """Every window of the split, none left out; the mean over windows, then over components."""

    mean: Score
    median: Score = Field(description="over windows and components together")
    per_field: dict[str, Score] = Field(description="mean over windows, by component")
    windows: int
    nonfinite: int = Field(description="(window, component) pairs predicted with NaN or infinity: each scores infinity")


class Rollout(Model):
    """From the first frame of every trajectory, the model fed its own output; step 1 is the first prediction."""

    mean: Score = Field(description="over trajectories and steps, then over components")
    median: Score = Field(description="over trajectories, steps and components together")
    per_field: dict[str, Score] = Field(description="mean over trajectories and steps, by component")
    per_step: tuple[Score, ...] = Field(description="mean over trajectories and components, by step")
    per_field_and_step: dict[str, tuple[Score, ...]]
    windows: dict[str, Score] = Field(
        default_factory=dict,
        description="mean over steps a to b, both counted, as 'a:b'; left out where a trajectory is shorter",
    )
    trajectories: int
    trajectories_per_step: tuple[int, ...] = Field(description="trajectories that are long enough, by step")
    nonfinite: int = Field(
        description="(trajectory, step, component) entries predicted with NaN or infinity: each scores infinity"
    )


class Result(Document):
    """One model scored on one split."""

    KIND: ClassVar[str] = "result"

    model: ScoredModel
    dataset: DatasetIdentity
    content_sha256: str = Field(description="of all frames of the split as read: float32, file by file, in order")
    statistics_sha256: str | None = Field(
        default=None, description="of the statistics beside the data, as canonical JSON; left out: there were none"
    )
    protocol: Protocol
    one_step: OneStep
    rollout: Rollout
    code_version: str
    hardware: str
    seconds: float = Field(description="wall-clock time of the evaluation")
    created: str = Field(description="UTC, ISO 8601")

    @property
    def comparable_id(self) -> str:
        """Equal for results that may stand in one table: same frames of the same dataset and split, same protocol."""
        return _short_hash(
            {
                "dataset": self.dataset.name,
                "generator": self.dataset.generator,
                "split": self.dataset.split,
                "content": self.content_sha256,
                "fields": self.dataset.fields,
                "protocol": self.protocol.model_dump(mode="json"),
            }
        )

    @property
    def id(self) -> str:
        """Equal for repetitions of one evaluation: the same weights (or baseline) under the same `comparable_id`."""
        return _short_hash(
            {
                "comparable": self.comparable_id,
                "model": self.model.name,
                "weights": self.model.weights_sha256,
                "statistics": self.model.statistics_sha256,
            }
        )


def _short_hash(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
