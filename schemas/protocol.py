"""How models are scored: a protocol as data, so that a result carries the whole definition it was made under."""

from __future__ import annotations

import hashlib
import json
from typing import Literal

from pydantic import Field

from wellkit.schemas.document import Model


class Protocol(Model):
    """One protocol. Frozen: a change of any value is another protocol and needs another name.

    Steps of a rollout count from 1, the first predicted frame; a window "a:b" is steps a to b, both counted.
    """

    name: str = Field(pattern=r"^[a-z][a-z0-9.-]*-\d+$", description="ends in its version: well-2024")
    summary: str
    metric: Literal["vrmse"] = "vrmse"
    eps: float = Field(gt=0, description="added to the spatial variance of the target")
    eps_of: Literal["unit", "variance"] = Field(
        description="what eps counts in: the squared unit of the field as stored, or the mean spatial variance of the "
        "component over all scored one-step targets of the split (so that units do not matter)"
    )
    flat_below: float = Field(description="an entry is flat where the target's variance is under this many eps")
    flat: Literal["scored", "left out"] = Field(
        description="whether flat entries are in means and medians; pooled figures hold them always"
    )
    n_steps_input: int | None = Field(default=None, gt=0, description="true frames a model sees; None for any number")
    rollout_from: int | None = Field(
        default=None, gt=0, description="number, from 0, of the first predicted frame of a rollout; None: n_steps_input"
    )
    windows: tuple[tuple[int, int], ...] = Field(description="of rollout steps, both ends counted")
    headline: Literal["mean", "median of trajectories"] = Field(
        description="the number that ranks: the mean over entries, or the median over trajectories of their means"
    )
    valid_length_threshold: float | None = Field(
        default=None, description="a rollout is valid until its VRMSE, mean over components, first exceeds this"
    )
    spectral: bool = Field(default=False, description="whether errors by band of wavenumbers are part of it")
    conservation: bool = Field(default=False, description="whether drifts of quantities the card names are part of it")
    open_points: tuple[str, ...] = Field(default=(), description="where a source leaves open what it does")
    comparable_with: str = Field(description="which published figures it may stand beside, in words")

    @property
    def definition_sha256(self) -> str:
        """Of the whole definition."""
        content = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(content.encode()).hexdigest()

    def first_frame(self, n_steps_input: int) -> int:
        """Number, from 0, of the first predicted frame of a rollout."""
        return n_steps_input if self.rollout_from is None else self.rollout_from
