"""What the process and the accelerator hold."""

from __future__ import annotations

import resource
from pathlib import Path

import torch

from app.jobs.events import Memory

KIBIBYTE = 1024


def memory_now(layer: int | None = None) -> Memory:
    """What is held now and was held at most, from the kernel and from torch."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * KIBIBYTE
    on_device, device_peak = _device_memory()
    return Memory(
        layer=layer,
        resident_bytes=pages * resource.getpagesize(),
        resident_peak_bytes=peak,
        device_bytes=on_device,
        device_peak_bytes=device_peak,
    )


def _device_memory() -> tuple[int, int]:
    if not torch.accelerator.is_available():
        return 0, 0
    return torch.accelerator.memory_allocated(), torch.accelerator.max_memory_allocated()
