"""What the saved demo model scores on held-out rows, and which experts they reach."""

from __future__ import annotations

import itertools
import math
import statistics
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import cross_entropy
from transformers import (
    MiniMaxM2ForCausalLM,
    PreTrainedTokenizerFast,
)

from app.facets import PROGRAMMING_LANGUAGES, SPOKEN_LANGUAGES
from app.sources.rows import messages_of
from scripts.demo_model.architecture import new_model
from scripts.demo_model.batches import IGNORED, chat_ids, padded, plain_ids
from scripts.demo_model.tokenizer import PAD
from scripts.demo_model.training import RouterOutputs

Rows = Sequence[Mapping[str, Any]]
ROWS_AT_ONCE = 8
SEEN_ROWS = 200
FACETS = ("spoken_language", "programming_language", "domain")


@dataclass(frozen=True)
class RowScore:
    """One passage, scored as the model read it."""

    nats: float
    """Sum over the passage's tokens."""
    tokens: int
    bytes: int
    """Of the passage in UTF-8."""
    routed: torch.Tensor
    """(layers, experts) the passage's tokens routed to each expert."""


class ChosenExperts:
    """The experts that each layer's router chose for the tokens of the last forward."""

    def __init__(self, model: MiniMaxM2ForCausalLM) -> None:
        self.by_layer: list[torch.Tensor] = [torch.empty(0)] * len(model.model.layers)
        """Per layer (tokens, top_k) expert indices, tokens of all sequences one after another."""
        self.experts = int(model.config.num_local_experts)
        for index, layer in enumerate(model.model.layers):
            layer.mlp.gate.register_forward_hook(self._hook(index))

    def _hook(self, layer: int) -> Callable[..., None]:
        def keep(_module: torch.nn.Module, _inputs: Any, outputs: RouterOutputs) -> None:
            self.by_layer[layer] = outputs[2]

        return keep

    def counts(self, tokens: torch.Tensor) -> torch.Tensor:
        """(layers, experts) routed tokens among those that the (tokens,) mask selects."""
        chosen = (layer[tokens].flatten() for layer in self.by_layer)
        return torch.stack([c.bincount(minlength=self.experts) for c in chosen])


class PassageScorer:
    """Scores passages with a model and notes which experts they reach."""

    def __init__(self, model: MiniMaxM2ForCausalLM, tokenizer: PreTrainedTokenizerFast) -> None:
        self.tokenizer = tokenizer
        self.pad = tokenizer.get_vocab()[PAD]
        self.model = model
        self.model.eval()  # type: ignore[no-untyped-call]
        self.chosen = ChosenExperts(model)

    def sequence(self, row: Mapping[str, Any], chat: bool) -> tuple[list[int], int]:
        """Token ids, and the index of the first one that is scored.

        As a conversation the passage is scored from its first token on and its end mark is not;
        as plain text from its second, because nothing comes before the first.
        """
        if not chat:
            return plain_ids(row, self.tokenizer), 1
        prompt = self.tokenizer.apply_chat_template(
            messages_of(row)[:1], tokenize=False, add_generation_prompt=True
        )
        start = len(self.tokenizer(prompt, add_special_tokens=False)["input_ids"])
        return chat_ids(row, self.tokenizer)[:-1], start

    @torch.inference_mode()
    def scores(self, rows: Rows, chat: bool) -> list[RowScore]:
        """The score of every row, in the order given."""
        sequences = [self.sequence(row, chat) for row in rows]
        order = sorted(range(len(rows)), key=lambda index: len(sequences[index][0]))
        scored: dict[int, RowScore] = {}
        for start in range(0, len(order), ROWS_AT_ONCE):
            scored |= self._score_group(rows, sequences, order[start : start + ROWS_AT_ONCE])
        return [scored[index] for index in range(len(rows))]

    def _score_group(
        self, rows: Rows, sequences: list[tuple[list[int], int]], group: list[int]
    ) -> dict[int, RowScore]:
        """The scores of a few rows of about equal length, by their index."""
        batch = padded([sequences[index][0] for index in group], self.pad)
        logits = self.model(input_ids=batch.ids, use_cache=False).logits
        nats = cross_entropy(
            logits.mT, batch.targets, ignore_index=IGNORED, reduction="none"
        )  # (sequences, length)
        scored = {}
        for place, index in enumerate(group):
            ids, start = sequences[index]
            passage = torch.zeros_like(batch.ids, dtype=torch.bool)
            passage[place, start : len(ids)] = True
            scored[index] = RowScore(
                nats=float(nats[place, start - 1 : len(ids) - 1].sum()),
                tokens=len(ids) - start,
                bytes=len(rows[index]["text"].encode()),
                routed=self.chosen.counts(passage.flatten()),
            )
        return scored


def by_value(rows: Rows, facet: str) -> dict[str, list[int]]:
    """Indices of the rows that carry each value of a facet."""
    groups: dict[str, list[int]] = defaultdict(list)
    for index, row in enumerate(rows):
        if row[facet]:
            groups[row[facet]].append(index)
    return dict(sorted(groups.items()))


def loss_summary(chat: list[RowScore], plain: list[RowScore]) -> dict[str, float]:
    """Mean losses over tokens (nats) and over bytes (bits) of some passages, both renderings."""
    tokens, nats = sum(s.tokens for s in chat), sum(s.nats for s in chat)
    return {
        "rows": len(chat),
        "tokens": tokens,
        "nats_per_token": nats / tokens,
        "bits_per_byte": nats / math.log(2) / sum(s.bytes for s in chat),
        "nats_per_token_plain": sum(s.nats for s in plain) / sum(s.tokens for s in plain),
    }


def load_of(scores: list[RowScore]) -> torch.Tensor:
    """(layers, experts) share of each layer's routed tokens; every row sums to 1."""
    counts = torch.stack([score.routed for score in scores]).sum(0).double()
    return counts / counts.sum(1, keepdim=True)


def total_variation(one: torch.Tensor, other: torch.Tensor) -> list[float]:
    """Per layer, half the L1 distance of two load distributions: 0 equal, 1 disjoint."""
    return [float(d) for d in (one - other).abs().sum(1) / 2]


def spread(values: Sequence[float]) -> dict[str, float]:
    """Least, middle and greatest."""
    return {"min": min(values), "median": statistics.median(values), "max": max(values)}


def within(scores: list[RowScore], groups: dict[str, list[int]]) -> float:
    """Mean distance between two halves of the same value's rows: what chance and topic make."""
    halves = [(indices[::2], indices[1::2]) for indices in groups.values() if len(indices) > 1]
    return statistics.mean(
        statistics.mean(total_variation(*(load_of([scores[i] for i in half]) for half in pair)))
        for pair in halves
    )


def routing_of(scores: list[RowScore], groups: dict[str, list[int]]) -> dict[str, Any]:
    """Total variation of expert loads between the values of a facet and all rows, and by pair.

    A pair's distance is the mean over layers; ``pairs`` is their matrix in the order of
    ``against_all``.
    """
    everything = load_of(scores)
    loads = {value: load_of([scores[i] for i in indices]) for value, indices in groups.items()}
    against_all = {value: total_variation(load, everything) for value, load in loads.items()}
    pairs = [
        [statistics.mean(total_variation(one, other)) for other in loads.values()]
        for one in loads.values()
    ]
    apart = [pairs[i][j] for i, j in itertools.combinations(range(len(pairs)), 2)]
    return {
        "against_all_by_layer": against_all,
        "pairs": pairs,
        "pair_spread": spread(apart),
        "halves_of_one_value": within(scores, groups),
    }


def experts_of(scores: list[RowScore], model: MiniMaxM2ForCausalLM) -> dict[str, Any]:
    """How evenly the experts are used over all rows, and the routers' correction biases."""
    load = load_of(scores)
    biases = torch.stack([layer.mlp.e_score_correction_bias for layer in model.model.layers])
    return {
        "dead": int((load == 0).sum()),
        "experts": load.numel(),
        "least_share_of_mean": float(load.min() * load.shape[1]),
        "greatest_share_of_mean": float(load.max() * load.shape[1]),
        "load": load.tolist(),
        "bias_min": float(biases.min()),
        "bias_max": float(biases.max()),
    }


def measure(folder: Path, rows: Rows, seen: Rows, seed: int) -> dict[str, Any]:
    """Held-out losses and routing of the checkpoint in the folder, by every facet.

    Computed in float32 from the saved bfloat16 weights. ``untrained`` is the routing of the model
    that training began with: loads differ by language before anything is learnt, because tokens do.

    ``calibration`` is the loss on a sample of the ``seen`` rows, which it was trained on, to show
    how much of the text the model has learnt by heart.
    """
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    model = MiniMaxM2ForCausalLM.from_pretrained(folder, dtype=torch.float32)
    scorer = PassageScorer(model, tokenizer)
    fresh = PassageScorer(new_model(model.config, seed), tokenizer).scores(rows, chat=True)
    sample = seen[:: max(1, len(seen) // SEEN_ROWS)][:SEEN_ROWS]
    chat, plain = scorer.scores(rows, chat=True), scorer.scores(rows, chat=False)
    groups = {facet: by_value(rows, facet) for facet in FACETS}
    known = {"spoken_language": SPOKEN_LANGUAGES, "programming_language": PROGRAMMING_LANGUAGES}
    return {
        "held_out": loss_summary(chat, plain),
        "calibration": loss_summary(
            scorer.scores(sample, chat=True), scorer.scores(sample, chat=False)
        ),
        "loss": {
            facet: {
                value: loss_summary([chat[i] for i in indices], [plain[i] for i in indices])
                for value, indices in values.items()
            }
            for facet, values in groups.items()
        },
        "not_measured": {
            facet: [value for value in values if value not in groups[facet]]
            for facet, values in known.items()
        },
        "routing": {facet: routing_of(chat, values) for facet, values in groups.items()},
        "untrained": {
            facet: {"pair_spread": routing_of(fresh, values)["pair_spread"]}
            for facet, values in groups.items()
        },
        "experts": experts_of(chat, model),
    }
