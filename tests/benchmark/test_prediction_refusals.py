"""Predictions that are incomplete, damaged or of another kind are refused in one line, before anything is scored."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from tests.benchmark.stored_predictions import (
    DESCRIPTION,
    SHAPE,
    values_of,
    write,
    write_zarr,
)
from wellkit.benchmark.predictions import (
    open_predictions,
)
from wellkit.errors import (
    DataNotFoundError,
    DocumentError,
    DocumentVersionError,
    PredictionsError,
    WellkitError,
)


def _describe(**changes: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        content = {**DESCRIPTION.to_mapping(), **changes}
        (folder / "predictions.json").write_text(json.dumps({k: v for k, v in content.items() if v != "gone"}))

    return change


def _save(values: np.ndarray, name: str = "rollout/000001.npy") -> Callable[[Path], None]:
    return lambda folder: np.save(folder / name, values, allow_pickle=True)


def _cut(n_bytes: int) -> Callable[[Path], None]:
    return lambda folder: os.truncate(folder / "rollout/000001.npy", n_bytes)


def _zipped(folder: Path) -> None:
    np.savez(folder / "zipped.npz", values_of()["rollout", 1])
    (folder / "zipped.npz").rename(folder / "rollout/000001.npy")


def _folder(folder: Path) -> None:
    (folder / "rollout/000001.npy").unlink()
    (folder / "rollout/000001.npy").mkdir()


class _Trap:
    def __reduce__(self) -> tuple[Any, ...]:
        return (os._exit, (7,))


BAD: list[tuple[Callable[[Path], object], type[WellkitError], str]] = [
    (lambda folder: (folder / "predictions.json").unlink(), PredictionsError, "has no predictions.json"),
    (lambda folder: (folder / "predictions.json").write_text("{"), PredictionsError, "is not JSON"),
    (lambda folder: (folder / "predictions.json").write_bytes(b"\xff\xfe\x00"), PredictionsError, "is not JSON"),
    (lambda folder: (folder / "predictions.json").write_text("[" * 100_000), PredictionsError, "is not JSON"),
    (lambda folder: (folder / "predictions.json").write_text("[]"), DocumentError, "expected a mapping"),
    (_describe(schema="wellkit/predictions/2"), DocumentVersionError, "upgrade wellkit"),
    (_describe(schema="wellkit/result/1"), DocumentVersionError, "is not a predictions"),
    (_describe(modle={"name": "m"}), DocumentError, "unknown key 'modle'. Did you mean model"),
    (_describe(model={"name": ""}), DocumentError, "model.name"),
    (_describe(model={"name": "two\nlines"}), DocumentError, "model.name"),
    (_describe(model={"name": "\x1b[2Jgone"}), DocumentError, "model.name"),
    (_describe(model={"name": "\ud800"}), DocumentError, "model.name"),
    (_describe(model={"name": "m", "training_seconds": float("nan")}), DocumentError, "model.training_seconds"),
    (_describe(model={"name": "m", "url": "javascript:alert(1)"}), DocumentError, "model.url"),
    (_describe(split="gone"), DocumentError, "key 'split' is missing"),
    (_describe(fields=["density", "density"]), DocumentError, "names of components repeat"),
    (_describe(first_frame=1), DocumentError, "fewer true frames"),
    (_describe(resolution=[5, 0]), DocumentError, "has to be positive"),
    (_describe(resolution=[4, 5]), PredictionsError, r"has shape \(7, 5, 4, 2\), .* promises \(7, 4, 5, 2\)"),
    (lambda folder: (folder / "rollout/000001.npy").unlink(), PredictionsError, "rollout/000001.npy: is missing"),
    (lambda folder: shutil.rmtree(folder / "one_step"), PredictionsError, r"is missing \(and 2 more\)"),
    (_save(np.zeros((1, *SHAPE), np.float32), "one_step/000003.npy"), PredictionsError, "lists 3 trajectories"),
    (_save(np.zeros((3, 5, 4, 1), np.float32)), PredictionsError, r"has shape \(3, 5, 4, 1\), .* \(3, 5, 4, 2\)"),
    (_save(np.zeros((4, *SHAPE), np.float32)), PredictionsError, r"has shape \(4, 5, 4, 2\)"),
    (_save(np.zeros((), np.float32)), PredictionsError, r"has shape \(\)"),
    (_save(np.zeros((3, *SHAPE), np.int32)), PredictionsError, "holds int32; predictions are float16"),
    (_save(np.zeros((3, *SHAPE), np.complex64)), PredictionsError, "holds complex64"),
    (_save(np.array([_Trap()] * 120, object).reshape(3, *SHAPE)), PredictionsError, "holds object"),
    (_cut(3), PredictionsError, "is not a .npy file"),
    (_cut(70), PredictionsError, "is not a .npy file"),
    (_cut(400), PredictionsError, "is cut short: 400 bytes, its header asks for 608"),
    (_cut(9999), PredictionsError, "goes on past its array"),
    (_zipped, PredictionsError, "is not a .npy file"),
    (_folder, PredictionsError, "cannot be read"),
    (lambda folder: (folder / "rollout/000001.npy").write_bytes(pickle.dumps(_Trap())), PredictionsError, "not a .npy"),
]


@pytest.mark.parametrize("number", range(len(BAD)))
def test_what_does_not_fit_is_refused_when_it_is_opened(tmp_path: Path, number: int) -> None:
    spoil, kind, told = BAD[number]
    write(tmp_path / "p")
    spoil(tmp_path / "p")
    with pytest.raises(kind, match=told) as caught:
        open_predictions(tmp_path / "p")
    assert type(caught.value) is kind
    assert "\n" not in str(caught.value)


def test_where_nothing_is(tmp_path: Path) -> None:
    with pytest.raises(DataNotFoundError, match="no such predictions"):
        open_predictions(tmp_path / "nowhere")
    (tmp_path / "file").write_text("{}")
    with pytest.raises(PredictionsError, match="is a file"):
        open_predictions(tmp_path / "file")
    (tmp_path / "empty").mkdir()
    with pytest.raises(PredictionsError, match=r"has no predictions\.json"):
        open_predictions(tmp_path / "empty")


def _delete_array(folder: Path) -> None:
    shutil.rmtree(folder / "rollout/000001")


def _retype(dtype: str, shape: tuple[int, ...] = (3, *SHAPE)) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        _delete_array(folder)
        array = zarr.open_group(str(folder), mode="a").create_array("rollout/000001", shape=shape, dtype=dtype)
        array[...] = 1

    return change


def _attribute(content: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        attributes = zarr.open_group(str(folder), mode="a").attrs
        attributes.pop("predictions")
        if content is not None:
            attributes["predictions"] = content

    return change


def _one_chunk_less(folder: Path) -> None:
    next(path for path in (folder / "rollout/000001").rglob("*") if path.is_file() and path.name == "0").unlink()


BAD_ZARR: list[tuple[Callable[[Path], object], type[WellkitError], str]] = [
    (_attribute(None), PredictionsError, "neither an attribute 'predictions' nor predictions.json"),
    (_attribute("text"), DocumentError, "expected a mapping"),
    (_attribute({"schema": "wellkit/predictions/9"}), DocumentVersionError, "upgrade wellkit"),
    (_delete_array, PredictionsError, "rollout/000001: is missing"),
    (_retype("int32"), PredictionsError, "holds int32"),
    (_retype("float32", (2, *SHAPE)), PredictionsError, r"has shape \(2, 5, 4, 2\)"),
    (_one_chunk_less, PredictionsError, "1 of 2 chunks were never stored"),
    (lambda folder: (folder / "rollout/000001/zarr.json").write_text("{"), PredictionsError, "cannot be read"),
]


@pytest.mark.parametrize("number", range(len(BAD_ZARR)))
def test_a_zarr_group_that_does_not_fit_is_refused(tmp_path: Path, number: int) -> None:
    spoil, kind, told = BAD_ZARR[number]
    spoil(write_zarr(tmp_path / "group", 3))
    with pytest.raises(kind, match=told) as caught:
        open_predictions(tmp_path / "group")
    assert type(caught.value) is kind
    assert "\n" not in str(caught.value)


def test_pickled_zarr_is_not_unpickled(tmp_path: Path) -> None:
    folder = write_zarr(tmp_path / "group", 2)
    path = folder / "rollout/000001/.zarray"
    metadata = json.loads(path.read_text())
    path.write_text(json.dumps({**metadata, "compressor": None, "filters": [{"id": "pickle", "protocol": 4}]}))
    for chunk in (folder / "rollout/000001").iterdir():
        if not chunk.name.startswith("."):
            chunk.write_bytes(pickle.dumps(_Trap()))
    with pytest.raises(PredictionsError, match="pickle"):
        open_predictions(folder)


def test_a_damaged_chunk_is_told_when_it_is_read(tmp_path: Path) -> None:
    folder = write_zarr(tmp_path / "group", 3)
    chunk = next(path for path in (folder / "rollout/000001").rglob("0") if path.is_file())
    chunk.write_bytes(chunk.read_bytes()[:10])
    predictions = open_predictions(folder)
    with pytest.raises(PredictionsError, match="rollout/000001"):
        predictions.sha256()


def test_what_changes_after_it_was_opened_is_told(tmp_path: Path) -> None:
    predictions = write(tmp_path / "p")
    os.truncate(tmp_path / "p/rollout/000000.npy", 300)
    with pytest.raises(PredictionsError, match="cut short"):
        predictions.rollout(0, 0, 6)
    (tmp_path / "p/rollout/000000.npy").unlink()
    with pytest.raises(PredictionsError, match="is missing"):
        predictions.rollout(0, 0, 6)


def test_a_zip_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "p.zip", "w") as file:
        file.writestr("predictions.json", "{}")
    with pytest.raises(PredictionsError, match="is a file; predictions are a folder"):
        open_predictions(tmp_path / "p.zip")


@pytest.mark.parametrize("name", ["predictions.json", "rollout/000001.npy"])
def test_flipped_bytes_end_in_values_or_an_error_of_ours(tmp_path: Path, name: str) -> None:
    """Every byte of the header and of the description, once."""
    write(tmp_path / "p")
    path = tmp_path / "p" / name
    whole = path.read_bytes()
    rng = np.random.default_rng(3)
    told = []
    for place in range(min(len(whole), 700)):
        damaged = bytearray(whole)
        damaged[place] ^= int(rng.integers(1, 256))
        path.write_bytes(damaged)
        try:
            open_predictions(tmp_path / "p").rollout(1, 0, 3)
        except WellkitError as error:
            told.append(str(error))
    assert len(told) > 50
    assert not any("\n" in line for line in told)
