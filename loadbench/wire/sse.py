"""The event-stream format as the standard defines it (WHATWG HTML, 9.2.6), from bytes in pieces of any size.

Lines end in LF, CR or CRLF; an empty line ends a block, and a block with data is an event. Framing works on bytes, and
decoding comes after it, so a character that a read cut in two is whole again. Line ends are found by one `split` of
each chunk, never byte by byte; an incomplete line is looked at once more, when its end comes.

Some things go beyond the standard, and are visible to the caller. `close` returns the last block if the server forgot
its empty line. A block has a maximum size, so that a line without end cannot fill the memory. A field `error`, as of
llama.cpp, makes its block an event of that type. Lines with no known field are kept: they may be all that the server
says of a failure. With `marks_anywhere` a byte order mark before any line is removed, since some servers write several.
The meaning of the events is in `loadbench.wire.openai`.
"""

from __future__ import annotations

from typing import NamedTuple
from weakref import WeakKeyDictionary

from loadbench.wire.vocabulary import is_error_event

# An image of 6 MB as a data URL, the ids of a million tokens of a prompt, or the log-probabilities of 6,000 tokens with
# 20 alternatives each. JSON takes up to 24 times its bytes in memory, which `core.bounded` limits.
LARGEST_BLOCK = 8 * 1024 * 1024
# Few events are larger than this, so few users hold one at a time: all of a process together hold so much of them.
USUAL_BLOCK, _MOST_HELD = 2 * 1024 * 1024, 256 * 1024 * 1024
_held: WeakKeyDictionary[object, int] = WeakKeyDictionary()
BOM = b"\xef\xbb\xbf"
# No type of an event is longer; what a hostile server sends must not be kept.
_LONGEST_NAME = 256
_FIELDS = (b"data", b"event", b"id", b"retry", b"error")


class OversizeEvent(ValueError):  # noqa: N818 - reads as what it is at the raise
    """A block beyond `LARGEST_BLOCK` bytes. `events` are those that the same chunk completed before it."""

    def __init__(self, most_bytes: int = LARGEST_BLOCK, among: str = "") -> None:
        what = f"an event of more than {most_bytes // 2**20} MiB{among}, which is all that is read"
        super().__init__(f"{what}: request less with each event, as smaller images or fewer log-probabilities")
        self.events: list[Event] = []


def hold(owner: object, size: int) -> None:
    """Note that `owner` holds so many bytes of an event until it is collected; raises `OversizeEvent` if that is too
    much, or too much of large events of all owners."""
    if size > LARGEST_BLOCK:
        raise OversizeEvent
    if size > USUAL_BLOCK:
        _held[owner] = size
        if sum(_held.values()) > _MOST_HELD:
            among = f", while others of more than that hold {_MOST_HELD >> 20} MiB"
            raise OversizeEvent(USUAL_BLOCK, among)
    else:
        _held.pop(owner, None)


def holds_much(owner: object) -> bool:
    """Whether `owner` has noted more than `USUAL_BLOCK` bytes."""
    return owner in _held


class Event(NamedTuple):
    """One event: its data as bytes, which JSON parsers take, its type, and the last id of the stream."""

    data: bytes
    event: str = "message"
    id: str = ""

    @property
    def text(self) -> str:
        """The data decoded as the standard says: bytes that are not UTF-8 become U+FFFD."""
        return _decode(self.data)


class EventStream:
    """The events of one stream, as its bytes come in.

    `comments` counts comment lines, `keep_alives` these and the blocks without data, `ignored` the lines with an
    unknown field, which `unframed` has; `retry_ms` is the last reconnection time that the server requested.
    """

    __slots__ = (
        "__weakref__",
        "_after_cr",
        "_at_start",
        "_commented",
        "_data",
        "_event",
        "_id",
        "_line",
        "_marks_anywhere",
        "_room",
        "comments",
        "ignored",
        "keep_alives",
        "last_id",
        "retry_ms",
        "unframed",
    )

    def __init__(self, *, last_id: str = "", marks_anywhere: bool = False) -> None:
        self._marks_anywhere = marks_anywhere
        self.comments = 0
        self.keep_alives = 0
        self.ignored = 0
        self.unframed = bytearray()
        self.retry_ms: int | None = None
        self.last_id = last_id
        self._id = last_id
        self._event = ""
        self._data: list[bytes] = []
        self._line = bytearray()  # the incomplete last line
        self._room = LARGEST_BLOCK  # by which the current block may still grow
        self._at_start = True
        self._after_cr = False
        self._commented = False  # the block has a comment or an unknown line, which has been counted

    @staticmethod
    def recognises(start: bytes) -> bool | None:
        """Whether a body that begins like this is an event stream; `None` if more of it must be seen."""
        start = start.removeprefix(BOM).lstrip()
        name, colon, _ = start.partition(b":")
        if colon:
            return name.lower() in (b"", *_FIELDS)
        may_become_one = BOM.startswith(start) or any(field.startswith(start.lower()) for field in _FIELDS)
        return None if may_become_one else False

    def feed(self, chunk: bytes) -> list[Event]:
        """The events that these bytes complete, possibly none. Raises `OversizeEvent`."""
        if self._at_start or self._after_cr or b"\r" in chunk:
            chunk = self._normalize(chunk)
        lines = chunk.split(b"\n")
        # Most reads bring one event: its data, perhaps with its type before it, and an empty line.
        if 2 < len(lines) < 5 and not (lines[-1] or lines[-2] or self._line or self._data or self._event):
            data, kind = lines[-3], b"" if len(lines) == 3 else lines[0]
            is_usual = data.startswith(b"data: ") and (len(lines) == 3 or kind.startswith(b"event: "))
            if is_usual and len(chunk) < self._room:
                self.last_id, self._commented = self._id, False
                return [Event(data[6:], _decode(kind[7 : 7 + _LONGEST_NAME]) or "message", self._id)]
        events: list[Event] = []
        try:
            self._take(lines, events)
        except OversizeEvent as error:
            error.events = events
            self._line.clear()
            self._data.clear()
            self._event = ""
            hold(self, 0)
            raise
        return events

    @property
    def between(self) -> bool:
        """Whether the next byte begins a block."""
        return not (self._line or self._data or self._event or self._at_start or self._after_cr)

    def close(self) -> Event | None:
        """The block that the end of the stream cut off, if it has data; the standard would drop it."""
        line = bytes(self._line)
        self._line.clear()
        # The beginning of a field's name is no unknown line, only cut.
        if line and not any(name.startswith(line) and name != line for name in _FIELDS):
            self._field(line)
        events: list[Event] = []
        if self._data or self._event:
            self._dispatch(events)
        return events[0] if events else None

    def _normalize(self, chunk: bytes) -> bytes:
        """The chunk without a byte order mark at the start, with LF for every line end; a split CRLF is still one."""
        if self._at_start:
            # Hold back what may become a byte order mark until it is one or cannot be one.
            chunk = bytes(self._line) + chunk
            self._line.clear()
            if len(chunk) < len(BOM) and BOM.startswith(chunk):
                self._line += chunk
                return b""
            self._at_start = False
            chunk = chunk.removeprefix(BOM)
        if self._after_cr and chunk:
            self._after_cr = False
            chunk = chunk.removeprefix(b"\n")
        if b"\r" in chunk:
            self._after_cr = chunk.endswith(b"\r")
            chunk = chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        return chunk

    def _take(self, lines: list[bytes], events: list[Event]) -> None:
        rest = lines.pop()
        if lines and self._line:
            self._line += lines[0]
            lines[0] = bytes(self._line)
            self._line.clear()
        for line in lines:
            if not line:
                self._dispatch(events)
            elif len(line) > self._room:
                raise OversizeEvent
            elif line.startswith(b"data: "):  # like nearly every line of nearly every server
                self._room -= len(line)
                self._data.append(line[6:])
            else:
                self._field(line)
        if rest:
            if len(self._line) + len(rest) > self._room:
                raise OversizeEvent
            self._line += rest
        if (size := LARGEST_BLOCK - self._room + len(self._line)) > USUAL_BLOCK:
            hold(self, size)

    def _dispatch(self, events: list[Event]) -> None:
        """End the block: with data it is an event. The type does not carry over to the next block, the id does."""
        data = self._data
        self.last_id = self._id
        if data:
            events.append(Event(data[0] if len(data) == 1 else b"\n".join(data), self._event or "message", self._id))
            self._data = []
        elif is_error_event(self._event):
            events.append(Event(b"", self._event, self._id))
        elif not self._commented:
            self.keep_alives += 1
        self._event = ""
        if self._room < LARGEST_BLOCK - USUAL_BLOCK:
            hold(self, 0)
        self._room = LARGEST_BLOCK
        self._commented = False

    def _field(self, line: bytes) -> None:
        """One line of a block: `name: value`; one space after the colon is not part of the value."""
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        match name:
            case b"data":
                self._room -= len(line)
                self._data.append(value)
            case b"":
                self.comments += 1
                self.keep_alives += 1
                self._commented = True
            case b"event":
                self._event = _decode(value[:_LONGEST_NAME])
            case b"id":
                # The standard ignores an id with a NUL.
                self._id = self._id if b"\0" in value else _decode(value)
            case b"retry":
                # More digits are no sensible time, and Python refuses to convert thousands of them.
                self.retry_ms = int(value) if value.isdigit() and len(value) < 16 else self.retry_ms
            case _ if name.lower() == b"error":
                self._room -= len(line)
                self._event = "error"
                self._data = [value]
            case _ if line == BOM or (self._marks_anywhere and line.startswith(BOM)):
                self.keep_alives += 1
                self._commented = True
                if line != BOM:
                    self._field(line.removeprefix(BOM))
            case _:
                self.ignored += 1
                self._commented = True
                if len(self.unframed) < USUAL_BLOCK:
                    self.unframed += line + b"\n"


def _decode(value: bytes) -> str:
    return value.decode("utf-8", "replace")
