"""What follows from an audit's numbers: sentences in the order of their weight, each with what to
do about it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from app.audit.report import Audit, Confusion, Finding, Severity
from app.audit.row import DETECTED, NOT_KNOWN
from app.facets import Facet, label_of
from app.formatting import counted, percent

# From these shares on a number is worth a sentence.
MISLABELLED = {Facet.SPOKEN_LANGUAGE: 0.02, Facet.PROGRAMMING_LANGUAGE: 0.1}
# ... or when so many rows of one label are most of them one other thing.
ONE_LABEL_ROWS = 5
SURELY_MISLABELLED = 0.2
CUT = 0.05
CUT_BADLY = 0.25
BOILERPLATE = 0.2
LONGEST = 0.1
LEAST_ROWS = 20
UNLABELLED = 0.01
UNTOLD = 0.05
LISTED = 8

_ORDER: dict[Severity, int] = {"error": 0, "warning": 1, "note": 2}


def findings_of(audit: Audit) -> list[Finding]:
    """Every finding, the gravest first."""
    found = [
        *_leaks(audit), *_named_but_absent(audit), *_asked_in_vain(audit),
        *_named_more_than_fed(audit), *_mislabelled(audit), *_cut(audit), *_duplicates(audit),
        *_one_long_row(audit), *_boilerplate(audit), *_unlabelled(audit),
        *_not_checked(audit),
    ]  # fmt: skip
    return sorted(found, key=lambda finding: _ORDER[finding.severity])


def verdict_of(findings: Sequence[Finding]) -> str:
    """The report in one sentence."""
    errors = sum(finding.severity == "error" for finding in findings)
    warnings = sum(finding.severity == "warning" for finding in findings)
    if errors:
        return f"The set is not what it says: {counted(errors, 'error')} to mend before a job."
    if warnings:
        return f"The set is what it says, with {counted(warnings, 'warning')} to look at."
    return "The set is what it says."


def _leaks(audit: Audit) -> Iterator[Finding]:
    if audit.leaks:
        rows = counted(len(audit.leaks), "held-out row")
        says = "says" if len(audit.leaks) == 1 else "say"
        yield Finding(
            kind="leak",
            severity="error",
            sentence=f"{rows} {says} the same as rows of the set: an evaluation would flatter it.",
            advice="Drop the rows, or drop duplicates and build the set anew.",
            rows=[leak.row for leak in audit.leaks[:LISTED]],
        )


def _named_but_absent(audit: Audit) -> Iterator[Finding]:
    for facet in DETECTED:
        absent = audit.named_but_absent[facet]
        if not absent:
            continue
        truths = [truth for truth in audit.facets[facet] if truth.value in absent]
        rows = sum(truth.named_only_rows for truth in truths)
        verb = "is" if len(absent) == 1 else "are"
        yield Finding(
            kind="named_but_absent",
            severity="error",
            sentence=(
                f"{count_of(facet, len(absent))} {verb} named by prompts of {counted(rows, 'row')} "
                f"and never fed: {listed(facet, absent)}. The set has no token of "
                f"{'it' if len(absent) == 1 else 'them'}."
            ),
            advice="Add a slice with rows in these languages; a prompt does not make tokens.",
            facet=facet,
            values=absent,
            rows=[row for truth in truths for row in truth.examples][:LISTED],
        )


def _asked_in_vain(audit: Audit) -> Iterator[Finding]:
    for facet, values in audit.asked_in_vain.items():
        if values:
            yield Finding(
                kind="asked_in_vain",
                severity="warning",
                sentence=(
                    f"The composition asks for {count_of(facet, len(values))} that no source has: "
                    f"{listed(facet, values)}."
                ),
                advice="Add a source that has rows of it, or take it out of the slice.",
                facet=facet,
                values=values,
            )


def _named_more_than_fed(audit: Audit) -> Iterator[Finding]:
    for facet in DETECTED:
        partly = [
            truth
            for truth in audit.facets[facet]
            if truth.found_tokens and 2 * truth.named_only_rows > truth.named_rows
        ]
        if partly:
            values = sorted(truth.value for truth in partly)
            rows = sum(truth.named_only_rows for truth in partly)
            yield Finding(
                kind="named_more_than_fed",
                severity="warning",
                sentence=(
                    f"{count_of(facet, len(values))} more often named than fed: prompts of "
                    f"{counted(rows, 'row')} ask for {listed(facet, values)}, and those rows "
                    "have none."
                ),
                advice="Count on the tokens found, not on the labels; add rows in these languages.",
                facet=facet,
                values=values,
                rows=[row for truth in partly for row in truth.examples][:LISTED],
            )


def _mislabelled(audit: Audit) -> Iterator[Finding]:
    for agreement in audit.agreement:
        facet = agreement.facet
        confusions = [one for one in audit.confusions if one.facet is facet]
        if not confusions:
            continue
        compared = agreement.same + agreement.not_told_apart + agreement.different
        share = agreement.different / compared
        worst = max(confusions, key=lambda one: one.rows)
        whole = _is_most_of_its_label(audit, worst)
        errs = facet is Facet.PROGRAMMING_LANGUAGE and not whole and share < MISLABELLED[facet]
        yield Finding(
            kind="mislabelled",
            severity="error"
            if share > SURELY_MISLABELLED
            else "warning"
            if whole or share >= MISLABELLED[facet]
            else "note",
            sentence=(
                f"{agreement.different:,} of {compared:,} rows with a "
                f"{facet.label.lower()} look like something else, most of all "
                f"{label_of(facet, worst.label)} that looks like {label_of(facet, worst.found)} "
                f"({counted(worst.rows, 'row')})."
            ),
            advice=(
                "Detection errs in about one row of code in twenty: look at them before you "
                "doubt the label."
                if errs
                else "Look at the rows below; correct the source's tags where the label is wrong."
            ),
            facet=facet,
            values=sorted({one.label for one in confusions}),
            rows=worst.examples,
        )


def _is_most_of_its_label(audit: Audit, confusion: Confusion) -> bool:
    truths = audit.facets[confusion.facet]
    labelled = next(t.labelled_rows for t in truths if t.value == confusion.label)
    return confusion.rows >= ONE_LABEL_ROWS and 2 * confusion.rows > labelled


def _cut(audit: Audit) -> Iterator[Finding]:
    for part in audit.slices:
        if part.cut_share >= CUT:
            yield Finding(
                kind="cut",
                severity="warning" if part.cut_share >= CUT_BADLY else "note",
                sentence=(
                    f"{part.name}: {percent(part.cut_share)} of its tokens are cut off, in "
                    f"{part.cut_rows:,} of {counted(part.rows, 'row')}."
                ),
                advice="Raise the maximum length, or take shorter rows.",
                slice=part.name,
            )


def _duplicates(audit: Audit) -> Iterator[Finding]:
    if audit.duplicate_rows:
        yield Finding(
            kind="duplicates",
            severity="warning",
            sentence=(
                f"{counted(audit.duplicate_rows, 'row')} of {audit.rows:,} "
                f"{'says' if audit.duplicate_rows == 1 else 'say'} the same as another."
            ),
            advice="Drop duplicates in the composition: their tokens go to other rows.",
            rows=[row for group in audit.duplicates for row in group.rows][:LISTED],
        )


def _one_long_row(audit: Audit) -> Iterator[Finding]:
    lengths = audit.lengths
    if audit.rows >= LEAST_ROWS and lengths.longest_share >= LONGEST:
        yield Finding(
            kind="one_long_row",
            severity="warning",
            sentence=(
                f"The longest {counted(lengths.longest_rows, 'row')} of {audit.rows:,} "
                f"{'has' if lengths.longest_rows == 1 else 'have'} "
                f"{percent(lengths.longest_share)} of all tokens."
            ),
            advice="Give slices tokens instead of rows, or lower the maximum length.",
        )


def _boilerplate(audit: Audit) -> Iterator[Finding]:
    boilerplate = audit.boilerplate
    if boilerplate.share >= BOILERPLATE:
        repeated = boilerplate.repeated_tokens / max(1, audit.tokens)
        yield Finding(
            kind="boilerplate",
            severity="warning" if repeated >= BOILERPLATE / 2 else "note",
            sentence=(
                f"{percent(boilerplate.share)} of the tokens say the same in every row: "
                f"{boilerplate.template_tokens:,} are the chat template's, "
                f"{boilerplate.repeated_tokens:,} lines that repeat."
            ),
            advice="Take longer rows, or vary the system prompts and requests.",
        )


def _unlabelled(audit: Audit) -> Iterator[Finding]:
    for facet in DETECTED:
        values = audit.fed_but_unlabelled[facet]
        truths = [
            truth
            for truth in audit.facets[facet]
            if truth.value in values and truth.unlabelled_tokens >= UNLABELLED * audit.tokens
        ]
        if truths:
            tokens = sum(truth.unlabelled_tokens for truth in truths)
            yield Finding(
                kind="fed_but_unlabelled",
                severity="note",
                sentence=(
                    f"{listed(facet, [truth.value for truth in truths])}: {tokens:,} tokens are "
                    f"fed in rows without a {facet.label.lower()}, more than in rows labelled so."
                ),
                advice="Tag their source, so that quotas and the evaluation's slices can use them.",
                facet=facet,
                values=[truth.value for truth in truths],
            )


def _not_checked(audit: Audit) -> Iterator[Finding]:
    if audit.held_out_rows is None:
        yield Finding(
            kind="not_checked",
            severity="note",
            sentence="Leaks to the held-out part were not looked for: its rows are not here.",
            advice="Audit the set where its sources are.",
        )
    unknown = sum(
        truth.found_tokens or 0
        for truth in audit.facets[Facet.PROGRAMMING_LANGUAGE]
        if truth.value == NOT_KNOWN
    )
    if unknown >= UNTOLD * audit.tokens:
        yield Finding(
            kind="not_checked",
            severity="note",
            sentence=f"{unknown:,} tokens of code are in a language that could not be told.",
            advice="Their labels are neither confirmed nor contradicted.",
        )


def count_of(facet: Facet, count: int) -> str:
    """So many values of a facet: ``3 spoken languages``."""
    return counted(count, facet.label.lower())


def listed(facet: Facet, values: Sequence[str]) -> str:
    """The first values of a facet by their labels, and how many more there are."""
    named = [label_of(facet, value) for value in values[:LISTED]]
    more = len(values) - len(named)
    return ", ".join(named) + (f" and {more:,} more" if more > 0 else "")
