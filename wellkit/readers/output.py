"""What readers of windows share: checks of what they are to fill, the geometry of windows, and the kernels."""

from __future__ import annotations

import importlib
import os
import sys
import threading
from collections.abc import Sequence
from functools import lru_cache
from types import ModuleType

import numpy as np

from wellkit.errors import ArgumentError
from wellkit.readers.geometry import WindowGeometry
from wellkit.readers.plan import WindowRequest

WORTH_STREAMING = 1 << 19  # bytes of output, above which whoever reads them will not find them in a cache anyway
_LINE = 64  # bytes of a cache line
_KEPT_WEIGHT = 1 << 14  # half of the chunks that kept geometries name: they take 10 MB at most
_WEIGHT = 4  # of a field beside its chunks


@lru_cache(maxsize=2)
def load_kernels(compiled: bool | None) -> ModuleType:
    """The compiled kernels if asked for or, for None, if numba can be imported; else NumPy's."""
    suits = sys.byteorder == "little" and sys.maxsize > 2**32
    if compiled or (compiled is None and suits):
        try:
            return importlib.import_module("wellkit.readers.kernels")
        except ImportError:
            if compiled:
                raise
    return importlib.import_module("wellkit.readers.numpy_kernels")


class _Warming:
    """A thread that makes the kernels ready. A fork waits for it: its child would inherit locks that nobody opens."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        os.register_at_fork(before=self._finish, after_in_child=self._forget)

    def begin(self) -> None:
        """Once a process."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._warm, name="wellkit-warming")
            self._thread.start()

    def _warm(self) -> None:
        kernels = load_kernels(None)
        kernels.unshuffle(np.zeros(4, np.uint8), np.zeros(4, np.uint8), 4)

    def _finish(self) -> None:
        if self._thread is not None:
            self._thread.join()

    def _forget(self) -> None:
        self._thread = None


_WARMING = _Warming()


def warm_kernels() -> None:
    """Have the kernels imported and ready soon: half a second's work, for which a network leaves the time."""
    _WARMING.begin()


def repeat(values: np.ndarray, out: np.ndarray) -> None:
    """Fill `out`, axes (copy, ...), with `values`, axes (...), of the same type."""
    kernels = load_kernels(None)
    is_plain = values.flags.c_contiguous and out.flags.c_contiguous and values.dtype == out.dtype
    is_aligned = values.nbytes % _LINE == out.ctypes.data % _LINE == 0
    if is_plain and is_aligned and out.nbytes >= WORTH_STREAMING and hasattr(kernels, "repeat"):
        kernels.repeat(values.ctypes.data, out.ctypes.data, values.nbytes, len(out))
    else:
        out[...] = values


def check_output(requests: Sequence[WindowRequest], out: np.ndarray, tail: np.ndarray | None) -> np.ndarray:
    """The tail, or one of no steps.

    Raises:
        ArgumentError: the arrays do not fit the requests or each other, or cannot be filled.
    """
    rest = out[:, :0] if tail is None else tail
    if out.ndim < 3 or out.shape[0] != len(requests):
        raise ArgumentError(f"{len(requests)} windows do not fit into an array of shape {out.shape}")
    if out.dtype.kind != "f" or not (out.flags.writeable and rest.flags.writeable):
        raise ArgumentError(f"windows need a writeable array of floats, not of {out.dtype}")
    if rest.shape[:1] != out.shape[:1] or rest.shape[2:] != out.shape[2:] or rest.dtype != out.dtype:
        raise ArgumentError(f"a tail of {rest.shape} {rest.dtype} does not go with {out.shape}, {out.dtype}")
    if out.size + rest.size and not (out[0].flags.c_contiguous and rest[0].flags.c_contiguous):
        raise ArgumentError("each window of the output has to be C-contiguous")
    return rest


class Geometries:
    """Where windows lie, worked out once for all windows of one shape. Pickled without what it knows.

    What was used of late is kept, up to some memory: boxes drawn for each sample from arrays in chunks give ever new
    geometries. Two generations, since taking single ones out would need a lock on the way of every window.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[object, ...], WindowGeometry] = {}
        self._before: dict[tuple[object, ...], WindowGeometry] = {}
        self._weight = 0

    def __getstate__(self) -> dict[str, object]:
        return {"_known": {}, "_before": {}, "_weight": 0}

    def find(self, request: WindowRequest, n_steps: int, space: tuple[int, ...], n_channels: int) -> WindowGeometry:
        """The geometry of a window that is to fill (n_steps, *space, n_channels).

        Raises:
            ArgumentError: request and output do not fit, or there is no such window.
        """
        if request.n_steps != n_steps:
            raise ArgumentError(f"{request.n_steps} steps do not fit into an output of {n_steps}")
        found = self._moved(request, n_steps, space, n_channels)
        if found is None:
            found = self._made(request, request.crop, n_steps, space, n_channels)
        found.check(request.trajectory, request.start)
        return found

    def _moved(
        self, request: WindowRequest, n_steps: int, space: tuple[int, ...], n_channels: int
    ) -> WindowGeometry | None:
        """For a box inside a larger one: made from one at the origin, which all boxes of its size share."""
        starts, stops = [cut.start for cut in request.crop], [cut.stop for cut in request.crop]
        if None in starts or None in stops or any(cut.step not in (None, 1) for cut in request.crop):
            return None
        if not any(starts) or any(not 0 <= start <= stop for start, stop in zip(starts, stops, strict=True)):
            return None
        origin = tuple(slice(0, stop - start) for start, stop in zip(starts, stops, strict=True))
        return self._made(request, origin, n_steps, space, n_channels).moved(starts, stops)

    def _made(
        self, request: WindowRequest, crop: tuple[slice, ...], n_steps: int, space: tuple[int, ...], n_channels: int
    ) -> WindowGeometry:
        bounds = tuple((cut.start, cut.stop, cut.step) for cut in crop)
        key = (request.fields, space, n_channels, n_steps, request.stride, request.n_input, bounds)
        found = self._known.get(key)
        if found is not None:
            return found
        found = self._before.get(key)
        if found is None:
            found = WindowGeometry(request.fields, space, n_channels, n_steps, request.stride, request.n_input, crop)
        if self._weight >= _KEPT_WEIGHT:
            self._before, self._known, self._weight = self._known, {}, 0
        self._known[key] = found
        self._weight += sum(_WEIGHT + len(field.boxes) for field in found.fields)
        return found
