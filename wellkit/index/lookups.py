"""Whether libhdf5 finds every chunk where its own listing of chunks says it is.

The listing walks the leaves of a chunk B-tree; reading goes down from its root. Files in HDF5's older formats have
no checksums there, and with one wrong key the two disagree: reading then gives the fill value, without an error. So
each chunk is looked up once as reading would do it, through a file object that notes where libhdf5 wants to read and
does not read there.
"""

from __future__ import annotations

from typing import Any

import h5py
import numpy as np

from wellkit.errors import ShardError
from wellkit.index.model import MISSING, ArrayIndex
from wellkit.index.source import ShardSource, SourceStream


class _Listener(SourceStream):
    """A file that notes reads of chunks instead of doing them."""

    def __init__(self, source: ShardSource, starts: set[int]) -> None:
        super().__init__(source)
        self._starts = starts
        self.heard: tuple[int, int] | None = None

    def readinto(self, buffer: Any) -> int:
        if self._position in self._starts:
            self.heard = (self._position, len(buffer))
            return len(buffer)
        return super().readinto(buffer)


def check_lookups(source: ShardSource, arrays: list[ArrayIndex]) -> None:
    """Look up every chunk of the chunked arrays among `arrays`.

    Raises:
        ShardError: a chunk is not found where it was listed; names the array and the chunk.
        OSError, RuntimeError: libhdf5's own complaints.
    """
    chunked = [array for array in arrays if array.layout == "chunked"]
    if not chunked:
        return
    starts = {start for array in chunked for start in array.offsets.tolist() if start != MISSING}
    with _Listener(source, starts) as stream, h5py.File(stream, "r") as file:
        for array in chunked:
            _check_array(file[array.name], array, stream)


def _check_array(dataset: h5py.Dataset, array: ArrayIndex, stream: _Listener) -> None:
    scratch = np.empty(int(array.sizes.max()), dtype=np.uint8)
    numbers = np.flatnonzero(array.offsets != MISSING)
    cells = np.stack(np.unravel_index(numbers, array.grid), axis=1)
    positions = (cells * np.array(array.chunk_shape)).tolist()
    extents = zip(array.offsets[numbers].tolist(), array.sizes[numbers].tolist(), strict=True)
    for position, extent in zip(positions, extents, strict=True):
        stream.heard = None
        try:
            dataset.id.read_direct_chunk(tuple(position), out=scratch[: extent[1]])
        except (OSError, RuntimeError, ValueError):
            stream.heard = None
        if stream.heard != extent:
            raise ShardError(
                f"{array.name}: the chunk at {tuple(position)} is listed, but not found when it is looked up; the file "
                "is damaged"
            )
