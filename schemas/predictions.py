"""What a set of predictions says of itself: which model predicted what, so that it can be scored without the model."""

from __future__ import annotations

from typing import Annotated, ClassVar, Self

from pydantic import Field, model_validator

from wellkit.schemas.document import Document, Model

# Names are printed in tables and messages of one line, and on terminals that obey control characters.
Name = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f-\x9f]+$")]


class PredictingModel(Model):
    """The model that predicted, in its author's words: nothing of it can be checked from the predictions."""

    name: Name = Field(description="as a leaderboard shows it")
    parameters: int | None = Field(default=None, ge=0, description="trainable parameters")
    seed: int | None = Field(default=None, description="of its training")
    epochs: float | None = Field(default=None, ge=0, allow_inf_nan=False, description="passes over the training split")
    training_seconds: float | None = Field(default=None, ge=0, allow_inf_nan=False, description="wall-clock time")
    samples_seen: int | None = Field(default=None, ge=0, description="training windows seen, repetitions counted")
    url: str | None = Field(default=None, pattern=r"^https?://\S+$", description="of a paper or the code")
    notes: str | None = None


class PredictedTrajectory(Model):
    """How much is predicted of one trajectory."""

    windows: int = Field(ge=0, description="one-step predictions: stored frames - n_steps_input")
    rollout_steps: int = Field(ge=0, description="steps of the rollout")


class PredictionsDescription(Document):
    """The content of `predictions.json`."""

    KIND: ClassVar[str] = "predictions"

    model: PredictingModel
    dataset: Name = Field(description="name of the dataset")
    split: Name = Field(description="train, valid or test")
    protocol: Name = Field(description="name of the protocol they were made for, e.g. well-2024")
    n_steps_input: int = Field(gt=0, description="true frames that a prediction is made from")
    first_frame: int = Field(
        gt=0, description="number, from 0, of the first frame that rollouts predict; n_steps_input: from the start"
    )
    fields: tuple[Name, ...] = Field(min_length=1, description="names of the components, in the order of the last axis")
    resolution: tuple[int, ...] = Field(min_length=1, max_length=3, description="grid points along each axis")
    trajectories: tuple[PredictedTrajectory, ...] = Field(
        min_length=1, description="all of the split: file by file in order of their names, then as stored"
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(set(self.fields)) < len(self.fields):
            raise ValueError(f"names of components repeat: {', '.join(self.fields)}")
        if min(self.resolution) < 1:
            raise ValueError(f"resolution {list(self.resolution)} has to be positive")
        if self.first_frame < self.n_steps_input:
            raise ValueError(
                f"first_frame {self.first_frame} leaves fewer true frames before it than n_steps_input, "
                f"{self.n_steps_input}"
            )
        return self

    @property
    def frame_shape(self) -> tuple[int, ...]:
        """(space..., component)."""
        return (*self.resolution, len(self.fields))

    def shape(self, part: str, trajectory: int) -> tuple[int, ...]:
        """(window or step, space..., component) of the array of a trajectory in part "one_step" or "rollout"."""
        promised = self.trajectories[trajectory]
        return (promised.windows if part == "one_step" else promised.rollout_steps, *self.frame_shape)
