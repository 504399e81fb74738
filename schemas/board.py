"""A line of a leaderboard's file: a result, and what the board's keeper found out about it."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from wellkit.schemas.document import Document, Model
from wellkit.schemas.result import Result

Status = Literal["self-reported", "recomputed"]


class Verification(Model):
    """The scores of a result were computed again, from predictions, by whoever keeps the board."""

    predictions_sha256: str = Field(description="of the content of the predictions")
    content_sha256: str = Field(description="of the data they were scored against")
    code_version: str
    hardware: str
    created: str = Field(description="UTC, ISO 8601")


class BoardEntry(Document):
    """One result on a board. Its status is never taken from who sends it."""

    KIND: ClassVar[str] = "board-entry"

    result: Result
    verification: Verification | None = Field(default=None, description="left out: self-reported")
    added: str = Field(description="UTC, ISO 8601")

    @property
    def status(self) -> Status:
        """Whether the scores were computed again from predictions."""
        return "self-reported" if self.verification is None else "recomputed"
