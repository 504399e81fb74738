"""Training itself: it learns, repeats, stops when it should, and says what is wrong."""

from __future__ import annotations

import itertools
import json
import math
import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

from tests.train.advection import NAME, make_advection
from wellkit.benchmark.evaluate import evaluate
from wellkit.errors import (
    ArgumentError,
    ConfigError,
    DataNotFoundError,
    DataValueError,
    StatisticsError,
    StorageError,
    TrainingError,
)
from wellkit.schemas.training import TrainConfig
from wellkit.train import Progress, train
from wellkit.train.checkpoint import load_model, load_record, save_checkpoint
from wellkit.train.loop import learning_rate

SMALL: dict[str, dict[str, int]] = {
    "fno": {"modes1": 6, "modes2": 6, "modes3": 4, "hidden_channels": 12, "lifting_channels": 16},
    "tfno": {"modes1": 6, "modes2": 6, "modes3": 4, "hidden_channels": 12, "lifting_channels": 16},
    "unet_classic": {"init_features": 4},
    "unet_convnext": {"stages": 2, "blocks_per_stage": 1, "init_features": 6},
    "avit": {"hidden_dim": 48, "num_heads": 4, "processor_blocks": 2},
}


def configure(base: Path, model: str = "fno", **keys: Any) -> TrainConfig:
    defaults = {"data": base, "epochs": 1, "batch_size": 8, "learning_rate": 5e-3, "device": "cpu"}
    return TrainConfig.create(NAME, model=model, model_arguments=SMALL[model], **(defaults | keys))


def copy_of(base: Path, to: Path) -> Path:
    shutil.copytree(base, to)
    return to


def spoil(base: Path, split: str, value: float, *, frame: int = 3) -> None:
    """Put `value` into one point of the tracer of the split's trajectory 1."""
    with h5py.File(base / NAME / "data" / split / f"{NAME}_0.hdf5", "r+") as file:
        file["t0_fields/tracer"][1, frame, 5, 6] = value


def test_a_small_fno_learns_to_carry_waves(tmp_path: Path) -> None:
    # The true step is a roll, a multiplication of every Fourier mode by a number: what the FNO is made of.
    base = make_advection(tmp_path / "data", trajectories=(12, 2, 2))
    train(configure(base, epochs=6), tmp_path / "run")
    scored = {
        model: evaluate(model, data=base, dataset=NAME, device="cpu").one_step.mean
        for model in (str(tmp_path / "run"), "persistence", "mean")
    }
    network = scored.pop(str(tmp_path / "run"))
    assert network < 0.6
    assert network < 0.7 * min(scored.values())


@pytest.mark.parametrize("model", sorted(SMALL))
def test_one_seed_gives_identical_weights(advection: Path, tmp_path: Path, model: str) -> None:
    weights = []
    for run, seed in (("a", 3), ("b", 3), ("c", 4)):
        train(configure(advection, model, seed=seed), tmp_path / run)
        weights.append(load_file(tmp_path / run / "last" / "model.safetensors"))
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert any(not torch.equal(weights[0][name], weights[2][name]) for name in weights[0])


def test_a_run_leaves_everything_behind(advection: Path, tmp_path: Path) -> None:
    seen: list[Progress] = []
    config = configure(advection, epochs=2)
    report = train(config, tmp_path / "run", progress=seen.append)
    run = tmp_path / "run"
    log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert [entry["epoch"] for entry in log] == [1, 2]
    # 6 trajectories of 10 - 4 windows = 36, in batches of 8: 5 steps an epoch, the last one of 4 windows
    assert [entry["step"] for entry in log] == [5, 10]
    assert set(log[0]["valid_vrmse_per_field"]) == {"tracer", "velocity_x", "velocity_y"}
    assert np.mean(list(log[1]["valid_vrmse_per_field"].values())) == pytest.approx(log[1]["valid_vrmse"])
    best, last = load_record(run / "best"), load_record(run / "last")
    assert last.epoch == 2
    assert last.step == report.steps == 10
    assert best.valid_vrmse == report.best_valid_vrmse == min(entry["valid_vrmse"] for entry in log)
    assert last.valid_vrmse == log[1]["valid_vrmse"]
    assert last.config == config
    assert last.dataset.resolution == (16, 16)
    assert last.dataset.fields == ("tracer", "velocity_x", "velocity_y")
    assert last.statistics is not None
    assert last.statistics.values["mean"]["tracer"] == pytest.approx(5, abs=1)
    assert TrainConfig.parse(json.loads((run / "config.json").read_text()), source="run") == config
    assert json.loads((run / "report.json").read_text())["schema"] == "wellkit/train-report/1"
    phases = [progress.phase for progress in seen]
    assert phases == (["train"] * 5 + ["valid"] * 2 + ["epoch"]) * 2
    assert seen[-1].fraction == 1.0
    assert not list(run.glob(".*"))


@pytest.mark.parametrize("dims", [1, 3])
@pytest.mark.parametrize("model", sorted(SMALL))
def test_one_and_three_dimensions_with_constant_fields(tmp_path: Path, model: str, dims: int) -> None:
    resolution = (16 if dims == 1 or model in ("avit", "unet_classic") else 8,) * dims
    base = make_advection(tmp_path / "data", resolution=resolution, trajectories=(2, 1, 1), constant=True)
    report = train(configure(base, model), tmp_path / "run")
    assert math.isfinite(report.best_valid_vrmse)
    record = load_record(tmp_path / "run" / "best")
    assert record.dim_in == 4 * (1 + len(resolution)) + 1
    assert record.dataset.constant_fields == ("mask",)


@pytest.mark.parametrize("normalization", ["rms", "none"])
def test_other_normalizations(advection: Path, tmp_path: Path, normalization: str) -> None:
    report = train(configure(advection, normalization=normalization), tmp_path / "run")
    statistics = load_record(tmp_path / "run" / "last").statistics
    assert (statistics.kind if statistics else "none") == normalization
    scored = evaluate(tmp_path / "run", split="valid", device="cpu")
    assert scored.one_step.mean == pytest.approx(report.best_valid_vrmse, rel=1e-5)


def test_several_output_steps_and_worker_processes(advection: Path, tmp_path: Path) -> None:
    alone = train(configure(advection, n_steps_input=2, n_steps_output=2), tmp_path / "a")
    helped = train(configure(advection, n_steps_input=2, n_steps_output=2, workers=1), tmp_path / "b")
    assert helped.last_valid_vrmse == alone.last_valid_vrmse
    assert load_record(tmp_path / "a" / "last").dim_in == 6


def test_a_budget_of_time_ends_training(advection: Path, tmp_path: Path) -> None:
    report = train(configure(advection, epochs=None, hours=1.5 / 3600), tmp_path / "run")
    assert report.stopped_by == "hours"
    assert 1.5 <= report.seconds < 20
    assert load_record(tmp_path / "run" / "last").step == report.steps


def test_the_learning_rate_rises_and_falls() -> None:
    # 4 epochs of 10 steps, one of warm-up: step s of S = 40 has rate min(1, (s+1)/11) (1 + cos(pi s/40)) / 2.
    config = TrainConfig.create("a", epochs=4, learning_rate=2.0, warmup_epochs=1)
    rates = [learning_rate(config, step=s, steps_per_epoch=10, fraction=s / 40) for s in range(40)]
    assert rates[0] == pytest.approx(2.0 / 11)
    assert rates[10] == pytest.approx(1 + math.cos(math.pi / 4))
    assert rates[20] == pytest.approx(1.0)
    assert all(a < b for a, b in itertools.pairwise(rates[:10]))
    assert all(a > b for a, b in itertools.pairwise(rates[10:]))
    assert 0 < rates[-1] < 0.01
    # a warm-up longer than the run takes half of it
    short = TrainConfig.create("a", epochs=1, learning_rate=2.0, warmup_epochs=100)
    assert learning_rate(short, step=5, steps_per_epoch=10, fraction=0.0) == pytest.approx(2.0)


def test_divergence_stops_and_keeps_the_best(advection: Path, tmp_path: Path) -> None:
    with pytest.raises(
        TrainingError, match=r"diverged: .* at epoch \d+, step \d+, learning rate .*smaller learning_rate"
    ):
        train(configure(advection, epochs=5, learning_rate=1e25), tmp_path / "run")


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("split", ["train", "valid"])
def test_bad_numbers_are_named(advection: Path, tmp_path: Path, split: str, value: float) -> None:
    base = copy_of(advection, tmp_path / "data")
    spoil(base, split, value)
    words = rf"{NAME} \({split}\): sample \d+ holds NaN or infinity in .* field 'tracer' .*trajectory 1, frame 3\)"
    with pytest.raises(DataValueError, match=words):
        train(configure(base), tmp_path / "run")


def test_missing_parts_are_named(advection: Path, tmp_path: Path) -> None:
    base = copy_of(advection, tmp_path / "data")
    shutil.rmtree(base / NAME / "data" / "valid")
    with pytest.raises(DataNotFoundError, match="valid"):
        train(configure(base), tmp_path / "run")
    (base / NAME / "stats.yaml").unlink()
    with pytest.raises(StatisticsError, match=r"stats\.yaml"):
        train(configure(base), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_unusable_settings_are_refused(advection: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with pytest.raises(ConfigError, match="Did you mean fno"):
        train(configure(advection).model_copy(update={"model": "fn"}), run)
    with pytest.raises(ConfigError, match="device='gpu' cannot be used here"):
        train(configure(advection, device="gpu"), run)
    with pytest.raises(ArgumentError, match="not divisible"):
        train(configure(advection, "unet_convnext").model_copy(update={"model_arguments": {"stages": 5}}), run)
    assert not run.exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot make run folder"):
        train(configure(advection), tmp_path / "file" / "run")


def test_no_run_is_written_among_other_files(advection: Path, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "precious.hdf5").write_text("data")
    for overwrite in (False, True):
        with pytest.raises(TrainingError, match="holds files that are no run's"):
            train(configure(advection), tmp_path / "data", overwrite=overwrite)
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["precious.hdf5"]


def test_a_run_is_not_overwritten_unasked(advection: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(configure(advection), run)
    with pytest.raises(TrainingError, match=r"holds a run already.*--overwrite"):
        train(configure(advection), run)
    train(configure(advection, seed=1), run, overwrite=True)
    assert load_record(run / "best").seed == 1
    assert len((run / "log.jsonl").read_text().splitlines()) == 1


def test_a_perfect_network_of_changes_scores_zero(tmp_path: Path) -> None:
    # Fields that grow by the same at every point and step: the mean change is the change, and its network answers 0.
    base = make_advection(tmp_path / "data", trajectories=(2, 1, 1))
    for split in ("train", "valid", "test"):
        with h5py.File(base / NAME / "data" / split / f"{NAME}_0.hdf5", "r+") as file:
            tracer, velocity = file["t0_fields/tracer"], file["t1_fields/velocity"]
            steps = np.arange(tracer.shape[1])[None, :, None, None]
            tracer[...] = tracer[:, :1] + 3.0 * steps
            velocity[...] = velocity[:, :1] + np.array([0.5, -2.0]) * steps[..., None]
    statistics = yaml.safe_load((base / NAME / "stats.yaml").read_text())
    statistics["mean_delta"] = {"tracer": 3.0, "velocity": [0.5, -2.0]}
    statistics["std_delta"] = {"tracer": 0.25, "velocity": [0.5, 0.125]}
    (base / NAME / "stats.yaml").write_text(yaml.safe_dump(statistics))

    train(configure(base, targets="delta"), tmp_path / "run")
    model, record = load_model(tmp_path / "run" / "last", torch.device("cpu"))
    assert record.targets == "delta"
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    save_checkpoint(tmp_path / "perfect", model, record)
    scored = evaluate(tmp_path / "perfect", split="test", device="cpu")
    assert scored.one_step.mean < 1e-5
    # The same weights taken for those of a network of states: the mean everywhere.
    assert record.statistics is not None
    states = record.model_copy(update={"statistics": record.statistics.model_copy(update={"targets": "state"})})
    save_checkpoint(tmp_path / "states", model, states)
    assert evaluate(tmp_path / "states", split="test", device="cpu").one_step.mean > 1.0


def test_older_checkpoints_are_read(advection: Path, tmp_path: Path) -> None:
    train(configure(advection), tmp_path / "run")
    path = tmp_path / "run" / "last" / "checkpoint.json"
    content = json.loads(path.read_text())
    for key in ("targets", "samples_seen", "stall_share", "processes"):
        del content[key]
    for key in ("accumulate", "pushforward", "targets", "loss", "clip_norm", "ema_decay", "precision", "deterministic"):
        del content["config"][key]
    for key in ("compile", "strategy", "checkpoint_every", "trackers"):
        del content["config"][key]
    del content["statistics"]["targets"]
    path.write_text(json.dumps(content))
    record = load_record(tmp_path / "run" / "last")
    assert (record.targets, record.samples_seen, record.energy_joules, record.processes) == ("state", 0, None, 1)
