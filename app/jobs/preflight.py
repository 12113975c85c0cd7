"""What a preflight says: what a job would do and need, and whether it can."""

from __future__ import annotations

from pydantic import BaseModel


class TargetMatches(BaseModel):
    """How many Linear modules a pattern matches; ``group`` None for a pattern to ignore."""

    pattern: str
    group: str | None
    matches: int


class Preflight(BaseModel):
    """``errors`` refuse a job, each in a sentence that says what would be right.

    ``ram_bytes`` is for the kind of device this machine computes on; ``vram_bytes`` for an
    accelerator that holds all weights, ``vram_layerwise_bytes`` for one that is given a layer at a
    time. ``memory_bytes`` and ``accelerator_bytes`` are what this machine has. ``disk_bytes`` is
    the checkpoint and the finished layers it is made from.
    ``seconds`` is predicted from operations counted and a speed measured here. ``unquantized``
    counts the Linear modules that stay as they are, by name with numbers as ``*``; names of
    mappings likewise.
    """

    ok: bool = False
    errors: list[str] = []
    warnings: list[str] = []
    targets: list[TargetMatches] = []
    quantized_modules: int = 0
    modules_by_group: dict[str, int] = {}
    unquantized: dict[str, int] = {}
    mappings: int = 0
    mappings_by_kind: dict[str, int] = {}
    router_safe: bool = False
    group_sizes: list[int] = []
    source_tensors: int | None = None
    tokens: int = 0
    tokens_assumed: bool = True
    rows: int | None = None
    ram_bytes: int = 0
    vram_bytes: int = 0
    vram_layerwise_bytes: int = 0
    disk_bytes: int = 0
    checkpoint_bytes: int = 0
    free_disk_bytes: int = 0
    memory_bytes: int = 0
    accelerator_bytes: int | None = None
    seconds: float = 0.0
    macs: float = 0.0
    macs_per_second: float = 0.0
