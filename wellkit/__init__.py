"""wellkit: from public physics simulations to a score you can trust.

Public names are loaded when they are first used, so that `import wellkit` stays fast and imports none of torch,
h5py, numba, zarr, xarray or pyarrow.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wellkit.card_inference import infer_card
    from wellkit.datasets.delta import DeltaWellDataset
    from wellkit.datasets.well import WellDataset
    from wellkit.formats.well import BoundaryCondition
    from wellkit.formats.well_arrays import write_dataset
    from wellkit.integrity.download import download
    from wellkit.integrity.repair import repair
    from wellkit.integrity.verify import verify
    from wellkit.normalization import RMSNormalization, ZScoreNormalization

__version__ = "0.1.0"

# name -> (module, attribute); attribute None: the module itself
_PUBLIC: dict[str, tuple[str, str | None]] = {
    "catalog": ("wellkit.catalog", None),
    "augmentation": ("wellkit.augmentation", None),
    "metrics": ("wellkit.metrics", None),
    "errors": ("wellkit.errors", None),
    "download": ("wellkit.integrity.download", "download"),
    "verify": ("wellkit.integrity.verify", "verify"),
    "repair": ("wellkit.integrity.repair", "repair"),
    "WellDataset": ("wellkit.datasets.well", "WellDataset"),
    "DeltaWellDataset": ("wellkit.datasets.delta", "DeltaWellDataset"),
    "TrajectoryData": ("wellkit.datasets.samples", "TrajectoryData"),
    "TrajectoryMetadata": ("wellkit.datasets.samples", "TrajectoryMetadata"),
    "BoundaryCondition": ("wellkit.formats.well", "BoundaryCondition"),
    "ZScoreNormalization": ("wellkit.normalization", "ZScoreNormalization"),
    "RMSNormalization": ("wellkit.normalization", "RMSNormalization"),
    "DataLoader": ("wellkit.loaders.loader", "DataLoader"),
    "WellDataModule": ("wellkit.loaders.datamodule", "WellDataModule"),
    "generate": ("wellkit.generation.generate", "generate"),
    "write_dataset": ("wellkit.formats.well_arrays", "write_dataset"),
    "infer_card": ("wellkit.card_inference", "infer_card"),
    "compute_statistics": ("wellkit.statistics", "compute_statistics"),
    "validate": ("wellkit.validation.validate", "validate"),
}

__all__ = [
    "BoundaryCondition",
    "DataLoader",
    "DeltaWellDataset",
    "RMSNormalization",
    "TrajectoryData",
    "TrajectoryMetadata",
    "WellDataModule",
    "WellDataset",
    "ZScoreNormalization",
    "__version__",
    "augmentation",
    "catalog",
    "compute_statistics",
    "download",
    "errors",
    "generate",
    "infer_card",
    "metrics",
    "repair",
    "validate",
    "verify",
    "write_dataset",
]


def __getattr__(name: str) -> Any:
    try:
        module_name, attribute = _PUBLIC[name]
    except KeyError:
        raise AttributeError(f"module 'wellkit' has no attribute {name!r}") from None
    module = importlib.import_module(module_name)
    value = module if attribute is None else getattr(module, attribute)
    globals()[name] = value  # next time without this function
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
