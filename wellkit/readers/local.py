"""Windows of local shards, straight from the file to normalized, channels-last memory, without libhdf5.

Plain arrays are mapped a window at a time, or read in pieces that stay in the processor's cache, and gathered by one
kernel; compressed chunks are decoded once a batch, on a few threads.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from functools import lru_cache
from types import ModuleType
from typing import get_args

import numpy as np

from wellkit.errors import ArgumentError
from wellkit.readers.chunked import ChunkedWindow, read_chunked
from wellkit.readers.descriptors import Descriptors
from wellkit.readers.geometry import WindowGeometry
from wellkit.readers.plain import SHARE, PlainPart, Source, plain_part, read_part, reading
from wellkit.readers.plan import FieldPlan, WindowRequest
from wellkit.readers.workers import share, usable_cores

_FILES = Descriptors()
_KEPT_GEOMETRIES = 4096


@lru_cache(maxsize=2)
def _kernels(compiled: bool | None) -> ModuleType:
    """The compiled kernels if asked for or, for None, if numba can be imported; else NumPy's."""
    suits = sys.byteorder == "little" and sys.maxsize > 2**32
    if compiled or (compiled is None and suits):
        try:
            return importlib.import_module("wellkit.readers.kernels")
        except ImportError:
            if compiled:
                raise
    return importlib.import_module("wellkit.readers.numpy_kernels")


class LocalReader:
    """Reads windows of local shards into the caller's buffers.

    Picklable, thread-safe, and safe under fork and spawn. Keeps open files (a bounded number a process, shared by all
    readers), and nothing of what it reads.

    Args:
        source: how plain arrays are read: "mmap" maps a window at a time; "pread" reads it piece by piece; "auto"
            takes the first for large windows on this machine's own file systems while one or two threads of the
            process read, else the second, which does not make threads wait for each other. What a crop needs little
            of is always read, not mapped. A file that shrinks *while* it is mapped ends the process with SIGBUS, as
            no check can prevent: use "pread" for files that are being replaced.
        threads: threads that share a batch, or a large window, the caller among them. None: one a core, at most 8.
            Use 1 where there already is a thread or process a core.
        compiled: True for numba's kernels, False for NumPy's (slower, same values); None: numba's where there are.
    """

    def __init__(self, *, source: Source = "auto", threads: int | None = None, compiled: bool | None = None) -> None:
        if source not in get_args(Source):
            raise ArgumentError(f"source={source!r} is unknown; choose one of {', '.join(get_args(Source))}")
        if threads is not None and threads < 1:
            raise ArgumentError(f"threads={threads}: at least 1 is needed")
        self.source: Source = source
        self.threads = threads
        self._compiled = compiled
        self._geometries: dict[tuple[object, ...], WindowGeometry] = {}

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_geometries": {}}

    def read_windows(self, requests: Sequence[WindowRequest], out: np.ndarray) -> None:
        """Fill `out` with the windows: (x - offset) / scale of every field, as channels.

        Args:
            requests: one a window, all of as many steps and of the same size in space.
            out: axes (window, step, space..., channel); each window C-contiguous. float32 is fastest; another float
                type takes NumPy's arithmetic.

        Raises:
            DataNotFoundError: a shard is gone.
            ShardError: a shard ends before an array does, or a chunk is damaged; names the file. `out` then holds
                anything.
            ArgumentError: requests, arrays and `out` do not fit together, or an array is one that only libhdf5 reads.
        """
        if out.ndim < 3 or out.shape[0] != len(requests):
            raise ArgumentError(f"{len(requests)} windows do not fit into an array of shape {out.shape}")
        if out.dtype.kind != "f" or not out.flags.writeable:
            raise ArgumentError(f"windows need a writeable array of floats, not of {out.dtype}")
        if out.size == 0:
            return
        if not out[0].flags.c_contiguous:
            raise ArgumentError("each window of the output has to be C-contiguous")
        kernels = _kernels(self._compiled)
        plain: list[PlainPart] = []
        left: list[ChunkedWindow] = []
        for request, window in zip(requests, out, strict=True):
            geometry = self._geometry(request, window)
            geometry.check(request.trajectory, request.start)
            part = plain_part(request, geometry, window) if hasattr(kernels, "read_mapped") else None
            if part is not None:
                plain.append(part)
            else:
                left.append(ChunkedWindow(request, geometry, window))
        if plain and (failed := self._read_plain(plain, kernels)):
            # The slow road tells what is wrong, or gets over it.
            again = {id(part.request) for part in failed}
            for request, window in zip(requests, out, strict=True):
                if id(request) in again:
                    left.append(ChunkedWindow(request, self._geometry(request, window), window))
        if left:
            read_chunked(left, _FILES, kernels, self._threads())

    def read_constant(
        self, path: str, fields: tuple[FieldPlan, ...], trajectory: int, crop: tuple[slice, ...], out: np.ndarray
    ) -> None:
        """Fill `out`, axes (space..., channel), with fields that have no time axis. Otherwise as `read_windows`."""
        request = WindowRequest(path, fields, trajectory, start=0, n_steps=1, stride=1, n_input=1, crop=crop)
        self.read_windows([request], out[np.newaxis, np.newaxis])

    def close(self, path: str) -> None:
        """Close a shard that this process may hold open: needed before writing to it or replacing it."""
        _FILES.drop(path)

    def _threads(self) -> int:
        return self.threads or min(usable_cores(), 8)

    def _geometry(self, request: WindowRequest, window: np.ndarray) -> WindowGeometry:
        crop = tuple((cut.start, cut.stop, cut.step) for cut in request.crop)
        key = (request.fields, window.shape, request.n_steps, request.stride, request.n_input, crop)
        found = self._geometries.get(key)
        if found is None:
            if window.shape[0] != request.n_steps:
                raise ArgumentError(f"{request.n_steps} steps do not fit into an array of {window.shape[0]}")
            found = WindowGeometry(
                request.fields, window.shape[1:-1], window.shape[-1], request.n_steps, request.stride,
                request.n_input, request.crop,
            )  # fmt: skip
            if len(self._geometries) >= _KEPT_GEOMETRIES:
                self._geometries.clear()
            self._geometries[key] = found
        return found

    def _read_plain(self, parts: Sequence[PlainPart], kernels: ModuleType) -> list[PlainPart]:
        """Read windows that lie in the file as they are, on several threads if they are large. Those that failed."""
        threads = self._threads() if sum(part.n_bytes for part in parts) >= 2 * SHARE else 1
        if len(parts) % threads:  # else every thread has as many windows
            parts = [piece for part in parts for piece in part.split(threads)]
        threads = min(threads, len(parts))
        failed: list[PlainPart] = []

        def read(part: PlainPart) -> None:
            if not read_part(part, _FILES, kernels, self.source, threads):
                failed.append(part)

        with reading():
            if threads == 1:
                for part in parts:
                    read(part)
            else:
                share(parts, read, threads)
        return failed
