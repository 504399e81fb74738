"""What many shards have in common, as JSON: names, attributes, dtypes, shapes, chunk grids, codecs; no place, no value.

The shards of a dataset differ in where their chunks lie, in the content of small arrays, and in a few attributes of
the root group (the parameters of a simulation). The rest is written, parsed and kept once.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from wellkit.index.model import LAYOUTS, Attributes, Codec, ShardIndex


@dataclass(frozen=True)
class ArraySkeleton:
    """What an `ArrayIndex` says beside where the bytes lie; same names, same meaning."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    layout: Any
    chunk_shape: tuple[int, ...]
    codecs: tuple[Codec, ...]
    fill: bytes
    reason: str


@dataclass(frozen=True, eq=False)
class Skeleton:
    """One shard without places and values.

    Attributes:
        attributes: of every group and array, in the order of the file; the root's without those in `varying`.
        varying: names of root attributes whose values differ between the shards that share this skeleton.
        root_names: names of all root attributes, in the order of the file.
        arrays: in the order of the file.
    """

    attributes: Mapping[str, Attributes]
    varying: frozenset[str]
    root_names: tuple[str, ...]
    arrays: tuple[ArraySkeleton, ...]

    @classmethod
    def parse(cls, text: bytes) -> Skeleton:
        """From JSON. Raises ValueError, KeyError or TypeError where it is none of ours."""
        content = json.loads(text)
        root = content["root"]
        objects = content["objects"]
        attributes: dict[str, Attributes] = {
            "": {name: value_from_json(value) for name, value in root if value is not None}
        }
        arrays = []
        for path, attrs, array in objects:
            attributes[path] = attributes_from_json(attrs)
            if array is not None:
                arrays.append(_array_from_json(path, array))
        return cls(
            attributes,
            frozenset(name for name, value in root if value is None),
            tuple(name for name, _ in root),
            tuple(arrays),
        )


def split_skeletons(shards: list[ShardIndex]) -> tuple[list[bytes], list[int], list[bytes]]:
    """The skeletons of `shards`, the number of each shard's, and each shard's own root attributes; as JSON."""
    bodies = [_dump(_objects(shard)) for shard in shards]
    roots = [attributes_to_json(shard.attributes.get("", {})) for shard in shards]
    groups: dict[tuple[bytes, tuple[str, ...]], list[int]] = {}
    for number, (body, root) in enumerate(zip(bodies, roots, strict=True)):
        groups.setdefault((body, tuple(root)), []).append(number)
    skeletons: list[bytes] = []
    numbers = [0] * len(shards)
    own = [b""] * len(shards)
    for (body, names), members in groups.items():
        first = roots[members[0]]
        varying = [name for name in names if any(roots[member][name] != first[name] for member in members)]
        shared = [[name, None if name in varying else first[name]] for name in names]
        for member in members:
            numbers[member] = len(skeletons)
            if varying:
                own[member] = _dump({name: roots[member][name] for name in varying})
        skeletons.append(b'{"root":' + _dump(shared) + b',"objects":' + body + b"}")
    return skeletons, numbers, own


def own_attributes(text: bytes) -> Attributes:
    """A shard's own root attributes, from JSON."""
    return attributes_from_json(json.loads(text)) if text else {}


def _dump(content: Any) -> bytes:
    return json.dumps(content, separators=(",", ":"), allow_nan=False).encode("ascii")


def _objects(shard: ShardIndex) -> list[Any]:
    found = []
    for path, attributes in shard.attributes.items():
        if path == "":
            continue
        array = shard.arrays.get(path)
        described = None
        if array is not None:
            described = [
                array.dtype,
                list(array.shape),
                array.layout,
                list(array.chunk_shape),
                [list(codec) for codec in array.codecs],
                array.fill.hex(),
                array.reason,
            ]
        found.append([path, attributes_to_json(attributes), described])
    return found


def _array_from_json(name: str, described: list[Any]) -> ArraySkeleton:
    dtype, shape, layout, chunk_shape, codecs, fill, reason = described
    if layout not in LAYOUTS:
        raise ValueError(f"layout {layout!r} of {name}")
    np.dtype(dtype)
    return ArraySkeleton(
        name,
        tuple(shape),
        dtype,
        layout,
        tuple(chunk_shape),
        tuple(Codec(*codec) for codec in codecs),
        bytes.fromhex(fill),
        reason,
    )


def attributes_to_json(attributes: Attributes) -> dict[str, Any]:
    """Attributes of a `ShardIndex` as JSON; numbers keep every bit."""
    return {name: _value_to_json(value) for name, value in attributes.items()}


def attributes_from_json(content: Mapping[str, Any]) -> Attributes:
    """Reverse of `attributes_to_json`."""
    return {name: value_from_json(value) for name, value in content.items()}


def _value_to_json(value: Any) -> Any:
    if isinstance(value, str):
        return value
    if isinstance(value, np.ndarray) and value.dtype == object:
        return {"text": value.reshape(-1).tolist(), "shape": list(value.shape)}
    little = np.asarray(value).astype(value.dtype.newbyteorder("<"))
    content: dict[str, Any] = {"dtype": little.dtype.str, "bytes": little.tobytes().hex()}
    if isinstance(value, np.ndarray):
        content["shape"] = list(value.shape)
    return content


def value_from_json(content: Any) -> Any:
    """One attribute's value."""
    if isinstance(content, str):
        return content
    if "text" in content:
        texts = np.empty(content["shape"], dtype=object)
        texts.reshape(-1)[:] = content["text"]
        return texts
    values = np.frombuffer(bytes.fromhex(content["bytes"]), dtype=content["dtype"])
    return values.reshape(content["shape"]) if "shape" in content else values[0]
