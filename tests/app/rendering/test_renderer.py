from __future__ import annotations

from pathlib import Path

import pytest

from app.rendering.chat_template import ChatTemplate, RowRefused
from app.rendering.conversation import Reasoning, with_prompt
from app.rendering.renderer import Rendered, Renderer
from app.rendering.tokenizer import ModelTokenizer, load_tokenizer
from app.rendering.truncation import Truncation

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


CALL = {
    "role": "assistant",
    "content": "",
    "tool_calls": [{"function": {"name": "weather", "arguments": '{"city": "Ulm"}'}}],
}
WITH_TOOLS = """{% for m in messages %}[{{ m.role }}]{{ m.reasoning_content or "" }}{{ m.content }}\
{% for c in m.tool_calls or [] %}<call>{{ c.function.name }}\
{% for k, v in c.function.arguments.items() %} {{ k }}={{ v }}{% endfor %}</call>{% endfor %};\
{% endfor %}"""


def words_by_turn(row: Rendered) -> list[tuple[str, str]]:
    return [(turn.role, row.text[turn.start : turn.end]) for turn in row.turns]


def test_each_turn_knows_its_place(tokenizer: ModelTokenizer) -> None:
    talk = [
        {"role": "user", "content": "Is it warm in Ulm?"},
        CALL,
        {"role": "tool", "content": "21 degrees"},
        {"role": "assistant", "content": "Yes, 21 degrees."},
    ]
    row = one(tokenizer, WITH_TOOLS, talk, 512)
    assert words_by_turn(row) == [
        ("user", "Is it warm in Ulm?"),
        ("assistant", "<call>weather city=Ulm</call>"),
        ("tool", "21 degrees"),
        ("assistant", "Yes, 21 degrees."),
    ]
    spoken = tokens_of(tokenizer, "<call>weather city=Ulm</call>Yes, 21 degrees.")
    assert abs(row.fed_tokens - spoken) <= 4


@pytest.mark.parametrize(
    ("truncation", "first", "last"), [("tail", 17, 0), ("head", 0, 17), ("middle", 9, 8)]
)
def test_a_long_row_is_cut_where_it_is_asked_and_says_where(
    tokenizer: ModelTokenizer, truncation: Truncation, first: int, last: int
) -> None:
    template = ChatTemplate(PLAIN, {})
    [whole] = Renderer(template, tokenizer).render([TALK])
    [cut] = Renderer(template, tokenizer, 17, truncation).render([TALK])
    assert isinstance(whole, Rendered)
    assert isinstance(cut, Rendered)
    assert (whole.cut, whole.full_tokens) == (None, len(whole.input_ids))
    assert (cut.text, cut.full_tokens, len(cut.input_ids)) == (whole.text, whole.full_tokens, 17)
    ids = whole.input_ids.tolist()
    assert cut.input_ids.tolist() == ids[:first] + ids[len(ids) - last :]
    assert cut.cut is not None
    start, end = cut.cut
    assert start < end
    assert tokens_of(tokenizer, whole.text[:start]) == first
    assert tokens_of(tokenizer, whole.text[end:]) == last


GPT_OSS = (
    "{% for message in messages %}{{ message.content }}|"
    "{% if 'thinking' in message %}{{ message.thinking }}{% endif %};{% endfor %}"
)
PARTS = "{% for m in messages %}{{ m.content }};{{ (m.parts or {})['thinking'] }}{% endfor %}"
THINKING = "{% for m in messages %}{{ m.content }}|{{ m.reasoning_content or '' }};{% endfor %}"


@pytest.mark.parametrize(
    ("source", "reasoning", "text"),
    [
        (THINKING, "native", "Hi|;Five|2+3;"),
        (THINKING, "inline", "Hi|;<think>\n2+3\n</think>\n\nFive|;"),
        (THINKING, "stripped", "Hi|;Five|;"),
        # a template that does not know reasoning would lose it
        (PLAIN, "native", "[user]Hi;[assistant]<think>\n2+3\n</think>\n\nFive;"),
        (PLAIN, "stripped", "[user]Hi;[assistant]Five;"),
        (GPT_OSS, "native", "Hi|;Five|2+3;"),
        (GPT_OSS, "inline", "Hi|;<think>\n2+3\n</think>\n\nFive|;"),
        (GPT_OSS, "stripped", "Hi|;Five|;"),
        # a part of a content is no message
        (PARTS, "native", "Hi;<think>\n2+3\n</think>\n\nFive;"),
    ],
)
@pytest.mark.parametrize(
    "answer",
    [
        {"content": "Five", "reasoning_content": "2+3"},
        {"content": "<think>\n2+3\n</think>\n\nFive"},
        {"content": "2+3\n</think>\n\nFive"},
    ],
)
def test_reasoning_goes_where_it_is_asked(
    tokenizer: ModelTokenizer,
    source: str,
    reasoning: Reasoning,
    text: str,
    answer: dict[str, str],
) -> None:
    talk = [{"role": "user", "content": "Hi"}, {"role": "assistant", **answer}]
    [row] = Renderer(ChatTemplate(source, {}), tokenizer, reasoning=reasoning).render([talk])
    assert isinstance(row, Rendered)
    assert row.text == text


def test_reasoning_that_a_template_leaves_out_is_not_looked_for_in_a_later_turn(
    tokenizer: ModelTokenizer,
) -> None:
    source = (
        "{% for m in messages %}[{{ m.role }}]"
        "{% if loop.last %}<think>{{ m.reasoning_content }}</think>{% endif %}{{ m.content }};"
        "{% endfor %}"
    )
    answers = ["Rivers end in a sea.", "Stones do not end.", "Evenings end late."]
    talk = [
        message
        for answer in answers
        for message in (
            {"role": "user", "content": "Where?"},
            {"role": "assistant", "content": answer, "reasoning_content": "Okay."},
        )
    ]
    row = one(tokenizer, source, talk, 512)
    said = [words for role, words in words_by_turn(row) if role == "assistant"]
    assert said == [*answers[:2], f"Okay.</think>{answers[2]}"]


def test_lengths_are_those_of_the_rendered_rows(tokenizer: ModelTokenizer) -> None:
    picky = "{% if messages[0].role != 'user' %}{{ raise_exception('no') }}{% endif %}" + PLAIN
    renderer = Renderer(ChatTemplate(picky, {}), tokenizer)
    talks = [TALK, TALK[1:], TALK + TALK]
    first, refused, second = renderer.lengths(talks)
    rendered = renderer.render([talks[0], talks[2]])
    assert [first, second] == [row.full_tokens for row in rendered if isinstance(row, Rendered)]
    assert isinstance(refused, RowRefused)


def test_a_prompt_stands_before_the_first_user_turn() -> None:
    system = {"role": "system", "content": "s"}
    assert with_prompt([system, *TALK], "P: ")[1]["content"] == "P: Write Rust code."
    talk = with_prompt([system, TALK[1]], "P")
    assert [message["role"] for message in talk] == ["system", "user", "assistant"]
    with pytest.raises(RowRefused, match="is not text"):
        with_prompt([{"role": "user", "content": [{"type": "image"}]}], "P")
