"""A shortcut for streams whose events differ only in their text: count them without parsing them.

Nearly every event of many servers is the event before it with another piece of text. Once two such events have been
read, the bytes before and after their text are known. Bytes that begin and end the same, with a plain JSON string
between, are the same event with that text, and can be counted without parsing. With several events in one read, the
end of one and the beginning of the next stand between their texts, so one `split` separates them all. Events that
differ in more are left to `loadbench.wire.typed`.

Only certain cases are counted: a string without quotes, escapes and control characters, between exactly the learned
bytes. Everything else is parsed. What was learned is checked once, by parsing the event with another text in its place.
"""

from __future__ import annotations

import re
from contextlib import suppress

from loadbench.wire.openai import BadChunk, Chunk, read_chunk

# Characters of a JSON string that need no escape, at least one. Broken UTF-8 is left to the parser.
_PLAIN = re.compile(rb'[^"\\\x00-\x1f]+').fullmatch
_ASCII = re.compile(rb"[ !#-\[\]-~]+").fullmatch
# Before the text in the frames of chat, of plain completions, and before reasoning; some servers put spaces into JSON.
_NAMES = (b"content", b"text", b"reasoning_content", b"reasoning")
_PLACES = tuple(b'"%b":%b"' % (name, space) for name in _NAMES for space in (b"", b" "))
_PROBE = "probe"


class Shortcut:
    """What the events of one response have in common; call `count` only where an event begins."""

    __slots__ = ("_between", "_head", "_margins", "_tail", "frame_bytes", "of_reasoning")

    def __init__(self, before: bytes, after: bytes, *, of_reasoning: bool = False) -> None:
        self.of_reasoning = of_reasoning
        self._head = before
        self._tail = after + b"\n\n"
        self._between = self._tail + self._head
        self._margins = (len(self._head), -len(self._tail))
        self.frame_bytes = len(self._between)  # of an event, without its text

    def count(self, chunk: bytes) -> int:
        """The number of events in these bytes, all of them complete; 0 if they must be parsed."""
        head, tail = self._head, self._tail
        if not (chunk.startswith(head) and chunk.endswith(tail)):
            return 0
        begin, end = self._margins
        text = chunk[begin:end]
        if _ASCII(text) is not None:  # without a quote it is one event
            return 1
        texts = text.split(self._between)
        if _ASCII(b"".join(texts)) is not None and b"" not in texts:
            return len(texts)
        return len(texts) if all(map(_is_plain, texts)) else 0


def _is_plain(text: bytes) -> bool:
    if _PLAIN(text) is None:
        return False
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def learn(event: bytes, earlier: bytes, *, has_model: bool) -> Shortcut | None:
    """The shortcut for events like these two; `None` if they differ in more than one text, or have more.

    Both begin with `data:`, are without their empty line, and were read as events with text. `has_model`: the model is
    known, so that no event can change it.
    """
    for place in _PLACES:
        before, found, rest = event.partition(place)
        text, quote, after = rest.partition(b'"')
        if not (quote and text) or b"\\" in text:
            continue
        shortcut = Shortcut(before + found, quote + after, of_reasoning=b"reasoning" in place)
        if not shortcut.count(earlier + b"\n\n"):
            continue
        # The same event with another text must be read as just that.
        probe = Chunk(reasoning=_PROBE) if shortcut.of_reasoning else Chunk(text=_PROBE)
        with suppress(BadChunk):
            chunk = read_chunk((before + found + _PROBE.encode() + quote + after).removeprefix(b"data:"))
            model = chunk.model if has_model else None
            if chunk == probe._replace(model=model, choices=chunk.choices):
                return shortcut
    return None
