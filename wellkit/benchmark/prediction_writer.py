"""Writes predictions piece by piece, in any order; they appear under their name when they are complete."""

from __future__ import annotations

import json
import os
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from wellkit.benchmark.prediction_files import ATTRIBUTE, DESCRIPTION, ZARR_METADATA, Part, frames_of, name_of
from wellkit.errors import ArgumentError, PredictionsError, WindowError
from wellkit.fetch.disk import telling
from wellkit.frameworks import require
from wellkit.generation.staging import staged_folder
from wellkit.schemas.predictions import PredictionsDescription

_CHUNK = 1 << 22  # bytes of a Zarr chunk, at most, unless a frame is larger


class PredictionsWriter:
    """Writes a container of predictions, as a context manager.

    What is written lies in a hidden folder beside the target until the block ends without an error and nothing is
    missing; then it is renamed. After an error nothing is left; what a killed process leaves, the next one removes.

    Args:
        path: the folder to write; one that ends in `.zarr` becomes a Zarr group (format 3), any other .npy files.
        description: what is going to be predicted; its shapes are those of the arrays.
        overwrite: whether predictions that are there already may be replaced.

    Raises (when the block is entered):
        ArgumentError: the target is there and may not be replaced, or another process is writing it.
        StorageError: it cannot be written.
        MissingDependencyError: it is to be a Zarr group, and zarr is not installed.
    """

    def __init__(
        self, path: str | os.PathLike[str], description: PredictionsDescription, *, overwrite: bool = False
    ) -> None:
        self.path = Path(path)
        self.description = description
        self._overwrite = overwrite
        self._stack = ExitStack()
        self._target: _NpyTarget | _ZarrTarget | None = None
        self._written: dict[tuple[Part, int], np.ndarray] = {}

    def __enter__(self) -> Self:
        target = self.path.absolute()
        if not target.name:
            raise ArgumentError(f"{self.path} is no name of a folder of its own; give one, e.g. predictions/fno")
        to_zarr = target.suffix == ".zarr"
        zarr = require("zarr", extra="zarr", purpose=f"writing {self.path}") if to_zarr else None
        with ExitStack() as stack:
            staging = stack.enter_context(staged_folder(target, may_replace=self._may_replace))
            with telling(self.path):
                if zarr is not None:
                    self._target = _ZarrTarget(staging, self.description, zarr)
                else:
                    self._target = _NpyTarget(staging, self.description)
            self._stack = stack.pop_all()
        self._written = {(part, n): np.zeros(frames, bool) for part, n, frames in frames_of(self.description)}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        target, self._target = self._target, None
        if error is None:
            try:
                self._check_complete()
                with telling(self.path):
                    assert target is not None
                    target.finish()
            except BaseException as failure:
                self._stack.__exit__(type(failure), failure, failure.__traceback__)
                raise
        self._stack.__exit__(kind, error, traceback)

    def one_step(self, trajectory: int, start: int, values: Any) -> None:
        """Write one-step predictions of the windows from `start` on.

        Args:
            values: floating point, axes (window, space..., component), physical units; kept as float32.

        Raises:
            ArgumentError: of another shape, or not of floating point numbers.
            WindowError: there is no such trajectory, or it has fewer windows.
            StorageError: they cannot be written: the disk is full, or a quota used up.
        """
        self._write("one_step", trajectory, start, values)

    def rollout(self, trajectory: int, start: int, values: Any) -> None:
        """Write steps of a rollout from step `start` (from 0) on; as `one_step`."""
        self._write("rollout", trajectory, start, values)

    def _write(self, part: Part, trajectory: int, start: int, values: Any) -> None:
        if self._target is None:
            raise ArgumentError(f"{self.path}: write inside the block: with PredictionsWriter(...) as writer: ...")
        where = f"{self.path}: {part}/{name_of(trajectory)}"
        written = self._written.get((part, trajectory))
        if written is None:
            raise WindowError(f"{where}: there are {len(self.description.trajectories)} trajectories, counted from 0")
        pieces = _as_float32(values, where)
        frame = self.description.frame_shape
        if pieces.shape[1:] != frame or pieces.ndim != len(frame) + 1:
            axes = "(window or step, space..., component)"
            raise ArgumentError(f"{where}: values have shape {pieces.shape}, needed is (n, *{frame}): {axes}")
        stop = start + len(pieces)
        if not 0 <= start <= stop <= len(written):
            raise WindowError(f"{where}: has entries 0 to {len(written)}, written were {start} to {stop}")
        with telling(self.path):
            self._target.write(part, trajectory, start, pieces)
        written[start:stop] = True

    def _check_complete(self) -> None:
        for (part, trajectory), written in self._written.items():
            lacking = int(len(written) - written.sum())
            if lacking:
                raise PredictionsError(
                    f"{self.path}: {lacking} of {len(written)} entries of {part}/{name_of(trajectory)} were never "
                    f"written, the first is {int(np.argmin(written))}; nothing is kept"
                )

    def _may_replace(self) -> None:
        if not self._overwrite:
            raise ArgumentError(f"{self.path} is there already; choose another folder, or remove it")
        if not any((self.path / name).is_file() for name in (DESCRIPTION, *ZARR_METADATA)):
            raise ArgumentError(f"{self.path} is there and holds no predictions: it is not replaced")


def _as_float32(values: Any, where: str) -> np.ndarray:
    try:
        found = np.asarray(values)
    except (TypeError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ArgumentError(f"{where}: values are no NumPy array and do not become one ({reason})") from error
    if found.dtype.kind != "f":
        raise ArgumentError(f"{where}: values are {found.dtype}; give floating point numbers in physical units")
    with np.errstate(over="ignore", invalid="ignore"):
        return np.ascontiguousarray(found, "<f4")


class _NpyTarget:
    """.npy files of their full length, made beforehand and filled in any order."""

    def __init__(self, folder: Path, description: PredictionsDescription) -> None:
        self._folder = folder
        self._description = description
        self._offsets: dict[tuple[Part, int], int] = {}
        for part, trajectory, frames in frames_of(description):
            if frames == 0:
                continue
            (folder / part).mkdir(exist_ok=True)
            shape = description.shape(part, trajectory)
            with self._path(part, trajectory).open("wb") as file:
                header = {"descr": "<f4", "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(file, header)
                self._offsets[part, trajectory] = file.tell()
                file.truncate(file.tell() + 4 * int(np.prod(shape)))

    def write(self, part: Part, trajectory: int, start: int, values: np.ndarray) -> None:
        if not values.size:
            return
        offset = self._offsets[part, trajectory] + start * values[0].nbytes
        left = values.data.cast("B")
        descriptor = os.open(self._path(part, trajectory), os.O_WRONLY | os.O_CLOEXEC)
        try:
            while left:
                count = os.pwrite(descriptor, left, offset)
                left, offset = left[count:], offset + count
        finally:
            os.close(descriptor)

    def finish(self) -> None:
        content = json.dumps(self._description.to_mapping(), indent=1) + "\n"
        (self._folder / DESCRIPTION).write_text(content, encoding="utf-8")

    def _path(self, part: Part, trajectory: int) -> Path:
        return self._folder / part / f"{name_of(trajectory)}.npy"


class _ZarrTarget:
    """Arrays of a Zarr group, in chunks of whole frames."""

    def __init__(self, folder: Path, description: PredictionsDescription, zarr: Any) -> None:
        self._description = description
        self._root = zarr.create_group(str(folder), zarr_format=3)
        frame = 4 * int(np.prod(description.frame_shape))
        self._arrays: dict[tuple[Part, int], Any] = {}
        for part, trajectory, frames in frames_of(description):
            if frames == 0:
                continue
            self._arrays[part, trajectory] = self._root.create_array(
                f"{part}/{name_of(trajectory)}",
                shape=description.shape(part, trajectory),
                chunks=(min(frames, max(1, _CHUNK // frame)), *description.frame_shape),
                dtype="float32",
                fill_value=float("nan"),
                config={"write_empty_chunks": True},  # a chunk of NaN is a prediction, too
            )

    def write(self, part: Part, trajectory: int, start: int, values: np.ndarray) -> None:
        if values.size:
            self._arrays[part, trajectory][start : start + len(values)] = values

    def finish(self) -> None:
        self._root.attrs[ATTRIBUTE] = self._description.to_mapping()


__all__ = ["PredictionsWriter"]
