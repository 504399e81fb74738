"""Training configurations from a TOML file and `key=value` overrides."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from wellkit.errors import ConfigError, DataNotFoundError, DocumentError, DocumentVersionError
from wellkit.schemas.training import TrainConfig


def load_config(
    path: str | Path | None = None,
    *,
    overrides: Sequence[str] = (),
    values: Mapping[str, Any] | None = None,
) -> TrainConfig:
    """A configuration from a file, then `values`, then `overrides`; later ones win.

    Args:
        path: a TOML file that begins with `schema = "wellkit/train-config/1"`; None for none.
        overrides: `key=value`, the value as in TOML (a bare word is text), dots reach into tables:
            `learning_rate=5e-4`, `model_arguments.hidden_channels=32`.
        values: keys already parsed; None leaves a key as it is. `model_arguments` of another `model` than the
            file's are not taken over from the file.

    Raises:
        DataNotFoundError: the file is missing.
        DocumentVersionError: its `schema` is missing or of another version.
        ConfigError: the file is no TOML, a key is unknown (near matches are named), or a value cannot be
            used.
    """
    content: dict[str, Any] = {"schema": TrainConfig.schema_name()} if path is None else read_toml(Path(path))
    sources = [str(path)] if path is not None else []
    given = {key: value for key, value in (values or {}).items() if value is not None}
    if "model" in given and given["model"] != content.get("model", given["model"]):
        content.pop("model_arguments", None)
    content |= given
    for override in overrides:
        apply_override(content, override)
        sources.append(override)
    try:
        return TrainConfig.parse(content, source=", ".join(sources) or "configuration")
    except DocumentVersionError:
        raise
    except DocumentError as error:
        raise ConfigError(str(error)) from error


def read_toml(path: Path) -> dict[str, Any]:
    """The content of a configuration file.

    Raises:
        DataNotFoundError: it is missing.
        ConfigError: it cannot be read, or is no TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataNotFoundError(f"{path}: no such configuration file") from error
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not a TOML file: {error}") from error


def apply_override(content: dict[str, Any], override: str) -> None:
    """Put `key=value` into nested content; see `load_config`. Raises ConfigError where it is not of that form."""
    key, equals, text = override.partition("=")
    steps = [step.strip() for step in key.split(".")]
    if not equals or not all(steps):
        raise ConfigError(f"override {override!r} is not of the form key=value, e.g. learning_rate=5e-4")
    table = content
    for number, step in enumerate(steps[:-1], start=1):
        inner = table.get(step, {})
        if not isinstance(inner, Mapping):
            raise ConfigError(f"override {override!r}: {'.'.join(steps[:number])} is a value, not a table")
        table[step] = dict(inner)
        table = table[step]
    table[steps[-1]] = _value(text.strip())


def _value(text: str) -> Any:
    """`text` read as a TOML value, or as it stands where it is none (so that words need no quotes)."""
    try:
        parsed = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    return parsed["value"] if len(parsed) == 1 else text
