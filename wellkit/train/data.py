"""Splits of a dataset as batches of tensors, in an order that follows from [seed, epoch]."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from wellkit import catalog
from wellkit.datasets.well import WellDataset
from wellkit.errors import ConfigError, DataNotFoundError, DataValueError, StatisticsError, UnknownDatasetError
from wellkit.formats.statistics_file import load_statistics, statistics_hash
from wellkit.sampling import shuffled
from wellkit.schemas.training import DatasetIdentity, Normalization, StatisticsUsed, Targets
from wellkit.train.predictors import fill_nan
from wellkit.windows import WindowTable


def open_split(
    dataset: str,
    data: str | None,
    split: str,
    *,
    n_steps_input: int,
    n_steps_output: int = 1,
    normalization: Normalization = "none",
    warn: bool = True,
    grid: bool = False,
) -> WellDataset:
    """One split as torch tensors, without boundary codes, which no model here uses.

    Args:
        dataset: name of the dataset.
        data: folder that holds `<dataset>/data/...`; None for what was downloaded, else the Hub.
        split: train, valid or test.
        n_steps_input, n_steps_output: steps of a window.
        normalization: "none" gives fields in physical units.
        warn: tell of known faults of published data.
        grid: deliver coordinates, and times as they are stored.

    Raises:
        WellkitError: as `WellDataset` does.
    """
    return WellDataset(
        well_base_path=data,
        well_dataset_name=dataset,
        well_split_name=split,
        n_steps_input=n_steps_input,
        n_steps_output=n_steps_output,
        use_normalization=normalization != "none",
        normalization_type=None if normalization == "none" else normalization,
        return_grid=grid,
        normalize_time_grid=False,
        boundary_return_type=None,
        errata="warn" if warn else "keep",
    )


def components(dataset: WellDataset, *, constant: bool = False) -> tuple[str, ...]:
    """Names of a sample's channels, in order: density, pressure, velocity_x, velocity_y."""
    names = dataset.metadata.constant_field_names if constant else dataset.metadata.field_names
    return tuple(name for order in sorted(names) for name in names[order])


def identify(dataset: WellDataset, split: str) -> DatasetIdentity:
    """Which data these are."""
    metadata = dataset.metadata
    return DatasetIdentity(
        name=metadata.dataset_name,
        generator=dataset.generator,
        split=split,
        location=str(dataset.data_path),
        files=tuple(str(file).rsplit("/", 1)[-1] for file in dataset.files_paths),
        trajectories=tuple(metadata.n_trajectories_per_file),
        steps=tuple(metadata.n_steps_per_trajectory),
        resolution=tuple(metadata.spatial_resolution),
        fields=components(dataset),
        constant_fields=components(dataset, constant=True),
    )


def statistics_used(dataset: WellDataset, kind: Normalization, *, targets: Targets = "state") -> StatisticsUsed | None:
    """The statistics a normalized dataset was opened with, for a model that predicts `targets`."""
    if kind == "none":
        return None
    statistics = load_statistics(dataset.normalization_path, storage_options=dataset.storage_options)
    return StatisticsUsed(
        kind=kind,
        path=dataset.normalization_path,
        sha256=statistics_hash(statistics),
        min_denom=dataset.min_std,
        values=statistics.to_mapping(),
        fields=tuple(dataset.core_field_names),
        constant_fields=tuple(dataset.core_constant_field_names),
        targets=targets,
    )


def hash_of_statistics(dataset: WellDataset) -> str | None:
    """Hash of the statistics beside a dataset, whether it is normalized or not; None where there are none to read."""
    if dataset.statistics_hash is not None:
        return dataset.statistics_hash
    try:
        return statistics_hash(load_statistics(dataset.normalization_path, storage_options=dataset.storage_options))
    except (DataNotFoundError, StatisticsError):
        return None


def nan_allowed(dataset: WellDataset) -> tuple[bool, ...]:
    """Per channel, whether the dataset's card says that NaN marks points outside the domain.

    A dataset without a card, and a generated one, has no such field.
    """
    names = components(dataset)
    if dataset.generator is not None:
        return (False,) * len(names)
    try:
        card = catalog.get(dataset.metadata.dataset_name)
    except UnknownDatasetError:
        return (False,) * len(names)
    masked = [field for field in card.fields if field.nan_mask is not None]
    axes = tuple(card.grid.axis_names)
    allowed = {component for field in masked for component in field.components(axes)}
    return tuple(name in allowed for name in names)


@dataclass(frozen=True)
class Batch:
    """Windows side by side, on the device, float32.

    Attributes:
        indices: their numbers in the dataset.
        inputs: (B, n_steps_input, space..., channel).
        outputs: (B, n_steps_output, space..., channel).
        constants: (B, space..., constant channel), or None.
    """

    indices: Sequence[int]
    inputs: Tensor
    outputs: Tensor
    constants: Tensor | None

    def __len__(self) -> int:
        return len(self.indices)


class _Order(Sampler[list[int]]):
    """Batches of indices that can be set anew for every pass, while the loader's processes live on."""

    def __init__(self) -> None:
        self.batches: Sequence[Sequence[int]] = ()

    def __iter__(self) -> Iterator[list[int]]:
        return (list(batch) for batch in self.batches)

    def __len__(self) -> int:
        return len(self.batches)


def _stack(samples: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
    keys = [key for key in ("input_fields", "output_fields", "constant_fields") if key in samples[0]]
    return {key: torch.stack([sample[key] for sample in samples]) for key in keys}


class Batches:
    """A dataset as batches on a device, in order or shuffled; measures how long it was waited for.

    Attributes:
        waited: seconds the consumer waited for data in the current pass.
    """

    def __init__(self, dataset: WellDataset, *, batch_size: int, workers: int, device: torch.device) -> None:
        self.dataset = dataset
        self.batch_size = batch_size
        self.device = device
        self.waited = 0.0
        self._copying: Any | None = None
        if device.type == "cuda":
            self._copying = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._order = _Order()
        self._loader: DataLoader[Any] = DataLoader(
            dataset,  # type: ignore[arg-type]  # map-style by its methods, not by inheritance
            batch_sampler=self._order,
            num_workers=workers,
            collate_fn=_stack,
            persistent_workers=workers > 0,
            pin_memory=device.type == "cuda",
            # Of its own: every pass draws a number, which would move torch's global generator on.
            generator=torch.Generator().manual_seed(0),
        )

    def __len__(self) -> int:
        """Batches in one pass over the dataset; the last one may be smaller."""
        return -(-len(self.dataset) // self.batch_size)

    def order_of_epoch(self, seed: int, epoch: int) -> list[int]:
        """The numbers of all windows, in the order that follows from [seed, epoch]; the dataset is told the epoch."""
        self.dataset.set_epoch(epoch)
        return [int(i) for i in shuffled(len(self.dataset), seed=seed, epoch=epoch)]

    def of_epoch(self, seed: int, epoch: int) -> Iterator[Batch]:
        """All windows once, in the order that follows from [seed, epoch]."""
        return self._cut(self.order_of_epoch(seed, epoch))

    def in_order(self) -> Iterator[Batch]:
        """All windows once, from first to last."""
        return self._cut(range(len(self.dataset)))

    def of_groups(self, groups: Sequence[Sequence[int]]) -> Iterator[Batch]:
        """The windows of each group as one batch."""
        self._order.batches = groups
        self.waited = 0.0
        batches = iter(self._loader)
        for indices in groups:
            began = time.perf_counter()
            moved = self._moved(next(batches))
            self.waited += time.perf_counter() - began
            yield Batch(indices, moved["input_fields"], moved["output_fields"], moved.get("constant_fields"))

    def _moved(self, fields: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """On the device. To a GPU beside whatever it is computing, in a stream that the computation then waits for."""
        if self._copying is None:
            return {key: value.to(self.device) for key, value in fields.items()}
        computing = torch.cuda.current_stream(self.device)
        with torch.cuda.stream(self._copying):
            moved = {key: value.to(self.device, non_blocking=True) for key, value in fields.items()}
        computing.wait_stream(self._copying)
        for value in moved.values():
            value.record_stream(computing)  # its memory is taken again only when the computation is done with it
        return moved

    def _cut(self, order: Sequence[int]) -> Iterator[Batch]:
        size = self.batch_size
        return self.of_groups([order[start : start + size] for start in range(0, len(order), size)])


def all_finite(batch: Batch, allowed: Sequence[bool]) -> Tensor:
    """Whether `check_finite` surely lets a batch pass: a boolean on its device, which nobody has waited for yet.

    Looks at sums, which is fast; finite values whose sum is not are the one case in which it is wrongly in doubt.
    """
    varying = [batch.inputs, batch.outputs]
    if any(allowed):
        varying = [fill_nan(values, torch.tensor(allowed)) for values in varying]
    parts = varying if batch.constants is None else [*varying, batch.constants]
    return torch.isfinite(torch.stack([values.sum() for values in parts])).all()


def check_finite(batch: Batch, dataset: WellDataset, allowed: Sequence[bool], *, split: str) -> None:
    """Refuse NaN where the card allows none, and infinity anywhere.

    Raises:
        DataValueError: names dataset, split, sample, its place, and the field.
    """
    for part, values in (("input", batch.inputs), ("output", batch.outputs)):
        if bool(torch.isfinite(values).all()):
            continue
        permitted = torch.tensor(allowed, device=values.device) & values.isnan()
        bad = (~(torch.isfinite(values) | permitted)).nonzero()
        if len(bad):
            first = bad[0].tolist()
            raise DataValueError(
                _complaint(dataset, split, batch.indices[first[0]], part, first[1], components(dataset)[first[-1]])
            )
    if batch.constants is not None and not bool(torch.isfinite(batch.constants).all()):
        first = (~torch.isfinite(batch.constants)).nonzero()[0].tolist()
        name = components(dataset, constant=True)[first[-1]]
        raise DataValueError(_complaint(dataset, split, batch.indices[first[0]], "constant", None, name))


def _complaint(dataset: WellDataset, split: str, index: int, part: str, step: int | None, name: str) -> str:
    metadata = dataset.metadata
    table = WindowTable(metadata.n_trajectories_per_file, dataset.n_windows_per_trajectory)
    window = table.locate(index)
    frame = (
        "" if step is None else f", frame {window.start + step + (dataset.n_steps_input if part == 'output' else 0)}"
    )
    return (
        f"{metadata.dataset_name} ({split}): sample {index} holds NaN or infinity in {part} field {name!r} "
        f"({dataset.files_paths[window.file]}, trajectory {window.trajectory}{frame}), where its card allows none; "
        "fetch the file again, or leave it out"
    )


def choose_device(name: str) -> torch.device:
    """The device for "auto", "cpu", "cuda", "cuda:1", ...; "auto" is a CUDA GPU if there is one, else the CPU.

    Raises:
        ConfigError: no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError, ValueError) as error:
        first_line = str(error).splitlines()[0]
        raise ConfigError(f"device={name!r} cannot be used here ({first_line}); use auto or cpu") from error
    return device
