"""The networks: their published layout, what they compute, that every parameter learns, what they refuse."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from wellkit.errors import ArgumentError, ConfigError
from wellkit.train.models import (
    FNO,
    MODELS,
    TFNO,
    AViT,
    UNetClassic,
    UNetConvNext,
    build_model,
    check_model_arguments,
    count_parameters,
    model_arguments,
)
from wellkit.train.models.avit import AxialBlock, attend
from wellkit.train.models.fno import DenseWeight, SpectralConvolutions, SpectralWeight
from wellkit.train.models.layers import DropPath
from wellkit.train.models.tfno import TuckerWeight, tucker_ranks
from wellkit.train.models.unet_convnext import ChannelNorm

TINY: dict[str, dict[str, int]] = {
    "fno": {"modes1": 4, "modes2": 4, "modes3": 4, "hidden_channels": 6, "lifting_channels": 8},
    "tfno": {"modes1": 4, "modes2": 4, "modes3": 4, "hidden_channels": 6, "lifting_channels": 8},
    "unet_classic": {"init_features": 2},
    "unet_convnext": {"stages": 2, "blocks_per_stage": 1, "init_features": 4},
    "avit": {"hidden_dim": 48, "num_heads": 4, "processor_blocks": 2},
}
# Grids they take: the convnext with 4 or more points at the neck, so that every tap of a kernel of width 7 meets data,
# the classic and the transformer with 2 or more at the coarsest level, so that there is something to compare.
SIZES = {"unet_classic": (32, 48, 32), "avit": (32, 48, 32)}


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# Counts of the published benchmark: 4 steps of 11 (2D, active_matter) or 7 (3D) components in, 1 out.
# FNO in 2D by hand: 4 spectral weights of 128 x 128 x 16 x 9 x 2 = 18,874,368, biases 4 x 128 = 512, skips
# 4 x 128 x 128 = 65,536, lifting 44 x 256 + 256 + 256 x 128 + 128 = 44,416, projection 128 x 256 + 256 +
# 256 x 11 + 11 = 35,851: together 19,020,683.
@pytest.mark.parametrize(
    ("model", "dims", "fields", "parameters", "tensors"),
    [
        (FNO, 2, 11, 19_020_683, 17),
        (FNO, 3, 7, 302_131_079, 17),
        (TFNO, 2, 11, 19_285_523, 33),
        (TFNO, 3, 7, 302_397_967, 37),
        (UNetClassic, 2, 11, 17_479_595, 118),
        (UNetClassic, 3, 7, 50_830_951, 118),
        (UNetConvNext, 2, 11, 18_588_581, 195),
        (UNetConvNext, 3, 7, 22_315_405, 195),
        (AViT, 2, 11, 14_651_392, 97),  # on 64 x 64 points
    ],
)
def test_default_models_are_as_large_as_the_published_ones(
    model: type[nn.Module], dims: int, fields: int, parameters: int, tensors: int
) -> None:
    with torch.device("meta"):  # shapes without memory
        built = model(dim_in=4 * fields, dim_out=fields, n_spatial_dims=dims, spatial_resolution=(64,) * dims)
    assert count_parameters(built) == parameters
    assert len(built.state_dict()) == tensors


def test_fno_state_has_the_published_names_and_shapes() -> None:
    with torch.device("meta"):
        state = FNO(44, 11, 2, (256, 256)).state_dict()
    expected: dict[str, tuple[int, ...]] = {
        "model.fno_blocks.convs.bias": (4, 128, 1, 1),
        "model.lifting.fcs.0.weight": (256, 44, 1, 1),
        "model.lifting.fcs.0.bias": (256,),
        "model.lifting.fcs.1.weight": (128, 256, 1, 1),
        "model.lifting.fcs.1.bias": (128,),
        "model.projection.fcs.0.weight": (256, 128, 1, 1),
        "model.projection.fcs.0.bias": (256,),
        "model.projection.fcs.1.weight": (11, 256, 1, 1),
        "model.projection.fcs.1.bias": (11,),
    }
    for layer in range(4):
        expected[f"model.fno_blocks.convs.weight.{layer}.tensor"] = (128, 128, 16, 9, 2)
        expected[f"model.fno_blocks.fno_skips.{layer}.weight"] = (128, 128, 1, 1)
    assert {name: tuple(tensor.shape) for name, tensor in state.items()} == expected


def test_unet_state_has_the_published_names() -> None:
    with torch.device("meta"):
        state = UNetConvNext(44, 11, 2, (256, 256)).state_dict()
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    assert shapes["in_proj.weight"] == (42, 44, 3, 3)
    assert shapes["encoder.0.resample.block.0.weight"] == (42, 1, 1)
    assert shapes["encoder.0.resample.block.1.weight"] == (84, 42, 2, 2)
    assert shapes["encoder.3.blocks.1.dwconv.weight"] == (336, 1, 7, 7)
    assert shapes["encoder.3.blocks.1.gamma"] == (336,)
    assert shapes["neck.blocks.0.pwconv1.weight"] == (4 * 672, 672)
    assert shapes["decoder.0.resample.block.1.weight"] == (672, 336, 2, 2)
    assert shapes["decoder.1.skip_proj.weight"] == (336, 672, 1, 1)
    assert "decoder.0.skip_proj.weight" not in shapes
    assert shapes["out_proj.weight"] == (11, 42, 3, 3)


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("name", sorted(MODELS))
def test_every_parameter_learns(name: str, dims: int) -> None:
    size = SIZES.get(name, (16, 20, 16))[:dims]
    model = build_model(name, TINY[name], dim_in=5, dim_out=3, spatial_resolution=size, seed=0)
    output = model(noise(2, 5, *size))
    assert output.shape == (2, 3, *size)
    (output - noise(2, 3, *size, seed=1)).square().mean().backward()
    for label, parameter in model.named_parameters():
        assert parameter.grad is not None, label
        assert bool(torch.isfinite(parameter.grad).all()), label
        # Of a spectral weight only the imaginary part of a real mode may stay untouched.
        assert float((parameter.grad != 0).float().mean()) > 0.8, label


@pytest.mark.parametrize("name", sorted(MODELS))
def test_recomputing_blocks_changes_memory_only(name: str) -> None:
    outcomes = []
    for recompute in (False, True):
        arguments: dict[str, object] = {**TINY[name], "gradient_checkpointing": recompute}
        model = build_model(name, arguments, dim_in=2, dim_out=2, spatial_resolution=(32, 32), seed=3)
        model(noise(2, 2, 32, 32)).square().sum().backward()
        # Running statistics too: a batch that is computed twice counts once.
        outcomes.append([*(p.grad for p in model.parameters()), *model.buffers()])
    torch.testing.assert_close(outcomes[0], outcomes[1])


@pytest.mark.parametrize("size", [(8, 8), (12, 10), (4, 4), (6, 20)])
def test_spectral_convolution_against_the_shifted_form(size: tuple[int, int]) -> None:
    # The definition the published weights were made with: shift the full spectrum so that frequency 0 is in
    # the middle, cut the middle out, multiply, put it back, shift back. Two modes are cut off on the smallest
    # grid.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        layer = SpectralConvolutions(3, (6, 6), 1)
    x = noise(2, 3, *size, seed=5)
    weight = layer.full_weight(0)  # (3, 3, 6, 4): frequencies -3..2 and 0..3
    spectrum = torch.fft.fftshift(torch.fft.rfftn(x, dim=(2, 3), norm="forward"), dim=2)
    product = torch.zeros_like(spectrum)
    middle = size[0] // 2
    for j, frequency in enumerate(range(-3, 3)):
        for k in range(min(4, spectrum.shape[3])):
            if 0 <= middle + frequency < size[0]:
                product[:, :, middle + frequency, k] = torch.einsum(
                    "bi,io->bo", spectrum[:, :, middle + frequency, k], weight[:, :, j, k]
                )
    expected = torch.fft.irfftn(torch.fft.ifftshift(product, dim=2), s=size, dim=(2, 3), norm="forward")
    torch.testing.assert_close(layer(x, 0), expected + layer.bias[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("size", [(8, 12), (9, 11)])
def test_fno_commutes_with_periodic_shifts(size: tuple[int, int]) -> None:
    model = build_model("fno", TINY["fno"], dim_in=2, dim_out=1, spatial_resolution=size, seed=6)
    x = noise(1, 2, *size, seed=7)
    shifted = model(x.roll((2, 5), dims=(2, 3)))
    torch.testing.assert_close(shifted, model(x).roll((2, 5), dims=(2, 3)), rtol=1e-4, atol=1e-5)


def test_spectral_convolution_knows_no_resolution() -> None:
    # sin(2 pi x) cos(2 pi y) sampled on 8 x 8 and 16 x 24 points: the outputs agree at the points both grids
    # have.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(8)
        layer = SpectralConvolutions(1, (6, 6), 1)

    def wave(nx: int, ny: int) -> Tensor:
        x, y = torch.arange(nx) / nx, torch.arange(ny) / ny
        return (torch.sin(2 * math.pi * x)[:, None] * torch.cos(2 * math.pi * y)[None, :])[None, None]

    torch.testing.assert_close(layer(wave(8, 8), 0), layer(wave(16, 24), 0)[..., ::2, ::3], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("weight", [DenseWeight, TuckerWeight])
def test_spectral_convolution_stays_in_float32_under_autocast(weight: type[SpectralWeight]) -> None:
    layer = SpectralConvolutions(2, (4, 4), 1, weight)
    x = noise(1, 2, 8, 8).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = layer(x, 0)
    assert found.dtype == torch.float32
    assert torch.equal(found, layer(x.float(), 0))


@pytest.mark.parametrize("name", sorted(MODELS))
def test_every_model_works_under_autocast(name: str) -> None:
    model = build_model(name, TINY[name], dim_in=2, dim_out=1, spatial_resolution=(32, 32), seed=0)
    x = noise(2, 2, 32, 32)
    exact = model(x).detach()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = model(x)
    assert rounded.dtype == torch.bfloat16
    assert 0 < float((rounded.detach().float() - exact).abs().max()) < 0.1 * float(exact.abs().max())
    rounded.float().square().mean().backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in model.parameters())


def test_channel_norm_is_layer_normalization_over_channels() -> None:
    x = 3.0 + noise(2, 5, 4, 6, seed=9)
    norm = ChannelNorm(5, 2, unit_length=False)
    with torch.no_grad():
        norm.weight.copy_(noise(5, 1, 1, seed=10))
        norm.bias.copy_(noise(5, 1, 1, seed=11))
    expected = functional.layer_norm(x.movedim(1, -1), (5,), norm.weight.flatten(), norm.bias.flatten(), eps=1e-6)
    torch.testing.assert_close(norm(x), expected.movedim(-1, 1))


def test_channel_norm_of_the_published_weights() -> None:
    # The vector (3, 4) has length 5: divided by it and multiplied by the weight 10 it is (6, 8), bias or not.
    norm = ChannelNorm(2, 1, unit_length=True)
    with torch.no_grad():
        norm.weight.fill_(10.0)
        norm.bias.fill_(7.0)
    torch.testing.assert_close(norm(torch.tensor([[[3.0], [4.0]]])), torch.tensor([[[6.0], [8.0]]]))


def test_tucker_weight_is_its_sum_of_products() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(12)
        weight = TuckerWeight(3, (4, 2), 0.5)
    core = torch.view_as_complex(weight.core)
    a, b, c, d = (torch.view_as_complex(factor) for factor in weight.factors.values())
    torch.testing.assert_close(weight.full(), torch.einsum("ijkl,ai,bj,ck,dl->abcd", core, a, b, c, d))


def test_tucker_weight_begins_as_large_as_a_dense_one() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(13)
        weight = TuckerWeight(32, (8, 5), 0.25).full().detach()
    assert float(weight.real.std()) == pytest.approx(0.25, rel=0.1)
    assert float(weight.imag.std()) == pytest.approx(0.25, rel=0.1)


@pytest.mark.parametrize(
    ("shape", "ranks"),
    [
        ((128, 128, 16, 9), (128, 128, 16, 9)),  # published, 2D
        ((128, 128, 16, 16, 9), (128, 128, 16, 16, 9)),  # published, 3D
        # By hand: 4 c^2 + 8 c = 4 has the root sqrt(2) - 1, so that 2 c = 0.83.
        ((2, 2), (1, 1)),
        # 65536 c^2 + 131072 c = 65536: the same root, 256 c = 106.04.
        ((256, 256), (106, 106)),
    ],
)
def test_tucker_ranks_keep_the_number_of_parameters(shape: tuple[int, ...], ranks: tuple[int, ...]) -> None:
    assert tucker_ranks(shape) == ranks


@pytest.mark.parametrize("name", ["fno", "tfno"])
def test_legacy_goes_from_lifting_to_projection(name: str) -> None:
    arguments: dict[str, object] = {**TINY[name], "legacy_skip_blocks": True}
    model = build_model(name, arguments, dim_in=2, dim_out=1, spatial_resolution=(8, 8), seed=1)
    x = noise(1, 2, 8, 8)
    assert isinstance(model, FNO)
    torch.testing.assert_close(model(x), model.model.projection(model.model.lifting(x)), rtol=0, atol=0)
    # Nothing couples the points any more.
    torch.testing.assert_close(model(x.roll(3, dims=2)), model(x).roll(3, dims=2), rtol=0, atol=0)


def test_attention_runs_along_the_axis_asked_for() -> None:
    # By hand: for each line apart, softmax(q k / sqrt(channels)) v.
    query, key, value = (noise(2, 3, 4, 2, 5, seed=seed) for seed in (14, 15, 16))  # (B, x, y, head, channel)
    for axis, (scores, mix) in {
        1: ("bxyhc,bzyhc->byhxz", "byhxz,bzyhc->bxyhc"),
        2: ("bxyhc,bxzhc->bxhyz", "bxhyz,bxzhc->bxyhc"),
    }.items():
        weights = torch.softmax(torch.einsum(scores, query, key) / math.sqrt(5), dim=-1)
        torch.testing.assert_close(attend(query, key, value, axis), torch.einsum(mix, weights, value))


@pytest.mark.parametrize(("published", "reached"), [(False, [True, True]), (True, [False, True])])
def test_published_attention_does_not_reach_along_the_first_axis(published: bool, reached: list[bool]) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(17)
        block = AxialBlock(48, 4, 2, 0.0, 1.0, published)
    x = noise(1, 3, 3, 48, seed=18).requires_grad_()
    block(x)[0, 0, 0].square().sum().backward()
    assert x.grad is not None
    influence = x.grad[0].abs().amax(-1)
    assert [bool(influence[1, 0] > 0), bool(influence[0, 1] > 0)] == reached


def test_drop_path_drops_whole_samples_and_keeps_the_expectation() -> None:
    layer = DropPath(0.25)
    x = torch.ones(4000, 2, 3)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(19)
        y = layer(x)
    assert {round(v, 5) for v in y.unique().tolist()} == {0.0, round(4 / 3, 5)}
    assert bool((y == y[:, :1, :1]).all())
    assert float(y.mean()) == pytest.approx(1.0, abs=0.05)
    assert torch.equal(layer.eval()(x), x)


def test_the_transformer_knows_one_grid() -> None:
    model = build_model("avit", TINY["avit"], dim_in=2, dim_out=1, spatial_resolution=(32, 32), seed=0)
    with pytest.raises(ArgumentError, match="fields of 32x48 points for a model of 32x32"):
        model(noise(1, 2, 32, 48))
    with pytest.raises(ArgumentError, match="24x32 is not divisible by the patch size = 16"):
        build_model("avit", TINY["avit"], dim_in=2, dim_out=1, spatial_resolution=(24, 32), seed=0)
    with pytest.raises(ArgumentError, match="hidden_dim=60 must be a multiple of 48"):
        build_model("avit", {"hidden_dim": 60}, dim_in=2, dim_out=1, spatial_resolution=(32, 32), seed=0)
    with pytest.raises(ArgumentError, match=r"drop_path=1\.0"):
        build_model("avit", {"drop_path": 1.0}, dim_in=2, dim_out=1, spatial_resolution=(32, 32), seed=0)


@pytest.mark.parametrize("name", sorted(MODELS))
def test_dimensions_and_resolution_must_agree(name: str) -> None:
    with pytest.raises(ArgumentError, match="has 3 axes"):
        MODELS[name](dim_in=2, dim_out=1, n_spatial_dims=2, spatial_resolution=(16, 16, 16))


def test_classic_unet_cannot_train_on_a_single_value() -> None:
    model = UNetClassic(2, 1, 2, (16, 16), init_features=2)
    assert model(noise(2, 2, 16, 16)).shape == (2, 1, 16, 16)
    with pytest.raises(ArgumentError, match="one value per channel"):
        model(noise(1, 2, 16, 16))
    assert model.eval()(noise(1, 2, 16, 16)).shape == (1, 1, 16, 16)


def test_classic_unet_refuses_grids_it_cannot_halve() -> None:
    model = UNetClassic(2, 1, 2, (16, 16), init_features=2)
    with pytest.raises(ArgumentError, match=r"unet_classic: grid 32x66 is not divisible by 2\^4 = 16"):
        model(noise(1, 2, 32, 66))


@pytest.mark.parametrize("size", [(24, 24), (32, 66)])
def test_unet_refuses_grids_it_cannot_halve(size: tuple[int, int]) -> None:
    with pytest.raises(ArgumentError, match=rf"{size[0]}x{size[1]} is not divisible by 2\^stages = 16"):
        UNetConvNext(2, 1, 2, size, init_features=2)
    model = UNetConvNext(2, 1, 2, (16, 16), blocks_per_stage=1, init_features=2)
    with pytest.raises(ArgumentError, match="not divisible"):
        model(noise(1, 2, *size))


def test_weights_follow_from_the_seed_and_leave_the_global_generator_alone() -> None:
    before = torch.random.get_rng_state()
    one, two, other = (
        build_model("fno", TINY["fno"], dim_in=2, dim_out=1, spatial_resolution=(8, 8), seed=seed) for seed in (5, 5, 6)
    )
    assert torch.equal(before, torch.random.get_rng_state())
    for label, tensor in one.state_dict().items():
        assert torch.equal(tensor, two.state_dict()[label])
    assert not torch.equal(next(one.parameters()), next(other.parameters()))


def test_model_arguments_are_those_beside_the_data() -> None:
    assert model_arguments("tfno") == model_arguments("fno")
    assert model_arguments("fno") == {
        "modes1": 16,
        "modes2": 16,
        "modes3": 16,
        "hidden_channels": 128,
        "lifting_channels": 256,
        "projection_channels": 256,
        "gradient_checkpointing": False,
        "legacy_skip_blocks": False,
    }


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("fnoo", {}, "model 'fnoo' is unknown.*Did you mean fno"),
        ("fno", {"hiden_channels": 4}, "no argument 'hiden_channels'.*Did you mean hidden_channels"),
        ("fno", {"hidden_channels": "4"}, "hidden_channels='4' is a str; expected int"),
        ("fno", {"gradient_checkpointing": 1}, "expected bool"),
        ("unet_convnext", {"stages": 2.0}, "expected int"),
    ],
)
def test_unknown_models_and_arguments_are_refused(name: str, arguments: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        check_model_arguments(name, arguments)


def test_whole_numbers_are_fine_where_a_real_one_is_expected() -> None:
    check_model_arguments("unet_convnext", {"layer_scale": 1})


@pytest.mark.parametrize("name", sorted(MODELS))
def test_senseless_arguments_are_refused(name: str) -> None:
    key = {"unet_classic": "init_features", "unet_convnext": "stages", "avit": "num_heads"}.get(name, "hidden_channels")
    with pytest.raises(ArgumentError, match="at least 1"):
        build_model(name, {key: 0}, dim_in=2, dim_out=1, spatial_resolution=(8, 8), seed=0)
    with pytest.raises(ArgumentError, match="1, 2 or 3 dimensions"):
        build_model(name, {}, dim_in=2, dim_out=1, spatial_resolution=(16, 16, 16, 16), seed=0)
