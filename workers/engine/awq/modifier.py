"""llmcompressor's AWQ with mappings from the module tree, made fit for mixtures of experts.

What differs from stock ``AWQModifier``, and nothing else does:

- mappings come resolved from ``workers.engine.plan.mappings`` (stock: regular expressions over the
  whole model, which leave routers out or fail on leading dense layers);
- up → down mappings are searched by Gram matrix (``workers.engine.awq.gram``), for experts from the
  layer's one input (``workers.engine.awq.expert_statistics``): same weights in float32, no cached
  activations;
- the grid's forwards route as the model does and read stacked weights
  (``workers.engine.awq.trial``), whatever tokens the statistics are taken from: same weights, a
  fraction of the work;
- parents that treat every token by itself get their batches merged, outputs are compared as they
  come instead of all being held;
- cached inputs are pinned only where there is an accelerator (stock crashes on a CPU);
- the loss before and after each search is told, not only logged.

With ``fast`` the norms' scales are tried on a sample of the tokens and at half of the ratios: other
weights, compared in docs/quality.md.
"""

from __future__ import annotations

import inspect
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any, cast

import torch
from compressed_tensors.utils import align_modules
from llmcompressor.core import Event, State
from llmcompressor.modifiers.transform.awq import AWQModifier
from llmcompressor.modifiers.transform.awq.mappings import ResolvedMapping
from llmcompressor.modifiers.utils.hooks import HooksMixin
from llmcompressor.pipelines.cache import IntermediatesCache
from llmcompressor.utils.helpers import calibration_forward_context
from pydantic import PrivateAttr
from torch import nn

from app.jobs.events import MappingSearched, Notice, RoutedTokens
from app.jobs.states import Step
from workers.engine.awq.expert_statistics import TokenChoice
from workers.engine.awq.experts_forward import ExpertsRuns, captures, natural_routing
from workers.engine.awq.experts_search import ExpertsSearch, Searched
from workers.engine.awq.gram import InputStatistics, SearchResult, grid_scales, search_scales
from workers.engine.awq.parent_inputs import ParentCaches, ParentInputs
from workers.engine.awq.smoothing import ScaleLog, apply_scales, args_of, resolved, weight_of
from workers.engine.awq.trial import Trial
from workers.engine.models.architecture import layer_index, moe_layers
from workers.engine.plan.mappings import TreeMapping

MERGED_TOKENS = 8_192
FAST_SHARE = 0.25

Tell = Callable[[Any], None]


class TreeAWQModifier(AWQModifier):
    """AWQ over mappings of the module tree. ``tell`` receives MappingSearched, RoutedTokens and
    Notice events, ``scales`` what is applied; ``runs`` is how experts run meanwhile."""

    tree: list[TreeMapping]
    tell: Tell
    scales: ScaleLog
    runs: ExpertsRuns
    choice: TokenChoice = TokenChoice()
    fast: bool = False

    _statistics: dict[str, InputStatistics] = PrivateAttr(default_factory=dict)
    _token_wise: set[nn.Module] = PrivateAttr(default_factory=set)
    _by_gram: dict[str, ResolvedMapping] = PrivateAttr(default_factory=dict)
    _experts: list[ExpertsSearch] = PrivateAttr(default_factory=list)
    _searching: bool = PrivateAttr(default=False)

    def on_initialize(self, state: State, **kwargs: Any) -> bool:
        """Take the mappings as they are: nothing is inferred from the model's name."""
        self.mappings = []
        return bool(super().on_initialize(state, **kwargs))

    def _set_resolved_mappings(self, model: nn.Module) -> None:
        searches = {
            layer.experts_name: ExpertsSearch(cast(Any, model), layer)
            for layer in moe_layers(cast(Any, model))
            if captures(model.get_submodule(layer.experts_name))
        }
        for mapping in self.tree:
            found = resolved(model, mapping)
            if mapping.balance == (mapping.parent,):
                experts = mapping.parent.rpartition(".")[0].rpartition(".")[0]
                if experts in searches:
                    searches[experts].add(found)
                else:
                    self._by_gram[mapping.smooth] = found
            else:
                self._resolved_mappings.append(found)
                if mapping.token_wise:
                    self._token_wise.add(found.parent)
        self._experts = [search for search in searches.values() if search.members]

    def _setup_activation_cache_hooks(self) -> None:
        self._parent_args_cache = ParentCaches(each.parent for each in self._resolved_mappings)
        super()._setup_activation_cache_hooks()
        for parent in self._parent_args_cache:
            self._parent_args_cache[parent] = ParentInputs(None, cast(Any, self.offload_device))
        for search in self._experts:
            search.choose_host(list(self._parent_args_cache))
            if search.host not in self._parent_args_cache:
                self._cache_inputs(search.host)
        for smooth, mapping in self._by_gram.items():
            self.register_hook(mapping.parent, self._gram_hook(smooth), "forward_pre")

    def _cache_inputs(self, parent: nn.Module) -> None:
        """Cache what a parent is given, as stock does for the parents of its mappings."""
        cache = ParentInputs(None, cast(Any, self.offload_device))
        self._parent_args_cache[parent] = cache

        def take_in(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            bound = inspect.signature(module.forward).bind(*args, **kwargs).arguments
            bound |= bound.pop("kwargs", {})
            cache.append(bound)

        self.register_hook(parent, cast(Any, take_in), "forward_pre", with_kwargs=True)

    def _gram_hook(self, smooth: str) -> Callable[..., None]:
        def take_in(_: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
            if smooth not in self._statistics:
                columns, device = args[0].shape[-1], args[0].device
                self._statistics[smooth] = InputStatistics.empty(columns, device)
            self._statistics[smooth].add(args[0])

        return take_in

    @torch.no_grad()
    def on_sequential_epoch_end(self, state: State, event: Event, **kwargs: Any) -> None:  # type: ignore[override]
        """Search the experts' up → down products, smooth the layer's norms, then the products.

        A product's scales do not depend on the norm's, but its statistics do in their last bits,
        so they are taken first.
        """
        with natural_routing():
            found = [
                each for search in self._experts for each in self._search_experts(state, search)
            ]
            super().on_sequential_epoch_end(state, event, **kwargs)
        for each in found:
            with align_modules([each.mapping.parent, each.mapping.smooth_layer]):
                self._take(each.mapping, each.scales, each.initial_error, each.best_error)
        for group in self._groups_seen():
            self._smooth_group(group)
        self._statistics.clear()

    def _search_experts(self, state: State, search: ExpertsSearch) -> list[Searched]:
        """The scales of the experts' products, if the layer was calibrated just now."""
        cache = self._parent_args_cache.get(search.host)
        if not cache:
            return []
        parent: Any = search.host
        model: Any = state.model
        if self.fast and parent in self._token_wise:
            cast(ParentInputs, cache).merge(MERGED_TOKENS)
        with (
            align_modules(list(parent.modules())),
            calibration_forward_context(model),
            HooksMixin.disable_hooks(),
        ):
            with self.runs.capture() as captured:
                for batch in cache:
                    parent(**batch)
            inputs = captured.get(search.experts, [])
            self.tell(RoutedTokens(layer=search.layer.index, tokens=search.count(inputs)))
            found = search.run(inputs, self.choice, self._grid(), self._compute_layer_means)
        for name in search.not_finite:
            message = f"{name} is not smoothed: its activations are not finite."
            self.tell(Notice(step=Step.QUANTIZE, level="warning", message=message))
        if not any(mapping.parent is search.host for mapping in self._resolved_mappings):
            cache.batch_intermediates.clear()
        return found

    def _grid(self) -> list[tuple[float, bool]]:
        return list(self._get_grid_search_params())

    def _run_samples(self, module: nn.Module) -> Any:
        cache = self._parent_args_cache[module]
        if not self._searching and isinstance(cache, ParentInputs):
            if module in self._token_wise:
                cache.merge(MERGED_TOKENS, FAST_SHARE if self.fast else 1.0)
            elif self.fast:
                cache.sample(round(1 / FAST_SHARE))
        outputs = _outputs(module, cache)
        return outputs if self._searching else list(outputs)

    def _compute_best_scale(
        self,
        mapping: ResolvedMapping,
        fp16_outputs: list[torch.Tensor],
        orig_layer_weights: dict[nn.Module, torch.Tensor],
    ) -> torch.Tensor:
        """The scales [in] whose rounded weights move the parent's output least, as stock finds
        them; ones where no point has a finite loss."""
        device = weight_of(mapping.balance_layers[0]).device
        total, count = self._smooth_activation_stats[mapping.smooth_name]
        means = total.to(device) / count.to(device)
        weight_means = self._compute_layer_means(
            [layer for layer in mapping.balance_layers if hasattr(layer, "quantization_scheme")]
        ).to(device)
        trial = Trial(mapping.parent, mapping.balance_layers, orig_layer_weights, self.runs)
        best = torch.ones_like(weight_means)
        best_error = torch.full((), torch.inf, device=device)
        initial_error: torch.Tensor | None = None
        self._searching = True
        try:
            with trial.running():
                for ratio, duo in self._grid():
                    scales = grid_scales(means, weight_means, ratio, duo)
                    trial.set(scales)
                    error = _mean_square(fp16_outputs, self._run_samples(mapping.parent))
                    initial_error = error if initial_error is None else initial_error
                    better = error < best_error
                    best_error = torch.where(better, error, best_error)
                    best = torch.where(better, scales.to(best.dtype), best)
        finally:
            self._searching = False
        assert initial_error is not None, "the grid has at least one point"
        if not bool(best_error.isfinite()):
            message = f"{mapping.smooth_name} is not smoothed: no scale has a finite loss."
            self.tell(Notice(step=Step.QUANTIZE, level="warning", message=message))
            return best
        self._note(mapping, best, float(initial_error), float(best_error))
        return best

    def _note(
        self, mapping: ResolvedMapping, scales: torch.Tensor, initial: float, best: float
    ) -> None:
        """Keep the scales and tell the loss of a mapping whose scales are applied."""
        self.scales.note(mapping.smooth_name, scales)
        self.tell(
            MappingSearched(
                layer=layer_index(mapping.smooth_name) or 0,
                smooth_layer=mapping.smooth_name,
                balance_layers=len(mapping.balance_layers),
                initial_error=initial,
                best_error=best,
            )
        )

    def _take(
        self, mapping: ResolvedMapping, scales: torch.Tensor, initial: float, best: float
    ) -> None:
        apply_scales(mapping, scales)
        self._note(mapping, scales, initial, best)

    def _groups_seen(self) -> list[list[ResolvedMapping]]:
        """Gram mappings of this layer whose Linear saw a token, by equal shape and scheme."""
        groups: dict[tuple[Any, ...], list[ResolvedMapping]] = defaultdict(list)
        for smooth, statistics in self._statistics.items():
            mapping = self._by_gram[smooth]
            if not bool(statistics.gram.isfinite().all()):
                message = f"{smooth} is not smoothed: its activations are not finite."
                self.tell(Notice(step=Step.QUANTIZE, level="warning", message=message))
                continue
            key = (weight_of(mapping.parent).shape, args_of(mapping.parent).model_dump_json())
            groups[key].append(mapping)
        return list(groups.values())

    def _smooth_group(self, group: list[ResolvedMapping]) -> None:
        modules = [each for mapping in group for each in (mapping.parent, mapping.smooth_layer)]
        with align_modules(modules), torch.no_grad():
            found = self._search_group(group)
            for at, mapping in enumerate(group):
                initial, best = float(found.initial_error[at]), float(found.best_error[at])
                if best != float("inf"):
                    self._take(mapping, found.scales[at], initial, best)

    def _search_group(self, group: list[ResolvedMapping]) -> SearchResult:
        linears = [mapping.parent for mapping in group]
        return search_scales(
            weights=torch.stack([weight_of(linear) for linear in linears]),
            weight_means=torch.stack([self._compute_layer_means([each]) for each in linears]),
            statistics=[self._statistics[mapping.smooth_name] for mapping in group],
            args=args_of(linears[0]),
            grid=self._grid(),
        )


def _outputs(module: nn.Module, cache: IntermediatesCache) -> Iterator[torch.Tensor]:
    """The outputs of a parent over its cached inputs, one batch at a time."""
    for batch in cache:
        output = module(**batch)
        yield output[0] if isinstance(output, tuple) else output


def _mean_square(exact: list[torch.Tensor], tried: Iterator[torch.Tensor]) -> torch.Tensor:
    """The mean squared difference of outputs, float32, as ``AWQModifier._compute_loss``."""
    loss = torch.zeros((), device=exact[0].device)
    for one, other in zip(exact, tried, strict=True):
        loss += nn.functional.mse_loss(one, other, reduction="sum")
    return loss / sum(each.numel() for each in exact)
