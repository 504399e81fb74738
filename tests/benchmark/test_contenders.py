"""What can be scored, and that it scores the same in any batch, process and container."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from torch import Tensor

from tests.benchmark.scoring import CPU, WELL, Breaks, contend
from tests.train.advection import NAME, make_advection
from tests.train.test_loop import configure, copy_of, spoil
from wellkit.benchmark.contenders import prepare
from wellkit.benchmark.evaluate import How, evaluate, evaluate_contender, load_result, save_result
from wellkit.errors import (
    ArgumentError,
    DataNotFoundError,
    DataValueError,
    DocumentError,
    DocumentVersionError,
    PredictionsError,
    ScoreError,
    StatisticsError,
    StorageError,
    TrainingError,
    WindowError,
)
from wellkit.statistics import load_statistics
from wellkit.train import train


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("batch_size", [1, 5, 64])
def test_the_score_does_not_know_the_batch_size(advection: Path, batch_size: int, workers: int) -> None:
    whole = evaluate("persistence", data=advection, dataset=NAME, batch_size=16, device="cpu")
    result = evaluate("persistence", data=advection, dataset=NAME, batch_size=batch_size, workers=workers, device="cpu")
    assert result.one_step == whole.one_step
    assert result.rollout == whole.rollout
    assert (result.trajectories, result.data) == (whole.trajectories, whole.data)
    assert result.id == whole.id


def test_the_score_does_not_know_the_number_of_processes(tmp_path: Path) -> None:
    base = make_advection(tmp_path, trajectories=(1, 1, 3))
    one, two = (evaluate("persistence", data=base, dataset=NAME, jobs=jobs, device="cpu") for jobs in (1, 2))
    assert (one.one_step, one.rollout, one.trajectories, one.id) == (
        two.one_step,
        two.rollout,
        two.trajectories,
        two.id,
    )
    with pytest.raises(ArgumentError, match="jobs above 1 need a model that other processes can find"):
        evaluate(lambda window, constants: window[:, -1], data=base, dataset=NAME, jobs=2)


def test_predictions_score_what_the_model_scored(advection: Path, tmp_path: Path) -> None:
    train(configure(advection, epochs=1), tmp_path / "run")
    for target in (tmp_path / "npy", tmp_path / "made.zarr"):
        own = evaluate(tmp_path / "run", device="cpu", save_predictions=target)
        for batch_size, jobs in ((1, 1), (5, 1), (64, 2)):
            again = evaluate(target, data=advection, batch_size=batch_size, jobs=jobs, device="cpu")
            assert (again.one_step, again.rollout, again.trajectories) == (own.one_step, own.rollout, own.trajectories)
            assert again.model.kind == "predictions"
            assert again.model.predictions_sha256 == own.model.predictions_sha256
    with pytest.raises(PredictionsError, match=r"split: these predictions have test, asked is valid"):
        evaluate(tmp_path / "npy", data=advection, split="valid")
    longer = make_advection(tmp_path / "longer", trajectories=(1, 1, 2), steps=20)
    with pytest.raises(PredictionsError, match="first_frame"):
        evaluate(tmp_path / "npy", data=longer, protocol="walrus-style-1")
    with pytest.raises(ArgumentError, match="one process"):
        evaluate(tmp_path / "run", device="cpu", save_predictions=tmp_path / "two", jobs=2)


def test_predictions_that_are_missing_are_refused_and_diverged_ones_are_not(advection: Path, tmp_path: Path) -> None:
    diverged = evaluate_contender(contend(Breaks(), advection), How(batch_size=4), save_predictions=tmp_path / "one")
    again = evaluate(tmp_path / "one", data=advection, batch_size=3)
    assert (again.one_step, again.rollout) == (diverged.one_step, diverged.rollout)
    assert again.one_step.nonfinite == 2
    for part, what in (("one_step", "window 1"), ("rollout", "step 1")):
        copied = tmp_path / part
        shutil.copytree(tmp_path / "one", copied)
        values = np.load(copied / part / "000001.npy")
        values[1, 3, 5, 2] = np.nan
        np.save(copied / part / "000001.npy", values)
        with pytest.raises(
            PredictionsError, match=rf"{part} of trajectory 1 holds NaN in 'velocity_y', {what} .*\(3, 5\)"
        ):
            evaluate(copied, data=advection)


def test_functions_are_scored(advection: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def last(window: Tensor, constants: Tensor | None) -> np.ndarray:
        return window[:, -1].numpy()

    result = evaluate(last, data=advection, dataset=NAME, device="cpu")
    persistence = evaluate("persistence", data=advection, dataset=NAME, device="cpu")
    assert (result.one_step, result.rollout) == (persistence.one_step, persistence.rollout)
    assert (result.model.name, result.model.kind) == ("last", "callable")
    with pytest.raises(ScoreError, match=r"returned shape \(.*4, 16, 16, 3\); expected .*16, 16, 3\)"):
        evaluate(lambda window, constants: window, data=advection, dataset=NAME, device="cpu")
    with pytest.raises(ArgumentError, match="function last needs a dataset"):
        evaluate(last, data=advection)
    (tmp_path / "mine_of_a_test.py").write_text("def same(window, constants):\n    return window[:, -1]\n")
    monkeypatch.chdir(tmp_path)
    by_name = evaluate("mine_of_a_test:same", data=advection, dataset=NAME, device="cpu")
    assert by_name.one_step == persistence.one_step
    for text, why in (("mine_of_a_tes:same", "no module"), ("mine_of_a_test:sane", "has no attribute 'sane'")):
        with pytest.raises(DataNotFoundError, match=why):
            evaluate(text, data=advection, dataset=NAME)
    with pytest.raises(ArgumentError, match="is a str; name a function"):
        evaluate("mine_of_a_test:__name__", data=advection, dataset=NAME)


def test_published_networks_are_scored(advection: Path, tmp_path: Path) -> None:
    train(configure(advection, epochs=1), tmp_path / "run")
    own = evaluate(tmp_path / "run", device="cpu", protocol=WELL)
    record = json.loads((tmp_path / "run" / "best" / "checkpoint.json").read_text())
    folder = tmp_path / "FNO-advection"
    folder.mkdir()
    shutil.copy(tmp_path / "run" / "best" / "model.safetensors", folder)
    arguments = {"dim_in": record["dim_in"], "dim_out": 3, "n_spatial_dims": 2, "spatial_resolution": [16, 16]}
    (folder / "config.json").write_text(json.dumps({**arguments, **record["model_arguments"]}))
    published = evaluate(folder, data=advection, dataset=NAME, device="cpu", protocol=WELL)
    assert published.one_step == own.one_step
    assert published.model.name == "FNO-advection"
    assert published.model.n_steps_input == 4
    with pytest.raises(ArgumentError, match="needs a dataset"):
        evaluate(folder, data=advection)
    other = make_advection(tmp_path / "other", resolution=(16, 16), constant=True)
    with pytest.raises(TrainingError, match="takes 12 channels and gives 3"):
        evaluate(folder, data=other, dataset=NAME)


@pytest.mark.parametrize("model", ["fno", "unet_convnext"])
def test_a_networks_score_does_not_know_the_batch_size(advection: Path, tmp_path: Path, model: str) -> None:
    train(configure(advection, model), tmp_path / "run")
    one, three, many = (evaluate(tmp_path / "run", batch_size=size, device="cpu") for size in (1, 3, 16))
    for other in (three, many):
        assert other.one_step.mean == pytest.approx(one.one_step.mean, rel=1e-6)
        assert other.one_step.per_field == pytest.approx(one.one_step.per_field, rel=1e-6)
        assert other.rollout == one.rollout  # one by one, whatever the batch size
        assert other.id == one.id


def test_validation_while_training_is_the_same_number(advection: Path, tmp_path: Path) -> None:
    report = train(configure(advection, epochs=2), tmp_path / "run")
    result = evaluate(tmp_path / "run", split="valid", device="cpu", protocol=WELL)
    assert result.one_step.mean == pytest.approx(report.best_valid_vrmse, rel=1e-6)
    assert result.model.epochs == report.best_epoch
    assert result.model.seed == 0
    assert result.model.parameters == report.parameters


def test_bad_numbers_in_the_data_are_named(advection: Path, tmp_path: Path) -> None:
    base = copy_of(advection, tmp_path / "data")
    spoil(base, "test", math.nan)
    with pytest.raises(DataValueError, match=rf"{NAME} \(test\): sample \d+ .*trajectory 1, frame 3"):
        evaluate("persistence", data=base, dataset=NAME, device="cpu")


def test_what_cannot_be_scored_is_told(advection: Path, tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="'mean' needs a dataset"):
        evaluate("mean", data=advection)
    with pytest.raises(TrainingError, match=r"neither a baseline .*Did you mean persistence"):
        evaluate("persistance", data=advection, dataset=NAME)
    with pytest.raises(ArgumentError, match="train, valid, test"):
        evaluate("persistence", data=advection, dataset=NAME, split="tset")
    with pytest.raises(DataNotFoundError, match="no such folder"):
        evaluate("persistence", data=tmp_path, dataset=NAME)
    with pytest.raises(WindowError, match="too short"):
        evaluate("persistence", data=advection, dataset=NAME, n_steps_input=10)
    for nonsense in (
        {"batch_size": 0},
        {"rollout_steps": 0},
        {"workers": -1},
        {"jobs": 0},
        {"n_steps_input": 0},
    ):
        ((name, value),) = nonsense.items()
        with pytest.raises(ArgumentError, match=f"{name}={value}; give a"):
            evaluate("persistence", data=advection, dataset=NAME, **nonsense)  # type: ignore[arg-type]
    base = copy_of(advection, tmp_path / "data")
    (base / NAME / "stats.yaml").unlink()
    evaluate("persistence", data=base, dataset=NAME)  # needs no statistics
    with pytest.raises((StatisticsError, DataNotFoundError), match=r"stats\.yaml"):
        evaluate("mean", data=base, dataset=NAME)
    content = load_statistics(advection / NAME / "stats.yaml").to_mapping()
    content["mean"]["velocity"] = [0.0, 0.0, 0.0]
    (base / NAME / "stats.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(StatisticsError, match=r"stats\.yaml: .*'velocity' have shape \(3,\)"):
        evaluate("mean", data=base, dataset=NAME)


def test_a_network_meets_only_its_own_kind_of_data(advection: Path, tmp_path: Path) -> None:
    train(configure(advection), tmp_path / "run")
    with pytest.raises(ArgumentError, match="takes 4 input steps, not 2"):
        prepare(tmp_path / "run", n_steps_input=2, device=CPU)
    other = make_advection(tmp_path / "other", constant=True)
    with pytest.raises(TrainingError, match=r"trained on tracer, velocity_x.*holds .*mask"):
        prepare(tmp_path / "run", data=other, device=CPU)
    finer = make_advection(tmp_path / "finer", resolution=(24, 16), trajectories=(1, 1, 1))
    assert evaluate(tmp_path / "run", data=finer, device="cpu").dataset.resolution == (24, 16)


def test_result_files_are_checked(advection: Path, tmp_path: Path) -> None:
    result = evaluate("persistence", data=advection, dataset=NAME, device="cpu")
    path = tmp_path / "result.json"
    save_result(result, path)
    content = json.loads(path.read_text())
    assert load_result(path) == result
    path.write_text(json.dumps(content | {"schema": "wellkit/result/3"}))
    with pytest.raises(DocumentVersionError, match="version unknown"):
        load_result(path)
    path.write_text(json.dumps(content | {"on_step": 1}))
    with pytest.raises(DocumentError, match=r"unknown key 'on_step'.*Did you mean one_step"):
        load_result(path)
    path.write_text("{")
    with pytest.raises(DocumentError, match="not a JSON file"):
        load_result(path)
    with pytest.raises(DocumentError, match=r"cannot be read \(Is a directory\); give a result file"):
        load_result(tmp_path)
    with pytest.raises(DataNotFoundError, match="no such result file"):
        load_result(tmp_path / "none.json")
    with pytest.raises(StorageError, match="cannot write"):
        save_result(result, path / "below" / "result.json")
    (tmp_path / "taken" / "result.json").mkdir(parents=True)
    with pytest.raises(StorageError, match="cannot write"):
        save_result(result, tmp_path / "taken" / "result.json")
    assert [file.name for file in (tmp_path / "taken").iterdir()] == ["result.json"]  # nothing half-written stays


def test_a_protocol_that_does_not_fit_is_refused(advection: Path) -> None:
    with pytest.raises(ArgumentError, match=r"'well-2025' is unknown here.*Did you mean well-2024"):
        evaluate("persistence", data=advection, dataset=NAME, protocol="well-2025")
    with pytest.raises(ArgumentError, match="well-2024 gives models 4 input steps; persistence takes 2"):
        evaluate("persistence", data=advection, dataset=NAME, protocol=WELL, n_steps_input=2)
