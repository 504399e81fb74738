"""Attributes as they really come: numpy booleans, bytes, vlen strings, a bare string for a list of one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from wellkit.errors import FormatError

_MISSING = object()


def _get(attrs: Mapping[str, Any], name: str, where: str) -> Any:
    try:
        return attrs[name]
    except KeyError:
        raise FormatError(f"{where} has no attribute {name!r}, which a Well shard needs") from None


def _as_text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="replace")
    return str(value)


def text(attrs: Mapping[str, Any], name: str, where: str) -> str:
    """A string attribute; bytes are decoded, an array of one is unwrapped."""
    value = _get(attrs, name, where)
    if isinstance(value, np.ndarray):
        if value.size != 1:
            raise FormatError(f"{where} attribute {name!r} holds {value.size} values; expected one string")
        value = value.reshape(-1)[0]
    return _as_text(value)


def names(attrs: Mapping[str, Any], name: str, where: str) -> tuple[str, ...]:
    """A list of names; a bare string is a list of one."""
    value = _get(attrs, name, where)
    if isinstance(value, str | bytes):
        return (_as_text(value),)
    items = np.asarray(value).reshape(-1) if not isinstance(value, list | tuple) else value
    return tuple(_as_text(item) for item in items)


def number(attrs: Mapping[str, Any], name: str, where: str) -> int:
    """A whole number from 0 up."""
    value = _get(attrs, name, where)
    try:
        result = int(np.asarray(value).reshape(()))
    except (TypeError, ValueError):
        raise FormatError(f"{where} attribute {name!r} is {value!r}; expected a whole number") from None
    if result < 0:
        raise FormatError(f"{where} attribute {name!r} is {result}; expected a number from 0 up")
    return result


def flag(attrs: Mapping[str, Any], name: str, where: str, *, default: bool | None = None) -> bool:
    """A boolean, in any of the forms HDF5 writers use."""
    value = attrs.get(name, _MISSING)
    if value is _MISSING:
        if default is None:
            raise FormatError(f"{where} has no attribute {name!r}, which a Well shard needs")
        return default
    return bool(flags({name: value}, name, where, 1)[0])


def flags(attrs: Mapping[str, Any], name: str, where: str, count: int) -> tuple[bool, ...]:
    """`count` booleans."""
    values = np.asarray(_get(attrs, name, where)).reshape(-1)
    if values.size != count or values.dtype.kind not in "biu":
        raise FormatError(f"{where} attribute {name!r} is {values.tolist()!r}; expected {count} booleans")
    return tuple(bool(value) for value in values)
