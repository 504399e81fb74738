"""The store through which zarr-python reads from any storage that `wellkit.storage.locate` knows.

Imported only where a Zarr shard is met: zarr is an optional library.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable

from zarr.abc.store import ByteRequest, OffsetByteRequest, RangeByteRequest, Store, SuffixByteRequest
from zarr.core.buffer import Buffer, BufferPrototype

from wellkit.storage import Location, reading

_ABSENT = (FileNotFoundError, IsADirectoryError, NotADirectoryError)


class LocationStore(Store):
    """Read-only objects below one location.

    Each request runs in a thread over the location's own, synchronous filesystem. An asynchronous one would live in
    zarr's event loop, with connections that nobody closes and that do not survive a fork; and only here are
    signed addresses kept whole and failures told as everywhere else.
    """

    def __init__(self, place: Location) -> None:
        super().__init__(read_only=True)
        self.place = place

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LocationStore) and self.place == other.place

    def __repr__(self) -> str:
        return f"LocationStore({self.place})"

    def read_bytes(self, key: str, byte_range: ByteRequest | None = None) -> bytes | None:
        """An object, or a part of it; None where there is no such object."""
        place = self.place.join(key)
        start, stop = _limits(byte_range)
        with reading(str(place)):
            try:
                found: bytes = place.fs.cat_file(place.path, start=start, end=stop)
            except _ABSENT:
                return None
        if isinstance(byte_range, RangeByteRequest) and len(found) > byte_range.end - byte_range.start:
            return found[byte_range.start : byte_range.end]  # a server that knows no ranges sent the whole object
        if isinstance(byte_range, SuffixByteRequest):
            return found[-byte_range.suffix :]
        return found

    def entries(self, prefix: str) -> list[str]:
        """Names of what lies directly below `prefix`, sorted; empty where the storage cannot tell."""
        place = self.place.join(prefix) if prefix else self.place
        with reading(str(place)):
            try:
                found = place.fs.ls(place.path, detail=False)
            except _ABSENT:
                return []
        return sorted({str(path).partition("?")[0].rstrip("/").rsplit("/", 1)[-1] for path in found})

    # zarr's interface

    supports_writes = False
    supports_deletes = False
    supports_listing = False

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        found = await asyncio.to_thread(self.read_bytes, key, byte_range)
        return None if found is None else prototype.buffer.from_bytes(found)

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        return list(await asyncio.gather(*(self.get(key, prototype, part) for key, part in key_ranges)))

    async def exists(self, key: str) -> bool:
        return await asyncio.to_thread(self.place.join(key).exists)

    async def set(self, key: str, value: Buffer) -> None:
        self._check_writable()

    async def delete(self, key: str) -> None:
        self._check_writable()

    def list(self) -> AsyncIterator[str]:
        raise NotImplementedError

    def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        raise NotImplementedError

    def list_dir(self, prefix: str) -> AsyncIterator[str]:
        raise NotImplementedError


def _limits(byte_range: ByteRequest | None) -> tuple[int | None, int | None]:
    """(first byte, byte after the last) as fsspec takes them; a negative first one counts from the end."""
    if isinstance(byte_range, RangeByteRequest):
        return byte_range.start, byte_range.end
    if isinstance(byte_range, OffsetByteRequest):
        return byte_range.offset, None
    if isinstance(byte_range, SuffixByteRequest):
        return -byte_range.suffix, None
    return None, None
