"""Energy as the machine's own counters tell it: processors by RAPL, NVIDIA GPUs by NVML. Unknown is told as unknown."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path

import torch

POWERCAP = Path("/sys/class/powercap")


class EnergyMeter:
    """Joules used since it was made.

    Processor packages are counted by the machine's RAPL counters, everything that runs on them included; a GPU by
    NVML's counter of the whole board. Read at least once an hour or so: RAPL counters wrap around.

    Args:
        device: its energy is counted where it is a CUDA GPU.
        processors: count those of this machine, too (one process of a machine should).
        powercap: where the kernel shows RAPL counters.
    """

    def __init__(self, device: torch.device, *, processors: bool = True, powercap: Path = POWERCAP) -> None:
        # Packages alone (intel-rapl:0): their parts (intel-rapl:0:1) are in them already.
        zones = sorted(powercap.glob("intel-rapl:*")) if processors else []
        self._packages = [
            zone for zone in zones if zone.name.count(":") == 1 and _number(zone / "energy_uj") is not None
        ]
        self._last = [_number(zone / "energy_uj") for zone in self._packages]
        self._gpu = _gpu_counter(device)
        self._last_gpu = self._gpu() if self._gpu is not None else None
        self._joules = 0.0

    def joules(self) -> float | None:
        """Joules so far, or None where no counter can be read."""
        for place, zone in enumerate(self._packages):
            before, now = self._last[place], _number(zone / "energy_uj")
            if before is None or now is None:
                continue
            if now < before:
                before -= _number(zone / "max_energy_range_uj") or before
            self._joules += (now - before) / 1e6
            self._last[place] = now
        if self._gpu is not None and self._last_gpu is not None:
            current = self._gpu()
            if current is not None:
                self._joules += current - self._last_gpu
                self._last_gpu = current
        return self._joules if self._packages or self._gpu is not None else None


def _number(file: Path) -> int | None:
    try:
        return int(file.read_text())
    except (OSError, ValueError):  # since 2020 kernels show the counters to root alone
        return None


def _gpu_counter(device: torch.device) -> Callable[[], float | None] | None:
    """A function that gives the joules a GPU has used since its driver was loaded; None where nothing tells."""
    if device.type != "cuda":
        return None
    try:
        nvml = importlib.import_module("pynvml")
    except ImportError:
        return None
    try:
        nvml.nvmlInit()
        # By its own name: CUDA may number fewer GPUs than there are.
        uuid = torch.cuda.get_device_properties(device).uuid
        handle = nvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")
    except (nvml.NVMLError, AttributeError):
        return None

    def joules() -> float | None:
        try:
            return float(nvml.nvmlDeviceGetTotalEnergyConsumption(handle)) / 1000
        except nvml.NVMLError:
            return None

    return joules if joules() is not None else None
