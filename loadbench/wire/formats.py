"""How each endpoint is used: its route, and how its response is split into frames and read."""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from loadbench.plan.server_url import with_query
from loadbench.wire import ollama, responses
from loadbench.wire.openai import Api, read_chunk, read_whole
from loadbench.wire.sse import EventStream

if TYPE_CHECKING:
    from collections.abc import Callable

    from loadbench.wire.openai import Chunk
    from loadbench.wire.sse import Event
    from loadbench.wire.typed import Decode

_VERSION = re.compile(r"/v\d+$")


class FrameStream(Protocol):
    """Bytes in, events out; see `loadbench.wire.sse.EventStream`."""

    keep_alives: int  # without data
    ignored: int  # with no known field
    unframed: bytearray  # these lines, as far as they are kept

    def recognises(self, start: bytes) -> bool | None:
        """Whether a body that begins like this is such a stream; `None` if more of it must be seen."""
        ...

    def feed(self, chunk: bytes) -> list[Event]:
        """The events that these bytes complete."""
        ...

    @property
    def between(self) -> bool:
        """Whether the next byte begins an event."""
        ...

    def close(self) -> Event | None:
        """The event that the end of the stream cut off."""
        ...


class Format(NamedTuple):
    """How the responses of an endpoint are read.

    With `in_lines`, every line is an event. With `uniform`, most events are like the one before in all but their text
    (see `loadbench.wire.shortcut`) or their values (see `loadbench.wire.typed`). Else the typed decoder is always the
    same. `frame` is what is around the data of usual events.
    """

    path: str  # below the base URL, which ends in the version
    content_type: bytes  # of a stream
    new_stream: Callable[[], FrameStream]
    new_reader: Callable[[], Callable[[bytes], Chunk]]  # reads the frames of one response
    read_whole: Callable[[bytes], Chunk]  # reads a response that was not streamed
    uniform: bool = False
    in_lines: bool = False
    typed: Callable[[Any], Decode] | None = None  # of the reader of one response
    frame: tuple[bytes, bytes] = (b"data:", b"\n\n")

    @property
    def inner(self) -> slice:
        """Where the data of a usual event is."""
        begin, end = self.frame
        return slice(len(begin), -len(end))


_SSE = b"text/event-stream"
_new_events = partial(EventStream, marks_anywhere=True)
_FORMATS = {
    Api.CHAT: Format("/chat/completions", _SSE, _new_events, lambda: read_chunk, read_whole, uniform=True),
    Api.COMPLETIONS: Format("/completions", _SSE, _new_events, lambda: read_chunk, read_whole, uniform=True),
    Api.RESPONSES: Format(
        "/responses",
        _SSE,
        _new_events,
        responses.EventReader,
        responses.read_whole,
        typed=lambda reader: reader.read_text,
        frame=(b"event: response.output_text.delta\ndata:", b"\n\n"),
    ),
    Api.OLLAMA: Format(
        ollama.PATH,
        b"application/x-ndjson",
        ollama.LineStream,
        lambda: ollama.read_line,
        ollama.read_line,
        in_lines=True,
        typed=lambda _: ollama.decode_line,
        frame=(b"", b"\n"),
    ),
}


def format_of(api: Api) -> Format:
    """The format of this endpoint."""
    return _FORMATS[api]


def address(api: Api, base_url: str, *, route: str = "", query: str = "") -> str:
    """The URL of requests: the `route` if it was given in full, else that of the endpoint below the base URL.

    Ollama's own routes are at the root, not below the version.
    """
    root = _VERSION.sub("", base_url) if api is Api.OLLAMA else base_url
    return with_query(route or root + _FORMATS[api].path, query)
