"""Checkpoints: whole or not there, never a pickle, never silently wrong."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest
import torch

from tests.train.test_loop import configure
from wellkit.errors import DocumentError, DocumentVersionError, StorageError, TrainingError
from wellkit.train import train
from wellkit.train.checkpoint import find_checkpoint, load_model, load_record, save_checkpoint

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def trained(advection: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("trained") / "run"
    train(configure(advection), run)
    return run


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "run"))


def test_what_is_saved_is_loaded(run: Path) -> None:
    model, record = load_model(run / "last", CPU)
    again = save_checkpoint(run / "copy", model, record)
    assert again == record  # the same weights have the same hash
    other, _ = load_model(run / "copy", CPU)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name])
    assert not model.training


def test_a_run_means_its_best_checkpoint(run: Path) -> None:
    assert find_checkpoint(run) == run / "best"
    assert find_checkpoint(run / "last") == run / "last"
    shutil.rmtree(run / "best")
    assert find_checkpoint(run) == run / "last"


def test_damaged_weights_are_noticed(run: Path) -> None:
    weights = run / "best" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)
    with pytest.raises(TrainingError, match=r"model\.safetensors: damaged or replaced"):
        load_model(run / "best", CPU)
    weights.write_bytes(bytes(content[:100]))
    with pytest.raises(TrainingError, match="damaged or replaced"):
        load_model(run / "best", CPU)
    weights.unlink()
    with pytest.raises(TrainingError, match=r"model\.safetensors: cannot be read"):
        load_model(run / "best", CPU)


def test_damaged_records_are_noticed(run: Path) -> None:
    record = run / "best" / "checkpoint.json"
    content = json.loads(record.read_text())
    record.write_text(record.read_text()[:200])
    with pytest.raises(TrainingError, match=r"checkpoint\.json: damaged"):
        load_record(run / "best")
    record.write_text(json.dumps(content | {"schema": "wellkit/checkpoint/7"}))
    with pytest.raises(DocumentVersionError, match="version unknown here"):
        load_record(run / "best")
    record.write_text(json.dumps(content | {"sed": 1}))
    with pytest.raises(DocumentError, match=r"unknown key 'sed'.*Did you mean seed"):
        load_record(run / "best")
    record.write_text(json.dumps(content | {"dim_out": 5}))
    with pytest.raises(DocumentError, match="do not fit model 'fno'"):
        load_model(run / "best", CPU)
    record.unlink()
    with pytest.raises(TrainingError, match=r"checkpoint\.json is missing"):
        load_record(run / "best")


def test_a_file_that_is_no_safetensors_is_refused(run: Path) -> None:
    (run / "best" / "model.safetensors").write_bytes(b"not weights")
    record = run / "best" / "checkpoint.json"
    content = json.loads(record.read_text())
    content["weights_sha256"] = hashlib.sha256(b"not weights").hexdigest()
    record.write_text(json.dumps(content))
    with pytest.raises(TrainingError, match="not a safetensors file"):
        load_model(run / "best", CPU)


@pytest.mark.parametrize("name", ["model.pt", "best.pth", "last.ckpt", "pytorch_model.bin", "model.pkl"])
def test_pickles_are_refused_unopened(tmp_path: Path, name: str) -> None:
    marker = tmp_path / "ran"
    code = f"import pathlib; pathlib.Path({str(marker)!r}).touch()"
    (tmp_path / name).write_bytes(b"cbuiltins\nexec\n(V" + code.encode() + b"\ntR.")
    with pytest.raises(TrainingError, match="pickle files are refused"):
        find_checkpoint(tmp_path / name)
    with pytest.raises(TrainingError, match="is a pickle, which is refused"):
        find_checkpoint(tmp_path)
    assert not marker.exists()


def test_missing_checkpoints_are_told(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="no such run or checkpoint folder"):
        find_checkpoint(tmp_path / "nothing")
    with pytest.raises(TrainingError, match="no checkpoint here"):
        find_checkpoint(tmp_path)


def test_a_checkpoint_moved_aside_is_found_again(run: Path) -> None:
    # The process died between moving the old checkpoint aside and giving the new one its name.
    (run / "best").rename(run / ".best.old")
    assert find_checkpoint(run) == run / "best"
    load_model(run / "best", CPU)


def test_a_failed_write_leaves_the_old_checkpoint(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, record = load_model(run / "best", CPU)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("wellkit.train.checkpoint.save_file", full)
    with pytest.raises(StorageError, match="No space left on device"):
        save_checkpoint(run / "best", model, record)
    assert sorted(path.name for path in run.glob(".*")) == []
    load_model(run / "best", CPU)
