"""The event-stream format as the standard defines it (WHATWG HTML, 9.2.6), from bytes in pieces of any size.

Lines end in LF, CR or CRLF; an empty line ends a block, and a block with data is an event. Framing works on bytes, and
decoding comes after it, so a character that a read cut in two is whole again. Line ends are found by one `split` of
each chunk, never byte by byte; an incomplete line is looked at once more, when its end comes.

Two things go beyond the standard, and both are visible to the caller: `close` returns the last block if the server
forgot its empty line, and a block has a maximum size, so that a line without end cannot fill the memory.
The meaning of the events is in `loadbench.wire.openai`.
"""

from __future__ import annotations

from typing import NamedTuple

# A long response in one event has some 100 KiB, and other tools broke at 64 KiB and 1 MiB: this is far above both.
LARGEST_BLOCK = 16 * 1024 * 1024
_BOM = b"\xef\xbb\xbf"


class OversizeEvent(ValueError):  # noqa: N818 - reads as what it is at the raise
    """A block beyond `LARGEST_BLOCK` bytes. `events` are those that the same chunk completed before it."""

    def __init__(self) -> None:
        super().__init__(f"an event of more than {LARGEST_BLOCK // 2**20} MiB")
        self.events: list[Event] = []


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

    `comments` counts comment lines (keep-alives), `ignored` the lines with an unknown field, `retry_ms` is the last
    reconnection time that the server requested.
    """

    __slots__ = (
        "_after_cr",
        "_at_start",
        "_data",
        "_event",
        "_id",
        "_line",
        "_room",
        "comments",
        "ignored",
        "last_id",
        "retry_ms",
    )

    def __init__(self, *, last_id: str = "") -> None:
        self.comments = 0
        self.ignored = 0
        self.retry_ms: int | None = None
        self.last_id = last_id
        self._id = last_id
        self._event = ""
        self._data: list[bytes] = []
        self._line = bytearray()  # the incomplete last line
        self._room = LARGEST_BLOCK  # by which the current block may still grow
        self._at_start = True
        self._after_cr = False

    def feed(self, chunk: bytes) -> list[Event]:
        """The events that these bytes complete, possibly none. Raises `OversizeEvent`."""
        if self._at_start or self._after_cr or b"\r" in chunk:
            chunk = self._normalize(chunk)
        events: list[Event] = []
        try:
            self._take(chunk, events)
        except OversizeEvent as error:
            error.events = events
            self._line.clear()
            self._data.clear()
            raise
        return events

    @property
    def between(self) -> bool:
        """Whether the next byte begins a block."""
        return not (self._line or self._data or self._event or self._at_start or self._after_cr)

    def close(self) -> Event | None:
        """The block that the end of the stream cut off, if it has data; the standard would drop it."""
        if self._line:
            self._field(bytes(self._line))
            self._line.clear()
        events: list[Event] = []
        self._dispatch(events)
        return events[0] if events else None

    def _normalize(self, chunk: bytes) -> bytes:
        """The chunk without a byte order mark at the start, with LF for every line end; a split CRLF is still one."""
        if self._at_start:
            # Hold back what may become a byte order mark until it is one or cannot be one.
            chunk = bytes(self._line) + chunk
            self._line.clear()
            if len(chunk) < len(_BOM) and _BOM.startswith(chunk):
                self._line += chunk
                return b""
            self._at_start = False
            chunk = chunk.removeprefix(_BOM)
        if self._after_cr and chunk:
            self._after_cr = False
            chunk = chunk.removeprefix(b"\n")
        if b"\r" in chunk:
            self._after_cr = chunk.endswith(b"\r")
            chunk = chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        return chunk

    def _take(self, chunk: bytes, events: list[Event]) -> None:
        lines = chunk.split(b"\n")
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

    def _dispatch(self, events: list[Event]) -> None:
        """End the block: with data it is an event. The type does not carry over to the next block, the id does."""
        data = self._data
        self.last_id = self._id
        if data:
            events.append(Event(data[0] if len(data) == 1 else b"\n".join(data), self._event or "message", self._id))
            self._data = []
        self._event = ""
        self._room = LARGEST_BLOCK

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
            case b"event":
                self._event = _decode(value)
            case b"id":
                # The standard ignores an id with a NUL.
                self._id = self._id if b"\0" in value else _decode(value)
            case b"retry":
                # More digits are no sensible time, and Python refuses to convert thousands of them.
                self.retry_ms = int(value) if value.isdigit() and len(value) < 16 else self.retry_ms
            case _:
                self.ignored += 1


def _decode(value: bytes) -> str:
    return value.decode("utf-8", "replace")
