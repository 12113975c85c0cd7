from __future__ import annotations

import pytest
from pydantic import ValidationError

from app.facets import Facet
from app.sources.entry import SourceEntry


def hub(**origin: object) -> SourceEntry:
    return SourceEntry.model_validate(
        {"name": "ultrachat", "origin": {"kind": "hub", "id": "HuggingFaceH4/ultrachat"} | origin}
    )


@pytest.mark.parametrize("name", ["../up", "a/b", "", ".hidden", "Ultra", "a" * 81, "a\n", "ü"])
def test_a_name_is_one_folder(name: str) -> None:
    with pytest.raises(ValidationError):
        SourceEntry.model_validate({"name": name, "origin": {"kind": "starter"}})


@pytest.mark.parametrize("name", ["../../x", "a/b/c", "https://x", "a b", "-x"])
def test_a_hub_id_is_an_owner_and_a_name(name: str) -> None:
    with pytest.raises(ValidationError):
        hub(id=name)


def test_a_relative_folder_is_refused() -> None:
    with pytest.raises(ValidationError, match="whole path"):
        SourceEntry.model_validate({"name": "x", "origin": {"kind": "folder", "path": "rows"}})


def test_the_recipe_follows_what_rows_depend_on() -> None:
    one = hub()
    assert hub(revision="main").recipe == one.recipe
    assert one.model_copy(update={"title": "Other", "enabled": False}).recipe == one.recipe
    for other in (hub(split="test"), hub(seed=1), hub(rows_limit=None), hub(subset="x")):
        assert other.recipe != one.recipe
    assert one.model_copy(update={"formatter": "sharegpt"}).recipe != one.recipe


def test_an_entry_reads_back_as_it_was() -> None:
    entry = hub(split="train_sft", streaming=True)
    assert SourceEntry.model_validate_json(entry.model_dump_json()) == entry


def test_a_tag_is_the_value_that_rows_of_its_language_carry() -> None:
    tags = {"programming_language": "c#", "spoken_language": "pt-BR", "domain": "General chat"}
    entry = SourceEntry.model_validate(
        {"name": "a", "origin": {"kind": "hub", "id": "a/b"}, "tags": tags}
    )
    assert entry.tags == {
        Facet.PROGRAMMING_LANGUAGE: "C#",
        Facet.SPOKEN_LANGUAGE: "pt",
        Facet.DOMAIN: "general-chat",
    }
