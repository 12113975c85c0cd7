"""Which tokens an expert learns from, whatever way they are cut into batches."""

from __future__ import annotations

import pytest
import torch

from tests.engine.tiny_models import MOE, tiny_model
from workers.engine.awq.expert_statistics import (
    RouterScores,
    TokenChoice,
    down_statistics,
    routed_counts,
    topped_up,
)
from workers.engine.awq.experts_forward import Dispatch, ExpertsInput, down_input, is_plain
from workers.engine.models.loading import linearize

EXPERTS, TOP_K, TOKENS = 6, 2, 40
GENERATOR = torch.Generator().manual_seed(0)
HIDDEN = torch.randn(TOKENS, 64, generator=GENERATOR)
SCORES = RouterScores(torch.randn(EXPERTS, 64, generator=GENERATOR) * 0.3, None, normalised=True)


def routed(hidden: torch.Tensor) -> torch.Tensor:
    scores = SCORES.of(hidden, torch.arange(EXPERTS)).clone()
    scores[:, 4] -= 1.0  # starved
    scores[:, 5] -= 100.0  # reached by nothing
    return scores.topk(TOP_K).indices


def inputs_of(*lengths: int) -> list[ExpertsInput]:
    assert sum(lengths) == TOKENS
    parts = HIDDEN.split(list(lengths))
    return [ExpertsInput(part, Dispatch.of(routed(part), EXPERTS)) for part in parts]


def in_the_set(chosen: list[torch.Tensor], lengths: tuple[int, ...]) -> set[int]:
    starts = [sum(lengths[:at]) for at in range(len(lengths))]
    return {start + int(t) for start, part in zip(starts, chosen, strict=True) for t in part}


def test_counts_are_the_routers() -> None:
    counts = routed_counts(inputs_of(40), EXPERTS)
    assert torch.equal(counts, torch.bincount(routed(HIDDEN).flatten(), minlength=EXPERTS))
    assert int(counts[5]) == 0


@pytest.mark.parametrize("floor", [5, 12, 100])
def test_the_nearest_misses_fill_up_to_the_floor(floor: int) -> None:
    inputs = inputs_of(40)
    counts = routed_counts(inputs, EXPERTS)
    added = topped_up(inputs, counts, floor, SCORES)
    assert set(added) == {expert for expert in range(EXPERTS) if counts[expert] < floor}
    scores = SCORES.of(HIDDEN, torch.arange(EXPERTS))
    for expert, (tokens,) in added.items():
        own = set(inputs[0].dispatch.tokens_of(expert).tolist())
        chosen = set(tokens.tolist())
        assert not own & chosen
        assert len(own | chosen) == min(floor, TOKENS)
        left = set(range(TOKENS)) - own - chosen
        if left and chosen:
            worst = min(float(scores[token, expert]) for token in chosen)
            assert worst >= max(float(scores[token, expert]) for token in left)


def test_the_choice_does_not_depend_on_the_batches() -> None:
    whole, cut = (40,), (7, 1, 20, 12)
    counts = routed_counts(inputs_of(*whole), EXPERTS)
    assert torch.equal(counts, routed_counts(inputs_of(*cut), EXPERTS))
    one = topped_up(inputs_of(*whole), counts, 15, SCORES)
    other = topped_up(inputs_of(*cut), counts, 15, SCORES)
    for expert in one:
        assert in_the_set(one[expert], whole) == in_the_set(other[expert], cut)


def test_nobody_starved_needs_nothing() -> None:
    inputs = inputs_of(40)
    assert topped_up(inputs, torch.full((EXPERTS,), 99), 10, SCORES) == {}


@pytest.mark.parametrize("choice", [TokenChoice("all"), TokenChoice("routed", 12)])
def test_statistics_are_those_of_the_tokens_chosen(choice: TokenChoice) -> None:
    model = linearize(tiny_model(MOE["minimax_m2"]()))
    experts = model.get_submodule("model.layers.0.mlp.experts")
    assert is_plain(experts[0])
    inputs = inputs_of(25, 15)
    added = topped_up(inputs, routed_counts(inputs, EXPERTS), choice.floor, SCORES)
    with torch.no_grad():
        found = list(down_statistics(experts, range(EXPERTS), inputs, choice, added))
        for expert, statistics in enumerate(found):
            tokens = torch.arange(TOKENS)
            if choice.statistics == "routed":
                own = torch.cat([routed(HIDDEN).eq(expert).any(dim=1).nonzero().flatten()])
                extra = in_the_set(added[expert], (25, 15)) if expert in added else set()
                tokens = torch.tensor(sorted({*own.tolist(), *extra}))
            seen = down_input(experts[expert], HIDDEN[tokens])
            assert int(statistics.count) == len(tokens)
            torch.testing.assert_close(statistics.absolute_sum, seen.abs().sum(0))
            torch.testing.assert_close(statistics.gram, seen.T @ seen, atol=1e-4, rtol=1e-4)
