"""One thing that was looked at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "note", "warning", "broken"]
STATUSES: tuple[Status, ...] = ("broken", "warning", "note", "ok")  # worst first


@dataclass(frozen=True)
class Finding:
    """What was looked at, how it is, and what to do about it.

    Attributes:
        section: environment, Hub, disk, cache, catalog or trees.
        status: "broken" is what has to be mended before it can be used; "warning" works, but not as one may think.
        value: what was found.
        advice: what to do; None where there is nothing to do.
    """

    section: str
    name: str
    status: Status
    value: str
    advice: str | None = None
