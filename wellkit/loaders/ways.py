"""Ways of loading given batches of a dataset, for timing them: one by one, wellkit's loader, torch's loader."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

from wellkit.datasets.well import WellDataset
from wellkit.frameworks import require
from wellkit.loaders.loader import DataLoader

Batches = Sequence[Sequence[int]]


class Way(Protocol):
    """A way of loading batches of given windows."""

    name: str
    workers: int

    def read(self, batches: Batches, look: Callable[[], None]) -> None:
        """Read them all; `look` is called after each."""

    def processes(self) -> list[int]:
        """Worker processes."""
        ...

    def close(self) -> None: ...


class Items:
    """One sample after the other, in this process."""

    name = "one by one"

    def __init__(self, dataset: WellDataset, workers: int) -> None:
        self._dataset = dataset
        self.workers = workers

    def read(self, batches: Batches, look: Callable[[], None]) -> None:
        for batch in batches:
            for index in batch:
                self._dataset[index]
            look()

    def processes(self) -> list[int]:
        return []

    def close(self) -> None:
        pass


class _Chosen:
    """Some windows of a dataset, in a given order."""

    def __init__(self, dataset: WellDataset, indices: Sequence[int]) -> None:
        self._dataset = dataset
        self._indices = indices

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, number: int) -> dict[str, Any]:
        return self._dataset[self._indices[number]]

    def __getitems__(self, numbers: Sequence[int]) -> Sequence[dict[str, Any]]:
        return self._dataset.__getitems__([self._indices[number] for number in numbers])


class ThreadLoader(Items):
    """wellkit's loader, on threads."""

    name = "wellkit.DataLoader"

    def read(self, batches: Batches, look: Callable[[], None]) -> None:
        chosen = _Chosen(self._dataset, [index for batch in batches for index in batch])
        for _ in DataLoader(chosen, len(batches[0]), shuffle=False, threads=self.workers):
            look()


class _Order:
    """A batch sampler whose batches are set for each pass."""

    def __init__(self) -> None:
        self.batches: Batches = []

    def __iter__(self) -> Iterator[Sequence[int]]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


class TorchLoader:
    """torch's loader, on processes that stay between passes."""

    name = "torch DataLoader"

    def __init__(self, dataset: WellDataset, workers: int) -> None:
        torch = require("torch", extra="torch", purpose="measuring torch's DataLoader")
        self.workers = workers
        self._order = _Order()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "This DataLoader will create", UserWarning)  # more than cores: as asked
            self._loader: Any = torch.utils.data.DataLoader(
                dataset,
                batch_sampler=self._order,
                num_workers=workers,
                persistent_workers=workers > 0,
                generator=torch.Generator().manual_seed(0),
            )

    def read(self, batches: Batches, look: Callable[[], None]) -> None:
        self._order.batches = batches
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "This DataLoader will create", UserWarning)
            for _ in self._loader:
                look()

    def processes(self) -> list[int]:
        running = getattr(self._loader, "_iterator", None)
        return [int(worker.pid) for worker in getattr(running, "_workers", ())]

    def close(self) -> None:
        self._loader = None  # ends the workers
