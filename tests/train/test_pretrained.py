"""Published checkpoints: what they compute, where they are had from, what of them is refused."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from tests.hub.faults import corrupted, truncated, unavailable
from tests.hub.server import LoopbackHub
from wellkit.errors import (
    ArgumentError,
    DataNotFoundError,
    DocumentError,
    HubError,
    IntegrityError,
    TrainingError,
    WellkitError,
    WellkitWarning,
)
from wellkit.train.models import FNO, build_model
from wellkit.train.pretrained import from_pretrained, load_pretrained

# Saved by the_well 1.2.0 with what it computes, by benchmarks/compare_models.py --fixtures.
PUBLISHED = Path(__file__).with_name("published")
KINDS = {"FNO": "fno", "TFNO": "tfno", "UNetClassic": "unet_classic", "UNetConvNext": "unet_convnext", "AViT": "avit"}
NAME = "polymathic-ai/UNetConvNext-active_matter"


def values(kind: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Input and the output that the_well computes from it."""
    with np.load(PUBLISHED / kind / "values.npz") as arrays:
        return torch.from_numpy(arrays["input"]), torch.from_numpy(arrays["output"])


def assert_computes(model: nn.Module, kind: str) -> None:
    x, expected = values(kind)
    with torch.no_grad():
        found = model(x)
    assert float((found - expected).abs().max()) <= 1e-5 * float(expected.abs().max())


def copy_of(kind: str, folder: Path) -> Path:
    """A folder of the two files that are published."""
    folder.mkdir(parents=True)
    for name in ("config.json", "model.safetensors"):
        shutil.copy(PUBLISHED / kind / name, folder)
    return folder


def edit(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.fixture
def published(hub: LoopbackHub, tmp_path: Path) -> Path:
    """What the Hub holds under `NAME`."""
    folder = copy_of("UNetConvNext", tmp_path / "repository")
    hub.add(NAME, folder, kind="models")
    return folder


def serve(hub: LoopbackHub, tmp_path: Path, kind: str, changed: str) -> str:
    """The name of a repository whose files are of a date."""
    name = f"somebody/{kind}-waves"
    hub.add(name, copy_of(kind, tmp_path / "repository"), kind="models").changed = changed
    return name


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


# From the Hub


def test_a_repository_is_fetched_once(hub: LoopbackHub, published: Path, isolated: Path) -> None:
    loaded = load_pretrained(NAME)
    assert_computes(loaded.model, "UNetConvNext")
    assert loaded.commit == hub.repositories[NAME].resolve("main")
    assert len(hub.fetches()) == 2
    assert (isolated / "huggingface" / "hub" / "models--polymathic-ai--UNetConvNext-active_matter").is_dir()
    from_pretrained(NAME)
    assert len(hub.fetches()) == 2


def test_offline_the_cache_is_enough(
    hub: LoopbackHub, published: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(HubError, match=r"config\.json from .*HF_HUB_OFFLINE is set"):
        from_pretrained(NAME)
    monkeypatch.delenv("HF_HUB_OFFLINE")
    from_pretrained(NAME)
    asked = len(hub.requests)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert_computes(from_pretrained(NAME), "UNetConvNext")
    assert len(hub.requests) == asked


def test_a_broken_transfer_is_resumed(
    hub: LoopbackHub, published: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 4096)  # what the client puts away at a time
    hub.fault(truncated(20_000), server="store", times=1)
    assert_computes(from_pretrained(NAME), "UNetConvNext")
    ranges = [request.headers.get("range") for request in hub.fetches() if request.server == "store"]
    assert ranges[0] is None
    assert len(ranges) == 2
    assert str(ranges[1]).startswith("bytes=")
    assert not str(ranges[1]).startswith("bytes=0-")
    # The client's log names the store's address, but not the signature that opens it.
    assert "/objects/" in caplog.text
    assert "X-Amz-Signature" not in caplog.text


def test_other_bytes_than_published_are_removed(hub: LoopbackHub, published: Path) -> None:
    hub.fault(corrupted(30_000), server="store", times=1)
    with pytest.raises(IntegrityError, match=r"model\.safetensors from .*SHA-256 is not the published one"):
        from_pretrained(NAME)
    assert_computes(from_pretrained(NAME), "UNetConvNext")


def test_both_files_are_of_one_commit(hub: LoopbackHub, published: Path, tmp_path: Path) -> None:
    repository = hub.repositories[NAME]
    first = repository.resolve("main")
    assert first is not None
    second = repository.commit(copy_of("UNetClassic", tmp_path / "second"))
    assert load_pretrained(NAME).name == "unet_classic"
    assert load_pretrained(NAME, revision=first).name == "unet_convnext"
    assert load_pretrained(NAME, revision=second).commit == second


@pytest.mark.parametrize(
    ("name", "revision", "kind", "words"),
    [
        ("somebody/nothing", "main", DataNotFoundError, "no such model repository"),
        (NAME, "v9", DataNotFoundError, "no revision 'v9'"),
        ("somebody/private", "main", DataNotFoundError, "no such model repository; if it is private"),
        ("somebody/data", "main", DataNotFoundError, "no such model repository"),
        ("somebody/empty", "main", DataNotFoundError, r"holds no config\.json"),
        ("some body/x", "main", ArgumentError, "is no repository name"),
        ("nonsense", "main", TrainingError, "no such folder, and no OWNER/NAME"),
        ("./runs/fno", "main", TrainingError, "no such folder, and no OWNER/NAME"),
    ],
)
def test_what_is_not_there(
    hub: LoopbackHub,
    published: Path,
    tmp_path: Path,
    name: str,
    revision: str,
    kind: type[WellkitError],
    words: str,
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "README.md").write_text("nothing")
    hub.add("somebody/empty", tmp_path / "empty", kind="models")
    hub.add("somebody/private", published, kind="models", token="secret")
    hub.add("somebody/data", published)
    with pytest.raises(kind, match=words) as raised:
        from_pretrained(name, revision=revision)
    assert "\n" not in str(raised.value)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client tries again at once, not after up to 8 seconds."""
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)


@pytest.mark.usefixtures("impatient")
def test_a_hub_that_cannot_be_reached() -> None:
    with pytest.raises(HubError, match="cannot be reached") as raised:
        from_pretrained(NAME)
    assert "\n" not in str(raised.value)


@pytest.mark.usefixtures("impatient")
def test_a_hub_that_is_out_of_order(hub: LoopbackHub, published: Path) -> None:
    for method in ("HEAD", "GET"):
        hub.fault(unavailable(503, None), method=method)
    with pytest.raises(HubError, match="HTTP 503") as raised:
        from_pretrained(NAME)
    assert "\n" not in str(raised.value)


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


# Spectral blocks that were left out in training


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


def test_without_a_date_the_weights_tell(tmp_path: Path) -> None:
    folder = write_fno(tmp_path / "model", channels=32)
    with pytest.warns(WellkitWarning, match="left out.*never trained"):
        assert load_pretrained(folder).arguments["legacy_skip_blocks"] is True
    # Training that reaches the blocks moves weights out of the range they were drawn from.
    model = from_pretrained(folder, legacy_skip_blocks=False).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    x = torch.randn(4, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    for _ in range(10):
        optimizer.zero_grad()
        (model(x) - x.roll(1, dims=2)[:, :1]).square().mean().backward()
        optimizer.step()
    save_file(model.state_dict(), folder / "model.safetensors")
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


def test_a_folder_that_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"not a published checkpoint \(no config\.json\)"):
        from_pretrained(tmp_path)
