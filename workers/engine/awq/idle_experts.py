"""Experts that need not run while a layer's statistics are taken.

The outputs of a calibration pass are thrown away, only what hooks see is kept. Where no module
that is listened to runs after a layer's experts, nothing sees what they give back.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

from torch import nn

from workers.engine.awq.experts_forward import captures


@contextlib.contextmanager
def watched(modules: Sequence[nn.Module]) -> Iterator[set[nn.Module]]:
    """Watch one forward of a layer's ``modules``. Afterwards the set holds the experts modules
    whose outputs no hook can see: no hooked module is among their own or ran once they were done.

    Experts that are followed by a hooked shared expert, of which they know nothing, are left out
    too: only the order is looked at.
    """
    waiting: set[nn.Module] = set()
    experts = [each for each in modules if captures(each) and not any(map(_hooked, each.modules()))]

    def done(module: nn.Module, *_: Any) -> None:
        waiting.add(module)

    def seen(*_: Any) -> None:
        waiting.clear()

    handles = [each.register_forward_pre_hook(seen) for each in modules if _hooked(each)]
    handles += [each.register_forward_hook(seen) for each in modules if each._forward_hooks]
    handles += [each.register_forward_hook(done) for each in experts]
    try:
        yield waiting
    finally:
        for handle in handles:
            handle.remove()


def _hooked(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks)
