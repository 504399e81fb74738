"""What a batch needs of its shards beyond plain mapped windows: chunks and ranges, each brought to memory once."""

from __future__ import annotations

import threading
from collections.abc import Hashable, Sequence
from types import ModuleType

import numpy as np

from wellkit.readers.geometry import FieldGeometry
from wellkit.readers.inflate import decode_apart, decode_chunk
from wellkit.readers.stored import StoredFiles

_NEW, _LOADING, _READY, _FAILED = range(4)


class Piece:
    """A decoded chunk, or a range of the file. Lives in memory from its first use to its last."""

    __slots__ = ("buffer", "key", "source", "state", "users")

    def __init__(self, key: Hashable, source: tuple[str, FieldGeometry, int, int]) -> None:
        self.key = key
        self.source = source  # path, field, chunk number or file offset, bytes (0 for a chunk)
        self.users = 0
        self.state = _NEW
        self.buffer: np.ndarray | None = None

    @property
    def is_chunk(self) -> bool:
        """Whether it is a chunk, not a range."""
        return self.source[3] == 0


class Pieces:
    """The pieces of one batch. Thread-safe once all are planned."""

    def __init__(self, files: StoredFiles, kernels: ModuleType) -> None:
        self._files = files
        self._kernels = kernels
        self._pieces: dict[Hashable, Piece] = {}
        self._changed = threading.Condition()
        self._free: dict[int, list[np.ndarray]] = {}
        self.n_decoded = 0

    def plan_chunk(self, path: str, field: FieldGeometry, number: int) -> Piece:
        """Note one more use of a chunk."""
        return self._plan((path, field.array.name, number), (path, field, number, 0))

    def plan_range(self, path: str, field: FieldGeometry, offset: int, nbytes: int) -> Piece:
        """Note one more use of bytes of the file."""
        # A range may be fetched with holes, where a crop needs nothing: only those of one crop are the same.
        return self._plan((path, id(field), offset, nbytes), (path, field, offset, nbytes))

    def _plan(self, key: Hashable, source: tuple[str, FieldGeometry, int, int]) -> Piece:
        piece = self._pieces.get(key)
        if piece is None:
            piece = self._pieces[key] = Piece(key, source)
        piece.users += 1
        return piece

    def obtain(self, wanted: Sequence[Piece]) -> bool:
        """Bring pieces to memory; those that another thread is at are waited for, last. False if it failed there.

        Raises:
            ShardError: a piece cannot be read; names the file.
        """
        while True:
            with self._changed:
                while True:
                    states = [piece.state for piece in wanted]
                    if _FAILED in states:
                        return False
                    if _NEW in states:
                        piece = wanted[states.index(_NEW)]
                        piece.state = _LOADING
                        break
                    if _LOADING not in states:
                        return True
                    self._changed.wait()
            try:
                buffer = self._load(piece)
            except BaseException:
                self._finish(piece, None)
                raise
            self._finish(piece, buffer)

    def _finish(self, piece: Piece, buffer: np.ndarray | None) -> None:
        with self._changed:
            piece.buffer = buffer
            piece.state = _FAILED if buffer is None else _READY
            self.n_decoded += buffer is not None and piece.is_chunk
            self._changed.notify_all()

    def _load(self, piece: Piece) -> np.ndarray:
        path, field, place, nbytes = piece.source
        if field.array.files is not None:
            return decode_apart(field.array.files, field.array, place, self._kernels, self._take)
        with self._files.use(path) as file:
            if nbytes == 0:
                return decode_chunk(file, field.array, place, self._kernels, self._take)
            return file.stored(place, nbytes, self._take)

    def _take(self, nbytes: int) -> np.ndarray:
        with self._changed:
            free = self._free.get(nbytes)
            if free:
                return free.pop()
        return np.empty(nbytes, np.uint8)

    def release(self, used: Sequence[Piece]) -> None:
        """One use of each piece is over; those without further use are let go, their memory taken again."""
        with self._changed:
            for piece in used:
                piece.users -= 1
                if piece.users == 0 and piece.buffer is not None:
                    if piece.buffer.flags.owndata and piece.buffer.flags.writeable:
                        self._free.setdefault(piece.buffer.size, []).append(piece.buffer)
                    piece.buffer = None
