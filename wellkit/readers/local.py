"""Windows of local shards, straight from the file to normalized, channels-last memory, without libhdf5.

Plain arrays are mapped a window at a time, or read in pieces that stay in the processor's cache, and gathered by one
kernel; compressed chunks are decoded once a batch, on a few threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

import numpy as np

from wellkit.errors import ArgumentError
from wellkit.readers.chunked import ChunkedWindow, read_chunked
from wellkit.readers.decoding import read_decoded
from wellkit.readers.descriptors import Descriptors
from wellkit.readers.output import Geometries, check_output, load_kernels
from wellkit.readers.plain import PlainWindow, Source, read_plain
from wellkit.readers.plan import FieldPlan, WindowBatch, WindowRequest
from wellkit.readers.workers import reading, usable_cores

_FILES = Descriptors()


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
        self._geometries = Geometries()

    def read_windows(self, requests: Sequence[WindowRequest], out: np.ndarray, tail: np.ndarray | None = None) -> None:
        """Fill `out` with the windows: (x - offset) / scale of every field, as channels.

        Args:
            requests: one a window, all of as many steps and of the same size in space.
            out: axes (window, step, space..., channel); each window C-contiguous. float32 is fastest; another float
                type takes NumPy's arithmetic.
            tail: where the steps go that `out` has no room for: the same axes and type.

        Raises:
            DataNotFoundError: a shard is gone.
            ShardError: a shard ends before an array does, or a chunk is damaged; names the file. The output then
                holds anything.
            ArgumentError: requests, arrays and output do not fit together, or an array is one that only libhdf5 reads.
        """
        rest = check_output(requests, out, tail)
        if out.size + rest.size == 0:
            return
        n_steps, space, split = out.shape[1] + rest.shape[1], out.shape[2:-1], out.shape[1]
        kernels = load_kernels(self._compiled)
        compiled = hasattr(kernels, "read_tiles") and out.dtype == np.float32
        heads, tails = _addresses(out), _addresses(rest if rest.size else out)
        plain: list[PlainWindow] = []
        left: list[int] = []
        geometries = []
        for number, request in enumerate(requests):
            geometry = self._geometries.find(request, n_steps, space, out.shape[-1])
            geometries.append(geometry)
            firsts, steps = None, geometry.steps
            if compiled and geometry.is_float32:
                firsts = geometry.firsts(request.trajectory, request.start)
                if firsts is None and (steps := geometry.in_file(request.trajectory, request.start)) is not None:
                    firsts = [0] * len(steps)
            if firsts is None or steps is None:
                left.append(number)
            else:
                plain.append(PlainWindow(number, request, geometry, firsts, steps, heads[number], tails[number], split))
        with reading(self._threads()) as threads:
            if plain:
                # What storage failed for takes the slow road, which tells what is wrong, or gets over it.
                left += [window.number for window in read_plain(plain, _FILES, kernels, self.source, threads)]
            if left:
                windows = [ChunkedWindow(requests[n], geometries[n], out[n], rest[n]) for n in left]
                if compiled:
                    windows = read_decoded(windows, _FILES, threads)
                read_chunked(windows, _FILES, kernels, threads)

    def read_all(self, batches: Sequence[WindowBatch]) -> None:
        """As `read_windows` for each."""
        for batch in batches:
            self.read_windows(*batch)

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


def _addresses(out: np.ndarray) -> list[int]:
    """Where each window of the output begins."""
    first = out.ctypes.data
    return [first + out.strides[0] * number for number in range(len(out))]
