"""What a dataset says of itself, under the names the_well gives it."""

from __future__ import annotations

import math

from wellkit.datasets.samples import WellMetadata
from wellkit.datasets.tree import ShardTree


class Described:
    """Read-only views of `metadata` and of the shards' layouts."""

    metadata: WellMetadata
    n_steps_input: int
    n_steps_output: int
    _tree: ShardTree

    @property
    def core_field_names(self) -> list[str]:
        """Names of the time-varying fields as stored ("velocity", not its components), in channel order."""
        return list(self._tree.variable)

    @property
    def core_constant_field_names(self) -> list[str]:
        """Names of the constant fields as stored, in channel order."""
        return list(self._tree.constant)

    @property
    def field_names(self) -> dict[int, list[str]]:
        """Component names of the time-varying fields by tensor order."""
        return self.metadata.field_names

    @property
    def constant_field_names(self) -> dict[int, list[str]]:
        """Component names of the constant fields by tensor order."""
        return self.metadata.constant_field_names

    @property
    def sample_nbytes(self) -> int:
        """Bytes of a sample's fields, as float32; of the longest where samples differ."""
        points = math.prod(self.metadata.spatial_resolution)
        n_steps = self.n_steps_input + self.n_steps_output
        return 4 * points * (self.metadata.n_fields * n_steps + self.metadata.n_constant_fields)

    @property
    def n_spatial_dims(self) -> int:
        """1, 2 or 3."""
        return self.metadata.n_spatial_dims

    @property
    def size_tuple(self) -> tuple[int, ...]:
        """Grid points along each spatial axis."""
        return self.metadata.spatial_resolution

    @property
    def n_files(self) -> int:
        """Shards in use."""
        return self.metadata.n_files

    @property
    def n_trajectories_per_file(self) -> list[int]:
        """Trajectories in each shard."""
        return self.metadata.n_trajectories_per_file

    @property
    def n_steps_per_trajectory(self) -> list[int]:
        """Frames of each shard's trajectories."""
        return self.metadata.n_steps_per_trajectory

    @property
    def scalar_names(self) -> list[str]:
        """Time-varying scalars."""
        return self.metadata.scalar_names

    @property
    def constant_scalar_names(self) -> list[str]:
        """Scalars constant in time."""
        return self.metadata.constant_scalar_names

    @property
    def generator(self) -> str | None:
        """Who simulated the data, where wellkit did; None for published data."""
        return self._tree.layouts[0].generator
