"""Zarr twins of HDF5 shards and trees: the same groups, attributes and values in another format."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np
import zarr


def plain(value: Any) -> Any:
    """An HDF5 attribute as JSON has it."""
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, np.ndarray):
        return [plain(item) for item in value.tolist()]
    return value.item() if isinstance(value, np.generic) else value


def hdf5_to_zarr(
    path: Path,
    out: Path,
    zarr_format: Literal[2, 3] = 3,
    *,
    sharded: bool = False,
    consolidated: bool = True,
    compressors: Any = "auto",
    index_location: str = "end",
    **options: Any,
) -> Path:
    """Write `path` as the group `out`, in chunks that divide no axis evenly; with `sharded`, two chunks a shard.

    `options` are those of zarr's `create_array`, for each array of float32.
    """
    with h5py.File(path, "r") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore", zarr.errors.ZarrUserWarning)  # consolidated metadata of format 3 are new
        root = zarr.open_group(str(out), mode="w-", zarr_format=zarr_format)
        root.attrs.update({key: plain(value) for key, value in file.attrs.items()})

        def copy(name: str, item: Any) -> None:
            attributes = {key: plain(value) for key, value in item.attrs.items()}
            if isinstance(item, h5py.Group):
                root.require_group(name).attrs.update(attributes)
                return
            values = np.asarray(item[()])
            chunks = tuple(min(size, 3 + axis % 2) for axis, size in enumerate(values.shape))
            array = root.create_array(
                name,
                shape=values.shape,
                dtype=values.dtype,
                chunks=chunks,
                shards=_shards(chunks, index_location) if sharded and chunks else None,
                compressors=compressors,
                **(options if values.dtype == np.float32 else {}),
                attributes=attributes,
            )
            array[...] = values

        file.visititems(copy)
        if consolidated:
            zarr.consolidate_metadata(root.store, zarr_format=zarr_format)
    return out


def _shards(chunks: tuple[int, ...], index_location: str) -> Any:
    return {"shape": tuple(2 * size for size in chunks), "index_location": index_location}


def zarr_twin(tree: Path, out: Path, zarr_format: Literal[2, 3] = 3, *, sharded: bool = False) -> Path:
    """The tree `tree` (with `data/<split>/*.hdf5`) as `out`, each shard a Zarr group."""
    for shard in sorted(tree.glob("data/*/*.hdf5")):
        folder = out / shard.parent.relative_to(tree)
        folder.mkdir(parents=True, exist_ok=True)
        hdf5_to_zarr(shard, folder / f"{shard.stem}.zarr", zarr_format, sharded=sharded)
    shutil.copy(tree / "stats.yaml", out / "stats.yaml")
    return out
