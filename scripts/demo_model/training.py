"""The training loop: next-token loss, Muon and AdamW, experts balanced by their bias."""

from __future__ import annotations

import ctypes
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import cross_entropy
from transformers import MiniMaxM2ForCausalLM

from scripts.demo_model.batches import IGNORED, Batch
from scripts.demo_model.muon import StackedMuon

PROGRESS = "step %d, %d tokens, loss %.3f, %.0f tokens/s"

RouterOutputs = tuple[torch.Tensor, ...]
"""Logits (tokens, experts), weights and indices of the chosen experts (tokens, top_k)."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Schedule:
    """What a training run is made of, besides its data and its seed."""

    tokens: int
    """Tokens to train on, padding not counted; the run ends at the first step that reaches it."""
    batch_tokens: int = 2048
    muon_lr: float = 0.025
    adam_lr: float = 0.01
    weight_decay: float = 0.1
    bias_lr: float = 0.002
    """Step of the routers' correction bias, in units of the sigmoid score."""
    warmup: float = 0.02
    decay: float = 0.6
    """Share of the run, at its end, in which the learning rates fall linearly to 0."""

    def factor(self, tokens_seen: int) -> float:
        """What the learning rates are multiplied with after ``tokens_seen``, in [0, 1]."""
        done = tokens_seen / self.tokens
        return max(0.0, min(1.0, (done + 0.001) / self.warmup, (1 - done) / self.decay))


class RoutingCounts:
    """Tokens routed to each expert of each layer, gathered by hooks on the routers."""

    def __init__(self, model: MiniMaxM2ForCausalLM) -> None:
        config = model.config
        self.counts = torch.zeros(config.num_hidden_layers, config.num_local_experts)
        self.real: torch.Tensor | None = None
        """(tokens,) which tokens are no padding; None counts all."""
        for index, layer in enumerate(model.model.layers):
            layer.mlp.gate.register_forward_hook(self._hook(index))

    def _hook(self, layer: int) -> Callable[..., None]:
        def count(_module: torch.nn.Module, _inputs: Any, outputs: RouterOutputs) -> None:
            chosen = outputs[2] if self.real is None else outputs[2][self.real]
            self.counts[layer] += chosen.flatten().bincount(minlength=self.counts.shape[1])

        return count

    def take(self) -> torch.Tensor:
        """(layers, experts) counts since the last take."""
        taken, self.counts = self.counts, torch.zeros_like(self.counts)
        return taken


def keep_freed_memory() -> None:
    """Have glibc keep large freed blocks: page faults cost a fifth of a step otherwise."""
    mallopt = ctypes.CDLL(None).mallopt
    trim_threshold, mmap_threshold = -1, -3
    mallopt(trim_threshold, 2**31 - 1)
    mallopt(mmap_threshold, 2**30)


def optimizers_of(
    model: MiniMaxM2ForCausalLM, schedule: Schedule
) -> tuple[StackedMuon, torch.optim.AdamW]:
    """Muon for attention and experts; AdamW for embeddings, head, routers and norms."""
    muon, fused, embeddings, others = [], [], [], []
    for name, parameter in model.named_parameters():
        if name.endswith("experts.gate_up_proj"):
            fused.append(parameter)
        elif "experts" in name or name.endswith("_proj.weight"):
            muon.append(parameter)
        elif "embed_tokens" in name:
            embeddings.append(parameter)
        else:
            others.append(parameter)
    groups = [
        {"params": embeddings, "lr": 5 * schedule.adam_lr},
        {"params": others, "lr": schedule.adam_lr},
    ]
    return (
        StackedMuon(muon, fused, lr=schedule.muon_lr, weight_decay=schedule.weight_decay),
        torch.optim.AdamW(groups, betas=(0.9, 0.95), weight_decay=0.01, fused=True),
    )


def loss_of(model: MiniMaxM2ForCausalLM, batch: Batch) -> torch.Tensor:
    """Mean next-token loss in nats; the logits of padding are never computed."""
    hidden = model.model(input_ids=batch.ids, use_cache=False).last_hidden_state
    scored = batch.targets != IGNORED
    return cross_entropy(model.lm_head(hidden[scored]), batch.targets[scored])


def balance(model: MiniMaxM2ForCausalLM, counts: torch.Tensor, step: float) -> None:
    """Raise the correction bias of experts under the mean load and lower that of those above.

    Wang et al. 2024, "Auxiliary-Loss-Free Load Balancing Strategy for Mixture-of-Experts"; the
    bias changes who is chosen, not the weight of who is chosen, and gets no gradient.
    """
    for layer, load in zip(model.model.layers, counts, strict=True):
        bias = layer.mlp.e_score_correction_bias
        bias.add_(torch.sign(load.mean() - load), alpha=step)
        bias.sub_(bias.mean())


def train(
    model: MiniMaxM2ForCausalLM, batches: Iterator[Batch], schedule: Schedule
) -> dict[str, float]:
    """Train in place; the tokens, steps and seconds it took."""
    keep_freed_memory()
    optimizers = optimizers_of(model, schedule)
    base_rates = [[group["lr"] for group in optimizer.param_groups] for optimizer in optimizers]
    routing = RoutingCounts(model)
    started, tokens, steps, running = time.monotonic(), 0, 0, 0.0
    while tokens < schedule.tokens:
        batch = next(batches)
        factor = schedule.factor(tokens)
        routing.real = batch.real.flatten()
        loss = loss_of(model, batch)
        loss.backward()  # type: ignore[no-untyped-call]
        for optimizer, rates in zip(optimizers, base_rates, strict=True):
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * factor
            optimizer.step()
            optimizer.zero_grad()
        balance(model, routing.take(), schedule.bias_lr * factor)
        tokens, steps = tokens + batch.tokens, steps + 1
        running = loss.item() if steps == 1 else 0.95 * running + 0.05 * loss.item()
        if steps % 25 == 0:
            speed = tokens / (time.monotonic() - started)
            logger.info(PROGRESS, steps, tokens, running, speed)
    return {"tokens": tokens, "steps": steps, "seconds": time.monotonic() - started}
