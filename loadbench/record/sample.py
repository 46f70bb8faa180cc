"""One request and how it went: frozen, in nanoseconds. Derived figures are its methods.

A mark is when bytes arrived or left, on the run's one clock; a mark that did not happen is `None`, never 0.
The definitions of the figures are those of docs/metrics.md; each is computed here and nowhere else.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from loadbench.record.outcome import Outcome, TokenSource
from loadbench.record.usage_check import PLAUSIBLE, UsageCheck

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from loadbench.plan.load import Phase
    from loadbench.record.request import Request
    from loadbench.record.timings import Timings

_SINGLE = array("q", (1,))
_MARKS = (
    *("sent_ns", "connected_ns", "headers_ns", "first_byte_ns"),
    *("first_token_ns", "first_visible_ns", "last_token_ns", "end_ns"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """How one request went: its marks, its outcome and its tokens."""

    request: Request
    outcome: Outcome
    detail: str = ""  # for people: what the server said, or what broke; of a success what was not understood in it

    sent_ns: int | None = None
    connected_ns: int | None = None
    headers_ns: int | None = None
    first_byte_ns: int | None = None
    first_token_ns: int | None = None
    first_visible_ns: int | None = None
    last_token_ns: int | None = None
    end_ns: int

    status: int | None = None
    reused: bool | None = None  # whether the connection had carried a request before
    connect_ns: int | None = None  # dns + tcp + tls of a new connection
    reconnects: int = 0  # stale keep-alive connections found dead before any byte was sent or received

    # One entry per token-bearing event: when it came, and how many tokens it held (None: not known).
    event_ns: array[int] = field(default_factory=lambda: array("q"))
    event_tokens: array[int] | None = None
    reads: int = 0  # body reads that brought a token-bearing event
    merged_reads: int = 0  # reads that brought more than one
    separate_events: int = 0  # read together with a later one, though the server sent them apart
    censored_events: int = 0  # of these, those that were read late, and so have a later event's stamp
    late_first_token: bool = False  # the first event is one of them

    output_tokens: int | None = None
    token_source: TokenSource = TokenSource.UNKNOWN
    input_tokens: int | None = None
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None
    unread_frames: int = 0  # frames and lines that were not understood
    keep_alives: int = 0  # comments, empty events and others that only keep the connection open
    content_type: str | None = None  # the Content-Type, if it is not that of what came, and what came
    finish_reason: str | None = None
    model: str | None = None  # the name in the response
    timings: Timings | None = None  # times that the server reports itself
    text: str | None = None  # the response text that is visible, of a request with `keep_text`
    usage: UsageCheck = PLAUSIBLE  # what the server's count says against its events

    @property
    def number(self) -> int:
        """Position among the requests of its level, from 0."""
        return self.request.number

    @property
    def phase(self) -> Phase:
        """The phase in which it became due."""
        return self.request.phase

    @property
    def due_ns(self) -> int:
        """When it was due."""
        return self.request.due_ns

    def earlier_by(self, ns: int) -> Sample:
        """The same in the time of a clock that is behind by so much: every mark moves, and no duration changes."""
        marks = {name: getattr(self, name) for name in _MARKS}
        return replace(
            self,
            request=self.request.earlier_by(ns),
            event_ns=array("q", [at_ns - ns for at_ns in self.event_ns]),
            **{name: mark_ns - ns for name, mark_ns in marks.items() if mark_ns is not None},
        )

    def since_sent(self, mark_ns: int | None) -> int | None:
        """Nanoseconds from `sent` to a mark: service time; `None` for a mark before that, as of an early head."""
        return None if mark_ns is None or self.sent_ns is None or mark_ns < self.sent_ns else mark_ns - self.sent_ns

    def since_due(self, mark_ns: int | None) -> int | None:
        """Nanoseconds from `due` to a mark: response time, which includes the client's own delay."""
        return None if mark_ns is None else mark_ns - self.due_ns

    def lateness(self) -> int | None:
        """Nanoseconds from `due` to `sent`, without the set-up of a new connection: the client's own delay."""
        late_ns = self.since_due(self.sent_ns)
        return None if late_ns is None else max(0, late_ns - (self.connect_ns or 0))

    def event_gaps(self) -> list[int]:
        """Nanoseconds between consecutive token-bearing events; k events have k - 1 gaps."""
        gaps: list[int] = self.gap_array().tolist()
        return gaps

    def gap_array(self) -> NDArray[np.int64]:
        """The same as an array."""
        stamps: NDArray[np.int64] = np.asarray(self.event_ns)
        return np.subtract(stamps[1:], stamps[:-1])

    def inter_token_latencies(self) -> list[tuple[int, int]]:
        """(ITL in ns, weight in tokens) of each gap: the gap over the tokens of its later event.

        Empty where the tokens per event are unknown: then there are only event gaps.
        """
        tokens = self.event_tokens
        if tokens is None:
            return []
        return [(round(gap / held), held) for gap, held in zip(self.event_gaps(), tokens[1:], strict=True) if held > 0]

    @property
    def has_single_tokens(self) -> bool:
        """Whether each event is known to have one token, as mostly: then its gaps are its inter-token latencies."""
        return self.event_tokens is not None and self.event_tokens == _SINGLE * len(self.event_ns)

    def tpot(self) -> float | None:
        """Time per output token in ns: `(last_token - first_token) / (N - tokens in the first event)`.

        Where the number of tokens in the first event is unknown, it is taken to be one. Tokens that were counted and
        not shown are taken to come before it; where their number is unknown, so is this.
        """
        if self.event_tokens is not None and self.event_tokens:
            return self._per_token(self.event_tokens[0])
        hidden = self.usage.hidden
        return None if hidden is None else self._per_token(1 + hidden)

    def tpot_classic(self) -> float | None:
        """`(E2E - TTFT) / (N - 1)` in ns, as most tools define it."""
        return self._per_token(1)

    def _per_token(self, first: int) -> float | None:
        if self.output_tokens is None or self.first_token_ns is None or self.last_token_ns is None:
            return None
        rest, span_ns = self.output_tokens - first, self.last_token_ns - self.first_token_ns
        # Tokens that came in one read have no pace: how they were spaced is unknown.
        return span_ns / rest if rest >= 1 and span_ns > 0 else None

    def e2e_per_token(self) -> float | None:
        """E2E over N in ns; its inverse is the speed that one user sees, including the wait."""
        e2e = self.since_sent(self.last_token_ns)
        return None if e2e is None or not self.output_tokens else e2e / self.output_tokens
