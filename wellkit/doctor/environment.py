"""Versions, processors and GPUs. Nothing is imported for it: a broken installation is told of, not fallen over."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata

from rich.filesize import decimal

from wellkit import __version__
from wellkit.doctor.finding import Finding

SECTION = "environment"
REQUIRED = ("numpy", "h5py", "numba", "fsspec", "aiohttp", "huggingface_hub", "pydantic", "numcodecs", "deflate")
OPTIONAL = {"torch": "torch", "zarr": "zarr", "xarray": "zarr", "jax": "jax", "accelerate": "train"}
_OLDEST_PYTHON = (3, 11)
_SECONDS = 5.0  # nvidia-smi hangs where a driver does


def examine_environment() -> Iterator[Finding]:
    """Versions of wellkit, Python and libraries, then processors, memory and GPUs."""
    yield Finding(SECTION, "wellkit", "ok", __version__)
    version = platform.python_version()
    if sys.version_info[:2] < _OLDEST_PYTHON:
        yield Finding(SECTION, "python", "broken", version, "install Python 3.11 or newer")
    else:
        yield Finding(SECTION, "python", "ok", f"{version} ({sys.executable})")
    yield Finding(SECTION, "system", "ok", f"{platform.system()} {platform.release()} {platform.machine()}")
    for name in REQUIRED:
        found = _version(name)
        if found is None:
            yield Finding(SECTION, name, "broken", "not installed", f"pip install {name}")
        else:
            yield Finding(SECTION, name, "ok", found)
    for name, extra in OPTIONAL.items():
        found = _version(name)
        if found is None:
            yield Finding(SECTION, name, "note", f"not installed (optional: pip install 'wellkit[{extra}]')")
        else:
            yield Finding(SECTION, name, "ok", found)
    yield Finding(SECTION, "processors", "ok", f"{_cores()} cores, {_memory()} of memory")
    yield _gpus()


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _memory() -> str:
    try:
        return decimal(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (ValueError, OSError, AttributeError):
        return "an unknown amount"


def _gpus() -> Finding:
    query = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=_SECONDS, check=False)
    except FileNotFoundError:
        return Finding(SECTION, "GPU", "note", "none found (no nvidia-smi)")
    except (OSError, subprocess.TimeoutExpired) as error:
        reason = f"gave no answer in {_SECONDS:g} s" if isinstance(error, subprocess.TimeoutExpired) else str(error)
        return Finding(SECTION, "GPU", "warning", f"nvidia-smi {reason}", "look at the driver: run nvidia-smi")
    found = [" ".join(line.split()) for line in done.stdout.splitlines() if line.strip()]
    if done.returncode or not found:
        return Finding(SECTION, "GPU", "note", "none found")
    torch = _version("torch")
    value = "; ".join(found)
    if torch is not None and "+cpu" in torch:
        advice = "install a torch that is built for CUDA: https://pytorch.org/get-started/locally"
        return Finding(SECTION, "GPU", "warning", f"{value}; torch {torch} cannot use it", advice)
    return Finding(SECTION, "GPU", "ok", value)
