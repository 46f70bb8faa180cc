"""Generated text is found under every name, and nothing else is taken for it."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadbench.wire.generated import generated, kind_of
from loadbench.wire.openai import Api, read_chunk
from loadbench.wire.response_reader import ResponseReader


@pytest.mark.parametrize(
    "delta",
    [
        {"reasoning_content": "hm"},
        {"content": None, "reasoning": "hm"},
        {"content": "", "thoughts": "hm"},
        {"thought": "hm"},
        {"reasoning_text": "hm"},
        {"chain_of_thought": "hm"},
        {"reasoning_trace": "hm"},
        {"internalThinking": "hm"},
        {"reasoning": {"content": "hm"}},
        {"reasoningContent": {"text": "hm", "signature": "c2ln"}},
        {"reasoning_details": [{"type": "reasoning.summary", "summary": "hm", "format": "x-v1", "index": 0}]},
        {
            "reasoning_details": [
                {"type": "reasoning.text", "text": "h", "id": "r"},
                {"type": "reasoning.text", "text": "m"},
            ]
        },
        {"thinking_blocks": [{"type": "thinking", "thinking": "hm", "signature": "c2ln"}]},
        {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "h"}, {"type": "text", "text": "m"}]}]},
        {"content": [{"type": "reasoning", "text": "hm"}]},
        {"content": [{"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]}]},
        {"content": {"type": "thinking", "content": {"parts": [{"text": "hm"}]}}},
        {"content": [{"text": "hm", "thought": True}]},
        {"content": "hm", "extra_content": {"google": {"thought": True}}},
        {"extra_content": {"google": {"thought": "hm"}}},
        {"provider_specific_fields": {"reasoning_content": "hm"}},
        # Twice, and still once.
        {"reasoning": "hm", "reasoning_content": "hm"},
        {"reasoning": "hm", "reasoning_details": [{"type": "reasoning.text", "text": "hm"}]},
        {"reasoning_content": "hm", "provider_specific_fields": {"reasoning_content": "hm", "thinking_blocks": None}},
        {"thinking": "hm", "thinking_blocks": [{"thinking": "h"}, {"thinking": "m"}]},
    ],
)
def test_reasoning_is_found_under_any_name(delta: dict[str, object]) -> None:
    """Once, and not as visible text."""
    chunk = read_chunk(orjson.dumps({"choices": [{"delta": delta}]}))
    assert (chunk.text, chunk.reasoning, chunk.tool) == ("", "hm", "")


@pytest.mark.parametrize(
    ("delta", "text"),
    [
        ({"content": {"type": "text", "text": "Hi"}}, "Hi"),
        ({"content": {"text": {"value": "Hi", "annotations": []}}}, "Hi"),
        ({"content": [{"type": "output_text", "text": "H"}, "i"]}, "Hi"),
        ({"content": [[{"text": "Hi"}]]}, "Hi"),
        ({"output_text": "Hi"}, "Hi"),
        ({"audio": {"id": "audio_1", "transcript": "Hi", "expires_at": 9}}, "Hi"),
        ({"content": [{"type": "output_audio", "transcript": "Hi"}]}, "Hi"),
        ({"content": "Hi", "text": "Hi"}, "Hi"),
        ({"content": [{"text": "ha"}, {"text": "ha"}]}, "haha"),
        ({"role": "assistant", "content": "Hi", "reasoning_content": None}, "Hi"),
    ],
)
def test_visible_text_is_found_in_parts(delta: dict[str, object], text: str) -> None:
    """However deep it lies; what is said twice in a list is said twice."""
    assert generated(delta) == (text, "", "")


@pytest.mark.parametrize(
    ("delta", "tool"),
    [
        ({"tool_calls": [{"index": 0, "id": "call_7", "type": "function", "function": {"name": "f"}}]}, "f"),
        ({"tool_calls": [{"index": 0, "function": {"arguments": {"a": 1}}}]}, '{"a": 1}'),
        ({"tool_calls": [{"type": "custom", "custom": {"name": "f", "input": "x"}}]}, "fx"),
        ({"tool_calls": {"name": "f", "arguments": "{}"}}, "f{}"),
        ({"function_call": {"name": "f", "arguments": "{}"}}, "f{}"),
        ({"content": [{"type": "tool_use", "id": "t", "name": "f", "input": {"q": "x"}}]}, 'f{"q": "x"}'),
        ({"content": [{"type": "refusal", "refusal": "no"}]}, "no"),
        ({"audio": {"id": "audio_1", "data": "UklGRg=="}}, "UklGRg=="),
    ],
)
def test_calls_refusals_and_audio_are_generated_but_not_visible_text(delta: dict[str, object], tool: str) -> None:
    """Of every shape, with arguments as text or as an object."""
    assert generated(delta) == ("", "", tool)


@pytest.mark.parametrize(
    "delta",
    [
        {"reasoning_effort": "high", "reasoning_id": "r-1", "thought_signature": "c2ln", "thinking_status": "done"},
        {"reasoning_opaque": "c2ln", "encrypted_reasoning": "c2ln", "reasoning_format": "parsed"},
        {"reasoning_tokens": 5, "thinking_time": "3s", "thinking": {"type": "enabled", "budget_tokens": 100}},
        {"reasoning_details": [{"type": "reasoning.encrypted", "data": "c2ln", "id": "r", "format": "x-v1"}]},
        {"content": [{"type": "redacted_thinking", "data": "c2ln"}]},
        {"thinking_blocks": [{"type": "thinking", "thinking": "", "signature": "c2ln"}]},
        {"role": "assistant", "name": "bot", "id": "m-1", "tool_call_id": "t", "tool_choice": "auto"},
        {"content": [{"type": "reference", "reference_ids": [1, 2]}, {"type": "image_url", "image_url": {"url": "u"}}]},
        {"annotations": [{"type": "url_citation", "url_citation": {"title": "T", "content": "page"}}]},
        {"context": {"citations": [{"content": "page", "title": "T"}], "intent": "[]"}},
        {"audio": {"id": "audio_1", "expires_at": 9}},
        {"obfuscation": "xyz", "extra_content": {"google": {"thought_signature": "c2ln", "thought": True}}},
    ],
)
def test_what_is_about_text_is_no_text(delta: dict[str, object]) -> None:
    """Ids, signatures, efforts, statuses, encrypted reasoning and what was found elsewhere bear no token."""
    assert generated(delta) == ("", "", "")


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ({"text": "Hi"}, ("Hi", "", "")),
        ({"text": "", "reasoning_content": "hm", "finish_reason": None}, ("", "hm", "")),
        ({"text": {"value": "Hi"}, "stop_reason": "x"}, ("Hi", "", "")),
        ({"delta": "Hi", "finish_reason": "stop"}, ("Hi", "", "")),
        ({"delta": None, "message": {"reasoning": "hm"}}, ("", "hm", "")),
    ],
)
def test_completions_and_bare_choices_are_read_alike(choice: dict[str, object], expected: tuple[str, str, str]) -> None:
    """Text and reasoning may stand in the choice itself; a finish_reason is neither."""
    chunk = read_chunk(orjson.dumps({"choices": [choice]}))
    assert (chunk.text, chunk.reasoning, chunk.tool) == expected


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("response.output_text.delta", None),
        ("response.reasoning_summary_text.delta", "reasoning"),
        ("response.thinking.delta", "reasoning"),
        ("response.mcp_call_arguments.delta", "tool"),
        ("response.output_audio.delta", "audio"),
        ("response.output_audio_transcript.delta", None),
        ("finish_reason", None),
        ("thoughtSignature", None),
    ],
)
def test_names_say_what_they_hold(name: str, kind: str | None) -> None:
    """Of keys and of the types of events."""
    assert kind_of(name) == kind


keys = ["content", "text", "thinking", "type", "summary", "audio", "data", "function", "tool_calls", "name", "thought"]
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(keys) | st.text(max_size=3), inner, max_size=4)
    ),
    max_leaves=20,
)


@given(anything)
def test_nothing_breaks_the_search(value: object) -> None:
    """Whatever stands where, texts are found or not."""
    assert all(isinstance(text, str) for text in generated(value))


@given(st.text(min_size=1, max_size=9), st.text(alphabet="abc_", max_size=6), st.booleans())
def test_an_unknown_name_of_reasoning_is_one_event(text: str, word: str, again: bool) -> None:
    """Any name with the word, whose text may also stand under the usual one: one event, and its text once."""
    delta = {f"reasoning_{word}": text} | ({"reasoning_content": text} if again else {})
    answer = ResponseReader(Api.CHAT)
    answer.feed(1, b"data: " + orjson.dumps({"choices": [{"delta": delta}]}) + b"\n\n")
    assert (len(answer.event_ns), answer.first_visible_ns, answer.text_bytes) == (1, None, len(text.encode()))


@pytest.mark.parametrize("nest", [lambda inner: {"content": inner}, lambda inner: [inner], lambda inner: ["", inner]])
def test_text_is_looked_for_twelve_levels_deep(nest) -> None:
    """In objects and in lists; no server nests it deeper, and one that does is not followed."""
    value: object = "hm"
    for _ in range(12):
        value = nest(value)
    assert generated(value).text == "hm"
    assert generated(nest(value)) == ("", "", "")


def test_strings_in_a_list_are_of_the_kind_of_the_list() -> None:
    """Of a list under an unknown name they are nothing."""
    assert generated({"reasoning": ["h", "m"]}) == ("", "hm", "")
    assert generated({"tool_calls": ["h", "m"]}) == ("", "", "hm")
    assert generated({"content": ["h", "m"]}) == ("hm", "", "")
    assert generated({"anything": ["h", "m"]}) == ("", "", "")
    assert generated([]) == generated({"content": []}) == ("", "", "")


def test_what_stands_there_twice_counts_once_beside_other_text() -> None:
    """Under three names or more, whichever two are the same."""
    assert generated({"reasoning": "a", "reasoning_content": "a", "content": "b"}) == ("b", "a", "")
    assert generated({"content": "b", "reasoning": "a", "reasoning_content": "a"}) == ("b", "a", "")
    assert generated({"reasoning": "a", "reasoning_content": "a", "thinking": "c"}) == ("", "ac", "")


def test_arguments_of_a_call_are_as_long_as_they_were_sent():
    """An object has its letters as they are, and no escapes."""
    call = {"function": {"name": "f", "arguments": {"a": "ü日"}}}
    assert generated({"tool_calls": [call]}).tool == 'f{"a": "ü日"}'
