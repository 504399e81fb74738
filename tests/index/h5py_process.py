"""Reads whole files through h5py in a process of its own: `python h5py_process.py`, paths in, digests out.

libhdf5 may crash or hang on a damaged file; the tests that compare with it must not.
"""

from __future__ import annotations

import hashlib
import json
import signal
import sys

import h5py
import numpy as np


def digests(path: str) -> dict[str, str]:
    """sha1 of every array's little-endian bytes by name, or "error: ..."; under "" where the file cannot be opened."""
    found: dict[str, str] = {}
    try:
        with h5py.File(path, "r") as file:
            _add(found, file, "", 0)
    except Exception as error:
        found[""] = f"error: {error}"
    return found


def _add(found: dict[str, str], group: h5py.Group, path: str, depth: int) -> None:
    for name in group:
        text = name if isinstance(name, str) else name.decode("utf-8", "backslashreplace")
        key = f"{path}/{text}".lstrip("/")
        try:
            stored = group[name]
            if isinstance(stored, h5py.Dataset):
                values = np.asarray(stored[()])
                if values.dtype.kind in "fiu":
                    values = values.astype(values.dtype.newbyteorder("<"))
                found[key] = hashlib.sha1(values.tobytes(), usedforsecurity=False).hexdigest()
            elif isinstance(stored, h5py.Group) and depth < 3:
                _add(found, stored, key, depth + 1)
        except Exception as error:
            found[key] = f"error: {error}"


if __name__ == "__main__":
    for line in sys.stdin:
        signal.alarm(5)
        answer = json.dumps(digests(line.rstrip("\n")))
        signal.alarm(0)
        sys.stdout.write(answer + "\n")
        sys.stdout.flush()
