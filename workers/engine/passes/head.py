"""Logits of last hidden states, as a model's own forward makes them.

The output matrix is not all of it: Granite divides its logits by a number of the configuration,
Cohere multiplies them, Gemma bends the large ones. So the forward itself is asked, with a decoder
in place of the model's that answers with hidden states that are known already.

The product is computed in float32 whatever type the weights have: logits of 16 in bfloat16 lie an
eighth apart, and what rounding them adds is no loss of the quantized model. On the demo model with
8 bits in the experts KL is 1.38e-4 in float32, 1.46e-4 with the head alone in float32 and 1.77e-4
with logits in bfloat16 (25 texts, rounded to nearest).
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import MoeModelOutputWithPast

from workers.engine.device import compute_device

# Rows of the output matrix that are widened at once.
ROWS_AT_ONCE = 16_384


class Head:
    """What comes after a model's decoder, without the decoder: the model may change or go."""

    def __init__(self, model: PreTrainedModel) -> None:
        product: nn.Module = model.get_output_embeddings()  # type: ignore[no-untyped-call]
        device = compute_device()
        held = product if model.device.type == device.type else copy.deepcopy(product).to(device)
        self._decoder = _Known()
        self._device = device
        # A shallow copy: attributes are the model's, modules are replaced in the copy alone. A
        # forward that llmcompressor left on the model is bound to the whole of it.
        self._model = copy.copy(model)
        self._model.__dict__.pop("forward", None)
        self._model._modules = {
            name: _InFloat32(held) if module is product else module
            for name, module in model._modules.items()
        }
        self._model._modules[model.base_model_prefix] = self._decoder

    @torch.no_grad()
    def __call__(self, hidden: torch.Tensor) -> torch.Tensor:
        """Logits float32 [tokens, vocabulary], on the compute device, of ``hidden`` [tokens,
        hidden]."""
        self._decoder.hidden = hidden[None].to(self._device)
        ids = torch.zeros(1, len(hidden), dtype=torch.int64, device=self._device)
        logits: torch.Tensor = self._model(input_ids=ids, use_cache=False).logits
        return logits[0].float()


class _Known(nn.Module):
    """A decoder that gives the hidden states it was given."""

    hidden: torch.Tensor

    def forward(self, *_: Any, **__: Any) -> MoeModelOutputWithPast:
        return MoeModelOutputWithPast(last_hidden_state=self.hidden)  # type: ignore[arg-type]


class _InFloat32(nn.Module):
    """A Linear computed in float32, some rows of its weight widened at a time."""

    def __init__(self, linear: Any) -> None:
        super().__init__()
        self.weight: torch.Tensor = linear.weight
        self.bias: torch.Tensor | None = getattr(linear, "bias", None)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        wide = hidden.float()
        parts = [
            nn.functional.linear(wide, rows.float())
            for rows in torch.split(self.weight, ROWS_AT_ONCE)
        ]
        logits = torch.cat(parts, dim=-1)
        return logits if self.bias is None else logits + self.bias.float()
