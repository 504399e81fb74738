"""Windows whose bytes are in local copies of remote shards: read from there, as from any local file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol, runtime_checkable

import numpy as np

from wellkit.readers.chunked import ChunkedWindow, plan_units
from wellkit.readers.coalescing import unit_needs
from wellkit.readers.pieces import Pieces
from wellkit.readers.plan import WindowBatch


@runtime_checkable
class Copies(Protocol):
    """Ranges that are kept in local files: `wellkit.fetch.range_cache.CachedRanges`."""

    def local_path(self, location: str, ranges: np.ndarray) -> str | None:
        """A file with all bytes of `ranges`, int64, axes (range, 2), at the same offsets; None if there is none."""
        ...


def in_copies(
    batches: Sequence[WindowBatch], windows: Sequence[ChunkedWindow], copies: Copies, pieces: Pieces, gap: int
) -> list[WindowBatch] | None:
    """The same batches, to be read from local copies; None where something that they need is not in one.

    Args:
        windows: of all batches, in order.
        pieces: for notes of what windows are made of; nothing is read with it.
        gap: see `unit_needs`.
    """
    wanted: dict[str, list[np.ndarray]] = {}
    for window in windows:
        wanted.setdefault(window.request.path, []).append(_ranges(window, pieces, gap))
    paths: dict[str, str] = {}
    for location, ranges in wanted.items():
        path = copies.local_path(location, np.concatenate(ranges))
        if path is None:
            return None
        paths[location] = path
    return [
        WindowBatch([replace(request, path=paths.get(request.path, request.path)) for request in requests], out, tail)
        for requests, out, tail in batches
    ]


def _ranges(window: ChunkedWindow, pieces: Pieces, gap: int) -> np.ndarray:
    """What a window needs of its shard: int64, axes (range, 2)."""
    request, geometry = window.request, window.geometry
    if not geometry.is_sparse:
        places = geometry.in_file(request.trajectory, request.start)
        if places is not None:
            return np.stack([places, places + geometry.spans[:, None]], axis=-1).reshape(-1, 2)
    needs = [need for unit in plan_units([window], pieces) for _, need in unit_needs(unit, gap)]
    parts = [np.stack([need.starts, need.starts + need.run], axis=1) for need in needs]
    return np.concatenate([np.empty((0, 2), np.int64), *parts])
