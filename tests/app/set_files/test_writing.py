"""A set goes out and comes back as it was."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from app.calibration.spec import Prompt, SetSpec, Slice
from app.calibration.starter import software_engineer
from app.errors import Refused
from app.facets import DOMAINS, PROGRAMMING_LANGUAGES, SPOKEN_LANGUAGES, Facet
from app.set_files.reading import read_set_file
from app.set_files.writing import export_set
from app.sources.entry import FolderOrigin, HubOrigin, SourceEntry
from tests.app.set_files.samples import REAL, SHORT, fifty_entries

TEXTS = [SHORT, fifty_entries()]
if REAL.is_file():
    TEXTS.append(REAL.read_text(encoding="utf-8"))


@pytest.mark.parametrize("text", TEXTS)
def test_an_imported_file_comes_back_as_it_was(text: str) -> None:
    first = read_set_file(text, "first.yaml")
    sources = {source.name: source for source in first.sources}
    exported = export_set(first.spec, sources)
    assert (exported.format, exported.warnings) == ("quantizers", [])
    again = read_set_file(exported.text, "second.yaml")
    assert (again.spec, again.sources) == (first.spec, first.sources)
    assert [c.title for c in again.categories] == [c.title for c in first.categories]
    assert again.as_json()["rows"] == first.as_json()["rows"]


def test_what_is_written_is_what_the_other_tool_reads() -> None:
    first = read_set_file(SHORT, "first.yaml")
    text = export_set(first.spec, {source.name: source for source in first.sources}).text
    given, wanted = (yaml.safe_load(each)["calibration_set"] for each in (text, SHORT))
    for key in ("max_seq_length", "shuffle", "seed"):
        assert given[key] == wanted[key]
    fields = ("dataset", "subset", "split", "columns", "formatter", "num_samples", "streaming")
    for entry, seed in zip(given["datasets"], wanted["datasets"], strict=True):
        assert [entry.get(field) for field in fields] == [seed.get(field) for field in fields]
    prefixes = [entry.get("formatter_params", {}).get("prefix") for entry in given["datasets"]]
    assert prefixes[1] == wanted["datasets"][1]["formatter_params"]["prefix"]
    assert "# Tool use (10 samples)" in text


def test_a_template_of_several_entries_is_written_once() -> None:
    twice = SHORT.replace('"Explain this code.\\n***\\n"', "*programming_languages")
    first = read_set_file(twice, "first.yaml")
    text = export_set(first.spec, {source.name: source for source in first.sources}).text
    assert text.count("hash(row|string) % 4") == 1
    assert text.count("*programming_languages") == 2


def test_a_set_of_one_source_need_not_name_it_at_its_slices() -> None:
    source = SourceEntry(
        name="talk", origin=HubOrigin(id="owner/talk"), columns=("messages",),
        formatter="chat_completion",
    )  # fmt: skip
    spec = SetSpec(name="Talk", sources=("talk",), slices=(Slice(name="all", rows=5),))
    exported = export_set(spec, {"talk": source})
    assert (exported.format, exported.unsaid) == ("quantizers", "")
    (part,) = read_set_file(exported.text, "talk.yaml").spec.slices
    assert (part.name, part.rows, part.sources) == ("all", 5, ("talk",))


PROMPTS = st.one_of(
    st.none(),
    st.text(min_size=1, max_size=30).map(lambda words: {"template": words}),
    st.sampled_from(
        ["{{ row.text }}!", "{% if row.a %}x{% endif %}", "{{ 'a{{b' }}", "{{ 'x' }}"]
    ).map(lambda template: {"template": template}),
    st.lists(st.sampled_from(PROGRAMMING_LANGUAGES), min_size=1, unique=True).map(
        lambda values: {
            "template": "Use {{ value }}:\n",
            "facet": Facet.PROGRAMMING_LANGUAGE,
            "values": tuple(values),
        }
    ),
    st.lists(st.sampled_from([*SPOKEN_LANGUAGES, "it's", "tlh"]), min_size=1, unique=True).map(
        lambda values: {
            "template": "In {{ value }} {{ row.id }}",
            "facet": Facet.SPOKEN_LANGUAGE,
            "values": tuple(values),
        }
    ),
)  # fmt: skip
NAMES = st.text(min_size=1, max_size=12).filter(str.strip)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(NAMES, inner, max_size=2),
    max_leaves=4,
)
UNKNOWN = st.dictionaries(NAMES, PLAIN, max_size=2)


@st.composite
def sources_of_sets(draw: st.DrawFn, number: int) -> SourceEntry:
    formatter, columns = draw(
        st.sampled_from(
            [("raw_text", 1), ("chat_completion", 1), ("prompt_answer", 2), ("alpaca", 3)]
        )
    )
    prefix = draw(st.none() | NAMES) if formatter == "raw_text" else None
    return SourceEntry(
        name=f"s{number}",
        title=draw(st.text(max_size=5)),
        origin=draw(
            st.builds(
                HubOrigin,
                id=st.just(f"owner/data{number}"),
                subset=st.none() | NAMES,
                split=NAMES,
                revision=st.none() | st.just("v1"),
                streaming=st.booleans(),
                rows_limit=st.none() | st.integers(1, 5000),
            )
            | st.just(FolderOrigin(path=f"/data/{number}"))
        ),
        columns=tuple(draw(NAMES) for _ in range(columns)),
        formatter=formatter,
        params={"prefix": prefix} if prefix and "{" not in prefix else {},
        tags=draw(st.dictionaries(st.just(Facet.DOMAIN), st.sampled_from(list(DOMAINS)))),
        license=draw(st.none() | NAMES),
    )


@st.composite
def sets(draw: st.DrawFn) -> tuple[SetSpec, dict[str, SourceEntry]]:
    sources = [draw(sources_of_sets(number)) for number in range(draw(st.integers(1, 4)))]
    slices = []
    for number, source in enumerate(sources):
        prompt = draw(PROMPTS)
        category = draw(st.none() | st.sampled_from(["Math", "Tool use", "A (b)", "x\ny"]))
        entry = draw(UNKNOWN)
        extra: dict[str, Any] = {"category": category} if category else {}
        extra |= {"entry": entry} if entry else {}
        slices.append(
            Slice(
                name=draw(st.sampled_from([f"slice {number}", f"owner/data{number}"])),
                sources=(source.name,),
                prompt=Prompt(**prompt) if prompt else None,
                extra=extra,
                **draw(
                    st.sampled_from([{"rows": 5}, {"rows": "all"}, {"tokens": 100}, {"rows": 1}])
                ),
            )
        )
    kept = draw(UNKNOWN)
    spec = SetSpec(
        name=draw(NAMES),
        slices=tuple(slices),
        sources=tuple(source.name for source in sources),
        max_length=draw(st.integers(16, 9000)),
        seed=draw(st.integers(0, 2**62)),
        truncation=draw(st.sampled_from(["tail", "tail", "middle"])),
        extra={"calibration_set": kept} if kept else {},
    )
    return spec, {source.name: source for source in sources}


@settings(max_examples=200, deadline=None)
@given(sets())
def test_import_of_export_is_the_set(made: tuple[SetSpec, dict[str, SourceEntry]]) -> None:
    spec, sources = made
    exported = export_set(spec, sources)
    again = read_set_file(exported.text, "again.yaml")
    assert again.format == exported.format
    assert again.spec == spec
    assert {source.name: source for source in again.sources} == sources
    assert bool(exported.warnings) == (exported.format == "calibrant")


def test_what_the_format_cannot_say_is_named_and_written_in_ours() -> None:
    spec = software_engineer()
    exported = export_set(spec, {})
    assert exported.format == "calibrant"
    (warning,) = exported.warnings
    assert "token_budget is 60000" in warning
    assert "gives weight" in warning
    assert "more" in warning
    again = read_set_file(exported.text, "again.yaml")
    assert (again.spec, again.sources, again.format) == (spec, [], "calibrant")


def test_our_own_when_asked_for() -> None:
    first = read_set_file(SHORT, "first.yaml")
    sources = {source.name: source for source in first.sources}
    exported = export_set(first.spec, sources, own=True)
    assert (exported.format, exported.warnings) == ("calibrant", [])
    again = read_set_file(exported.text, "again.yaml", known=list(sources.values()))
    assert (again.spec, again.sources) == (first.spec, first.sources)
    assert [entry.names for entry in again.entries] == [entry.names for entry in first.entries]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "name: x\nslices: []\ntoken_budget: 5",
            "line 2, slices: [] has too few: give at least 1.",
        ),
        (
            "name: x\nslices:\n  - {name: a, rows: 1}\ntoken_budget: 0",
            "own.yaml, line 4, token_budget: 0 is too small: give at least 1.",
        ),
        (
            "name: x\nslices:\n  - name: a\n    tokens: -500",
            "own.yaml, line 4, slices.0.tokens: -500 is too small: give at least 1.",
        ),
        (
            "name: x\ntoken_budget: 9\nslices:\n  - {name: a, weight: 0}",
            "own.yaml, line 4, slices.0.weight: 0 is too small: give more than 0.",
        ),
        (
            "name: x\nslices:\n  - name: a\n    rows: -1",
            "line 4, slices.0.rows: -1 is too small: give at least 1 or 'all'.",
        ),
        (
            "name: x\nslices:\n  - {name: a, rows: 1}\ntoken_budgt: 1",
            "line 4, token_budgt: there is no such field; the nearest is 'token_budget'.",
        ),
        (
            "name: x\nslices:\n- {name: a, rows: 1}\nsources: [permisive]",
            "line 4, sources: there is no source 'permisive' in the catalogue, nor in the file's "
            "catalogue; the nearest is 'permissive'.",
        ),
        (
            "name: x\nslices:\n- name: a\n  rows: 1\n  prompt: {template: '{% for x in'}",
            "line 5, slices.0.prompt.template: The prompt template is not valid, line 1: unex",
        ),
        ("name: x\nslices:\n- {name: a, weight: 1}", "there is no token_budget"),
        ("catalogue: 5\nname: x", "line 1, catalogue: give a list of sources"),
        ("catalogue:\n- name: ../x\n  origin: {kind: hub, id: a/b}", "line 2, catalogue.0.name"),
        (
            "catalogue:\n- &a {name: x, origin: {kind: hub, id: a/b}}\n- *a\nname: y",
            "line 2, catalogue: the source 'x' stands twice",
        ),
        ("5", "line 1: 5 is a whole number; a set is a mapping"),
    ],
)
def test_what_is_wrong_in_our_own(text: str, sentence: str) -> None:
    with pytest.raises(Refused) as refused:
        read_set_file(text, "own.yaml")
    assert sentence in refused.value.sentence


def test_a_name_that_is_another_source_here_is_changed() -> None:
    first = read_set_file(SHORT, "first.yaml")
    sources = {source.name: source for source in first.sources}
    text = export_set(first.spec, sources, own=True).text
    taken = sources["humaneval-rust"].model_copy(update={"columns": ("other",)})
    again = read_set_file(text, "again.yaml", known=[taken])
    assert "humaneval-rust-train" in again.spec.sources
    assert again.spec.slices[3].sources == ("humaneval-rust-train",)
    (warning,) = again.warnings
    assert "humaneval-rust is another source in this catalogue" in warning.message


@pytest.mark.parametrize("odd", ["!!binary gICA", ".nan", ".inf", "2026-01-01", "!!set {b, a}"])
def test_what_json_cannot_write_is_kept_as_text(odd: str) -> None:
    part = f"{{name: x, rows: 1, extra: {{o: {odd}}}}}"
    text = f"name: a\nextra: {{odd: {odd}, 1: 2}}\nslices: [{part}]"
    spec = read_set_file(text, "odd.yaml").spec
    kept = json.loads(json.dumps(spec.model_dump(mode="json"), allow_nan=False))
    assert kept["extra"]["odd"] == kept["slices"][0]["extra"]["o"] is not None
    assert read_set_file(export_set(spec, {}, own=True).text, "again.yaml").spec == spec


@pytest.mark.parametrize(
    ("line", "field"),
    [("token_budget: yes", "token_budget"), ("seed: on", "seed"), ("min_tokens: no", "min_tokens")],
)
def test_truth_is_no_number(line: str, field: str) -> None:
    with pytest.raises(Refused, match=rf"line 2, {field}: \w+ is true or false: give a number"):
        read_set_file(f"name: a\n{line}\nslices: [{{name: x, rows: 1}}]", "set.yaml")
    with pytest.raises(Refused, match=r"slices\.0\.rows: True is true or false: give a number"):
        read_set_file("name: a\nslices: [{name: x, rows: yes}]", "set.yaml")


def test_values_are_the_vocabularys_however_they_are_written() -> None:
    values = "{programming_language: [c++, C++, PYTHON, 'c#'], spoken_language: [zh-Hans, pt-BR]}"
    (part,) = read_set_file(
        f"name: a\nslices: [{{name: x, rows: 1, facets: {values}}}]", "set.yaml"
    ).spec.slices
    assert part.facets == {
        Facet.PROGRAMMING_LANGUAGE: ("C++", "Python", "C#"),
        Facet.SPOKEN_LANGUAGE: ("zh", "pt"),
    }
