"""One answer, folded frame by frame into what a sample needs: its marks, its tokens, its end.

The caller stamps bytes as they arrive and hands them in; whatever one read brought shares its stamp. An event bears a
token if it has text that the model generated: for the user, reasoning, or a tool call. A role, an empty or a null delta
is none. Neither text nor frames are kept, unless the text is asked for, so that an answer costs eight bytes per event.

How many tokens an event held is told by ids or logprobs, by usage that grows from frame to frame, or by a total equal
to the number of events. Such an account is believed only if it adds up to the answer's total, and never made up.
"""

from __future__ import annotations

from array import array
from itertools import pairwise
from typing import TYPE_CHECKING

from loadbench.record.outcome import Outcome, TokenSource
from loadbench.wire.formats import format_of
from loadbench.wire.openai import DONE, BadChunk, Usage, clean, error_text, page_text
from loadbench.wire.shortcut import learn
from loadbench.wire.sse import OversizeEvent

if TYPE_CHECKING:
    from loadbench.record.timings import Timings
    from loadbench.wire.openai import Api, Chunk
    from loadbench.wire.shortcut import Shortcut
    from loadbench.wire.sse import Event

# What a server writes as finish_reason when it gave up: the answer is not what was asked for.
_GIVEN_UP = frozenset({"error", "abort"})
# Where most servers' events end, all those with a shortcut among them.
_END = b"\n\n"
# A server whose events are not of the simple kind costs these tries, and no more.
_MOST_LESSONS = 3


class ResponseReader:
    """What one response body amounts to; feed it what arrives, close it, then ask for its outcome.

    Times are ns of the caller's clock, `None` where the moment did not come. `event_ns` has the stamp of every
    token-bearing event; `reads` counts the reads that brought one, `merged_reads` those that brought several.
    """

    __slots__ = (
        "_broken",
        "_fault",
        "_format",
        "_heard",
        "_heard_ns",
        "_lessons",
        "_reader",
        "_ready",
        "_shortcut",
        "_stream",
        "_texts",
        "_tokens",
        "_usage",
        "_whole",
        "bad_frames",
        "done_ns",
        "error",
        "event_ns",
        "finish_reason",
        "first_token_ns",
        "first_visible_ns",
        "last_token_ns",
        "merged_reads",
        "model",
        "reads",
        "timings",
        "unfinished",
    )

    def __init__(self, api: Api, *, keep_text: bool = False) -> None:
        self._format = format_of(api)
        self._stream = self._format.frames()
        self._reader = self._format.reader()
        self._texts: list[str] | None = [] if keep_text else None
        self.done_ns: int | None = None
        self.first_token_ns: int | None = None
        self.first_visible_ns: int | None = None
        self.last_token_ns: int | None = None
        self.event_ns = array("q")
        self.reads = 0
        self.merged_reads = 0
        self.error: str | None = None
        self.finish_reason: str | None = None
        self.model: str | None = None
        self.timings: Timings | None = None  # the server's own, as it told them last
        self.bad_frames = 0
        self.unfinished = False  # the last block lacked its empty line
        self._usage = Usage()
        self._tokens = _Accounts()
        self._shortcut: Shortcut | None = None
        self._ready: Shortcut | None = None  # the same, if the next byte begins an event
        self._lessons = _MOST_LESSONS if self._format.alike else 0  # how often it may still be tried
        self._fault = ""  # what was wrong first with the protocol
        self._broken = False
        self._whole = False
        self._heard_ns: int | None = None  # the last read
        self._heard = 0  # token-bearing events that it brought

    def streams(self, content_type: bytes) -> bool:
        """Whether a body of this type, in small letters, is the expected stream; one that tells none may be."""
        return not content_type or content_type.startswith(self._format.content_type)

    def feed(self, at_ns: int, chunk: bytes) -> None:
        """Body bytes that arrived at `at_ns`."""
        if self._broken or not chunk:
            return
        if at_ns != self._heard_ns:
            self._heard_ns, self._heard = at_ns, 0
        if self._ready is not None:
            count = self._ready.count(chunk)
            if count:
                self._mark_many(count, at_ns)
                return
        cut = self._cut(chunk)
        if cut:
            self.feed(at_ns, chunk[:cut])
            self.feed(at_ns, chunk[cut:])
        else:
            self._feed_bytes(chunk, at_ns)

    def _cut(self, chunk: bytes) -> int:
        """Where to halve several events, of which one is of another form: the others need not be parsed for that.

        0 where there is only one, or nothing to be gained.
        """
        if self._texts is not None or (self._shortcut is None and not self._lessons):
            return 0
        found = chunk.find(_END, len(chunk) // 2, -len(_END))
        if found < 0:
            found = chunk.rfind(_END, 0, -len(_END))
        return found + len(_END) if found >= 0 else 0

    def _feed_bytes(self, chunk: bytes, at_ns: int) -> None:
        """The long way."""
        if self._broken or not chunk:
            return
        try:
            events = self._stream.feed(chunk)
        except OversizeEvent as error:
            events = error.events
            self._broken = True
            self._fault = self._fault or str(error)
        self._read(events, at_ns)
        self._ready = self._shortcut if self._stream.between and self.done_ns is None else None

    def close(self, at_ns: int) -> None:
        """The body ended at `at_ns`. A last event without its empty line counts, as of the read that brought it."""
        event = None if self._broken else self._stream.close()
        if event is None:
            return
        self.unfinished = True
        try:
            if event.event != "error":
                self._format.reader()(event.data)
        except BadChunk:
            return  # cut in its middle: no frame, and the answer is judged by what came before
        self._read([event], at_ns if self._heard_ns is None else self._heard_ns)

    def fold_json(self, body: bytes, at_ns: int) -> None:
        """A whole body, complete at `at_ns`, that is no event stream: a JSON answer, an error, or a fault."""
        try:
            chunk = self._format.whole(body)
        except BadChunk:
            self._fault = self._fault or _misfit(body)
            return
        if chunk.error is None and not chunk.choices:
            self._fault = self._fault or f"JSON that answers no {self._format.path}: {error_text(body)}"
            return
        self._whole = True
        self._fold(chunk, at_ns)
        self.reads = len(self.event_ns)

    def _read(self, events: list[Event], at_ns: int) -> None:
        """Fold what one read brought, and count the read."""
        before = len(self.event_ns)
        for event in events:
            if self.done_ns is None:
                self._event(event, at_ns)
        self._count(len(self.event_ns) - before)

    def _mark_many(self, count: int, at_ns: int) -> None:
        """So many events with visible text and nothing else, after a first one that was read in full."""
        self.last_token_ns = at_ns
        if count == 1 and not self._heard:  # as it is with nearly all of them
            self.event_ns.append(at_ns)
            self.reads += 1
            self._heard = 1
        else:
            self.event_ns.extend([at_ns] * count)
            self._count(count)

    def _count(self, brought: int) -> None:
        """Token-bearing events that one read brought; what has the same stamp was one read, in however many parts."""
        if brought:
            self.reads += self._heard == 0
            self.merged_reads += self._heard < 2 <= self._heard + brought
            self._heard += brought

    def _event(self, event: Event, at_ns: int) -> None:
        if event.event == "error":
            self.error = self.error or error_text(event.data)
            return
        try:
            chunk = self._reader(event.data)
        except BadChunk as error:
            self.bad_frames += 1
            self._fault = self._fault or f"a frame that is {error}"
            return
        if chunk is not DONE:
            self._fold(chunk, at_ns)
            self._learn(event.data, chunk)
        if chunk.done:
            self.done_ns = at_ns

    def _learn(self, data: bytes, chunk: Chunk) -> None:
        """Once a visible event has been read in full, those of the same form can be counted unread."""
        if self._lessons and chunk.text and self._texts is None and chunk.model == self.model:
            self._lessons -= 1
            self._shortcut = learn(data, chunk)
            if self._shortcut is not None:
                self._lessons = 0

    def _fold(self, chunk: Chunk, at_ns: int) -> None:
        if chunk.usage is not None:
            self._usage = _later(self._usage, chunk.usage)
        bears = bool(chunk.text or chunk.hidden or chunk.tool)
        self._tokens.add(chunk, bears=bears)
        if bears:
            self._mark(chunk, at_ns)
        if chunk.finish_reason is not None:
            self.finish_reason = clean(chunk.finish_reason)
        if self.model is None and chunk.model is not None:
            self.model = clean(chunk.model)
        if self.error is None:
            self.error = chunk.error
        if chunk.timings is not None:
            self.timings = chunk.timings

    def _mark(self, chunk: Chunk, at_ns: int) -> None:
        self.event_ns.append(at_ns)
        self.last_token_ns = at_ns
        if self.first_token_ns is None:
            self.first_token_ns = at_ns
        if chunk.text:
            if self.first_visible_ns is None:
                self.first_visible_ns = at_ns
            if self._texts is not None:
                self._texts.append(chunk.text)

    # How it ended.

    def outcome(self) -> tuple[Outcome, str]:
        """How the answer ended, and what is to be said of it; the transport's own failures are not known here."""
        if self.error is not None:
            return Outcome.STREAM_ERROR, self.error
        if self._fault:
            more = f" (and {self.bad_frames - 1} more)" if self.bad_frames > 1 else ""
            return Outcome.PROTOCOL, self._fault + more
        if self.finish_reason in _GIVEN_UP:
            return Outcome.STREAM_ERROR, f"the server ended it with finish_reason {self.finish_reason!r}"
        if self.finish_reason is None and self.done_ns is None and not self._whole:
            return self._cut_short()
        if not self.event_ns:
            return Outcome.EMPTY, f"no token, and finish_reason {self.finish_reason!r}"
        return Outcome.OK, ""

    def _cut_short(self) -> tuple[Outcome, str]:
        if self._heard_ns is None:
            return Outcome.TRUNCATED, "nothing came"
        if self._stream.ignored and not self.event_ns:
            return Outcome.PROTOCOL, f"{self._stream.ignored} lines that belong to no event stream"
        where = "inside an event" if self.unfinished else f"after {len(self.event_ns)} events"
        return Outcome.TRUNCATED, f"ended {where}, without finish_reason and [DONE]"

    # What it held.

    @property
    def text(self) -> str | None:
        """The visible text, if it was to be kept; halves of a surrogate pair that came apart are joined."""
        if self._texts is None:
            return None
        return "".join(self._texts).encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")

    @property
    def input_tokens(self) -> int | None:
        """Tokens of the prompt, by the server."""
        return self._usage.input

    @property
    def cached_tokens(self) -> int | None:
        """Those of the prompt that the server had in its cache."""
        return self._usage.cached

    @property
    def reasoning_tokens(self) -> int | None:
        """Those of the output that were reasoning, by the server."""
        return self._usage.reasoning

    def output_tokens(self) -> tuple[int | None, TokenSource]:
        """Tokens generated, and who says so. A usage of zero beside tokens that came is no count."""
        told, events = self._usage.generated, len(self.event_ns)
        if told or (told == 0 and not events):
            return told, TokenSource.USAGE
        counted = self._tokens.counted()
        if counted:
            return counted, TokenSource.IDS
        # A whole answer is one event of many tokens.
        if events and not self._whole:
            return events, TokenSource.EVENTS
        return None, TokenSource.UNKNOWN

    def tokens_by_event(self) -> array[int] | None:
        """Tokens of each entry of `event_ns`, which add up to the output tokens; `None` where that is not known."""
        total, source = self.output_tokens()
        events = len(self.event_ns)
        if not events or total is None or source is TokenSource.EVENTS:
            return None
        if self._whole:
            return array("q", [total])
        for account in self._tokens.by_event(total):
            if sum(account) == total and min(account) >= 0:
                return account
        return array("q", [1]) * events if total == events else None


class _Accounts:
    """What the frames tell of their tokens, for as long as every token-bearing one tells it."""

    __slots__ = ("_grown", "_id_total", "_ids")

    def __init__(self) -> None:
        self._ids: array[int] | None = array("q")
        self._id_total = 0
        self._grown: array[int] | None = array("q")  # usage as of each event

    def add(self, chunk: Chunk, *, bears: bool) -> None:
        """One frame. Tokens of a frame without text, as of half a character, go to the next event."""
        if self._ids is not None:
            self._id_total += chunk.tokens or 0
            if bears and chunk.tokens is None:
                self._ids = None
            elif bears:
                self._ids.append(self._id_total)
        if self._grown is not None and bears:
            told = None if chunk.usage is None else chunk.usage.generated
            # A usage that stands still beside new text is no running count, only a placeholder.
            if told is None or told <= (self._grown[-1] if self._grown else 0):
                self._grown = None
            else:
                self._grown.append(told)

    def counted(self) -> int | None:
        """All tokens by their ids, if every event told them."""
        return self._id_total if self._ids is not None else None

    def by_event(self, total: int) -> list[array[int]]:
        """Each account as tokens per event, best first. What came after the last event, as an end token, is its."""
        accounts = [(self._ids, self._id_total), (self._grown, total)]
        return [_steps(account, at_end) for account, at_end in accounts if account]


def _steps(account: array[int], at_end: int) -> array[int]:
    """Differences of a running total, the last one up to the end."""
    return array("q", (later - earlier for earlier, later in pairwise((0, *account[:-1], at_end))))


def _later(known: Usage, told: Usage) -> Usage:
    """The newer count, field by field: what it leaves out stays, and a zero takes nothing back."""
    if known == told:
        return known
    return Usage(*(new or (old if old is not None else new) for old, new in zip(known, told, strict=True)))


def _misfit(body: bytes) -> str:
    """What came in place of an event stream, if it is no JSON object."""
    if body.lstrip().startswith((b"data:", b"event:", b":")):
        return "an event stream whose Content-Type does not say so"
    text = error_text(body)
    if page_text(body) is None:
        text = f"text ({text})" if body.strip() else "an empty body"
    return f"{text} instead of an event stream"
