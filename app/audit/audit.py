"""The audit: what a calibration set is labelled with against what is in it.

Pure: rows in, a report out. The rows are read once, so memory grows by a signature and a few
numbers for each row and not by its text. The counting is here, the sentences are in
:mod:`app.audit.findings`.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from app.audit.findings import findings_of, verdict_of
from app.audit.repeated_lines import RepeatedLines
from app.audit.report import (
    Agreement,
    Audit,
    Boilerplate,
    Confusion,
    DuplicateGroup,
    RoleTokens,
    RowLeak,
    SliceLoss,
    SourceShare,
    ValueTruth,
)
from app.audit.row import (
    DETECTED,
    NOT_KNOWN,
    AuditedRow,
    Detect,
    RowTruth,
    truth_of,
)
from app.audit.row_lengths import lengths_of
from app.calibration.duplicates import groups, leaks, signatures, similarity
from app.facets import Facet, label_of

FORMAT = 4
BATCH_ROWS = 256
EXAMPLES = 5
MOST_GROUPS = 500
MOST_LEAKS = 500
MOST_CONFUSIONS = 200


@dataclass(frozen=True)
class HeldOut:
    """The held-out part: the id and the MinHash signature (uint32 ``[rows, PERMUTATIONS]``) of
    every row; ``calibration`` are the signatures of the set's rows in their order, of the words
    that stand in the sources on both sides, whatever a template made of them."""

    row_ids: Sequence[str]
    signatures: NDArray[np.uint32]
    calibration: NDArray[np.uint32]


def audit(
    rows: Iterable[AuditedRow],
    detect: Detect,
    *,
    set_id: str = "",
    name: str = "",
    algorithm: str = "",
    held_out: HeldOut | None = None,
    asked_in_vain: Mapping[Facet, Sequence[str]] | None = None,
) -> Audit:
    """The report of some rows, read once. ``detect`` tells what a text is, ``algorithm`` in which
    way; ``held_out`` is what the set is looked at for leaks to, ``asked_in_vain`` what the
    composition asked for and no source has."""
    since = time.perf_counter()
    counted = _Counted()
    remaining = iter(rows)
    while batch := list(islice(remaining, BATCH_ROWS)):
        counted.add(batch, detect)
    report = counted.report(set_id, name, held_out, asked_in_vain or {})
    seconds = round(time.perf_counter() - since, 2)
    return report.model_copy(update={"algorithm": algorithm, "seconds": seconds})


@dataclass
class _Slice:
    rows: int = 0
    tokens: int = 0
    cut_rows: int = 0
    cut_tokens: int = 0


@dataclass
class _Counted:
    """Sums over the rows read so far."""

    row_ids: list[str] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    full_lengths: list[int] = field(default_factory=list)
    sketches: list[NDArray[np.uint32]] = field(default_factory=list)
    values: dict[Facet, dict[str, ValueTruth]] = field(
        default_factory=lambda: {facet: {} for facet in Facet}
    )
    agreement: dict[Facet, Agreement] = field(
        default_factory=lambda: {facet: Agreement(facet=facet) for facet in DETECTED}
    )
    confusions: dict[tuple[Facet, str, str], Confusion] = field(default_factory=dict)
    roles: dict[str, list[int]] = field(default_factory=lambda: defaultdict(lambda: [0, 0]))
    lines: RepeatedLines = field(default_factory=RepeatedLines)
    slices: dict[str, _Slice] = field(default_factory=lambda: defaultdict(_Slice))
    sources: dict[str, list[int]] = field(default_factory=lambda: defaultdict(lambda: [0, 0]))

    def add(self, batch: Sequence[AuditedRow], detect: Detect) -> None:
        """Count some rows."""
        self.sketches.append(signatures(row.words for row in batch))
        for row in batch:
            self.row_ids.append(row.row_id)
            self.lengths.append(row.tokens)
            self.full_lengths.append(row.full_tokens)
            self._add_amounts(row)
            self._add_turns(row)
            truth = truth_of(row, detect)
            self._add_labels(row)
            self._add_named(row, truth)
            self._add_found(row, truth)
            for facet in DETECTED:
                self._compare(row, truth, facet)

    def _add_amounts(self, row: AuditedRow) -> None:
        part = self.slices[row.slice]
        part.rows += 1
        part.tokens += row.tokens
        part.cut_rows += row.full_tokens > row.tokens
        part.cut_tokens += row.full_tokens - row.tokens
        self.sources[row.source][0] += 1
        self.sources[row.source][1] += row.tokens

    def _add_turns(self, row: AuditedRow) -> None:
        for turn in row.turns:
            self.roles[turn.role][0] += 1
            self.roles[turn.role][1] += turn.tokens
        self.lines.add(row)

    def _value(self, facet: Facet, value: str) -> ValueTruth:
        label = "Code, not told" if value == NOT_KNOWN else label_of(facet, value)
        return self.values[facet].setdefault(value, ValueTruth(value=value, label=label))

    def _add_labels(self, row: AuditedRow) -> None:
        for facet in Facet:
            value = row.labels.get(facet)
            if value:
                truth = self._value(facet, value)
                truth.labelled_rows += 1
                truth.labelled_tokens += row.content_tokens

    def _add_named(self, row: AuditedRow, found: RowTruth) -> None:
        for facet, value in sorted(found.named):
            truth = self._value(facet, value)
            truth.named_rows += 1
            # where the row's label says so too, a contradiction is one of the label
            if facet in DETECTED and value != row.labels.get(facet) and found.lacks(facet, value):
                truth.named_only_rows += 1
                truth.named_only_tokens += row.content_tokens
                _example(truth.examples, row)

    def _add_found(self, row: AuditedRow, found: RowTruth) -> None:
        for (facet, value, role), tokens in found.roles.items():
            by_role = self._value(facet, value).found_by_role
            by_role[role] = by_role.get(role, 0) + tokens
        for facet in DETECTED:
            for value, tokens in found.content[facet].items():
                truth = self._value(facet, value)
                truth.found_rows = (truth.found_rows or 0) + 1
                truth.found_tokens = (truth.found_tokens or 0) + tokens
                if not row.labels.get(facet) and value != NOT_KNOWN and found.holds(facet, value):
                    truth.unlabelled_rows += 1
                    truth.unlabelled_tokens += tokens

    def _compare(self, row: AuditedRow, found: RowTruth, facet: Facet) -> None:
        label, agreement = row.labels.get(facet), self.agreement[facet]
        if not label:
            return
        most = _most(found, facet)
        if label == found.most(facet) or found.holds(facet, label):
            if label in found.could_be and len(found.could_be) > 1:
                agreement.not_told_apart += 1
            else:
                agreement.same += 1
        elif most is None:
            agreement.unknown += 1
        else:
            agreement.different += 1
            key = (facet, label, most)
            confusion = self.confusions.setdefault(
                key,
                Confusion(facet=facet, label=label, found=most, rows=0, tokens=0, examples=[]),
            )
            confusion.rows += 1
            confusion.tokens += row.content_tokens
            _example(confusion.examples, row)

    def report(
        self,
        set_id: str,
        name: str,
        held_out: HeldOut | None,
        asked_in_vain: Mapping[Facet, Sequence[str]],
    ) -> Audit:
        """Everything that was counted, and what follows from it."""
        tokens = sum(self.lengths)
        sketches = np.concatenate(self.sketches) if self.sketches else signatures([])
        same = self._duplicates(sketches)
        leaking = leaks(held_out.calibration, held_out.signatures) if held_out else []
        made = Audit(
            set_id=set_id,
            name=name,
            rows=len(self.row_ids),
            tokens=tokens,
            verdict="",
            findings=[],
            facets=self._facets(),
            agreement=list(self.agreement.values()),
            confusions=sorted(
                self.confusions.values(), key=lambda c: (-c.tokens, c.facet, c.label, c.found)
            )[:MOST_CONFUSIONS],
            named_but_absent=self._named_but_absent(),
            fed_but_unlabelled=self._fed_but_unlabelled(),
            asked_in_vain={facet: sorted(asked_in_vain.get(facet, ())) for facet in Facet},
            roles=self._roles(tokens),
            boilerplate=self._boilerplate(tokens),
            lengths=lengths_of(self.lengths, self.full_lengths),
            slices=self._slices(tokens),
            sources=self._sources(tokens),
            duplicate_rows=sum(len(group.rows) - 1 for group in same),
            duplicates=same[:MOST_GROUPS],
            held_out_rows=len(held_out.row_ids) if held_out else None,
            leaks=[
                RowLeak(
                    row=self.row_ids[leak.calibration],
                    held_out=held_out.row_ids[leak.held_out],
                    similarity=round(leak.similarity, 3),
                )
                for leak in leaking[:MOST_LEAKS]
                if held_out is not None
            ],
        )
        findings = findings_of(made)
        changed = {"findings": findings, "verdict": verdict_of(findings)}
        return made.model_copy(update=changed)

    def _facets(self) -> dict[Facet, list[ValueTruth]]:
        for facet in DETECTED:
            for truth in self.values[facet].values():
                truth.found_rows, truth.found_tokens = (
                    truth.found_rows or 0,
                    truth.found_tokens or 0,
                )
        return {
            facet: sorted(
                filter(_is_something, values.values()),
                key=_by_weight,
            )
            for facet, values in self.values.items()
        }

    def _named_but_absent(self) -> dict[Facet, list[str]]:
        return {
            facet: sorted(
                value
                for value, truth in self.values[facet].items()
                if truth.named_only_rows and not truth.found_tokens
            )
            for facet in DETECTED
        }

    def _fed_but_unlabelled(self) -> dict[Facet, list[str]]:
        return {
            facet: sorted(
                value
                for value, truth in self.values[facet].items()
                if truth.unlabelled_tokens > truth.labelled_tokens
            )
            for facet in DETECTED
        }

    def _roles(self, tokens: int) -> list[RoleTokens]:
        words = sum(count for _, count in self.roles.values())
        counts = {**self.roles, "template": [len(self.row_ids), max(0, tokens - words)]}
        return [
            RoleTokens(role=role, turns=turns, tokens=count, share=count / max(1, tokens))
            for role, (turns, count) in sorted(counts.items(), key=lambda item: -item[1][1])
        ]

    def _boilerplate(self, tokens: int) -> Boilerplate:
        template = max(0, tokens - sum(count for _, count in self.roles.values()))
        repeated, lines = self.lines.repeated()
        return Boilerplate(
            template_tokens=template,
            repeated_tokens=repeated,
            share=(template + repeated) / max(1, tokens),
            lines=lines,
        )

    def _slices(self, tokens: int) -> list[SliceLoss]:
        return [
            SliceLoss(
                name=name,
                rows=part.rows,
                tokens=part.tokens,
                share=part.tokens / max(1, tokens),
                cut_rows=part.cut_rows,
                cut_tokens=part.cut_tokens,
                cut_share=part.cut_tokens / max(1, part.tokens + part.cut_tokens),
            )
            for name, part in self.slices.items()
        ]

    def _sources(self, tokens: int) -> list[SourceShare]:
        return [
            SourceShare(name=name, rows=rows, tokens=count, share=count / max(1, tokens))
            for name, (rows, count) in sorted(self.sources.items(), key=lambda item: -item[1][1])
        ]

    def _duplicates(self, sketches: NDArray[np.uint32]) -> list[DuplicateGroup]:
        leaders = groups(sketches)
        members: dict[int, list[int]] = defaultdict(list)
        for row in np.flatnonzero(np.bincount(leaders, minlength=len(leaders))[leaders] > 1):
            members[int(leaders[row])].append(int(row))
        found = [
            DuplicateGroup(
                rows=[self.row_ids[row] for row in rows],
                similarities=[
                    round(float(value), 3) for value in similarity(sketches[rows], sketches[leader])
                ],
                tokens=sum(self.lengths[row] for row in rows),
            )
            for leader, rows in members.items()
        ]
        return sorted(found, key=lambda group: (-len(group.rows), -group.tokens, group.rows))


def _most(found: RowTruth, facet: Facet) -> str | None:
    """What most of a row's content is, in words where it is of another kind than the facet."""
    own = found.most(facet)
    if own == NOT_KNOWN:
        return None
    if own is not None:
        return own
    if facet is Facet.SPOKEN_LANGUAGE:
        other = found.most(Facet.PROGRAMMING_LANGUAGE)
        return f"code in {other}" if other and other != NOT_KNOWN else None
    other = found.most(Facet.SPOKEN_LANGUAGE)
    return f"text in {label_of(Facet.SPOKEN_LANGUAGE, other)}" if other else None


def _by_weight(truth: ValueTruth) -> tuple[bool, int, int, int, str]:
    """What there is most of first; code in no known language last."""
    amounts = -(truth.found_tokens or 0), -truth.labelled_tokens, -truth.named_rows
    return truth.value == NOT_KNOWN, *amounts, truth.value


def _is_something(truth: ValueTruth) -> bool:
    """Whether there is anything to say of a value: some words in it, a label, a prompt."""
    in_words = any(truth.found_by_role.values())
    return bool(truth.labelled_rows or truth.named_rows or in_words)


def _example(examples: list[str], row: AuditedRow) -> None:
    if len(examples) < EXAMPLES:
        examples.append(row.row_id)
