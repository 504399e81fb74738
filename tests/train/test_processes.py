"""Several processes train the model that one would: real ones, started by torchrun, exchanging gradients by gloo."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed

from tests.train.advection import NAME
from tests.train.training import Job, check_identical, losses_of, outcomes, run_under_torchrun, scores_in_log, weights
from wellkit.errors import ConfigError
from wellkit.schemas.training import TrainConfig
from wellkit.train import train

FNO = {"modes1": 4, "modes2": 4, "hidden_channels": 8, "lifting_channels": 8, "projection_channels": 8}


def configure(base: Path, **keys: Any) -> TrainConfig:
    defaults: dict[str, Any] = {
        "data": base,
        "model": "fno",
        "model_arguments": FNO,
        # 36 windows in batches of 7: 6 steps an epoch, the last of one window, with which one process is alone
        "batch_size": 7,
        "epochs": 4,
        "learning_rate": 5e-3,
        "device": "cpu",
    }
    return TrainConfig.create(NAME, **(defaults | keys))


def test_two_processes_train_the_model_that_one_would(advection: Path, tmp_path: Path) -> None:
    plain = configure(advection)
    everything = configure(
        advection, epochs=2, n_steps_output=2, targets="delta", ema_decay=0.5, clip_norm=0.5, accumulate=2
    )
    jobs = {
        "ddp": plain,
        "fsdp": configure(advection, strategy="fsdp"),
        "relative": configure(advection, epochs=2, loss="vrmse"),
        "all ddp": everything,
        "all fsdp": everything.model_copy(update={"strategy": "fsdp"}),
    }
    log = tmp_path / "log"
    listed = [Job(config, tmp_path / name) for name, config in jobs.items()]
    # The first of these folders is taken by then: what fails in process 0 fails in both, and is told by the first.
    refusals = [Job(plain, tmp_path / "ddp"), Job(configure(advection, batch_size=1), tmp_path / "small")]
    *done, taken, too_small = run_under_torchrun([*listed, *refusals], processes=2, log=log)

    for (name, config), outcome in zip(jobs.items(), done, strict=True):
        alone, report = losses_of(config, tmp_path / f"alone {name}")
        assert len(alone) >= 10
        assert outcome["losses"] == pytest.approx(alone, abs=1e-5)
        assert outcome["report"]["processes"] == 2
        assert outcome["report"]["samples_seen"] == report.samples_seen
        lines, others = scores_in_log(tmp_path / name), scores_in_log(tmp_path / f"alone {name}")
        assert len(lines) == report.epochs
        for line, other in zip(lines, others, strict=True):
            assert line["valid_vrmse"] == pytest.approx(other["valid_vrmse"], abs=1e-5)
        trained, single = weights(tmp_path / name), weights(tmp_path / f"alone {name}")
        for key, tensor in single.items():
            torch.testing.assert_close(trained[key], tensor, atol=1e-4, rtol=1e-3)

    assert len(done[0]["losses"]) == 24
    second = outcomes(log, 1)
    assert [outcome["losses"] for outcome in second[: len(jobs)]] == [[]] * len(jobs)  # process 0 alone tells progress
    assert "holds a run already" in taken["error"]
    assert second[len(jobs)] == {"error": taken["error"], "told_elsewhere": True}
    assert "batch_size=1 is of all 2 processes together" in too_small["error"]

    # What two processes saved in shares, one goes on with.
    for name in ("all fsdp", "alone all fsdp"):
        train(jobs["all fsdp"].model_copy(update={"epochs": 3}), tmp_path / name, resume=True)
    lines, others = scores_in_log(tmp_path / "all fsdp"), scores_in_log(tmp_path / "alone all fsdp")
    assert [line["epoch"] for line in lines] == [1, 2, 3]
    assert lines[2]["valid_vrmse"] == pytest.approx(others[2]["valid_vrmse"], abs=1e-5)


@pytest.mark.torture
def test_two_processes_that_are_resumed_are_those_that_never_stopped(advection: Path, tmp_path: Path) -> None:
    arguments = {"hidden_dim": 48, "num_heads": 2, "processor_blocks": 2, "drop_path": 0.3}
    keys: dict[str, Any] = {"epochs": 3, "accumulate": 2, "ema_decay": 0.9, "clip_norm": 1.0, "checkpoint_every": 2}
    jobs = []
    for strategy in ("ddp", "fsdp"):
        config = configure(advection, model="avit", model_arguments=arguments, strategy=strategy, **keys)
        jobs.append(Job(config, tmp_path / strategy, copied=(2, 4)))
        jobs.append(Job(config, tmp_path / f"{strategy}-copy", resume=True))
    done = run_under_torchrun(jobs, processes=2, log=tmp_path / "log")
    for whole, rest, job in zip(done[::2], done[1::2], jobs[::2], strict=True):
        assert 0 < len(rest["losses"]) < len(whole["losses"]) == 18
        assert whole["losses"][-len(rest["losses"]) :] == rest["losses"]
        check_identical(job.to, job.to.with_name(f"{job.to.name}-copy"))


def test_a_training_leaves_torch_as_it_was(advection: Path, tmp_path: Path) -> None:
    torch.manual_seed(5)
    state = torch.get_rng_state()
    train(configure(advection, epochs=1, deterministic=True), tmp_path / "run")
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.are_deterministic_algorithms_enabled()
    assert not distributed.is_initialized()
    # accelerate keeps the precision of a process; the next training has its own
    train(configure(advection, epochs=1, precision="bf16"), tmp_path / "bf16")
    train(configure(advection, epochs=1), tmp_path / "float32")


@pytest.mark.parametrize("precision", ["fp16", "tf32"])
def test_a_precision_that_the_processor_lacks_is_refused(advection: Path, tmp_path: Path, precision: str) -> None:
    with pytest.raises(ConfigError, match=f"precision='{precision}' needs a CUDA GPU, the device is cpu"):
        train(configure(advection, precision=precision), tmp_path / "run")
    assert not (tmp_path / "run").exists()
