"""Which trajectory goes where."""

from __future__ import annotations

from collections import Counter

import pytest

from wellkit.generation.generator import Run, Setting
from wellkit.generation.plan import SPLITS, Trajectory, shards, split, trajectories


def run(count: int, n_settings: int = 9, seed: int = 0) -> Run:
    settings = tuple(Setting(f"{number}.hdf5", {"p": number}, {}) for number in range(n_settings))
    return Run(settings, resolution=(8, 8), trajectories=count, steps=2, seed=seed)


def test_a_full_grid_of_ten_is_split_eight_one_one() -> None:
    parts = split(run(90))
    assert {name: len(parts[name]) for name in SPLITS} == {"train": 72, "valid": 9, "test": 9}
    for name, each in (("train", 8), ("valid", 1), ("test", 1)):
        assert Counter(item.setting for item in parts[name]) == dict.fromkeys(range(9), each)
    assert [(shard.split, shard.setting) for shard in shards(run(90))] == [
        (name, setting) for name in SPLITS for setting in range(9)
    ]


@pytest.mark.parametrize("count", [3, 4, 9, 10, 15, 27, 41, 100])
@pytest.mark.parametrize("n_settings", [1, 6, 9])
def test_every_trajectory_is_in_one_split_and_no_split_is_empty(count: int, n_settings: int) -> None:
    parts = split(run(count, n_settings))
    everything = [item for name in SPLITS for item in parts[name]]
    assert len(everything) == len(set(everything)) == count
    assert set(everything) == set(trajectories(run(count, n_settings)))
    held_out = max(1, round(count / 10))
    assert [len(parts[name]) for name in SPLITS] == [count - 2 * held_out, held_out, held_out]
    for name in ("valid", "test"):  # as many settings as there can be
        assert len({item.setting for item in parts[name]}) == min(held_out, n_settings)
    placed = [item for shard in shards(run(count, n_settings)) for item in shard.trajectories]
    assert sorted(placed, key=str) == sorted(everything, key=str)


def test_settings_share_trajectories_evenly_and_few_are_spread() -> None:
    assert Counter(item.setting for item in trajectories(run(20))) == dict(zip(range(9), [3, 2, 2, 2, 3, 2, 2, 2, 2]))  # noqa: B905
    assert [item.setting for item in trajectories(run(3))] == [0, 3, 6]
    assert [item.index for item in trajectories(run(18))] == [0, 1] * 9


def test_the_seed_decides_the_splits() -> None:
    assert split(run(27, seed=5)) == split(run(27, seed=5))
    assert len({str(split(run(27, seed=seed))) for seed in range(5)}) == 5


def test_streams_of_trajectories_differ_and_stay() -> None:
    draws = {
        (seed, setting, index): Trajectory(setting, index).random(seed).uniform()
        for seed in range(3)
        for setting in range(3)
        for index in range(3)
    }
    assert len(set(draws.values())) == 27
    assert Trajectory(1, 2).random(0).uniform() == draws[0, 1, 2]
