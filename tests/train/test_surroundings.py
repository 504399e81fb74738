"""What a training takes from its surroundings and tells them: trackers, energy counters, compilers, algorithms."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.train.advection import NAME
from tests.train.training import check_identical, losses_of, weights
from wellkit.errors import ConfigError
from wellkit.schemas.training import TrainConfig
from wellkit.train import train
from wellkit.train.checkpoint import load_record
from wellkit.train.energy import EnergyMeter
from wellkit.train.processes import Processes, processes_of

CPU = torch.device("cpu")
FNO = {"modes1": 4, "modes2": 4, "hidden_channels": 4, "lifting_channels": 8, "projection_channels": 8}


def configure(base: Path, **keys: Any) -> TrainConfig:
    defaults: dict[str, Any] = {"data": base, "epochs": 1, "batch_size": 8, "device": "cpu", "model_arguments": FNO}
    return TrainConfig.create(NAME, **(defaults | keys))


def test_tensorboard_is_told_every_step(advection: Path, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = tmp_path / "run"
    losses, report = losses_of(configure(advection, epochs=2, trackers=["tensorboard"], clip_norm=1.0), run)
    events = EventAccumulator(str(run / f"{NAME}-fno"))
    events.Reload()
    assert {"train_loss", "learning_rate", "gradient_norm", "valid_vrmse"} <= set(events.Tags()["scalars"])
    told = events.Scalars("train_loss")
    assert [event.step for event in told] == list(range(1, 11))
    assert [event.value for event in told] == pytest.approx(losses)
    assert [event.step for event in events.Scalars("valid_vrmse")] == [5, 10]
    assert events.Scalars("valid_vrmse")[1].value == pytest.approx(report.last_valid_vrmse)


def test_a_tracker_that_is_not_installed_is_named(
    advection: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("accelerate.tracking._available_trackers", [])
    for tracker in ("wandb", "tensorboard"):
        with pytest.raises(ConfigError, match=f"{tracker} is not installed; run: pip install {tracker}"):
            train(configure(advection, trackers=[tracker]), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_steps_that_a_loss_scale_leaves_out_are_no_divergence(
    advection: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The scaler of fp16 itself, on the processor and in float32, from a scale at which gradients overflow at first.
    scales = []

    @contextmanager
    def scaled(config: TrainConfig, folder: Path) -> Iterator[Processes]:
        with processes_of(config, folder) as processes:
            processes.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127, growth_interval=3)
            yield processes
            scales.append(processes.scaler.get_scale())

    plain, _ = losses_of(
        configure(advection, epochs=3, clip_norm=1.0, normalization="none", learning_rate=0.03), tmp_path / "plain"
    )
    monkeypatch.setattr("wellkit.train.loop.processes_of", scaled)
    config = configure(advection, epochs=3, clip_norm=1.0, normalization="none", learning_rate=0.03, checkpoint_every=2)
    losses, report = losses_of(config, tmp_path / "run", copied=(2, 4))
    assert report.steps == len(losses) == 15
    assert losses[0] == plain[0]
    assert losses[1] != plain[1]  # the first step was left out
    assert losses[-1] < 0.9 * losses[0]
    # and a run that is resumed goes on with the scale there was
    losses_of(config, tmp_path / "run-copy", resume=True)
    check_identical(tmp_path / "run", tmp_path / "run-copy")
    assert scales[0] == scales[1] < 2.0**127


def zone(powercap: Path, name: str, energy: int, largest: int = 1_000_000_000) -> Path:
    folder = powercap / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "energy_uj").write_text(f"{energy}\n")
    (folder / "max_energy_range_uj").write_text(f"{largest}\n")
    return folder


def test_energy_is_that_of_the_packages_and_may_wrap_around(tmp_path: Path) -> None:
    zone(tmp_path, "intel-rapl:0", 5_000_000)
    zone(tmp_path, "intel-rapl:1", 999_000_000)
    zone(tmp_path, "intel-rapl:0:0", 1_000_000)  # a part of package 0
    meter = EnergyMeter(CPU, powercap=tmp_path)
    assert meter.joules() == 0.0
    zone(tmp_path, "intel-rapl:0", 8_500_000)
    zone(tmp_path, "intel-rapl:0:0", 4_000_000)
    assert meter.joules() == pytest.approx(3.5)
    zone(tmp_path, "intel-rapl:1", 2_000_000)  # 1 J to the end of its range, 2 J from its start
    assert meter.joules() == pytest.approx(6.5)
    assert EnergyMeter(CPU, processors=False, powercap=tmp_path).joules() is None


def test_energy_that_nothing_tells_is_not_known(tmp_path: Path) -> None:
    assert EnergyMeter(CPU, powercap=tmp_path / "nothing").joules() is None
    (zone(tmp_path, "intel-rapl:0", 0) / "energy_uj").write_text("not for you")
    assert EnergyMeter(CPU, powercap=tmp_path).joules() is None


def test_energy_is_recorded_over_all_of_a_run(advection: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    powercap, run = tmp_path / "powercap", tmp_path / "run"
    counter = 0

    def burn(_: object) -> None:
        nonlocal counter
        counter += 2_000_000
        zone(powercap, "intel-rapl:0", counter)

    burn(None)
    monkeypatch.setattr(EnergyMeter.__init__, "__kwdefaults__", {"processors": True, "powercap": powercap})
    # 5 batches, 2 of validation: 14 J; "epoch" is told when all is recorded
    first = train(configure(advection), run, progress=burn)
    assert first.energy_joules == pytest.approx(14.0)
    second = train(configure(advection, epochs=2), run, progress=burn, resume=True)
    assert second.energy_joules == pytest.approx(28.0)
    assert load_record(run / "last").energy_joules == pytest.approx(28.0)


@pytest.mark.torture
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")
def test_a_compiled_model_trains_the_same(advection: Path, tmp_path: Path) -> None:
    keys: dict[str, Any] = {"model": "unet_convnext", "batch_size": 36, "epochs": 2}
    keys["model_arguments"] = {"stages": 1, "blocks_per_stage": 1, "init_features": 4}
    plain, _ = losses_of(configure(advection, **keys), tmp_path / "plain")
    compiled, _ = losses_of(configure(advection, compile=True, **keys), tmp_path / "compiled")
    assert compiled == pytest.approx(plain, rel=1e-4)
    assert weights(tmp_path / "compiled").keys() == weights(tmp_path / "plain").keys()
    torch.compiler.reset()


@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")
def test_a_missing_compiler_is_told_in_one_line(
    advection: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch._inductor import config

    torch.compiler.reset()
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    missing = {"cpp.cxx": ("no-such-compiler",), "fx_graph_cache": False}
    with (
        config.patch(missing),
        pytest.raises(ConfigError, match="compile = true: torch cannot compile the model here") as told,
    ):
        train(configure(advection, compile=True), tmp_path / "run")
    assert "\n" not in str(told.value)
    torch.compiler.reset()


def test_an_operation_without_a_deterministic_algorithm_is_told(
    advection: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def loss(*_: object, **__: object) -> torch.Tensor:
        return torch.zeros(3).put_(torch.tensor([0, 0]), torch.ones(2)).sum()

    monkeypatch.setattr("wellkit.train.steps.rollout_loss", loss)
    with pytest.raises(ConfigError, match=r"deterministic = true: put_ does not have .* leave it out for model 'fno'"):
        train(configure(advection, deterministic=True), tmp_path / "run")
    assert not torch.are_deterministic_algorithms_enabled()
