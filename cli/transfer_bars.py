"""Progress of transfers on a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.progress import Progress

    from wellkit.fetch.plan import RemoteFile


class TransferBars:
    """One bar for everything, and one for each file under way."""

    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self._overall = bars.add_task("all files", total=0)
        self._files: dict[str, Any] = {}
        self._planned = 0

    def planned(self, n_files: int, n_bytes: int) -> None:
        self._planned += n_bytes
        self._bars.update(self._overall, total=self._planned)

    def started(self, file: RemoteFile) -> None:
        self._files[file.path] = self._bars.add_task(file.path.removeprefix("data/"), total=file.size)

    def advanced(self, file: RemoteFile, n_bytes: int) -> None:
        for task in (self._files[file.path], self._overall):
            self._bars.advance(task, n_bytes)

    def finished(self, file: RemoteFile) -> None:
        self._bars.remove_task(self._files.pop(file.path))
