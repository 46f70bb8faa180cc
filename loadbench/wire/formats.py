"""Which endpoint speaks how: where it is, what it is asked, how its answer is framed, and how a frame is read."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple, Protocol, assert_never

from loadbench.wire import ollama, openai, responses
from loadbench.wire.openai import Api, read_chunk, read_whole
from loadbench.wire.sse import EventStream

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from loadbench.wire.openai import Chunk
    from loadbench.wire.sse import Event

_VERSION = re.compile(r"/v\d+$")


class Frames(Protocol):
    """Bytes in, events out; see `loadbench.wire.sse.EventStream`."""

    ignored: int

    def feed(self, chunk: bytes) -> list[Event]:
        """The events that these bytes complete."""
        ...

    @property
    def between(self) -> bool:
        """Whether the next byte begins an event."""
        ...

    def close(self) -> Event | None:
        """The event that the stream's end cut off."""
        ...


class Format(NamedTuple):
    """How an endpoint's answers are read. `alike` says that events may differ in nothing but their text."""

    path: str  # below the base URL, which ends in the version
    content_type: bytes  # of a stream
    frames: Callable[[], Frames]
    reader: Callable[[], Callable[[bytes], Chunk]]  # one for each answer
    whole: Callable[[bytes], Chunk]  # for an answer that was not streamed
    alike: bool = False


def _read_chunk() -> Callable[[bytes], Chunk]:
    return read_chunk


def _read_line() -> Callable[[bytes], Chunk]:
    return ollama.read_line


_SSE = b"text/event-stream"
_FORMATS = {
    Api.CHAT: Format("/chat/completions", _SSE, EventStream, _read_chunk, read_whole, alike=True),
    Api.COMPLETIONS: Format("/completions", _SSE, EventStream, _read_chunk, read_whole, alike=True),
    Api.RESPONSES: Format("/responses", _SSE, EventStream, responses.Reader, responses.read_whole),
    Api.OLLAMA: Format(ollama.PATH, b"application/x-ndjson", ollama.Lines, _read_line, ollama.read_line),
}


def format_of(api: Api) -> Format:
    """How this endpoint speaks."""
    return _FORMATS[api]


def address(api: Api, base_url: str) -> str:
    """Where requests go. Ollama's own routes stand beside the versioned ones, not below them."""
    root = _VERSION.sub("", base_url) if api is Api.OLLAMA else base_url
    return root + _FORMATS[api].path


def request_body(
    api: Api,
    *,
    model: str,
    prompt: str,
    max_tokens: int,
    temperature: float | None,
    seed: int | None,
    said: Sequence[tuple[str, str]] = (),
) -> bytes:
    """The JSON of one streamed request, by which its usage is asked for; what is `None` is left to the server.

    `said` is what was said before the prompt, as (role, text).
    """
    match api:
        case Api.CHAT | Api.COMPLETIONS:
            return openai.request_body(
                api, model=model, prompt=prompt, max_tokens=max_tokens, temperature=temperature, seed=seed, said=said
            )
        case Api.RESPONSES:
            make = responses.request_body
        case Api.OLLAMA:
            make = ollama.request_body
        case _ as never:
            assert_never(never)
    messages = openai.messages_of(prompt, said)
    return make(model=model, messages=messages, max_tokens=max_tokens, temperature=temperature, seed=seed)
