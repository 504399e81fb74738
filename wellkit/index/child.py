"""The process that parses files one cannot trust: `python -m wellkit.index.child`, requests in, indexes out.

A request is one line of JSON: {"path", "seconds", "inline_limit"}, and for a file of which only pieces are at hand
{"size", "pieces": [[start, length], ...], "fingerprint"} too, with the pieces' bytes behind the line. An answer is 9
bytes, "i", "m" or "e" and the length of what follows (uint64, little-endian): a packed index, a JSON list of missing
pieces [start, stop, rank], or an error as JSON {"kind", "message"}. Nothing is pickled: what a parser says after
reading a hostile file is itself to be doubted.

With {"path", "seconds", "array", "selection"} it is asked for values that only libhdf5 can read; the answer is "v": a
line of JSON {"dtype", "shape"}, then the elements in C order, little-endian.
"""

from __future__ import annotations

import json
import resource
import signal
import struct
import sys
from contextlib import suppress
from typing import Any, BinaryIO

import h5py
import numpy as np

from wellkit.errors import WellkitError
from wellkit.index.columns import pack
from wellkit.index.hdf5 import index_shard, index_source
from wellkit.index.source import PiecesSource

ANSWER = struct.Struct("<cQ")
INDEX, MISSING, ERROR, VALUES = b"i", b"m", b"e", b"v"
_GRACE = 5.0  # seconds after which this process ends itself, should its parent be gone
_MEMORY = 8 << 30  # bytes of address space beyond which a damaged size is an error, not an exhausted machine


def serve(requests: BinaryIO, answers: BinaryIO) -> None:
    """Answer requests until there are no more."""
    for line in requests:
        request = json.loads(line)
        signal.setitimer(signal.ITIMER_REAL, request["seconds"] + _GRACE)  # SIGALRM ends a process that hangs in C
        kind, content = _answer(request, requests)
        signal.setitimer(signal.ITIMER_REAL, 0)
        answers.write(ANSWER.pack(kind, len(content)) + content)
        answers.flush()


def _answer(request: dict[str, Any], requests: BinaryIO) -> tuple[bytes, bytes]:
    """Kind and content of the answer; the pieces are taken from behind the request."""
    if "array" in request:
        return _values(request)
    source = None
    if "pieces" in request:
        pieces = [(start, requests.read(length)) for start, length in request["pieces"]]
        source = PiecesSource(request["path"], request["size"], pieces, with_fingerprint=request["fingerprint"])
    try:
        if source is None:
            found = index_shard(request["path"], inline_limit=request["inline_limit"], verify=True)
        else:
            found = index_source(source, inline_limit=request["inline_limit"], verify=True)
        kind, content = INDEX, pack({"shard": found})
    except WellkitError as error:
        kind, content = ERROR, json.dumps({"kind": type(error).__name__, "message": str(error)}).encode()
    if source is not None and source.missing:  # whatever came of it, it came of a part
        kind, content = MISSING, json.dumps(source.missing).encode()
    return kind, content


def _values(request: dict[str, Any]) -> tuple[bytes, bytes]:
    path, name = request["path"], request["array"]
    chosen = tuple(slice(*part) if isinstance(part, list) else part for part in request["selection"])
    try:
        with h5py.File(path, "r") as file:
            values = np.asarray(file[name][chosen])
        if values.dtype.kind not in "fiub":
            raise ValueError(f"holds {values.dtype}, not numbers")
        little = values.astype(values.dtype.newbyteorder("<"), copy=False)
        head = json.dumps({"dtype": little.dtype.str, "shape": little.shape}).encode()
        return VALUES, head + b"\n" + little.tobytes()
    except (OSError, RuntimeError, KeyError, TypeError, ValueError, OverflowError, MemoryError, SystemError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        told = f"{path}: array {name!r} cannot be read ({reason}); it is damaged: delete it and download it again"
        return ERROR, json.dumps({"kind": "ShardError", "message": told}).encode()


def _limit_memory() -> None:
    with suppress(ValueError, OSError):  # the caller's own limit is lower
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, hard))


if __name__ == "__main__":
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    _limit_memory()
    serve(sys.stdin.buffer, sys.stdout.buffer)
