"""The event-stream format, read as the standard has it (WHATWG HTML, 9.2.6), from bytes that come in any pieces.

Lines end in LF, CR or CRLF; an empty line ends a block, and a block with data is an event. Framing works on bytes alone
and decoding comes after it, so that a character cut in two by a read is whole again. Only line ends inside a chunk are
looked for, by `split`, never byte by byte; what waits for its line end is looked at once more, when that comes.

Two things go beyond the standard, and both are told, never done silently: `close` hands out the last block where the
server forgot its empty line, and a block has a greatest size, so that a line without end cannot take all memory.
What the events mean is not known here: see `loadbench.wire.openai`.
"""

from __future__ import annotations

from typing import NamedTuple

# A long answer in one event is some 100 KiB, and rivals broke at 64 KiB and 1 MiB: far above what is meant seriously.
LARGEST_BLOCK = 16 * 1024 * 1024
_BOM = b"\xef\xbb\xbf"


class OversizeEvent(ValueError):  # noqa: N818 - reads as what it is at the raise
    """A block that grew beyond `LARGEST_BLOCK` bytes. `events` are those that the same chunk completed before it."""

    def __init__(self) -> None:
        super().__init__(f"an event of more than {LARGEST_BLOCK // 2**20} MiB")
        self.events: list[Event] = []


class Event(NamedTuple):
    """One event: its data as bytes, as most readers of JSON want them, its type, and the stream's last id."""

    data: bytes
    event: str = "message"
    id: str = ""

    @property
    def text(self) -> str:
        """The data decoded as the standard says: what is no UTF-8 becomes U+FFFD."""
        return _decode(self.data)


class EventStream:
    """The events of one stream, as its bytes come in.

    `comments` counts comment lines (keep-alives), `ignored` the lines whose field has no meaning, `retry_ms` is the
    server's last wish for the time to reconnect.
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
        self._line = bytearray()  # the line under way
        self._room = LARGEST_BLOCK  # what the block under way may still grow by
        self._at_start = True
        self._after_cr = False

    def feed(self, chunk: bytes) -> list[Event]:
        """The events that these bytes complete; none means that more are needed. Raises `OversizeEvent`."""
        if self._at_start or self._after_cr or b"\r" in chunk:
            chunk = self._plain(chunk)
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
        """Whether nothing is under way: the next byte begins a block."""
        return not (self._line or self._data or self._event or self._at_start or self._after_cr)

    def close(self) -> Event | None:
        """The block that the stream's end cut off, which the standard drops: its data, if it had any."""
        if self._line:
            self._field(bytes(self._line))
            self._line.clear()
        events: list[Event] = []
        self._dispatch(events)
        return events[0] if events else None

    def _plain(self, chunk: bytes) -> bytes:
        """Without the byte order mark of the start, every line end a LF; a CRLF cut in two is still one end."""
        if self._at_start:
            chunk = self._past_mark(chunk)
        if self._after_cr and chunk:
            self._after_cr = False
            chunk = chunk.removeprefix(b"\n")
        if b"\r" in chunk:
            self._after_cr = chunk.endswith(b"\r")
            chunk = chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        return chunk

    def _past_mark(self, chunk: bytes) -> bytes:
        """Hold back what may become a byte order mark until it is one or is not."""
        start = bytes(self._line) + chunk
        self._line.clear()
        if len(start) < len(_BOM) and _BOM.startswith(start):
            self._line += start
            return b""
        self._at_start = False
        return start.removeprefix(_BOM)

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
            elif line.startswith(b"data: "):  # as nearly every line of nearly every server begins
                self._room -= len(line)
                self._data.append(line[6:])
            else:
                self._field(line)
        if rest:
            if len(self._line) + len(rest) > self._room:
                raise OversizeEvent
            self._line += rest

    def _dispatch(self, events: list[Event]) -> None:
        """The block is over: an event if it has data; its type is forgotten in any case, its id is not."""
        data = self._data
        self.last_id = self._id
        if data:
            events.append(Event(data[0] if len(data) == 1 else b"\n".join(data), self._event or "message", self._id))
            self._data = []
        self._event = ""
        self._room = LARGEST_BLOCK

    def _field(self, line: bytes) -> None:
        """One line of a block: `name: value`, one space after the colon being no part of the value."""
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
                # The standard has an id with a NUL ignored.
                self._id = self._id if b"\0" in value else _decode(value)
            case b"retry":
                # More digits than these are no time to wait, and Python would refuse to read thousands of them.
                self.retry_ms = int(value) if value.isdigit() and len(value) < 16 else self.retry_ms
            case _:
                self.ignored += 1


def _decode(value: bytes) -> str:
    return value.decode("utf-8", "replace")
