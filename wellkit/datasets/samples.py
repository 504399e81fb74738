"""What a sample is made of: the pieces of a trajectory a transform sees, and how a batch is padded."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NotRequired, TypedDict

import numpy as np

from wellkit.frameworks import Array, concatenate, framework_of, from_numpy, like, to_numpy
from wellkit.sampling import generator

if TYPE_CHECKING:
    from wellkit.datasets.assembly import Channel
    from wellkit.datasets.well import WellDataset


class TrajectoryData(TypedDict):
    """A piece of one trajectory, as a transform receives and returns it.

    Fields are grouped by tensor order (0, 1, 2), then by name; arrays are of the dataset's framework. A
    time-varying field has axes (time, space..., component...), a constant one (space..., component...); a
    time-varying scalar has axis (time), a constant one none.
    """

    variable_fields: dict[int, dict[str, Array]]
    constant_fields: dict[int, dict[str, Array]]
    variable_scalars: dict[str, Array]
    constant_scalars: dict[str, Array]
    boundary_conditions: NotRequired[Array]  # (spatial axis, side), codes of BoundaryCondition
    space_grid: NotRequired[Array]  # (space..., coordinate)
    time_grid: NotRequired[Array]  # (time)


@dataclass
class TrajectoryMetadata:
    """Where a piece of trajectory was cut from.

    `rng` is the sample's own random generator, from the key [seed, epoch, index]: transforms draw from it and
    from nothing else, so that a sample does not depend on which worker made it. `crop` is the box that was drawn for
    the sample, a slice of the grid for each spatial axis; None without `random_crop`.
    """

    dataset: WellDataset
    file_idx: int
    sample_idx: int
    time_idx: int
    time_stride: int
    rng_key: tuple[int, int, int] = (0, 0, 0)
    crop: tuple[slice, ...] | None = None

    @cached_property
    def rng(self) -> np.random.Generator:
        """Made when first asked for: most samples draw nothing."""
        return generator(*self.rng_key)


@dataclass
class WellMetadata:
    """What all files of a dataset have in common, and how many trajectories and steps each holds.

    Field names are those of components ("velocity_x"), by tensor order, in channel order.
    """

    dataset_name: str
    n_spatial_dims: int
    spatial_resolution: tuple[int, ...]
    scalar_names: list[str]
    constant_scalar_names: list[str]
    field_names: dict[int, list[str]]
    constant_field_names: dict[int, list[str]]
    boundary_condition_types: list[str]
    n_files: int
    n_trajectories_per_file: list[int]
    n_steps_per_trajectory: list[int]
    grid_type: str = "cartesian"

    @property
    def n_scalars(self) -> int:
        """Time-varying scalars."""
        return len(self.scalar_names)

    @property
    def n_constant_scalars(self) -> int:
        """Scalars constant in time."""
        return len(self.constant_scalar_names)

    @property
    def n_fields(self) -> int:
        """Channels of `input_fields` and `output_fields`."""
        return sum(map(len, self.field_names.values()))

    @property
    def n_constant_fields(self) -> int:
        """Channels of `constant_fields`."""
        return sum(map(len, self.constant_field_names.values()))

    @property
    def sample_shapes(self) -> dict[str, list[int]]:
        """Shape of each sample key without its time axis."""
        return {
            "input_fields": [*self.spatial_resolution, self.n_fields],
            "output_fields": [*self.spatial_resolution, self.n_fields],
            "constant_fields": [*self.spatial_resolution, self.n_constant_fields],
            "input_scalars": [self.n_scalars],
            "output_scalars": [self.n_scalars],
            "constant_scalars": [self.n_constant_scalars],
            "space_grid": [*self.spatial_resolution, self.n_spatial_dims],
        }


# Sample keys whose first axis is the output steps: the ones that differ in length between rollouts.
OUTPUT_KEYS = ("output_fields", "output_scalars", "output_time_grid")


def pad_rollouts(samples: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Samples of unequal rollout length, padded with NaN to the longest so that they can be stacked.

    Adds `output_mask`, bool, axis (output step): true where the step is real.
    """
    arrays = [next(array for key in OUTPUT_KEYS for array in _arrays(sample.get(key))) for sample in samples]
    longest = max(map(len, arrays))
    padded = []
    for sample, array in zip(samples, arrays, strict=True):
        result = dict(sample)
        for key in OUTPUT_KEYS:
            if key in sample:
                result[key] = _padded(sample[key], longest)
        result["output_mask"] = from_numpy(np.arange(longest) < len(array), framework_of(array))
        padded.append(result)
    return padded


def _arrays(value: Any) -> Iterator[Array]:
    """An array, or every array in nested mappings; none in None."""
    if isinstance(value, Mapping):
        for part in value.values():
            yield from _arrays(part)
    elif value is not None:
        yield value


def _padded(value: Any, longest: int) -> Any:
    """An array, or every array in nested mappings, with NaN after its steps up to `longest`."""
    if isinstance(value, Mapping):
        return {key: _padded(part, longest) for key, part in value.items()}
    if len(value) == longest:
        return value
    values = to_numpy(value)
    dtype = values.dtype if values.dtype.kind == "f" else np.dtype(np.float64)
    filled = np.full((longest, *values.shape[1:]), np.nan, dtype=dtype)
    filled[: len(values)] = values
    return like(filled, value)


# Keys of a sample, in the order they are delivered.
SAMPLE_KEYS = (
    "input_fields",
    "output_fields",
    "constant_fields",
    "input_scalars",
    "output_scalars",
    "constant_scalars",
    "boundary_conditions",
    "space_grid",
    "input_time_grid",
    "output_time_grid",
)


class FieldViews(dict[int, dict[str, Array]]):
    """Fields by tensor order and name, as views of one channels-last buffer.

    Remembers the buffer: as long as no entry was replaced, it already is the flattened form, also after writes
    in place.
    """

    def __init__(self, buffer: Array, channels: Sequence[Channel]) -> None:
        super().__init__({0: {}, 1: {}, 2: {}})
        for channel in channels:
            view = buffer[..., channel.first : channel.first + channel.size]
            view = view.reshape(*view.shape[:-1], *channel.component_shape)
            self[channel.field.order][channel.field.name] = view
        self._buffer = buffer if channels else None
        self._views = self._entries()

    def _entries(self) -> list[tuple[str, Array]]:
        return [entry for fields in self.values() for entry in fields.items()]

    def buffer(self) -> Array | None:
        """The buffer, if every entry still is the view it was made as; else None."""
        entries = self._entries()
        same = len(entries) == len(self._views) and all(
            name == name_before and view is before
            for (name, view), (name_before, before) in zip(entries, self._views, strict=True)
        )
        return self._buffer if same else None


def flatten_fields(fields: Mapping[int, Mapping[str, Array]]) -> Array | None:
    """Fields side by side along one channel axis, by tensor order: (..., channel); None where there are none."""
    if isinstance(fields, FieldViews) and (buffer := fields.buffer()) is not None:
        return buffer
    parts = [
        field.reshape(*field.shape[: field.ndim - order], -1)
        for order, named in fields.items()
        for field in named.values()
    ]
    return concatenate(parts, axis=-1) if parts else None


def flatten_scalars(scalars: Mapping[str, Array]) -> Array | None:
    """Scalars side by side along a last axis; None where there are none."""
    if not scalars:
        return None
    values = [to_numpy(value) for value in scalars.values()]
    dtype = promoted(value.dtype for value in values)
    return like(np.stack([value.astype(dtype) for value in values], axis=-1), next(iter(scalars.values())))


def promoted(dtypes: Iterable[np.dtype[Any]]) -> np.dtype[Any]:
    """The dtype that holds all, by torch's rule: floats win over integers without growing."""
    all_types = list(dtypes)
    floats = [dtype for dtype in all_types if dtype.kind == "f"]
    return np.result_type(*(floats or all_types))


def construct_sample(data: Mapping[str, Any], n_steps_input: int) -> dict[str, Any]:
    """Input and output steps apart; keys that would be empty left out."""
    pieces: dict[str, Any] = {key: data[key] for key in SAMPLE_KEYS if key in data}
    for key, inputs, outputs in (
        ("variable_fields", "input_fields", "output_fields"),
        ("variable_scalars", "input_scalars", "output_scalars"),
        ("time_grid", "input_time_grid", "output_time_grid"),
    ):
        if data.get(key) is not None:
            pieces[inputs] = _sliced(data[key], slice(None, n_steps_input))
            pieces[outputs] = _sliced(data[key], slice(n_steps_input, None))
    return {key: pieces[key] for key in SAMPLE_KEYS if not _is_empty(pieces.get(key))}


def _sliced(value: Any, steps: slice) -> Any:
    """Steps of an array, or of every array in nested mappings."""
    if isinstance(value, Mapping):
        return {key: _sliced(part, steps) for key, part in value.items()}
    return value[steps]


def _is_empty(value: Any) -> bool:
    if value is None:
        return True
    if isinstance(value, Mapping):
        return all(_is_empty(part) for part in value.values())
    return 0 in value.shape
