"""A model cut into subgraphs, one a decoder layer, that all batches go through one after another.

The cutting is llmcompressor's own tracing (``pipelines.sequential``), with one fault mended
(``tracing_keeps_config``); the keeping of activations between two subgraphs is its
``IntermediatesCache`` (``workers.engine.passes.activations``), and the bringing over of weights
that rest in RAM is done by the offload caches of compressed-tensors.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from compressed_tensors.offload import disable_offloading, remove_dispatch, set_onload_device
from compressed_tensors.utils import patch_attr
from llmcompressor.args.dataset_arguments import DatasetArguments
from llmcompressor.pipelines.sequential.helpers import (
    SequentialTracer,
    Subgraph,
    trace_subgraphs,
)
from llmcompressor.utils.dev import get_main_device
from llmcompressor.utils.helpers import calibration_forward_context
from llmcompressor.utils.pytorch.module import infer_sequential_targets
from torch import nn
from torch.fx import _symbolic_trace as fx_trace
from transformers import PreTrainedConfig

from workers.engine.passes.activations import Activations


@dataclass(frozen=True)
class Stretch:
    """A subgraph with what runs through it."""

    model: Any
    subgraph: Subgraph
    activations: Activations
    batches: int
    last: bool

    @property
    def modules(self) -> list[nn.Module]:
        """The modules the subgraph runs."""
        found: list[nn.Module] = self.subgraph.submodules(self.model)
        return found

    def at_hand(self) -> contextlib.AbstractContextManager[None]:
        """Weights that are brought over stay until the end of the context."""
        held: contextlib.AbstractContextManager[None] = disable_offloading()
        return held

    def inputs(self, batches: int | None = None) -> Iterator[tuple[int, dict[str, Any]]]:
        """The number and the inputs of each batch, or of the first ``batches``."""
        for batch in range(self.batches if batches is None else min(batches, self.batches)):
            yield batch, self.activations.fetch(batch, list(self.subgraph.input_names))

    def forward(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Run the subgraph."""
        found: dict[str, Any] = self.subgraph.forward(self.model, **inputs)
        return found

    def carry(self, batch: int, outputs: dict[str, Any]) -> None:
        """Replace what no later subgraph needs of a batch's inputs by its outputs."""
        self.activations.update(batch, outputs)
        self.activations.delete(batch, list(self.subgraph.consumed_names))


@contextlib.contextmanager
def brought_over(model: nn.Module, device: torch.device | None = None) -> Iterator[None]:
    """Let every module find its weights on ``device`` (by default where llmcompressor computes)
    when it runs; afterwards they are where they were, with the values they then have."""
    onload = device or get_main_device()
    if all(parameter.device == onload for parameter in model.parameters()):
        yield
        return
    set_onload_device(model, onload)
    try:
        yield
    finally:
        remove_dispatch(model)


@contextlib.contextmanager
def tracing_keeps_config() -> Iterator[None]:
    """Let a traced graph use the model's own configuration.

    llmcompressor 0.14 writes a copy into the graph, made from ``config.to_dict()``. That leaves the
    attention implementation out, so a model that hands its configuration to a function chosen while
    tracing (Mixtral, Qwen3-MoE and PhiMoE choose that of their mask) gets the mask of sdpa, which
    is None where a row is not padded, while its layers run eager attention: every token then sees
    those after it and those of other rows.
    """
    plain = SequentialTracer.create_arg

    def create_arg(self: SequentialTracer, a: Any) -> Any:
        if not isinstance(a, PreTrainedConfig):
            return plain(self, a)

        def config_of_model() -> PreTrainedConfig:
            return a

        return self.create_node("call_function", config_of_model, (), {})

    with patch_attr(SequentialTracer, "create_arg", create_arg):
        yield


@contextlib.contextmanager
def tracing_keeps_no_model() -> Iterator[None]:
    """Let a traced model be freed once nothing else refers to it.

    llmcompressor compiles the code of a traced module in a namespace of its own, the module in it;
    and torch.fx keeps every namespace in which it wrapped a function, for the process's life.
    """
    before = fx_trace._wrapped_fns_to_patch.copy()
    try:
        yield
    finally:
        fx_trace._wrapped_fns_to_patch.clear()
        fx_trace._wrapped_fns_to_patch.update(before)


@contextlib.contextmanager
def cut(
    model: Any, dataloader: Any, arguments: DatasetArguments | None = None
) -> Iterator[list[Stretch]]:
    """The model's subgraphs, with the inputs of all batches at the first; the last one runs what
    comes after the decoder layers."""
    arguments = arguments or DatasetArguments()
    with tracing_keeps_config(), tracing_keeps_no_model():
        subgraphs = trace_subgraphs(
            model,
            next(iter(dataloader)),
            list(infer_sequential_targets(model, arguments.sequential_targets)),
            arguments.tracing_ignore,
            arguments.sequential_targets_per_subgraph,
        )
    offload = torch.device(arguments.sequential_offload_device)
    with calibration_forward_context(model):
        activations = Activations.from_dataloader(dataloader, get_main_device(), offload)
        yield [
            Stretch(model, each, activations, len(dataloader), each is subgraphs[-1])
            for each in subgraphs
        ]


def alongside(stretches: list[Stretch], dataloader: Any) -> list[Stretch]:
    """The same subgraphs for other batches, with an activation cache of their own."""
    offload = torch.device(DatasetArguments().sequential_offload_device)
    activations = Activations.from_dataloader(dataloader, get_main_device(), offload)
    return [
        Stretch(each.model, each.subgraph, activations, len(dataloader), each.last)
        for each in stretches
    ]
