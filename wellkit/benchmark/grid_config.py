"""Grids from a TOML file and the command line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from wellkit.errors import ConfigError, DocumentError, DocumentVersionError
from wellkit.schemas.benchmark import BenchmarkConfig
from wellkit.train.config import apply_override, read_toml


def load_grid(
    path: str | Path | None = None,
    *,
    values: Mapping[str, Any] | None = None,
    training: Mapping[str, Any] | None = None,
    overrides: Sequence[str] = (),
) -> BenchmarkConfig:
    """A grid from a file, then `values`, then training keys; later ones win.

    Args:
        path: a TOML file that begins with `schema = "wellkit/benchmark-config/1"`; None for none.
        values: keys of the grid; None leaves a key as it is.
        training: keys of the training of all models; None leaves a key as it is.
        overrides: `key=value` for the training of all models, as `wellkit.train.load_config` takes them.

    Raises:
        DataNotFoundError: the file is missing.
        DocumentVersionError: its `schema` is missing or of another version.
        ConfigError: it is no TOML, a key is unknown (near matches are named), or a value cannot be used.
    """
    content: dict[str, Any] = {"schema": BenchmarkConfig.schema_name()} if path is None else read_toml(Path(path))
    content |= {key: value for key, value in (values or {}).items() if value is not None}
    told = content.get("training", {})
    if not isinstance(told, Mapping):
        raise ConfigError(f"{path}: 'training' is a {type(told).__name__}; give a table [training]")
    keys = dict(told) | {k: v for k, v in (training or {}).items() if v is not None}
    for override in overrides:
        apply_override(keys, override)
    if keys:
        content["training"] = keys
    try:
        return BenchmarkConfig.parse(content, source=str(path) if path is not None else "grid")
    except DocumentVersionError:
        raise
    except DocumentError as error:
        raise ConfigError(str(error)) from error
