"""A quantizers YAML becomes a composition, and what is wrong with its method is said."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.calibration.spec import Prompt
from app.errors import Refused
from app.facets import DOMAINS, Facet
from app.set_files.imported_set import ImportedSet
from app.set_files.quantizers_yaml import domain_of_title
from app.set_files.reading import read_set_file
from app.sources.entry import FolderOrigin, HubOrigin, SourceEntry
from tests.app.set_files.samples import ENTRY, REAL, SECTIONS, SHORT, fifty_entries, file_of


def read(text: str, **more: Any) -> ImportedSet:
    return read_set_file(text, "set.yaml", **more)


def line_of(needle: str, text: str = SHORT) -> int:
    return next(n for n, line in enumerate(text.splitlines(), 1) if needle in line)


def said_at(found: ImportedSet, line: int) -> str:
    return " ".join(one.message for one in found.warnings if one.line == line)


def test_the_figures_of_a_file_of_the_seeds_size() -> None:
    document = read_set_file(fifty_entries(), "calibrate_fifty.yaml").as_json()
    counted = {
        key: len(document[key])
        for key in ("spoken_languages", "programming_languages", "categories")
    }
    assert counted == {"spoken_languages": 12, "programming_languages": 60, "categories": 15}
    assert document["categories"] == list(SECTIONS)
    figures = ("entries", "rows", "repositories", "max_seq_length", "seed", "name")
    assert [document[key] for key in figures] == [50, 590, 48, 8192, 42, "calibrate_fifty"]
    assert all(set(one) == {"line", "message"} for one in document["warnings"])


@pytest.mark.skipif(not REAL.is_file(), reason="the real file is not beside the repository")
def test_the_real_seed() -> None:
    text = REAL.read_text(encoding="utf-8")
    found = read_set_file(REAL.read_bytes(), REAL.name)
    document = found.as_json()
    figures = ("entries", "rows", "repositories", "max_seq_length", "seed")
    assert [document[key] for key in figures] == [50, 590, 48, 8192, 42]
    assert document["categories"] == list(SECTIONS)
    lengths = [len(document[f"{kind}_languages"]) for kind in ("spoken", "programming")]
    assert lengths == [12, 60]
    assert {"ar", "tr"} <= set(document["spoken_languages"])
    assert "COBOL" in document["programming_languages"]
    assert all(source.tags[Facet.DOMAIN] in DOMAINS for source in found.sources)
    assert "adds up to 328" in said_at(found, line_of("(336 samples)", text)).replace(
        "add ", "adds "
    )
    assert "about 6.7 of them are never drawn" in said_at(found, line_of("&programming_lang", text))
    for name in ("Team-ACE/ToolACE", "sr5434/CodegebraGPT_data"):
        assert "not imported" in said_at(found, line_of(name, text))


def test_one_slice_an_entry() -> None:
    found = read(SHORT)
    assert [(part.name, part.rows) for part in found.spec.slices] == [
        ("HuggingFaceH4/ultrachat_200k", 8),
        ("HuggingFaceH4/Multilingual-Thinking", 6),
        ("interstellarninja/hermes_reasoning_tool_use", 10),
        ("diversoailab/humaneval-rust", 20),
        ("nvidia/Llama-Nemotron-Post-Training-Dataset", 6),
        ("nvidia/Llama-Nemotron-Post-Training-Dataset · math", 5),
        ("ammarnasr/the-stack-rust-clean", 5),
    ]
    assert (found.spec.max_length, found.spec.seed, found.spec.token_budget) == (8192, 42, None)
    assert [part.sources for part in found.spec.slices] == [(s.name,) for s in found.sources]
    domains = [source.tags[Facet.DOMAIN] for source in found.sources]
    assert domains == [
        "general-chat", "multilingual", "tool-use", "code", "code", "code", "behaviour"
    ]  # fmt: skip
    first = found.sources[0].origin
    assert isinstance(first, HubOrigin)
    assert (first.id, first.split, first.streaming) == (
        "HuggingFaceH4/ultrachat_200k", "train_sft", True,
    )  # fmt: skip


def test_a_prefix_that_picks_is_dealt_and_fixed_words_are_a_prompt_too() -> None:
    found = read(SHORT)
    prompts = {part.name: part.prompt for part in found.spec.slices}
    assert prompts["HuggingFaceH4/Multilingual-Thinking"] == Prompt(
        template="Answer in {{ value }}\n***\n",
        facet=Facet.SPOKEN_LANGUAGE,
        values=("ar", "zh", "de"),
    )
    fixed = Prompt(template="Explain this code.\n***\n")
    assert prompts["ammarnasr/the-stack-rust-clean"] == fixed
    assert all(source.params == {} for source in found.sources)


def test_unknown_keys_are_kept_and_named() -> None:
    found = read(SHORT)
    assert found.spec.extra["calibration_set"]["packing_hint"] == "tight"
    assert found.spec.extra["calibration_set"]["_templates"] == {
        "forgotten": "Nobody uses {{ row.x }}"
    }
    assert found.spec.slices[2].extra["entry"] == {"trust_remote_code": True}
    assert "packing_hint" in said_at(found, line_of("packing_hint"))
    assert "no code of others" in said_at(found, line_of("trust_remote_code"))
    beside = read("other: [1]\n" + file_of({**ENTRY, "formatter_params": {"odd": 1}}))
    assert beside.spec.extra["document"] == {"other": [1]}
    assert beside.spec.slices[0].extra["formatter_params"] == {"odd": 1}


@pytest.mark.parametrize(
    ("needle", "said"),
    [
        ("programming_languages: &", "salted hash(): another mix in every run of the 20 rows"),
        ("programming_languages: &", "each to 5 rows"),
        ("programming_languages: &", "COBOL2: not in the vocabulary"),
        ("programming_languages: &", "autoescape"),
        ("spoken_languages: &", "cache's key"),
        ("forgotten: &", "No entry uses the template forgotten"),
        ("  datasets:", "takes the first rows of 7 data sets"),
        ("  datasets:", "one long row outweighs many short ones"),
        ("  datasets:", "No revision is pinned for 7 of 7"),
        ("  datasets:", "one row that does not fit"),
        ("# General chat (8 samples)", "categories stand in comments"),
        ("# Code / Programming (32 samples)", "says 32 rows for 'Code / Programming'; its entries"),
        ("Team-ACE/ToolACE", "not imported. The comment above it: Fail with minimax!"),
        ("split: math", "2 times (code on line"),
        ("formatter: sharegpt", "results of tools are fed as the user's words"),
        ("columns: [user]", "stands in the assistant's turn"),
        ("columns: [input]", "the turns before the answer"),
        ("formatter: chat_completion", "<think>"),
    ],
)
def test_each_trap_is_a_warning_at_its_line(needle: str, said: str) -> None:
    found = read(SHORT)
    line = line_of(needle)
    if needle == "split: math":
        line -= 2  # the entry's first
    assert said in said_at(found, line), said_at(found, line)


def test_named_and_not_fed_is_said_of_each_entry() -> None:
    said = [one for one in read(SHORT).warnings if "counted as named, not as fed" in one.message]
    lines = [n for n, line in enumerate(SHORT.splitlines(), 1) if "formatter_params" in line]
    assert [one.line for one in said] == lines[:2]


def test_all_rows_and_what_a_stream_means_by_it() -> None:
    found = read(file_of({**ENTRY, "num_samples": "all", "streaming": True}))
    assert (found.spec.slices[0].rows, found.rows) == ("all", 0)
    assert any("the first 256" in one.message for one in found.warnings)


def test_defaults_of_the_format() -> None:
    found = read(file_of(max_seq_length=None, seed=None, shuffle=False))
    assert (found.spec.max_length, found.spec.seed) == (4096, 42)
    assert found.spec.extra["calibration_set"] == {"shuffle": False}
    said = " ".join(one.message for one in found.warnings)
    assert "max_seq_length is missing" in said
    assert "seed is missing" in said
    assert "shuffle: false" in said


def test_keys_that_say_more_than_comments() -> None:
    tagged = {**ENTRY, "category": "My maths", "license": "MIT", "revision": "v1"}
    tagged["tags"] = {"spoken_language": "fr"}
    found = read("# Tool use (8 samples)\n" + file_of(tagged))
    (source,) = found.sources
    assert found.entries[0].category == "My maths"
    assert source.tags == {Facet.DOMAIN: "math", Facet.SPOKEN_LANGUAGE: "fr"}
    assert (source.license, source.origin.revision) == ("MIT", "v1")
    assert found.values(Facet.SPOKEN_LANGUAGE) == ["fr"]


def test_the_catalogues_entry_is_used_where_it_is_the_same() -> None:
    ours = SourceEntry(
        name="my-data",
        title="Mine",
        origin=HubOrigin(id="owner/data", rows_limit=50),
        columns=("messages",),
        formatter="chat_completion",
        tags={Facet.DOMAIN: "math"},
    )
    same = read(file_of(), known=[ours])
    assert same.sources == [ours]
    other = read(file_of({**ENTRY, "split": "test"}), known=[ours])
    assert [source.name for source in other.sources] == ["data"]
    taken = ours.model_copy(update={"name": "data"})
    assert [s.name for s in read(file_of({**ENTRY, "split": "x"}), known=[taken]).sources] == [
        "data-x"
    ]


def test_the_same_entry_twice_is_one_source_and_two_slices() -> None:
    found = read(file_of(ENTRY, {**ENTRY, "num_samples": 2}))
    assert len(found.sources) == 1
    assert [part.name for part in found.spec.slices] == ["owner/data", "owner/data · train"]
    assert any("no row is used twice" in one.message for one in found.warnings)


@pytest.mark.parametrize("name", ["fetch", "new", "permissive"])
def test_names_that_are_taken_by_others_are_not_given(name: str) -> None:
    found = read(file_of({**ENTRY, "dataset": f"owner/{name}"}))
    assert found.sources[0].name == f"{name}-train"


def test_a_folder_of_this_machine() -> None:
    found = read(file_of({**ENTRY, "dataset": "/data/chats"}))
    assert isinstance(found.sources[0].origin, FolderOrigin)
    assert found.sources[0].name == "chats"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"num_samples": -3}, "line 10, num_samples: -3 rows: give 1 to 100,000,000, or all."),
        ({"num_samples": 0}, "num_samples: 0 rows"),
        ({"num_samples": "8"}, "num_samples: '8' is a text: give a whole number of rows, or all."),
        ({"num_samples": True}, "num_samples: True is true or false"),
        ({"num_samples": 1.5}, "num_samples: 1.5 is a number"),
        ({"num_samples": None}, "num_samples: it is missing"),
        ({"dataset": None}, "line 5, dataset: it is missing."),
        ({"dataset": "a/b/c"}, "dataset: 'a/b/c': it is neither a data set of the hub"),
        ({"dataset": "../../etc/passwd"}, "dataset: '../../etc/passwd': it is neither"),
        ({"dataset": 7}, "dataset: 7 is a whole number, not a text: put it in quotes."),
        ({"split": None}, "split: it is missing."),
        ({"subset": ["x"]}, "subset: ['x'] is a list, not a text"),
        ({"columns": "messages"}, "columns: write it as a list: [messages]."),
        ({"columns": []}, "columns: Formatter 'chat_completion' takes one column"),
        ({"columns": ["a", "b"]}, "columns: Formatter 'chat_completion' takes one column"),
        ({"columns": [1]}, "columns: 1 is a whole number, not a column's name."),
        ({"formatter": "chat_completions"}, "the nearest is 'chat_completion'"),
        ({"formatter": None}, "formatter: it is missing."),
        ({"streaming": "yes"}, "streaming: 'yes' is a text: write true or false."),
        ({"formatter_params": "x"}, "formatter_params: 'x' is a text, not keys with values."),
        ({"tags": {"colour": "red"}}, "tags: 'colour' is no facet; there are spoken_language"),
        ({"tags": {"domain": 3}}, "tags: domain is 3: give one value as a text."),
        ({"calibrant": {"source": {"tgas": 1}}}, "tgas"),
    ],
)
def test_what_is_wrong_in_an_entry_is_said_with_line_and_field(
    change: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(Refused) as refused:
        read(file_of({**ENTRY, **change}))
    assert refused.value.sentence.startswith("set.yaml, line ")
    assert sentence in refused.value.sentence


@pytest.mark.parametrize(
    ("prefix", "sentence"),
    [
        (7, "prefix is 7, a whole number"),
        ("{{ ['a', 'b'][hash(row|string) % 3] }}", "picks from 2 names by % 3"),
        ("{{ rwo.x }}", "there are row and value"),
        ("{{ oops }", None),
        ("{% for x in range(9) %}{{ x }}", "line 1: Unexpected end of template"),
        ("{{ x" + "y" * 30_000 + "}}", "at most 20,000 characters"),
    ],
)
def test_prefixes_that_are_no_templates(prefix: Any, sentence: str | None) -> None:
    entry = {**ENTRY, "formatter": "raw_text", "formatter_params": {"prefix": prefix}}
    if sentence is None:  # plain words for the tool whose format it is
        (part,) = read(file_of(entry)).spec.slices
        assert part.prompt == Prompt(template='{{ "{{ oops }" }}')
        return
    with pytest.raises(Refused) as refused:
        read(file_of(entry))
    assert "line 11, formatter_params: " in refused.value.sentence
    assert sentence in refused.value.sentence


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "set.yaml is empty"),
        ("[1, 2]", "line 1: [1, 2] is a list; a set is a mapping"),
        ("calibration_set: other.yaml", "is a text, the name of another file: import that one"),
        ("calibration_set: 3", "line 1, calibration_set: 3 is a whole number"),
        ("calibration_set: {}", "datasets: it is missing or empty"),
        ("calibration_set: {datasets: 5}", "datasets: 5 is a whole number; give a list"),
        ("calibration_set: {datasets: [x]}", "datasets: 'x' is a text; an entry has keys"),
        (file_of(*[ENTRY] * 201), "201 entries are more than the 200"),
        (file_of(max_seq_length="8192"), "max_seq_length: '8192' is a text, not a whole number."),
        (file_of(max_seq_length=-1), "max_seq_length: -1 is not from 16 to 1,048,576."),
        (file_of(seed=-1), "seed: -1 is not from 0 to"),
        (file_of(shuffle=3), "shuffle: 3 is a whole number: write true or false."),
        (file_of(calibrant={"nmae": "x"}), "calibrant: nmae"),
        ("calibration_set:\n  seed: 1\n  seed: 2\n", "line 3, column 3: the key 'seed' stands on"),
        ("calibration_set: [", "set.yaml, line"),
        ("x" * 500_001, "at most 500,000"),
    ],
)
def test_what_is_no_set(text: str, sentence: str) -> None:
    with pytest.raises(Refused) as refused:
        read(text)
    assert sentence in refused.value.sentence


@pytest.mark.parametrize(
    ("title", "domain"),
    [
        *zip(
            SECTIONS,
            ("general-chat", "reasoning", "multilingual", "tool-use", "code", "math", "sciences",
             "medical", "finance", "business", "humanities", "creative-writing",
             "general-knowledge", "behaviour", "misc"),
            strict=True,
        ),
        ("DevOps", "devops"),
        ("how-to", "howto"),
        ("Gardening", None),
    ],
)  # fmt: skip
def test_titles_as_domains(title: str, domain: str | None) -> None:
    assert domain_of_title(title) == domain


def test_a_section_of_no_domain_is_said() -> None:
    text = file_of().replace("  - dataset", "  # Gardening (8 samples)\n  - dataset")
    found = read(text)
    assert found.sources[0].tags == {}
    assert any("'Gardening' is none of the domains" in one.message for one in found.warnings)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12) | st.dates(),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)
KEYS = st.sampled_from(
    [*ENTRY, "subset", "streaming", "formatter_params", "tags", "category", "calibrant", "x"]
)


def read_or_refuse(content: bytes) -> None:
    """Nothing but a set or a sentence comes of any file."""
    with suppress(Refused):
        found = read_set_file(content, "fuzz.yaml")
        assert found.as_json()["entries"] == len(found.spec.slices)


@given(st.binary(max_size=400))
def test_any_bytes(content: bytes) -> None:
    read_or_refuse(content)


@given(st.text(max_size=300))
def test_any_text(text: str) -> None:
    read_or_refuse(text.encode("utf-8", "replace"))


@settings(max_examples=300)
@given(at=st.integers(0, len(SHORT)), size=st.integers(0, 40), piece=st.text(max_size=8))
def test_a_seed_with_a_piece_replaced(at: int, size: int, piece: str) -> None:
    read_or_refuse((SHORT[:at] + piece + SHORT[at + size :]).encode("utf-8", "replace"))


@settings(max_examples=300)
@given(
    changes=st.dictionaries(KEYS, VALUES, max_size=4),
    keys=st.dictionaries(
        st.sampled_from(["max_seq_length", "seed", "shuffle", "_templates", "calibrant", "y"]),
        VALUES,
        max_size=3,
    ),
)
def test_any_values_in_the_fields(changes: dict[str, Any], keys: dict[str, Any]) -> None:
    read_or_refuse(file_of({**ENTRY, **changes}, **keys).encode())
