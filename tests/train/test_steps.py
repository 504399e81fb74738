"""What a step does: how windows are shared out, the loss and its gradient, the weights that come of it."""

from __future__ import annotations

import math
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from tests.train.advection import NAME
from tests.train.training import losses_of, weights
from wellkit.errors import ConfigError, TrainingError
from wellkit.metrics import vrmse
from wellkit.normalization import ZScoreNormalization
from wellkit.schemas.training import TrainConfig
from wellkit.train import Progress, train
from wellkit.train.averaging import decay_at
from wellkit.train.data import Batch, all_finite
from wellkit.train.losses import Units, rollout_loss
from wellkit.train.models import build_model
from wellkit.train.models.fno import SpectralConvolutions
from wellkit.train.predictors import Network, ZScoreIncrements
from wellkit.train.steps import share_out

FNO = {"modes1": 4, "modes2": 4, "hidden_channels": 4, "lifting_channels": 8, "projection_channels": 8}

# Far apart on purpose: whoever takes one for the other is off by a factor.
STATISTICS = {
    "mean": {"a": 10.0, "b": [1.0, 2.0]},
    "std": {"a": 2.0, "b": [4.0, 8.0]},
    "rms": {"a": 1.0, "b": [1.0, 1.0]},
    "mean_delta": {"a": 0.5, "b": [0.0, -1.0]},
    "std_delta": {"a": 0.25, "b": [0.5, 2.0]},
    "rms_delta": {"a": 1.0, "b": [1.0, 1.0]},
}


def configure(base: Path, **keys: Any) -> TrainConfig:
    defaults: dict[str, Any] = {"data": base, "epochs": 1, "batch_size": 8, "device": "cpu", "model_arguments": FNO}
    return TrainConfig.create(NAME, **(defaults | keys))


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("accumulate", [1, 2, 5])
@pytest.mark.parametrize("n", [1, 7, 16, 23])
def test_every_window_is_shared_out_once_and_weighs_the_same(n: int, accumulate: int, count: int) -> None:
    order = list(range(100, 100 + n))
    shares = [
        share_out(order, batch_size=8, accumulate=accumulate, number=number, count=count) for number in range(count)
    ]
    assert {len(share) for share in shares} == {-(-n // 8)}
    for step, of_all in enumerate(zip(*shares, strict=True)):
        batch = order[8 * step : 8 * step + 8]
        assert len({len(pieces) for pieces in of_all}) == 1  # as many for each: they wait for one another
        weighty = [piece for pieces in of_all for piece in pieces if piece.weight > 0]
        assert sorted(index for piece in weighty for index in piece.indices) == batch
        for piece in weighty:
            assert piece.weight == pytest.approx(len(piece.indices) / len(batch))
        assert all(len(piece.indices) == 1 for pieces in of_all for piece in pieces if piece.weight == 0)


class Gain(nn.Module):
    """One weight: the next state is w times the last."""

    def __init__(self, w: float) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor(w))

    def forward(self, x: Tensor) -> Tensor:
        return self.w * x


def gradient(w: float, truth: list[float], *, pushforward: bool) -> tuple[float, float]:
    """Loss and gradient of `Gain(w)` that starts at 1 and is to follow `truth`."""
    model = Gain(w)
    outputs = torch.tensor(truth).reshape(1, len(truth), 1, 1)
    batch = Batch([0], torch.ones(1, 1, 1, 1), outputs, None)
    loss = rollout_loss(
        model, batch, loss="mse", units=None, nan_fill=None, pushforward=pushforward, precision=nullcontext
    )
    loss.backward()  # type: ignore[no-untyped-call]
    assert model.w.grad is not None
    return float(loss.detach()), float(model.w.grad)


def test_the_gradient_of_a_rollout_goes_through_all_steps() -> None:
    # ((w - 1)^2 + (w^2 - 3)^2) / 2 at w = 2: (1 + 1) / 2; gradient (2 (w - 1) + 4 w (w^2 - 3)) / 2 = (2 + 8) / 2
    assert gradient(2.0, [1.0, 3.0], pushforward=False) == (1.0, 5.0)


def test_pushforward_trains_the_last_step_alone() -> None:
    # the first step leads to 2 and is a number from then on: (w 2 - 3)^2 = 1, gradient 2 (2 w - 3) 2 = 4
    assert gradient(2.0, [1.0, 3.0], pushforward=True) == (1.0, 4.0)
    # three steps: u = 4, (4 w - 10)^2 = 4, gradient 2 (4 w - 10) 4 = -16
    assert gradient(2.0, [1.0, 3.0, 10.0], pushforward=True) == (4.0, -16.0)


def test_points_outside_the_domain_are_left_out_and_windows_weigh_the_same() -> None:
    nan = float("nan")
    outputs = torch.tensor([[1.0, nan, nan, nan], [2.0, 2.0, 2.0, 2.0]]).reshape(2, 1, 4, 1)
    batch = Batch([0, 1], torch.zeros(2, 1, 4, 1), outputs, None)
    options: dict[str, Any] = {"pushforward": False, "precision": nullcontext}
    loss = rollout_loss(Gain(1.0), batch, loss="mse", units=None, nan_fill=torch.tensor([True]), **options)
    assert float(loss.detach()) == (1.0 + 4.0) / 2


@pytest.mark.parametrize("outside", [0, 2])
def test_the_relative_loss_weighs_each_window_and_component_by_its_own_variance(outside: int) -> None:
    # The model answers 2 everywhere. Off by 1 and -1 of a variance of 2, and by 10 and -10 of one of 200: both are
    # sqrt(1/2). Then a flat target missed by 0.1, whose variance counts as 1e-5: sqrt(0.01 / 1e-5). And one met.
    truth = torch.tensor([[1.0, 3.0], [-8.0, 12.0], [1.9, 1.9], [2.0, 2.0]])
    truth = torch.cat([truth, torch.full((4, outside), float("nan"))], dim=1)
    outputs = truth.T.reshape(1, 1, -1, 4)
    model = Gain(2.0)
    loss = rollout_loss(
        model,
        Batch([0], torch.ones(1, 1, 2 + outside, 4), outputs, None),
        loss="vrmse",
        units=None,
        nan_fill=torch.tensor([True] * 4) if outside else None,
        pushforward=False,
        precision=nullcontext,
    )
    assert float(loss.detach()) == pytest.approx((2 * math.sqrt(0.5) + math.sqrt(1e3)) / 4, rel=1e-5)
    loss.backward()  # type: ignore[no-untyped-call]
    assert model.w.grad is not None
    assert math.isfinite(float(model.w.grad))


class Change(nn.Module):
    """Answers with the same change everywhere, in the units of normalized changes."""

    def __init__(self, change: list[float]) -> None:
        super().__init__()
        self.change = nn.Parameter(torch.tensor(change).reshape(1, 3, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.change.expand(x.shape[0], 3, x.shape[-1])


def test_a_state_and_its_change_are_undone_with_their_own_statistics() -> None:
    # changes of 1, 1 and 3: normalized (1 - 0.5)/0.25 = 2, (1 - 0)/0.5 = 2, (3 + 1)/2 = 2
    last = torch.tensor([14.0, 9.0, 10.0])
    window = last.expand(1, 1, 5, 3)
    predictor = Network(Change([2.0, 2.0, 2.0]), ZScoreIncrements(STATISTICS, ["a", "b"], []))
    assert predictor.predict(window, None)[0, 0].tolist() == [15.0, 10.0, 13.0]
    # and by a network that answers with states: 2 x 2 + 10, 2 x 4 + 1, 2 x 8 + 2
    states = Network(Change([2.0, 2.0, 2.0]), ZScoreNormalization(STATISTICS, ["a", "b"], []))
    assert states.predict(window, None)[0, 0].tolist() == [14.0, 9.0, 18.0]


def test_the_loss_of_a_change_is_in_units_of_changes() -> None:
    normalization = ZScoreIncrements(STATISTICS, ["a", "b"], [])
    units = Units.of(normalization, torch.device("cpu"))
    assert units is not None
    # std / std_delta and mean_delta / std_delta
    assert units.ratio.tolist() == [8.0, 8.0, 4.0]
    assert units.shift.tolist() == [2.0, 0.0, -0.5]
    frames = torch.tensor([[14.0, 9.0, 10.0], [15.0, 10.0, 13.0], [16.0, 11.0, 16.0]])
    normalized = normalization.normalize_flattened(frames)
    batch = Batch([0], normalized[:1].reshape(1, 1, 1, 3), normalized[1:].reshape(1, 2, 1, 3), None)

    def loss(change: float) -> float:
        model = Change([change, change, change])
        options: dict[str, Any] = {"nan_fill": None, "pushforward": False, "precision": nullcontext}
        return float(rollout_loss(model, batch, loss="mse", units=units, **options).detach())

    assert loss(2.0) == pytest.approx(0.0, abs=1e-10)
    # off by 1 in every step: the first state misses by one deviation of a change, the second by two
    assert loss(3.0) == pytest.approx((1 + 4) / 2)
    assert Units.of(ZScoreNormalization(STATISTICS, ["a", "b"], []), torch.device("cpu")) is None


def test_the_relative_loss_of_a_change_is_the_vrmse_of_the_states() -> None:
    normalization = ZScoreIncrements(STATISTICS, ["a", "b"], [])
    rng = np.random.default_rng(7)
    frames = torch.tensor(rng.normal([10.0, 1.0, 2.0], [2.0, 4.0, 8.0], (6, 2, 5, 3)), dtype=torch.float32)
    normalized = normalization.normalize_flattened(frames)
    model = Change([2.0, -1.0, 0.5])
    loss = rollout_loss(
        model,
        Batch([0], normalized[:, :1], normalized[:, 1:], None),
        loss="vrmse",
        units=Units.of(normalization, torch.device("cpu")),
        nan_fill=None,
        pushforward=False,
        precision=nullcontext,
    )
    reached = Network(model, normalization).predict(frames[:, :1], None).detach()
    assert float(loss.detach()) == pytest.approx(float(vrmse(reached, frames[:, 1], n_spatial_dims=1, eps=0.0).mean()))


def test_pieces_change_nothing_but_rounding(advection: Path, tmp_path: Path) -> None:
    whole, _ = losses_of(configure(advection, epochs=2), tmp_path / "whole")
    # 5 steps an epoch: four of 8 windows in pieces of 3, 3, 2 and one of 4 in 2, 1, 1
    pieces, _ = losses_of(configure(advection, epochs=2, accumulate=3), tmp_path / "pieces")
    assert pieces == pytest.approx(whole, abs=1e-6)
    for name, tensor in weights(tmp_path / "whole").items():
        torch.testing.assert_close(weights(tmp_path / "pieces")[name], tensor, atol=1e-6, rtol=1e-4)


def test_averaged_weights_follow_the_formula(advection: Path, tmp_path: Path) -> None:
    # one step an epoch, so that the checkpoint of each is that of each step
    keys: dict[str, Any] = {"batch_size": 36, "warmup_epochs": 0.0}
    steps: list[dict[str, Tensor]] = []

    def keep(progress: Progress) -> None:
        if progress.phase == "epoch":
            steps.append({name: tensor.clone() for name, tensor in weights(tmp_path / "plain").items()})

    train(configure(advection, epochs=3, **keys), tmp_path / "plain", progress=keep)
    train(configure(advection, epochs=3, ema_decay=0.15, **keys), tmp_path / "average")
    first = build_model("fno", FNO, dim_in=12, dim_out=3, spatial_resolution=(16, 16), seed=0).state_dict()
    averaged = weights(tmp_path / "average")
    for name, tensor in first.items():
        expected = tensor.clone()
        # (1 + 0)/(10 + 0) = 0.1, then (1 + 1)/(10 + 1) = 0.1818 is more than 0.15
        for decay, step in zip((0.1, 0.15, 0.15), steps, strict=True):
            expected = decay * expected + (1 - decay) * step[name]
        torch.testing.assert_close(averaged[name], expected, atol=1e-6, rtol=1e-5)
        if name.endswith("weight"):
            assert not torch.equal(averaged[name], steps[-1][name])
    assert [decay_at(n, 0.15) for n in (0, 1, 100)] == [0.1, 0.15, 0.15]


def test_a_gradient_is_clipped_to_its_norm(advection: Path, tmp_path: Path) -> None:
    # AdamW forgets the scale of a gradient but for its epsilon: clipped far below that, steps become small
    norms = {}
    start = build_model("fno", FNO, dim_in=12, dim_out=3, spatial_resolution=(16, 16), seed=0).state_dict()
    for clip in (0.0, 1e-12):
        train(configure(advection, clip_norm=clip, weight_decay=0.0), tmp_path / f"{clip}")
        trained = weights(tmp_path / f"{clip}")
        norms[clip] = sum(float((trained[name] - start[name]).square().sum()) for name in start) ** 0.5
    assert norms[1e-12] < 1e-3 * norms[0.0]


def test_a_gradient_that_is_not_finite_stops_training(advection: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"diverged: the (norm of the gradient|loss) is (nan|inf) at epoch 1"):
        train(configure(advection, epochs=5, learning_rate=1e25, clip_norm=1.0), tmp_path / "run")


def test_half_precision_trains_and_spectral_blocks_stay_in_single(
    advection: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, set[torch.dtype]] = {"spectral": set(), "pointwise": set()}
    convolve, pointwise = SpectralConvolutions._convolve, nn.Conv2d.forward

    def spectral(self: SpectralConvolutions, x: Tensor, layer: int) -> Tensor:
        y = convolve(self, x, layer)
        seen["spectral"] |= {x.dtype, y.dtype}
        return y

    def conv(self: nn.Conv2d, x: Tensor) -> Tensor:
        y = pointwise(self, x)
        if self.training:
            seen["pointwise"].add(y.dtype)
        return y

    monkeypatch.setattr(SpectralConvolutions, "_convolve", spectral)
    monkeypatch.setattr(nn.Conv2d, "forward", conv)
    half, report = losses_of(configure(advection, precision="bf16", epochs=3), tmp_path / "half")
    single, _ = losses_of(configure(advection, epochs=3), tmp_path / "single")
    assert seen["spectral"] == {torch.float32}
    assert half != single
    assert half == pytest.approx(single, rel=0.05)
    assert torch.bfloat16 in seen["pointwise"]
    saved = load_file(tmp_path / "half" / "last" / "model.safetensors")
    assert {tensor.dtype for tensor in saved.values()} == {torch.float32}
    assert report.last_valid_vrmse < 2


def test_a_sum_tells_of_numbers_that_are_not_finite() -> None:
    nan, inf = float("nan"), float("inf")

    def judged(inputs: float, outputs: float, constant: float = 0.0) -> bool:
        window, following = torch.tensor([[[inputs, 1.0]]]), torch.tensor([[[outputs, 1.0]]])
        batch = Batch([0], window, following, torch.tensor([[constant]]))
        return bool(all_finite(batch, (True, False)))

    assert judged(1.0, 1.0)
    assert judged(nan, nan)  # which the first channel may hold
    assert not judged(inf, 1.0)
    assert not judged(1.0, -inf)
    assert not judged(1.0, 1.0, nan)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"pushforward": True}, "pushforward = true needs n_steps_output of 2 or more"),
        ({"loss": "vrmse", "normalization": "none"}, "loss = 'vrmse' needs normalization"),
        ({"targets": "delta", "normalization": "none"}, "targets = 'delta' needs normalization"),
        ({"strategy": "fsdp", "precision": "fp16"}, "use 'bf16'"),
        ({"accumulate": 9}, "accumulate = 9 pieces of a batch_size of 8"),
        ({"precision": "half"}, "'float32', 'tf32', 'bf16' or 'fp16'"),
        ({"ema_decay": 1.0}, "ema_decay"),
        ({"trackers": ["tensorbord"]}, "'tensorboard' or 'wandb'"),
        ({"checkpoint_evry": 3}, "Did you mean checkpoint_every"),
    ],
)
def test_settings_that_make_no_sense_are_refused(keys: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        configure(Path("data"), **keys)
