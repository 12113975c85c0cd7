"""What a composition shows of itself before a row is read: languages it names and does not ask for,
sizes in rows. The audit of a built set looks at the content; this looks at labels alone."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping

from pydantic import BaseModel

from app.audit.findings import count_of, listed, verdict_of
from app.audit.report import Finding
from app.audit.row import DETECTED
from app.calibration.spec import SetSpec, Slice
from app.facets import Facet
from app.formatting import counted
from app.set_files.imported_set import ImportWarning
from app.sources.catalogue import Source
from app.sources.entry import SourceEntry

# What the rows of each source are labelled with, by facet.
Labels = Mapping[str, Mapping[Facet, Collection[str]]]


class PlanAudit(BaseModel):
    """What can be said of a composition that was not built. ``rows`` are those asked for in
    numbers; ``warnings`` are those of the file it was read from."""

    is_planned: bool = True
    set_id: str | None = None
    name: str
    slices: int
    rows: int
    verdict: str
    findings: list[Finding]
    named_but_absent: dict[Facet, list[str]]
    warnings: list[ImportWarning] = []


def audit_plan(spec: SetSpec, labels: Labels) -> PlanAudit:
    """Hold what prompts name against what the slices' rows are labelled with."""
    absent = {facet: _named(spec, facet) - _labelled(spec, facet, labels) for facet in DETECTED}
    found = [*_named_but_absent(spec, absent), *_counted_in_rows(spec)]
    return PlanAudit(
        name=spec.name,
        slices=len(spec.slices),
        rows=sum(part.rows for part in spec.slices if isinstance(part.rows, int)),
        verdict=verdict_of(found) if found else "Nothing in the composition speaks against it.",
        findings=found,
        named_but_absent={facet: sorted(values) for facet, values in absent.items()},
    )


def _named(spec: SetSpec, facet: Facet) -> set[str]:
    return {value for part in spec.slices for value in _named_by(part, facet)}


def _named_by(part: Slice, facet: Facet) -> tuple[str, ...]:
    return part.prompt.values if part.prompt and part.prompt.facet is facet else ()


def _labelled(spec: SetSpec, facet: Facet, labels: Labels) -> set[str]:
    """The values that some slice may take rows of."""
    values: set[str] = set()
    for part in spec.slices:
        sources = part.sources or spec.sources
        there = {v for source in sources for v in labels.get(source, {}).get(facet, ())}
        asked = part.facets.get(facet)
        values |= there & set(asked) if asked else there
    return values


def _named_but_absent(spec: SetSpec, absent: Mapping[Facet, set[str]]) -> Iterator[Finding]:
    for facet, missing in absent.items():
        naming = [part for part in spec.slices if missing.intersection(_named_by(part, facet))]
        if not naming:
            continue
        values = sorted(missing)
        rows = sum(part.rows for part in naming if isinstance(part.rows, int))
        asked = counted(rows, "row") if rows else counted(len(naming), "slice")
        yield Finding(
            kind="named_but_absent",
            severity="error",
            sentence=(
                f"{count_of(facet, len(values))} {'is' if len(values) == 1 else 'are'} named by "
                f"prompts of {asked}, and no row the set may take is labelled so: "
                f"{listed(facet, values)}."
            ),
            advice="Add sources with rows in these languages; a prompt does not make tokens.",
            facet=facet,
            values=values,
        )


def _counted_in_rows(spec: SetSpec) -> Iterator[Finding]:
    sized = [part for part in spec.slices if part.rows is not None]
    if sized:
        yield Finding(
            kind="counted_in_rows",
            severity="note",
            sentence=(
                f"{len(sized):,} of {counted(len(spec.slices), 'slice')} "
                f"{'is' if len(sized) == 1 else 'are'} sized in rows: one long row outweighs many "
                "short ones."
            ),
            advice="Give tokens or a weight where a share matters; the audit of the built set "
            "shows the tokens.",
        )


def labels_of(sources: Iterable[SourceEntry | Source]) -> Labels:
    """What the rows of some sources are labelled with, or are to be once they are fetched."""
    labels: dict[str, dict[Facet, set[str]]] = {}
    for source in sources:
        for facet in Facet:
            tag = source.tags.get(facet)
            values = source.values_of(facet) if isinstance(source, Source) else [tag] * bool(tag)
            known = labels.setdefault(source.name, {facet: set() for facet in Facet})
            known[facet].update(value for value in values if value)
    return labels
