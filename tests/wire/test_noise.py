"""Errors anywhere in a stream fail it, and signs of life change nothing: on all endpoints, at any place, cut anyhow."""

from __future__ import annotations

import itertools
import time

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadbench.record.outcome import Outcome, TokenSource
from loadbench.wire.openai import Api, error_text
from loadbench.wire.response_reader import ResponseReader

SSE = (Api.CHAT, Api.COMPLETIONS, Api.RESPONSES)
BOM = b"\xef\xbb\xbf"
WORDS = ("One", " error", " ping", "\n")  # generated text may say anything


def event(data: object, name: str = "") -> bytes:
    """An event with this JSON, or these bytes."""
    head = b"event: %b\n" % name.encode() if name else b""
    return head + b"data: " + (data if isinstance(data, bytes) else orjson.dumps(data)) + b"\n\n"


def response(api: Api) -> list[bytes]:
    """The blocks of a good response with four tokens; the last is its end."""
    usage = {"prompt_tokens": 20, "completion_tokens": 4, "total_tokens": 24}
    match api:
        case Api.CHAT:
            texts = [{"choices": [{"index": 0, "delta": {"content": word}, "finish_reason": None}]} for word in WORDS]
            ends = [{"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}, {"choices": [], "usage": usage}]
            return [*map(event, [*texts, *ends]), b"data: [DONE]\n\n"]
        case Api.COMPLETIONS:
            texts = [{"choices": [{"index": 0, "text": word, "finish_reason": "null"}]} for word in WORDS]
            ends = [{"choices": [{"index": 0, "text": "", "finish_reason": "length"}], "usage": usage}]
            return [*map(event, [*texts, *ends]), b"data: [DONE]\n\n"]
        case Api.RESPONSES:
            delta = "response.output_text.delta"
            counts = {"input_tokens": 20, "output_tokens": 4, "total_tokens": 24}
            end = {"type": "response.completed", "response": {"status": "completed", "usage": counts}}
            texts = [event({"type": delta, "delta": word}, delta) for word in WORDS]
            return [event({"type": "response.created"}, "response.created"), *texts, event(end, "response.completed")]
        case Api.OLLAMA:
            lines = [{"model": "m", "message": {"content": word}, "done": False} for word in WORDS]
            end = {"model": "m", "done": True, "done_reason": "stop", "prompt_eval_count": 20, "eval_count": 4}
            return [orjson.dumps(line) + b"\n" for line in (*lines, end)]


# What keeps a connection open, as servers and proxies send it.
SIGNS = [
    *(b": ping\n\n", b":\n\n", b": OPENROUTER PROCESSING\n", b"data:\n\n", b"data: \n\n", b"\n", BOM, BOM + b"\n\n"),
    *(b"event: ping\n\n", b"event: keepalive\n\n", b"retry: 3000\n\n", b"id: 17\n\n", b"event: ping\ndata: ping\n\n"),
    *(b"event: ping\ndata: no error\n\n", b'event: heartbeat\ndata: {"ts": 1}\n\n', b"event: keep-alive\ndata: 7\n\n"),
    *(
        event(data)
        for data in (b"ping", b": keep-alive", b"{}", b"null", b"[]", b'""', b"[PING]", b"[HEARTBEAT]", b":")
    ),
    *(
        event(data)
        for data in (b"PING 12:00:00", b"keepalive", b"[keep-alive]", b"still-alive", b"heartbeat - 7", b"'ping'")
    ),
    *(event({"type": kind}) for kind in ("ping", "heartbeat", "keepalive", "keep-alive", "server.ping")),
    *map(
        event,
        ({"event": "heartbeat", "time": 17}, {"ping": True}, {"heartbeat": 1}, {"object": "chat.completion.ping"}),
    ),
    *map(event, ({"type": "ping", "error": None}, {"status": "queued", "position": 3}, {"comment": "keep-alive"})),
]
SIGN_LINES = [
    b"\n",
    b"{}\n",
    b"  \n",
    b'{"type":"ping"}\n',
    b"null\n",
    b"ping\n",
    BOM + b"\n",
    b'{"status":"queued"}\n',
]
# Frames of good responses that have no text.
BENIGN = [
    *map(event, ({"choices": []}, {"choices": None}, {"model": "m"}, {"choices": [], "prompt_filter_results": []})),
    *map(event, ({"code": 0, "message": "success"}, {"code": 0, "message": "success", "choices": []})),
    event({"code": 200, "msg": "OK", "choices": []}),
    *map(event, ({"choices": [], "error": None}, {"choices": [], "error": {}}, {"choices": [], "error": ""})),
    *map(
        event,
        ({"choices": [], "base_resp": {"status_code": 0, "status_msg": "success"}}, {"choices": [], "errors": []}),
    ),
    *map(event, ({"choices": [], "success": True}, {"choices": [], "status": "in_progress"})),
    event({"choices": [{"index": 0, "delta": {}, "finish_reason": "null", "error": None}], "code": "0", "message": ""}),
]

MESSAGE = "the model broke down"
# Objects that report an error, in shapes of many servers.
OBJECTS = [
    *({"error": error} for error in ({"message": MESSAGE, "code": 500}, MESSAGE, [MESSAGE], {"msg": MESSAGE}, True)),
    *({"error": {"message": MESSAGE}, "choices": choices} for choices in ([], None)),
    {"choices": [{"index": 0, "delta": {"content": ""}, "finish_reason": "error"}], "error": {"message": MESSAGE}},
    {"choices": [{"index": 0, "delta": {"content": "x"}, "error": {"message": MESSAGE}}]},
    {"choices": [{"index": 0, "delta": {"content": "x", "error": {"message": MESSAGE}}}]},
    {"choices": [{"index": 0, "delta": {}, "finish_reason": {"type": "abort", "message": MESSAGE}}]},
    {"choices": [], "code": "ServiceUnavailable", "message": MESSAGE, "request_id": "r"},
    {"choices": [{"index": 0, "delta": {}}], "code": 50001, "message": MESSAGE},
    *({"code": code, "message": MESSAGE} for code in (500, "500", -1, "InternalError", 1302)),
    *(
        {"code": 500},
        {"errors": [{"message": MESSAGE}]},
        {"detail": MESSAGE},
        {"detail": [{"msg": MESSAGE, "loc": ["a"]}]},
    ),
    *({"status": status, "message": MESSAGE} for status in ("error", 500, "failed", "500")),
    *(
        {"statusCode": 500, "message": MESSAGE},
        {"status_code": 502, "msg": MESSAGE},
        {"ok": False, "description": MESSAGE},
    ),
    *({"object": "error", "message": MESSAGE, "code": 40303}, {"type": "error", "error": {"message": MESSAGE}}),
    *({"type": "error", "message": MESSAGE}, {"type": "invalid_request_error", "message": MESSAGE}),
    *(
        {"error_code": 336100, "error_msg": MESSAGE},
        {"success": False, "message": MESSAGE},
        {"success": False, "msg": MESSAGE},
    ),
    *({"fault": {"faultstring": MESSAGE}}, {"error_message": MESSAGE, "choices": None}, {"errorMessage": MESSAGE}),
    {"choices": [], "base_resp": {"status_code": 1002, "status_msg": MESSAGE}},
    {"id": "x", "model": "m", "choices": [], "error_type": "BadRequestError", "error_message": MESSAGE},
    {"data": {"error": {"message": MESSAGE}}},
    {"timestamp": "now", "status": 500, "error": "Internal Server Error", "path": "/v1"},
    *(
        {"Error": MESSAGE},
        {"Code": "Throttled", "Message": MESSAGE},
        {"ret": -1, "msg": MESSAGE},
        {"errno": 7, "msg": MESSAGE},
    ),
    {"choices": [{"index": 0, "delta": {}}], "x_groq": {"id": "r", "error": MESSAGE}},
    {"x_groq": {"id": "r", "error": MESSAGE}},
    {"message": "Too many requests"},
]
NAMES = ["error", "Error", "ERROR", "exception", "stream_error", "failure", "fatal", "timeout"]
ERRORS = [
    *map(event, OBJECTS),
    *(event({"message": MESSAGE}, name) for name in NAMES),
    *(event(MESSAGE.encode(), name) for name in NAMES),
    *(b"event: error\n\n", b"event: error\ndata:\n\n", b"event: error\ndata: {}\n\n"),
    *(
        b"error: " + orjson.dumps({"code": 500, "message": MESSAGE}) + b"\n\n",
        b"error: broken\n\n",
        b"Error: no memory\n\n",
    ),
    *(
        event(text)
        for text in (b"[ERROR] upstream timed out", b"Internal Server Error", b"Error: boom", b"model overloaded")
    ),
    b"data: Traceback (most recent call last):\ndata:   File 'x.py', line 3\ndata: ValueError: bad\n\n",
    # No frames at all: lines that no parser of events looks at.
    *(
        b'{"error":{"message":"the model broke down"}}\n\n',
        b'{"detail":"overloaded"}\n',
        b'{\n  "error": "no memory"\n}\n\n',
    ),
    *(b"Internal Server Error\n\n", b"Traceback (most recent call last):\n  File 'x.py'\nMemoryError: none\n\n"),
    b"<html><head><title>502 Bad Gateway</title></head>\n<body>nginx</body></html>\n\n",
]
ERROR_LINES = [
    *(orjson.dumps(value) + b"\n" for value in OBJECTS if "choices" not in value),
    *(b"Internal Server Error\n", b"error: broken\n", b"Traceback (most recent call last):\n", b'"server error"\n'),
]
RESPONSE_ERRORS = [
    event(
        {"type": "response.failed", "response": {"status": "failed", "error": {"message": MESSAGE}}}, "response.failed"
    ),
    event({"type": "response.failed", "response": {"error": {"message": MESSAGE}}}),
    event({"type": "response.cancelled", "response": {"status": "cancelled"}}),
    event({"type": "response.error", "message": MESSAGE}),
    event({"type": "error", "code": "server_error", "message": MESSAGE, "sequence_number": None}, "error"),
    event({"type": "response.in_progress", "error": {"message": MESSAGE}}),
]


def signs_of(api: Api) -> list[bytes]:
    """All that changes nothing on this endpoint."""
    return SIGN_LINES if api is Api.OLLAMA else SIGNS if api is Api.RESPONSES else [*SIGNS, *BENIGN]


def errors_of(api: Api) -> list[bytes]:
    """All that fails a response of this endpoint."""
    if api is Api.OLLAMA:
        return ERROR_LINES
    return [*ERRORS, *RESPONSE_ERRORS] if api is Api.RESPONSES else ERRORS


def read(api: Api, chunks: list[bytes]) -> ResponseReader:
    """The response that comes in these reads."""
    answer = ResponseReader(api, keep_text=True)
    for number, chunk in enumerate(chunks):
        answer.feed(10 + number, chunk)
    answer.close(10_000)
    return answer


def cut(stream: bytes, places: list[int]) -> list[bytes]:
    """The stream in pieces."""
    edges = sorted({place % (len(stream) + 1) for place in places} | {0, len(stream)})
    return [stream[start:end] for start, end in itertools.pairwise(edges)]


def with_line_end(api: Api, stream: bytes, end: bytes) -> bytes:
    """The stream with these line ends."""
    return stream if api is Api.OLLAMA else stream.replace(b"\n", end)


places = st.lists(st.integers(0, 5000), max_size=12)
line_ends = st.sampled_from([b"\n", b"\r\n", b"\r"])
apis = st.sampled_from(list(Api))


@given(api=apis, end=line_ends, cuts=places, data=st.data())
def test_signs_of_life_change_nothing(api, end, cuts, data):
    """Any number of them anywhere: the same text, tokens and outcome, and each is counted."""
    blocks = response(api)
    noise = data.draw(st.lists(st.tuples(st.integers(0, len(blocks)), st.sampled_from(signs_of(api))), max_size=8))
    for place, sign in sorted(noise, key=lambda entry: -entry[0]):
        blocks.insert(place, sign)
    answer = read(api, cut(with_line_end(api, b"".join(blocks), end), cuts))
    assert answer.outcome() == (Outcome.OK, "")
    assert answer.text == "".join(WORDS)
    assert (len(answer.event_ns), answer.output_tokens()) == (4, (4, TokenSource.USAGE))
    assert answer.input_tokens == 20
    assert answer.bad_frames == 0
    # Those without data may share a block, and are counted once then.
    assert answer.keep_alives >= sum(sign not in BENIGN and (b"data" in sign or b"{" in sign) for _, sign in noise)
    assert (answer.keep_alives > 0) >= any(sign not in (*BENIGN, BOM, b"\n") for _, sign in noise)


@given(api=apis, end=line_ends, cuts=places, data=st.data())
def test_no_error_ever_ends_as_a_success(api, end, cuts, data):
    """An error at any place, before or after text, finish_reason and the end, among signs of life: it failed."""
    blocks = response(api)
    noise = data.draw(st.lists(st.tuples(st.integers(0, len(blocks)), st.sampled_from(signs_of(api))), max_size=4))
    for place, sign in sorted(noise, key=lambda entry: -entry[0]):
        blocks.insert(place, sign if sign != BOM else b"\n")
    error = data.draw(st.sampled_from(errors_of(api)))
    place = data.draw(st.integers(0, len(blocks)))
    kept = data.draw(st.integers(0, len(blocks)))  # the stream may end soon after it
    blocks = [*blocks[:place], error, *blocks[place : max(place, kept)]]
    outcome, detail = read(api, cut(with_line_end(api, b"".join(blocks), end), cuts)).outcome()
    assert outcome is Outcome.STREAM_ERROR
    assert detail


@pytest.mark.parametrize("api", list(Api))
def test_every_error_fails_at_every_place_with_its_words(api):
    """Each shape alone, at each place of a response, and where it says something, these are the words."""
    for error in errors_of(api):
        for place in range(len(response(api)) + 1):
            blocks = response(api)
            blocks.insert(place, error)
            outcome, detail = read(api, [b"".join(blocks)]).outcome()
            assert outcome is Outcome.STREAM_ERROR, (error, place)
            if MESSAGE.encode() in error:
                assert MESSAGE in detail, (error, place)


@pytest.mark.parametrize("api", list(Api))
def test_every_sign_of_life_is_counted_alone(api):
    """Each of them, before, between and after the frames."""
    for sign in signs_of(api):
        for place in range(len(response(api)) + 1):
            blocks = response(api)
            blocks.insert(place, sign)
            answer = read(api, [b"".join(blocks)])
            assert answer.outcome() == (Outcome.OK, ""), (sign, place)
            assert answer.text == "".join(WORDS), (sign, place)
            assert answer.keep_alives or sign in BENIGN or (sign == BOM and place == 0), (sign, place)


def test_long_noise_is_read_in_a_moment():
    """100 kB of whatever is nothing to a server, and must be nothing to a search for errors and signs of life."""
    kinds = [
        b"<html>" + b"<title" * 20_000,
        b"data: " + b"{" * 100_000 + b"\n\n",
        b"event: " + b"ping." * 20_000 + b"\n\n",
    ]
    kinds += [
        b"data: " + b"ping " * 20_000 + b"\n\n",
        b"error" * 20_000,
        b"x: y\n" * 20_000,
        b"data: {}\n" * 20_000 + b"\n",
    ]
    delta = {"type": "response.output_text.delta", "delta": "a"}
    kinds.append(b"".join(event({**delta, "item_id": str(number)}) for number in range(8_000)))
    for kind in kinds:
        for api in Api:
            began = time.process_time()
            assert read(api, [kind]).outcome()[0] is not Outcome.OK
            assert time.process_time() - began < 2


@pytest.mark.parametrize("api", list(Api))
@pytest.mark.parametrize("name", ["message", "error", "errors", "code", "usage", "delta", "content", "response", "foo"])
@pytest.mark.parametrize("around", ["%s", '{"error":%s}', '{"choices":[],"usage":%s}', '{"choices":[{"delta":%s}]}'])
def test_no_nesting_is_too_deep(api: Api, name: str, around: str) -> None:
    """A thousand objects in each other, which is as deep as JSON is read, are a failed or an empty response."""
    for opened, closed, times in ((f'{{"{name}":', "}", 960), (f'{{"{name}":[', "]}", 480)):
        body = (around % (opened * times + '"x"' + closed * times)).encode()
        reader = ResponseReader(api)
        reader.feed(1, b"data: " + body + b"\n\n" if api is not Api.OLLAMA else body + b"\n")
        reader.close(2)
        assert reader.outcome()[0] is not Outcome.OK
        whole = ResponseReader(api)
        whole.read_json(body, 1)
        assert whole.outcome()[0] is not Outcome.OK
        assert error_text(body)
