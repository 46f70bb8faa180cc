"""The event-stream parser against the web platform's cases, a slow reading of the standard, and its limits."""

from __future__ import annotations

import base64
import json
import re
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadbench.wire import sse
from loadbench.wire.ollama import LineStream
from loadbench.wire.sse import LARGEST_BLOCK, Event, EventStream, OversizeEvent

CASES = json.loads((Path(__file__).parents[1] / "data" / "wpt_sse_cases.json").read_text("utf-8"))["parser_cases"]

# What has a meaning to the parser, whole and broken.
PIECES = [
    *(b"\n", b"\r", b"\r\n", b"\n\n", b":", b" ", b": ", b"data", b"data: ", b"data:", b"event", b"event: ", b"id: "),
    *(b"retry: ", b"Data", b"x", b"7", b"\0", b"\xef\xbb\xbf", b"\xef\xbb", b"\xe2\x80\xa6", b"\xe2\x80", b"\xff"),
    *(b"\xc2\x85", b"\xe2\x80\xa8", b"\x0b", b"{}"),
]
streams = st.lists(st.sampled_from(PIECES) | st.binary(max_size=2), max_size=40).map(b"".join)


def read(raw: bytes, *cuts: int, last_id: str = "") -> tuple[list[tuple[str, str, str]], EventStream]:
    """(type, data, id) of every event of a stream that comes in pieces, and the stream as it is left."""
    stream = EventStream(last_id=last_id)
    edges = [0, *sorted(cuts), len(raw)]
    pieces = [raw[start:end] for start, end in pairwise(edges)]
    return [(event.event, event.text, event.id) for piece in pieces for event in stream.feed(piece)], stream


def by_the_book(raw: bytes) -> list[tuple[str, str, str]]:
    """The standard's algorithm, step by step on decoded text, with no thought of speed."""
    events, data, kind, last_id = [], [], "", ""
    for line in re.split("\r\n|\n|\r", raw.decode("utf-8-sig", "replace"))[:-1]:
        name, colon, value = line.partition(":")
        value = value[1:] if value[:1] == " " else value
        if not line:
            if data:
                events.append((kind or "message", "\n".join(data), last_id))
            data, kind = [], ""
        elif colon and not name:
            continue
        elif name == "data":
            data.append(value)
        elif name == "event":
            kind = value
        elif name == "id" and "\0" not in value:
            last_id = value
    return events


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_every_case_of_the_web_platform_tests_at_every_cut(case: dict) -> None:
    """Whole, cut anywhere in two, or byte by byte, a stream dispatches what the web platform tests expect."""
    raw = base64.b64decode(case["input_base64"])
    expected = [(event["event"], event["data"], event["id"]) for event in case["expected"]]
    for cuts in [(), *((cut,) for cut in range(len(raw) + 1)), tuple(range(len(raw)))]:
        events, stream = read(raw, *cuts, last_id=case.get("initial_last_event_id", ""))
        assert events == expected, cuts
        assert stream.retry_ms == case.get("expected_retry", stream.retry_ms)
        assert stream.last_id == case.get("expected_last_event_id", stream.last_id)


@given(streams, st.data())
def test_where_a_stream_is_cut_does_not_matter(raw: bytes, data: st.DataObject) -> None:
    """D11, D12: any cuts of any bytes give the events, counts and rest of one feed."""
    cuts = data.draw(st.lists(st.integers(0, len(raw)), max_size=12))
    events, whole = read(raw)
    again, pieces = read(raw, *cuts)
    assert again == events
    assert (pieces.comments, pieces.ignored, pieces.retry_ms) == (whole.comments, whole.ignored, whole.retry_ms)
    assert pieces.close() == whole.close()


@given(streams)
def test_the_parser_is_the_standards_algorithm(raw: bytes) -> None:
    """Framing bytes first and decoding later gives what the standard's decode-first algorithm gives."""
    assert read(raw)[0] == by_the_book(raw)


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"])
def test_an_event_is_handed_out_by_the_bytes_that_complete_it(end: bytes) -> None:
    """The blank line's first byte ends the event: nothing waits for the half of a CRLF that may never come."""
    stream = EventStream()
    whole = b"data: a" + end + end[:1]
    fed = [stream.feed(whole[at : at + 1]) for at in range(len(whole))]
    assert [len(events) for events in fed] == [0] * (len(whole) - 1) + [1]


def test_data_is_raw_and_text_is_decoded() -> None:
    """Readers of JSON get the bytes as they came; broken UTF-8 becomes U+FFFD in the text alone."""
    (event,) = EventStream().feed(b"data: a\xffb\n\n")
    assert (event.data, event.text) == (b"a\xffb", "a\ufffdb")


def test_a_field_named_error_is_an_event():
    """As of llama.cpp: the standard would ignore it. What stood before it in its block is no part of it."""
    stream = EventStream()
    assert stream.feed(b"error: no memory\n\ndata: 1\nError:two\n\n") == [
        Event(b"no memory", "error"),
        Event(b"two", "error"),
    ]
    assert stream.feed(b"event: error\n\n") == [Event(b"", "error")]


def test_marks_before_lines_are_removed_if_wanted():
    """A server that encodes each write by itself begins each with a byte order mark."""
    mark = b"\xef\xbb\xbf"
    stream = EventStream(marks_anywhere=True)
    assert stream.feed(mark + b"data: 1\n\n" + mark + b"data: 2\n\n" + mark + b"\n\n") == [Event(b"1"), Event(b"2")]
    assert (stream.ignored, stream.keep_alives) == (0, 2)


@pytest.mark.parametrize(
    ("start", "is_stream"),
    [
        *(
            (start, True)
            for start in (b"data: {", b"data:", b": hi", b"\n\nevent: x", b"\xef\xbb\xbfid: 1", b"error: x", b"retry:1")
        ),
        *((start, None) for start in (b"", b"\n ", b"da", b"\xef\xbb", b"\xef\xbb\xbf", b"event", b"r")),
        *((start, False) for start in (b"{", b"<html>", b"hello", b"http://x", b"datas: 1", b"[")),
    ],
)
def test_an_event_stream_is_recognised_by_its_first_bytes(start, is_stream):
    """As soon as its first field is there, and not before."""
    assert EventStream.recognises(start) is is_stream


def test_comments_are_counted_and_are_no_events() -> None:
    """Keep-alives of three bytes, as llama.cpp sends them, bring no event and are counted."""
    stream = EventStream()
    assert [stream.feed(b":\n\n") for _ in range(24)] == [[]] * 24
    assert (stream.comments, stream.keep_alives) == (24, 24)
    assert stream.feed(b"\n\nevent: x\n\n") == []
    assert (stream.comments, stream.keep_alives) == (24, 27)


def test_lines_of_no_known_field_are_counted() -> None:
    """Bytes that are no event stream leave a trace: the standard ignores such lines, the count tells of them."""
    stream = EventStream()
    stream.feed(b'<html>\n{"error": "x"}\ndata: 1\n\n')
    assert stream.ignored == 2


@pytest.mark.parametrize(
    ("raw", "left"),
    [
        (b"data: [DONE]", Event(b"[DONE]")),
        (b"data: [DONE]\n", Event(b"[DONE]")),
        (b"data: 1\n\nevent: error\ndata: a\ndata: b", Event(b"a\nb", "error")),
        (b"id: 7\ndata: a", Event(b"a", "message", "7")),
        (b"data: 1\n\n", None),
        (b"data: 1\n\n: end", None),
        (b"event: x\n", None),
        (b"\xef\xbb", None),
        (b"", None),
    ],
)
def test_close_hands_out_the_unfinished_block(raw: bytes, left: Event | None) -> None:
    """The block that lacks its empty line is no event, and is what `close` gives; without data there is none."""
    stream = EventStream()
    stream.feed(raw)
    assert stream.close() == left
    assert stream.close() is None


@pytest.mark.parametrize(("raw", "ignored"), [(b"", 0), (b"dat", 0), (b"data", 0), (b"dxt", 1), (b"datas", 1)])
def test_the_cut_name_of_a_field_is_no_unknown_line(raw: bytes, ignored: int) -> None:
    """What was never sent whole cannot be told from it."""
    stream = EventStream()
    stream.feed(b"data: 1\n\n" + raw)
    stream.close()
    assert stream.ignored == ignored


def test_two_bytes_are_a_line_unless_they_begin_a_mark() -> None:
    """A comment that comes first counts as it comes."""
    stream = EventStream()
    stream.feed(b":\n")
    assert (stream.comments, stream.keep_alives) == (1, 1)


def test_the_next_byte_begins_a_block_after_an_empty_line() -> None:
    """Not at the start, where a mark may come, nor inside of a line or a block, nor where a line end may be cut."""
    for raw, between in (
        (b"", False),
        (b"data: 1\n\n", True),
        (b"data: 1\n\ndata", False),
        (b"data: 1\n\ndata: 2\n", False),
        (b"data: 1\n\nevent: x\n", False),
        (b"data: 1\r\n\r", False),
        (b"data: 1\r\n\r\n", True),
    ):
        assert read(raw)[1].between is between


def test_retry_of_thousands_of_digits_is_ignored() -> None:
    """A number that Python would refuse to read raises nothing."""
    _, stream = read(b"retry: " + b"9" * 5000 + b"\nretry: 12\nretry: -3\nretry: 1.5\n")
    assert stream.retry_ms == 12


class Ledger(bytearray):
    """A line under way that keeps an account of the bytes that are copied in and out."""

    copied = 0

    def __iadd__(self, piece: bytes) -> Ledger:  # type: ignore[override]
        self.copied += len(piece)
        return super().__iadd__(piece)

    def __bytes__(self) -> bytes:
        self.copied += len(self)
        return bytes(memoryview(self))


@pytest.mark.parametrize("piece", [1024, 65536])
def test_a_long_line_is_copied_twice_however_many_reads_it_takes(piece: int) -> None:
    """C2: a line near the limit costs what its bytes cost: each is put by once and taken once."""
    stream = EventStream()
    stream._line = ledger = Ledger()
    line = b"data: " + b"x" * (LARGEST_BLOCK - 1024)
    events = [event for at in range(0, len(line), piece) for event in stream.feed(line[at : at + piece])]
    events += stream.feed(b"\n\n")
    assert [len(event.data) for event in events] == [len(line) - 6]
    assert ledger.copied <= 2 * len(line) + piece


def test_a_block_has_a_greatest_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """A line or a block of lines may be as long as the limit and not one byte longer, however it is cut."""
    monkeypatch.setattr(sse, "LARGEST_BLOCK", 64)
    fits = b"data: " + b"x" * 58
    for cut in range(len(fits)):
        assert len(read(fits + b"\n\n" + fits + b"\n\n", cut)[0]) == 2
        with pytest.raises(OversizeEvent):
            read(fits + b"x\n\n", cut)
        with pytest.raises(OversizeEvent):
            read(b"data: 1\n" * 10 + b"\n", cut)


def test_a_line_without_end_is_refused_before_it_ends() -> None:
    """A server that never ends its line cannot take more memory than the limit."""
    stream = EventStream()
    for _ in range(8):
        stream.feed(b"x" * 2**20)
    with pytest.raises(OversizeEvent, match=r"more than 8 MiB, .*: request less with each event"):
        stream.feed(b"x")
    assert stream.close() is None


@pytest.mark.parametrize("new_stream", [EventStream, LineStream])
def test_large_events_of_all_users_have_a_bound_together(monkeypatch: pytest.MonkeyPatch, new_stream: type) -> None:
    """A usual one is always read. Those that ended, were refused or whose request ended do not count."""
    monkeypatch.setattr(sse, "_MOST_HELD", 8 * 2**20)
    first, second, third = new_stream(), new_stream(), new_stream()
    large = b"data: " + b"x" * 3 * 2**20
    assert first.feed(large) == second.feed(large) == []
    with pytest.raises(OversizeEvent, match=r"more than 2 MiB, while others .* hold 8 MiB"):
        third.feed(large)
    usual = new_stream()
    assert len(usual.feed(large[: 2**20]) + usual.feed(b"\n\n")) == 1
    assert len(first.feed(b"\n\n")) == 1
    third = new_stream()
    third.feed(large)
    del second
    first.feed(large)
    assert len(third.feed(b"\n\n") + first.feed(b"\n\n")) == 2


@pytest.mark.parametrize("line", [b"data: 1\n", b"data:1\n", b"data\n", b"error: 1\n"])
def test_a_block_without_end_is_refused(monkeypatch: pytest.MonkeyPatch, line: bytes) -> None:
    """However its lines are written; and nothing of it is left."""
    monkeypatch.setattr(sse, "LARGEST_BLOCK", 64)
    stream = EventStream()
    stream.feed(line)
    with pytest.raises(OversizeEvent):
        stream.feed(line * 64)
    assert stream.close() is None


def test_comments_may_go_on_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep-alives without a blank line take no memory, and so no part of what a block may grow to."""
    monkeypatch.setattr(sse, "LARGEST_BLOCK", 64)
    assert read(b": still here\n" * 100 + b"data: 1\n\n")[0] == [("message", "1", "")]


def test_what_was_complete_before_an_oversize_event_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error carries the events that came before it in the same chunk."""
    monkeypatch.setattr(sse, "LARGEST_BLOCK", 64)
    with pytest.raises(OversizeEvent) as caught:
        EventStream().feed(b"data: 1\n\ndata: " + b"x" * 64)
    assert caught.value.events == [Event(b"1")]
