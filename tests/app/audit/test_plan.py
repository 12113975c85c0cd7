"""What a composition shows of itself: languages its prompts name and its sources are not
labelled with."""

from __future__ import annotations

from app.audit.plan import audit_plan, labels_of
from app.calibration.spec import Prompt, SetSpec, Slice
from app.calibration.starter import software_engineer
from app.facets import PROGRAMMING_LANGUAGES, SPOKEN_LANGUAGES, Facet
from app.sources.entry import HubOrigin, SourceEntry

STUBS = SourceEntry(
    name="stubs",
    origin=HubOrigin(id="someone/stubs"),
    tags={Facet.PROGRAMMING_LANGUAGE: "Rust", Facet.SPOKEN_LANGUAGE: "en"},
)
HASKELL = SourceEntry(
    name="haskell",
    origin=HubOrigin(id="someone/haskell"),
    tags={Facet.PROGRAMMING_LANGUAGE: "Haskell"},
)
ASK = Prompt(
    template="Solve it in {{ value }}:\n",
    facet=Facet.PROGRAMMING_LANGUAGE,
    values=("Haskell", "Rust", "Zig"),
)


def spec_of(*slices: Slice, sources: tuple[str, ...] = ("stubs",)) -> SetSpec:
    return SetSpec(name="s", slices=slices, sources=sources, token_budget=1000)


def test_a_language_that_only_a_prompt_names_is_absent() -> None:
    found = audit_plan(spec_of(Slice(name="code", rows=90, prompt=ASK)), labels_of([STUBS]))
    assert found.named_but_absent[Facet.PROGRAMMING_LANGUAGE] == ["Haskell", "Zig"]
    first = found.findings[0]
    assert (first.kind, first.severity) == ("named_but_absent", "error")
    assert "2 programming languages are named by prompts of 90 rows" in first.sentence
    assert found.verdict.startswith("The set is not what it says")
    assert found.rows == 90


def test_a_slice_that_takes_its_rows_feeds_it() -> None:
    spec = spec_of(
        Slice(name="code", weight=1, prompt=ASK),
        Slice(name="own", weight=1, facets={Facet.PROGRAMMING_LANGUAGE: ("Haskell",)}),
        sources=("stubs", "haskell"),
    )
    found = audit_plan(spec, labels_of([STUBS, HASKELL]))
    assert found.named_but_absent[Facet.PROGRAMMING_LANGUAGE] == ["Zig"]
    assert found.findings[0].sentence.startswith("1 programming language is named by prompts of 1")


def test_a_source_that_is_not_known_feeds_nothing() -> None:
    found = audit_plan(spec_of(Slice(name="code", rows="all", prompt=ASK)), labels_of([]))
    assert found.named_but_absent[Facet.PROGRAMMING_LANGUAGE] == ["Haskell", "Rust", "Zig"]


def test_labels_of_two_entries_of_a_source_are_joined() -> None:
    other = STUBS.model_copy(update={"tags": {Facet.PROGRAMMING_LANGUAGE: "Zig"}})
    labels = labels_of([STUBS, other])
    assert labels["stubs"][Facet.PROGRAMMING_LANGUAGE] == {"Rust", "Zig"}


def test_the_starter_composition_has_nothing_against_it() -> None:
    found = audit_plan(software_engineer(), labels_of([]))
    assert (found.findings, found.rows) == ([], 0)
    assert found.verdict == "Nothing in the composition speaks against it."


def test_the_seeds_two_rotations_name_everything_and_feed_nothing() -> None:
    """The two templates of the seed's calibration set, over sources without labels."""
    spoken = tuple(code for code in SPOKEN_LANGUAGES if code != "en")
    answer = Prompt(template="Answer in {{ value }}\n***\n", facet="spoken_language", values=spoken)
    solve = Prompt(
        template="Solve the following problem using {{ value }}\n***\n",
        facet="programming_language",
        values=PROGRAMMING_LANGUAGES,
    )
    spec = spec_of(
        Slice(name="thinking", rows=32, prompt=answer),
        Slice(name="humaneval-rust", rows=100, prompt=solve),
        Slice(name="euler", rows=30, prompt=solve),
    )
    found = audit_plan(spec, {})
    absent = found.named_but_absent
    assert (len(absent[Facet.SPOKEN_LANGUAGE]), len(absent[Facet.PROGRAMMING_LANGUAGE])) == (12, 60)
    sentences = [finding.sentence for finding in found.findings]
    assert "12 spoken languages are named by prompts of 32 rows" in sentences[0]
    assert "60 programming languages are named by prompts of 130 rows" in sentences[1]
    assert "3 of 3 slices are sized in rows" in sentences[2]
