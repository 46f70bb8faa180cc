"""What real servers sent, byte for byte, read as the client reads it; captured with `curl -N -i --raw`."""

from __future__ import annotations

import random
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest

from loadbench.record.outcome import Outcome, TokenSource
from loadbench.wire.openai import Api, error_text
from loadbench.wire.response_reader import ResponseReader

DATA = Path(__file__).parents[1] / "data"
CAPTURES = {path.stem: path for folder in ("captures", "foundry") for path in sorted((DATA / folder).iterdir())}

USAGE, IDS, EVENTS, UNKNOWN = TokenSource.USAGE, TokenSource.IDS, TokenSource.EVENTS, TokenSource.UNKNOWN
OK, TRUNCATED = Outcome.OK, Outcome.TRUNCATED

# capture: (outcome, output tokens, their source, finish_reason, token-bearing events)
EXPECTED = {
    # llama.cpp: usage on a frame of its own if asked for; tokens of one character merge in one event.
    "llamacpp-normal": (OK, 24, EVENTS, "length", 24),
    "llamacpp-usage": (OK, 24, USAGE, "length", 24),
    "llamacpp-nstop": (OK, 24, EVENTS, "stop", 24),
    "llamacpp-max1": (OK, 1, USAGE, "length", 1),
    "llamacpp-logprobs": (OK, 3, IDS, "length", 3),
    "llamacpp-completions": (OK, 6, USAGE, "length", 6),
    "llamacpp-ping": (OK, 4, EVENTS, "length", 4),
    "llamacpp-ctxfull": (OK, 240, USAGE, "length", 240),
    "llamacpp-unicode-3": (OK, 120, USAGE, "length", 95),
    "llamacpp-unicode-11": (OK, 120, USAGE, "length", 108),
    "llamacpp-unicode-bigram": (OK, 22, USAGE, "stop", 21),
    "llamacpp-nonstream": (OK, 8, USAGE, "length", 1),
    # vLLM: finish_reason on the last token, empty deltas for half characters, several tokens in one event.
    "vllm-normal": (OK, 24, EVENTS, "length", 24),
    "vllm-usage": (OK, 24, USAGE, "length", 24),
    "vllm-nstop": (OK, 18, EVENTS, "stop", 18),
    "vllm-max1": (OK, 1, USAGE, "length", 1),
    "vllm-logprobs": (OK, 3, IDS, "length", 3),
    "vllm-completions": (OK, 6, USAGE, "length", 5),
    "vllm-unicode-3": (OK, 120, USAGE, "length", 90),
    "vllm-unicode-11": (OK, 120, USAGE, "length", 84),
    "vllm-nonstream": (OK, 8, USAGE, "length", 1),
    # transformers: never [DONE], always usage, an error as a string.
    "hfserve-normal": (OK, 24, USAGE, "length", 24),
    "hfserve-usage": (OK, 24, USAGE, "length", 24),
    "hfserve-nstop": (OK, 33, USAGE, "stop", 33),
    "hfserve-max1": (OK, 1, USAGE, "length", 1),
    "hfserve-completions": (OK, 6, USAGE, "length", 6),
    "hfserve-nonstream": (OK, 8, USAGE, "length", 1),
    "hfcb-normal": (OK, 24, USAGE, "length", 24),
    "hfcb-nstop": (OK, 200, USAGE, "length", 200),
    "hfcb-toolong": (Outcome.STREAM_ERROR, None, UNKNOWN, None, 0),
    # llama-cpp-python: never usage; a 200 with an empty body; [DONE] without finish_reason where another cut in.
    "lcppython-normal": (OK, 24, EVENTS, "length", 24),
    "lcppython-usage": (OK, 24, EVENTS, "length", 24),
    "lcppython-nstop": (OK, 9, EVENTS, "stop", 9),
    "lcppython-logprobs": (OK, 3, IDS, "length", 3),
    "lcppython-completions": (OK, 6, EVENTS, "length", 6),
    "lcppython-toolong": (TRUNCATED, None, UNKNOWN, None, 0),
    "lcppython-interrupted": (OK, 106, EVENTS, None, 106),
    # guidellm's mock: no role event.
    "guidellmmock-normal": (OK, 24, EVENTS, "stop", 24),
    "guidellmmock-usage": (OK, 24, USAGE, "stop", 24),
    "guidellmmock-completions": (OK, 6, USAGE, "stop", 6),
    # Foundry Local 2.2: reasoning in events of its own, think marks in the usage and in no event; errors inside a 200.
    "stream_usage": (OK, 10, USAGE, "stop", 8),
    "stream_nousage": (OK, 8, EVENTS, "stop", 8),
    "stream_overflow": (Outcome.STREAM_ERROR, None, UNKNOWN, None, 0),
    "nonstream": (OK, 10, USAGE, "stop", 1),
    # Foundry Local 1.2: usage grows on every frame, asked for or not; failures are streams without anything.
    "v124_stream_usage": (OK, 30, USAGE, "length", 26),
    "v124_stream_nousage": (OK, 30, USAGE, "length", 26),
    "v124_stream_overflow": (TRUNCATED, None, UNKNOWN, None, 0),
    "v124_notfound": (TRUNCATED, None, UNKNOWN, None, 0),
    "v124_nonstream": (OK, 30, USAGE, "length", 1),
    # llama.cpp's Responses: an answer that used up its tokens is "completed".
    "llamacpp-responses": (OK, 4, USAGE, "stop", 4),
    # Other protocols: nothing in them is taken for a chat completion.
    "llamacpp-anthropic": (Outcome.PROTOCOL, None, UNKNOWN, None, 0),
    "models": (Outcome.PROTOCOL, None, UNKNOWN, None, 0),
}


@cache
def received(name: str) -> tuple[int, bool, tuple[bytes, ...]]:
    """(status, whether it is an event stream, the body in the chunks that it was sent in)."""
    head, _, body = CAPTURES[name].read_bytes().partition(b"\r\n\r\n")
    status, fields = int(head.split()[1]), head.lower()
    chunks = dechunked(body) if b"transfer-encoding: chunked" in fields else (body,)
    return status, b"content-type: text/event-stream" in fields, chunks


def dechunked(body: bytes) -> tuple[bytes, ...]:
    """The chunks of a chunked body, as far as it goes: some were cut off."""
    chunks = []
    while body:
        size, _, rest = body.partition(b"\r\n")
        length = int(size or b"0", 16)
        if not length:
            break
        chunks.append(rest[:length])
        body = rest[length:].removeprefix(b"\r\n")
    return tuple(chunks)


def asked(name: str) -> Api:
    """What the capture is an answer of, as far as that matters to its frames."""
    return Api.RESPONSES if name.endswith("-responses") else Api.CHAT


def read(name: str, pieces: list[bytes] | tuple[bytes, ...]) -> ResponseReader:
    """The answer of a capture whose body comes in these pieces, all at the same time."""
    _, streams, chunks = received(name)
    answer = ResponseReader(asked(name), keep_text=True)
    if not streams:
        answer.read_json(b"".join(chunks), 0)
        return answer
    for piece in pieces:
        answer.feed(0, piece)
    answer.close(0)
    return answer


def account(answer: ResponseReader) -> dict[str, object]:
    """All that is known of an answer, but how many reads it took."""
    names = "error first_token_ns first_visible_ns last_token_ns done_ns event_ns input_tokens cached_tokens"
    names += " reasoning_tokens finish_reason model text bad_frames unfinished"
    known = {name: getattr(answer, name) for name in names.split()}
    return known | {"end": answer.outcome(), "n": answer.output_tokens(), "by_event": answer.tokens_by_event()}


@pytest.mark.parametrize("name", EXPECTED)
def test_real_answers_are_read_for_what_they_are(name: str) -> None:
    """Outcome, tokens, their source and the end of every server's answers, as the server meant them."""
    answer = read(name, received(name)[2])
    tokens, source = answer.output_tokens()
    assert (answer.outcome()[0], tokens, source, answer.finish_reason, len(answer.event_ns)) == EXPECTED[name]
    assert (answer.bad_frames > 0) is (name == "llamacpp-anthropic")


@pytest.mark.parametrize("name", [name for name in CAPTURES if received(name)[0] == 200])
def test_real_answers_are_the_same_however_they_are_cut(name: str) -> None:
    """D11: whole, in the server's chunks, byte by byte or at random cuts, an answer is the same answer."""
    chunks = received(name)[2]
    raw = b"".join(chunks)
    expected = account(read(name, chunks))
    assert account(read(name, [raw])) == expected
    assert account(read(name, [raw[at : at + 1] for at in range(len(raw))])) == expected
    dice = random.Random(name)
    for _ in range(3):
        cuts = sorted(dice.randrange(len(raw) + 1) for _ in range(dice.randrange(40)))
        edges = [0, *cuts, len(raw)]
        assert account(read(name, [raw[a:b] for a, b in pairwise(edges)])) == expected


@pytest.mark.parametrize("name", [name for name in CAPTURES if received(name)[0] == 200])
def test_real_answers_keep_the_identities(name: str) -> None:
    """Reads, events and tokens add up, and the marks are in order, whatever the server sent."""
    _, streams, chunks = received(name)
    answer = ResponseReader(asked(name))
    if streams:
        for at_ns, chunk in enumerate(chunks):
            answer.feed(at_ns, chunk)
        answer.close(len(chunks))
    else:
        answer.read_json(b"".join(chunks), 0)
    stamps = list(answer.event_ns)
    assert stamps == sorted(stamps)
    assert answer.reads == len(set(stamps))
    assert answer.merged_reads == sum(stamps.count(stamp) > 1 for stamp in set(stamps))
    assert (answer.first_token_ns, answer.last_token_ns) == ((stamps[0], stamps[-1]) if stamps else (None, None))
    by_event = answer.tokens_by_event()
    assert by_event is None or sum(by_event) == answer.output_tokens()[0]


@pytest.mark.parametrize("name", [name for name in CAPTURES if received(name)[0] != 200])
def test_real_errors_say_why_in_one_line(name: str) -> None:
    """Error bodies of every server become a line without braces: the words, not the JSON around them."""
    text = error_text(b"".join(received(name)[2]))
    assert 0 < len(text) <= 300
    assert text.isprintable()
    assert not text.startswith(("{", "[")) or "parse_error" in text


def test_the_first_event_of_llama_cpp_is_no_token_though_it_comes_with_one() -> None:
    """Its role event shares a chunk with the first token, and is none: 24 tokens in 24 events."""
    answer = ResponseReader(Api.CHAT)
    answer.feed(7, received("llamacpp-normal")[2][0])
    assert (answer.first_token_ns, len(answer.event_ns), answer.merged_reads) == (7, 1, 0)


def test_a_role_event_sent_before_any_work_is_no_token() -> None:
    """transformers sends it at once: the first token is in the second chunk."""
    chunks = received("hfserve-normal")[2]
    answer = ResponseReader(Api.CHAT)
    answer.feed(1, chunks[0])
    assert answer.first_token_ns is None
    answer.feed(2, chunks[1])
    assert answer.first_token_ns == 2


def test_a_growing_usage_tells_the_tokens_of_every_event() -> None:
    """Foundry Local 1.2: four of its events hold two tokens, as the running usage says."""
    by_event = read("v124_stream_usage", received("v124_stream_usage")[2]).tokens_by_event()
    assert by_event is not None
    assert sorted(by_event) == [1] * 22 + [2] * 4


def test_reasoning_comes_before_what_is_visible() -> None:
    """Foundry Local 2.2: three reasoning events, then the answer; the server counts the same three."""
    chunks = received("stream_usage")[2]
    answer = ResponseReader(Api.CHAT, keep_text=True)
    for at_ns, chunk in enumerate(chunks):
        answer.feed(at_ns, chunk)
    assert (answer.first_token_ns, answer.first_visible_ns, answer.reasoning_tokens) == (1, 4, 3)
    assert answer.text == " Hello wörld 日本 done."
