"""The short way through a stream tells exactly what the long way tells."""

from __future__ import annotations

import itertools

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadbench.wire import response_reader, shortcut
from loadbench.wire.openai import Api, read_chunk
from loadbench.wire.response_reader import Learned, ResponseReader
from loadbench.wire.shortcut import NONE, Shortcut, learn


def frame(text: object, **more: object) -> bytes:
    """A chat frame of the usual kind; `more` goes beside the text's choice."""
    delta = {"content": text}
    choice = {"index": 0, "delta": delta, "finish_reason": more.pop("finish_reason", None)}
    return orjson.dumps({"id": "c-1", "created": 1, "model": "m", "choices": [choice], **more})


def thought(text: object) -> bytes:
    """A chat frame with reasoning."""
    return frame(text).replace(b'"content"', b'"reasoning_content"')


def events(*frames: bytes) -> bytes:
    """The frames as a stream of events."""
    return b"".join(b"data: " + one + b"\n\n" for one in frames)


def learned(*frames: bytes, has_model: bool = True) -> Shortcut | None:
    """The shortcut for two frames like these."""
    return learn(*(b"data: " + one for one in frames), has_model=has_model)


def told(chunks: list[bytes], *, long_way: bool) -> tuple:
    """All that an answer tells of these chunks; to keep the text is to go the long way."""
    answer = ResponseReader(Api.CHAT, keep_text=long_way)
    for number, chunk in enumerate(chunks):
        answer.feed(1000 + number, chunk)
    answer.close(5000)
    return (
        answer.outcome(),
        list(answer.event_ns),
        answer.tokens_by_event(),
        answer.output_tokens(),
        (answer.reads, answer.merged_reads),
        (answer.first_token_ns, answer.first_visible_ns, answer.last_token_ns, answer.done_ns),
        (answer.finish_reason, answer.model, answer.input_tokens, answer.error, answer.bad_frames),
        (answer.text_bytes, answer.check_usage(4)),
    )


USAGE = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
PIECES = st.one_of(
    st.text(max_size=6).map(frame),
    st.text(max_size=6).map(thought),
    st.sampled_from(["hm", " so", "日本"]).map(thought),
    st.sampled_from([" word", "a", "é", "日本", '"', "\\", "\n", "\x7f", "\u2028", "", "\ud83d\ude80"[:0] + "🚀"]).map(
        frame
    ),
    st.just(frame(None)),
    st.just(frame("last", finish_reason="length")),
    st.just(frame("counted", usage=USAGE)),
    st.just(frame("other", model="n")),
    st.just(orjson.dumps({"choices": [], "model": "m", "usage": USAGE})),
    st.just(orjson.dumps({"error": {"message": "no"}})),
    st.just(frame("x").replace(b'"x"', b'"\xff"')),
    st.just(frame("x").replace(b'"x"', b'"a\tb"')),
    st.just(frame("x").replace(b'"x"', b'"a", "content":"b"')),
    st.just(frame("x")[:-3]),
    st.just(b"[DONE]"),
)


@given(
    first=st.text(alphabet="abc ", min_size=1),
    reasons=st.booleans(),
    frames=st.lists(PIECES, max_size=24),
    at=st.lists(st.integers(0, 6000), max_size=24),
)
def test_the_short_way_tells_what_the_long_way_tells(first, reasons, frames, at):
    """For frames of every kind, cut anywhere, both ways tell the same."""
    stream = events(*[thought(first) if reasons else frame(first)] * 2, *frames)
    places = sorted({place % (len(stream) + 1) for place in at} | {0, len(stream)})
    chunks = [stream[start:end] for start, end in itertools.pairwise(places)]
    assert told(chunks, long_way=False) == told(chunks, long_way=True)


@given(texts=st.lists(st.text(min_size=1, max_size=5), min_size=2, max_size=20), together=st.integers(1, 7))
def test_events_that_come_together_are_all_counted(texts, together):
    """Several events in one read, whatever their texts, are counted as the long way counts them."""
    all_events = [events(frame(text)) for text in ["first", *texts]]
    chunks = [b"".join(all_events[start : start + together]) for start in range(0, len(all_events), together)]
    short, long = told(chunks, long_way=False), told(chunks, long_way=True)
    assert short == long
    assert len(short[1]) == len(texts) + 1


@pytest.mark.parametrize(
    ("data", "other"),
    [
        (frame(" a"), frame(" another")),
        (frame(" a").replace(b":", b": "), frame(" z").replace(b":", b": ")),
        (b'{"choices":[{"text":"a","index":0}]}', b'{"choices":[{"text":"bcd","index":0}]}'),
        (thought(" a"), thought(" another")),
        (thought(" a").replace(b"_content", b""), thought("b").replace(b"_content", b"")),
    ],
)
def test_simple_event_is_learned(data, other):
    """Two events with text and nothing else teach the form of the next."""
    shortcut = learned(data, other)
    assert shortcut.count(events(other))[0] == 1
    assert shortcut.count(events(other, other, data))[0] == 3


def test_text_of_any_letters_needs_no_parser():
    """One event, and several in one read, with the bytes of their texts."""
    shortcut = learned(frame("a"), frame("b"))
    assert shortcut.count(events(frame("日本"))) == (1, 6)
    assert shortcut.count(events(frame("é"), frame("b"), frame("🚀"))) == (3, 7)


@pytest.mark.parametrize(
    "data",
    [
        frame("x", finish_reason="stop"),
        frame("x", usage=USAGE),
        frame(None),
        frame('say "x"'),
        orjson.dumps({"choices": [{"delta": {"reasoning_content": "hm", "content": "a"}}]}),
        orjson.dumps({"choices": [{"delta": {"reasoning_content": "hm", "reasoning": "hm"}}]}),
        # The text stands twice: another in one place is not the same event with another text.
        orjson.dumps({"choices": [{"delta": {"content": "a"}}, {"delta": {"content": "b"}, "index": 1}]}),
    ],
)
def test_what_is_not_simple_is_not_learned(data):
    """An event that tells more than its text, or tells it in two places, teaches nothing."""
    assert learned(data, data) is None


def test_events_that_differ_in_more_than_text_are_not_learned():
    """Nor are those whose model is not known yet, since the next may name another."""
    assert learned(frame("a", created=1.5), frame("a", created=2.5)) is None
    assert learned(frame("a", created=1), frame("a", created="1")) is None
    assert learned(frame("a", model="m"), frame("a", model="n")) is None
    assert learned(frame("a"), frame("b"), has_model=False) is None
    assert learned(b'{"choices":[{"text":"a"}]}', b'{"choices":[{"text":"b"}]}', has_model=False).count(
        events(b'{"choices":[{"text":"c"}]}')
    ) == (1, 1)


@pytest.mark.parametrize(
    "chunk",
    [
        events(frame("a", finish_reason="stop")),
        events(frame("")),
        events(frame('"')),
        events(frame("a"))[:-1],
        events(frame("a"))[1:],
        b": ping\n\n" + events(frame("a")),
        events(frame("a")).replace(b"\n", b"\r\n"),
        events(frame("a"), b"[DONE]"),
        events(frame("a"), frame("b", usage=USAGE), frame("c")),
        events(frame("x").replace(b'"x"', b'"\xff"')),
        b"",
    ],
)
def test_all_else_goes_the_long_way(chunk):
    """Whatever is not wholly of the learned form is left alone."""
    assert learned(frame("learned"), frame("another")).count(chunk) == NONE


def test_text_after_reasoning_has_a_form_of_its_own(monkeypatch):
    """Both are counted without being read, once two of each have been; the marks are those of each kind."""
    tried = []
    monkeypatch.setattr(
        response_reader, "learn", lambda *events, **model: tried.append(events) or learn(*events, **model)
    )
    chunks = [events(make("abc")) for make in (thought, frame) for _ in range(20)]
    assert told(chunks, long_way=False) == told(chunks, long_way=True)
    assert tried == [(b"data: " + make("abc"),) * 2 for make in (thought, frame)]


@pytest.mark.parametrize("together", [1, 16])
def test_a_shortcut_that_is_out_of_date_is_learned_again(together):
    """As where each event has the second in which it was sent: at the end the last second's fits."""
    frames = [frame("a", created=number // 64) for number in range(640)]
    chunks = [events(*frames[at : at + together]) for at in range(0, 640, together)]
    assert told(chunks, long_way=False) == told(chunks, long_way=True)
    answer = ResponseReader(Api.CHAT)
    for number, chunk in enumerate(chunks):
        answer.feed(number, chunk)
    assert answer._shortcut.count(events(frames[-1])) == (1, 1)


VARYING = st.fixed_dictionaries(
    {
        "id": st.one_of(st.text(max_size=3), st.text("ab\x7fé", max_size=3)),
        "created": st.integers(0, 10**18),
        "seq": st.integers(-3, 10**17),
        "padding": st.text("x", max_size=9),
    }
)


@given(
    st.lists(st.tuples(st.text("ab é", min_size=1, max_size=4), VARYING), min_size=4, max_size=40),
    st.integers(1, 8),
    st.sampled_from([b"", b"x", b"\xc3", b"junk\n", b": ping\n\n", b"\n", b'data: {"seq":1}\n\n']),
    st.integers(0, 10**6),
)
def test_values_without_a_meaning_may_vary(pieces, together, noise, at):
    """Numbers, ids and padding of the frame: their events count as the parser counts them, whatever is among them."""
    frames = [frame(text, **values) for text, values in pieces]
    chunks = [events(*frames[start : start + together]) for start in range(0, len(frames), together)]
    place = at % len(chunks)
    whole = [one.find(b"data", at % max(1, len(one))) for one in chunks]
    for cut in {0, at % (len(chunks[place]) + 1), max(0, whole[place])}:
        noisy = [*chunks]
        noisy[place] = noisy[place][:cut] + noise + noisy[place][cut:]
        assert told(noisy, long_way=False) == told(noisy, long_way=True)


def test_varying_events_are_counted_without_the_parser():
    """Also in the next response, which has another id and begins with another number: its first event shows enough."""
    known, parsed = Learned(), []
    for response in range(2):
        reader = ResponseReader(Api.CHAT, learned=known)
        reader._read_chunk = lambda data: parsed.append(data) or read_chunk(data)
        for number in range(50):
            reader.feed(number, events(frame("é" * (number % 3 + 1), seq=number, id=f"c-{response}", pad="x" * number)))
        assert len(reader.event_ns) == 50
        assert reader.text_bytes == sum(2 * (number % 3 + 1) for number in range(50))
        assert len(parsed) <= 3
        parsed.clear()


def test_a_varying_value_is_the_frames_own():
    """A name that stands in the choice too is not passed over: there it may mean something."""
    one, other = (
        orjson.dumps({"index": n, "model": "m", "choices": [{"index": 0, "delta": {"content": "a"}}]}) for n in (1, 2)
    )
    assert learned(one, other) is None


def test_patterns_are_not_made_without_end(monkeypatch):
    """A server whose every response has a form of its own is parsed: to make a pattern takes longer than that."""
    made = {}
    monkeypatch.setattr(shortcut, "_patterns", made)
    for number in range(200):
        more = {f"name {number}": 1, "model": "m"}
        learned(frame("a", seq=1, **more), frame("b", seq=2, **more))
    assert len(made) == shortcut._MOST_PATTERNS


@pytest.mark.parametrize("together", [1, 2])
def test_a_form_that_never_comes_again_is_given_up(monkeypatch, together):
    """The first event has a role, which the others lack: theirs is learned after some of them, and only once."""
    first = orjson.dumps({"choices": [{"delta": {"role": "assistant", "content": "a"}}], "model": "m"})
    tried = []
    monkeypatch.setattr(
        response_reader, "learn", lambda *events, **model: tried.append(events) or learn(*events, **model)
    )
    answer = ResponseReader(Api.CHAT)
    for number in range(100):
        frames = [frame("a")] * together if number else [first]
        answer.feed(number, events(*frames))
    assert len(tried) == 2
    assert answer._shortcut is not None
    assert list(answer.event_ns) == [0, *(number for number in range(1, 100) for _ in range(together))]
    numbered = ResponseReader(Api.CHAT)
    for number in range(100):
        numbered.feed(number, events(frame("a", created=number / 2)))
    assert len(tried) == 4
    assert numbered._shortcut is None
    assert len(numbered.event_ns) == 100


@pytest.mark.parametrize("more", [{}, {"created": None}])
def test_events_of_the_older_endpoint_are_not_parsed(more):
    """Whether they differ in their text alone or in a number."""
    reader, parsed = ResponseReader(Api.COMPLETIONS), []
    parse = reader._read_chunk
    reader._read_chunk = lambda data: parsed.append(data) or parse(data)
    for number in range(100):
        fields = {"model": "m", "choices": [{"index": 0, "text": "a"}], **dict.fromkeys(more, number)}
        reader.feed(number, events(orjson.dumps(fields)))
    assert len(reader.event_ns) == 100
    assert len(parsed) <= 10


def test_a_shortcut_is_seldom_looked_for_where_there_was_none(monkeypatch):
    """Of a server whose events never have one; and where one is found again, every response is looked at again."""
    tried = []
    monkeypatch.setattr(response_reader, "learn", lambda *events, **model: tried.append(1) or learn(*events, **model))
    known = Learned()

    def respond(step: float) -> int:
        before = len(tried)
        reader = ResponseReader(Api.CHAT, learned=known)
        for number in range(8):
            reader.feed(number, events(frame("a", created=number * step)))
        return len(tried) - before

    assert [bool(respond(0.5)) for _ in range(20)] == [number < 4 or number == 15 for number in range(20)]
    assert any(respond(0) for _ in range(16))
    assert respond(0)


def test_tokens_that_are_counted_event_by_event_go_on_to_be():
    """Though earlier responses of the server had a shortcut."""
    known = Learned()
    plain = [events(frame("a", seq=number)) for number in range(6)]
    first = events(frame("a", seq=9, usage={"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}))
    for stream in (plain, [first, *plain[1:]]):
        readers = [ResponseReader(Api.CHAT, learned=known), ResponseReader(Api.CHAT, keep_text=True)]
        for reader in readers:
            for number, chunk in enumerate(stream):
                reader.feed(number, chunk)
        fast, slow = readers
        assert (fast.tokens_by_event(), fast.output_tokens()) == (slow.tokens_by_event(), slow.output_tokens())


def test_a_message_beside_a_code_is_no_padding():
    """It says whether the request failed."""
    frames = [
        frame("a", code=1, message="ok"),
        frame("b", code=1, message=""),
        frame("c", code=1, message="overloaded"),
    ]
    chunks = [events(one) for one in [*frames[:2], *frames[:2], frames[2]]]
    assert told(chunks, long_way=False) == told(chunks, long_way=True)
