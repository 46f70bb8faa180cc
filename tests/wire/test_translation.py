"""What a data set has for the chat endpoint, as the other endpoints take it: nothing is lost on the way."""

from __future__ import annotations

import orjson
import pytest

from loadbench.wire.body import BodyChanges, request_body
from loadbench.wire.openai import Api
from loadbench.wire.translation import translated_fields, translated_messages

USER, SYSTEM = {"role": "user", "content": "Why?"}, {"role": "system", "content": "Be kind."}
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA", "detail": "low"}}
PARTS = {"role": "user", "content": [{"type": "text", "text": "What?"}, IMAGE]}
TEXTS = {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}
CALL = {"id": "c1", "type": "function", "function": {"name": "now", "arguments": '{"zone": 1}'}}
CALLING, RESULT = {"role": "assistant", "content": None, "tool_calls": [CALL]}, {"role": "tool", "content": "noon"}
RESULT |= {"tool_call_id": "c1"}
FUNCTION = {"name": "now", "parameters": {"type": "object", "properties": {"zone": {"default": None}}}}
TOOLS = [{"type": "function", "function": FUNCTION}]
SCHEMA = {"type": "json_schema", "json_schema": {"name": "s", "schema": {"type": "object"}, "strict": True}}


def test_texts_are_the_same_for_all_that_take_messages():
    """A system message of the newer name has the older one for Ollama."""
    for api in (Api.CHAT, Api.RESPONSES, Api.OLLAMA):
        assert list(translated_messages(api, [SYSTEM, USER])) == [SYSTEM, USER]
    assert translated_messages(Api.OLLAMA, [{**SYSTEM, "role": "developer"}]) == [SYSTEM]


def test_completions_take_the_one_text():
    """In parts, too; a role, a history and an image are more than a text."""
    assert translated_messages(Api.COMPLETIONS, [USER]) == "Why?"
    assert translated_messages(Api.COMPLETIONS, [TEXTS]) == "a\nb"
    for messages in ([SYSTEM, USER], [SYSTEM], [PARTS], [USER, USER]):
        with pytest.raises(ValueError, match="takes one text"):
            translated_messages(Api.COMPLETIONS, messages)


def test_responses_have_images_calls_and_results_as_items():
    """As its documentation has them."""
    assert translated_messages(Api.RESPONSES, [PARTS, CALLING, RESULT, {**TEXTS, "role": "assistant"}]) == [
        {
            "role": "user",
            "content": [
                {"type": "input_text", "text": "What?"},
                {"type": "input_image", "image_url": "data:image/png;base64,AAAA", "detail": "low"},
            ],
        },
        {"type": "function_call", "call_id": "c1", "name": "now", "arguments": '{"zone": 1}'},
        {"type": "function_call_output", "call_id": "c1", "output": "noon"},
        {"role": "assistant", "content": [{"type": "output_text", "text": "a"}, {"type": "output_text", "text": "b"}]},
    ]  # fmt: skip
    items = [{"type": "message", "role": "user", "content": [{"type": "input_file", "file_id": "f"}]}]
    assert translated_messages(Api.RESPONSES, items) == items
    file = {"role": "user", "content": [{"type": "file", "file": {"file_id": "f"}}]}
    assert translated_messages(Api.RESPONSES, [file])[0]["content"] == [{"type": "input_file", "file_id": "f"}]


def test_a_message_without_text_is_sent_wherever_the_others_are():
    """As it is where all messages are texts; only a call needs no message beside it."""
    silent = {"role": "assistant", "content": ""}
    for api in (Api.RESPONSES, Api.OLLAMA):
        assert translated_messages(api, [USER, silent]) == [USER, silent]
        assert translated_messages(api, [PARTS, silent])[1:] == [silent]
    assert [item.get("type") for item in translated_messages(Api.RESPONSES, [{**CALLING, **silent}])] == [
        "function_call"
    ]


def test_ollama_has_images_as_base64_and_arguments_as_objects():
    """The result of a tool names the tool, and not the call."""
    user, calling, result = translated_messages(Api.OLLAMA, [PARTS, CALLING, RESULT])
    assert user == {"role": "user", "content": "What?", "images": ["AAAA"]}
    assert calling["tool_calls"] == [{"function": {"name": "now", "arguments": {"zone": 1}}}]
    assert result == {"role": "tool", "content": "noon", "tool_name": "now"}
    (thought,) = translated_messages(Api.OLLAMA, [{"role": "assistant", "content": "So.", "reasoning_content": "Hm."}])
    assert thought == {"role": "assistant", "content": "So.", "thinking": "Hm."}


@pytest.mark.parametrize(
    ("api", "message", "reason"),
    [
        (Api.RESPONSES, {"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}, "input_audio"),
        (Api.RESPONSES, {"role": "user", "content": [{"type": "video_url", "video_url": {}}]}, "video_url"),
        (Api.RESPONSES, {**USER, "name": "Ann"}, "has no name"),
        (Api.OLLAMA, {**USER, "name": "Ann"}, "has no name"),
        (Api.OLLAMA, {"role": "assistant", "content": "", "function_call": {"name": "now"}}, "has no function_call"),
        (Api.RESPONSES, {"role": "assistant", "content": "So.", "reasoning_content": "x"}, "has no reasoning_content"),
        (Api.RESPONSES, {"role": "assistant", "content": "So", "prefix": True}, "has no prefix"),
        (Api.OLLAMA, {**USER, "content": [{"type": "image_url", "image_url": {"url": "http://x"}}]}, "no address"),
        (Api.OLLAMA, {**USER, "content": [{"type": "input_audio", "input_audio": {}}]}, "texts and images only"),
        (Api.OLLAMA, {**CALLING, "tool_calls": [{**CALL, "function": {"arguments": "{"}}]}, "unexpected end"),
    ],
)  # fmt: skip
def test_what_an_endpoint_cannot_take_is_refused(api, message, reason):
    """Rather than left out."""
    with pytest.raises(ValueError, match=reason):
        translated_messages(api, [message])


def test_fields_have_the_names_of_their_endpoint():
    """Each with what it means there."""
    fields = {
        "tools": TOOLS,
        "tool_choice": {"type": "function", "function": {"name": "now"}},
        "response_format": SCHEMA,
    }
    assert translated_fields(Api.CHAT, fields) == fields
    fields |= {"reasoning_effort": "low", "verbosity": "low", "top_p": 0.5, "own": 1}
    assert translated_fields(Api.RESPONSES, fields) == {
        "tools": [{"type": "function", "strict": False, **FUNCTION}],
        "tool_choice": {"type": "function", "name": "now"},
        "text": {"format": {"type": "json_schema", **SCHEMA["json_schema"]}, "verbosity": "low"},
        "reasoning": {"effort": "low"},
        "top_p": 0.5,
        "own": 1,
    }
    fields = {"tools": TOOLS, "tool_choice": "auto", "response_format": SCHEMA, "reasoning_effort": "low"}
    fields |= {"top_p": 0.5, "stop": ["x"], "repetition_penalty": 1.1, "options": {"top_k": 3}, "keep_alive": "5m"}
    assert translated_fields(Api.OLLAMA, fields) == {
        "tools": TOOLS,
        "format": {"type": "object"},
        "think": "low",
        "keep_alive": "5m",
        "options": {"top_p": 0.5, "stop": ["x"], "repeat_penalty": 1.1, "top_k": 3},
    }
    assert translated_fields(Api.OLLAMA, {"response_format": {"type": "json_object"}}) == {"format": "json"}
    assert translated_fields(Api.OLLAMA, {"response_format": {"type": "text"}}) == {}
    assert translated_fields(Api.COMPLETIONS, {"top_p": 0.5, "stop": "x"}) == {"top_p": 0.5, "stop": "x"}


@pytest.mark.parametrize(
    ("api", "field"),
    [
        (Api.COMPLETIONS, {"tools": TOOLS}),
        (Api.RESPONSES, {"stop": ["x"]}),
        (Api.RESPONSES, {"logit_bias": {"1": 2}}),
        (Api.OLLAMA, {"tool_choice": "required"}),
        (Api.OLLAMA, {"logit_bias": {"1": 2}}),
    ],
)
def test_a_field_that_an_endpoint_does_not_have_is_refused(api, field):
    """By its name."""
    with pytest.raises(ValueError, match=next(iter(field))):
        translated_fields(api, field)


def test_the_fields_of_a_request_come_after_those_of_the_run_and_keep_their_nulls():
    """Then what is merged into this one, where a null removes a field."""
    changes = BodyChanges(extra=({"temperature": 0.1, "top_k": 5},))
    common = {"model": "m", "messages": [USER], "max_tokens": 7, "temperature": 0.0, "seed": 1, "changes": changes}
    form = {"type": "json_schema", "json_schema": {"schema": {"default": None}}}
    fields, extra = {"temperature": 0.7, "tools": TOOLS, "response_format": form}, {"seed": None, "max_tokens": 9}
    body = orjson.loads(request_body(Api.CHAT, **common, fields=fields, extra=extra))
    assert (body["temperature"], body["top_k"], body["max_tokens"]) == (0.7, 5, 9)
    assert body["tools"] == TOOLS
    assert body["response_format"] == form
    assert "seed" not in body
    body = orjson.loads(request_body(Api.OLLAMA, **common, fields={"top_p": 0.7}))
    assert body["options"] == {"num_predict": 7, "temperature": 0.0, "seed": 1, "top_p": 0.7}
