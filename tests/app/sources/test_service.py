"""The catalogue: adding, changing, finding, deleting, and what a set keeps."""

from __future__ import annotations

import gzip
import io
import json
from pathlib import Path

import pytest
from sqlmodel import Session

from app.calibration.service import save_set
from app.calibration.spec import SetSpec, Slice
from app.errors import CompositionRefused, Conflict, NotFound, Refused
from app.facets import Facet
from app.row_formats.formatters import FORMATTERS, Formatter, require_formatter
from app.settings import Settings
from app.sources import service
from app.sources.adding import NewSource, add_folder, add_hub, add_upload
from app.sources.built_in import built_in_entries
from app.sources.catalogue import entries_of, get_entry, get_source, list_sources
from app.sources.entry import HubOrigin, SourceEntry
from app.sources.rows import iterate_rows, rows_file
from app.sources.search import SourceQuery, matching
from app.sources.starter_corpus import PACKS, load_rows, pack_file
from app.sources.store import load_manifest

CHAT = [
    {"messages": [{"role": "user", "content": f"Question {i}"},
                  {"role": "assistant", "content": f"Answer {i}"}], "lang": "fr"}
    for i in range(30)
]  # fmt: skip


def upload(
    session: Session,
    settings: Settings,
    file_name: str = "talk.jsonl.gz",
    rows: list | None = None,
    **fields: object,
) -> SourceEntry:
    given = CHAT if rows is None else rows
    packed = gzip.compress("\n".join(json.dumps(row) for row in given).encode())
    new = NewSource.model_validate(fields)
    return add_upload(session, settings, new, file_name, io.BytesIO(packed))


def test_the_catalogue_begins_with_the_corpus_and_the_seeds_data_sets(
    session: Session, settings: Settings
) -> None:
    sources = list_sources(session, settings)
    assert [source.name for source in sources[: len(PACKS)]] == list(PACKS)
    assert len(sources) == len(PACKS) + 50
    assert len({source.place for source in sources if source.kind == "hub"}) == 48
    for entry in built_in_entries().values():
        if isinstance(entry.origin, HubOrigin):
            require_formatter(entry.formatter, entry.columns, entry.params)
            assert entry.tags[Facet.DOMAIN]


def test_a_pack_counts_its_rows_and_licences(session: Session, settings: Settings) -> None:
    source = get_source(session, settings, "permissive")
    rows = load_rows(["permissive"], split=None)
    assert source.rows == len(rows) == sum(source.splits.values())
    assert set(source.licenses) == {row["license"] for row in rows}
    assert source.size_bytes == pack_file("permissive").stat().st_size
    assert list(source.licenses.values()) == sorted(source.licenses.values(), reverse=True)
    assert source.notice
    assert "notice" not in source.model_dump()


def test_an_upload_is_detected_and_its_rows_are_here(session: Session, settings: Settings) -> None:
    entry = upload(session, settings, domain="humanities")
    assert (entry.name, entry.formatter, entry.columns) == (
        "talk", "chat_completion", ("messages",),
    )  # fmt: skip
    source = get_source(session, settings, "talk")
    assert (source.state, source.rows, source.kind) == ("ready", 30, "upload")
    assert source.facets[Facet.SPOKEN_LANGUAGE] == {"fr": 30}
    assert source.facets[Facet.DOMAIN] == {"humanities": 30}


def test_what_is_refused_leaves_nothing(session: Session, settings: Settings) -> None:
    for fields, said in (
        ({"rows": [{"a": {}, "b": {}}]}, "No formatter fits the columns a, b"),
        ({"rows": [{"a": {}}]}, "no row fits: row 1: the text is an object, not text"),
        ({"rows": []}, "has no rows"),
        ({"formatter": "chat_completion", "columns": ("mesages",)}, "the nearest is 'messages'"),
        ({"formatter": "chat_completoin"}, "the nearest is 'chat_completion'"),
        ({"name": "../up"}, "name: '../up' cannot be used: give 1 to 80"),
        ({"encoding": "utf-99"}, "no text encoding 'utf-99'"),
    ):
        rows = fields.pop("rows", None)
        with pytest.raises(Refused) as refused:
            upload(session, settings, rows=rows, **fields)
        assert said in refused.value.sentence
    assert not settings.sources_dir.exists() or list(settings.sources_dir.iterdir()) == []
    assert len(list_sources(session, settings)) == len(PACKS) + 50


def test_a_taken_name_is_a_conflict_and_the_first_stays(
    session: Session, settings: Settings
) -> None:
    upload(session, settings)
    with pytest.raises(Conflict, match="There is a source 'talk' already"):
        upload(session, settings, rows=[{"text": "other"}])
    with pytest.raises(Conflict, match="'permissive' already"):
        upload(session, settings, file_name="permissive.jsonl.gz")
    assert rows_file("talk", settings.sources_dir).rows == 30


def test_another_licence_leaves_what_rows_say_of_theirs_and_what_was_counted(
    session: Session, settings: Settings
) -> None:
    said = {"license": "MIT"}
    rows = [CHAT[0] | said, CHAT[1], CHAT[0], {"messages": [], "lang": "fr"}]
    upload(session, settings, rows=rows, license="MIT")
    before = load_manifest(rows_file("talk", settings.sources_dir))
    service.change(session, settings, "talk", {"license": "Apache-2.0"})
    now = load_manifest(rows_file("talk", settings.sources_dir))
    assert now.licenses == {"Apache-2.0": 1, "MIT": 1}
    counts = (now.read, now.rows, now.repeated, now.set_aside)
    assert counts == (before.read, before.rows, before.repeated, before.set_aside) == (4, 2, 1, 1)


def test_new_tags_are_on_the_rows_at_once_and_their_own_stay(
    session: Session, settings: Settings
) -> None:
    upload(session, settings)
    before = rows_file("talk", settings.sources_dir)
    tags = {Facet.SPOKEN_LANGUAGE: "de", Facet.DOMAIN: "law"}
    service.change(session, settings, "talk", {"tags": tags})
    after = rows_file("talk", settings.sources_dir)
    [row, *_] = [row for batch in iterate_rows(after) for row in batch]
    assert (row["spoken_language"], row["domain"]) == ("fr", "law")
    assert after.revision != before.revision
    assert before.path.is_file()
    service.change(session, settings, "talk", {"tags": {}})
    assert rows_file("talk", settings.sources_dir) == before


def test_another_formatter_reads_the_file_again(session: Session, settings: Settings) -> None:
    upload(session, settings, rows=[{"prompt": "a", "answer": "b"}])
    changes = {"formatter": "raw_text", "columns": ("answer",)}
    service.change(session, settings, "talk", changes)
    file = rows_file("talk", settings.sources_dir)
    [row] = [row for batch in iterate_rows(file) for row in batch]
    assert (row["messages"], row["text"]) == (None, "b")
    with pytest.raises(Refused, match="no column 'ansver'; the nearest is 'answer'"):
        service.change(session, settings, "talk", {"columns": ("ansver",)})
    assert get_entry(session, "talk").columns == ("answer",)


def test_a_source_that_a_set_uses_is_not_deleted(session: Session, settings: Settings) -> None:
    upload(session, settings)
    part = Slice(name="all", weight=1)
    spec = SetSpec(name="Mine", slices=(part,), token_budget=1000, sources=("talk",))
    saved = save_set(session, spec)
    with pytest.raises(Conflict, match="'talk' is used by the set 'Mine'"):
        service.delete(session, settings, "talk")
    assert rows_file("talk", settings.sources_dir).rows == 30
    session.delete(saved)
    session.commit()
    built = settings.sets_dir / "abc"
    built.mkdir(parents=True)
    identity = {"sources": [{"name": "talk", "revision": "x"}]}
    (built / "manifest.json").write_text(json.dumps({"identity": identity}))
    with pytest.raises(Conflict, match="used by the built set abc"):
        service.delete(session, settings, "talk")
    (built / "manifest.json").unlink()
    service.delete(session, settings, "talk")
    assert not (settings.sources_dir / "talk").exists()
    with pytest.raises(NotFound):
        get_entry(session, "talk")


def test_what_comes_with_calibrant_is_disabled_not_deleted(
    session: Session, settings: Settings
) -> None:
    with pytest.raises(Conflict, match="comes with Calibrant: disable it"):
        service.delete(session, settings, "ultrachat-200k")
    service.change(session, settings, "ultrachat-200k", {"enabled": False})
    assert not get_source(session, settings, "ultrachat-200k").in_use
    with pytest.raises(CompositionRefused, match="'ultrachat-200k' is disabled"):
        entries_of(session, ["permissive", "ultrachat-200k"])
    service.change(session, settings, "ultrachat-200k", {"enabled": True})
    assert len(entries_of(session, ["permissive", "ultrachat-200k"])) == 2


def test_an_unknown_source_names_the_nearest(session: Session) -> None:
    with pytest.raises(
        NotFound, match="no source 'ultrachat-200'; the nearest is 'ultrachat-200k'"
    ):
        get_entry(session, "ultrachat-200")


def test_sources_are_found_by_facet_kind_state_and_words(
    session: Session, settings: Settings, tmp_path: Path
) -> None:
    upload(session, settings)
    (tmp_path / "notes.md").write_text("Some words.\n")
    add_folder(session, settings, NewSource(folder=str(tmp_path / "notes.md"), domain="law"))
    add_hub(
        session,
        NewSource(hub_id="me/Big_Set", formatter="sharegpt", columns=("conversations",)),
    )
    sources = list_sources(session, settings)

    def names(**query: object) -> list[str]:
        found = matching(sources, SourceQuery.model_validate(query))
        return [source.name for source in found]

    assert names(kind="upload") == ["talk"]
    assert names(kind="folder", domain="law") == ["notes"]
    assert names(q="BIG me/") == ["big-set"]
    assert names(spoken_language="fr", state="ready") == [*PACKS, "talk"]
    assert names(domain="medical", state="not fetched") == [
        "medical-reasoning-sft-gpt-oss-120b", "pubmed-summarization",
    ]  # fmt: skip
    assert len(names()) == len(sources)


def test_a_data_set_of_the_hub_needs_its_formatter(session: Session) -> None:
    with pytest.raises(Refused, match="Say the formatter of the data set; there are: chat_com"):
        add_hub(session, NewSource(hub_id="me/set"))
    with pytest.raises(Refused, match="'a/b/c' cannot be used: give the id of a data set"):
        add_hub(session, NewSource(hub_id="a/b/c", formatter="raw_text", columns=("text",)))


@pytest.mark.parametrize(("name", "rule"), FORMATTERS.items())
def test_without_columns_a_formatter_takes_its_usual_ones(
    session: Session, name: str, rule: Formatter
) -> None:
    entry = add_hub(session, NewSource(hub_id="me/set", formatter=name))
    assert entry.columns == rule.usual
    assert rule.least <= len(entry.columns) <= rule.most


def test_entries_of_an_imported_set_are_kept_once(session: Session) -> None:
    entry = get_entry(session, "ultrachat-200k")
    mine = entry.model_copy(update={"name": "mine"})
    assert service.add_all(session, [entry, mine]) == ["mine"]
    assert service.add_all(session, [entry, mine]) == []
