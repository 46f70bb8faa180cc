"""The short way through a stream whose events differ in nothing but their text.

Nearly every event of nearly every server is the one before it with another piece of text. Once such an event has been
read in full, what stands before and after its text is known; bytes that begin and end like that, with a plain JSON
string between, are the same event with that text, and need not be parsed to be counted. Several in one read have the
end of one and the beginning of the next between their texts, so that one `split` takes them all apart.

Only what is certain is taken: a string without quotes, escapes and control characters, between exactly the bytes that
were learned. All else goes the long way, and what has been learned was checked by reading it once more with another
text in its place.
"""

from __future__ import annotations

import re

from loadbench.wire.openai import BadChunk, Chunk, read_chunk

# What a JSON string holds that means itself, one character at least; broken UTF-8 is left to the long way.
_PLAIN = re.compile(rb'[^"\\\x00-\x1f]+').fullmatch
_ASCII = re.compile(rb"[ !#-\[\]-~]+").fullmatch
# The text's place in the frames of chat, of plain completions, and of servers that space their JSON.
_PLACES = (b'"content":"', b'"content": "', b'"text":"', b'"text": "')
_PROBE = "probe"


class Shortcut:
    """What the events of one answer have in common; `count` is of use between two events only."""

    __slots__ = ("_aside", "_between", "_head", "_tail")

    def __init__(self, before: bytes, after: bytes) -> None:
        self._head = b"data: " + before
        self._tail = after + b"\n\n"
        self._between = self._tail + self._head
        self._aside = (len(self._head), -len(self._tail))

    def count(self, chunk: bytes) -> int:
        """How many events these bytes are, none of them in part; 0 where they must go the long way."""
        head, tail = self._head, self._tail
        if not (chunk.startswith(head) and chunk.endswith(tail)):
            return 0
        begin, end = self._aside
        text = chunk[begin:end]
        if _ASCII(text) is not None:  # no quote in it: it is one
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
    """The shortcut that this event teaches, which was read as `chunk`; `None` where it is not of the simple kind."""
    simple = Chunk(text=chunk.text, model=chunk.model, choices=chunk.choices)
    if not chunk.text or chunk != simple:
        return None
    for place in _PLACES:
        before, found, rest = data.partition(place)
        text, quote, after = rest.partition(b'"')
        if found and quote and text and _reads_as(before + found, quote + after, chunk):
            return Shortcut(before + found, quote + after)
    return None


def _reads_as(before: bytes, after: bytes, chunk: Chunk) -> bool:
    """Whether another text between these is the same event with that text."""
    try:
        return read_chunk(before + _PROBE.encode() + after) == chunk._replace(text=_PROBE)
    except BadChunk:
        return False
