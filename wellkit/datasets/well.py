"""`WellDataset`: windows of The Well's simulations as samples, map-style.

Over 400 lines because it is one class, whose arguments take eighty lines to explain.
"""

from __future__ import annotations

import operator
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from wellkit.datasets.arguments import DatasetArguments, as_list, check_arguments, check_crop, check_random_crop
from wellkit.datasets.assembly import ShardAssembler, WindowSpec
from wellkit.datasets.batches import BatchSamples, BufferPool, prepare_framework, read_batch, read_sample
from wellkit.datasets.described import Described
from wellkit.datasets.errata import (
    LeftOut,
    card_of,
    errata_of,
    known_as,
    leave_out,
    split_of,
    tell_remaining,
    warn_of_errata,
    window_reads,
)
from wellkit.datasets.normalizing import normalization_class, open_normalization, warn_of_other_statistics
from wellkit.datasets.opening import open_cache
from wellkit.datasets.parts import read_parts, read_rest
from wellkit.datasets.planning import fingerprint_of, plan_windows
from wellkit.datasets.samples import (
    TrajectoryData,
    TrajectoryMetadata,
    WellMetadata,
    construct_sample,
    flatten_fields,
    flatten_scalars,
    pad_rollouts,
)
from wellkit.datasets.shared import SharedArrays
from wellkit.datasets.sources import find_shards, resolve_source
from wellkit.datasets.tree import build_metadata, open_tree
from wellkit.errors import WellkitWarning
from wellkit.frameworks import SharedCounter, check_framework
from wellkit.readers.plan import WindowBatch
from wellkit.sampling import draw_box, draw_stride, restrict
from wellkit.windows import Window, largest_stride


class WellDataset(Described):
    """Windows of trajectories of one split, as samples in channels-last layout.

    A drop-in for `the_well.data.WellDataset`: same arguments, sample keys, shapes, dtypes and order. Works as a
    map-style dataset with `torch.utils.data.DataLoader`, with fork and spawn workers, and without torch.

    A sample is a dict of arrays of `framework`; keys that would be empty are left out:

    | key | axes | content |
    |---|---|---|
    | input_fields | (n_steps_input, space..., channel) | time-varying fields, tensor components as channels |
    | output_fields | (n_steps_output, space..., channel) | the steps after them |
    | constant_fields | (space..., channel) | fields constant in time |
    | input_scalars, output_scalars | (step, scalar) | time-varying scalars |
    | constant_scalars | (scalar) | parameters of the trajectory |
    | boundary_conditions | (spatial axis, side) | WALL 0, OPEN 1, PERIODIC 2 |
    | space_grid | (space..., coordinate) | coordinates, in the file's units |
    | input_time_grid, output_time_grid | (step) | times, from the window's start if normalize_time_grid |

    Args:
        path: folder of shards, or the dataset's folder when `well_split_name` is given; local or a URL
            (hf://, https://, s3://, memory://).
        normalization_path: statistics file; relative to the dataset's folder. Default: its stats.yaml.
        well_base_path: folder of datasets, used with `well_dataset_name`. With neither this nor `path`, what
            `wellkit download` fetched is used, else the Hub is streamed from (with a warning that says so).
        well_dataset_name: the dataset's name.
        well_split_name: "train", "valid" or "test".
        include_filters, exclude_filters: parts of file names to take or leave out.
        use_normalization: normalize fields; z-score unless `normalization_type` says otherwise.
        normalization_type: ZScoreNormalization, RMSNormalization, "zscore", "rms", or a class of one's own.
        max_rollout_steps: at most this many output steps; None for no limit.
        n_steps_input, n_steps_output: steps of input and output.
        min_dt_stride, max_dt_stride: frames between steps; drawn for each sample where they differ.
        flatten_tensors: False delivers fields by tensor order and name instead of as channels.
        restrict_num_trajectories, restrict_num_samples: a random subset, a count or a share; nested for one seed.
        restriction_seed: its seed.
        cache_small, max_cache_size: keep constants of up to `max_cache_size` elements once read.
        return_grid: deliver space and time grids.
        normalize_time_grid: count times from the window's first step.
        boundary_return_type: "padding" for codes, None for none.
        full_trajectory_mode: a sample is a whole trajectory: n_steps_input steps, then all others as output.
        start_output_steps_at_t: in that mode, the frame outputs start at; -1 for right after the inputs.
        name_override: `dataset_name` to show.
        transform: called as transform(data, metadata) on the fields by tensor order, see `TrajectoryData`.
        min_std: smallest divisor of the normalization.
        storage_options: passed to fsspec.
        framework: "torch" (default), "numpy" or "jax".
        errata: "warn" tells of known faults of the data (from the card), "keep" does not. "exclude" leaves out every
            window that reads what a card says is faulty, and tells what cannot be left out; see `excluded`.
        seed: seed of stride draws and transforms; see `set_epoch`.
        fields: core field names to read; None for all.
        crop: a (first, last) pair of grid indices for each spatial axis; only that box is read.
        random_crop: points along each spatial axis (or one number for all) of a box drawn for each sample, inside
            `crop`, from [seed, epoch, index]; only that box is read.
        cache: keep what is read of remote or slow shards in files below this folder (True: `$WELLKIT_CACHE`), for the
            next epoch, run and process. It takes at most `$WELLKIT_CACHE_BYTES` (by default what the disk has but
            5 %); see `wellkit cache`.
        rollout_length: in full-trajectory mode, "own" keeps each trajectory's length, "shortest" cuts to the
            shortest file's. Batches of unequal rollouts are padded with NaN and get `output_mask`.

    Raises:
        UnknownDatasetError, DataNotFoundError: no such dataset, folder or file.
        ShardError, FormatError: a shard is unreadable, or does not fit the others.
        StatisticsError: statistics are missing or do not fit the fields.
        WindowError: a trajectory is too short for the window.
        ArgumentError: arguments contradict each other.
    """

    _delta = False

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        normalization_path: str | os.PathLike[str] | None = None,
        well_base_path: str | os.PathLike[str] | None = None,
        well_dataset_name: str | None = None,
        well_split_name: Literal["train", "valid", "test"] | str | None = None,
        include_filters: Sequence[str] | str = (),
        exclude_filters: Sequence[str] | str = (),
        use_normalization: bool = False,
        normalization_type: Callable[..., Any] | str | None = None,
        max_rollout_steps: int | None = None,
        n_steps_input: int = 1,
        n_steps_output: int = 1,
        min_dt_stride: int = 1,
        max_dt_stride: int = 1,
        flatten_tensors: bool = True,
        restrict_num_trajectories: float | int | None = None,
        restrict_num_samples: float | int | None = None,
        restriction_seed: int = 0,
        cache_small: bool = True,
        max_cache_size: float = 1e9,
        return_grid: bool = True,
        normalize_time_grid: bool = True,
        boundary_return_type: str | None = "padding",
        full_trajectory_mode: bool = False,
        start_output_steps_at_t: int = -1,
        name_override: str | None = None,
        transform: Callable[[TrajectoryData, TrajectoryMetadata], TrajectoryData] | None = None,
        min_std: float = 1e-4,
        storage_options: Mapping[str, Any] | None = None,
        *,
        framework: Literal["torch", "numpy", "jax"] = "torch",
        errata: Literal["warn", "exclude", "keep"] = "warn",
        seed: int = 0,
        fields: Sequence[str] | None = None,
        crop: Sequence[tuple[int, int]] | None = None,
        random_crop: Sequence[int] | int | None = None,
        cache: str | os.PathLike[str] | bool | None = None,
        rollout_length: Literal["own", "shortest"] = "own",
    ) -> None:
        self.framework = check_framework(framework)
        check_arguments(
            DatasetArguments(
                n_steps_input=n_steps_input,
                n_steps_output=n_steps_output,
                min_dt_stride=min_dt_stride,
                max_dt_stride=max_dt_stride,
                max_rollout_steps=max_rollout_steps,
                full_trajectory_mode=full_trajectory_mode,
                start_output_steps_at_t=start_output_steps_at_t,
                boundary_return_type=boundary_return_type,
                errata=errata,
                rollout_length=rollout_length,
                seed=seed,
                restriction_seed=restriction_seed,
                min_std=min_std,
                fields=fields,
            )
        )
        source = resolve_source(
            path=path,
            base_path=well_base_path,
            name=well_dataset_name,
            split=well_split_name,
            normalization_path=normalization_path,
            storage_options=storage_options,
        )
        self.data_path = source.data
        self.commit = source.commit  # what a Hub revision named when the dataset was opened; None off the Hub
        self.well_dataset_name = well_dataset_name
        self.well_split_name = well_split_name
        self.include_filters = as_list(include_filters)
        self.exclude_filters = as_list(exclude_filters)
        self.use_normalization = use_normalization
        self.max_rollout_steps = max_rollout_steps
        self.n_steps_input = n_steps_input
        self.n_steps_output = n_steps_output
        self.min_dt_stride = min_dt_stride
        self.max_dt_stride = max_dt_stride
        self.flatten_tensors = flatten_tensors
        self.return_grid = return_grid
        self.normalize_time_grid = normalize_time_grid
        self.boundary_return_type = boundary_return_type
        self.full_trajectory_mode = full_trajectory_mode
        self.start_output_steps_at_t = start_output_steps_at_t
        self.transform = transform
        self.min_std = min_std
        self.storage_options = dict(storage_options or {})
        self.seed = seed
        self._epoch = SharedCounter(self.framework)
        self._buffers = BufferPool()

        self.files_paths = find_shards(
            source, include=self.include_filters, exclude=self.exclude_filters, storage_options=storage_options
        )
        if use_normalization:
            source.expect_statistics()  # while the shards' indexes are
        self._is_cached = cache is not None and cache is not False
        self._tree = open_tree(
            self.files_paths,
            cache=open_cache(cache),
            storage_options=storage_options,
            fields=None if fields is None else as_list(fields),
            source=source,
        )
        self._layouts = self._tree.layouts
        first = self._layouts[0]
        self._crop = check_crop(crop, first.resolution)
        self._random_crop = check_random_crop(random_crop, self._crop)
        resolution = self._random_crop or tuple(part.stop - part.start for part in self._crop)
        plan = plan_windows(
            self._layouts,
            n_steps_input=n_steps_input,
            n_steps_output=n_steps_output,
            stride=min_dt_stride,
            full_trajectory=full_trajectory_mode,
            first_output=start_output_steps_at_t,
            max_outputs=max_rollout_steps,
            shortest=rollout_length == "shortest",
        )
        self._steps, self._outputs, self._table = plan.steps, plan.outputs, plan.table
        self.n_windows_per_trajectory = plan.windows
        if full_trajectory_mode:
            self.n_steps_output = max(plan.outputs)
        self.metadata: WellMetadata = build_metadata(
            self._tree,
            resolution=resolution,
            steps=self._steps,
        )
        self.dataset_name = name_override or self.metadata.dataset_name
        self.normalization_type = normalization_class(normalization_type)
        self.normalization_path = source.statistics[0]
        self.norm: Any = None
        self.statistics_hash: str | None = None  # SHA-256 of the statistics in use; None without normalization
        published = first.generator is None  # cards speak of published data, not of generated
        known_name = known_as(well_dataset_name, source.root, self.metadata.dataset_name)
        if use_normalization:
            opened = open_normalization(
                source.present_statistics(),
                self.normalization_type,
                variable=self.core_field_names,
                constant=self.core_constant_field_names,
                shapes={field.name: (self.n_spatial_dims,) * field.order for field in first.fields},
                min_std=min_std,
                storage_options=self.storage_options,
                guarded=not source.given_statistics,
            )
            self.normalization_path, self.norm, self.statistics_hash = opened.path, opened.normalization, opened.hash
            if published and not source.given_statistics:
                warn_of_other_statistics(opened, card_of(known_name), first.resolution, stacklevel=3)
        self._cache_limit = max_cache_size if cache_small else 0
        self._shared = SharedArrays()
        self._assemblers: dict[int, ShardAssembler] = {}  # made when a shard is first read
        split = split_of(source.data, well_split_name)
        faults = errata_of(known_name, split) if published and errata != "keep" else []
        left_out = LeftOut()
        if errata == "exclude":
            left_out = leave_out(
                faults,
                self._layouts,
                self._table,
                plan.windows,
                window_reads(
                    plan.steps,
                    plan.outputs,
                    n_steps_input=n_steps_input,
                    min_stride=min_dt_stride,
                    max_stride=max_dt_stride,
                    first_output=start_output_steps_at_t if full_trajectory_mode else -1,
                ),
                split=split,
                fields=[*self.core_field_names, *self.core_constant_field_names],
            )
        self.excluded: dict[str, int] = left_out.windows  # windows left out, by the erratum's id
        self.restriction_set: np.ndarray | None = left_out.kept
        if restrict_num_trajectories is not None or restrict_num_samples is not None:
            self.restriction_set = restrict(
                self._table,
                n_trajectories=restrict_num_trajectories,
                n_samples=restrict_num_samples,
                seed=restriction_seed,
                allowed=left_out.kept,
            )
        if first.generator is not None and path is None and well_base_path is None:
            warnings.warn(
                f"{self.dataset_name}: the data in {self.data_path} were generated by {first.generator}; they are not "
                "the published dataset (give well_base_path= to say that they are meant)",
                WellkitWarning,
                stacklevel=2,
            )
        if errata == "exclude":
            tell_remaining(known_name, split, left_out.remaining, stacklevel=3)
        else:
            warn_of_errata(known_name, faults, stacklevel=3)

    # Samples

    def __len__(self) -> int:
        return len(self._table) if self.restriction_set is None else len(self.restriction_set)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Sample `index`, see the class. Raises IndexError out of range; negative indices count from the end."""
        if self._is_plain:
            window, place = self._place(index)
            sample = read_sample(
                self._assembler(place.file_idx),
                window,
                framework=self.framework,
                pool=self._buffers,
                others=self._read_rest,
            )
            if sample is not None:
                return sample
        data, metadata = self._load_one_sample(index)
        data = self._preprocess_data(data, metadata)
        if self.transform is not None:
            data = self.transform(data, metadata)
        return self._construct_sample(self._postprocess_data(data, metadata), metadata)

    def __getitems__(self, indices: Sequence[int]) -> Sequence[dict[str, Any]]:
        """The samples of one batch, read at once where that is possible.

        Rollouts of unequal length are padded with NaN and get `output_mask`.
        """
        batch = self._read_batch(indices) if self._is_plain and not self.unequal_rollouts else None
        if batch is not None:
            return batch
        samples = [self[index] for index in indices]
        return pad_rollouts(samples) if self.unequal_rollouts and samples else samples

    @property
    def is_remote(self) -> bool:
        """Whether reading waits for a network, or may wait for one as far as a cache can tell."""
        here = ("file://", "local://")
        return self._is_cached or any("://" in path and not path.startswith(here) for path in self.files_paths)

    def reserve_memory(self, sizes: Sequence[int]) -> None:
        """Take memory for arrays of so many bytes each, which batches then use again and again."""
        self._buffers.reserve(sizes)

    @property
    def _is_plain(self) -> bool:
        """Whether nothing stands between the files and the sample that has to see its parts."""
        return self.transform is None and self.flatten_tensors and not _has_hooks(type(self))

    def _read_batch(self, indices: Sequence[int]) -> BatchSamples | None:
        prepare_framework(self.framework)
        places = [self._place(index) for index in indices]
        return read_batch(
            [(self._assembler(metadata.file_idx), window) for window, metadata in places],
            framework=self.framework,
            pool=self._buffers,
            others=self._read_rest,
        )

    @property
    def unequal_rollouts(self) -> bool:
        """Whether samples differ in their number of output steps."""
        return len(set(self._outputs)) > 1

    @property
    def epoch(self) -> int:
        """The epoch that random draws of samples belong to."""
        return self._epoch.value

    def set_epoch(self, epoch: int) -> None:
        """Draw strides and transforms anew: they follow from [seed, epoch, index].

        Reaches persistent workers that were forked, and with framework="torch" spawned ones too.
        """
        self._epoch.value = epoch

    @property
    def fingerprint(self) -> str:
        """SHA-256 of what decides which sample has which number: files, their lengths, windows and selection."""
        return fingerprint_of(self._layouts, self._table, self.restriction_set, (self.n_steps_input, self._outputs))

    def shard_of(self, indices: np.ndarray) -> np.ndarray:
        """The shard, int64, that each of the samples `indices` lies in; axis (sample)."""
        whole = indices if self.restriction_set is None else self.restriction_set[indices]
        return self._table.files_of(whole)

    def _window(self, index: int) -> tuple[int, Window]:
        """(index among all windows, its place)."""
        index = operator.index(index)
        position = index + len(self) if index < 0 else index
        if not 0 <= position < len(self):
            raise IndexError(f"sample {index} is out of range: there are {len(self)}")
        whole = int(position if self.restriction_set is None else self.restriction_set[position])
        return whole, self._table.locate(whole)

    def _assembler(self, shard: int) -> ShardAssembler:
        """What reads one shard, made when it is first needed."""
        found = self._assemblers.get(shard)
        if found is None:
            found = self._assemblers[shard] = ShardAssembler(
                self._layouts[shard],
                self._tree.readers[shard],
                variable=self._tree.fields_of(shard, self._tree.variable),
                constant=self._tree.fields_of(shard, self._tree.constant),
                crop=self._crop,
                resolution=self.metadata.spatial_resolution,
                normalization=self.norm,
                framework=self.framework,
                delta=self._delta,
                cache_limit=self._cache_limit,
                shared=self._shared,
            )
        return found

    def _place(self, index: int) -> tuple[WindowSpec, TrajectoryMetadata]:
        """Which frames sample `index` is made of."""
        whole, window = self._window(index)
        key = (self.seed, self.epoch, whole)
        metadata = TrajectoryMetadata(self, window.file, window.trajectory, window.start, self.min_dt_stride, key)
        if self.max_dt_stride > self.min_dt_stride:
            fits = largest_stride(window.start, self._steps[window.file], self.n_steps_input + self.n_steps_output)
            metadata.time_stride = draw_stride(metadata.rng, self.min_dt_stride, min(fits, self.max_dt_stride))
        if self.full_trajectory_mode and self.start_output_steps_at_t >= 0:
            metadata.time_idx = self.start_output_steps_at_t - self.n_steps_input * metadata.time_stride
        if self._random_crop is not None:
            metadata.crop = draw_box(self._crop, self._random_crop, seed=key[0], epoch=key[1], index=whole)
        spec = WindowSpec(
            window.trajectory,
            metadata.time_idx,
            self.n_steps_input + self._outputs[window.file],
            metadata.time_stride,
            self.n_steps_input,
            metadata.crop,
        )
        return spec, metadata

    def _load_one_sample(self, index: int) -> tuple[TrajectoryData, TrajectoryMetadata]:
        window, metadata = self._place(index)
        return read_parts(self, self._assembler(metadata.file_idx), window), metadata

    def _read_rest(self, shard: ShardAssembler, window: WindowSpec, read: WindowBatch | None) -> dict[str, np.ndarray]:
        return read_rest(self, shard, window, read)

    # Steps a subclass may replace, under the names the_well gives them

    def _preprocess_data(self, data: TrajectoryData, traj_metadata: TrajectoryMetadata) -> TrajectoryData:
        """Called before the transform; the identity here."""
        return data

    def _postprocess_data(self, data: TrajectoryData, traj_metadata: TrajectoryMetadata) -> dict[str, Any]:
        """Called after the transform: fields and scalars side by side along one channel axis."""
        flat: dict[str, Any] = dict(data)
        if self.flatten_tensors:
            flat["variable_fields"] = flatten_fields(data["variable_fields"])
            flat["constant_fields"] = flatten_fields(data["constant_fields"])
        flat["variable_scalars"] = flatten_scalars(data["variable_scalars"])
        flat["constant_scalars"] = flatten_scalars(data["constant_scalars"])
        return flat

    def _construct_sample(self, data: Mapping[str, Any], traj_metadata: TrajectoryMetadata) -> dict[str, Any]:
        """Input and output apart; empty keys left out."""
        return construct_sample(data, self.n_steps_input)

    def to_xarray(self, backend: Literal["numpy", "dask"] = "dask") -> Any:
        """All shards as one xarray.Dataset along a `sample` dimension; "dask" reads when values are asked for."""
        from wellkit.datasets.xarray import shards_to_xarray

        return shards_to_xarray(self, backend=backend)

    def close(self) -> None:
        """Close the shards this process holds open; they open again when read. Needed before writing to them."""
        self._assemblers.clear()
        for reader in self._tree.readers:
            reader.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.data_path}>"


def _has_hooks(kind: type) -> bool:
    """Whether a subclass replaces a step of making a sample."""
    hooks = ("__getitem__", "_load_one_sample", "_preprocess_data", "_postprocess_data", "_construct_sample")
    return any(getattr(kind, hook) is not getattr(WellDataset, hook) for hook in hooks)
