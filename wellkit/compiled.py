"""How kernels are compiled: numba, without the interpreter lock, kept on disk between runs. Imports numba."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import numba

from wellkit.settings import cache_dir

Function = Callable[..., Any]


def _can_write(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK | os.X_OK)


def compiled_folder(sources: Sequence[Path]) -> Path | None:
    """Where code compiled from `sources` is kept: beside them, else in the user's cache; None if neither is writable.

    The folder's name holds a digest of the sources: file times, which numba goes by, may be the same in two releases.
    """
    own = Path(__file__).read_bytes()  # how it is compiled counts too
    digest = hashlib.sha256(own + b"".join(path.read_bytes() for path in sources)).hexdigest()[:16]
    name = f"kernels-{digest}"
    folders = (sources[0].parent / "__pycache__" / name, cache_dir() / "numba" / name)
    return next((folder for folder in folders if _can_write(folder)), None)


def compile_kernel(function: Function, folder: Path | None, *, relaxed: Collection[str] = ()) -> Function:
    """Compile on the first call, without the interpreter lock; kept in `folder`.

    Never parallel: numba's threads do not survive a fork.

    Args:
        relaxed: what the compiler may assume of floats (LLVM's fast-math flags); nothing, IEEE arithmetic, by default.
    """
    config: Any = numba.config
    others = config.CACHE_DIR
    if folder is not None:
        config.CACHE_DIR = str(folder)
    try:
        return numba.njit(function, nogil=True, cache=folder is not None, fastmath=set(relaxed), error_model="numpy")
    finally:
        config.CACHE_DIR = others
