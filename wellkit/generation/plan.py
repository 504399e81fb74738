"""Which trajectories a run simulates and where each goes: pure functions of the run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from wellkit.generation.generator import Run

SPLITS = ("train", "valid", "test")
HELD_OUT = 0.1  # of the trajectories, for valid and for test each
FEWEST = 3  # trajectories: one a split
_SPLIT_STREAM = 2**32 - 1  # keeps the draw of the splits apart from every trajectory's draws


@dataclass(frozen=True)
class Trajectory:
    """One trajectory: number `index` of setting number `setting`."""

    setting: int
    index: int

    def random(self, seed: int) -> np.random.Generator:
        """Its own stream of random numbers, whatever else is simulated with it."""
        return np.random.default_rng([seed, self.setting, self.index])


@dataclass(frozen=True)
class Shard:
    """One file: a setting in a split."""

    split: str
    setting: int
    trajectories: tuple[Trajectory, ...]


def trajectories(run: Run) -> list[Trajectory]:
    """All trajectories, spread evenly over the settings (over some of them where there are fewer than settings)."""
    counts = [0] * len(run.settings)
    for number in range(run.trajectories):
        counts[number * len(run.settings) // run.trajectories] += 1
    return [Trajectory(setting, index) for setting, count in enumerate(counts) for index in range(count)]


def split(run: Run) -> dict[str, list[Trajectory]]:
    """Split by trajectory, 0.8/0.1/0.1, each split non-empty, decided by the seed.

    Held-out trajectories take turns over the settings, so that as many settings as possible are tested, and a full
    parameter grid of ten seeds gives eight, one and one of each.
    """
    random = np.random.default_rng([run.seed, _SPLIT_STREAM])
    everything = trajectories(run)
    shuffled = [everything[i] for i in random.permutation(len(everything))]
    turn_of_setting = {int(setting): turn for turn, setting in enumerate(random.permutation(len(run.settings)))}
    seen = [0] * len(run.settings)
    keyed = []
    for trajectory in shuffled:
        keyed.append((seen[trajectory.setting], turn_of_setting[trajectory.setting], trajectory))
        seen[trajectory.setting] += 1
    order = [trajectory for *_, trajectory in sorted(keyed, key=lambda item: item[:2])]
    held_out = max(1, round(HELD_OUT * run.trajectories))
    parts = {"valid": order[:held_out], "test": order[held_out : 2 * held_out], "train": order[2 * held_out :]}
    return {name: sorted(parts[name], key=lambda item: (item.setting, item.index)) for name in SPLITS}


def shards(run: Run) -> Iterator[Shard]:
    """All files of a run."""
    for name, members in split(run).items():
        for setting in range(len(run.settings)):
            chosen = tuple(trajectory for trajectory in members if trajectory.setting == setting)
            if chosen:
                yield Shard(name, setting, chosen)
