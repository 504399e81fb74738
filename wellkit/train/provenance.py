"""What a number was made with: code version, hardware, time."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import torch

import wellkit


@cache
def code_version() -> str:
    """wellkit's version; from a git checkout also its commit, with "-dirty" where files were changed."""
    root = Path(wellkit.__file__).resolve().parents[1]
    if not (root / ".git").exists():
        return wellkit.__version__
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return wellkit.__version__
    return f"{wellkit.__version__}+{found}"


def hardware(device: torch.device) -> str:
    """The processor or GPU that computes, in words."""
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)} (torch {torch.__version__})"
    return f"{_processor()}, {torch.get_num_threads()} of {os.cpu_count()} cores (torch {torch.__version__})"


@cache
def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()


def now() -> str:
    """The time in UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
