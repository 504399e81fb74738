"""What a benchmark is asked to do: datasets, models and seeds, and how to train and score them."""

from __future__ import annotations

from typing import Any, ClassVar, Self

from pydantic import Field, model_validator

from wellkit.schemas.document import Document, Model


class BenchmarkModel(Model):
    """One model of a grid."""

    model: str = Field(description="fno, tfno, unet_classic, unet_convnext or avit")
    label: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        description="its name in folders, where one model stands in a grid twice; left out: the model's",
    )
    training: dict[str, Any] = Field(
        default_factory=dict, description="keys of a training configuration, over those of the whole grid"
    )

    @property
    def name(self) -> str:
        """Its name in folders."""
        return self.label or self.model


class BenchmarkConfig(Document):
    """A grid. In a TOML file: these keys, `schema` first, models as [[models]], training keys as [training]."""

    KIND: ClassVar[str] = "benchmark-config"

    datasets: tuple[str, ...] = Field(min_length=1, description="names of datasets")
    data: str | None = Field(
        default=None, description="folder that holds <dataset>/data/...; left out: what was downloaded, else the Hub"
    )
    models: tuple[BenchmarkModel, ...] = Field(min_length=1)
    seeds: tuple[int, ...] = Field(default=(0,), min_length=1, description="of initial weights and sample order")
    protocols: tuple[str, ...] = Field(default=("wellkit-1",), min_length=1, description="results are made under each")
    split: str = Field(default="test", description="that is scored: test or valid")
    rollout_steps: int | None = Field(default=None, gt=0, description="longest rollout; left out: whole trajectories")
    training: dict[str, Any] = Field(
        default_factory=dict, description="keys of a training configuration, for all models (see wellkit train)"
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        for what, names in (
            ("datasets", self.datasets),
            ("models (give one a label)", [model.name for model in self.models]),
            ("seeds", self.seeds),
            ("protocols", self.protocols),
        ):
            if len(set(names)) < len(names):
                raise ValueError(f"{what} repeat: {', '.join(map(str, names))}")
        if min(self.seeds) < 0:
            raise ValueError(f"seeds are whole numbers from 0 up, found {min(self.seeds)}")
        for keys in (self.training, *(model.training for model in self.models)):
            fixed = [key for key in ("dataset", "data", "model", "seed", "schema") if key in keys]
            if fixed:
                raise ValueError(f"training names {fixed[0]!r}, which the grid itself sets")
        return self
