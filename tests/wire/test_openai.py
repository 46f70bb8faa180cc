"""One frame at a time: what servers are asked, and every shape of what they answer."""

from __future__ import annotations

import json
import unicodedata

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadbench.core.bounded import MOST_LEVELS
from loadbench.wire.formats import address
from loadbench.wire.openai import Api, BadChunk, Chunk, clean, error_text, page_text, read_chunk, read_whole
from loadbench.wire.usage import Usage


def frame(**fields: object) -> bytes:
    return orjson.dumps(fields)


def choice(**fields: object) -> bytes:
    return frame(choices=[fields])


def delta(**fields: object) -> bytes:
    return choice(delta=fields)


# What is asked.


def test_the_two_paths() -> None:
    """Both paths lie below a base URL that ends in the version."""
    assert [address(Api(one), "http://h/v1") for one in ("chat", "completions")] == [
        "http://h/v1/chat/completions",
        "http://h/v1/completions",
    ]


# What is answered.


@pytest.mark.parametrize(
    ("data", "text", "reasoning", "tool"),
    [
        (delta(content="a"), "a", "", ""),
        (delta(role="assistant", content=""), "", "", ""),
        (delta(role="assistant", content=None), "", "", ""),
        (delta(role="assistant"), "", "", ""),
        (delta(), "", "", ""),
        (choice(delta=None), "", "", ""),
        (choice(), "", "", ""),
        (frame(choices=[]), "", "", ""),
        (frame(choices=None), "", "", ""),
        (frame(choices=[None, 3, "x"]), "", "", ""),
        (frame(), "", "", ""),
        (
            delta(content=[{"type": "text", "text": "a"}, {"type": "text", "text": "b"}, None, {"type": "x"}]),
            "ab",
            "",
            "",
        ),
        (delta(content={"unknown": 1}), "", "", ""),
        (choice(message={"content": "a"}), "a", "", ""),
        (choice(delta={"content": "a"}, message={"content": "a"}), "a", "", ""),
        (choice(delta={}, message={"content": "the whole answer"}), "", "", ""),
        (choice(delta=None, message={"content": "a"}), "a", "", ""),
        (choice(text="a"), "a", "", ""),
        (choice(text=""), "", "", ""),
        (choice(text=None), "", "", ""),
        (delta(reasoning_content="r"), "", "r", ""),
        (delta(reasoning="r", content=None), "", "r", ""),
        (delta(reasoning="r", reasoning_content="r"), "", "r", ""),
        (delta(reasoning_content=None, content="a"), "a", "", ""),
        (delta(content="a", reasoning_content="r"), "a", "r", ""),
        (delta(refusal="no"), "", "", "no"),
        (delta(content="a", tool_calls=[]), "a", "", ""),
        (delta(tool_calls=[{"index": 0, "function": {"name": "f", "arguments": ""}}]), "", "", "f"),
        (delta(tool_calls=[{"index": 0, "function": {"arguments": '{"a"'}}]), "", "", '{"a"'),
        (delta(tool_calls=[{"index": 0, "function": {"name": None, "arguments": ""}}, None]), "", "", ""),
        (delta(tool_calls=[{"function": {"name": "f", "arguments": {"a": 1}}}]), "", "", 'f{"a": 1}'),
        (delta(tool_calls=[{"custom": {"name": "f", "input": "x"}}]), "", "", "fx"),
        (delta(function_call={"name": "f", "arguments": "x"}), "", "", "fx"),
        (frame(choices=[{"delta": {"content": "a"}}, {"delta": {"content": "b", "reasoning": "r"}}]), "ab", "r", ""),
    ],
)
def test_a11_d3_d4_what_is_text_and_what_is_not(data: bytes, text: str, reasoning: str, tool: str) -> None:
    """Role-only, empty, null and missing content are no text; reasoning and tool calls are, each of its own kind."""
    chunk = read_chunk(data)
    assert (chunk.text, chunk.reasoning, chunk.tool) == (text, reasoning, tool)


@pytest.mark.parametrize(
    ("fields", "tokens"),
    [
        ({}, None),
        ({"token_ids": None, "logprobs": None}, None),
        ({"token_ids": [5, 6]}, 2),
        ({"token_ids": []}, 0),
        ({"token_ids": [5, 6], "logprobs": {"content": [{}]}}, 2),
        ({"logprobs": {"content": [{}, {}, {}]}}, 3),
        ({"logprobs": {"content": [{}], "refusal": None}}, 1),
        ({"logprobs": {"content": None, "refusal": [{}, {}]}}, 2),
        ({"logprobs": {"content": None}}, None),
        ({"logprobs": {"tokens": ["a", "b"], "token_logprobs": [-1, -2]}}, 2),
        ({"logprobs": []}, None),
    ],
)
def test_d1_tokens_are_counted_where_the_server_tells_them(fields: dict[str, object], tokens: int | None) -> None:
    """Token ids come first, then logprobs in both their forms; nothing told is not zero."""
    assert read_chunk(choice(delta={"content": "a"}, **fields)).tokens == tokens


def test_tokens_of_several_choices_add_up() -> None:
    """With n > 1 an event holds the tokens of all its choices."""
    assert read_chunk(frame(choices=[{"token_ids": [1]}, {"token_ids": [2, 3]}, {}])).tokens == 3


@pytest.mark.parametrize(
    ("data", "usage"),
    [
        (frame(choices=[]), None),
        (frame(choices=[], usage=None), None),
        (frame(choices=[], usage={}), None),
        (frame(choices=[], usage=""), None),
        (frame(choices=[], usage="much"), Usage(unknown="much")),
        (frame(choices=[], usage=[{"completion_tokens": 3}]), Usage(unknown='[{"completion_tokens": 3}]')),
        (frame(usage={"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}), Usage(3, 4, None, None, 7)),
        (choice(delta={"content": "a"}, usage={"prompt_tokens": 3, "completion_tokens": 4}), Usage(3, 4)),
        (
            frame(usage={"completion_tokens": 4.0, "prompt_tokens": "3", "total_tokens": -7}),
            Usage(3, 4, fault="total_tokens is -7"),
        ),
        (frame(usage={"completion_tokens": True, "prompt_tokens": 1e30}), Usage(fault="prompt_tokens is 1e+30")),
        (
            frame(
                usage={
                    "prompt_tokens": 3,
                    "completion_tokens": 4,
                    "prompt_tokens_details": {"cached_tokens": 2},
                    "completion_tokens_details": {"reasoning_tokens": 1},
                }
            ),
            Usage(3, 4, 2, 1),
        ),
        (
            frame(usage={"prompt_tokens_details": None, "completion_tokens_details": None, "reasoning_tokens": 0}),
            Usage(None, None, None, 0, unknown="prompt_tokens_details, completion_tokens_details, reasoning_tokens"),
        ),
    ],
)
def test_d10_usage_is_read_wherever_it_is(data: bytes, usage: Usage | None) -> None:
    """On any frame, or inside a choice; what is missing, null or no plausible count is `None`."""
    assert read_chunk(data).usage == usage


@pytest.mark.parametrize(
    ("usage", "generated"),
    [
        (Usage(10, 30, None, 20, 40), 30),
        (Usage(10, 30, None, 20, 60), 50),
        (Usage(10, 30, None, 20, None), 30),
        (Usage(10, 30, None, 20, 55), 30),
        (Usage(None, 30, None, 20, 60), 30),
        (Usage(10, 30, None, 0, 40), 30),
        (Usage(10, None, None, 20, 40), None),
    ],
)
def test_d6_the_total_decides_whether_reasoning_came_on_top(usage: Usage, generated: int | None) -> None:
    """Reasoning is added to the output only where the total says that it is not in it."""
    assert usage.generated == generated


@pytest.mark.parametrize(
    ("value", "reason"), [(None, None), ("", None), ("stop", "stop"), ({"type": "length"}, "length"), (3, None)]
)
def test_a_finish_reason_is_a_word_or_none(value: object, reason: str | None) -> None:
    """Null and empty are no finish; neither is a missing key."""
    assert read_chunk(choice(finish_reason=value, delta={})).finish_reason == reason
    assert read_chunk(choice(delta={})).finish_reason is None


@pytest.mark.parametrize("data", [b"[DONE]", b"[DONE] ", b"[DONE]\n"])
def test_done_is_the_end_and_no_json(data: bytes) -> None:
    """The end mark is told by a flag."""
    assert read_chunk(data) == Chunk(done=True)


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (frame(error={"message": "out of\nmemory", "code": 500}), "out of memory"),
        (frame(error="No requests can be scheduled."), "No requests can be scheduled."),
        (frame(error={"code": 7}), '{"code": 7}'),
        (frame(error={"message": "too large", "param": "n", "code": "bad_value"}), "too large (bad value: n)"),
        (frame(error={"message": "n is too large", "param": "n", "code": "bad_value"}), "n is too large"),
        (frame(error={"message": ""}), '{"message": ""}'),
        (frame(error=["a"]), '["a"]'),
        (frame(error=None, choices=[]), None),
        (frame(error={}, choices=[]), None),
        (frame(object="error", message="old form", code=400), "old form"),
        (frame(detail="gone"), "gone"),
        (choice(error={"message": "upstream"}, delta={"content": ""}), "upstream"),
        (choice(delta={"content": "a"}, error=None), None),
    ],
)
def test_e1_an_error_is_seen_in_every_shape(data: bytes, error: str | None) -> None:
    """Object, string, the older form, a choice's own; null and empty are none."""
    assert read_chunk(data).error == error


@pytest.mark.parametrize("code", [0, 200, 204, 299.0, -1, 1, 199, 300, 500])
def test_a_code_is_that_of_a_success_or_of_an_error(code: float) -> None:
    """0 and what HTTP calls a success; a gateway's frame with any other number fails the response."""
    is_success = code in {0, 200, 204, 299.0}
    assert (read_chunk(frame(choices=[], code=code)).error is None) is is_success
    assert (read_chunk(frame(choices=[], ret=code)).error is None) is is_success


def test_foundry_frames_are_not_counted_twice() -> None:
    """The 1.x dialect repeats its delta as a message and adds keys of its own."""
    part = {"role": "assistant", "content": "ule", "tool_calls": []}
    data = frame(
        model="m",
        choices=[{"delta": part, "message": part, "index": 0}],
        usage={"prompt_tokens": 14, "completion_tokens": 2, "total_tokens": 16},
        IsDelta=False,
        Successful=True,
        HttpStatusCode=0,
    )
    assert read_chunk(data) == Chunk("ule", usage=Usage(14, 2, None, None, 16), model="m", choices=1)


def test_a_whole_answer_is_read_from_its_message() -> None:
    """Where an answer that was not streamed has both, the message counts; /completions has its text."""
    assert read_whole(choice(message={"content": "ab"}, delta={"content": "cd"})).text == "ab"
    assert read_whole(choice(text="ab")).text == "ab"
    assert read_whole(choice(delta={"content": "cd"})).text == "cd"


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[1]", b'"x"', b"3", b"null", b"true", b"<html>", b"\xff", b"[DONE", b"{" * 9999, b"[" * 9999]
)
def test_d14_what_is_no_json_object_is_refused(data: bytes) -> None:
    """Never skipped in silence: the reader says what it got, in one line."""
    for reader in (read_chunk, read_whole):
        with pytest.raises(BadChunk) as caught:
            reader(data)
        assert 0 < len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b'{"choices":[{"delta":{"content":"a\xffb"}}]}', "a\ufffdb"),
        (b'{"choices":[{"delta":{"content":"\\ud83d"}}]}', "\ud83d"),
        (b'{"choices":[{"delta":{"content":"a"},"logprobs":{"content":[{"logprob":-Infinity}]}}]}', "a"),
        (b'{"choices":[{"delta":{"content":"a"}}],"x":NaN}', "a"),
    ],
)
def test_what_only_strict_json_refuses_is_read(data: bytes, text: str) -> None:
    """Broken UTF-8, half a surrogate pair and non-finite numbers come from real servers, and the answer is good."""
    assert read_chunk(data).text == text


anything = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["text", "message", "function", "arguments", "name", "loc"]), inner, max_size=3
        )
    ),
    max_leaves=6,
)


def objects(keys: str, values: st.SearchStrategy[object]) -> st.SearchStrategy[dict[str, object]]:
    return st.dictionaries(st.sampled_from(keys.split()), values, max_size=6)


parts = objects("content reasoning reasoning_content refusal tool_calls function_call role", anything)
choices = objects("delta message text logprobs token_ids finish_reason usage error index", anything | parts)
usages = objects("prompt_tokens completion_tokens total_tokens prompt_tokens_details reasoning_tokens", anything)
frames = objects("choices usage error detail object model timings", anything | st.lists(choices, max_size=3) | usages)


@given(frames)
def test_no_json_object_breaks_the_reader(value: dict[str, object]) -> None:
    """Whatever sits where something else was expected, a frame is read, and every field of it keeps its kind."""
    data = json.dumps(value).encode()
    for chunk in (read_chunk(data), read_whole(data)):
        assert all(isinstance(found, str) for found in (chunk.text, chunk.reasoning, chunk.tool))
        assert all(found is None or isinstance(found, str) for found in (chunk.error, chunk.model, chunk.finish_reason))
        counts = (chunk.tokens, *(chunk.usage or ())[:6])
        assert all(count is None or 0 <= count < 2**63 for count in counts)


def test_deep_nesting_is_no_way_to_break_the_reader() -> None:
    """Nesting that JSON readers still take does not exhaust the stack of what reads after them, nor of what writes."""
    for name in ("error", "detail", "content", "usage"):
        for levels in (100, 900):
            deep = b'{"%b":' % name.encode() * levels + b"1" + b"}" * levels
            assert error_text(deep)
            frames = (
                b'{"choices":[{"delta":' + deep + b"}]}",
                b'{"choices":[{"delta":{"tool_calls":[{"function":{"arguments":' + deep + b"}}]}}]}",
            )
            if levels > MOST_LEVELS:
                for frame in frames:
                    with pytest.raises(BadChunk):
                        read_chunk(frame)
            else:
                assert read_chunk(frames[0]).text == ""
                assert read_chunk(frames[1]).tool


# Errors for people.


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", "no body"),
        (b" \r\n", "no body"),
        (b'{"error":{"message":"Model not found","code":404}}', "Model not found"),
        (b'{"error":"busy"}', "busy"),
        (b'{"detail":"Not Found"}', "Not Found"),
        (
            b'{"detail":[{"loc":["body",56],"msg":"JSON decode error"},{"msg":"b"},"c",{"x":1}]}',
            'body.56: JSON decode error; b; c; {"x": 1}',
        ),
        (b'{"message":"no key"}', "no key"),
        (b'{"object":"error","message":"old"}', "old"),
        (b'{"title":"Bad","status":400}', '{"title": "Bad", "status": 400}'),
        (b"{}", "{}"),
        (b'["a"]', '["a"]'),
        (b"Internal Server Error\n", "Internal Server Error"),
        (b"server=oatpp/1.3.0\ncode=404\n", "server=oatpp/1.3.0 code=404"),
        (b"<!DOCTYPE html><html><head><title>502 Bad &amp; Gateway</title>", "an HTML page (502 Bad & Gateway)"),
        (b"<html><body>x</body></html>", "an HTML page"),
        (b'<?xml version="1.0"?><a/>', '<?xml version="1.0"?><a/>'),
        (b"\xff\xfe", "\ufffd\ufffd"),
        (b"\x00\x1b", "no text"),
    ],
)
def test_error_text_says_what_the_body_says(body: bytes, text: str) -> None:
    """Every shape of error body that servers and proxies send becomes its own words."""
    assert error_text(body) == text


def test_error_text_is_one_harmless_line() -> None:
    """Escape sequences, direction marks and line breaks of a server do not reach a terminal; and it is short."""
    assert error_text("a\x1b[31m\u202eb\r\n\u2028c\u200f\ud7ff".encode()) == "a[31mb c"
    assert error_text(b"x" * 100_000) == "x" * 299 + "…"


@given(st.binary(max_size=300) | st.text(max_size=300).map(str.encode))
def test_error_text_of_anything_is_a_printable_line(body: bytes) -> None:
    """No body breaks it, and nothing unshown comes through."""
    text = error_text(body)
    assert 0 < len(text) <= 300
    assert not {unicodedata.category(letter) for letter in text} & {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
    assert clean(text) == text


def test_page_text_knows_pages_from_other_text() -> None:
    """An angle bracket alone makes no page."""
    assert page_text(b"\xef\xbb\xbf\n <HTML lang=en><TITLE>\n Login \n</TITLE>") == "an HTML page (Login)"
    assert page_text(b"<think>about html</think>") is None
    assert page_text(b"see <html>") is None


def test_the_title_of_a_page_is_looked_for_in_64_kib() -> None:
    """Styles may stand before it. A page is as long as its server likes."""
    for before, name in ((40_000, "an HTML page (Login)"), (65_600, "an HTML page")):
        assert page_text(b"<html><head>".ljust(before) + b"<title>Login</title>") == name
