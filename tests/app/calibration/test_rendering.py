from __future__ import annotations

from pathlib import Path

import pytest

from app.calibration.chat_template import ChatTemplate, RowRefused
from app.calibration.rendering import Rendered, Renderer
from app.calibration.tokenizer import ModelTokenizer, load_tokenizer

TALK = [
    {"role": "user", "content": "Write Rust code."},
    {"role": "assistant", "content": "fn main() { println!(); }"},
]
PLAIN = "{% for m in messages %}[{{ m.role }}]{{ m.content }};{% endfor %}"


@pytest.fixture(scope="module")
def tokenizer(model_dir: Path) -> ModelTokenizer:
    return load_tokenizer(model_dir)


def tokens_of(tokenizer: ModelTokenizer, text: str) -> int:
    return len(tokenizer.encode([text], add_special_tokens=False)[0].ids)


def one(
    tokenizer: ModelTokenizer, source: str, talk: list[dict[str, str]], length: int
) -> Rendered:
    [result] = Renderer(ChatTemplate(source, {}), tokenizer, length).render([talk])
    assert isinstance(result, Rendered)
    return result


def test_fed_tokens_are_those_of_the_assistants_content(tokenizer: ModelTokenizer) -> None:
    row = one(tokenizer, PLAIN, TALK, 512)
    assert row.text == "[user]Write Rust code.;[assistant]fn main() { println!(); };"
    assert row.full_tokens == len(row.input_ids)
    # a token may join a letter of the content with the sign beside it, at either end
    assert abs(row.fed_tokens - tokens_of(tokenizer, TALK[1]["content"])) <= 2
    assert row.named_tokens == 0


def test_a_prompt_that_repeats_the_content_is_not_fed(tokenizer: ModelTokenizer) -> None:
    talk = [{"role": "user", "content": "x" * 400}, {"role": "assistant", "content": "x" * 40}]
    assert one(tokenizer, PLAIN, talk, 512).fed_tokens <= tokens_of(tokenizer, "x" * 40) + 2


def test_every_assistant_turn_is_fed(tokenizer: ModelTokenizer) -> None:
    once = one(tokenizer, PLAIN, TALK, 512).fed_tokens
    assert one(tokenizer, PLAIN, TALK + TALK, 512).fed_tokens == 2 * once


def test_the_tail_is_cut_and_counted_no_more(tokenizer: ModelTokenizer) -> None:
    whole = one(tokenizer, PLAIN, TALK, 512)
    cut = one(tokenizer, PLAIN, TALK, 16)
    assert cut.input_ids.tolist() == whole.input_ids[:16].tolist()
    assert cut.full_tokens == whole.full_tokens
    prompt = tokens_of(tokenizer, "[user]Write Rust code.;[assistant]")
    assert 0 <= cut.fed_tokens <= max(0, 16 - prompt) + 1 < whole.fed_tokens


def test_content_that_the_template_rewrites_is_counted_too(tokenizer: ModelTokenizer) -> None:
    shouting = PLAIN.replace("m.content", "m.content | upper")
    row = one(tokenizer, shouting, TALK, 512)
    assert abs(row.fed_tokens - tokens_of(tokenizer, TALK[1]["content"].upper())) <= 2


def test_a_label_that_only_the_prompt_names_is_not_fed(tokenizer: ModelTokenizer) -> None:
    renderer = Renderer(ChatTemplate(PLAIN, {}), tokenizer, 512)
    [fed] = renderer.render([TALK])
    [named] = renderer.render([TALK], label_in="prompt")
    assert isinstance(fed, Rendered)
    assert isinstance(named, Rendered)
    assert (named.fed_tokens, named.named_tokens) == (0, fed.fed_tokens)


def test_a_refused_row_does_not_shift_the_others(tokenizer: ModelTokenizer) -> None:
    picky = "{% if messages[0].role != 'user' %}{{ raise_exception('no') }}{% endif %}" + PLAIN
    renderer = Renderer(ChatTemplate(picky, {}), tokenizer, 512)
    first, second, third = renderer.render([TALK, TALK[1:], [{"role": "user", "content": "z"}]])
    assert isinstance(second, RowRefused)
    assert isinstance(first, Rendered)
    assert isinstance(third, Rendered)
    assert (first.text, third.text) == (one(tokenizer, PLAIN, TALK, 512).text, "[user]z;")
    assert third.fed_tokens == 0


def test_a_row_rendered_to_nothing_is_refused(tokenizer: ModelTokenizer) -> None:
    [result] = Renderer(ChatTemplate("", {}), tokenizer, 512).render([TALK])
    assert isinstance(result, RowRefused)


def test_plain_text_is_fed_whole(model_dir: Path) -> None:
    [row] = Renderer.of_model(model_dir, 512).render_plain(["fn main() {}"])
    assert row.fed_tokens == len(row.input_ids) == row.full_tokens > 0
