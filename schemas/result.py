"""A score and everything needed to know what it is a score of."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self

from pydantic import Field

from wellkit.schemas.document import Document, Model
from wellkit.schemas.protocol import Protocol
from wellkit.schemas.training import DatasetIdentity, ModelArgument, Score

LONGEST_NAME = 200  # characters of a model's name: what a table can show
ModelKind = Literal["network", "baseline", "callable", "predictions"]


class ScoredModel(Model):
    """What was scored."""

    name: str = Field(
        min_length=1, max_length=LONGEST_NAME, description="fno, unet_convnext, persistence, or a name of its own"
    )
    kind: ModelKind
    arguments: dict[str, ModelArgument] = Field(default_factory=dict)
    parameters: int = 0
    n_steps_input: int = Field(gt=0)
    seed: int | None = None
    epochs: float | None = Field(default=None, description="epochs behind the weights")
    training_seconds: float | None = None
    samples_seen: int | None = Field(default=None, description="training windows, repetitions counted")
    energy_joules: float | None = Field(default=None, description="of the training, where the machine could tell")
    stall_share: float | None = Field(default=None, description="share of the training time spent waiting for data")
    training_hardware: str | None = None
    trained_on: DatasetIdentity | None = None
    weights_sha256: str | None = None
    predictions_sha256: str | None = Field(default=None, description="of the content of what was scored")
    statistics_sha256: str | None = Field(
        default=None, description="of the normalization (network) or of the mean (baseline), as canonical JSON"
    )
    checkpoint: str | None = Field(default=None, description="where the weights were read from")
    url: str | None = Field(default=None, description="where more is said about it")

    @property
    def configuration(self) -> tuple[str, str]:
        """Equal for runs that differ in their seed only."""
        return self.name, json.dumps(self.arguments, sort_keys=True)


class Scores(Model):
    """Figures over entries: one for each frame that was predicted and each component."""

    mean: Score = Field(description="over components, of their means over entries")
    median: Score = Field(description="over entries")
    pooled: Score = Field(description="over components, of sqrt(mean squared error / (mean variance + eps))")
    of_trajectories: Score = Field(description="median over trajectories of their means over entries")
    per_field: dict[str, Score] = Field(description="mean over entries; without components that are all flat")
    per_field_median: dict[str, Score]
    per_field_pooled: dict[str, Score]
    entries: int
    flat: int = Field(description="entries whose target hardly varies: whether they are scored, the protocol says")
    nonfinite: int = Field(description="entries predicted with NaN or infinity: each scores infinity")

    @property
    def flat_share(self) -> float:
        """Flat entries over entries."""
        return self.flat / self.entries


class OneStep(Scores):
    """Every window of the split, none left out."""

    windows: int
    spectral: dict[str, Score] | None = Field(
        default=None,
        description="spectral error by band of wavenumbers, over all windows: sqrt(mean squared error / "
        "(mean energy of the target's fluctuations + eps)), mean over components",
    )
    spectral_per_field: dict[str, dict[str, Score]] | None = None


class ValidLength(Model):
    """How many steps rollouts hold."""

    threshold: float
    mean: float
    median: float
    never_failed: int = Field(description="trajectories valid to their end: their true length is that or more")


class Drift(Model):
    """How far the total of a conserved quantity moves, as a share of what there was of it."""

    quantity: str
    component: str
    mean: Score = Field(description="over trajectories, of the largest |drift| along the rollout")
    target: Score = Field(description="the same of the data themselves")
    per_step: tuple[Score, ...] = Field(description="mean |drift| over trajectories, by step")


class Rollout(Scores):
    """The model fed its own output; step 1 is the first prediction. Steps are averaged trajectory by trajectory."""

    first_frame: int = Field(description="number of the first predicted frame, from 0")
    per_step: tuple[Score, ...] = Field(description="mean over trajectories of their mean over components")
    per_step_median: tuple[Score, ...] = Field(description="median over trajectories of their mean over components")
    per_field_and_step: dict[str, tuple[Score, ...]] = Field(description="mean over trajectories")
    windows: dict[str, Score] = Field(default_factory=dict, description="'a:b': headline figure over steps a to b")
    left_out: dict[str, str] = Field(default_factory=dict, description="windows without a figure, and why")
    trajectories: int
    trajectories_per_step: tuple[int, ...] = Field(description="trajectories that are long enough, by step")
    valid_length: ValidLength | None = None
    drift: tuple[Drift, ...] = ()


class TrajectoryScores(Model):
    """What one trajectory contributes: the figures above follow from these, and pairs are compared by them."""

    file: str
    trajectory: int = Field(description="number in its file")
    frames: int
    parameters: dict[str, float] = Field(default_factory=dict, description="of the simulation, as the file says")
    content_sha256: str
    windows: int
    one_step: dict[str, Score] = Field(description="mean over windows, by component")
    counted: dict[str, int] = Field(description="windows that count in it, by component")
    one_step_error: dict[str, Score] = Field(description="mean over windows of the mean squared error, by component")
    one_step_variance: dict[str, Score] = Field(description="mean over windows of the target's variance, by component")
    flat: int
    nonfinite: int
    rollout: tuple[Score, ...] = Field(description="mean over components, by step; NaN where all of them are flat")
    rollout_per_field: dict[str, Score] = Field(description="mean over steps, by component")
    rollout_counted: dict[str, int]
    rollout_flat: int
    rollout_nonfinite: int
    valid_length: int | None = None
    drift: dict[str, Score] = Field(default_factory=dict, description="largest |drift|, by quantity")

    @property
    def stratum(self) -> tuple[tuple[str, float], ...]:
        """The parameters, as a key: trajectories of equal parameters differ by their initial state alone."""
        return tuple(sorted(self.parameters.items()))


class Picture(Model):
    """A field as bytes: (x, y) values scaled to 0..255, row after row, base64."""

    step: int
    truth: str
    prediction: str


class Spectrum(Model):
    """Power by shell of wavenumbers at one step; Not-a-number is left out with its shell."""

    step: int
    wavenumber: tuple[float, ...] = Field(description="middle of each shell, radians a cell")
    truth: tuple[Score, ...]
    prediction: tuple[Score, ...]


class Example(Model):
    """Some frames of one rollout, for people to look at."""

    trajectory: int
    component: str
    shape: tuple[int, int]
    axes: tuple[str, str]
    extent: tuple[float, float] = Field(description="lengths of the domain along the axes drawn; 0 where unknown")
    low: float = Field(description="value of byte 0")
    high: float = Field(description="value of byte 255")
    pictures: tuple[Picture, ...]
    spectra: tuple[Spectrum, ...]


class DataUsed(Model):
    """Which bytes were scored against."""

    content_sha256: str = Field(description="of all frames of the split as read: of the digests of its trajectories")
    manifest_sha256: str | None = Field(
        default=None, description="of the paths and hashes of the tree's manifest; left out: there is none"
    )
    statistics_sha256: str | None = Field(
        default=None, description="of the statistics beside the data, as canonical JSON; left out: there were none"
    )
    dataset_version: str | None = Field(default=None, description="the card's; of generated data the generator's")


class RunRecord(Model):
    """How the scores were computed."""

    code_version: str
    hardware: str
    seconds: float = Field(description="wall-clock time of the evaluation")
    stall_share: float = Field(description="share of it spent waiting for data")
    rollout_batch: int = Field(default=1, description="rollouts side by side: fixed, so that it cannot change a score")
    created: str = Field(description="UTC, ISO 8601")


class Result(Document):
    """One model scored on one split."""

    KIND: ClassVar[str] = "result"
    VERSION: ClassVar[int] = 2

    model: ScoredModel
    dataset: DatasetIdentity
    data: DataUsed
    protocol: Protocol
    rollout_limit: int | None = Field(default=None, description="a limit of steps that was asked for; left out: none")
    one_step: OneStep
    rollout: Rollout
    trajectories: tuple[TrajectoryScores, ...]
    example: Example | None = None
    run: RunRecord
    sha256: str = Field(default="", description="of all the above as canonical JSON")

    @property
    def headline(self) -> float:
        """The number that ranks."""
        return headline_of(self.protocol, self.one_step)

    @property
    def comparable_id(self) -> str:
        """Equal for results that may stand in one table: same frames of the same dataset and split, same protocol."""
        return _short_hash(
            {
                "dataset": self.dataset.name,
                "version": self.data.dataset_version,
                "generator": self.dataset.generator,
                "split": self.dataset.split,
                "resolution": self.dataset.resolution,
                "content": self.data.content_sha256,
                "fields": self.dataset.fields,
                "protocol": self.protocol.definition_sha256,
                "n_steps_input": self.model.n_steps_input,
                "limit": self.rollout_limit,
            }
        )

    @property
    def id(self) -> str:
        """Equal for repetitions of one evaluation: the same weights (or baseline) under the same `comparable_id`."""
        model = self.model
        return _short_hash(
            {
                "comparable": self.comparable_id,
                "model": model.name,
                "seed": model.seed,
                "weights": model.weights_sha256,
                "predictions": model.predictions_sha256 if model.weights_sha256 is None else None,
                "statistics": model.statistics_sha256,
            }
        )

    def digest(self) -> str:
        """SHA-256 of everything but `sha256` itself."""
        content = {key: value for key, value in self.to_mapping().items() if key != "sha256"}
        text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()

    def sealed(self) -> Self:
        """The same result with its own hash."""
        return self.model_copy(update={"sha256": self.digest()})


def headline_of(protocol: Protocol, scores: Scores) -> float:
    """The figure of `scores` that a protocol ranks by."""
    return scores.mean if protocol.headline == "mean" else scores.of_trajectories


def content_hash(digests: Mapping[str, str] | Any) -> str:
    """Hash of a split from the digests of its trajectories, in order."""
    return hashlib.sha256("".join(digests).encode()).hexdigest()


def _short_hash(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
