"""Local files read as if they were remote: ranges only, counted."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence

from wellkit.fetch.ranges import ByteRange


class FileRanges:
    """What a `RangeReader` does, over local paths. Picklable."""

    def __init__(self) -> None:
        self.asked: list[ByteRange] = []
        self.calls = 0

    @property
    def bytes_received(self) -> int:
        return sum(part.stop - part.start for part in self.asked)

    def read(
        self, ranges: Sequence[ByteRange], into: Sequence[memoryview], done: Callable[[int], None] | None = None
    ) -> None:
        self.calls += 1
        self.asked += ranges

        def one(number: int) -> None:
            part, buffer = ranges[number], into[number]
            assert 0 <= part.start < part.stop <= os.path.getsize(part.location)
            assert len(buffer) == part.stop - part.start
            with open(part.location, "rb") as file:
                file.seek(part.start)
                assert file.readinto(buffer) == len(buffer)
            if done is not None:
                done(number)

        threads = [threading.Thread(target=one, args=(number,)) for number in range(len(ranges))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def size(self, location: str) -> int:
        return os.path.getsize(location)
