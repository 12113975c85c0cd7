"""Evaluated rows for tests: whatever a test does not say is plain."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from app.quality.evaluated_rows import EvaluatedRows


def rows_of(
    kl: Sequence[float],
    tokens: Sequence[int],
    layers: int = 2,
    row_ids: Sequence[str] | None = None,
    **facets: Sequence[str],
) -> EvaluatedRows:
    """Rows with these sums of KL over these tokens; routing unmoved, losses of one a token."""
    names = [str(name) for name in row_ids or range(len(kl))]
    given = {name: list(values) for name, values in facets.items()}
    rows = EvaluatedRows.empty("held-out", names, given, list(range(layers)))
    rows.kl[:], rows.tokens[:] = kl, tokens
    rows.loss_base[:] = rows.loss[:] = rows.same_top[:] = tokens
    rows.routed[:] = np.asarray(tokens) + 1
    rows.router_same[:] = rows.routed[:, None]
    return rows
