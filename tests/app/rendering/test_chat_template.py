from __future__ import annotations

import json
from datetime import date
from pathlib import Path

import pytest

from app.errors import ModelRefused
from app.rendering import chat_template
from app.rendering.chat_template import ChatTemplate, RowRefused, load_chat_template

HELLO = [{"role": "user", "content": "a < b && 'c'"}]


def render(source: str, messages: list[dict[str, object]] | None = None) -> str:
    return ChatTemplate(source, {"bos_token": "<s>"}).render(messages or HELLO)


def test_nothing_is_escaped() -> None:
    assert render("{{ bos_token }}{{ messages[0].content }}") == "<s>a < b && 'c'"
    assert render("{{ messages[0].content | tojson }}") == json.dumps("a < b && 'c'")


def test_blocks_are_trimmed_and_loops_can_break() -> None:
    source = """\
{% for n in [1, 2, 3] %}
    {% if n == 2 %}
        {% break %}
    {% endif %}
{{ n }}
{% endfor %}
"""
    assert render(source) == "1\n"


def test_generation_blocks_are_transparent() -> None:
    assert render("a{% generation %}b{{ bos_token }}{% endgeneration %}c") == "ab<s>c"


def test_the_date_does_not_move() -> None:
    assert render("{{ strftime_now('%Y-%m-%d') }}") == "2026-01-01"
    assert chat_template.TEMPLATE_DATE.date() == date(2026, 1, 1)


def test_a_refusal_keeps_the_templates_words() -> None:
    with pytest.raises(RowRefused, match="only user first"):
        render("{{ raise_exception('only user first') }}")


@pytest.mark.parametrize(
    "source",
    [
        "{{ messages.append(1) }}",
        "{{ ''.__class__.__mro__ }}{{ ''.__class__.__base__.__subclasses__() }}",
        "{% for a in range(10 ** 9) %}{% endfor %}",
        "{{ 1 / 0 }}",
        "{{ messages[0].content + 1 }}",
    ],
)
def test_what_a_sandbox_forbids_sets_the_row_aside(source: str) -> None:
    with pytest.raises(RowRefused):
        render(source)


def test_an_endless_render_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat_template, "MAX_CHARACTERS", 10_000)
    loops = (
        "{% for a in range(1000) %}{% for b in range(1000) %}xxxx{{ b }}{% endfor %}{% endfor %}"
    )
    with pytest.raises(RowRefused, match="characters"):
        render(loops)


def test_a_file_comes_before_the_configuration(tmp_path: Path) -> None:
    config = {"chat_template": "old", "bos_token": {"content": "<b>"}, "model_max_length": 5}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    assert load_chat_template(tmp_path).source == "old"
    (tmp_path / "chat_template.jinja").write_text("new {{ bos_token }}")
    template = load_chat_template(tmp_path)
    assert template.render(HELLO) == "new <b>"


def test_the_default_of_several_named_templates_is_taken(tmp_path: Path) -> None:
    named = [{"name": "tool_use", "template": "t"}, {"name": "default", "template": "d"}]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": named}))
    assert load_chat_template(tmp_path).source == "d"


def test_no_template_is_refused_with_advice(tmp_path: Path) -> None:
    with pytest.raises(ModelRefused, match=r"has no chat template: put a chat_template\.jinja"):
        load_chat_template(tmp_path)


def test_a_template_that_is_not_jinja_is_refused() -> None:
    with pytest.raises(ModelRefused, match="not valid Jinja"):
        render("{% for %}")


def test_the_hash_follows_source_and_special_tokens() -> None:
    hashes = {
        ChatTemplate("a", {"bos_token": "x"}).sha256,
        ChatTemplate("a", {"bos_token": "y"}).sha256,
        ChatTemplate("b", {"bos_token": "x"}).sha256,
    }
    assert len(hashes) == 3


def test_a_damaged_configuration_is_refused(tmp_path: Path) -> None:
    for content in ("{", "[]", "\udcff"):
        file = tmp_path / "tokenizer_config.json"
        file.write_text(content, errors="surrogateescape")
        with pytest.raises(ModelRefused, match=r"tokenizer_config\.json (is not|holds)"):
            load_chat_template(tmp_path)
