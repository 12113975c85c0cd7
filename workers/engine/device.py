"""Where the engine computes, with how many threads, and in which dtype."""

from __future__ import annotations

import ctypes
import gc
import os
from dataclasses import dataclass

import psutil
import torch

from workers.engine.cgroups import memory_limit

LIBC = ctypes.CDLL(None)
HALVES = (torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class Room:
    """The memory this machine has, in bytes: RAM and that of its accelerator, if it has one."""

    ram: int
    accelerator: int | None


def holds(ram: int, weights: int) -> bool:
    """Whether ``ram`` bytes hold weights of so many, with a quarter left for what is kept beside
    them: of every token, and by transformers while it loads."""
    return weights <= ram * 3 // 4


def room() -> Room:
    """The memory of this machine, or of the container this process is in, whatever is in use of it
    now."""
    ram = int(psutil.virtual_memory().total)
    ram = min(ram, memory_limit() or ram)
    if not torch.accelerator.is_available():
        return Room(ram, None)
    return Room(ram, int(torch.accelerator.get_memory_info()[1]))


def compute_device() -> torch.device:
    """The accelerator if there is one, else the CPU."""
    return torch.accelerator.current_accelerator() or torch.device("cpu")


def compute_dtype(device: torch.device, stored: torch.dtype) -> torch.dtype:
    """The dtype to search scales in: half precision is widened on a CPU, where it is slow or
    summed coarsely; what is written keeps the checkpoint's dtype
    (``workers.engine.formats.packing``)."""
    return torch.float32 if device.type == "cpu" and stored in HALVES else stored


def release_memory() -> None:
    """Free what nothing refers to any more, on the accelerator too. A traced model is part of
    reference cycles, so letting go of it is not enough; nor is freeing it, of which the C library
    keeps what lies between what is still in use (malloc_trim(3))."""
    gc.collect()
    if hasattr(LIBC, "malloc_trim"):
        LIBC.malloc_trim(0)
    if torch.accelerator.is_available():
        torch.accelerator.empty_cache()


def set_threads(threads: int | None) -> int:
    """Let torch use ``threads`` threads, by default as many as cores are free now.

    A thread more than there are free cores costs tens of times the time: torch's threads wait
    for each other by spinning.
    """
    chosen = threads or int(os.environ.get("OMP_NUM_THREADS", 0)) or free_cores()
    torch.set_num_threads(chosen)
    return chosen


def free_cores() -> int:
    """Cores this process may use that nothing kept busy over the last minute; at least 1."""
    allowed = len(os.sched_getaffinity(0))
    return max(1, allowed - round(os.getloadavg()[0]))
