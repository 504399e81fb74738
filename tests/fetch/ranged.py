"""A repository with one large file, and what reads ranges of it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests.hub.faults import Request
from tests.hub.repository import Repository
from tests.hub.server import LoopbackHub
from wellkit.fetch.ranges import ByteRange, RangeReader

REPOSITORY = "somebody/large_waves"
SHARD = "data/train/waves.hdf5"  # kept with LFS
NOTE = "stats.yaml"  # not
SIZE = 3_000_000
TOKEN = "hf_secret-of-this-user"


@dataclass
class Published:
    """What the Hub serves."""

    hub: LoopbackHub
    repository: Repository
    folder: Path
    content: bytes  # of the shard

    @property
    def commit(self) -> str:
        return self.repository.refs["main"]

    def at(self, path: str = SHARD, revision: str | None = None) -> str:
        """The location of a file."""
        return f"hf://datasets/{REPOSITORY}@{revision or self.commit}/{path}"

    def ranges(self, count: int, length: int = 50_000, path: str = SHARD) -> list[ByteRange]:
        """Ranges all over the shard."""
        starts = np.linspace(0, SIZE - length, count, dtype=int).tolist()
        return [ByteRange(self.at(path), start, start + length) for start in starts]

    def asked(self, server: str, method: str = "GET") -> list[Request]:
        """Requests for the contents of files, in order of arrival."""
        return [
            request
            for request in self.hub.requests
            if request.server == server
            and request.method == method
            and (server == "store" or "/resolve/" in request.path)
        ]


def publish(hub: LoopbackHub, folder: Path, *, token: str | None = None) -> Published:
    """Write the files and serve them."""
    (folder / "data" / "train").mkdir(parents=True)
    content = np.random.default_rng([7]).bytes(SIZE)
    (folder / SHARD).write_bytes(content)
    (folder / NOTE).write_bytes(b"mean: 1.5\nstd: 2.5\n")
    return Published(hub, hub.add(REPOSITORY, folder, token=token), folder, content)


def read(reader: RangeReader, ranges: Sequence[ByteRange]) -> list[bytes]:
    """The ranges' bytes."""
    buffers = [bytearray(part.stop - part.start) for part in ranges]
    reader.read(ranges, [memoryview(buffer) for buffer in buffers])
    return [bytes(buffer) for buffer in buffers]


def expected(published: Published, ranges: Sequence[ByteRange]) -> list[bytes]:
    """What they should be."""
    return [published.content[part.start : part.stop] for part in ranges]


def stays(buffers: Sequence[bytearray], seconds: float = 0.5) -> bool:
    """Whether nobody writes to the buffers any more."""
    before = [bytes(buffer) for buffer in buffers]
    time.sleep(seconds)
    return before == [bytes(buffer) for buffer in buffers]
