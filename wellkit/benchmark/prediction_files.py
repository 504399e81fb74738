"""Where predictions lie: a folder of .npy files or a Zarr group, both read piece by piece.

Both hold, for each trajectory of a split, an array in `one_step` and one in `rollout`, named by its number in six
digits, of axes (window or step, space..., component). An array without frames may be left out.
"""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from wellkit.errors import DataNotFoundError, FormatError, PredictionsError, ShardError
from wellkit.readers.zarr import Array, ZarrReader
from wellkit.schemas.predictions import PredictionsDescription

Part = Literal["one_step", "rollout"]
PARTS: tuple[Part, ...] = ("one_step", "rollout")
DESCRIPTION = "predictions.json"
ATTRIBUTE = "predictions"
ZARR_METADATA = ("zarr.json", ".zgroup")

_MOST_DESCRIPTION = 1 << 26  # bytes
_MOST_CHUNK = 1 << 30  # bytes: a chunk is decoded whole
_NUMBER = re.compile(r"\d{6}")
_READABLE = "float16, float32 or float64"


@dataclass(frozen=True)
class StoredArray:
    """What an array is said to be by its own header.

    Attributes:
        shape: (window or step, space..., component).
        dtype: as stored.
        frames_at_once: frames that are read (decoded) together whatever is asked for; reading that many is cheapest.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    frames_at_once: int = 1


class Container(Protocol):
    """One kind of storage. Picklable, and safe in several processes: nothing stays open."""

    def description(self) -> Any:
        """The content of the description, parsed from JSON."""
        ...

    def numbers(self, part: Part) -> list[int]:
        """Numbers of the trajectories that have an array, ascending."""
        ...

    def place(self, part: Part, trajectory: int) -> str:
        """Where an array lies, for messages."""
        ...

    def array(self, part: Part, trajectory: int) -> StoredArray:
        """What an array is, from its header.

        Raises:
            PredictionsError: it cannot be read, or is not made of floating point numbers.
        """
        ...

    def read(self, part: Part, trajectory: int, start: int, stop: int) -> np.ndarray:
        """Frames `start` to `stop` of an array as stored; a new array.

        Raises:
            PredictionsError: they cannot be read.
        """
        ...


def name_of(trajectory: int) -> str:
    """Name of a trajectory's array: its number in six digits."""
    return f"{trajectory:06d}"


def open_container(path: str | os.PathLike[str]) -> Container:
    """The container at a path.

    Raises:
        DataNotFoundError: nothing is there.
        PredictionsError: it is neither kind of container.
    """
    folder = Path(path)
    if not os.path.lexists(folder):
        raise DataNotFoundError(f"{folder}: no such predictions; give the folder that holds {DESCRIPTION}")
    if not folder.is_dir():
        raise PredictionsError(f"{folder}: is a file; predictions are a folder with {DESCRIPTION}, or a Zarr group")
    if any((folder / name).exists() for name in ZARR_METADATA):
        return ZarrContainer(os.fspath(folder))
    return NpyContainer(os.fspath(folder))


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        PredictionsError: it cannot be read, or is not JSON.
    """
    with _telling(path):
        size, text = path.stat().st_size, b""
        if size <= _MOST_DESCRIPTION:
            text = path.read_bytes()
    if size > _MOST_DESCRIPTION:
        raise PredictionsError(f"{path}: is {size} bytes long, more than any description")
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise PredictionsError(f"{path}: is not JSON ({str(error)[:200]})") from error


@dataclass(frozen=True)
class NpyContainer:
    """A folder of .npy files."""

    folder: str

    def description(self) -> Any:
        path = Path(self.folder, DESCRIPTION)
        if not path.is_file():
            raise PredictionsError(f"{self.folder}: has no {DESCRIPTION}: this is no folder of predictions")
        return read_json(path)

    def numbers(self, part: Part) -> list[int]:
        folder = Path(self.folder, part)
        if not folder.is_dir():
            return []
        with _telling(folder):
            names = os.listdir(folder)
        return sorted(int(name[:-4]) for name in names if name.endswith(".npy") and _NUMBER.fullmatch(name[:-4]))

    def place(self, part: Part, trajectory: int) -> str:
        return os.path.join(self.folder, part, f"{name_of(trajectory)}.npy")

    def array(self, part: Part, trajectory: int) -> StoredArray:
        header = self._header(self.place(part, trajectory))
        return StoredArray(header.shape, header.dtype)

    def read(self, part: Part, trajectory: int, start: int, stop: int) -> np.ndarray:
        path = self.place(part, trajectory)
        header = self._header(path)
        frame = header.shape[1:]
        if header.fortran_order:  # frames are scattered over the file
            with _telling(path):
                mapped = np.memmap(path, header.dtype, "r", header.offset, header.shape, order="F")
                return np.array(mapped[start:stop])
        size = int(np.prod(frame, dtype=np.int64))
        with _telling(path):
            offset = header.offset + start * size * header.dtype.itemsize
            found = np.fromfile(path, header.dtype, (stop - start) * size, offset=offset)
        if found.size != (stop - start) * size:
            raise PredictionsError(f"{path}: ends early; it was cut while it was read")
        return found.reshape(stop - start, *frame)

    def _header(self, path: str) -> _NpyHeader:
        if os.path.exists(path) and not (os.path.isfile(path) or os.path.isdir(path)):  # a pipe would wait for ever
            raise PredictionsError(f"{path}: is not a file")
        with _telling(path), open(path, "rb") as file:
            try:
                version = np.lib.format.read_magic(file)
                if version == (1, 0):
                    shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(file)
                elif version == (2, 0):
                    shape, fortran_order, dtype = np.lib.format.read_array_header_2_0(file)
                else:
                    raise ValueError(f"version {version[0]}.{version[1]} of the format holds no plain numbers")
            except OSError:
                raise
            except Exception as error:  # the header is Python source: its parser raises all there is
                raise PredictionsError(f"{path}: is not a .npy file ({' '.join(str(error).split())[:200]})") from error
            offset, size = file.tell(), os.fstat(file.fileno()).st_size
        _check_type(dtype, path)
        promised = offset + dtype.itemsize * int(np.prod([int(n) for n in shape], dtype=object))
        if size != promised:
            state = "is cut short" if size < promised else "goes on past its array"
            raise PredictionsError(f"{path}: {state}: {size} bytes, its header asks for {promised}; write it again")
        return _NpyHeader(tuple(int(n) for n in shape), dtype, bool(fortran_order), offset)


@dataclass(frozen=True)
class _NpyHeader:
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran_order: bool
    offset: int


@dataclass(frozen=True)
class ZarrContainer:
    """A Zarr group, of format 2 or 3."""

    folder: str

    @property
    def _reader(self) -> ZarrReader:
        return ZarrReader(self.folder)

    def description(self) -> Any:
        with _told_as_ours(), self._reader.root() as root:
            found = root.attrs.get(ATTRIBUTE)
        if found is not None:
            return found
        path = Path(self.folder, DESCRIPTION)
        if path.is_file():
            return read_json(path)
        raise PredictionsError(
            f"{self.folder}: the Zarr group has neither an attribute {ATTRIBUTE!r} nor {DESCRIPTION} beside it: these "
            "are no predictions"
        )

    def numbers(self, part: Part) -> list[int]:
        with _told_as_ours(), self._reader.root() as root:
            group = root[part] if part in root.keys() else None  # noqa: SIM118 - a group is no mapping
            names = [] if group is None or isinstance(group, Array) else group.keys()
        return sorted(int(name) for name in names if _NUMBER.fullmatch(name))

    def place(self, part: Part, trajectory: int) -> str:
        return os.path.join(self.folder, part, name_of(trajectory))

    def array(self, part: Part, trajectory: int) -> StoredArray:
        name, place = f"{part}/{name_of(trajectory)}", self.place(part, trajectory)
        with _told_as_ours():
            chunks = self._reader.chunks(name)
        _check_type(chunks.dtype, place)
        if chunks.nbytes > _MOST_CHUNK:
            raise PredictionsError(
                f"{place}: one chunk is {chunks.nbytes} bytes, of which {_MOST_CHUNK} are read at most; write it in "
                "chunks of a few frames"
            )
        if chunks.stored < chunks.total:
            raise PredictionsError(
                f"{place}: {chunks.total - chunks.stored} of {chunks.total} chunks were never stored: such frames "
                "would be scored as the fill value; write all, with fill_value=NaN"
            )
        return StoredArray(chunks.shape, chunks.dtype, chunks.chunk_shape[0] if chunks.chunk_shape else 1)

    def read(self, part: Part, trajectory: int, start: int, stop: int) -> np.ndarray:
        with _told_as_ours():
            return self._reader.read(f"{part}/{name_of(trajectory)}", (slice(start, stop),))


def _check_type(dtype: np.dtype[Any], place: str) -> None:
    if dtype.kind != "f" or dtype.itemsize > 8:
        raise PredictionsError(f"{place}: holds {dtype}; predictions are {_READABLE}")


@contextmanager
def _telling(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turn the operating system's refusal to read a file into one line."""
    try:
        yield
    except OSError as error:
        gone = error.errno == errno.ENOENT
        reason = "is missing" if gone else f"cannot be read ({error.strerror or error})"
        raise PredictionsError(f"{os.fspath(path)}: {reason}") from error


@contextmanager
def _told_as_ours() -> Iterator[None]:
    """Predictions that cannot be read are one kind of error, whatever they are stored as."""
    try:
        yield
    except (ShardError, FormatError) as error:
        raise PredictionsError(str(error)) from error


def frames_of(description: PredictionsDescription) -> Iterator[tuple[Part, int, int]]:
    """(part, trajectory, frames) of all arrays, trajectory by trajectory."""
    for trajectory in range(len(description.trajectories)):
        for part in PARTS:
            yield part, trajectory, description.shape(part, trajectory)[0]
