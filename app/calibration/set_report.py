"""What came out of a build: sums over the rows as they are written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from app.calibration.built_set import FacetAmount, Report, SetAside, SliceReport
from app.calibration.composition import Composition
from app.calibration.index import CorpusIndex
from app.calibration.spec import SetSpec
from app.calibration.totals import Shortfall
from app.facets import Facet


class Tally:
    """Sums over the rows of a set."""

    def __init__(self) -> None:
        self.rows = 0
        self.tokens = 0
        self.cut_tokens = 0
        self.prompt_tokens = 0
        self.duplicates = 0
        self.sequences = 0
        self.facets: dict[Facet, dict[str, FacetAmount]] = {facet: {} for facet in Facet}
        self.slices: dict[str, Counter[str]] = {}

    def add(self, entries: Sequence[Mapping[str, Any]]) -> None:
        """Count a batch of rows."""
        for entry in entries:
            tokens = len(entry["input_ids"])
            lost = entry["full_tokens"] - tokens
            self.rows += 1
            self.tokens += tokens
            self.cut_tokens += lost
            self.prompt_tokens += entry["prompt_tokens"]
            self.duplicates += entry["duplicate_of"] is not None
            self.sequences = max(self.sequences, (entry["sequence"] or 0) + 1)
            part = self.slices.setdefault(entry["slice"], Counter())
            part.update(rows=1, tokens=tokens, cut_tokens=lost, cut_rows=lost > 0)
            self._count_facets(entry)

    def _count_facets(self, entry: Mapping[str, Any]) -> None:
        for facet in Facet:
            if (value := entry[facet.value]) is not None:
                amount = self.facets[facet].setdefault(value, FacetAmount())
                amount.rows += 1
                amount.fed_tokens += entry["fed_tokens"]
        if entry["named_tokens"] or entry["named_value"] is not None:
            values = self.facets[Facet(entry["named_facet"])]
            amount = values.setdefault(entry["named_value"], FacetAmount())
            amount.named_rows += 1
            amount.named_tokens += entry["named_tokens"]


def report_of(
    spec: SetSpec,
    composition: Composition,
    index: CorpusIndex,
    tally: Tally,
    refused: Sequence[SetAside],
) -> Report:
    """The report of a build; ``refused`` are chosen rows whose prompt or length did not work out,
    beside those the chat template refuses."""
    set_aside = [
        SetAside(source=row.source, row=row.row_id, reason=row.reason)
        for row in index.refused
        if row.wanted_by(spec)
    ]
    set_aside += refused
    nothing: Counter[str] = Counter()
    return Report(
        rows=tally.rows,
        tokens=tally.tokens,
        cut_tokens=tally.cut_tokens,
        prompt_tokens=tally.prompt_tokens,
        duplicates=tally.duplicates,
        sequences=tally.sequences if spec.packing else None,
        left_out=index.left_out(spec),
        facets={facet: dict(sorted(values.items())) for facet, values in tally.facets.items()},
        slices=[
            SliceReport.of(part, tally.slices.get(part.name, nothing))
            for part in composition.slices
        ],
        set_aside=set_aside,
        shortfalls=[Shortfall.model_validate(quota) for quota in composition.shortfalls],
        warnings=[*composition.warnings, *_warnings(tally, set_aside)],
    )


def _warnings(tally: Tally, set_aside: Sequence[SetAside]) -> Iterator[str]:
    if set_aside:
        reason, count = Counter(row.reason for row in set_aside).most_common(1)[0]
        yield (
            f"{len(set_aside):,} rows were set aside because they cannot be rendered; "
            f"{count:,} of them because {reason}."
        )
    if tally.duplicates:
        yield (
            f"{tally.duplicates:,} rows say the same or nearly the same as another row of the set."
        )
