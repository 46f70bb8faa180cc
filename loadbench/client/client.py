"""The client: one request in, one sample out.

It raises for nothing that a server does: every way in which a request can end is an outcome of its sample. Stamps come
from the transport, which takes them at the read; the bytes are parsed after that. Each request has one deadline that
moves with its progress: to connect, then for the first token, then from read to read, and always the limit on the
whole request. The patience of a user who may give up is one more limit; that user disconnects, as a browser does.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING

import orjson

from loadbench.client.deadline import Deadline
from loadbench.client.transport import HttpRequest, TransportError
from loadbench.core.secrets import SHORTEST_SECRET, Secrets, secrets_in, secrets_of
from loadbench.core.units import format_duration
from loadbench.plan.load import Phase
from loadbench.plan.prompts import Prompt
from loadbench.plan.server_url import redirect_target
from loadbench.plan.settings import LimitSettings
from loadbench.record.outcome import Outcome
from loadbench.record.request import ONLY_DESTINATION, Destination, Request
from loadbench.record.sample import Sample
from loadbench.wire.body import NO_CHANGES, BodyChanges, limit_in, request_body
from loadbench.wire.formats import address
from loadbench.wire.openai import Api, clean, error_text, quoted
from loadbench.wire.response_reader import Learned, ResponseReader
from loadbench.wire.sse import LARGEST_BLOCK, OversizeEvent, hold

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from loadbench.client.transport import Header, MergedSegments, Transport
    from loadbench.core.clock import Clock
    from loadbench.plan.conversation import Message

# An error's body is read for its message; the rest is dropped.
_MOST_ERROR_BYTES = 64 * 1024
# What no first bytes have decided is no stream: more than a byte order mark and some empty lines.
_MOST_UNDECIDED_BYTES = 4 * 1024
# A response may be longer than requested: some servers take no limit, or do not count reasoning. One with this many
# times the tokens, or of any request this many events, ends only when the context is full, if ever. An event of one
# token has some 200 bytes, with the probabilities of its alternatives 1 KiB or more.
_MOST_TIMES, _ENDLESS_EVENTS, _ENDLESS_EVENT_BYTES = 16, 65_536, 1024
# Of one without end so many marks are kept.
_KEPT_OF_ENDLESS = 1024
# Looking so often costs nothing, and lets the fewest bytes through that so many events can have.
_LOOK_EVERY_BYTES = 1024 * 1024
# More than the longest event without one token: signs of life have some kilobytes in an hour.
_MOST_FRUITLESS_LOOKS = LARGEST_BLOCK // _LOOK_EVERY_BYTES + 2
# Segments before the first event with text, at most: the response's head, and an event with a role alone. Such an event
# has a line that begins like this.
_BEFORE_TEXT, _LINE = 2, b"data:"
# Events pile up before a read that is this late.
_LATE_READ_NS = 1_000_000
# Beyond so many requests in flight the tokens of some stand for all: the mean of so many is known to 2 %.
_MOST_COUNTED = 1024
# After [DONE] the response is complete: wait this long for the body's formal end, so that the connection can be kept.
# What comes until then is still read: some servers send the usage, or an error, after it.
_CLOSE_GRACE_NS = 20_000_000

# The fields of a sample that have a server's words.
_SERVER_WORDS = ("detail", "finish_reason", "model", "content_type", "text")

# Of the bodies, which mostly have the same ones.
_secrets = lru_cache(maxsize=16)(Secrets)

_Wait = tuple[Outcome, str, int | None]  # how the request ends if it expires, what did not arrive, within how many ns
_NEVER_NS = 1 << 62
_NO_END: _Wait = (Outcome.TIMEOUT_IDLE, "no end after [DONE]", _CLOSE_GRACE_NS)

_LIMITS = LimitSettings()


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """How long to wait, in ns; `None`: without a limit."""

    connect_ns: int | None = _LIMITS.connect_timeout
    first_token_ns: int | None = _LIMITS.first_token_timeout
    idle_ns: int | None = _LIMITS.idle_timeout
    total_ns: int | None = _LIMITS.timeout


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Where requests go and what they have in common; `base_url` includes the version, as in `http://host/v1`.

    A `route` that was given in full is their URL instead; each has the `query`. `secrets` are texts that must not be
    kept, besides those in headers and bodies. `model_note` is what the server's list of models says against the model.
    """

    base_url: str
    model: str
    route: str = ""
    query: str = field(default="", repr=False)
    secrets: tuple[str, ...] = field(default=(), repr=False)
    model_note: str = field(default="", compare=False)
    api: Api = Api.CHAT
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    temperature: float | None = None
    seed: int | None = None
    system: str | None = None  # a message before all others
    changes: BodyChanges = NO_CHANGES

    def http_request(self, body: bytes) -> HttpRequest:
        """The request with this body, as it goes over the wire."""
        headers = (("content-type", "application/json"), *self.headers)
        url = address(self.api, self.base_url, route=self.route, query=self.query)
        return HttpRequest("POST", url, headers, body)

    def body(
        self,
        messages: Sequence[Message],
        max_tokens: int,
        *,
        fields: Mapping[str, object] | None = None,
        extra: Mapping[str, object] | None = None,
    ) -> bytes:
        """The body of a request with these messages, the newest last, with its own `fields` and what is merged in.

        Messages that begin with a system message of their own get no other.
        """
        if self.system is not None and messages[0].get("role") not in ("system", "developer"):
            messages = ({"role": "system", "content": self.system}, *messages)
        return request_body(
            self.api,
            model=self.model,
            messages=messages,
            max_tokens=max_tokens,
            temperature=self.temperature,
            seed=self.seed,
            changes=self.changes,
            fields=fields,
            extra=extra,
        )


class Client:
    """Sends requests to an endpoint over one transport, many at once. For several models or servers in one level there
    are `others`: a request's destination says which endpoint it goes to."""

    def __init__(
        self,
        endpoint: Endpoint,
        transport: Transport,
        *,
        clock: Clock,
        timeouts: Timeouts,
        others: Sequence[Endpoint] = (),
    ) -> None:
        self._endpoints = (endpoint, *others)
        self._learned = [Learned() for _ in self._endpoints]
        models, servers = ({getattr(one, name) for one in self._endpoints} for name in ("model", "base_url"))
        self.destinations = tuple(
            Destination(index, one.model if len(models) > 1 else None, one.base_url if len(servers) > 1 else None)
            for index, one in enumerate(self._endpoints)
        )
        self._transport = transport
        self._clock = clock
        self._timeouts = timeouts
        self._secrets = Secrets(
            secret
            for one in self._endpoints
            for secret in (*one.secrets, *secrets_of(one.headers), *secrets_in(one.changes.extra))
        )
        self._calls: set[_Call] = set()

    @property
    def endpoint(self) -> Endpoint:
        """Where its requests go, or the first of several."""
        return self._endpoints[0]

    def body_of(
        self,
        prompt: str | Prompt,
        max_tokens: int,
        destination: Destination = ONLY_DESTINATION,
        *,
        history: Sequence[Message] = (),
    ) -> bytes:
        """The body of a request with this prompt after its history, made before it is due: `Endpoint.body`."""
        prompt = Prompt(prompt) if isinstance(prompt, str) else prompt
        endpoint = self._endpoints[destination.endpoint]
        return endpoint.body((*history, *prompt.sent), max_tokens, fields=prompt.fields, extra=prompt.extra)

    async def send(self, request: Request, body: bytes) -> Sample:
        """Send a request that is due, and return its sample, however it ends."""
        endpoint = self._endpoints[request.destination.endpoint]
        learned = self._learned[request.destination.endpoint]
        reader = ResponseReader(endpoint.api, keep_text=request.keep_text, learned=learned)
        call = _Call(reader, request, clock=self._clock, timeouts=self._timeouts)
        self._calls.add(call)
        try:
            outcome, detail = await call.run(self._transport, endpoint.http_request(body))
        finally:
            self._calls.discard(call)
        sample = call.sample(request, outcome, detail)
        usage = sample.usage
        if usage.fault or usage.ignores_limit:
            # The body may have another limit than the one it was made for.
            usage = call.reader.check_usage(limit_in(body))
            sample = replace(sample, usage=usage)
        call.release()

        # The server may repeat what it was sent, anywhere, and all that it says is kept.
        said = {name: text for name in _SERVER_WORDS if (text := getattr(sample, name))}
        if said.get("model") == endpoint.model:
            del said["model"]
        if usage.fault or usage.unknown:
            said |= {"fault": usage.fault, "unknown": usage.unknown}
        secrets, kept = [self._secrets], said
        is_new = any(len(text) >= SHORTEST_SECRET and text not in self._secrets.seen for text in said.values())
        if is_new and (own := [*secrets_in(orjson.loads(body))]):
            secrets.append(_secrets(tuple(own)))
        for one in secrets:
            kept = {name: one.hide(text) for name, text in kept.items()}
        if kept != said:
            self._secrets.seen.difference_update(said.values())  # one of this request may be that of another too
            usage = usage._replace(fault=kept.pop("fault", ""), unknown=kept.pop("unknown", ""))
            sample = replace(sample, usage=usage, **kept)
        return sample

    async def send_prompt(
        self,
        prompt: str | Prompt,
        *,
        max_tokens: int,
        phase: Phase = Phase.WARM_UP,
        keep_text: bool = False,
        destination: Destination = ONLY_DESTINATION,
    ) -> Sample:
        """Send a request that belongs to no level, due now, and return its sample, however it ends."""
        body = self.body_of(prompt, max_tokens, destination)
        now_ns = self._clock.now_ns()
        request = Request(
            number=0, phase=phase, due_ns=now_ns, max_tokens=max_tokens, destination=destination, keep_text=keep_text
        )
        return await self.send(request, body)

    def cut(self, reason: Outcome) -> None:
        """End every request in flight, as `ABANDONED` or `CANCELLED`."""
        for call in tuple(self._calls):
            call.cut(reason)

    @property
    def tokens_seen(self) -> int:
        """Token-bearing events of the requests in flight, for the progress line. Of very many requests some are counted
        for all: which ones a set begins with does not depend on how far they are."""
        if len(self._calls) <= _MOST_COUNTED:
            return sum(len(call.reader.event_ns) for call in self._calls)
        counted = sum(len(call.reader.event_ns) for call in islice(self._calls, _MOST_COUNTED))
        return round(counted * len(self._calls) / _MOST_COUNTED)


class _Call:
    """One request in flight: the transport's sink, with the request's deadline."""

    __slots__ = (
        "__weakref__",
        "_began_ns",
        "_body",
        "_cancelled",
        "_clock",
        "_coding",
        "_deadline",
        "_ends_as",
        "_exchange",
        "_fruitless",
        "_idle",
        "_idle_ns",
        "_last_read_ns",
        "_late",
        "_latest",
        "_latest_ns",
        "_location",
        "_look_at_bytes",
        "_merged",
        "_merged_segments",
        "_patience",
        "_received_bytes",
        "_retry_after",
        "_seen_events",
        "_segments",
        "_steady_until_ns",
        "_streams",
        "_task",
        "_timeouts",
        "_type",
        "censored",
        "connect_ns",
        "connected_ns",
        "end_ns",
        "first_byte_ns",
        "headers_ns",
        "late_first_token",
        "reader",
        "reconnects",
        "reused",
        "sent_ns",
        "separate",
        "status",
    )

    def __init__(self, reader: ResponseReader, request: Request, *, clock: Clock, timeouts: Timeouts) -> None:
        self.reader = reader
        self._clock = clock
        self._timeouts = timeouts
        self._task: asyncio.Task[object] | None = None
        self._cancelled = False
        self._began_ns = clock.now_ns()
        self._ends_as: tuple[Outcome, str] | None = None
        self._deadline = Deadline(clock, self._expired)
        self._idle: _Wait = (Outcome.TIMEOUT_IDLE, "nothing more came", timeouts.idle_ns)
        # Between two reads. Where that is what ends the request, a read before the second moment moves nothing else.
        self._idle_ns, self._steady_until_ns = timeouts.idle_ns or 0, 0
        self._late: _Wait = (Outcome.TIMEOUT_TOTAL, "", None)
        self._latest: _Wait
        self._latest_ns: int | None
        self._latest, self._latest_ns = self._total_limit()
        # The user's patience for the first token and when it ends. One for the whole response is a limit like another.
        self._patience: tuple[_Wait, int] | None = None
        if request.patience is not None:
            within_ns, ends_ns = request.patience.within_ns, request.due_ns + request.patience.within_ns
            if request.patience.first_token:
                self._patience = (Outcome.GAVE_UP, "no token", within_ns), ends_ns
            elif self._latest_ns is None or ends_ns < self._latest_ns:
                self._latest, self._latest_ns = (Outcome.GAVE_UP, "no complete response", within_ns), ends_ns
        self.sent_ns: int | None = None
        self.connected_ns: int | None = None
        self.headers_ns: int | None = None
        self.connect_ns: int | None = None
        self.first_byte_ns: int | None = None
        self.end_ns = self._began_ns
        self.reused: bool | None = None
        self.status: int | None = None
        self.reconnects = 0
        self.censored = self.separate = self._merged = 0
        self.late_first_token = False
        self._merged_segments: MergedSegments = None
        self._segments = 0  # that were merged up to the last read with several events
        self._last_read_ns: int | None = None
        self._streams: bool | None = False  # None: not known yet
        self._type = b""
        self._coding = b"identity"
        self._location = self._retry_after = ""
        self._body = bytearray()
        self._exchange: HttpRequest | None = None
        self._received_bytes, self._look_at_bytes = 0, _LOOK_EVERY_BYTES
        self._seen_events = self._fruitless = 0  # events at the last look; looks since there was a new one

    async def run(self, transport: Transport, exchange: HttpRequest) -> tuple[Outcome, str]:
        """Carry the request out; returns how it ended, with the detail for people."""
        self._task, self._exchange = asyncio.current_task(), exchange
        self._expect_first((Outcome.TIMEOUT_CONNECT, "no connection", self._timeouts.connect_ns), self._began_ns)
        broke: tuple[Outcome, str] | None = None
        try:
            await transport.exchange(exchange, self)
        except TransportError as error:
            broke = (error.outcome, error.detail)
            # Its frames have what was read last, and would keep it until garbage is collected.
            error.__traceback__ = error.__context__ = None
        except asyncio.CancelledError:
            # Only a cancellation of our own, and of nobody else, ends with the request.
            if not (self._cancelled and self._task is not None and self._task.uncancel() == 0):
                raise
            outcome, missing, within_ns = self._late
            broke = self._ends_as or (outcome, f"{missing} within {format_duration(within_ns or 0)}")
        finally:
            self._deadline.clear()
            self._task = None

        # It ended with [DONE], else with the last bytes; when it broke off is known only now.
        if self.reader.done_ns is not None:
            self.end_ns = self.reader.done_ns
        elif broke is not None or self._last_read_ns is None:
            self.end_ns = self._clock.now_ns()
        else:
            self.end_ns = self._last_read_ns
        return self._outcome(broke)

    def _total_limit(self) -> tuple[_Wait, int | None]:
        total_ns = self._timeouts.total_ns
        ends_ns = None if total_ns is None else self._began_ns + total_ns
        return (Outcome.TIMEOUT_TOTAL, "not finished", total_ns), ends_ns

    def _expired(self) -> None:
        """The deadline has passed. A user who has the whole text stays, though the response has not formally ended."""
        if self._late[0] is Outcome.GAVE_UP and self.reader.finish_reason is not None:
            self._latest, self._latest_ns = self._total_limit()
            self._expect(self._idle, self._clock.now_ns())
        else:
            self._cancel()

    def _cancel(self) -> None:
        """Cancel the request, once. A cancel scope of anyio would do it too, but costs a tenth of a short request."""
        if self._task is not None and not self._cancelled:
            self._cancelled = True
            self._task.cancel()

    def _outcome(self, broke: tuple[Outcome, str] | None) -> tuple[Outcome, str]:
        """How the request ended; a response that was complete before anything broke counts as complete."""
        reader = self.reader
        if self.status is not None and self.status != 200:
            if 300 <= self.status < 400:
                to = redirect_target(self._exchange.url if self._exchange else "", self._location)
                return Outcome.HTTP_ERROR, f"HTTP {self.status}: redirects to {to}"
            wait = f" (Retry-After: {self._retry_after})" if self._retry_after else ""
            return Outcome.HTTP_ERROR, f"HTTP {self.status}: {error_text(bytes(self._body))}{wait}"
        if self._streams:
            reader.close(self.end_ns)
        if broke is not None and reader.error is None:
            finished = reader.finish_reason is not None
            # [DONE] alone is not enough if the connection broke right then; a finish_reason is, if it was closed.
            if reader.done_ns is None:
                is_complete = finished and broke[0] is Outcome.TRUNCATED
            else:
                is_complete = finished or broke[0] not in {Outcome.TRUNCATED, Outcome.RESET}
            if not is_complete:
                words = reader.unread or (self._body and f"the body was {quoted(bytes(self._body))}")
                return broke[0], f"{broke[1]}; {words}" if words else broke[1]
        if self.status == 200 and self._coding != b"identity":
            # What a compressor held back could not be stamped.
            return Outcome.PROTOCOL, f"a body in {clean(self._coding.decode('latin-1'))}, though identity was requested"
        if self.sent_ns is None or (reader.first_token_ns or self.sent_ns) < self.sent_ns:
            # It ended, or had a token, before the server can have known the prompt. A head that early is no fault.
            return Outcome.PROTOCOL, "a response before the whole request was sent"
        if self.status == 200 and not self._streams:
            # No event stream: a whole response in JSON, or something else.
            reader.read_json(bytes(self._body), self.end_ns)
        return reader.outcome()

    def release(self) -> None:
        """Free what was received: the exception of a response that broke refers to this until garbage is collected."""
        self._body = bytearray()
        self.reader.release()

    def cut(self, reason: Outcome) -> None:
        """End the request now, unless it has ended."""
        if self._cancelled:
            return  # it is ending by its own deadline
        self._ends_as = (reason, "cut at the end of the drain" if reason is Outcome.ABANDONED else "cut before its end")
        self._cancel()

    # `loadbench.client.transport.Sink`: what the transport reports, in order.

    def reconnecting(self) -> None:
        """The kept connection was closed; a new one is opened."""
        self.reconnects += 1
        self._expect_first((Outcome.TIMEOUT_CONNECT, "no connection", self._timeouts.connect_ns), self._clock.now_ns())

    def connected(
        self, at_ns: int, *, reused: bool, connect_ns: int | None, merged_segments: MergedSegments = None
    ) -> None:
        """The connection is ready."""
        self.connected_ns, self.reused, self.connect_ns = at_ns, reused, connect_ns
        self._merged_segments = merged_segments
        self._segments = (merged_segments() or 0) if merged_segments is not None else 0
        self._expect_first((Outcome.TIMEOUT_FIRST_TOKEN, "no token", self._timeouts.first_token_ns), at_ns)

    def sent(self, at_ns: int) -> None:
        """The whole request is in the socket."""
        self.sent_ns = at_ns

    def headers(self, at_ns: int, status: int, headers: Sequence[Header]) -> None:
        """Note the status, and whether the body is a stream: by its content type, else its first bytes decide."""
        self.headers_ns, self.status = at_ns, status
        values = {name.lower(): value.lower() for name, value in headers}
        self._coding = values.get(b"content-encoding") or b"identity"
        is_plain = self._coding == b"identity"
        self._type = values.get(b"content-type", b"")
        if status != 200:
            texts = {name.lower(): clean(value.decode("latin-1")) for name, value in headers}
            self._location, self._retry_after = texts.get(b"location", ""), texts.get(b"retry-after", "")
        if status == 200 and is_plain:
            self._streams = True if self.reader.accepts(self._type) else None

    def data(self, at_ns: int, chunk: bytes) -> None:
        """Parse body bytes, which have been stamped."""
        self._last_read_ns = at_ns
        if at_ns < self._steady_until_ns and self.reader.count_one(at_ns, chunk):  # nearly always
            self._received_bytes += len(chunk)
            self._deadline.when_ns = at_ns + self._idle_ns
            if self._received_bytes > self._look_at_bytes:
                self._look_at_bytes += _LOOK_EVERY_BYTES
                self._refuse_endless()
            return
        if self.first_byte_ns is None:
            self.first_byte_ns = at_ns
        self._received_bytes += len(chunk)
        if self._received_bytes > self._look_at_bytes:
            self._look_at_bytes += _LOOK_EVERY_BYTES
            self._refuse_endless()
        if self._streams is None:
            # No event can be complete before it is known what this is, so none gets a later stamp than its own.
            chunk = bytes(self._body) + chunk
            self._body.clear()
            self._streams = self.reader.recognises(chunk)
            if self._streams is None and len(chunk) > _MOST_UNDECIDED_BYTES:
                self._streams = False
        if not self._streams:
            if self.status == 200 and len(self._body) > LARGEST_BLOCK:
                what = f"more than {LARGEST_BLOCK // 2**20} MiB that are no event stream"
                raise TransportError(Outcome.PROTOCOL, what)
            try:
                hold(self, len(self._body))
            except OversizeEvent as error:
                raise TransportError(Outcome.PROTOCOL, str(error)) from None
            if len(self._body) < _MOST_ERROR_BYTES or self.status == 200:
                self._body += chunk
            return
        reader, is_first = self.reader, self.reader.first_token_ns is None
        reader.feed(at_ns, chunk)
        if reader.broken:
            raise TransportError(Outcome.PROTOCOL, reader.broken)
        if is_first and reader.first_token_ns is not None:
            # What has no stamp may have come in segments of its own: the head, where it was read together with the
            # first of the body, and an event without text in this read. Of what was read alone nothing is merged.
            quiet = max(0, chunk.count(_LINE) - len(reader.event_ns))
            self._segments += min(_BEFORE_TEXT, (self.headers_ns == self.first_byte_ns) + quiet)
        merged = reader.merged_events
        if merged > self._merged:
            # An event is late only if it came in a segment of its own: those of one segment were sent together.
            came = merged - self._merged
            segments = None if self._merged_segments is None else self._merged_segments()
            if segments is not None:
                came = max(0, min(came, segments - self._segments))
                self._segments = max(self._segments, segments)
            self.separate += came
            if self._clock.now_ns() - at_ns > _LATE_READ_NS:
                self.censored += came
                self.late_first_token |= came > 0 and reader.event_ns[0] == at_ns
            self._merged = merged
        self._steady_until_ns = 0
        if reader.done_ns is not None:
            self._expect(_NO_END, reader.done_ns)
        elif reader.first_token_ns is not None:
            self._expect(self._idle, at_ns)
            if self._late is self._idle:
                # The next reads only move the deadline, whose timer follows it, until the limit of the whole is nearer.
                latest_ns = self._latest_ns
                self._steady_until_ns = _NEVER_NS if latest_ns is None else latest_ns - self._idle_ns

    def _refuse_endless(self) -> None:
        """Raise `TransportError` if a body is far longer than what was requested, so that it may never end."""
        if self.status != 200:
            raise TransportError(Outcome.HTTP_ERROR, "")  # its beginning has been kept
        limit = limit_in(self._exchange.body) if self._exchange is not None else None
        most = max(_MOST_TIMES * (_ENDLESS_EVENTS if limit is None else limit), _ENDLESS_EVENTS)
        events, asked = len(self.reader.event_ns), "" if limit is None else f", of {limit:,} tokens requested"
        if events > self._seen_events:
            self._fruitless = 0
        elif not self.reader.is_in_large_event:  # the Responses API repeats all at the end, up to four times
            self._fruitless += 1
        self._seen_events = events
        if self._fruitless >= _MOST_FRUITLESS_LOOKS:
            raise TransportError(Outcome.ENDLESS, f"no token in the last {self._fruitless} MiB{asked}")
        if events > most:
            raise TransportError(Outcome.ENDLESS, f"no end after {events:,} events{asked}")
        if self._received_bytes > most * _ENDLESS_EVENT_BYTES:
            raise TransportError(Outcome.ENDLESS, f"no end after {self._received_bytes >> 20:,} MiB{asked}")

    def _expect(self, wait: _Wait, since_ns: int) -> None:
        """Move the deadline: if nothing more arrives by then, the request ends as `wait` says."""
        within_ns = wait[2]
        step_ns = None if within_ns is None else since_ns + within_ns
        latest_ns = self._latest_ns
        if step_ns is not None and (latest_ns is None or step_ns < latest_ns):
            self._late = wait
            self._deadline.move(step_ns)
        else:
            self._late = self._latest
            self._deadline.move(latest_ns)

    def _expect_first(self, wait: _Wait, since_ns: int) -> None:
        """Move the deadline of a request without a token yet; the patience for its first token may end earlier."""
        self._expect(wait, since_ns)
        if self._patience is not None:
            patience, ends_ns = self._patience
            if self._deadline.when_ns is None or ends_ns < self._deadline.when_ns:
                self._late = patience
                self._deadline.move(ends_ns)

    def sample(self, request: Request, outcome: Outcome, detail: str) -> Sample:
        """All that is known about the request."""
        reader = self.reader
        output_tokens, source = reader.output_tokens()
        is_ended, content_type = outcome is not Outcome.ENDLESS, None
        says_stream = bool(self._type) and reader.accepts(self._type)
        if self._streams and says_stream == reader.is_whole:
            came = "a response that was not streamed" if reader.is_whole else "a stream"
            name = f"Content-Type {clean(self._type.decode('latin-1'))}" if self._type else "no Content-Type"
            content_type = f"{name} for {came}"
        return Sample(
            request=request,
            outcome=outcome,
            detail=detail,
            sent_ns=self.sent_ns,
            connected_ns=self.connected_ns,
            headers_ns=self.headers_ns,
            first_byte_ns=self.first_byte_ns,
            first_token_ns=reader.first_token_ns,
            first_visible_ns=reader.first_visible_ns,
            last_token_ns=reader.last_token_ns,
            end_ns=self.end_ns,
            status=self.status,
            reused=self.reused,
            connect_ns=self.connect_ns,
            reconnects=self.reconnects,
            event_ns=reader.event_ns if is_ended else reader.event_ns[:_KEPT_OF_ENDLESS],
            event_tokens=reader.tokens_by_event() if is_ended else None,
            reads=reader.reads,
            merged_reads=reader.merged_reads,
            censored_events=self.censored,
            late_first_token=self.late_first_token,
            separate_events=self.separate,
            output_tokens=output_tokens,
            token_source=source,
            input_tokens=reader.input_tokens,
            cached_tokens=reader.cached_tokens,
            reasoning_tokens=reader.reasoning_tokens,
            unread_frames=reader.bad_frames,
            keep_alives=reader.keep_alives,
            content_type=content_type,
            finish_reason=reader.finish_reason,
            model=reader.model,
            timings=reader.timings,
            text=reader.text,
            usage=reader.check_usage(request.max_tokens),
        )
