"""A shortcut for streams whose events differ only in their text: count them without parsing them.

Nearly every event of many servers is the event before it with another piece of text. Once two such events have been
read, the bytes before and after their text are known. Bytes that begin and end the same, with a plain JSON string
between, are the same event with that text, and can be counted without parsing. With several events in one read, the
end of one and the beginning of the next stand between their texts, so one `split` separates them all.

Some servers also number their events, or give each an id, a time or padding. Where such a value of the frame itself
means nothing (`loadbench.wire.typed.means_nothing`), it may be any plain string, or any number, like the text
(`VaryingShortcut`). Events that differ in more are left to `loadbench.wire.typed`.

Only certain cases are counted: strings without quotes, escapes and control characters, between exactly the learned
bytes. Everything else is parsed. What was learned is checked once, by parsing the event with another text in its place.
"""

from __future__ import annotations

import re
from contextlib import suppress
from typing import TYPE_CHECKING

import orjson

from loadbench.wire.openai import BadChunk, Chunk, object_of, read_chunk
from loadbench.wire.typed import means_nothing

if TYPE_CHECKING:
    from collections.abc import Sequence

# Characters of a JSON string that need no escape, at least one. Broken UTF-8 is left to the parser.
_PLAIN = re.compile(rb'[^"\\\x00-\x1f]+').fullmatch
_ASCII = re.compile(rb"[ !#-\[\]-~]+").fullmatch
# Before the text in the frames of chat, of plain completions, and before reasoning; some servers put spaces into JSON.
_NAMES = (b"content", b"text", b"reasoning_content", b"reasoning")
_PLACES = tuple(b'"%b":%b"' % (name, space) for name in _NAMES for space in (b"", b" "))
_PROBE = "probe"
# What may vary: the text, and beside it plain strings and numbers that every parser reads as they are.
# Named one by one, a class is matched faster than as what it is not.
_TEXT = rb"([ !#-\[\]-\xff]+)"
_FORMS = {str: rb'[ !#-\[\]-\xff]*(?=")', int: rb"(?:0|[1-9][0-9]{0,14})(?=[,}])"}
# Patterns for the events of all servers of this process. One takes as long as the parsing of some ten events: where
# each response would need another, there is no shortcut.
_MOST_PATTERNS, _MOST_VARYING = 64, 8
_patterns: dict[bytes, re.Pattern[bytes]] = {}
NONE = 0, 0  # events, and bytes of text


class Shortcut:
    """What the events of one response have in common; call `count` only where an event begins."""

    __slots__ = ("_between", "_head", "_margins", "_tail", "of_reasoning")

    def __init__(self, before: bytes, after: bytes, *, of_reasoning: bool = False) -> None:
        self.of_reasoning = of_reasoning
        self._head = before
        self._tail = after + b"\n\n"
        self._between = self._tail + self._head
        self._margins = (len(self._head), -len(self._tail))

    def count(self, chunk: bytes) -> tuple[int, int]:
        """The number of events in these bytes, all of them complete, and the bytes of their texts; `NONE` if they must
        be parsed."""
        head, tail = self._head, self._tail
        if not (chunk.startswith(head) and chunk.endswith(tail)):
            return NONE
        begin, end = self._margins
        text = chunk[begin:end]
        if _ASCII(text) is not None:  # without a quote it is one event
            return 1, len(text)
        texts = text.split(self._between)
        joined = b"".join(texts)
        if (_ASCII(joined) is not None and b"" not in texts) or all(map(_is_plain, texts)):
            return len(texts), len(joined)
        return NONE


class VaryingShortcut(Shortcut):
    """A shortcut for events in which other values vary than the text, which is the group of `event`.

    `fixed` are the bytes around the values; the first and the last begin and end an event.
    """

    __slots__ = ("_event", "_texts", "_two")

    def __init__(self, fixed: Sequence[bytes], event: re.Pattern[bytes], *, of_reasoning: bool) -> None:
        super().__init__(fixed[0], fixed[-1], of_reasoning=of_reasoning)
        self._event, self._texts = event.fullmatch, event.findall
        self._two = 2 * (sum(map(len, fixed)) + len(b"\n\n"))  # bytes that two events have at least

    def count(self, chunk: bytes) -> tuple[int, int]:
        """The number of events in these bytes, all of them complete, and the bytes of their texts; `NONE` if they must
        be parsed."""
        event = self._event(chunk) if len(chunk) < self._two else None
        if event is not None:
            begin, end = event.span(1)
            count, text_bytes = 1, end - begin
        else:
            if not (chunk.startswith(self._head) and chunk.endswith(self._tail)):
                return NONE
            texts = self._texts(chunk)
            count, text_bytes = len(texts), len(b"".join(texts))
            # Each begins a line and ends with two line feeds: where there are no others, there is nothing else either.
            if not count or chunk.count(b"\n") != 2 * count:
                return NONE
        if not chunk.isascii():
            try:
                chunk.decode()
            except UnicodeDecodeError:
                return NONE
        return count, text_bytes


def _is_plain(text: bytes) -> bool:
    if _PLAIN(text) is None:
        return False
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def learn(event: bytes, earlier: bytes, *, has_model: bool) -> Shortcut | None:
    """The shortcut for events like these two; `None` if they differ in more than text and values without a meaning.

    Both begin with `data:`, are without their empty line, and were read as events with text. `has_model`: the model is
    known, so that no event can change it.
    """
    for place in _PLACES:
        before, found, rest = event.partition(place)
        text, quote, after = rest.partition(b'"')
        if not (quote and text) or b"\\" in text:
            continue
        head, tail, of_reasoning = before + found, quote + after, b"reasoning" in place
        plain = Shortcut(head, tail, of_reasoning=of_reasoning)
        is_plain = plain.count(earlier + b"\n\n") != NONE
        shortcut = plain if is_plain else _varying(event, earlier, head, tail, of_reasoning=of_reasoning)
        if shortcut is None:
            continue
        # The same event with another text must be read as just that.
        probe = Chunk(reasoning=_PROBE) if shortcut.of_reasoning else Chunk(text=_PROBE)
        with suppress(BadChunk):
            chunk = read_chunk((head + _PROBE.encode() + tail).removeprefix(b"data:"))
            model = chunk.model if has_model else None
            if chunk == probe._replace(model=model, choices=chunk.choices):
                return shortcut
    return None


def _varying(event: bytes, earlier: bytes, head: bytes, tail: bytes, *, of_reasoning: bool) -> Shortcut | None:
    """The shortcut for two events that differ in values of the frame that mean nothing, too."""
    try:
        one, other = (object_of(each.removeprefix(b"data:")) for each in (event, earlier))
    except BadChunk:
        return None
    if list(one) != list(other):
        return None
    # All such values vary, also those that do not in one response, as its id: what is fixed serves for all responses.
    places, varies = [(len(head), len(event) - len(tail), _TEXT)], False
    for name, value in one.items():
        form = _FORMS.get(type(value))
        if form is None or not means_nothing(name):
            continue
        key = orjson.dumps(name)
        found = re.search(re.escape(key) + b':[ ]?"?(' + form + b")", event)
        # A name that stands there once is the frame's own.
        if found is not None and event.count(key) == 1 and found[1] == str(value).encode():
            places.append((*found.span(1), form))
            varies |= other[name] != value
    if not varies or len(places) > _MOST_VARYING or b"\n" in event:
        return None
    places.sort()
    ends = [0, *(end for _, end, _ in places)]
    begins = [*(begin for begin, _, _ in places), len(event)]
    fixed = tuple(event[end:begin] for end, begin in zip(ends, begins, strict=True))
    at = 0
    for part in fixed:  # a pattern is not made in vain
        at = earlier.find(part, at) + len(part)
        if at < len(part):
            return None
    forms = [*(form for *_, form in places), rb"\n\n"]
    source = rb"^" + b"".join(re.escape(part) + form for part, form in zip(fixed, forms, strict=True))
    pattern = _patterns.get(source)
    if pattern is None:
        if len(_patterns) == _MOST_PATTERNS:
            return None
        pattern = _patterns[source] = re.compile(source, re.MULTILINE)
    shortcut = VaryingShortcut(fixed, pattern, of_reasoning=of_reasoning)
    fits = all(shortcut.count(each + b"\n\n")[0] == 1 for each in (event, earlier))
    return shortcut if fits else None
