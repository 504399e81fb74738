"""Runs that are killed and resumed are the runs that never were; states are whole or the older ones."""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from tests.train.advection import NAME, make_advection
from tests.train.training import check_identical, losses_of, run_apart, scores_in_log
from wellkit.errors import ConfigError, DocumentError, StorageError, TrainingError
from wellkit.schemas.training import TrainConfig
from wellkit.train import train
from wellkit.train.checkpoint import load_record

EPOCHS, STEPS = 3, 5  # 36 windows in batches of 8
KILLED = -signal.SIGKILL


def configure(base: Path, **keys: Any) -> TrainConfig:
    """A model that draws random numbers as it trains (dropped blocks), and everything else that has a state."""
    defaults: dict[str, Any] = {
        "data": base,
        "model": "avit",
        "model_arguments": {"hidden_dim": 48, "num_heads": 4, "processor_blocks": 2, "drop_path": 0.3},
        "epochs": EPOCHS,
        "batch_size": 8,
        "accumulate": 2,
        "ema_decay": 0.9,
        "clip_norm": 1.0,
        "targets": "delta",
        "checkpoint_every": 2,
        "device": "cpu",
    }
    return TrainConfig.create(NAME, **(defaults | keys))


def small(base: Path, **keys: Any) -> TrainConfig:
    arguments = {"modes1": 4, "modes2": 4, "hidden_channels": 4, "lifting_channels": 8, "projection_channels": 8}
    defaults: dict[str, Any] = {"data": base, "epochs": 1, "batch_size": 8, "device": "cpu", "checkpoint_every": 2}
    return TrainConfig.create(NAME, model="fno", model_arguments=arguments, **(defaults | keys))


@pytest.fixture(scope="module")
def uninterrupted(advection: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("uninterrupted") / "run"
    assert run_apart(configure(advection), run) == 0
    return run


def draw_moment(rng: random.Random) -> str:
    """A moment of a run: between batches, in validation, after an epoch, or while a file is being written."""
    event = rng.choice(["train", "train", "valid", "epoch", "flush", "flush"])
    # every epoch has 5 batches, 6 batches of validation, and writes 12 files or so
    return f"{event}:{rng.randint(1, {'train': 15, 'valid': 9, 'epoch': 3, 'flush': 36}[event])}"


def kill_and_resume(config: TrainConfig, run: Path, moments: list[str]) -> int:
    """Kill a run at each moment (counted in its process), resuming it in between; returns how often it was killed."""
    killed, resume = 0, False
    for moment in moments:
        status = run_apart(config, run, kill_at=moment, resume=resume)
        assert status in (0, KILLED)
        killed += status == KILLED
        resume = True
    assert run_apart(config, run, resume=True) == 0
    return killed


def test_a_killed_run_that_is_resumed_is_the_uninterrupted_one(
    advection: Path, uninterrupted: Path, tmp_path: Path
) -> None:
    # before the first state, in the second epoch between two states, within a checkpoint
    assert kill_and_resume(configure(advection), tmp_path / "run", ["train:1", "train:8", "flush:7"]) == 3
    check_identical(uninterrupted, tmp_path / "run")


@pytest.mark.parametrize("seed", range(1))
def test_runs_killed_at_random(advection: Path, uninterrupted: Path, tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    kill_and_resume(configure(advection), tmp_path / "run", [draw_moment(rng) for _ in range(2)])
    check_identical(uninterrupted, tmp_path / "run")


@pytest.mark.torture
@pytest.mark.parametrize("seed", range(1, 25))
def test_many_runs_killed_at_random(advection: Path, uninterrupted: Path, tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    kill_and_resume(configure(advection), tmp_path / "run", [draw_moment(rng) for _ in range(rng.randint(1, 4))])
    check_identical(uninterrupted, tmp_path / "run")


@pytest.mark.torture
def test_reading_ahead_changes_nothing_on_resuming(advection: Path, uninterrupted: Path, tmp_path: Path) -> None:
    assert run_apart(configure(advection), tmp_path / "run", kill_at="train:8") == KILLED
    losses_of(configure(advection, workers=1), tmp_path / "run", resume=True)
    check_identical(uninterrupted, tmp_path / "run")


def test_a_finished_run_is_told_again_and_can_be_trained_on(advection: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    first = train(small(advection, epochs=2), run)
    losses, again = losses_of(small(advection, epochs=2), run, resume=True)
    assert losses == []
    assert (again.best_valid_vrmse, again.steps, again.samples_seen) == (first.best_valid_vrmse, 10, 72)
    longer = train(small(advection, epochs=3), run, resume=True)
    assert (longer.epochs, longer.steps, longer.samples_seen) == (3, 15, 108)
    assert [line["epoch"] for line in scores_in_log(run)] == [1, 2, 3]
    assert load_record(run / "last").samples_seen == 108


def test_a_folder_without_a_run_is_begun(advection: Path, tmp_path: Path) -> None:
    assert train(small(advection), tmp_path / "run", resume=True).steps == STEPS


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"learning_rate": 1.0}, r"learning_rate=1.0 is not that of the run to resume \(learning_rate=0.001\)"),
        ({"epochs": 1}, r"epochs=1 is smaller than the run to resume \(epochs=2\)"),
        ({"seed": 1}, "seed=1"),
        ({"batch_size": 4}, "batch_size=4"),
        ({"model_arguments": {"hidden_channels": 8}}, "model_arguments="),
    ],
)
def test_another_configuration_is_not_resumed(
    advection: Path, tmp_path_factory: pytest.TempPathFactory, keys: dict[str, Any], words: str
) -> None:
    run = tmp_path_factory.mktemp("run")
    (run / "config.json").write_text(json.dumps(small(advection, epochs=2).to_mapping()))
    with pytest.raises(ConfigError, match=words):
        train(small(advection, epochs=2).model_copy(update=keys), run, resume=True)


def test_other_data_are_not_resumed(advection: Path, tmp_path: Path) -> None:
    base = Path(shutil.copytree(advection, tmp_path / "data"))
    train(small(base), tmp_path / "run")
    make_advection(base, seed=1)
    with pytest.raises(TrainingError, match="the data are not those the run began with"):
        train(small(base, epochs=2), tmp_path / "run", resume=True)


def test_the_time_used_before_counts(advection: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    first = train(small(advection, epochs=None, hours=0.7 / 3600), run)
    assert first.stopped_by == "hours"
    # nothing is left of the budget
    losses, again = losses_of(small(advection, epochs=None, hours=0.7 / 3600), run, resume=True)
    assert losses == []
    assert (again.steps, again.stopped_by) == (first.steps, "hours")
    lines = scores_in_log(run)
    # of a larger one only the rest, and an epoch that was cut short is taken up where it was
    longer = train(small(advection, epochs=None, hours=1.4 / 3600), run, resume=True)
    assert longer.seconds >= 1.4
    assert longer.seconds - first.seconds < longer.seconds
    assert longer.steps > first.steps
    finished = [line["epoch"] for line in scores_in_log(run)]
    assert finished == list(range(1, longer.epochs + 1))
    assert lines[:-1] == scores_in_log(run)[: len(lines) - 1]
    assert longer.samples_seen == sum(36 if n % STEPS == 0 else 8 * (n % STEPS) for n in _steps_in_epochs(run))


def _steps_in_epochs(run: Path) -> list[int]:
    ends = [line["step"] for line in scores_in_log(run)]
    return [end - begin for begin, end in zip([0, *ends], ends, strict=False)]


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """No file grows beyond `size` bytes, as on a full disk."""
    kept = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, kept[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, kept)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_full_disk_is_told_in_one_line_and_leaves_the_older_state(advection: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(small(advection), run)
    state = (run / "resume.safetensors").read_bytes()
    size = (run / "last" / "model.safetensors").stat().st_size
    with largest_file(size + 4096), pytest.raises(StorageError, match=r"cannot write .*resume\.safetensors") as told:
        train(small(advection, epochs=2), run, resume=True)
    assert "\n" not in str(told.value)
    assert "--resume" in str(told.value)
    assert (run / "resume.safetensors").read_bytes() == state
    assert sorted(path.name for path in run.glob(".*")) == []
    # and with space again it ends as if nothing had been
    train(small(advection, epochs=2), run, resume=True)
    assert [line["epoch"] for line in scores_in_log(run)] == [1, 2]


def test_a_damaged_state_is_noticed(advection: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(small(advection), run)
    state, config = run / "resume.safetensors", small(advection, epochs=2)
    content = state.read_bytes()
    tensors = {name: tensor.clone() for name, tensor in load_file(state).items()}  # the file is about to change
    state.write_bytes(content[: len(content) // 2])
    with pytest.raises(TrainingError, match=r"resume\.safetensors: damaged"):
        train(config, run, resume=True)
    save_file(tensors, state, {"schema": "wellkit/resume/9"})
    with pytest.raises(TrainingError, match=r"schema 'wellkit/resume/9' is not 'wellkit/resume/1'"):
        train(config, run, resume=True)
    state.write_bytes(content)
    (run / "config.json").write_text("{")
    with pytest.raises(TrainingError, match=r"config\.json: damaged"):
        train(config, run, resume=True)
    (run / "config.json").write_text(json.dumps(config.to_mapping() | {"sed": 1}))
    with pytest.raises(DocumentError, match="Did you mean seed"):
        train(config, run, resume=True)


def test_a_state_that_is_gone_is_told_and_a_run_before_its_first_is_begun_anew(advection: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    whole = train(small(advection), run)
    (run / "resume.safetensors").unlink()
    with pytest.raises(TrainingError, match=r"the state to resume from \(resume\.safetensors\) is gone"):
        train(small(advection), run, resume=True)
    for name in ("best", "last"):
        shutil.rmtree(run / name)
    assert train(small(advection), run, resume=True).last_valid_vrmse == whole.last_valid_vrmse
    assert len(scores_in_log(run)) == 1


def test_a_half_written_log_line_is_dropped(advection: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(small(advection), run)
    with (run / "log.jsonl").open("a") as file:
        file.write('{"epoch": 2, "st')
        file.flush()
        os.fsync(file.fileno())
    train(small(advection, epochs=2), run, resume=True)
    assert [line["epoch"] for line in scores_in_log(run)] == [1, 2]
