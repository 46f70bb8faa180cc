"""One response, added up frame by frame to what a sample needs: its marks, its tokens, its end.

The caller stamps bytes as they arrive and passes them in; all events of one read share its stamp. An event bears a
token if it has text that the model generated: visible text, reasoning, or a tool call. A role, an empty or a null delta
does not. Neither text nor frames are kept, unless the text is requested, so a response costs eight bytes per event.

Usage is not taken on trust. A text of k bytes has at most k tokens, so a usage that counts more proves that tokens were
not shown; of text that is only counted, the length is known from that of its reads.

The number of tokens in an event comes from ids or logprobs, from usage that grows from frame to frame, or from a total
equal to the number of events. Such counts are used only if they add up to the total of the response; none are guessed.
"""

from __future__ import annotations

import re
from array import array
from contextlib import suppress
from itertools import pairwise
from typing import TYPE_CHECKING

import msgspec

from loadbench.core.bounded import MOST_LEVELS
from loadbench.record.outcome import Outcome, TokenSource
from loadbench.record.usage_check import PLAUSIBLE, UsageCheck
from loadbench.wire.formats import format_of
from loadbench.wire.generated import generated
from loadbench.wire.openai import DONE, FOREIGN, BadChunk, Chunk, clean, error_text, page_text, quoted, read_chunk
from loadbench.wire.shortcut import VaryingShortcut, learn
from loadbench.wire.sse import USUAL_BLOCK, OversizeEvent, holds_much
from loadbench.wire.typed import Counts, Form, decoder, form_of
from loadbench.wire.usage import MOST_TOKENS, Usage, usage_in
from loadbench.wire.vocabulary import Ending, ending_of, is_error_event, is_keep_alive, reads_like_error

if TYPE_CHECKING:
    from typing import Any

    from loadbench.record.timings import Timings
    from loadbench.wire.openai import Api
    from loadbench.wire.shortcut import Shortcut
    from loadbench.wire.sse import Event
    from loadbench.wire.typed import Decode

_NOT_GOOD = frozenset({Ending.FAILED, Ending.UNKNOWN})
_MORE_THAN_IS_QUOTED = 400
# What is not framed as an event and has one of these may have had text.
_HOLDS_TEXT = (b'"choices', b'"delta')
# Around the data of an event of most servers, and of all events with a shortcut.
_END, _CRLF_END = b"\n\n", b"\r\n\r\n"
# The last of most responses, with at most so many before it that are not worth looking at each.
_LAST, _MOST_LAST = b"data: [DONE]\n\n", 5
_LF, _CR = b"\n\r"
# Lines at the beginning of an event that change nothing in it: an id, and the type that it has anyway.
_LABELS = rb"(?:(?:id:[^\r\n]{0,200}|event: ?message)\n)+(?=data:)"
_labels, _later_labels = re.compile(_LABELS).match, re.compile(_END + _LABELS).sub
_BEGIN_LABELS = b"ie"
_LABELLED = b"data:"  # how the events begin that may have them
_TO_BE_PARSED = -1
# The parser refuses numbers of more than 4,300 digits, as Python does. The decoder does not: it reads no longer events.
_LONGEST_TYPED = 4300
# No two events with text are shorter: what is, is not worth cutting.
_TWO_EVENTS = 64
# A stream with more frames that are not understood, for each with text, is none; to look at each takes longer than to
# read it.
_MOST_BAD_FRAMES = 1000
# How many events are tried for a shortcut; a server whose events are not uniform costs only these.
_MOST_TRIES = 3
_MOST_FIRST = 4
# After so many responses without a shortcut it is looked for in one of so many.
_MOST_FRUITLESS, _SELDOM = 4, 16
# What is longer is unlike the other events: nothing is learned from it, and no copy of it is kept.
_LONGEST_TRIED = 64 * 1024
# A shortcut that has not fitted for so many reads is out of date, as where events have the second of the day. One odd
# event in 16 costs four misses, by halving. For a server whose events change all the time it is not renewed for ever.
_MOST_MISSES, _MOST_HALVINGS, _MOST_RENEWALS = 8, 4, 16
# A decoder that refuses more events than these, and than a quarter of all, costs more than it saves.
_MOST_REFUSED = 16
# Tokens without a text: the end, and what a template puts around reasoning and response (ten in OpenAI's Harmony).
_MARKS = 16
# By this many tokens a response may be longer than requested: speculative decoding ends with a draft, of up to eight.
_OVERSHOOT = 8
# The longest token of the usual tokenizers: 128 spaces.
_LONGEST_TOKEN = 128
# Text has more bytes than this for each of its tokens, in nearly any language. Then a length can be believed.
_BYTES_PER_TOKEN = 2


class Learned:
    """How the responses of a server can be read fast, kept from one to the next: what their events have in common.

    Nothing in it is of one response alone, and whatever does not fit is parsed as if nothing had been learned.
    """

    __slots__ = ("form", "fruitless", "responses", "shortcuts", "typed")

    def __init__(self) -> None:
        self.form = Form()
        self.typed: Decode | None = None
        self.shortcuts: dict[bool, VaryingShortcut] = {}  # for visible text, and (true) for reasoning
        self.responses = self.fruitless = 0  # the latter in a row, in which no shortcut was found

    def tries(self) -> int:
        """How many events of the next response may be tried for a shortcut: where others had none, seldom any."""
        self.responses += 1
        return _MOST_TRIES if self.fruitless < _MOST_FRUITLESS or self.responses % _SELDOM == 0 else 0


class ResponseReader:
    """One response body: feed it the bytes that arrive, close it, then read its outcome and its figures.

    Times are ns of the caller's clock, `None` where the moment did not come. `event_ns` has the stamp of every
    token-bearing event; `merged_reads` counts the reads that brought several, `merged_events` those after their first.
    """

    __slots__ = (
        "_bad_ending",
        "_begin",
        "_counted_before",
        "_counted_bytes",
        "_decode",
        "_end",
        "_events_in_read",
        "_fault",
        "_form",
        "_format",
        "_forms",
        "_has_calls",
        "_has_deltas",
        "_has_reasoning",
        "_inner",
        "_is_marked",
        "_learned",
        "_learns",
        "_merged_usage",
        "_misses",
        "_new_decoder",
        "_parsed_bytes",
        "_read_chunk",
        "_read_ns",
        "_ready",
        "_refused",
        "_renewals",
        "_running",
        "_shortcut",
        "_signs",
        "_strange",
        "_stream",
        "_texts",
        "_tokens",
        "_tried",
        "_tries",
        "_typed",
        "_unread",
        "_whole",
        "bad_frames",
        "broken",
        "done_ns",
        "error",
        "event_ns",
        "finish_reason",
        "first_token_ns",
        "first_visible_ns",
        "merged_events",
        "merged_reads",
        "model",
        "timings",
        "unfinished",
    )

    def __init__(self, api: Api, *, keep_text: bool = False, learned: Learned | None = None) -> None:
        self._learned = Learned() if learned is None else learned
        self._format = format_of(api)
        self._stream = self._format.new_stream()
        self._read_chunk = self._format.new_reader()
        self._texts: list[str] | None = [] if keep_text else None
        self.done_ns: int | None = None
        self.first_token_ns: int | None = None
        self.first_visible_ns: int | None = None
        self.event_ns = array("q")
        self.merged_events = 0
        self.merged_reads = 0
        self.error: str | None = None
        self.finish_reason: str | None = None
        self.model: str | None = None
        self.timings: Timings | None = None  # the server's own, the last it reported
        self.bad_frames = 0  # not understood, and no sign of life
        self.unfinished = False  # the last event lacked its empty line
        self._merged_usage = Usage()
        self._running: Counts | None = None  # the newest usage of many, which replaces those before it
        self._tokens = _TokenCounts()
        self._shortcut: Shortcut | None = None
        self._ready: Shortcut | None = None  # the shortcut, if the next byte begins an event
        # Events that may still be tried for a shortcut, and the last of them.
        self._forms = _MOST_TRIES if self._format.uniform and not keep_text else 0  # events to learn their form from
        self._tries = self._learned.tries() if self._forms else 0
        self._tried = b""
        self._form = Form()  # of the events that the typed decoder reads
        self._typed: Decode | None = None
        self._decode: Decode | None = None  # the typed decoder, if the next byte begins an event
        self._begin, self._end = self._format.frame
        self._inner = self._format.inner
        self._learns = self._forms > 0  # it is learned from the next event
        self._new_decoder = None if keep_text else self._format.typed  # of formats with one decoder, until it is in use
        self._refused = 0  # events that the decoder did not read
        self._parsed_bytes = self._counted_bytes = 0  # of text: of the events that were parsed, and of the others
        self._misses = self._counted_before = 0  # reads in a row that did not fit the shortcut, `_counted_bytes` there
        self._renewals = 0  # shortcuts that did not fit any more
        self._has_reasoning = self._has_calls = self._has_deltas = False
        self._is_marked = False  # the visible text begins like a mark, as <think>, and may be reasoning
        self._fault = ""  # the first breach of the protocol
        self._unread = ""  # the first of what was not understood: what it is, in the server's words
        self._strange = b""  # the beginning of the first frame without choices
        self._bad_ending = ""  # the first finish_reason that is not known to be a good end
        self._signs = 0  # events that only keep the connection open
        self.broken = ""  # why nothing more of this body will be read
        self._whole = False
        self._read_ns: int | None = None  # stamp of the last read
        self._events_in_read = 0  # token-bearing events that it brought so far

    def accepts(self, content_type: bytes) -> bool:
        """Whether a body of this type, in lower case, is the expected stream; without a type it may be."""
        return not content_type or content_type.startswith(self._format.content_type)

    def recognises(self, start: bytes) -> bool | None:
        """Whether a body that begins like this is the expected stream, whatever its type says; `None`: too short."""
        return self._stream.recognises(start)

    def count_one(self, at_ns: int, chunk: bytes) -> bool:
        """Add the bytes of a read if they are one event like the ones before; `False`, and nothing done, if not."""
        if self._ready is None or at_ns == self._read_ns or self.broken:
            return False
        count, text_bytes = self._ready.count(chunk)
        if count != 1:
            return False
        self._read_ns, self._events_in_read = at_ns, 1
        self._counted_bytes += text_bytes
        self.event_ns.append(at_ns)
        return True

    def feed(self, at_ns: int, chunk: bytes) -> None:
        """Body bytes that arrived at `at_ns`."""
        if self.broken or not chunk:
            return
        if at_ns != self._read_ns:
            self._read_ns, self._events_in_read = at_ns, 0

        # Events with visible text and nothing else, like a first one that was parsed, are only counted.
        if self._ready is not None:
            count, text_bytes = self._ready.count(chunk)
            if count:
                self._counted_bytes += text_bytes
                if count == 1 and not self._events_in_read:  # nearly always
                    self.event_ns.append(at_ns)
                    self._events_in_read = 1
                else:
                    self.event_ns += array("q", (at_ns,)) * count
                    self._count_read(count)
                return
            self._misses = self._misses + 1 if self._counted_bytes == self._counted_before else 1
            self._counted_before = self._counted_bytes
            if self._misses == _MOST_MISSES:
                self._forget_shortcut(tries=_MOST_TRIES if self._renewals < _MOST_RENEWALS else 0)
                self._renewals += 1

        # Other events that are whole are read by the typed decoder, as far as it knows them; nearly always it is one.
        decode = self._decode
        if decode is not None and chunk[0] in _BEGIN_LABELS and self._begin == _LABELLED and (head := _labels(chunk)):
            chunk = chunk[head.end() :]
            if chunk.count(b"\n") > 2:  # it has further events
                chunk = _later_labels(_END, chunk)
            if self._ready is not None:
                self.feed(at_ns, chunk)
                return
        if decode is not None and chunk.startswith(self._begin) and chunk.endswith(self._end):
            data = chunk[self._inner]
            if _LF not in data and _CR not in data:
                if self._add_typed(decode, data, at_ns):
                    if self._events_in_read:
                        self._count_read(1)
                    else:
                        self._events_in_read = 1
                else:
                    self._parse(at_ns, chunk)
                return
        self._cut(at_ns, chunk)

    def _cut(self, at_ns: int, chunk: bytes) -> None:
        """Add bytes that are not just one event that the shortcut or the typed decoder reads."""
        if chunk.endswith(_CRLF_END) and (self._ready or self._decode):
            plain = chunk.replace(b"\r\n", b"\n")
            if _CR not in plain:
                self.feed(at_ns, plain)
                return

        # The last read of most responses has the reason of the end, the usage and [DONE]: each is for the parser.
        if chunk.endswith(_LAST) and chunk.count(_END) <= _MOST_LAST:
            self._parse(at_ns, chunk)
            return

        # Both read whole events: cut off what was begun before, and what is incomplete. Where one of several events has
        # another form than the shortcut, halve them: then the others are still counted.
        if self.done_ns is None and (self._shortcut or self._typed or self._forms) and len(chunk) > _TWO_EVENTS:
            end, length = -1, len(self._end)
            if self._ready is None and self._decode is None:
                # The first events show how to read the others. Where they do not, to look at each alone is a waste.
                for _ in range(_MOST_FIRST):
                    end = chunk.find(self._end)
                    if not 0 <= end < len(chunk) - length:
                        break
                    is_learned = self._parse(at_ns, chunk[: end + length])
                    chunk = chunk[end + length :]
                    if is_learned:
                        self.feed(at_ns, chunk)
                        return
                self._parse(at_ns, chunk)
                return
            if not chunk.endswith(self._end):
                end = chunk.rfind(self._end)
            elif self._ready and (self._decode is None or (self._counted_bytes and self._misses <= _MOST_HALVINGS)):
                end = chunk.find(_END, len(chunk) // 2, -length)
                end = end if end >= 0 else chunk.rfind(_END, 0, -length)
            if 0 <= end < len(chunk) - length:
                self.feed(at_ns, chunk[: end + length])
                self.feed(at_ns, chunk[end + length :])
                return

        decode = self._decode
        if decode is None:
            self._parse(at_ns, chunk)
            return
        begin, end_mark = self._begin, self._end
        events = chunk[self._inner].split(end_mark + begin)
        lines = (begin + end_mark).count(b"\n") * len(events)
        # With lines of other fields, or data in several lines, it is a stream like any other.
        is_whole = chunk.startswith(begin) and chunk.endswith(end_mark) and chunk.count(b"\n") == lines
        if not is_whole or _CR in chunk:
            self._parse(at_ns, chunk, decode)
            return
        read = 0
        for data in events:
            if decode is not None and self._add_typed(decode, data, at_ns):
                read += 1
            else:
                self._parse(at_ns, begin + data + end_mark)
                decode = self._decode
        self._count_read(read)

    def _add_typed(self, decode: Decode, data: bytes, at_ns: int) -> bool:
        """Add an event that has text and nothing but what the typed decoder knows; `False` if it must be parsed."""
        try:
            # The parser knows how deep the values are that the decoder passes over.
            if len(data) > MOST_LEVELS and (
                len(data) > _LONGEST_TYPED or data.count(b"[") + data.count(b"{") > MOST_LEVELS
            ):
                return False
            frame = decode(data)
        except (msgspec.DecodeError, ValueError, RecursionError):
            self._refused += 1
            self._learns = self._forms > 0
            if self._refused > _MOST_REFUSED + len(self.event_ns) // 4:
                self._typed = self._decode = None
            return False
        choice = frame.choices[0]
        if choice.finish_reason and ending_of(choice.finish_reason) is not Ending.NONE:
            return False
        part: Any = choice if choice.delta is None else choice.delta
        if part.__class__ is dict:
            if "error" in part:
                return False
            text, reasoning, tool = generated(part)
        else:
            text, reasoning, other = part.content or "", part.reasoning_content or "", part.reasoning
            if other and other != reasoning:  # under both names it counts once
                reasoning += other
            tool = part.tool if part.tool_calls else ""
        if not (text or reasoning or tool) or (text and self.first_visible_ns is None):
            return False
        tokens = None if choice.token_ids is None else len(choice.token_ids)
        if tokens is None and choice.logprobs is not None:
            tokens = choice.logprobs.count
        reported = self._take_counts(frame.usage) if frame.usage else None
        if reported == _TO_BE_PARSED:
            return False
        if self._tokens.are_open:
            self._tokens.add(tokens, reported, True)  # noqa: FBT003
        self.event_ns.append(at_ns)
        self._parsed_bytes += len(text) if text.isascii() else len(text.encode())
        if reasoning:
            self._has_reasoning = True
            self._parsed_bytes += len(reasoning) if reasoning.isascii() else len(reasoning.encode())
        elif tool:
            self._has_calls = True
        if self._tries:
            self._try(self._begin + data)
            self._ready = self._shortcut
        return True

    def _take_counts(self, counts: Counts | dict[str, Any]) -> int | None:
        """Add the usage of an event with text; returns the output tokens, or `_TO_BE_PARSED`."""
        if isinstance(counts, dict):
            usage = usage_in({"usage": counts})
        else:
            given, output = counts.prompt_tokens, counts.completion_tokens
            if not (given > 0 < output and given + output == counts.total_tokens <= MOST_TOKENS):  # as nearly always
                return _TO_BE_PARSED
            if counts.replaces(self._running):
                self._running = counts
                return output
            usage = counts.usage
        if usage is None:
            return _TO_BE_PARSED
        self._add_usage(usage)
        return usage.generated

    def _parse(self, at_ns: int, chunk: bytes, decode: Decode | None = None) -> bool:
        """Add the events that these bytes complete, each read by the parser, or by this decoder where it can; returns
        whether the next ones can be read faster."""
        try:
            events = self._stream.feed(chunk)
        except OversizeEvent as error:
            events = error.events
            self.broken = self._fault = self._fault or str(error)
        self._add_events(events, at_ns, decode)
        # Lines of Ollama have the model, which the parser reads from the first of them.
        if self._new_decoder and self.event_ns and (self.model is not None or not self._format.in_lines):
            self._typed, self._new_decoder = self._new_decoder(self._read_chunk), None
        between = self._stream.between and self.done_ns is None
        if self._forms and between and self.event_ns and self.model is not None and not self._renewals:
            # The first event with text has been parsed. It shows which of the earlier responses' events come now.
            # A tool call shows nothing, and tokens that are counted event by event must go on to be.
            reasons, known = self.first_visible_ns is None, None
            if self._tries and not self._tokens.are_open and (self._has_reasoning or not reasons):
                known = self._learned.shortcuts.get(reasons)
            if known is not None:
                self._shortcut, self._tries, self._tried = known, 0, b""
            if self._typed is None and self._learned.typed is not None:
                self._form, self._typed, self._learns = self._learned.form, self._learned.typed, False
        self._ready = self._shortcut if between else None
        self._decode = self._typed if between else None
        return self._ready is not None or self._decode is not None

    def close(self, at_ns: int) -> None:
        """The body ended at `at_ns`, or nothing more of it will be read.

        A last event without its empty line counts, with the stamp of its read. What was not understood may be an error
        in bare words, or a whole response in JSON.
        """
        event = None if self.broken else self._stream.close()
        if event is not None:
            self.unfinished = True
            try:
                if not is_error_event(event.event):
                    self._format.new_reader()(event.data)
            except BadChunk as problem:
                # It was cut in its middle, and is no frame, unless it is an error or the whole stream in one event.
                if _has_error(event.data) or _frames_in(event.data):
                    self._add_unread(event, problem)
            else:
                self._add_events([event], at_ns if self._read_ns is None else self._read_ns)

        text, lines = bytes(self._stream.unframed), self._stream.ignored
        if not text or self.error is not None:
            return
        is_bare = not self.event_ns and self.finish_reason is None and self.model is None
        if is_bare and text.lstrip().startswith((b"{", b"[")):
            fault, self._fault = self._fault, ""
            self.read_json(text, at_ns)
            if self._whole or self.error is not None:
                self.bad_frames, self._unread = 0, ""
                return
            self._fault = fault or self._fault
        elif lines and _has_error(text):
            self.error = error_text(text)
        if lines:
            page = page_text(text)
            self.bad_frames += lines
            what = (f"{page}: " if page else "") + f"bytes outside of any event: {quoted(text)}"
            self._unread = self._unread or what
            if any(name in text for name in _HOLDS_TEXT):
                self._fault = self._fault or what

    @property
    def is_in_large_event(self) -> bool:
        """Whether the last bytes were of an event that is unusually large."""
        return holds_much(self._stream)

    def release(self) -> None:
        """Free the bytes that were not used up, and what each event had; nothing of them is looked at after that."""
        self._stream, self._texts = self._format.new_stream(), None
        self.event_ns, self._tokens = array("q"), _TokenCounts()

    def read_json(self, body: bytes, at_ns: int) -> None:
        """A whole body, complete at `at_ns`, that is not an event stream: a JSON response, an error, or a fault."""
        chunk = None
        try:
            chunk = self._format.read_whole(body)
        except BadChunk as problem:
            if problem.is_beyond:
                self._fault = self._fault or f"a response that is {problem}"
                return
            if not body.strip():
                fault = "an empty body instead of an event stream"
            elif _frames_in(body):
                fault = f"JSON objects in lines instead of an event stream: {quoted(body)}"
            elif page_text(body) is not None:
                fault = f"{error_text(body)} instead of an event stream"
            else:
                fault = f"text ({error_text(body)}) instead of an event stream"
        else:
            fault = f"JSON that is no response of {self._format.path}: {error_text(body)}"
        if chunk is not None and (chunk.error is not None or chunk.choices):
            self._whole = True
            self._add_frame(chunk, at_ns)
        elif _has_error(body):
            self.error = self.error or error_text(body)
        else:
            self._fault = self._fault or fault

    def _add_events(self, events: list[Event], at_ns: int, decode: Decode | None = None) -> None:
        """Add the events that one read brought, and count the read."""
        before = len(self.event_ns)
        for event in events:
            if self.bad_frames > _MOST_BAD_FRAMES * (1 + len(self.event_ns)):
                self.broken = self._fault = self._fault or self._unread
                break
            if self.done_ns is not None:
                self._add_late(event)
                continue
            if decode is not None and event.event == "message" and self._add_typed(decode, event.data, at_ns):
                continue
            try:
                chunk = self._read_chunk(event.data)
            except BadChunk as problem:
                if event.data.strip(b' "[]').upper() != b"DONE":
                    self._add_unread(event, problem)
                    continue
                chunk = DONE
            if chunk.foreign or event.event != "message":
                if is_error_event(event.event):
                    chunk = chunk._replace(error=chunk.error or _error_words(event))
                elif chunk.foreign and chunk.error is None:
                    self._add_unread(event, None)
                    continue
            if not (chunk.choices or chunk.done or self._strange) and self._format.uniform:
                is_usage = chunk.usage is not None and b'"choices"' in event.data  # which are empty
                self._strange = b"" if is_usage else event.data[:_MORE_THAN_IS_QUOTED]
            if chunk is not DONE:
                self._add_frame(chunk, at_ns)
                if chunk.text and self._shortcut is not None and self._shortcut.of_reasoning:
                    self._forget_shortcut()  # the reasoning is over
                if (chunk.text or chunk.reasoning or chunk.tool) and len(event.data) <= _LONGEST_TRIED:
                    shortcut = self._shortcut
                    if self._tries:
                        self._try(b"data: " + event.data)
                    is_first = self._tries == _MOST_TRIES - 1
                    is_end = chunk.error or chunk.done or chunk.finish_reason or chunk.is_message
                    if self._learns and self._shortcut is shortcut and chunk.choices == 1 and not (is_first or is_end):
                        self._learn_form(event.data)
            if chunk.done:
                self.done_ns = at_ns
                # An end with text in the only event is a response that was not streamed.
                self._whole = self._whole or (bool(chunk.text) and len(self.event_ns) == 1)
        self._count_read(len(self.event_ns) - before)

    def _add_unread(self, event: Event, problem: BadChunk | None) -> None:
        """An event that is no part of a response: a sign of life, an error in words, or something unknown."""
        data = event.data
        is_beyond = problem is not None and problem.is_beyond  # nothing more is looked for in what is that large
        if is_error_event(event.event):
            self.error = self.error or _error_words(event)
        elif problem is not None and not is_beyond and (frames := _frames_in(data)):
            self.error = self.error or next(filter(None, (chunk.error for chunk in frames)), None)
            missing = f"no empty line between events, each of which must end with one: {len(frames)} came as one"
            self._fault = self._fault or f"{missing}, {quoted(data)}"
        elif is_keep_alive(event.event, data):
            self._signs += 1
        elif not is_beyond and _has_error(data):
            self.error = self.error or error_text(data)
        else:
            what = f"a frame that is {problem or f'no part of a response: {quoted(data)}'}"
            self.bad_frames += 1
            self._unread = self._unread or what
            if problem is not None and problem.loses_text:
                self._fault = self._fault or what
            if self._format.in_lines and len(self._stream.unframed) < USUAL_BLOCK:
                self._stream.unframed += data + b"\n"  # perhaps an object that stands on several lines

    def _add_late(self, event: Event) -> None:
        """An event after the end has no part in the text, but may have the usage, or say that the request failed."""
        try:
            chunk = self._read_chunk(event.data)
        except BadChunk:
            chunk = FOREIGN
        error = chunk.error
        if is_error_event(event.event):
            error = error or _error_words(event)
        elif chunk.foreign and is_keep_alive(event.event, event.data):
            self._signs += 1
        elif chunk.foreign and _has_error(event.data):
            error = _error_words(event)
        self._add_frame(Chunk(usage=chunk.usage, error=error, timings=chunk.timings), 0)

    def _try(self, event: bytes) -> None:
        """Learn a shortcut if this event is like the one before it."""
        self._shortcut = learn(event, self._tried, has_model=self.model is not None) if self._tried else None
        self._tries = self._tries - 1 if self._shortcut is None else 0
        self._tried = event if self._tries else b""
        if not self._tries:
            self._learned.fruitless = self._learned.fruitless + 1 if self._shortcut is None else 0
        if isinstance(self._shortcut, VaryingShortcut):
            self._learned.shortcuts[self._shortcut.of_reasoning] = self._shortcut

    def _learn_form(self, data: bytes) -> None:
        """Let the typed decoder read events like this one, which has text and no end, besides those that it reads."""
        form = form_of(data, self._form, has_model=self.model is not None)
        self._forms -= 1
        self._learns = form is None and self._forms > 0
        if form is not None:
            self._form, self._typed = form, decoder(form)
            if self.model is not None:  # else the model is among the values that must not change
                self._learned.form, self._learned.typed = self._form, self._typed

    def _forget_shortcut(self, tries: int = _MOST_TRIES) -> None:
        """Count what came by the shortcut as if it had been parsed, and let another one be learned."""
        self._parsed_bytes = self.text_bytes
        self._counted_bytes = self._counted_before = self._misses = 0
        self._ready = self._shortcut = None
        self._tries = tries

    def _count_read(self, events: int) -> None:
        """Count the read of these token-bearing events; what has the same stamp, in any number of parts, is one."""
        if events:
            self.merged_events += events - (self._events_in_read == 0)
            self.merged_reads += self._events_in_read < 2 <= self._events_in_read + events
            self._events_in_read += events

    def _add_frame(self, chunk: Chunk, at_ns: int) -> None:
        text, reasoning, tool, tokens, finish_reason, usage, error, model, _, _, timings, _, is_message = chunk
        if usage is not None:
            self._add_usage(usage)
        bears_token = bool(text or reasoning or tool)
        if is_message and self._has_deltas:  # at the end of some streams is the whole message (MiniMax, Perplexity)
            bears_token, tokens = False, None
        self._tokens.add(tokens, usage.generated if usage is not None else None, bears_token)
        if bears_token:
            self._has_deltas = not is_message
            self.event_ns.append(at_ns)
            shown = text + reasoning
            self._parsed_bytes += len(shown) if shown.isascii() else len(shown.encode("utf-8", "surrogatepass"))
            if reasoning:
                self._has_reasoning = True
            if tool:
                self._has_calls = True
            if self.first_token_ns is None:
                self.first_token_ns = at_ns
            if text and self.first_visible_ns is None:
                self.first_visible_ns = at_ns
                self._is_marked = text.lstrip()[:1] in "<[◁"
            if text and self._texts is not None:
                self._texts.append(text)
        if finish_reason is not None and (ending := ending_of(finish_reason)) is not Ending.NONE:
            self.finish_reason = clean(finish_reason)
            if ending in _NOT_GOOD:
                self._bad_ending = self._bad_ending or self.finish_reason
        if self.model is None and model is not None:
            self.model = clean(model)
        if self.error is None:
            self.error = error
        if timings is not None:
            self.timings = timings

    def _add_usage(self, usage: Usage) -> None:
        """Take the newer count, field by field: a missing field changes nothing, and a zero does not undo a count."""
        if usage != self._usage:
            fields = zip(self._merged_usage, usage, strict=True)
            self._merged_usage = Usage._make([new or (old if old is not None else new) for old, new in fields])

    @property
    def _usage(self) -> Usage:
        """The server's counts so far."""
        running, self._running = self._running, None
        if running is not None:
            self._add_usage(running.usage)
        return self._merged_usage

    # How it ended.

    def outcome(self) -> tuple[Outcome, str]:
        """How the response ended, and a detail for the sample; the transport's own failures are not known here.

        The detail of a success is what was not understood in it.
        """
        unread = self.unread
        if self.error is not None:
            return Outcome.STREAM_ERROR, self.error
        if self._fault:
            more = f" (and {self.bad_frames - 1} more)" if self.bad_frames > 1 else ""
            return Outcome.PROTOCOL, self._fault + more
        if self._bad_ending:
            if ending_of(self._bad_ending) is Ending.FAILED:
                return Outcome.STREAM_ERROR, f"the server ended it with finish_reason {self._bad_ending!r}"
            return Outcome.PROTOCOL, f"finish_reason {self._bad_ending!r} is not known to be a good end"
        if self.finish_reason is None and self.done_ns is None and not self._whole:
            if self._read_ns is None:
                return Outcome.TRUNCATED, "no bytes of a body came"
            where = "inside an event" if self.unfinished else f"after {len(self.event_ns)} events"
            cut = f"ended {where}, without finish_reason and [DONE]{self._without_choices}"
            if unread:
                return Outcome.PROTOCOL, f"{unread}; it {cut}"
            return Outcome.TRUNCATED, cut
        if not self.event_ns:
            if unread:
                return Outcome.PROTOCOL, f"{unread}; no token"
            counted = self._usage.generated
            what = f"no token with text of the {counted} that usage counts" if counted else "no token"
            return Outcome.EMPTY, f"{what}, and finish_reason {self.finish_reason!r}{self._without_choices}"
        return Outcome.OK, unread

    @property
    def _without_choices(self) -> str:
        """Of a response without a token, the first frame that had no choices: its text may be under another name."""
        is_quoted = self._strange and not self.event_ns
        return f"; a frame without choices came: {quoted(self._strange)}" if is_quoted else ""

    @property
    def unread(self) -> str:
        """The first of what was not understood, in the server's words, and how much more there was; "" if nothing."""
        return self._unread + (f" (and {self.bad_frames - 1} more)" if self.bad_frames > 1 else "")

    @property
    def keep_alives(self) -> int:
        """What came only to keep the connection open: comments, blocks and events without anything of a response."""
        return self._stream.keep_alives + self._signs

    # What it held.

    @property
    def text(self) -> str | None:
        """The visible text, if it was to be kept; the halves of a surrogate pair in two frames are joined."""
        if self._texts is None:
            return None
        return "".join(self._texts).encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")

    @property
    def is_whole(self) -> bool:
        """Whether it was one whole response, not a stream."""
        return self._whole

    @property
    def reads(self) -> int:
        """Reads that brought a token-bearing event."""
        return len(self.event_ns) - self.merged_events

    @property
    def last_token_ns(self) -> int | None:
        """When the last token-bearing event came."""
        return self.event_ns[-1] if self.event_ns else None

    @property
    def text_bytes(self) -> int:
        """The length of all text that was shown, without tool calls; escaped characters count as they were sent."""
        return self._parsed_bytes + self._counted_bytes

    @property
    def input_tokens(self) -> int | None:
        """Tokens of the prompt, by the server."""
        return self._usage.input

    @property
    def cached_tokens(self) -> int | None:
        """Tokens of the prompt that the server had in its cache."""
        return self._usage.cached

    @property
    def reasoning_tokens(self) -> int | None:
        """Output tokens that were reasoning, by the server."""
        return self._usage.reasoning

    def output_tokens(self) -> tuple[int | None, TokenSource]:
        """The tokens generated, and the source of the count. A usage of zero does not count if tokens came."""
        reported, events = self._usage.generated, len(self.event_ns)
        if reported or (reported == 0 and not events):
            return reported, TokenSource.USAGE
        by_ids = self._tokens.by_ids()
        if by_ids:
            return by_ids, TokenSource.IDS
        # A response that was not streamed is one event of many tokens.
        if events and not self._whole:
            return events, TokenSource.EVENTS
        return None, TokenSource.UNKNOWN

    def tokens_by_event(self) -> array[int] | None:
        """Tokens of each entry of `event_ns`, which add up to the output tokens; `None` where they are not known."""
        total, source = self.output_tokens()
        events = len(self.event_ns)
        if not events or total is None or source is TokenSource.EVENTS:
            return None
        if self._whole:
            return array("q", [total])
        for tokens in self._tokens.by_event(total):
            if sum(tokens) == total and min(tokens) >= 0:
                return tokens
        return array("q", [1]) * events if total == events else None

    def check_usage(self, limit: int | None) -> UsageCheck:
        """What the usage says against what the events showed; `limit` is how many output tokens were requested.

        Servers differ in whether the limit covers reasoning, so reasoning that is counted apart does not exceed it.
        """
        usage, events, text_bytes = self._usage, len(self.event_ns), self.text_bytes
        total, source = self.output_tokens()
        fault = clean(usage.fault or "")
        if source is not TokenSource.USAGE or total is None or not events:
            unknown = "" if usage.output is not None else clean(usage.unknown or "")
            return UsageCheck(fault=fault, unknown=unknown) if fault or unknown else PLAUSIBLE

        reasoning, by_ids = usage.reasoning or 0, self._tokens.by_ids()
        hidden: int | None = 0
        if by_ids:
            hidden = total - by_ids if total > by_ids + _MARKS else 0
            if by_ids > total + _MARKS:
                fault = fault or f"{total} tokens by usage, {by_ids} by their ids"
        elif reasoning and total > events and not (self._has_reasoning or self._is_marked):
            hidden = reasoning if reasoning < total else None
        elif total > text_bytes + _MARKS and not self._has_calls:  # the template's tokens of a call are not known
            hidden = None
        if self._whole:
            hidden = 0  # nothing was shown before the end

        if text_bytes > _LONGEST_TOKEN * total:
            fault = fault or f"{total} output tokens for {text_bytes} bytes of text"
        beyond = limit is not None and total - min(reasoning, total) > limit + _OVERSHOOT
        is_shown = limit is not None and (events > limit or text_bytes >= _BYTES_PER_TOKEN * total)
        if beyond and not is_shown:
            fault = fault or f"{total} output tokens in {events} events, of at most {limit} that were requested"
        check = UsageCheck(
            hidden=hidden,
            has_surplus=(usage.surplus or 0) > _MARKS,
            has_few=total < events,
            ignores_limit=beyond and is_shown,
            fault=fault,
        )
        return PLAUSIBLE if check == PLAUSIBLE else check


class _TokenCounts:
    """Running token counts at each token-bearing event, kept as long as every such event has them."""

    __slots__ = ("_id_total", "_ids", "_usages", "are_open")

    def __init__(self) -> None:
        self._ids: array[int] | None = array("q")
        self._id_total = 0
        self._usages: array[int] | None = array("q")
        self.are_open = True  # one of them is still kept

    def add(self, tokens: int | None, reported: int | None, bears_token: bool) -> None:  # noqa: FBT001 - of each event
        """One frame, with its tokens and what usage reports so far. The tokens of a frame without text, such as half a
        character, go to the next event."""
        if self._ids is not None:
            self._id_total += tokens or 0
            if bears_token:
                if tokens is None:
                    self._ids = None
                else:
                    self._ids.append(self._id_total)
        if self._usages is not None and bears_token:
            # A usage that does not grow with new text is no running count, only a placeholder.
            if reported is None or reported <= (self._usages[-1] if self._usages else 0):
                self._usages = None
            else:
                self._usages.append(reported)
        self.are_open = self._ids is not None or self._usages is not None

    def by_ids(self) -> int | None:
        """All tokens by their ids, if every event had them."""
        return self._id_total if self._ids is not None else None

    def by_event(self, total: int) -> list[array[int]]:
        """Each count as tokens per event, best first. Tokens after the last event (an end token) are added to it."""
        counts = [(self._ids, self._id_total), (self._usages, total)]
        return [
            array("q", (later - earlier for earlier, later in pairwise((0, *running[:-1], at_end))))
            for running, at_end in counts
            if running
        ]


def _has_error(data: bytes) -> bool:
    """Whether bytes that are no part of a response read like an error. Of a page only the title counts."""
    page = page_text(data)
    return reads_like_error(data if page is None else page.encode())


def _error_words(event: Event) -> str:
    """The words of an event that reports an error."""
    return error_text(event.data) if event.data.strip() else f"an event {event.event!r} without data"


def _frames_in(data: bytes) -> list[Chunk]:
    """The frames in several lines that came as one event, because there was no empty line between them."""
    chunks = []
    if b"\n" in data.strip():
        for line in data.splitlines():
            with suppress(BadChunk):
                if line.strip().startswith((b"{", b"[DONE]")):
                    chunks.append(read_chunk(line))
    return chunks
