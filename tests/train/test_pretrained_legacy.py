"""FNO and TFNO whose spectral blocks were left out in training: told from the others, and announced."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.hub.faults import unavailable
from tests.hub.server import LoopbackHub
from tests.train.published_networks import PUBLISHED, assert_computes, copy_of, edit, values
from wellkit.errors import ArgumentError, WellkitWarning
from wellkit.train.models import FNO, build_model
from wellkit.train.pretrained import from_pretrained, load_pretrained


def serve(hub: LoopbackHub, tmp_path: Path, kind: str, changed: str) -> str:
    """The name of a repository whose files are of a date."""
    name = f"somebody/{kind}-waves"
    hub.add(name, copy_of(kind, tmp_path / "repository"), kind="models").changed = changed
    return name


@pytest.mark.parametrize("kind", ["FNO", "TFNO"])
def test_weights_from_before_the_fix_leave_the_blocks_out(hub: LoopbackHub, tmp_path: Path, kind: str) -> None:
    name = serve(hub, tmp_path, kind, "2025-03-28T09:00:00.000Z")
    with pytest.warns(WellkitWarning, match=r"left out.*weights are of 2025-03-28.*legacy_skip_blocks=True"):
        loaded = load_pretrained(name)
    assert loaded.arguments["legacy_skip_blocks"] is True
    assert isinstance(loaded.model, FNO)
    x, expected = values(kind)
    with torch.no_grad():
        found = loaded.model(x)
        assert torch.equal(found, loaded.model.model.projection(loaded.model.model.lifting(x)))
    assert float((found - expected).abs().max()) > 1e-2
    # Who knows better says so, and is not told.
    assert_computes(from_pretrained(name, legacy_skip_blocks=False), kind)


def test_weights_from_after_the_fix_use_the_blocks(hub: LoopbackHub, tmp_path: Path) -> None:
    name = serve(hub, tmp_path, "FNO", "2025-11-18T00:00:00.000Z")
    assert_computes(from_pretrained(name), "FNO")


def write_fno(folder: Path, *, channels: int) -> Path:
    """A folder with an FNO as it is before training."""
    arguments = {"modes1": 4, "modes2": 4, "hidden_channels": channels}
    model = build_model("fno", arguments, dim_in=2, dim_out=1, spatial_resolution=(8, 8), seed=0)
    folder.mkdir()
    save_file(model.state_dict(), folder / "model.safetensors")
    shape = {"dim_in": 2, "dim_out": 1, "n_spatial_dims": 2, "spatial_resolution": [8, 8]}
    (folder / "config.json").write_text(json.dumps({**shape, **arguments}))
    return folder


def train_on(folder: Path, *, legacy_skip_blocks: bool) -> None:
    """Some steps of training, saved in the folder."""
    model = from_pretrained(folder, legacy_skip_blocks=legacy_skip_blocks).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.1)
    x = torch.randn(4, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    for _ in range(10):
        optimizer.zero_grad()
        (model(x) - x.roll(1, dims=2)[:, :1]).square().mean().backward()
        optimizer.step()
    save_file(model.state_dict(), folder / "model.safetensors")


def test_without_a_date_the_weights_tell(tmp_path: Path) -> None:
    folder = write_fno(tmp_path / "model", channels=32)
    with pytest.warns(WellkitWarning, match="left out.*never trained"):
        assert load_pretrained(folder).arguments["legacy_skip_blocks"] is True
    train_on(folder, legacy_skip_blocks=True)  # around the blocks, which stay as they were drawn
    with pytest.warns(WellkitWarning, match="left out.*never trained"):
        assert load_pretrained(folder).arguments["legacy_skip_blocks"] is True
    train_on(folder, legacy_skip_blocks=False)  # moves weights out of the range they were drawn from
    assert load_pretrained(folder).arguments["legacy_skip_blocks"] is False


def test_too_few_weights_tell_nothing(tmp_path: Path) -> None:
    folder = write_fno(tmp_path / "model", channels=4)
    with pytest.raises(ArgumentError, match="cannot be told; say legacy_skip_blocks=True or False"):
        from_pretrained(folder)
    edit(folder, legacy_skip_blocks=True)  # as wellkit's own arguments have it
    assert load_pretrained(folder).arguments["legacy_skip_blocks"] is True


def test_a_hub_without_dates_leaves_it_to_the_weights(hub: LoopbackHub, tmp_path: Path) -> None:
    hub.add("somebody/FNO-waves", write_fno(tmp_path / "model", channels=32), kind="models")
    hub.fault(unavailable(500, None), path="paths-info", method="POST")
    with pytest.warns(WellkitWarning, match="never trained"):
        from_pretrained("somebody/FNO-waves")


def test_only_spectral_models_have_spectral_blocks() -> None:
    with pytest.raises(ArgumentError, match="legacy_skip_blocks is for FNO and TFNO; this is a unet_classic"):
        from_pretrained(PUBLISHED / "UNetClassic", legacy_skip_blocks=True)
