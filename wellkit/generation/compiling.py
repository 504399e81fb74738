"""How the solvers' kernels are compiled: as the readers', with sums that may be reordered."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numba

from wellkit.compiled import Function, compile_kernel, compiled_folder

# What a compiler may assume: sums may be reordered and fused, but NaN and infinity keep their meaning, so that a
# run that went wrong is seen.
_RELAXED = {"contract", "nsz", "arcp"}


@cache
def _folder() -> Path | None:
    # One digest over all kernels: numba sees a change of a kernel's own file, not of those it calls.
    return compiled_folder(sorted(Path(__file__).parent.glob("*_kernels.py")))


def kernel(function: Function) -> Function:
    """Compile a function on its first call; never parallel: trajectories are what runs side by side."""
    return compile_kernel(function, _folder(), relaxed=_RELAXED)


def inlined(function: Function) -> Function:
    """Compile a function of scalars into its callers, so that their loops become vector code."""
    compiled: Function = numba.njit(function, inline="always", fastmath=_RELAXED, error_model="numpy")
    return compiled
