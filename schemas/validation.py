"""What validation says of a tree: the findings, and enough to know what was looked at."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from wellkit.schemas.document import Document, Model
from wellkit.schemas.erratum import Severity
from wellkit.schemas.statistics import Statistics


class Finding(Model):
    """One thing that is wrong, or worth knowing, and where. A key that is left out means "all of them"."""

    code: str = Field(pattern=r"^[a-z][a-z-]*$", description="stays the same for ever; docs/validate.md lists them")
    severity: Severity
    message: str = Field(min_length=1, description="what was expected, and what was found")
    advice: str = Field(min_length=1, description="what to do next")
    split: str | None = None
    shard: str | None = Field(default=None, description="path below the location")
    trajectory: int | None = Field(default=None, ge=0, description="position in the shard, from 0")
    frames: tuple[int, int] | None = Field(default=None, description="first frame, and one past the last, from 0")
    field: str | None = Field(default=None, description="name in the shard")

    @model_validator(mode="after")
    def _check_range(self) -> Self:
        if self.frames is not None and not 0 <= self.frames[0] < self.frames[1]:
            raise ValueError(f"frames {self.frames[0]} to {self.frames[1]} are no range")
        return self

    @property
    def place(self) -> str:
        """One phrase for people: `chunk_11.hdf5, trajectory 47, frames 3 to 5, density`."""
        parts = [self.shard or self.split or "the tree"]
        if self.trajectory is not None:
            parts.append(f"trajectory {self.trajectory}")
        if self.frames is not None:
            first, last = self.frames[0], self.frames[1] - 1
            parts.append(f"frame {first}" if first == last else f"frames {first} to {last}")
        if self.field is not None:
            parts.append(self.field)
        return ", ".join(parts)


class SplitSummary(Model):
    """What was read of one split."""

    shards: int
    trajectories: int
    frames: int = Field(description="of all trajectories together")
    bytes: int = Field(description="of the files")


class ValidationReport(Document):
    """Everything that one validation found, the worst first."""

    KIND: ClassVar[str] = "validation-report"

    location: str
    dataset: str | None = Field(default=None, description="the name that the shards give")
    card: str | None = Field(default=None, description="the card it was held against, and where that came from")
    verdict: Literal["pass", "fail"] = Field(description="fail: there are errors")
    counts: dict[Severity, int] = Field(description="of all findings, listed or not")
    findings: tuple[Finding, ...] = ()
    unlisted: dict[str, int] = Field(
        default_factory=dict, description="by code, findings left out because there are many of their kind"
    )
    splits: dict[str, SplitSummary] = Field(default_factory=dict, description='by name; "" for a folder of shards')
    statistics: dict[str, Statistics] = Field(default_factory=dict, description="as computed, by split")
    statistics_sha256: str | None = Field(default=None, description="of the training split's, as computed")
    data_checked: bool = Field(description="whether the values were read, and not only the headers")
    seconds: float
    bytes_read: int = Field(description="decoded bytes of fields")
    created: str = Field(description="UTC, ISO 8601")
    wellkit_version: str

    @property
    def tally(self) -> str:
        """One phrase: `1 error, 0 warnings, 3 info`."""
        plural = {"error": "errors", "warning": "warnings"}
        return ", ".join(
            f"{count} {severity if count == 1 else plural.get(severity, severity)}"
            for severity, count in self.counts.items()
        )
