"""What a training run is asked to do, what it leaves behind, and which data it saw."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    PlainSerializer,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    model_validator,
)

from wellkit.errors import ConfigError, DocumentError
from wellkit.schemas.document import Document, Model

Normalization = Literal["zscore", "rms", "none"]
Precision = Literal["float32", "tf32", "bf16", "fp16"]
Strategy = Literal["ddp", "fsdp"]
Targets = Literal["state", "delta"]
Loss = Literal["mse", "vrmse"]
Tracker = Literal["tensorboard", "wandb"]
ModelArgument = StrictBool | StrictInt | StrictFloat | StrictStr

DEFAULT_EPOCHS = 20


def _write_number(value: float) -> float | str:
    if value != value:
        return "NaN"
    return value if value - value == 0.0 else ("Infinity" if value > 0 else "-Infinity")


# A number that may be infinite or NaN and says so in JSON, which has no word for it: "Infinity", "-Infinity",
# "NaN".
Score = Annotated[float, PlainSerializer(_write_number, when_used="json")]


def _path_as_text(value: object) -> object:
    return value if value is None or isinstance(value, str) else str(value)


class TrainConfig(Document):
    """Everything that decides what a training run does. In a TOML file: these keys, `schema` first."""

    KIND: ClassVar[str] = "train-config"

    dataset: str = Field(min_length=1, description="name of the dataset")
    data: Annotated[str | None, BeforeValidator(_path_as_text)] = Field(
        default=None,
        description="folder that holds NAME/data/...; left out: what was downloaded, else the Hub",
    )
    model: str = Field(default="fno", description="fno, tfno, unet_classic, unet_convnext or avit")
    model_arguments: dict[str, ModelArgument] = Field(
        default_factory=dict, description="arguments of the model beside those that follow from the data"
    )
    epochs: int | None = Field(default=None, gt=0, description="passes over the training split")
    hours: float | None = Field(default=None, gt=0, description="wall-clock budget; with epochs, whichever ends first")
    batch_size: int = Field(
        default=16,
        gt=0,
        description="windows of one optimizer step, over all processes and pieces; the last batch may be smaller",
    )
    accumulate: int = Field(
        default=1, gt=0, description="pieces a process cuts its share of a batch into, to save memory"
    )
    learning_rate: float = Field(default=1e-3, gt=0, description="peak learning rate of AdamW")
    weight_decay: float = Field(default=1e-2, ge=0, description="decoupled weight decay of AdamW")
    warmup_epochs: float = Field(default=1.0, ge=0, description="linear warm-up, in epochs; at most half of the run")
    seed: int = Field(default=0, ge=0, lt=2**63, description="of initial weights and of the order of samples")
    n_steps_input: int = Field(default=4, gt=0, description="steps the model sees")
    n_steps_output: int = Field(
        default=1, gt=0, description="steps the loss is taken over, the model fed its own output"
    )
    pushforward: bool = Field(
        default=False, description="loss and gradients of the last output step alone; the steps before only lead to it"
    )
    targets: Targets = Field(
        default="state", description="what the model predicts: the next state, or the change that leads to it"
    )
    loss: Loss = Field(
        default="mse",
        description="mse of normalized targets, or vrmse: every window and component weighs by its own variance",
    )
    clip_norm: float = Field(default=0.0, ge=0, description="largest norm of the gradient; 0 does not clip")
    ema_decay: float = Field(
        default=0.0, ge=0, lt=1, description="of the averaged weights that are validated and saved; 0 does not average"
    )
    precision: Precision = Field(
        default="float32", description="float32, tf32, bf16 or fp16, of training steps; validation is in float32"
    )
    deterministic: bool = Field(
        default=False, description="only operations that give the same numbers every time, also on a GPU"
    )
    compile: bool = Field(default=False, description="compile the model with torch.compile for training steps")
    strategy: Strategy = Field(
        default="ddp", description="of several processes: ddp (each holds the whole model) or fsdp (each a share of it)"
    )
    checkpoint_every: int = Field(
        default=500, ge=0, description="steps between states to resume from, besides one an epoch; 0 is epochs only"
    )
    trackers: tuple[Tracker, ...] = Field(default=(), description="tensorboard, wandb; the log is written anyway")
    device: str = Field(default="auto", description="auto (a GPU if there is one), cpu, cuda, cuda:1, ...")
    workers: int = Field(default=0, ge=0, description="processes that read ahead; 0 reads in the main process")
    normalization: Normalization = Field(default="zscore", description="zscore, rms or none")

    @model_validator(mode="before")
    @classmethod
    def _some_budget(cls, content: Any) -> Any:
        if isinstance(content, dict) and content.get("epochs") is None and content.get("hours") is None:
            return {**content, "epochs": DEFAULT_EPOCHS}
        return content

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.pushforward and self.n_steps_output < 2:
            raise ValueError("pushforward = true needs n_steps_output of 2 or more: it trains on the last of them")
        if self.targets == "delta" and self.normalization == "none":
            raise ValueError("targets = 'delta' needs normalization 'zscore' or 'rms', whose delta statistics it uses")
        if self.loss == "vrmse" and self.normalization == "none":
            raise ValueError("loss = 'vrmse' needs normalization 'zscore' or 'rms': its units tell flat frames")
        if self.strategy == "fsdp" and self.precision == "fp16":
            raise ValueError("strategy = 'fsdp' does not work with precision = 'fp16'; use 'bf16'")
        if self.accumulate > self.batch_size:
            raise ValueError(f"accumulate = {self.accumulate} pieces of a batch_size of {self.batch_size}; use fewer")
        return self

    @classmethod
    def create(cls, dataset: str, **keys: Any) -> Self:
        """A configuration from keyword arguments, without writing `schema` out.

        Raises:
            ConfigError: a key is unknown or its value cannot be used.
        """
        try:
            return cls.parse({"schema": cls.schema_name(), "dataset": dataset, **keys}, source="configuration")
        except DocumentError as error:
            raise ConfigError(str(error)) from error


class DatasetIdentity(Model):
    """Which data: enough to tell one resolution, release or origin from another."""

    name: str
    generator: str | None = Field(
        default=None, description="what generated it, as its files say; left out: published data or a user's own"
    )
    split: str
    location: str
    files: tuple[str, ...] = Field(description="names of the shards, in order")
    trajectories: tuple[int, ...] = Field(description="trajectories in each shard")
    steps: tuple[int, ...] = Field(description="frames of each shard's trajectories")
    resolution: tuple[int, ...]
    fields: tuple[str, ...] = Field(description="components of the time-varying fields, in channel order")
    constant_fields: tuple[str, ...] = ()


class StatisticsUsed(Model):
    """The normalization a model was trained with. It travels with the weights."""

    kind: Literal["zscore", "rms"]
    path: str = Field(description="where it was read from")
    sha256: str = Field(description="of the values as canonical JSON")
    min_denom: float = Field(description="smallest divisor")
    values: dict[str, dict[str, Any]]
    fields: tuple[str, ...] = Field(description="core names of the time-varying fields, in channel order")
    constant_fields: tuple[str, ...] = ()
    targets: Targets = Field(
        default="state", description="what the model predicts; the change is normalized with the delta statistics"
    )


class CheckpointRecord(Document):
    """`checkpoint.json`: everything about the weights beside it."""

    KIND: ClassVar[str] = "checkpoint"

    model: str
    model_arguments: dict[str, ModelArgument]
    parameters: int
    dim_in: int
    dim_out: int
    config: TrainConfig
    dataset: DatasetIdentity
    statistics: StatisticsUsed | None = None
    epoch: int = Field(description="epochs finished")
    step: int
    train_loss: Score
    valid_vrmse: Score = Field(description="one-step VRMSE over every window of the validation split")
    seconds: float = Field(description="wall-clock time since training began")
    seed: int
    code_version: str
    hardware: str
    created: str
    weights_sha256: str = Field(description="of model.safetensors")
    targets: Targets = Field(default="state", description="what the model predicts: the next state, or the change")
    samples_seen: int = Field(default=0, description="windows trained on, counted every time; 0: not recorded")
    stall_share: float = Field(default=0.0, description="share of the time of training steps spent waiting for data")
    energy_joules: float | None = Field(
        default=None, description="of processors (RAPL) and GPUs (NVML) since training began; left out: not known"
    )
    processes: int = Field(default=1, description="that trained together")


class TrainReport(Document):
    """What a finished run amounts to; `report.json` of the run's folder."""

    KIND: ClassVar[str] = "train-report"

    run: str = Field(description="the run's folder")
    dataset: str
    model: str
    parameters: int
    seed: int
    epochs: int
    steps: int
    stopped_by: Literal["epochs", "hours"]
    best_epoch: int
    best_valid_vrmse: Score
    last_valid_vrmse: Score
    last_train_loss: Score
    seconds: float
    samples_per_second: float = Field(description="over the training part of the last epoch")
    stall_share: float = Field(description="share of training time spent waiting for data")
    hardware: str
    samples_seen: int = Field(default=0, description="windows trained on, counted every time")
    energy_joules: float | None = Field(default=None, description="as in a checkpoint")
    processes: int = Field(default=1, description="that trained together")
