"""How far the quantized model is from the original, on rows that calibration did not see.

KL(original ‖ quantized) of the next-token distributions, in nats, from float32 logits and
log-softmax (``workers.engine.passes.head``) summed in float64. Each token that has a next token in
its row counts once. What is measured is summed by row and kept (``app.quality.evaluated_rows``);
the figures are made of that (``app.quality.divergence``).
"""

from __future__ import annotations

import numpy as np
import torch

from app.errors import CompositionRefused, NotFinite
from app.jobs.spec import Evaluation
from app.quality.divergence import evaluation_of
from app.quality.evaluated_rows import EvaluatedRows
from workers.engine.passes.head import Head
from workers.engine.passes.observation import Observed
from workers.engine.rows.batches import PackedBatch
from workers.engine.rows.calibration_rows import FACET_COLUMNS, CalibrationRows

LOGITS_A_CHUNK = 256
ROUTED_A_CHUNK = 4096


def compare(
    original: Observed, quantized: Observed, rows: CalibrationRows, seed: int = 0
) -> Evaluation:
    """The figures of :func:`measure`, when the rows are not kept."""
    return evaluation_of(measure(original, quantized, rows), seed)


def refuse_unpredictable(rows: CalibrationRows) -> None:
    """Raise CompositionRefused, before the long work, when no row has two tokens."""
    if not any(len(row.input_ids) > 1 for row in rows.rows):
        raise CompositionRefused("No held-out row has two tokens, so nothing can be predicted.")


@torch.no_grad()
def measure(original: Observed, quantized: Observed, rows: CalibrationRows) -> EvaluatedRows:
    """Compare what two models made of the same batches of the rows, row by row.

    Raises CompositionRefused when no row has two tokens, NotFinite for logits that are NaN or
    infinite.
    """
    refuse_unpredictable(rows)
    sums = EvaluatedRows.empty(
        rows.id,
        [row.row_id for row in rows.rows],
        {name: [row.facets.get(name, "") for row in rows.rows] for name in FACET_COLUMNS},
        [layer.index for layer in original.layers],
    )
    start = 0
    pairs = zip(original.batches, original.hidden, quantized.hidden, strict=True)
    for number, (batch, exact, found) in enumerate(pairs):
        _add_predictions(sums, batch, (original.head, exact), (quantized.head, found))
        tokens = slice(start, start + len(batch.row_of_token))
        _add_routing(sums, batch, number, tokens, original, quantized)
        start = tokens.stop
    return sums


def _add_predictions(
    sums: EvaluatedRows,
    batch: PackedBatch,
    original: tuple[Head, torch.Tensor],
    quantized: tuple[Head, torch.Tensor],
) -> None:
    """Add a batch, a few hundred positions at a time, so that the logits of a large vocabulary
    are never held for all of it."""
    last_of_row = torch.ones_like(batch.row_of_token, dtype=torch.bool)
    last_of_row[:-1] = batch.row_of_token[1:] != batch.row_of_token[:-1]
    positions = (~last_of_row).nonzero().flatten()
    for chunk in torch.split(positions, LOGITS_A_CHUNK):
        log_p = _log_probabilities(*original, chunk)
        log_q = _log_probabilities(*quantized, chunk)
        following = batch.input_ids[0, chunk + 1].to(log_p.device)[:, None]
        kl = (log_p.exp() * (log_p - log_q)).sum(dim=-1)
        rows = batch.row_of_token[chunk].numpy()
        _require_finite(sums, rows, kl, log_p)
        np.add.at(sums.tokens, rows, 1)
        for total, values in (
            (sums.kl, kl.double()),
            (sums.loss_base, -log_p.gather(1, following)[:, 0].double()),
            (sums.loss, -log_q.gather(1, following)[:, 0].double()),
            (sums.same_top, (log_p.argmax(dim=-1) == log_q.argmax(dim=-1)).long()),
        ):
            np.add.at(total, rows, values.cpu().numpy())


def _require_finite(
    sums: EvaluatedRows, rows: np.ndarray, kl: torch.Tensor, log_p: torch.Tensor
) -> None:
    wrong = ~kl.isfinite()
    if not bool(wrong.any()):
        return
    token = int(wrong.int().argmax())
    whose = "quantized" if bool(log_p[token].isfinite().all()) else "original"
    raise NotFinite(
        f"The logits of the {whose} model are NaN or infinite in held-out row "
        f"{sums.row_ids[rows[token]]}: its layers' outputs are finite, so it is the output head."
    )


def _log_probabilities(head: Head, hidden: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    return torch.log_softmax(head(hidden[positions]), dim=-1)


def _add_routing(
    sums: EvaluatedRows,
    batch: PackedBatch,
    number: int,
    tokens: slice,
    original: Observed,
    quantized: Observed,
) -> None:
    """Add, for each mixture, the tokens whose top-k set is the same in both models, and the KL of
    the routers' probabilities."""
    rows = batch.row_of_token.numpy()
    np.add.at(sums.routed, rows, 1)
    for position, sets in original.chosen[number].items():
        same = (sets == quantized.chosen[number][position]).all(dim=-1).numpy()
        np.add.at(sums.router_same[:, position], rows, same)
        if position not in original.router.seen:
            sums.router_kl[:, position] = np.nan
            continue
        for first in range(tokens.start, tokens.stop, ROUTED_A_CHUNK):
            part = slice(first, min(first + ROUTED_A_CHUNK, tokens.stop))
            log_p = original.router.log_probabilities(position, part)
            log_q = quantized.router.log_probabilities(position, part)
            kl = (log_p.exp() * (log_p - log_q)).sum(dim=-1).double().cpu().numpy()
            np.add.at(
                sums.router_kl[:, position],
                rows[part.start - tokens.start : part.stop - tokens.start],
                kl,
            )
