"""Published checkpoints in folders: what they compute, what of them is refused."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.hub.server import LoopbackHub
from tests.train.published_networks import KINDS, PUBLISHED, assert_computes, copy_of, edit, values
from wellkit.errors import ConfigError, DocumentError, TrainingError
from wellkit.train.models import build_model
from wellkit.train.pretrained import from_pretrained, load_pretrained


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_networks_saved_by_the_well_compute_the_same(kind: str) -> None:
    legacy = False if kind.endswith("FNO") else None
    loaded = load_pretrained(PUBLISHED / kind, legacy_skip_blocks=legacy)
    assert (loaded.name, loaded.dim_in, loaded.dim_out, loaded.commit) == (KINDS[kind], 5, 2, None)
    assert not loaded.model.training
    assert all(
        p.requires_grad and p.dtype == torch.float32 and p.device.type == "cpu" for p in loaded.model.parameters()
    )
    assert_computes(loaded.model, kind)


def test_the_published_attention_is_not_ours() -> None:
    # What keeps the test before honest: without its variant the transformer computes something else.
    x, expected = values("AViT")
    arguments = load_pretrained(PUBLISHED / "AViT").arguments
    assert arguments["published_attention"] is True
    other = build_model(
        "avit",
        {**arguments, "published_attention": False},
        dim_in=5,
        dim_out=2,
        spatial_resolution=x.shape[2:],
        seed=0,
    )
    other.load_state_dict(load_file(PUBLISHED / "AViT" / "model.safetensors"))
    with torch.no_grad():
        assert float((other(x) - expected).abs().max()) > 1e-3 * float(expected.abs().max())


def test_what_config_leaves_out_is_as_the_published_constructors_have_it(tmp_path: Path) -> None:
    folder = copy_of("UNetConvNext", tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    for key in ("stages", "blocks_per_stage", "blocks_at_neck", "gradient_checkpointing"):
        del config[key]
    (folder / "config.json").write_text(json.dumps(config))
    assert_computes(from_pretrained(folder), "UNetConvNext")


def test_training_goes_on_from_published_weights_and_leaves_the_file_alone(tmp_path: Path) -> None:
    folder = copy_of("UNetClassic", tmp_path / "model")
    before = (folder / "model.safetensors").read_bytes()
    model = from_pretrained(folder).train()
    model(values("UNetClassic")[0]).square().mean().backward()
    torch.optim.SGD(model.parameters(), lr=1.0).step()
    assert (folder / "model.safetensors").read_bytes() == before
    assert_computes(from_pretrained(folder), "UNetClassic")


# Pickles


def test_pickled_weights_are_refused(hub: LoopbackHub, tmp_path: Path) -> None:
    folder = copy_of("UNetClassic", tmp_path / "model")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    hub.add("somebody/pickled", folder, kind="models")
    for location in ("somebody/pickled", folder):
        with pytest.raises(TrainingError, match=r"pytorch_model\.bin is a pickle, which is refused") as raised:
            from_pretrained(location)
        assert "\n" not in str(raised.value)
    assert not [request for request in hub.fetches() if request.path.endswith(".bin")]
    with pytest.raises(TrainingError, match="pickle files are refused"):
        from_pretrained(folder / "pytorch_model.bin")


class Trap:
    """Unpickled, it leaves a mark."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (self.mark,)


def test_a_pickle_under_the_name_of_safetensors_is_not_opened(tmp_path: Path) -> None:
    folder, mark = copy_of("UNetClassic", tmp_path / "model"), tmp_path / "mark"
    (folder / "model.safetensors").write_bytes(pickle.dumps(Trap(mark)))
    with pytest.raises(TrainingError, match="not a safetensors file"):
        from_pretrained(folder)
    assert not mark.exists()
    torch.save({"x": torch.zeros(3)}, folder / "model.safetensors")
    with pytest.raises(TrainingError, match="not a safetensors file"):
        from_pretrained(folder)


# Damaged or hostile


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"init_features": 3}, r"weights do not fit config\.json: .* expected"),
        ({"dim_out": 3}, r"weights do not fit config\.json"),
        ({"init_features": 2**40}, "init_features=1099511627776, which the weights do not bear out"),
        ({"init_features": 2**31 - 1}, "weights do not fit|memory"),
        ({"blocks_per_stage": 10**9}, "blocks_per_stage=1000000000, which the weights do not bear out"),
        ({"stages": 10**9}, "stages=1000000000, which the weights do not bear out"),
        ({"init_features": "1"}, r"config\.json: .*init_features='1' is a str; expected int"),
        ({"features": 1}, "takes no argument 'features'.*Did you mean init_features"),
        ({"stages": 5}, "is not divisible by 2"),
        ({"spatial_resolution": [16]}, r"spatial_resolution=\[16\]; expected whole numbers"),
        ({"spatial_resolution": 16}, "expected whole numbers"),
        ({"spatial_resolution": [0, 16]}, "expected whole numbers"),
        ({"dim_in": True}, "dim_in=True"),
        ({"dim_in": None}, "dim_in=None"),
        ({"n_spatial_dims": 4, "spatial_resolution": [16] * 4}, "works in 1, 2 or 3 dimensions"),
    ],
)
def test_configurations_that_do_not_fit(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    folder = copy_of("UNetConvNext", tmp_path / "model")
    edit(folder, **changes)
    with pytest.raises(DocumentError, match=words) as raised:
        from_pretrained(folder)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("content", [b"", b"[1]", b"{", b"\xff\xfe", b"[" * 100_000])
def test_configurations_that_are_none(tmp_path: Path, content: bytes) -> None:
    folder = copy_of("UNetConvNext", tmp_path / "model")
    (folder / "config.json").write_bytes(content)
    with pytest.raises(DocumentError, match=r"config\.json: ") as raised:
        from_pretrained(folder)
    assert "\n" not in str(raised.value)


def test_weights_of_another_model(tmp_path: Path) -> None:
    folder = copy_of("UNetClassic", tmp_path / "model")
    save_file({"layer.weight": torch.zeros(2)}, folder / "model.safetensors")
    with pytest.raises(DocumentError, match="weights of no model that is known"):
        from_pretrained(folder)
    (folder / "model.safetensors").write_bytes((PUBLISHED / "UNetClassic" / "model.safetensors").read_bytes()[:5000])
    with pytest.raises(TrainingError, match="not a safetensors file"):
        from_pretrained(folder)


def test_a_device_that_is_none() -> None:
    with pytest.raises(ConfigError, match="device='gpu' cannot be used here"):
        from_pretrained(PUBLISHED / "UNetClassic", device="gpu")


def test_a_folder_that_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"not a published checkpoint \(no config\.json\)"):
        from_pretrained(tmp_path)
