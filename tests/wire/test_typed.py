"""The typed decoder tells exactly what the parser tells, of events of any form."""

from __future__ import annotations

import itertools
from typing import Any

import msgspec
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadbench.record.outcome import Outcome
from loadbench.wire import response_reader
from loadbench.wire.openai import ERROR_KEYS, Api
from loadbench.wire.response_reader import Learned, ResponseReader
from loadbench.wire.sse import EventStream
from loadbench.wire.typed import Counts, Form, decoder, form_of
from tests.bench.forms import FORMS, frames


def events(*data: bytes) -> bytes:
    """These frames as a stream of events."""
    return b"".join(b"data: " + one + b"\n\n" for one in data)


def read(
    chunks: list[bytes], *, parsed: bool = False, api: Api = Api.CHAT, learned: Learned | None = None
) -> ResponseReader:
    """What these reads add up to; to keep the text is to parse every event."""
    reader = ResponseReader(api, keep_text=parsed, learned=learned)
    for number, chunk in enumerate(chunks):
        reader.feed(1000 + number, chunk)
    reader.close(9000)
    return reader


def told(reader: ResponseReader) -> dict[str, object]:
    """All that a reader tells but the text."""
    public = [name for name in dir(ResponseReader) if not name.startswith("_") and name != "text"]
    values = {name: getattr(reader, name) for name in public if not callable(getattr(reader, name))}
    calls = (reader.outcome(), reader.output_tokens(), reader.tokens_by_event(), reader.check_usage(4))
    return {**values, "calls": calls}


def compare(stream: list[bytes], cuts: list[int], api: Api = Api.CHAT) -> None:
    """Both ways tell the same of this stream, cut into its events, in two pieces of each, and at these places."""
    whole = b"".join(stream)
    places = sorted({place % (len(whole) + 1) for place in cuts} | {0, len(whole)})
    for chunks in (stream, [whole], [whole[start:end] for start, end in itertools.pairwise(places)]):
        assert told(read(chunks, api=api)) == told(read(chunks, parsed=True, api=api))


# Names that mean something to the parser, or to nobody, and values of all kinds.
FRAME_NAMES = st.sampled_from([*sorted(ERROR_KEYS), "usage", "model", "object", "timings", "metrics", "message", "msg",
    "usageMetadata", "seq", "created", "obfuscation", "prompt_eval_count", "eval_count", "id", "Error", "a-b", "",
    "ü", 'a"'])  # fmt: skip
CHOICE_NAMES = st.sampled_from(
    ["index", "finish_reason", "logprobs", "token_ids", "usage", "error", "text", "message", "delta", "stop_reason"]
)
DELTA_NAMES = st.sampled_from(["content", "reasoning_content", "reasoning", "reasoning_details", "role", "tool_calls",
    "function_call", "error", "refusal", "audio", "thinking", "type", "thought", "text", "annotations", "extra_content",
    "seq", "usage"])  # fmt: skip
TEXTS = st.one_of(st.text(max_size=4), st.sampled_from([" so", "error", "ok", "stop", "null", "500", '"', "\n", "🚀"]))
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(-3, 600), st.floats(allow_nan=False, width=16), TEXTS)
COUNTS = st.fixed_dictionaries(
    {name: st.integers(0, 5) for name in ("prompt_tokens", "completion_tokens", "total_tokens")},
    optional={"completion_tokens_details": st.fixed_dictionaries({"reasoning_tokens": st.integers(0, 3)})},
)
CALLS = st.lists(
    st.fixed_dictionaries(
        {"index": st.integers(0, 1)},
        optional={
            "id": TEXTS,
            "type": st.sampled_from(["function", "custom"]),
            "function": st.fixed_dictionaries({}, optional={"name": TEXTS, "arguments": TEXTS | st.just({"a": 1})}),
        },
    ),
    max_size=2,
)
ENTRIES = st.lists(st.fixed_dictionaries({"token": TEXTS, "logprob": st.floats(-9, 0)}), max_size=3)
LOGPROBS = st.fixed_dictionaries({}, optional={"content": ENTRIES, "refusal": st.none() | ENTRIES, "tokens": ENTRIES})
VALUES = st.one_of(
    SCALARS,
    COUNTS,
    CALLS,
    LOGPROBS,
    st.lists(st.integers(0, 9), max_size=3),
    st.dictionaries(
        st.sampled_from(["message", "error", "code", "reasoning", "content", "usage"]), SCALARS, max_size=2
    ),
)
USUAL = {"usage": COUNTS, "tool_calls": CALLS, "logprobs": LOGPROBS, "token_ids": st.lists(st.integers(0, 9))}
PIECES = {
    "content": st.fixed_dictionaries({"content": TEXTS}),
    "role": st.fixed_dictionaries({"role": st.just("assistant"), "content": TEXTS}),
    "reasoning": st.fixed_dictionaries({"content": st.none() | TEXTS, "reasoning_content": TEXTS}),
    "both": TEXTS.flatmap(lambda text: st.just({"reasoning": text, "reasoning_content": text})),
    "calls": st.fixed_dictionaries({"tool_calls": CALLS}),
}


LABELS = st.lists(
    st.sampled_from([b"id: 7\n", b"id:\n", b"id: data: x\n", b"event: message\n", b"event:message\n", b"event: x\n",
        b"event: error\n", b"id\n", b"retry: 5\n", b"\n", b": on\n"]),
    max_size=3,
).map(b"".join)  # fmt: skip


@st.composite
def streams(draw: st.DrawFn) -> list[bytes]:
    """Events that have the same names with other values each time, and here and there something else."""
    form = draw(st.sampled_from([*PIECES, "text"]))
    extras = [
        {name: USUAL.get(name, draw(st.sampled_from([SCALARS, st.integers(0, 9), TEXTS, st.none(), VALUES])))}
        for names in (FRAME_NAMES, CHOICE_NAMES, DELTA_NAMES)
        for name in [draw(st.none() | names)]
    ]
    stream, labels = [], draw(st.lists(LABELS, min_size=1, max_size=3) | st.just([b""]))
    for _ in range(draw(st.integers(3, 8))):
        frame, choice, delta = ({k: draw(v) for k, v in extra.items() if k is not None} for extra in extras)
        delta = {**draw(PIECES[form]), **delta} if form != "text" else {}
        choice = {"index": 0, **({"delta": delta} if delta else {"text": draw(TEXTS)}), "finish_reason": None, **choice}
        frame = {"model": "m", "choices": [choice], **frame}
        odd = draw(st.integers(0, 11))
        if odd < 3:
            (frame, choice, delta)[odd].update({draw((FRAME_NAMES, CHOICE_NAMES, DELTA_NAMES)[odd]): draw(VALUES)})
        elif odd == 3:
            frame["choices"] = draw(st.sampled_from([[], [choice, choice], None, [None]]))
        data = orjson.dumps(frame)
        if odd == 4:
            name, value = draw(FRAME_NAMES), draw(VALUES)  # twice, or with an escaped name
            data = b"{%b:%b," % (orjson.dumps(name), orjson.dumps(value)) + data[1:]
        elif odd == 5:
            before, after = draw(st.sampled_from([(b'"choices"', rb'"\u0063hoices"'), (b'"', b'"\xff'), (b"}", b""),
                (b",", b" ,\t"), (b":", b":\r"), (b",", b",\n"), (b"m", b"\\ud800"), (b"m", b"\t"), (b"0", b"01"),
                (b"m", b"\\q"), (b"null", b"NaN"), (b"{", b"\xef\xbb\xbf{")]))  # fmt: skip
            data = data.replace(before, after, 1)
        stream.append(draw(st.sampled_from(labels)) + events(data))
        if odd == 6:
            stream[-1] = draw(st.sampled_from([b": ping\n\n", b"id: 7\n" + stream[-1], b"event: error\n" + stream[-1],
                stream[-1].replace(b"\n", b"\r\n"), stream[-1].replace(b"data: ", b"data:"), b"data: [DONE]\n\n",
                b'data: {"error":{"message":"no"}}\n\n', b"data: {\ndata: }\n\n"]))  # fmt: skip
    return stream


@given(stream=streams(), cuts=st.lists(st.integers(0, 4000), max_size=6))
def test_every_stream_is_read_as_by_the_parser(stream, cuts):
    """Whatever an event has, wherever it has it, and however the stream is cut."""
    compare(stream, cuts)


@given(earlier=streams(), stream=streams(), together=st.sampled_from([1, 3]))
def test_what_earlier_responses_taught_changes_nothing(earlier, stream, together):
    """A response is read as by the parser, whatever responses came before it."""
    learned = Learned()
    for one in (earlier, stream, stream):
        chunks = [b"".join(one[start : start + together]) for start in range(0, len(one), together)]
        assert told(read(chunks, learned=learned)) == told(read(chunks, parsed=True))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("together", [1, 16, 320])
@pytest.mark.parametrize("labels", [b"", b"event: message\nid: %d\n"], ids=["bare", "labelled"])
def test_events_of_every_usual_form_are_not_parsed(form, together, labels, monkeypatch):
    """But for the first ones, and nor are they framed; and they count as if they had been."""
    stream = [(labels and labels % number) + events(frame) for number, frame in enumerate(frames(form, 320))]
    chunks = [b"".join(stream[start : start + together]) for start in range(0, 320, together)]
    reader, parsed, framed = ResponseReader(Api.CHAT), [], []
    parse, cut = reader._read_chunk, EventStream.feed
    reader._read_chunk = lambda data: parsed.append(data) or parse(data)
    monkeypatch.setattr(EventStream, "feed", lambda self, chunk: framed.append(chunk) or cut(self, chunk))
    for number, chunk in enumerate(chunks):
        reader.feed(1000 + number, chunk)
    reader.close(9000)
    assert len(parsed) <= 10
    assert len(framed) <= 10
    assert told(reader) == told(read(chunks, parsed=True))


def test_the_form_is_that_of_the_events_after_the_first(monkeypatch):
    """Which may be another, as where the first one has the role."""
    made, parsed = [], []
    monkeypatch.setattr(response_reader, "decoder", lambda form: made.append(form) or decoder(form))
    first = chat({"role": "assistant", "content": "a"}, model="m")
    others = [chat({"content": "a", "seq": number}, model="m") for number in range(99)]
    reader = ResponseReader(Api.CHAT)
    parse = reader._read_chunk
    reader._read_chunk = lambda data: parsed.append(data) or parse(data)
    for number, one in enumerate((first, *others)):
        reader.feed(number, events(orjson.dumps(one)))
    assert len(reader.event_ns) == 100
    assert len(parsed) <= 10
    assert len(made) == 1


@pytest.mark.parametrize(
    "end",
    [
        {"choices": [{"index": 0, "delta": {"content": "a"}, "finish_reason": "stop"}]},
        {"choices": [{"index": 0, "delta": {"content": "a"}}], "error": {"message": "no"}},
        {"choices": [{"index": 0, "message": {"content": "a"}}]},
    ],
)
def test_no_form_is_learned_from_an_end(end, monkeypatch):
    """After it comes nothing like it."""
    made = []
    monkeypatch.setattr(response_reader, "decoder", lambda form: made.append(form) or decoder(form))
    read([events(orjson.dumps({"model": "m", **one})) for one in (chat({"content": "a"}), end)])
    assert not made


def test_a_decoder_that_refuses_many_events_is_given_up(monkeypatch):
    """Every second one, here. It is tried with few of them, and all are read."""
    tried = []

    def counting(form):
        decode = decoder(form)
        return lambda data: tried.append(data) or decode(data)

    monkeypatch.setattr(response_reader, "decoder", counting)
    usual = [chat({"content": "a"}, seq=number, model="m") for number in range(400)]
    unusual = [chat({"content": "a", f"name{number}": number}, seq=number, model="m") for number in range(400)]
    reader = read([events(orjson.dumps(one)) for pair in zip(usual, unusual, strict=True) for one in pair])
    assert len(reader.event_ns) == 800
    assert 20 < len(tried) < 150


def test_reasoning_under_two_names_counts_once_or_twice():
    """Once where both have the same text. That it was shown is known to the end."""
    for other, length in (("hm", 2), ("so", 4)):
        delta = {"reasoning_content": "hm", "reasoning": other}
        stream = [events(orjson.dumps(chat(delta, seq=number, model="m"))) for number in range(20)]
        usage = {**TOKENS, "completion_tokens": 50, "completion_tokens_details": {"reasoning_tokens": 40}}
        stream.append(events(orjson.dumps({"choices": [], "usage": usage})))
        compare(stream, [])
        reader = read(stream)
        assert reader.text_bytes == 20 * length
        assert reader.check_usage(None).hidden == 0


LINE = {"model": "m", "created_at": "now", "message": {"role": "assistant", "content": "a"}, "done": False}
DELTA = {"type": "response.output_text.delta", "item_id": "i", "output_index": 0, "content_index": 0, "delta": "a"}


@given(
    data=st.data(), cuts=st.lists(st.integers(0, 4000), max_size=6), api=st.sampled_from([Api.OLLAMA, Api.RESPONSES])
)
def test_other_apis_are_read_as_by_the_parser(data, cuts, api):
    """Lines of Ollama, and events of the Responses endpoint in their order or not."""
    stream, number = [], data.draw(st.sampled_from([None, 0]))
    names = st.sampled_from(["model", "message", "done", "response", "thinking", "error", "done_reason", "eval_count",
        "type", "item_id", "delta", "logprobs", "sequence_number", "obfuscation", "item", "code"])  # fmt: skip
    for _ in range(data.draw(st.integers(3, 9))):
        one = dict(LINE if api is Api.OLLAMA else DELTA)
        if api is Api.OLLAMA:
            one["message"] = {**one["message"], **data.draw(PIECES["role"])}
            if data.draw(st.booleans()):
                one["message"]["thinking"] = data.draw(TEXTS)
        else:
            number = None if number is None else number + data.draw(st.sampled_from([1, 1, 1, 1, 1, 2]))
            one |= {"delta": data.draw(TEXTS), "logprobs": data.draw(ENTRIES)}
            one |= {} if number is None else {"sequence_number": number}
        if data.draw(st.integers(0, 5)) == 0:
            one[data.draw(names)] = data.draw(
                VALUES | st.sampled_from(["response.reasoning_text.delta", "error", True])
            )
        raw = orjson.dumps(one)
        if data.draw(st.integers(0, 9)) == 0:
            raw = raw.replace(b'"a', b'"\\ud800', 1) + data.draw(st.sampled_from([b"\r", b"}", b""]))
        name = b"event: %b\n" % str(one.get("type")).encode() if data.draw(st.integers(0, 9)) else b""
        stream.append(raw + b"\n" if api is Api.OLLAMA else name + events(raw))
    compare(stream, cuts, api)


VALUES_AS_SENT = [rb'"\q"', b'"\t"', b"01", b"1.", b"--1", b"NaN", b"1e999", rb'"\ud800"', rb'"\uZZ"', b"[1,]", b"-",
    b'{"a":1,}', b"tru", b'"\xff"', b"+5", b".5", b"1e", b"'a'", b"1 2", b"", b"\x0b1", b'"\x00"', b"{1:2}",
    b'"\xed\xa0\x80"', b"1" * 4301, b"[" * 2000 + b"]" * 2000]  # fmt: skip


@pytest.mark.parametrize("value", VALUES_AS_SENT)
@pytest.mark.parametrize("place", [b'"index":%b,', b'"extra":{"x":[%b]},', b'"logprobs":{"content":[{"x":%b}]},'])
def test_what_is_passed_over_must_be_json(value, place):
    """A value that nobody reads still decides whether the event is one: what the parser refuses is not skipped."""
    good = b'{"model":"m","n":1,"choices":[{"index":0,"extra":1,"delta":{"content":"a"}}]}'
    bad = [good.replace(b'"index":0,', place % value), good.replace(b'"n":1', b'"n":' + value)]
    compare([events(one) for one in [good] * 6 + bad + [good]], [])


@pytest.mark.parametrize(
    ("odd", "outcome"),
    [
        ({"error": {"message": "no"}}, Outcome.STREAM_ERROR),
        ({"code": 500, "message": "no"}, Outcome.STREAM_ERROR),
        ({"status": "failed"}, Outcome.STREAM_ERROR),
        ({"object": "error"}, Outcome.STREAM_ERROR),
        ({"choices": [{"index": 0, "delta": {"content": "a", "error": "no"}}]}, Outcome.STREAM_ERROR),
        ({"choices": [{"index": 0, "delta": {"content": "a"}, "error": "no"}]}, Outcome.STREAM_ERROR),
        ({"choices": [{"index": 0, "delta": {"content": "a"}, "finish_reason": "error"}]}, Outcome.STREAM_ERROR),
        ({"choices": [{"index": 0, "delta": {"content": "a"}, "finish_reason": "stop"}]}, Outcome.OK),
        ({"choices": [{"index": 0, "delta": {"content": "a"}, "finish_reason": {"type": "abort"}}]}, None),
        ({"status": "¹"}, None),  # a digit that is no number
    ],
)
@pytest.mark.parametrize("before", [{}, {"status": "running", "code": 0, "error": None, "type": "chunk"}])
def test_no_failure_and_no_end_slips_by(odd, outcome, before):
    """Of an event like all others but for what says that the response has failed, or ended."""
    usual = [
        {"n": n, "object": "chunk", **before, "choices": [{"index": 0, "delta": {"content": "a"}}]} for n in range(40)
    ]
    stream = [events(orjson.dumps(one)) for one in [*usual, {**usual[0], **odd}, *usual]]
    compare(stream, [])
    if outcome is not None:
        assert read(stream).outcome()[0] is outcome


def form(*frames: dict[str, object], known: Form | None = None) -> Form | None:
    """The form of the first events of a stream."""
    found = known or Form()
    for frame in frames:
        found = form_of(orjson.dumps(frame), found, has_model=True)
        if found is None:
            return None
    return found


def chat(delta: dict[str, object], **more: object) -> dict[str, object]:
    return {"choices": [{"index": 0, "delta": delta}], **more}


TOKENS = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
CALL = {"tool_calls": [{"index": 0, "function": {"arguments": "a"}}]}


@pytest.mark.parametrize(
    ("frames", "choice", "usage", "in_delta"),
    [
        ([chat({"content": "a"})], "_Usual", Counts, ()),
        ([chat({"content": "a"}, usage=TOKENS)], "_Usual", Counts, ()),
        ([chat({"content": "a"}, usage={**TOKENS, "cost": 1})], "_Usual", dict[str, Any], ()),
        ([chat({"content": "a"}, usage={"cost": 1}), chat({"content": "a"})], "_Usual", dict[str, Any], ()),
        ([chat({"content": "a", "seq": 1})], "_Usual", Counts, ("seq",)),
        ([chat({"content": "a", "seq": 1}), chat({"content": "a", "n": 1})], "_Usual", Counts, ("seq", "n")),
        ([chat(CALL)], "_Usual", Counts, ()),
        # Read name by name: a call with an object, text under a further name, a name that decides what the text is.
        ([chat({"tool_calls": [{"function": {"arguments": {"a": 1}}}]})], "_Unusual", Counts, ()),
        ([chat({"content": "a", "thinking": "b"})], "_Unusual", Counts, ()),
        ([chat({"content": "a", "type": "b"})], "_Unusual", Counts, ()),
        ([chat({"content": "a", 'a"': 1})], "_Unusual", Counts, ()),
        ([chat({"content": "a", "type": "b"}), chat({"content": "a"})], "_Unusual", Counts, ()),
        ([{"choices": [{"index": 0, "text": "a"}]}], "_Completion", Counts, ()),
    ],
)
def test_the_quickest_decoder_is_chosen_that_reads_all_events(frames, choice, usage, in_delta):
    """Of the usual names if it can, else the whole delta; the usage by its fields if it has no others."""
    found = form(*frames)
    assert found is not None
    assert (found.choice.__name__, found.usage, found.in_delta) == (choice, usage, in_delta)


@pytest.mark.parametrize("choices", [None, [], [None], [{"delta": {}}, {"delta": {}}], {"delta": {}}])
def test_what_no_decoder_reads_is_parsed(choices):
    """Such as an event of two choices."""
    assert form({"choices": choices}) is None


@pytest.mark.parametrize("name", ['a"', "a\\", "a\n", "\ud7ff\u0007"])
def test_a_name_that_cannot_be_a_field_has_no_decoder(name):
    """Quotation marks, backslashes and what cannot be printed."""
    assert decoder(Form(names=(name,))) is None
    assert decoder(Form(names=("a", "a-b", "ü"))) is not None


def test_usage_replaces_an_earlier_one_that_says_no_more():
    """One without reasoning, and with the same details; only such counts need not be read each time."""
    some = {"cached_tokens": 3}
    usual = msgspec.convert(TOKENS, Counts)
    detailed, reasoned = (
        msgspec.convert({**TOKENS, name: details}, Counts)
        for name, details in (("prompt_tokens_details", some), ("completion_tokens_details", {"audio_tokens": 1}))
    )
    later = msgspec.convert({**TOKENS, "prompt_tokens_details": some}, Counts)
    assert usual.replaces(None)
    assert usual.replaces(usual)
    assert later.replaces(detailed)
    for one, other in itertools.permutations([usual, detailed, reasoned], 2):
        assert not one.replaces(other)
    for fields in ({"reasoning_tokens": 1}, {"completion_tokens_details": {"reasoning_tokens": 1}}):
        assert not msgspec.convert({**TOKENS, **fields}, Counts).replaces(None)
    none = msgspec.convert({**TOKENS, "reasoning_tokens": 0}, Counts)
    assert none.replaces(None)
    assert not none.replaces(usual)


@pytest.mark.parametrize(
    ("logprobs", "count"),
    [
        ({}, None),
        ({"content": None, "refusal": None}, None),
        ({"content": [{}, {}], "refusal": [{}]}, 3),
        ({"tokens": ["a", "b"]}, 2),
        ({"content": [{}], "tokens": ["a", "b"]}, 1),
    ],
)
def test_log_probabilities_count_tokens(logprobs, count):
    """Those of the older form where there are no others; as the parser counts them."""
    frame = {"choices": [{"index": 0, "delta": {"content": "a"}, "logprobs": logprobs}]}
    decode = decoder(form(frame))
    assert decode(orjson.dumps(frame)).choices[0].logprobs.count == count
    compare([events(orjson.dumps(frame))] * 9, [])


@pytest.mark.parametrize(
    ("usual", "odd"),
    [
        ({"content": "a", "annotations": []}, {"content": "a", "annotations": [{"reasoning": "hm"}]}),
        ({"content": "a", "annotations": {}}, {"content": "a", "annotations": {"reasoning": "hm"}}),
        (CALL, {"tool_calls": [{"index": 0, "function": {"arguments": "a", "thinking": "hm"}}]}),
        (CALL, {"tool_calls": [{"index": 0, "function": {"arguments": "a"}, "thinking": "hm"}]}),
    ],
)
def test_text_that_comes_later_under_another_name_is_found(usual, odd):
    """In what was empty before, or inside of a call."""
    stream = [events(orjson.dumps(chat(delta))) for delta in [usual] * 9 + [odd] * 2 + [usual]]
    compare(stream, [])


def test_deep_values_are_refused_as_the_parser_refuses_them() -> None:
    """What the decoder passes over may be nested no deeper than what the parser reads."""
    usual = b'{"x":1,"choices":[{"delta":{"content":"a"}}]}'
    for levels in (100, 127, 128, 129, 900):
        deep = usual.replace(b"1", b"[" * levels + b"]" * levels, 1)
        compare([events(usual)] * 3 + [events(deep), events(usual)], [])
