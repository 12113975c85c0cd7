"""What each expert's down projection is given, from the inputs of the experts module.

The up → down mappings of experts need the magnitudes and the Gram matrix of down's inputs. They
are computed here after the layer's calibration pass, some experts at a time, from the one tensor
all experts of the layer read: nothing of the size tokens × experts is ever kept. With statistics
of all tokens every batch goes through every expert, in the shapes stock runs, so that the sums
are the same to the last bit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from app.recipes.schema import Statistics
from workers.engine.awq.experts_forward import ExpertsInput, down_input
from workers.engine.awq.gram import InputStatistics


@dataclass(frozen=True)
class TokenChoice:
    """Which tokens an expert learns from: ``statistics`` and ``floor`` of the recipe."""

    statistics: Statistics = "all"
    floor: int = 0


@dataclass(frozen=True)
class RouterScores:
    """The scores a router gave to its tokens: ``weight`` [experts, hidden] and ``bias`` [experts]
    or None make the logits; ``normalised`` when a token's scores are a softmax over experts."""

    weight: torch.Tensor
    bias: torch.Tensor | None
    normalised: bool

    def of(self, hidden: torch.Tensor, experts: torch.Tensor) -> torch.Tensor:
        """Scores float32 [tokens, len(experts)] of ``hidden`` [tokens, hidden] for some experts,
        comparable between the tokens of one expert."""
        logits = torch.nn.functional.linear(hidden.float(), self.weight.float())
        if self.bias is not None:
            logits = logits + self.bias.float()
        if self.normalised:
            logits = logits.log_softmax(dim=-1)
        return logits[:, experts]


def routed_counts(inputs: Sequence[ExpertsInput], experts: int) -> torch.Tensor:
    """How many tokens are routed to each expert, int64 [experts]."""
    counts = torch.zeros(experts, dtype=torch.int64)
    for each in inputs:
        bounds = torch.tensor(each.dispatch.bounds)
        counts += bounds.diff()
    return counts


def topped_up(
    inputs: Sequence[ExpertsInput], counts: torch.Tensor, floor: int, scores: RouterScores
) -> dict[int, list[torch.Tensor]]:
    """For each expert with fewer than ``floor`` routed tokens, the tokens to add, one int64 tensor
    a batch: those whose router score for it is highest among the tokens not routed to it.

    An expert gets fewer when the set has fewer tokens. The choice does not depend on how tokens
    are cut into batches; of equal scores the earlier token wins.
    """
    starved = torch.nonzero(counts < floor).flatten()
    if not len(starved):
        return {}
    missed = []
    for each in inputs:
        found = scores.of(each.hidden, starved.to(each.hidden.device))
        for at, expert in enumerate(starved.tolist()):
            found[each.dispatch.tokens_of(expert), at] = -torch.inf
        missed.append(found.cpu())
    joined = torch.cat(missed)
    ends = torch.tensor([len(each) for each in missed]).cumsum(0)
    chosen: dict[int, list[torch.Tensor]] = {}
    for at, expert in enumerate(starved.tolist()):
        wanted = floor - int(counts[expert])
        best = joined[:, at].argsort(descending=True, stable=True)[:wanted]
        best = best[joined[best, at] > -torch.inf].sort().values
        parts = torch.tensor_split(best, torch.searchsorted(best, ends[:-1]))
        starts = [0, *ends.tolist()]
        chosen[expert] = [part - start for part, start in zip(parts, starts, strict=False)]
    return chosen


def down_statistics(
    experts: Any,
    members: Sequence[int],
    inputs: Sequence[ExpertsInput],
    choice: TokenChoice,
    added: dict[int, list[torch.Tensor]],
) -> Iterator[InputStatistics]:
    """The statistics of down's inputs of each expert in ``members``, in their order. An expert
    that no token reached, and that was not topped up, has a count of 0."""
    for expert in members:
        down = experts[expert].down_proj
        found = InputStatistics.empty(down.in_features, down.weight.device)
        for at, batch in enumerate(inputs):
            tokens = _tokens_for(batch, expert, choice, added, at)
            if len(tokens):
                found.add(down_input(experts[expert], tokens))
        yield found


def _tokens_for(
    batch: ExpertsInput,
    expert: int,
    choice: TokenChoice,
    added: dict[int, list[torch.Tensor]],
    at: int,
) -> torch.Tensor:
    if choice.statistics == "all":
        return batch.hidden
    tokens = batch.dispatch.tokens_of(expert)
    if expert in added:
        tokens = torch.cat([tokens, added[expert][at].to(tokens.device)])
    return batch.hidden.index_select(0, tokens)
