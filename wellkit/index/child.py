"""The process that parses files one cannot trust: `python -m wellkit.index.child`, requests in, indexes out.

A request is one line of JSON: {"path", "seconds", "inline_limit"}. An answer is 9 bytes, "i" or "e" and the length of
what follows (uint64, little-endian): a packed index, or an error as JSON {"kind", "message"}. Nothing is pickled: what
a parser says after reading a hostile file is itself to be doubted.
"""

from __future__ import annotations

import json
import resource
import signal
import struct
import sys
from contextlib import suppress
from typing import BinaryIO

from wellkit.errors import WellkitError
from wellkit.index.columns import pack
from wellkit.index.hdf5 import index_shard

ANSWER = struct.Struct("<cQ")
INDEX, ERROR = b"i", b"e"
_GRACE = 5.0  # seconds after which this process ends itself, should its parent be gone
_MEMORY = 8 << 30  # bytes of address space beyond which a damaged size is an error, not an exhausted machine


def serve(requests: BinaryIO, answers: BinaryIO) -> None:
    """Answer requests until there are no more."""
    for line in requests:
        request = json.loads(line)
        signal.setitimer(signal.ITIMER_REAL, request["seconds"] + _GRACE)  # SIGALRM ends a process that hangs in C
        try:
            found = index_shard(request["path"], inline_limit=request["inline_limit"], verify=True)
            kind, content = INDEX, pack({"shard": found})
        except WellkitError as error:
            kind, content = ERROR, json.dumps({"kind": type(error).__name__, "message": str(error)}).encode()
        signal.setitimer(signal.ITIMER_REAL, 0)
        answers.write(ANSWER.pack(kind, len(content)) + content)
        answers.flush()


def _limit_memory() -> None:
    with suppress(ValueError, OSError):  # the caller's own limit is lower
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, hard))


if __name__ == "__main__":
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    _limit_memory()
    serve(sys.stdin.buffer, sys.stdout.buffer)
