"""`WellDataModule`: the loaders of a training run, over torch's DataLoader."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, Literal

from wellkit.datasets.well import WellDataset
from wellkit.errors import ArgumentError, WellkitWarning
from wellkit.frameworks import require
from wellkit.sampling import shuffled

Part = Literal["train", "val", "rollout_val", "test", "rollout_test"]
_PARTS: tuple[Part, ...] = ("train", "val", "rollout_val", "test", "rollout_test")
_SPLIT_OF: dict[Part, str] = {"train": "train", "val": "valid", "rollout_val": "valid"}


class EpochSampler:
    """A new order every epoch, from [seed, epoch] alone; across processes each takes its share of the same order.

    Every pass is the next epoch, unless `set_epoch` says which. The dataset's own draws (strides, transforms) follow.
    Shares are of equal length, so that processes stay in step: the last few samples that do not divide are left out,
    others every epoch.
    """

    def __init__(self, dataset: WellDataset, *, seed: int, rank: int, world_size: int) -> None:
        self._dataset = dataset
        self._seed = seed
        self._rank = rank
        self._world_size = world_size
        self._epoch = 0

    def __len__(self) -> int:
        return len(self._dataset) // self._world_size

    def __iter__(self) -> Iterator[int]:
        epoch, self._epoch = self._epoch, self._epoch + 1
        self._dataset.set_epoch(epoch)
        order = shuffled(len(self._dataset), seed=self._seed, epoch=epoch)
        return iter(order[self._rank :: self._world_size][: len(self)].tolist())

    def set_epoch(self, epoch: int) -> None:
        """Make the next pass epoch number `epoch`."""
        self._epoch = epoch


class WellDataModule:
    """Loaders for training, validation and test of one dataset, with the_well's names and arguments.

    Every part is normalized alike. Validation and test go through every sample once, in order, none dropped and none
    repeated: across processes each takes every `world_size`-th. Rollouts (whole trajectories) come one a batch.

    Args:
        well_base_path: folder of datasets; None for what was downloaded, else the Hub.
        well_dataset_name: the dataset's name.
        batch_size: samples a batch, of each process.
        include_filters, exclude_filters: parts of file names to take or leave out.
        use_normalization, normalization_type: as in `WellDataset`, for every part.
        train_dataset: class of the training dataset; the others are `WellDataset`.
        max_rollout_steps: at most this many output steps of a rollout; None for no limit.
        n_steps_input, n_steps_output: steps of input and output; rollouts have as many output steps as there are.
        min_dt_stride, max_dt_stride: strides in training; the other parts use `min_dt_stride`.
        world_size, rank: number of processes, and which of them (from 0) this one is.
        data_workers: worker processes of each loader; 0 loads in this process.
        boundary_return_type: as in `WellDataset`.
        transform: applied in training only.
        dataset_kws: further arguments of `WellDataset` by part (train, val, rollout_val, test, rollout_test); they
            win over the ones above.
        storage_kwargs: passed to fsspec.
        seed: of the training order, stride draws and transforms.

    Raises:
        ArgumentError: arguments contradict each other, or `dataset_kws` names an unknown part.
        WellkitError: as `WellDataset`; for validation and test when they are first used.
    """

    def __init__(
        self,
        well_base_path: str | os.PathLike[str] | None,
        well_dataset_name: str,
        batch_size: int,
        include_filters: Sequence[str] = (),
        exclude_filters: Sequence[str] = (),
        use_normalization: bool = False,
        normalization_type: Callable[..., Any] | str | None = None,
        train_dataset: Callable[..., WellDataset] = WellDataset,
        max_rollout_steps: int | None = None,
        n_steps_input: int = 1,
        n_steps_output: int = 1,
        min_dt_stride: int = 1,
        max_dt_stride: int = 1,
        world_size: int = 1,
        data_workers: int = 4,
        rank: int = 0,
        boundary_return_type: Literal["padding"] | None = "padding",
        transform: Callable[..., Any] | None = None,
        dataset_kws: Mapping[Part, Mapping[str, Any]] | None = None,
        storage_kwargs: Mapping[str, Any] | None = None,
        *,
        seed: int = 0,
    ) -> None:
        if not 0 <= rank < world_size:
            raise ArgumentError(f"rank={rank} is not one of the {world_size} processes: 0 to {world_size - 1}")
        if batch_size < 1:
            raise ArgumentError(f"batch_size={batch_size}; give a whole number from 1 up")
        unknown = [part for part in dataset_kws or {} if part not in _PARTS]
        if unknown:
            raise ArgumentError(f"dataset_kws has no part {unknown[0]!r}; the parts are {', '.join(_PARTS)}")
        if normalization_type is not None and not use_normalization:
            warnings.warn(
                "normalization_type is given but use_normalization is False: nothing is normalized",
                WellkitWarning,
                stacklevel=2,
            )
        self.well_base_path = well_base_path
        self.well_dataset_name = well_dataset_name
        self.batch_size = batch_size
        self.world_size = world_size
        self.data_workers = data_workers
        self.rank = rank
        self.seed = seed
        self._rollout: dict[str, Any] = {"full_trajectory_mode": True, "max_rollout_steps": max_rollout_steps}
        self._dataset_kws = dict(dataset_kws or {})
        self._shared: dict[str, Any] = {
            "well_base_path": well_base_path,
            "well_dataset_name": well_dataset_name,
            "include_filters": include_filters,
            "exclude_filters": exclude_filters,
            "use_normalization": use_normalization,
            "normalization_type": normalization_type,
            "n_steps_input": n_steps_input,
            "n_steps_output": n_steps_output,
            "min_dt_stride": min_dt_stride,
            "max_dt_stride": min_dt_stride,
            "boundary_return_type": boundary_return_type,
            "storage_options": storage_kwargs,
            "seed": seed,
        }
        self.train_dataset = self._open("train", train_dataset, max_dt_stride=max_dt_stride, transform=transform)

    def _open(self, part: Part, kind: Callable[..., WellDataset] = WellDataset, **more: Any) -> WellDataset:
        split = {"well_split_name": _SPLIT_OF.get(part, "test")}
        return kind(**{**self._shared, **split, **more, **self._dataset_kws.get(part, {})})

    @cached_property
    def val_dataset(self) -> WellDataset:
        """Windows of the validation split."""
        return self._open("val")

    @cached_property
    def rollout_val_dataset(self) -> WellDataset:
        """Whole trajectories of the validation split."""
        return self._open("rollout_val", **self._rollout)

    @cached_property
    def test_dataset(self) -> WellDataset:
        """Windows of the test split."""
        return self._open("test")

    @cached_property
    def rollout_test_dataset(self) -> WellDataset:
        """Whole trajectories of the test split."""
        return self._open("rollout_test", **self._rollout)

    @property
    def is_distributed(self) -> bool:
        """Whether there is more than one process."""
        return self.world_size > 1

    def train_dataloader(self) -> Any:
        """Batches in a new order every epoch; the last, smaller one is left out.

        The loader's `sampler.set_epoch(epoch)` says which epoch comes next, for resuming a run.

        Raises:
            ArgumentError: there are fewer samples than a batch takes.
        """
        sampler = EpochSampler(self.train_dataset, seed=self.seed, rank=self.rank, world_size=self.world_size)
        if len(sampler) < self.batch_size:
            raise ArgumentError(
                f"{self.train_dataset}: {len(self.train_dataset)} training samples for {self.world_size} processes do "
                f"not fill one batch of {self.batch_size}; use a smaller batch_size"
            )
        return self._loader(self.train_dataset, sampler, self.batch_size, drop_last=True)

    def val_dataloader(self) -> Any:
        """Every window of the validation split once."""
        return self._evaluation(self.val_dataset, self.batch_size)

    def rollout_val_dataloader(self) -> Any:
        """Every trajectory of the validation split once, one a batch."""
        return self._evaluation(self.rollout_val_dataset, 1)

    def test_dataloader(self) -> Any:
        """Every window of the test split once."""
        return self._evaluation(self.test_dataset, self.batch_size)

    def rollout_test_dataloader(self) -> Any:
        """Every trajectory of the test split once, one a batch."""
        return self._evaluation(self.rollout_test_dataset, 1)

    def _evaluation(self, dataset: WellDataset, batch_size: int) -> Any:
        # Not torch's DistributedSampler: it repeats samples to fill up the last round, which bends scores.
        return self._loader(dataset, range(self.rank, len(dataset), self.world_size), batch_size, drop_last=False)

    def _loader(self, dataset: WellDataset, sampler: Any, batch_size: int, *, drop_last: bool) -> Any:
        torch = require("torch", extra="torch", purpose="WellDataModule")
        return torch.utils.data.DataLoader(
            dataset,
            batch_size=batch_size,
            sampler=sampler,
            drop_last=drop_last,
            num_workers=self.data_workers,
            persistent_workers=self.data_workers > 0,
            pin_memory=torch.cuda.is_available(),
            # DataLoader draws its workers' seeds from this, and leaves the global generator alone.
            generator=torch.Generator().manual_seed(self.seed),
        )

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.well_dataset_name} on {self.well_base_path}>"
