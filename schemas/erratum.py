"""What is known to be wrong with published data or with what is said about them."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from wellkit.schemas.document import Model

Severity = Literal["info", "warning", "error"]
SEVERITIES: tuple[Severity, ...] = ("info", "warning", "error")
Concern = Literal["data", "statistics", "documentation"]


class Scope(Model):
    """The part of a dataset that an erratum is about. A key that is left out means "all of them"."""

    split: str | None = None
    file: str | None = Field(default=None, description="file name without folders; shell wildcards allowed")
    trajectories: tuple[int, ...] | None = Field(default=None, description="positions in the file, from 0")
    frames: tuple[int, int] | None = Field(default=None, description="first frame, and one past the last, from 0")
    field: str | None = Field(default=None, description="core name of a field")

    @model_validator(mode="after")
    def _check_range(self) -> Self:
        if self.frames is not None and not 0 <= self.frames[0] < self.frames[1]:
            raise ValueError(f"frames {self.frames[0]} to {self.frames[1]} are no range")
        if self.trajectories is not None and self.file is None:
            raise ValueError("trajectories are positions in a file, so the scope has to name the file")
        return self

    def describe(self) -> str:
        """One phrase for people: `train, chunk_11.hdf5, trajectory 47`; an empty scope is `whole dataset`."""
        parts = [part for part in (self.split, self.file) if part]
        if self.trajectories is not None:
            plural = "trajectory" if len(self.trajectories) == 1 else "trajectories"
            parts.append(f"{plural} {', '.join(map(str, self.trajectories))}")
        if self.frames is not None:
            parts.append(f"frames {self.frames[0]} to {self.frames[1] - 1}")
        if self.field:
            parts.append(f"field {self.field}")
        return ", ".join(parts) or "whole dataset"


class Erratum(Model):
    """One known problem. info: worth knowing; warning: mind it; error: do not use that part."""

    id: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$", description="stays the same for ever, unique in the card")
    summary: str = Field(min_length=1)
    scope: Scope = Scope()
    severity: Severity
    concerns: Concern = Field(default="data", description="what is wrong; only `data` is a reason to leave data out")
    since: str | None = Field(default=None, description="data version or date from which it holds")
    fixed_in: str | None = Field(default=None, description="data version or date from which it no longer holds")
    source: str = Field(min_length=1, description="who says so, or how it was found")
