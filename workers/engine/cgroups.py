"""The memory this process may use, where its container has less than its machine.

Rented machines are containers as a rule; a job that believed in the machine's memory would be ended
by the kernel. https://docs.kernel.org/admin-guide/cgroup-v2.html (``memory.max``) and
https://docs.kernel.org/admin-guide/cgroup-v1/memory.html (``memory.limit_in_bytes``).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

MOUNT = Path("/sys/fs/cgroup")
OWN = Path("/proc/self/cgroup")


def memory_limit(mount: Path = MOUNT, own: Path = OWN) -> int | None:
    """The least limit of this process's memory groups in bytes; None where there is none."""
    if not own.is_file():
        return None
    limits = [
        int(text)
        for line in own.read_text(encoding="ascii").splitlines()
        for file in _files(mount, *line.split(":", 2)[1:])
        if file.is_file() and (text := file.read_text(encoding="ascii").strip()).isdigit()
    ]
    return min(limits, default=None)


def _files(mount: Path, controllers: str, group: str) -> Iterator[Path]:
    """Where a group and those above it say their limits. A container may see its own group at the
    top of the mount, whatever its name outside is."""
    if controllers == "":
        root, name = mount, "memory.max"
    elif "memory" in controllers.split(","):
        root, name = mount / "memory", "memory.limit_in_bytes"
    else:
        return
    for each in (PurePosixPath(group), *PurePosixPath(group).parents):
        yield root / each.relative_to("/") / name
