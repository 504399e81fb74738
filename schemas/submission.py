"""The list of what a submission to a leaderboard consists of."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from wellkit.schemas.benchmark import BenchmarkConfig
from wellkit.schemas.document import Document, Model


class SubmittedResult(Model):
    """One result and the predictions it was scored from; paths in the submission."""

    result: str
    predictions: str | None = Field(default=None, description="left out: a baseline, which anyone can compute again")


class Submission(Document):
    """`submission.json`."""

    KIND: ClassVar[str] = "submission"

    grid: BenchmarkConfig
    results: tuple[SubmittedResult, ...]
    files: dict[str, str] = Field(description="SHA-256 of every other file, by path in the submission")
    code_version: str
    created: str = Field(description="UTC, ISO 8601")
