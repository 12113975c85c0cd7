"""Every format, its odd spellings, and the reasons why a row is set aside."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.errors import Refused
from app.facets import Facet
from app.row_formats.formatters import FORMATTERS, LONGEST_ROW, format_row, require_formatter
from app.row_formats.turns import ROLES, RowUnfit
from app.sources.store import canonical

USER = {"role": "user", "content": "What is 2 + 2?"}
ANSWER = {"role": "assistant", "content": "4"}


def messages_of(formatter: str, row: dict[str, Any], *columns: str, **params: str) -> Any:
    return format_row(formatter, columns or tuple(row), params, row).messages


def reason(formatter: str, row: dict[str, Any], *columns: str, **params: str) -> str:
    with pytest.raises(RowUnfit) as refused:
        format_row(formatter, columns or tuple(row), params, row)
    return refused.value.reason


def test_a_conversation_stays_as_it_is() -> None:
    system = {"role": "system", "content": "Be brief."}
    assert messages_of("chat_completion", {"messages": [system, USER, ANSWER]}) == [
        system, USER, ANSWER,
    ]  # fmt: skip


def test_a_conversation_may_come_as_json_text_or_in_an_object() -> None:
    text = '[{"role": "user", "content": "What is 2 + 2?"}, {"role": "assistant", "content": "4"}]'
    assert messages_of("chat_completion", {"messages": text}) == [USER, ANSWER]
    assert messages_of("chat_completion", {"m": {"messages": [USER, ANSWER]}}) == [USER, ANSWER]


def test_sharegpt_names_are_mapped_and_tool_turns_stay_tool_turns() -> None:
    row = {
        "conversations": [
            {"from": "system", "value": ""},
            {"from": "human", "value": "Weather in Oslo?"},
            {"from": "function_call", "value": '{"name": "weather", "arguments": {"at": "Oslo"}}'},
            {"from": "observation", "value": '{"c": 3}'},
            {"from": "gpt", "value": "3 °C."},
        ]
    }
    assert messages_of("sharegpt", row) == [
        {"role": "user", "content": "Weather in Oslo?"},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [
                {"type": "function", "function": {"name": "weather", "arguments": {"at": "Oslo"}}}
            ],
        },
        {"role": "tool", "content": '{"c": 3}'},
        {"role": "assistant", "content": "3 °C."},
    ]


HERMES = {
    "conversations": [
        {"from": "human", "value": "Weather?"},
        {
            "from": "gpt",
            "value": "<think>\nI must look.\n</think>\n"
            '<tool_call>\n{"name": "weather", "arguments": {"at": "Oslo"}}\n</tool_call>\n'
            '<tool_call>\n{"name": "weather", "arguments": {"at": "Rome"}}\n</tool_call>',
        },
        {
            "from": "tool",
            "value": "<tool_response>\n3\n</tool_response>\n<tool_response>\n19\n</tool_response>",
        },
        {"from": "gpt", "value": "3 and 19."},
    ]
}


def test_thoughts_and_calls_inside_the_words_get_fields_of_their_own() -> None:
    _, asked, first, second, _ = messages_of("sharegpt", HERMES)
    assert asked["reasoning_content"] == "I must look."
    assert asked["content"] == ""
    assert [call["function"]["arguments"]["at"] for call in asked["tool_calls"]] == ["Oslo", "Rome"]
    assert first == {"role": "tool", "content": "3"}
    assert second == {"role": "tool", "content": "19"}


def test_inline_leaves_the_words_as_they_came() -> None:
    made = messages_of("sharegpt", HERMES, "conversations", reasoning="inline", tool_calls="inline")
    given = [turn["value"] for turn in HERMES["conversations"]]
    assert [message["content"] for message in made] == given


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning", "thinking"])
def test_reasoning_of_any_name_is_reasoning_content(name: str) -> None:
    row = {"messages": [USER, {**ANSWER, name: "Two and two."}]}
    assert messages_of("chat_completion", row)[1]["reasoning_content"] == "Two and two."
    inline = messages_of("chat_completion", row, "messages", reasoning="inline")
    assert inline[1]["content"] == "<think>\nTwo and two.\n</think>\n\n4"


def test_openai_tool_calls_keep_ids_and_their_arguments_become_objects() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}
    row = {
        "messages": [
            USER,
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "content": "2", "tool_call_id": "c1", "name": None},
        ]
    }
    made = messages_of("chat_completion", row)
    assert made[1]["tool_calls"][0] == {
        "id": "c1", "type": "function", "function": {"name": "f", "arguments": {"x": 1}},
    }  # fmt: skip
    assert made[2] == {"role": "tool", "content": "2", "tool_call_id": "c1"}


def test_parts_of_text_are_joined_and_pictures_are_refused() -> None:
    parts = [{"type": "text", "text": "What is "}, {"type": "text", "text": "2 + 2?"}]
    row = {"messages": [{"role": "user", "content": parts}, ANSWER]}
    assert messages_of("chat_completion", row) == [USER, ANSWER]
    row = {"messages": [{"role": "user", "content": [{"type": "image_url"}]}, ANSWER]}
    assert reason("chat_completion", row) == (
        "the content of turn 1 has a part of the kind 'image_url', not text"
    )


def test_a_system_prompt_comes_before_the_conversation() -> None:
    turns = [{"from": "user", "value": "Hi"}, {"from": "assistant", "value": "Hello"}]
    row = {"system": "Be kind.", "conversations": turns}
    made = messages_of("chat_completion_with_sysprompt", row)
    assert [(m["role"], m["content"]) for m in made] == [
        ("system", "Be kind."), ("user", "Hi"), ("assistant", "Hello"),
    ]  # fmt: skip
    assert len(messages_of("chat_completion_with_sysprompt", {**row, "system": None})) == 2


def test_prompt_and_answer() -> None:
    row = {"instruction": "What is 2 + 2?", "response": 4, "other": "x"}
    assert messages_of("prompt_answer", row, "instruction", "response") == [USER, ANSWER]
    for column, said in (("instruction", "prompt"), ("response", "answer")):
        empty = {**row, column: " "}
        assert reason("prompt_answer", empty, "instruction", "response") == f"the {said} is empty"


def test_alpaca_puts_the_input_after_the_instruction() -> None:
    row = {"instruction": "Add.", "input": "2, 2", "output": "4"}
    assert messages_of("alpaca", row)[0]["content"] == "Add.\n\n2, 2"
    assert messages_of("alpaca", {**row, "input": None})[0]["content"] == "Add."


def test_reasoning_in_a_column_of_its_own() -> None:
    row = {"q": "What is 2 + 2?", "why": "Two and two.", "a": "4"}
    made = messages_of("reasoning_answer", row)
    assert made == [USER, {**ANSWER, "reasoning_content": "Two and two."}]


def test_calls_and_their_results() -> None:
    row = {"query": "Weather?", "answers": '[{"name": "w", "arguments": {}}]', "results": ["3"]}
    made = messages_of("tool_calls", row)
    assert [message["role"] for message in made] == ["user", "assistant", "tool"]
    assert made[1]["tool_calls"][0]["function"] == {"name": "w", "arguments": {}}


def test_plain_text_is_fed_as_it_is_and_a_prefix_is_the_users() -> None:
    row = {"text": "fn main() { 1 < 2 }"}
    assert format_row("raw_text", ["text"], {}, row).messages is None
    assert messages_of("raw_text", row, "text", prefix="Explain:\n") == [
        {"role": "user", "content": "Explain:\n"},
        {"role": "assistant", "content": "fn main() { 1 < 2 }"},
    ]


CONTEST = {
    "name": "p",
    "description": "Add two numbers.",
    "solutions": {"language": [2, 3], "solution": ["int main(){}", "print(1)"]},
}


def test_a_contest_is_its_problem_and_first_solution_with_its_language() -> None:
    made = format_row("deepmind_code_contests", ["name"], {}, CONTEST)
    assert made.messages[1]["content"] == "int main(){}"
    assert made.facets == {Facet.PROGRAMMING_LANGUAGE: "C++"}
    python = format_row("deepmind_code_contests", ["name"], {"language": "Python"}, CONTEST)
    assert python.messages[1]["content"] == "print(1)"
    java = reason("deepmind_code_contests", CONTEST, "name", language="Java")
    assert java == "it has no solution in Java"


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ([ANSWER], "a lone assistant turn: a chat template wants a user's turn"),
        ([{"role": "system", "content": "x"}], "nobody asks in it: a chat template wants a user's"),
        ([{**USER, "role": "narrator"}], "turn 1 has the unknown role 'narrator'"),
        ([USER, {"content": "4"}], "turn 2 has no role"),
        ([USER, "4"], "turn 2 is text, not an object with a role and content"),
        ([USER, {**ANSWER, "content": "  "}], "turn 2 (assistant) is empty"),
        ([{**USER, "content": {"a": 1}}], "the content of turn 1 is an object, not text"),
        ([{**USER, "content": b"\x89PNG"}], "the content of turn 1 is binary, not text"),
        ([{**USER, "content": "a\x00b"}], "it has the control character U+0000"),
        ([{**USER, "content": "a\ud800"}], "half of a surrogate pair"),
        ([], "it is empty"),
        ("", "the conversation is not JSON"),
        ("not json", "the conversation is not JSON"),
        (None, "the conversation is not a list of turns"),
        ([{**USER, "content": "x" * (LONGEST_ROW + 1)}, ANSWER], "it has 1,000,004 characters"),
    ],
)
def test_what_does_not_fit_says_why(row: Any, said: str) -> None:
    for formatter in ("chat_completion", "sharegpt"):
        assert said in reason(formatter, {"messages": row})


def test_a_missing_column_is_named_with_the_nearest() -> None:
    said = reason("chat_completion", {"messages": [USER]}, "mesages")
    assert said == "it has no column 'mesages'; the nearest is 'messages'"


@pytest.mark.parametrize(
    ("formatter", "columns", "params", "said"),
    [
        ("sharegtp", ["x"], {}, "no formatter 'sharegtp'; the nearest is 'sharegpt'"),
        ("prompt_answer", ["x"], {}, "takes two columns, a prompt and its answer: 1 given"),
        ("raw_text", ["x"], {"prefx": "a"}, "no parameter 'prefx'; the nearest is 'prefix'"),
        ("raw_text", ["x"], {"prefix": "{{ row }}"}, "is a template"),
        ("sharegpt", ["x"], {"reasoning": "both"}, "is native or inline"),
        ("sharegpt", ["x"], {"reasoning": 1}, "is native or inline"),
    ],
)
def test_a_formatter_that_cannot_be_is_refused(
    formatter: str, columns: list[str], params: dict[str, Any], said: str
) -> None:
    with pytest.raises(Refused) as refused:
        require_formatter(formatter, columns, params)
    assert said in refused.value.sentence


LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.binary(max_size=8),
    st.text(st.characters(codec=None), max_size=20),
    st.sampled_from([*ROLES, "<think>x</think>", '<tool_call>{"name": 1}</tool_call>', "[]", "{}"]),
)  # fmt: skip
KEYS = st.sampled_from(
    ["role", "from", "content", "value", "text", "tool_calls", "function", "name", "arguments",
     "messages", "thinking", "solution", "language", "id", "tool_call_id", "type"]
)  # fmt: skip
ANYTHING = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=5),
    max_leaves=20,
)


@given(
    st.sampled_from(sorted(FORMATTERS)),
    st.dictionaries(st.sampled_from(["a", "b", "c", "description", "solutions"]), ANYTHING),
    st.sampled_from(["native", "inline"]),
)
@settings(deadline=None, max_examples=400)
def test_any_row_fits_or_says_why(formatter: str, row: dict[str, Any], placing: str) -> None:
    rule = FORMATTERS[formatter]
    params = {name: placing for name, allowed in rule.params.items() if placing in allowed}
    try:
        made = format_row(formatter, ["a", "b", "c"][: rule.most], params, row)
    except RowUnfit as refused:
        said = refused.reason
        made = None
    if made is None:
        assert said.encode()
        return
    assert made.text.strip()
    made.text.encode()
    if made.messages is not None:
        canonical(made.messages).encode()
        assert {m["role"] for m in made.messages} <= {"system", "user", "assistant", "tool"}
        assert "user" in {m["role"] for m in made.messages}
        assert all(isinstance(m["content"], str) for m in made.messages)


@given(
    st.lists(st.tuples(st.sampled_from(["user", "human", "gpt", "tool"]), st.text()), min_size=1)
)
def test_no_turn_changes_its_speaker(turns: list[tuple[str, str]]) -> None:
    row = {"c": [{"from": name, "value": value} for name, value in turns]}
    try:
        made = messages_of("sharegpt", row, "c", reasoning="inline", tool_calls="inline")
    except RowUnfit:
        return
    assert [m["role"] for m in made] == [ROLES[name] for name, _ in turns]
    assert [m["content"] for m in made] == [value for _, value in turns]


@pytest.mark.parametrize("words", ["<think>2+2</think>4", "2+2\n</think>\n\n4"])
def test_reasoning_is_taken_out_though_its_first_mark_is_missing(words: str) -> None:
    row = {"messages": [USER, {"role": "assistant", "content": words}]}
    assert messages_of("chat_completion", row) == [USER, ANSWER | {"reasoning_content": "2+2"}]


def test_a_conversation_has_one_system_turn() -> None:
    def said(own: str) -> list[dict[str, Any]]:
        row = {"s": "Be brief.", "m": [{"role": "system", "content": own}, USER, ANSWER]}
        made: list[dict[str, Any]] = messages_of("chat_completion_with_sysprompt", row)
        return made

    system = {"role": "system", "content": "Be brief."}
    assert said("Be brief.") == [system, USER, ANSWER]
    assert said("Be kind.") == [system | {"content": "Be brief.\n\nBe kind."}, USER, ANSWER]


def test_an_answer_that_calls_no_tool_is_set_aside() -> None:
    assert reason("tool_calls", {"q": "Hello", "a": "[]"}) == "the answer calls no tool"
