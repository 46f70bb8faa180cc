"""The responses of Ollama's own chat, one JSON object per line (`application/x-ndjson`).

    {"model": "m", "message": {"role": "assistant", "content": "Hel"}, "done": false}
    {"model": "m", "message": {…, "content": ""}, "done": true, "done_reason": "stop",
     "total_duration": …, "load_duration": …, "prompt_eval_count": 26, "prompt_eval_duration": …,
     "eval_count": 298, "eval_duration": …}                                              all durations in ns

The last object is the end and has the usage; there is no `[DONE]`. A failure in the middle of a response is a line
`{"error": "…"}` under a status of 200. For a prompt that was in the cache some versions omit the count. Source: the
documentation of Ollama's API (`docs/api.md`).
"""

from __future__ import annotations

from typing import ClassVar, Literal, cast

import msgspec
from msgspec import Struct

from loadbench.wire.generated import generated
from loadbench.wire.openai import Chunk, error_in, object_of, string
from loadbench.wire.sse import BOM, USUAL_BLOCK, Event, OversizeEvent, hold
from loadbench.wire.timings import ollama_timings
from loadbench.wire.typed import Bare, Decode
from loadbench.wire.usage import usage_in

PATH = "/api/chat"
# What only an object of a response has, besides its message.
_PARTS = frozenset({"response", "done", "model"})
# What an object of a response has, while there is more to come. Where it has more, that may be text.
_USUAL = frozenset({"model", "created_at", "message", "done"})


class _Message(Struct, forbid_unknown_fields=True, gc=False):
    content: str
    role: str | None = None
    reasoning_content: str | None = msgspec.field(default=None, name="thinking")
    tool_calls: None = None
    images: None = None
    reasoning: ClassVar[None] = None


class _Line(Bare, forbid_unknown_fields=True, kw_only=True, gc=False):
    """An object before the last, as it usually is."""

    model: str
    created_at: str
    delta: _Message = msgspec.field(name="message")  # type: ignore[misc]
    done: Literal[False]


# Reads usual lines and refuses others; see `loadbench.wire.typed`.
decode_line = cast("Decode", msgspec.json.Decoder(_Line).decode)


class LineStream:
    """The lines of one response, as its bytes come in; each is an event."""

    __slots__ = ("__weakref__", "_line", "ignored", "keep_alives", "unframed")

    def __init__(self) -> None:
        self.keep_alives = 0  # empty lines
        self.ignored = 0  # none: each line is an event
        self.unframed = bytearray()
        self._line = bytearray()  # the incomplete last line

    @staticmethod
    def recognises(start: bytes) -> bool | None:
        """Whether a body that begins like this has objects in lines; `None` if more of it must be seen."""
        start = start.removeprefix(BOM).lstrip()
        return None if BOM.startswith(start) else start.startswith(b"{")

    def feed(self, chunk: bytes) -> list[Event]:
        """The lines that these bytes complete, possibly none. Raises `OversizeEvent`."""
        lines = chunk.split(b"\n")
        rest = lines.pop()
        if lines and self._line:
            self._line += lines[0]
            lines[0] = bytes(self._line)
            self._line.clear()
        events = [Event(line) for line in lines if line.strip()]
        self.keep_alives += len(lines) - len(events)
        try:
            if lines or len(self._line) + len(rest) > USUAL_BLOCK:
                hold(self, len(self._line) + len(rest))
            self._line += rest
        except OversizeEvent as error:
            self._line.clear()
            hold(self, 0)
            error.events = events
            raise
        return events

    @property
    def between(self) -> bool:
        """Whether the next byte begins a line."""
        return not self._line

    def close(self) -> Event | None:
        """The last line, if it was cut off or had no line feed."""
        line = bytes(self._line)
        self._line.clear()
        return Event(line) if line.strip() else None


def read_line(data: bytes) -> Chunk:
    """One object of a response; raises `BadChunk` for bytes that are not a JSON object."""
    document = object_of(data)
    error = error_in(document)
    done = document.get("done") is True
    part = document.get("message")
    is_part = isinstance(part, dict)
    content = part.get("content") if isinstance(part, dict) and len(part) == 2 and "role" in part else None
    if not _USUAL.issuperset(document):
        text, reasoning, tool = generated(document)
    elif isinstance(content, str):  # nearly always
        text, reasoning, tool = content, "", ""
    else:
        text, reasoning, tool = generated(part)
    return Chunk(
        # `/api/generate` and proxies of it have the text outside of a message.
        text or string(document.get("response")),
        reasoning,
        tool,
        None,
        (string(document.get("done_reason")) or "stop") if done else None,
        usage_in(document) if done else None,
        error,
        string(document.get("model")) or None,
        int(is_part or "response" in document),
        done,
        ollama_timings(document) if done else None,
        not is_part and _PARTS.isdisjoint(document),
    )
