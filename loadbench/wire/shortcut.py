"""A shortcut for streams whose events differ only in their text: count them without parsing them.

Nearly every event of nearly every server is the event before it with another piece of text. Once such an event has been
parsed, the bytes before and after its text are known. Bytes that begin and end the same, with a plain JSON string
between, are the same event with that text, and can be counted without parsing. With several events in one read, the
end of one and the beginning of the next stand between their texts, so one `split` separates them all.

Only certain cases are counted: a string without quotes, escapes and control characters, between exactly the learned
bytes. Everything else is parsed. What was learned is checked once, by parsing the event with another text in its place.
"""

from __future__ import annotations

import re

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
        self._head = b"data: " + before
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


def learn(data: bytes, chunk: Chunk) -> Shortcut | None:
    """The shortcut for events like this one, which was parsed as `chunk`; `None` if it has more than one text."""
    simple = Chunk(text=chunk.text, reasoning=chunk.reasoning, model=chunk.model, choices=chunk.choices)
    if bool(chunk.text) is bool(chunk.reasoning) or chunk != simple:
        return None
    of_reasoning = not chunk.text
    as_probed = chunk._replace(reasoning=_PROBE) if of_reasoning else chunk._replace(text=_PROBE)
    for place in _PLACES:
        before, place_found, rest = data.partition(place)
        text, quote, after = rest.partition(b'"')
        if not (place_found and quote and text):
            continue
        before, after = before + place_found, quote + after
        try:
            # The same event with another text must be read as just that.
            if read_chunk(before + _PROBE.encode() + after) == as_probed:
                return Shortcut(before, after, of_reasoning=of_reasoning)
        except BadChunk:
            continue
    return None
