"""How the solvers' kernels are compiled: numba, without the interpreter lock, kept on disk between runs."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numba

from wellkit.settings import cache_dir

Function = Callable[..., Any]
_config: Any = numba.config

# What a compiler may assume: sums may be reordered and fused, but NaN and infinity keep their meaning, so that a
# run that went wrong is seen.
_RELAXED = {"contract", "nsz", "arcp"}


def _sources_digest() -> str:
    """A digest of every kernel's source: numba sees a change of a kernel's own file, not of those it calls."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*_kernels.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _can_write(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK | os.X_OK)


@cache
def compiled_folder() -> Path | None:
    """Where compiled code is kept: beside the package, else in the user's cache; None where neither is writable."""
    name = f"kernels-{_sources_digest()}"
    folders = (Path(__file__).parent / "__pycache__" / name, cache_dir() / "numba" / name)
    return next((folder for folder in folders if _can_write(folder)), None)


def kernel(function: Function) -> Function:
    """Compile a function on its first call; never parallel: trajectories are what runs side by side."""
    folder = compiled_folder()
    others = _config.CACHE_DIR
    if folder is not None:
        _config.CACHE_DIR = str(folder)
    try:
        return numba.njit(function, nogil=True, cache=folder is not None, fastmath=_RELAXED, error_model="numpy")
    finally:
        _config.CACHE_DIR = others


def inlined(function: Function) -> Function:
    """Compile a function of scalars into its callers, so that their loops become vector code."""
    return numba.njit(function, inline="always", fastmath=_RELAXED, error_model="numpy")
