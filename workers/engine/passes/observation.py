"""What one model makes of some rows, kept so that the next model can be compared with it.

Only one model is ever in memory. What is kept of it is as little as the comparison needs: the last
hidden states, the experts chosen, and the routers' logits; the logits of a large model go to a
file that nothing names, so it is gone with the process.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from transformers import PreTrainedModel

from app.artifacts import reserve
from app.base_models.configuration import router_kind, text_config
from app.errors import NotFinite
from workers.engine.device import compute_device
from workers.engine.models.architecture import (
    MoeLayer,
    layer_index,
    layer_name_of,
    linear_names,
    moe_layers,
)
from workers.engine.passes.forward import Progress, last_hidden
from workers.engine.passes.head import Head
from workers.engine.passes.routing import RoutingTally, routed_tokens
from workers.engine.rows.batches import PackedBatch

IN_MEMORY_BYTES = 256_000_000
LARGEST_HALF = 65_000.0


@dataclass(frozen=True)
class RouterLogits:
    """Logits [MoE layers, tokens, experts] of the routers, float32, or float16 in a file where
    they would take more than a quarter of a gigabyte. ``is_sigmoid`` is how they become
    probabilities: sigmoids divided by their sum, or a softmax."""

    values: NDArray[Any]
    is_sigmoid: bool
    seen: set[int] = field(default_factory=set)

    def log_probabilities(self, position: int, tokens: slice) -> torch.Tensor:
        """The logarithms of a layer's probabilities for some tokens, float32 [tokens, experts]."""
        logits = torch.from_numpy(self.values[position, tokens].astype(np.float32))
        logits = logits.to(compute_device())
        if not self.is_sigmoid:
            return torch.log_softmax(logits, dim=-1)
        scores = nn.functional.logsigmoid(logits)
        return scores - scores.logsumexp(dim=-1, keepdim=True)


@dataclass(frozen=True)
class Observed:
    """What a model makes of some rows: for each batch the last hidden states [tokens, hidden] and
    each mixture's top-k sets int16 [tokens, top-k], sorted, both kept in RAM; the routers' logits,
    tokens in the batches' order; and the head that makes logits of hidden states."""

    batches: Sequence[PackedBatch]
    layers: list[MoeLayer]
    hidden: list[torch.Tensor]
    chosen: list[dict[int, torch.Tensor]]
    router: RouterLogits
    head: Head


@torch.no_grad()
def observe(
    model: PreTrainedModel,
    batches: Sequence[PackedBatch],
    progress: Progress | None = None,
    *,
    what: str = "The model",
    row_ids: Sequence[str] = (),
    scratch: Path | None = None,
    tally: RoutingTally | None = None,
) -> Observed:
    """Run the rows through a model once.

    ``what`` and ``row_ids`` are how a refusal names the model and its rows, ``scratch`` is where
    large intermediate files go; where ``tally`` is given, the rows' routing is counted in it.
    Raises NotFinite, with the row and the layer, when a layer's output is NaN or infinite.
    """
    layers = moe_layers(model)
    chosen: list[dict[int, torch.Tensor]] = [{} for _ in batches]
    numbers = {id(batch): number for number, batch in enumerate(batches)}
    starts = np.concatenate(([0], np.cumsum([len(batch.row_of_token) for batch in batches])))
    router = _router_logits(model, layers, int(starts[-1]), scratch)
    finite = _FiniteOutputs(what, row_ids)
    at = 0

    def before(batch: PackedBatch) -> None:
        nonlocal at
        at = numbers[id(batch)]
        if tally is not None:
            tally.before(batch)

    def receive(position: int, indices: torch.Tensor, weights: torch.Tensor) -> None:
        if tally is not None:
            tally.receive(position, indices, weights)
        chosen[at][position] = indices.sort(dim=-1).values.to("cpu", torch.int16)

    def take_logits(position: int, logits: torch.Tensor) -> None:
        kept = logits.float().clamp(-LARGEST_HALF, LARGEST_HALF).cpu().numpy()
        router.values[position, starts[at] : starts[at + 1]] = kept
        router.seen.add(position)

    def look_at(layer: int, output: torch.Tensor) -> None:
        finite.look_at(batches[at], layer, output)

    with ExitStack() as hooks:
        hooks.enter_context(routed_tokens(model, layers, receive))
        hooks.enter_context(_router_outputs(model, layers, take_logits))
        hooks.enter_context(_layer_outputs(model, look_at))
        hidden = []
        for found in last_hidden(model, batches, before, progress):
            finite.require()
            hidden.append(found.cpu())
    return Observed(batches, layers, hidden, chosen, router, Head(model))


def _router_logits(
    model: PreTrainedModel, layers: list[MoeLayer], tokens: int, scratch: Path | None
) -> RouterLogits:
    """Room for the routers' logits, in RAM or in a file without a name."""
    config = text_config(model.config.to_dict())
    kind = router_kind(config, has_bias=False) or "softmax"
    shape = (len(layers), tokens, layers[0].experts if layers else 0)
    size = 4 * int(np.prod(shape))
    if size <= IN_MEMORY_BYTES:
        return RouterLogits(np.zeros(shape, dtype=np.float32), kind.startswith("sigmoid"))
    with tempfile.TemporaryFile(prefix="calibrant-router-", dir=scratch) as file:
        reserve(file, size // 2, scratch or Path(tempfile.gettempdir()))
        values = np.memmap(file, dtype=np.float16, mode="r+", shape=shape)
    return RouterLogits(values, kind.startswith("sigmoid"))


@contextmanager
def _router_outputs(
    model: PreTrainedModel, layers: list[MoeLayer], take: Callable[[int, torch.Tensor], None]
) -> Iterator[None]:
    """Call ``take(position, logits)`` for every pass through a router that gives the logits
    [tokens, experts] of all experts, alone or among its outputs."""
    with ExitStack() as stack:
        for position, layer in enumerate(layers):

            def hook(
                _: nn.Module, __: Any, output: Any, position: int = position, layer: Any = layer
            ) -> None:
                parts = output if isinstance(output, tuple) else (output,)
                for part in parts:
                    if isinstance(part, torch.Tensor) and part.shape[-1] == layer.experts:
                        take(position, part.reshape(-1, layer.experts))
                        return

            handle = model.get_submodule(layer.router_name).register_forward_hook(hook)
            stack.callback(handle.remove)
        yield


@contextmanager
def _layer_outputs(
    model: PreTrainedModel, look_at: Callable[[int, torch.Tensor], None]
) -> Iterator[None]:
    """Call ``look_at(layer, output)`` for every pass through a decoder layer."""
    names = {layer_name_of(name): layer_index(name) for name in linear_names(model)}
    with ExitStack() as stack:
        for name, index in names.items():
            if name is None or index is None:
                continue

            def hook(_: nn.Module, __: Any, output: Any, index: int = index) -> None:
                look_at(index, output[0] if isinstance(output, tuple) else output)

            stack.callback(model.get_submodule(name).register_forward_hook(hook).remove)
        yield


@dataclass
class _FiniteOutputs:
    """Watches layers' outputs without waiting for the device: what was seen is asked once a
    batch."""

    what: str
    row_ids: Sequence[str]
    _seen: list[tuple[PackedBatch, int, torch.Tensor, torch.Tensor]] = field(default_factory=list)

    def look_at(self, batch: PackedBatch, layer: int, output: torch.Tensor) -> None:
        wrong = ~output.reshape(-1, output.shape[-1]).isfinite().all(dim=-1)
        if len(wrong) == len(batch.row_of_token):
            self._seen.append((batch, layer, wrong.any(), wrong.int().argmax()))

    def require(self) -> None:
        """Raise NotFinite for the first layer that gave NaN or infinity."""
        seen, self._seen = self._seen, []
        if not seen or not bool(torch.stack([wrong for _, _, wrong, _ in seen]).any()):
            return
        batch, layer, _, token = min((one for one in seen if bool(one[2])), key=lambda one: one[1])
        row = int(batch.row_of_token[int(token)])
        name = self.row_ids[row] if row < len(self.row_ids) else f"number {row + 1}"
        raise NotFinite(
            f"{self.what} gives NaN or infinity from decoder layer {layer} on, first in held-out "
            f"row {name}: nothing can be compared with it."
        )
