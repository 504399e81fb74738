"""`DataLoader`: batches of any map-style dataset, read ahead by threads, in an order that follows from a seed.

Threads suffice where reading leaves the interpreter lock alone, as `WellDataset` does for local shards: nothing is
pickled, nothing is copied between processes, and caches are shared.
"""

from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Literal, Protocol

import numpy as np

from wellkit.datasets.batches import BatchSamples, stack_samples
from wellkit.errors import ArgumentError
from wellkit.fetch.parallel import give_up
from wellkit.sampling import shard_shuffled, shuffled

STATE_VERSION = 1
_THREADS, _AHEAD = 2, 4  # of local files
_AHEAD_BYTES = 2 << 30
_LOOK_EVERY = 0.05  # seconds
_MOST_AHEAD, _ON_ITS_WAY = 16, 3 << 27  # batches and bytes, from a network


class MapDataset(Protocol):
    """What the loader needs: a length and samples by number; the rest is used where it is there."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> dict[str, Any]: ...


class DataLoader:
    """Batches as dicts of stacked arrays, in the dataset's framework, batch axis first.

    The order of an epoch follows from [seed, epoch] alone. Every iteration is the next epoch; `set_epoch` chooses one.
    Iterating again after a break starts the epoch anew; after `load_state_dict` it goes on where the state was taken.

    Args:
        dataset: a map-style dataset; `__getitems__`, `set_epoch`, `fingerprint` and `shard_of` are used if it has them.
        batch_size: samples in a batch; the last one of an epoch may be smaller.
        shuffle: True: all samples in random order; "shards": a few shards at a time, in random order within them, for
            storage on which jumping between files is slow (neighbouring batches then come from the same shards);
            False: in order.
        seed: of the order.
        drop_last: leave out a last batch that is smaller, and what would make processes differ in length.
        threads: threads that read; 0 reads when a batch is asked for. None: 2; as many as batches are read ahead
            where the dataset waits for a network (`is_remote`), since that takes no cores.
        prefetch: batches that are read ahead, at most. None: 4; from a network as many as hold 400 MB, 4 to 16.
        prefetch_bytes: memory for them; of large batches fewer are read ahead, but always one. None: 2 GB.
        rank, world_size: this process's number among several, and how many there are: each takes every
            `world_size`-th sample of the same order, none twice.
        pin_memory: torch: page-locked batches, for asynchronous copies to a GPU.
        shards_at_once: with shuffle="shards".

    Raises:
        ArgumentError: a number makes no sense.
    """

    def __init__(
        self,
        dataset: MapDataset,
        batch_size: int = 8,
        shuffle: bool | Literal["shards"] = True,
        seed: int = 0,
        *,
        drop_last: bool = False,
        threads: int | None = None,
        prefetch: int | None = None,
        prefetch_bytes: int | None = None,
        rank: int = 0,
        world_size: int = 1,
        pin_memory: bool = False,
        shards_at_once: int = 4,
    ) -> None:
        for name, value, least in (
            ("batch_size", batch_size, 1),
            ("threads", threads, 0),
            ("prefetch", prefetch, 1),
            ("prefetch_bytes", prefetch_bytes, 1),
            ("world_size", world_size, 1),
            ("shards_at_once", shards_at_once, 1),
            ("seed", seed, 0),
        ):
            if value is not None and (not hasattr(value, "__index__") or value < least):
                raise ArgumentError(f"{name}={value!r}; give a whole number from {least} up")
        if not 0 <= rank < world_size:
            raise ArgumentError(f"rank={rank} is not one of {world_size} processes, counted from 0")
        if shuffle not in (True, False, "shards"):
            raise ArgumentError(f"shuffle={shuffle!r}; choose True, False or 'shards'")
        if shuffle == "shards" and not hasattr(dataset, "shard_of"):
            raise ArgumentError("shuffle='shards' needs a dataset that says which shard a sample lies in (shard_of)")
        self.dataset = dataset
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.seed = seed
        self.drop_last = drop_last
        self.threads = threads
        self.prefetch = prefetch
        self.prefetch_bytes = _AHEAD_BYTES if prefetch_bytes is None else prefetch_bytes
        self.rank = rank
        self.world_size = world_size
        self.pin_memory = pin_memory
        self.shards_at_once = shards_at_once
        self._epoch = 0  # the epoch that is running, or comes next
        self._done = 0  # batches of it that were handed out
        self._resume = False

    @property
    def epoch(self) -> int:
        """The epoch that is running, or the next one."""
        return self._epoch

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration is."""
        self._epoch, self._done, self._resume = epoch, 0, False

    def _order(self) -> np.ndarray:
        """Sample numbers of this process in this epoch, in order."""
        count = len(self.dataset)
        if self.shuffle == "shards":
            shards = self.dataset.shard_of(np.arange(count))  # type: ignore[attr-defined]
            order = shard_shuffled(shards, seed=self.seed, epoch=self._epoch, at_once=self.shards_at_once)
        else:
            order = shuffled(count, seed=self.seed, epoch=self._epoch) if self.shuffle else np.arange(count)
        if self.drop_last:
            order = order[: count // self.world_size * self.world_size]
        return order[self.rank :: self.world_size]

    def _batches(self) -> list[np.ndarray]:
        order = self._order()
        stop = len(order) // self.batch_size * self.batch_size if self.drop_last else len(order)
        return [order[start : start + self.batch_size] for start in range(0, stop, self.batch_size)]

    def __len__(self) -> int:
        """Batches of an epoch."""
        count = len(self.dataset)
        if self.drop_last:
            return count // self.world_size // self.batch_size
        own = len(range(self.rank, count, self.world_size))
        return -(-own // self.batch_size)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        if not self._resume:
            self._done = 0
        self._resume = False
        set_epoch = getattr(self.dataset, "set_epoch", None)
        if set_epoch is not None:
            set_epoch(self._epoch)
        left = self._batches()[self._done :]
        for batch in self._read_ahead(left) if self._most_threads() else map(self._read, left):
            self._done += 1
            if self._done == len(self):
                self._epoch, self._done = self._epoch + 1, 0
            yield batch

    def _read_ahead(self, batches: Sequence[np.ndarray]) -> Iterator[dict[str, Any]]:
        waiting: deque[Future[dict[str, Any]]] = deque()
        left, is_planned = iter(batches), False
        threads: list[threading.Thread] = []
        pool = ThreadPoolExecutor(
            self._most_threads(),
            thread_name_prefix="wellkit-loader",
            initializer=lambda: threads.append(threading.current_thread()),
        )
        try:
            ahead = self._first_ahead()  # until the first batch tells how large they are
            waiting.extend(pool.submit(self._read, indices) for indices in itertools.islice(left, ahead))
            while waiting:
                batch = waiting.popleft().result()
                if not is_planned:
                    ahead, is_planned = self._plan_memory(batch, len(batches)), True
                room = max(0, ahead - len(waiting))  # batches may be larger than they were taken to be
                waiting.extend(pool.submit(self._read, indices) for indices in itertools.islice(left, room))
                yield batch
                del batch  # or its memory could not be used for the next one
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            while any(thread.is_alive() for thread in threads):
                # Where the loop was left early: a server that has stopped answering is not waited for.
                give_up({thread.ident for thread in threads if thread.ident is not None})
                threads[-1].join(_LOOK_EVERY)
                threads = [thread for thread in threads if thread.is_alive()]
            pool.shutdown(wait=True)

    def _waits(self) -> bool:
        """Whether reading is waiting for a network rather than work."""
        return bool(getattr(self.dataset, "is_remote", False))

    def _most_threads(self) -> int:
        if self.threads is not None:
            return self.threads
        return (self.prefetch or _MOST_AHEAD) if self._waits() else _THREADS

    def _ahead(self, size: int) -> int:
        """How many batches of `size` bytes are read ahead."""
        prefetch = self.prefetch
        if prefetch is None:
            # What is on its way at a time hides the network's latency.
            wanted = -(-_ON_ITS_WAY // max(1, size))
            prefetch = min(_MOST_AHEAD, max(_AHEAD, wanted)) if self._waits() else _AHEAD
        return max(1, min(prefetch, self.prefetch_bytes // max(1, size)))

    def _first_ahead(self) -> int:
        """As `_ahead`, before there is a batch: from what the dataset says, if time is lost otherwise."""
        size = getattr(self.dataset, "sample_nbytes", None) if self._waits() else None
        return 1 if size is None else self._ahead(int(size) * self.batch_size)

    def _plan_memory(self, batch: Mapping[str, Any], count: int) -> int:
        """How many of `count` batches like this one are read ahead; memory for what is there at a time is taken now."""
        sizes = [int(array.nbytes) for array in batch.values() if hasattr(array, "nbytes")]
        ahead = self._ahead(sum(sizes))
        reserve = getattr(self.dataset, "reserve_memory", None)
        if reserve is not None:
            # Beside those ahead there are the one handed out, and the one before it until the next is asked for. What
            # is handed out pinned is a copy, so that the dataset's memory is only used while a batch is read.
            reserve(sizes * min(self._most_threads() if self.pin_memory else ahead + 2, count))
        return ahead

    def _read(self, indices: np.ndarray) -> dict[str, Any]:
        numbers = [int(index) for index in indices]
        several = getattr(self.dataset, "__getitems__", None)
        samples = several(numbers) if several is not None else [self.dataset[number] for number in numbers]
        batch = samples.batch if isinstance(samples, BatchSamples) else stack_samples(samples)
        return {key: value.pin_memory() for key, value in batch.items()} if self.pin_memory else batch

    def state_dict(self) -> dict[str, Any]:
        """Where the loader is: plain numbers and strings. Batches read ahead but not handed out do not count."""
        return {
            "version": STATE_VERSION,
            "epoch": self._epoch,
            "done": self._done,
            "settings": self._settings(),
            "dataset": self._fingerprint(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state` was taken: the next iteration yields the batch after the last one handed out.

        Raises:
            ArgumentError: the state is of another version, of a loader with other settings, or of a dataset that has
                changed since.
        """
        if state.get("version") != STATE_VERSION:
            raise ArgumentError(f"loader state of version {state.get('version')!r}; this wellkit reads {STATE_VERSION}")
        for name, value in self._settings().items():
            saved = state["settings"].get(name)
            if saved != value:
                raise ArgumentError(
                    f"the loader's state was saved with {name}={saved!r}, this loader has {value!r}: "
                    "the order of samples would differ; make it with the same settings"
                )
        if state["dataset"] != self._fingerprint():
            raise ArgumentError(
                "the dataset is not the one the loader's state was saved with (files, lengths, windows or selection "
                "differ): going on would repeat some samples and miss others"
            )
        self._epoch, self._done, self._resume = int(state["epoch"]), int(state["done"]), True

    def _settings(self) -> dict[str, Any]:
        names = ("batch_size", "shuffle", "seed", "drop_last", "world_size", "shards_at_once")
        return {name: getattr(self, name) for name in names}

    def _fingerprint(self) -> str:
        found = getattr(self.dataset, "fingerprint", None)
        return str(found) if found is not None else f"{type(self.dataset).__name__}:{len(self.dataset)}"
