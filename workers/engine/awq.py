"""llmcompressor's AWQ with mappings from the module tree, made fit for mixtures of experts.

What differs from stock ``AWQModifier``, and nothing else does:

- mappings come resolved from ``workers.engine.mappings`` (stock: regular expressions over the
  whole model, which leave routers out or fail on leading dense layers);
- up → down mappings are searched by Gram matrix (``workers.engine.gram``): same weights in
  float32, no cached activations;
- the grid's forwards route as the model does (``workers.engine.experts_forward``), whatever
  tokens the statistics are taken from: same weights, a fraction of the work;
- parents that treat every token by itself get their batches merged, outputs are compared as they
  come instead of all being held;
- cached inputs are pinned only where there is an accelerator (stock crashes on a CPU);
- the loss before and after each search is told, not only logged.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import torch
from compressed_tensors.quantization import QuantizationArgs
from compressed_tensors.utils import align_modules, update_offload_parameter
from pydantic import PrivateAttr
from torch import nn

from app.jobs.events import MappingSearched, Notice
from app.jobs.states import Step
from workers.engine.architecture import layer_index
from workers.engine.experts_forward import natural_routing
from workers.engine.gram import InputStatistics, SearchResult, search_scales
from workers.engine.library_output import hush
from workers.engine.mappings import TreeMapping

hush()

from llmcompressor.core import Event, State  # noqa: E402
from llmcompressor.modifiers.transform.awq import AWQModifier  # noqa: E402
from llmcompressor.modifiers.transform.awq.mappings import ResolvedMapping  # noqa: E402
from llmcompressor.pipelines.cache import IntermediatesCache  # noqa: E402

MERGED_TOKENS = 8_192

Tell = Callable[[Any], None]


class ParentInputs(IntermediatesCache):
    """Cached inputs of a mapping's parent; pins memory only where that can speed up a copy."""

    def pin_memory(self, batch_index: int, input_names: list[str] | None = None) -> None:
        """Pin one batch's tensors, if there is an accelerator (torch raises otherwise)."""
        if torch.accelerator.is_available():
            super().pin_memory(batch_index, input_names)

    def merge(self, tokens: int) -> None:
        """Join batches along the tokens' dimension into ones of about ``tokens`` tokens.

        Only for parents that treat every token by itself. Does nothing when an input other than
        the hidden states is a tensor.
        """
        merged: list[dict[str, Any]] = []
        pending: list[dict[str, Any]] = []
        for batch in self:
            tensors = [value for value in batch.values() if isinstance(value, torch.Tensor)]
            if len(tensors) != 1:
                return
            pending.append(batch)
            if sum(_hidden_of(each).flatten(0, -2).shape[0] for each in pending) >= tokens:
                merged.append(_joined(pending))
                pending = []
        if pending:
            merged.append(_joined(pending))
        self.batch_intermediates.clear()
        for batch in merged:
            self.append(batch)


def _hidden_of(batch: dict[str, Any]) -> torch.Tensor:
    return next(value for value in batch.values() if isinstance(value, torch.Tensor))


def _joined(batches: Sequence[dict[str, Any]]) -> dict[str, Any]:
    first = batches[0]
    if len(batches) == 1:
        return first
    name = next(key for key, value in first.items() if isinstance(value, torch.Tensor))
    flat = [_hidden_of(batch).flatten(0, -2) for batch in batches]
    hidden = torch.cat(flat)
    return {**first, name: hidden[None] if first[name].ndim == 3 else hidden}


class TreeAWQModifier(AWQModifier):
    """AWQ over mappings of the module tree. ``tell`` receives MappingSearched and Notice events."""

    tree: list[TreeMapping]
    tell: Tell

    _statistics: dict[str, InputStatistics] = PrivateAttr(default_factory=dict)
    _token_wise: set[nn.Module] = PrivateAttr(default_factory=set)
    _by_gram: dict[str, ResolvedMapping] = PrivateAttr(default_factory=dict)
    _searching: bool = PrivateAttr(default=False)

    def on_initialize(self, state: State, **kwargs: Any) -> bool:
        """Take the mappings as they are: nothing is inferred from the model's name."""
        self.mappings = []
        return bool(super().on_initialize(state, **kwargs))

    def _set_resolved_mappings(self, model: nn.Module) -> None:
        for mapping in self.tree:
            resolved = _resolve(model, mapping)
            if mapping.balance == (mapping.parent,):
                self._by_gram[mapping.smooth] = resolved
            else:
                self._resolved_mappings.append(resolved)
                if mapping.token_wise:
                    self._token_wise.add(resolved.parent)

    def _setup_activation_cache_hooks(self) -> None:
        super()._setup_activation_cache_hooks()
        for parent in self._parent_args_cache:
            self._parent_args_cache[parent] = ParentInputs(None, cast(Any, self.offload_device))
        for smooth, mapping in self._by_gram.items():
            self.register_hook(mapping.parent, self._gram_hook(smooth), "forward_pre")

    def _gram_hook(self, smooth: str) -> Callable[..., None]:
        def take_in(_: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
            if smooth not in self._statistics:
                columns, device = args[0].shape[-1], args[0].device
                self._statistics[smooth] = InputStatistics.empty(columns, device)
            self._statistics[smooth].add(args[0])

        return take_in

    def on_sequential_epoch_end(self, state: State, event: Event, **kwargs: Any) -> None:  # type: ignore[override]
        """Smooth the norms of the layer just seen, then its up → down products."""
        with natural_routing():
            super().on_sequential_epoch_end(state, event, **kwargs)
        for group in self._groups_seen():
            self._smooth_group(group)
        self._statistics.clear()

    def _run_samples(self, module: nn.Module) -> Any:
        cache = self._parent_args_cache[module]
        if module in self._token_wise and isinstance(cache, ParentInputs):
            cache.merge(MERGED_TOKENS)
        outputs = _outputs(module, cache)
        return outputs if self._searching else list(outputs)

    def _compute_best_scale(
        self,
        mapping: ResolvedMapping,
        fp16_outputs: list[torch.Tensor],
        orig_layer_weights: dict[nn.Module, torch.Tensor],
    ) -> torch.Tensor:
        self._searching = True
        try:
            scales = super()._compute_best_scale(mapping, fp16_outputs, orig_layer_weights)
        finally:
            self._searching = False
        metrics = self._error_metrics[-1]
        self._tell_search(mapping, metrics["initial_error"], metrics["best_error"])
        return scales

    def _tell_search(self, mapping: ResolvedMapping, initial: float, best: float) -> None:
        self.tell(
            MappingSearched(
                layer=layer_index(mapping.smooth_name) or 0,
                smooth_layer=mapping.smooth_name,
                balance_layers=len(mapping.balance_layers),
                initial_error=initial,
                best_error=best,
            )
        )

    def _groups_seen(self) -> list[list[ResolvedMapping]]:
        """Gram mappings of this layer whose Linear saw a token, by equal shape and scheme."""
        groups: dict[tuple[Any, ...], list[ResolvedMapping]] = defaultdict(list)
        for smooth, statistics in self._statistics.items():
            mapping = self._by_gram[smooth]
            if not int(statistics.count):
                continue  # no token was routed here: rounded to nearest, and named in the report
            if not bool(statistics.gram.isfinite().all()):
                message = f"{smooth} is not smoothed: its activations are not finite."
                self.tell(Notice(step=Step.QUANTIZE, level="warning", message=message))
                continue
            key = (_weight_of(mapping.parent).shape, _args_of(mapping.parent).model_dump_json())
            groups[key].append(mapping)
        return list(groups.values())

    def _smooth_group(self, group: list[ResolvedMapping]) -> None:
        modules = [each for mapping in group for each in (mapping.parent, mapping.smooth_layer)]
        with align_modules(modules), torch.no_grad():
            found = self._search_group(group)
            for at, mapping in enumerate(group):
                initial, best = float(found.initial_error[at]), float(found.best_error[at])
                if best == float("inf"):
                    continue
                _apply(mapping, found.scales[at])
                self._error_metrics.append(
                    {
                        "layer_name": mapping.smooth_name,
                        "parent_name": mapping.parent_name,
                        "initial_error": initial,
                        "best_error": best,
                        "reduction": best / initial if initial > 0 else 1.0,
                    }
                )
                self._tell_search(mapping, initial, best)

    def _search_group(self, group: list[ResolvedMapping]) -> SearchResult:
        linears = [mapping.parent for mapping in group]
        return search_scales(
            weights=torch.stack([_weight_of(linear) for linear in linears]),
            weight_means=torch.stack([self._compute_layer_means([each]) for each in linears]),
            statistics=[self._statistics[mapping.smooth_name] for mapping in group],
            args=_args_of(linears[0]),
            grid=self._get_grid_search_params(),
        )


def _outputs(module: nn.Module, cache: IntermediatesCache) -> Iterator[torch.Tensor]:
    """The outputs of a parent over its cached inputs, one batch at a time."""
    for batch in cache:
        output = module(**batch)
        yield output[0] if isinstance(output, tuple) else output


def _resolve(model: nn.Module, mapping: TreeMapping) -> ResolvedMapping:
    return ResolvedMapping(
        mapping.smooth,
        model.get_submodule(mapping.smooth),
        [model.get_submodule(name) for name in mapping.balance],
        balance_names=list(mapping.balance),
        parent=model.get_submodule(mapping.parent),
        parent_name=mapping.parent,
    )


def _apply(mapping: ResolvedMapping, scales: torch.Tensor) -> None:
    """Scale down's columns up and up's rows down, as ``AWQModifier._apply_smoothing`` does."""
    down, up = mapping.parent, mapping.smooth_layer
    update_offload_parameter(down, "weight", _weight_of(down) * scales.view(1, -1))
    update_offload_parameter(up, "weight", _weight_of(up).div_(scales.view(-1, 1)))
    if isinstance(up.bias, torch.Tensor):
        update_offload_parameter(up, "bias", up.bias.data.div_(scales))


def _weight_of(module: nn.Module) -> torch.Tensor:
    weight = module.weight
    assert isinstance(weight, torch.Tensor)
    return weight.data


def _args_of(module: nn.Module) -> QuantizationArgs:
    scheme: Any = module.quantization_scheme
    args: QuantizationArgs = scheme.weights
    return args
